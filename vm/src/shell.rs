// SPDX-License-Identifier: MIT OR Apache-2.0
//! A VM with a terminal in it, for a person. What `vm/scripts/session` does in the guest is told there.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use crate::VmError;
use crate::digest;
use crate::end::Manner;
use crate::machine::{Subject, Way, socket_pair};
use crate::process::{Qemu, Seen};
use crate::virtme::{Machine, Tmp, ports, quoted};

/// In the source tree.
pub(crate) const SCRIPT: &str = "vm/scripts/session";

/// The console's last word if somebody in the guest had it power off.
const POWER_DOWN: &str = "reboot: Power down";

/// Rows and columns of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// Who uses a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// A person: what is typed is echoed, Ctrl-C is a signal, and lines end by CR and LF.
    Person,
    /// A program, which wants nothing of that.
    Program,
}

impl User {
    /// For stty.
    fn modes(self) -> &'static str {
        match self {
            Self::Person => "",
            Self::Program => "-echo -opost -isig",
        }
    }
}

/// What is to run in the terminal.
#[derive(Debug, Clone, Copy)]
pub struct Session<'a> {
    /// A command for a shell; none: the shell itself, which reads from the terminal.
    pub command: Option<&'a str>,
    /// Directories behind those of the guest's `PATH`, separated by colons.
    pub path: &'a str,
    /// Where to begin, if the guest sees it.
    pub directory: &'a Path,
    /// Who is at the other end of the terminal.
    pub user: User,
    /// Its size at first.
    pub size: Size,
}

/// A VM with a session in it. QEMU ends with it, and with this process.
#[derive(Debug)]
pub struct Shell {
    qemu: Qemu,
    terminal: UnixStream,
    session: UnixStream,
    end: EndMark,
}

impl Shell {
    /// Boots, and returns as the session begins.
    ///
    /// # Errors
    /// virtme-ng is not there, QEMU ends, or the guest says nothing before its deadline.
    pub fn boot(machine: &Machine<'_>, session: &Session<'_>) -> Result<Self, VmError> {
        let start = Instant::now();
        let (ours, port) = socket_pair(machine.console)?;
        let (terminal, terminal_port) = socket_pair(machine.console)?;
        let text = quoted(&machine.root.join(SCRIPT));
        let mut command = machine.command(Tmp::Seen, &[], &text);
        let named = [
            ("org.nlring.session", port.as_raw_fd()),
            ("org.nlring.terminal", terminal_port.as_raw_fd()),
        ];
        ports(&mut command, named);
        let qemu = machine.start(command, named.map(|(_, port)| port).to_vec())?;
        drop((port, terminal_port)); // and with them our copies of QEMU's ends, so that we see it end
        let mut shell = Self {
            qemu,
            terminal,
            session: ours,
            end: EndMark::new(start),
        };
        let deadline = machine.deadlines().boot();
        let told = shell
            .session
            .set_read_timeout(Some(deadline))
            .and_then(|()| (&shell.session).write_all(&shell.words(machine, session)));
        told.map_err(VmError::io("cannot set up a port beside", machine.console))?;
        let mut answer = String::new();
        let seen = match BufReader::new(&shell.session).read_line(&mut answer) {
            Ok(1..) => return Ok(shell),
            Ok(_) => Seen::Closed,
            Err(_) => {
                let waited = start.elapsed().as_secs_f32();
                let what = format!("no word from the guest for {waited:.1} s");
                Seen::Late(Manner::Silence, what)
            }
        };
        let subject = Subject {
            kernel: &machine.kernel.name,
            accelerator: machine.accelerator.name,
            way: Way::Boot,
        };
        Err(shell.qemu.end(&subject.tried(), seen, Vec::new()))
    }

    /// What the script in the guest reads first.
    fn words(&self, machine: &Machine<'_>, session: &Session<'_>) -> Vec<u8> {
        let Size { rows, columns } = session.size;
        let directory = session.directory.display();
        let words = [
            machine.kernel.name.clone(),
            session.path.to_owned(),
            directory.to_string(),
            session.command.unwrap_or_default().to_owned(),
            session.user.modes().to_owned(),
            rows.to_string(),
            columns.to_string(),
            self.end.word.clone(),
        ];
        words
            .iter()
            .flat_map(|word| word.bytes().chain([0]))
            .collect()
    }

