// SPDX-License-Identifier: MIT OR Apache-2.0
//! The virtio port to the host: found by its name, since its number depends on the bus.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use nlring_channel::{FrameError, FrameReader, Outcome, ToGuest};

const NAME: &str = "org.nlring.agent";
const PORTS: &str = "/sys/class/virtio-ports";

/// The port is announced by the host after its driver is up, so it comes a little after PID 1; if it
/// is not there by now there is none.
const APPEARS: Duration = Duration::from_secs(30);

/// A port whose host side is not connected yet reads as ended; the next look comes after this.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Opens the port; it opens only once.
pub(crate) fn open() -> io::Result<File> {
    let until = Instant::now() + APPEARS;
    loop {
        // The device node follows its entry in sysfs after a moment.
        if let Some(device) = find(Path::new(PORTS)).filter(|device| device.exists()) {
            return File::options().read(true).write(true).open(device);
        }
        if Instant::now() >= until {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("no port named {NAME} in {PORTS}"),
            ));
        }
        thread::sleep(LOOK_AGAIN);
    }
}

fn find(ports: &Path) -> Option<PathBuf> {
    let named = |entry: &fs::DirEntry| {
        fs::read_to_string(entry.path().join("name")).is_ok_and(|name| name.trim() == NAME)
    };
    let entry = fs::read_dir(ports).ok()?.flatten().find(named)?;
    Some(Path::new("/dev").join(entry.file_name()))
}

/// What the agent waits for.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// A message.
    Message(ToGuest),
    /// The job of this number has ended.
    Done(u32, Outcome),
    /// The host is of another version.
    Foreign(FrameError),
    /// The host is gone.
    End,
}

/// Reads messages until the port ends or nobody listens.
pub(crate) fn listen(mut port: impl Read, to: &Sender<Arrival>) {
    let (mut reader, mut chunk, mut heard) = (FrameReader::default(), vec![0; 1 << 16], false);
    loop {
        match port.read(&mut chunk) {
            Ok(0) if !heard => thread::sleep(LOOK_AGAIN),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => {
                let _ = to.send(Arrival::End);
                return;
            }
            Ok(count) => {
                heard = true;
                reader.push(&chunk[..count]);
                loop {
                    let arrival = match reader.next_message() {
                        Ok(None) => break,
                        Ok(Some(message)) => Arrival::Message(message),
                        Err(error) => Arrival::Foreign(error),
                    };
                    if to.send(arrival).is_err() {
                        return;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nlring_channel::write_frame;

    #[test]
    fn a_port_is_found_by_its_name_only() {
        let ports = std::env::temp_dir().join(format!("nlring-ports-{}", std::process::id()));
        for (port, name) in [
            ("vport1p1", "org.qemu.guest_agent.0\n"),
            ("vport3p1", "org.nlring.agent\n"),
        ] {
            fs::create_dir_all(ports.join(port)).unwrap();
            fs::write(ports.join(port).join("name"), name).unwrap();
        }
        let found = find(&ports);
        fs::remove_dir_all(&ports).unwrap();
        assert_eq!(found, Some("/dev/vport3p1".into()));
        assert_eq!(find(&ports), None);
    }

    #[test]
    fn messages_are_handed_on_until_the_end() {
        let mut bytes = b"noise".to_vec();
        write_frame(&mut bytes, &ToGuest::Hello { nonce: 7 }).unwrap();
        write_frame(&mut bytes, &"not ours").unwrap();
        write_frame(&mut bytes, &ToGuest::PowerOff).unwrap();
        let (to, inbox) = std::sync::mpsc::channel();
        listen(bytes.as_slice(), &to);
        let arrivals: Vec<_> = inbox.try_iter().collect();
        assert!(matches!(
            arrivals.as_slice(),
            [
                Arrival::Message(ToGuest::Hello { nonce: 7 }),
                Arrival::Foreign(_),
                Arrival::Message(ToGuest::PowerOff),
                Arrival::End
            ]
        ));
    }
}
