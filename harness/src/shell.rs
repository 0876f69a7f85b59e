// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nlring shell`: a person's terminal, or a program's pipes, joined to a session in a VM.

use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};
use std::thread;

use nlring_vm::shell::{Session, Size, User, Window};
use rustix::termios::{self, OptionalActions, Termios};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};
use signal_hook::iterator::Signals;

use crate::error::Error;
use crate::lab::Lab;
use crate::packages::Need;
use crate::render;
use crate::report::Report;
use crate::tree::Tree;

/// Ctrl-], which so many times in a row ends a VM that does not hear.
const WAY_OUT: (u8, usize) = (0x1d, 3);

/// Ctrl-D, by which a terminal is told that there is no more.
const END_OF_FILE: u8 = 0x04;

/// Of a terminal that does not tell.
const USUAL: Size = Size {
    rows: 24,
    columns: 80,
};

/// Opens a shell on `kernel`, or runs `command` there; its exit status.
pub fn run(tree: &Tree, kernel: Option<&str>, command: &[String]) -> Result<u8, Error> {
    let user = if io::stdin().is_terminal() && io::stdout().is_terminal() {
        User::Person
    } else {
        User::Program
    };
    let desk = Desk::default();
    desk.watch_signals().map_err(Error::Output)?;
    let mut renderer = render::beside_output();
    let need = ("open a shell", &[Need::Run][..]);
    let (lab, kernel) =
        Lab::prepare_for_person(tree, kernel, need, &mut |event| renderer.show(&event))?;
    drop(renderer);

    let report = Report::open(&tree.default_report().join("shell"))?;
    let command = command.join(" ");
    let directory = std::env::current_dir().unwrap_or_else(|_| "/".into());
    let session = Session {
        command: (!command.is_empty()).then_some(&command),
        path: &lab.path(&kernel),
        directory: &directory,
        user,
        size: size(),
    };
    if user == User::Person {
        eprintln!(
            "booting {kernel}; leave by exit or Ctrl-D; Ctrl-] three times ends the VM, whatever it does"
        );
    }
    let console = report.directory().join("console.log");
    let mut shell = lab.shell(&kernel, &session, &console)?;
    let keyboard = shell.keyboard().map_err(Error::Output)?;
    desk.tell(shell.window().map_err(Error::Output)?);
    let _raw = (user == User::Person)
        .then(|| desk.take())
        .transpose()
        .map_err(Error::Output)?;
    let way_out = desk.clone();
    thread::spawn(move || match user {
        User::Person => type_in(io::stdin().lock(), keyboard, || way_out.leave(130)),
        User::Program => feed(io::stdin().lock(), keyboard),
    });
    Ok(shell.show(&mut io::stdout().lock())?)
}

/// The terminal that we are on, which is put back as it was however this ends.
#[derive(Debug, Clone, Default)]
struct Desk {
    before: Arc<OnceLock<Termios>>,
    window: Arc<OnceLock<Window>>,
}

impl Desk {
    /// Has every key go to the guest.
    fn take(&self) -> io::Result<Taken> {
        let before = termios::tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        let _ = self.before.set(before);
        termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Taken(self.clone()))
    }

    fn put_back(&self) {
        if let Some(before) = self.before.get() {
            // A terminal that has gone needs nothing any more.
            let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }

    /// Ends this process, and the VM with it.
    fn leave(&self, status: i32) -> ! {
        self.put_back();
        std::process::exit(status);
    }

    /// Whom to tell of a new size. It may have changed before.
    fn tell(&self, window: Window) {
        let window = self.window.get_or_init(|| window);
        let _ = window.resize(size()); // a guest that has gone is told of elsewhere
    }

    fn watch_signals(&self) -> io::Result<()> {
        let mut signals = Signals::new([SIGWINCH, SIGINT, SIGTERM, SIGHUP])?;
        let desk = self.clone();
        thread::spawn(move || {
            for signal in signals.forever() {
                if signal != SIGWINCH {
                    desk.leave(128 + signal);
                }
                if let Some(window) = desk.window.get() {
                    let _ = window.resize(size());
                }
            }
        });
        Ok(())
    }
}

/// While this is there, keys go to the guest.
struct Taken(Desk);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.put_back();
    }
}

fn size() -> Size {
    match termios::tcgetwinsize(io::stdin()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => Size {
            rows: size.ws_row,
            columns: size.ws_col,
        },
        _ => USUAL,
    }
}

/// Passes keys on until there are no more, or those come that mean the way out.
fn type_in(mut keys: impl Read, mut keyboard: UnixStream, way_out: impl FnOnce()) {
    let (mut chunk, mut pressed) = ([0; 1024], 0);
    while let Ok(count @ 1..) = keys.read(&mut chunk) {
        for &key in &chunk[..count] {
            pressed = if key == WAY_OUT.0 { pressed + 1 } else { 0 };
            if pressed == WAY_OUT.1 {
                return way_out();
            }
        }
        if keyboard.write_all(&chunk[..count]).is_err() {
            return;
        }
    }
}

/// Passes on all that there is to read, and that there is no more.
fn feed(mut input: impl Read, mut keyboard: UnixStream) {
    let (mut chunk, mut last) = ([0; 1024], b'\n');
    while let Ok(count @ 1..) = input.read(&mut chunk) {
        last = chunk[count - 1];
        if keyboard.write_all(&chunk[..count]).is_err() {
            return;
        }
    }
    // Within a line the first one only ends the line.
    let end = [END_OF_FILE; 2];
    let _ = keyboard.write_all(if last == b'\n' { &end[..1] } else { &end });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &[u8]) -> (Vec<u8>, bool) {
        let (keyboard, mut guest) = UnixStream::pair().unwrap();
        let mut left = false;
        type_in(keys, keyboard, || left = true);
        let mut heard = Vec::new();
        guest.read_to_end(&mut heard).unwrap();
        (heard, left)
    }

    #[test]
    fn every_key_is_the_guests_but_three_times_the_way_out() {
        let control_c = b"sleep 9\r\x03\x04";
        assert_eq!(typed(control_c), (control_c.to_vec(), false));
        let now_and_then = b"\x1d\x1dx\x1d";
        assert_eq!(typed(now_and_then), (now_and_then.to_vec(), false));
        assert_eq!(typed(b"\x1d\x1d\x1d"), (Vec::new(), true));
    }

    #[test]
    fn a_program_that_has_no_more_to_say_ends_the_line_and_the_file() {
        for (input, expected) in [("", "\x04"), ("a\n", "a\n\x04"), ("a", "a\x04\x04")] {
            let (keyboard, mut guest) = UnixStream::pair().unwrap();
            feed(input.as_bytes(), keyboard);
            let mut heard = String::new();
            guest.read_to_string(&mut heard).unwrap();
            assert_eq!(heard, expected);
        }
    }
}