    /// What the terminal hears is written to this.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn keyboard(&self) -> io::Result<UnixStream> {
        self.terminal.try_clone()
    }

    /// What is told of a new size of the window.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn window(&self) -> io::Result<Window> {
        self.session.try_clone().map(Window)
    }

    /// Writes what the terminal says to `screen`, until the session ends; its exit status.
    ///
    /// # Errors
    /// The VM is lost, or `screen` refuses.
    pub fn show(&mut self, screen: &mut dyn Write) -> Result<u8, VmError> {
        let mut chunk = [0; 1 << 14];
        loop {
            let count = match self.terminal.read(&mut chunk) {
                Ok(count @ 1..) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(_) | Err(_) => return self.ended(),
            };
            let heard = self.end.hear(&chunk[..count]);
            screen
                .write_all(&heard.said)
                .and_then(|()| screen.flush())
                .map_err(VmError::io("cannot write to", Path::new("/dev/stdout")))?;
            if let Some(status) = heard.status {
                return Ok(status);
            }
        }
    }

    /// The terminal has gone without a word: whoever powered the VM off has left it.
    fn ended(&mut self) -> Result<u8, VmError> {
        let lost = self
            .qemu
            .end("the session was cut off", Seen::Closed, Vec::new());
        match &lost {
            VmError::Ended { end, .. } if end.last.ends_with(POWER_DOWN) => Ok(0),
            _ => Err(lost),
        }
    }
}

/// Tells the guest of the size of the window.
#[derive(Debug)]
pub struct Window(UnixStream);

impl Window {
    /// It has this size now.
    ///
    /// # Errors
    /// QEMU has ended.
    pub fn resize(&self, Size { rows, columns }: Size) -> io::Result<()> {
        (&self.0).write_all(format!("{rows} {columns}\n").as_bytes())
    }
}

/// What ends what the terminal says: NUL, a word that no program says by chance, the exit status, and a newline.
#[derive(Debug)]
struct EndMark {
    word: String,
    /// What may be its beginning.
    held: Vec<u8>,
}

/// What is known of a few bytes.
#[derive(Debug, PartialEq, Eq)]
struct Heard {
    /// Bytes of the terminal's.
    said: Vec<u8>,
    /// The exit status, at the end.
    status: Option<u8>,
}

impl EndMark {
    fn new(moment: Instant) -> Self {
        let mut word = digest::of(format!("{moment:?} {}", std::process::id()));
        word.truncate(16);
        Self {
            word,
            held: Vec::new(),
        }
    }

    fn hear(&mut self, bytes: &[u8]) -> Heard {
        self.held.extend_from_slice(bytes);
        let mark = [b"\0", self.word.as_bytes()].concat();
        let at = (0..self.held.len()).find(|&at| {
            let rest = &self.held[at..];
            rest.starts_with(&mark) || mark.starts_with(rest)
        });
        let rest = self.held.split_off(at.unwrap_or(self.held.len()));
        let status = rest.strip_prefix(&*mark).and_then(|rest| {
            let line = rest.strip_suffix(b"\n")?;
            std::str::from_utf8(line).ok()?.parse().ok()
        });
        Heard {
            said: std::mem::replace(&mut self.held, rest),
            status,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_found_however_it_is_cut_and_nothing_else_is_lost() {
        let mut text = b"a\0b\0\0".to_vec();
        let mark = EndMark::new(Instant::now());
        text.extend(format!("\0{}3", &mark.word[..7]).bytes());
        let said = text.clone();
        text.extend(format!("\0{}42\n", mark.word).bytes());
        for size in 1..=text.len() {
            let mut mark = EndMark {
                word: mark.word.clone(),
                held: Vec::new(),
            };
            let heard: Vec<Heard> = text.chunks(size).map(|chunk| mark.hear(chunk)).collect();
            let (last, before) = heard.split_last().unwrap();
            assert!(before.iter().all(|heard| heard.status.is_none()));
            assert_eq!(last.status, Some(42), "in pieces of {size}");
            let all: Vec<u8> = heard.into_iter().flat_map(|heard| heard.said).collect();
            assert_eq!(all, said, "in pieces of {size}");
        }
    }

    #[test]
    fn two_sessions_have_two_marks() {
        let one = EndMark::new(Instant::now());
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert_ne!(one.word, EndMark::new(Instant::now()).word);
    }
}
