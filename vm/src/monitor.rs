// SPDX-License-Identifier: MIT OR Apache-2.0
//! QEMU's monitor: orders to QEMU itself rather than to its guest, by QMP.

use std::io::{self, BufReader};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use qapi::qmp::{self, MigrationStatus};
use qapi::{Qmp, Stream};

/// Between two looks at how a state's writing gets on.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Our end of a monitor that nothing was said to yet.
#[derive(Debug)]
pub(crate) struct Monitor(UnixStream);

impl Monitor {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self(stream)
    }

    /// Has QEMU write the whole state of its guest, which runs on until the last of it and is then paused,
    /// to `file`; calls `meanwhile` then, and lets the guest go on.
    pub(crate) fn save<T>(
        self,
        file: &Path,
        deadline: Duration,
        meanwhile: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let until = Instant::now() + deadline;
        self.0.set_read_timeout(Some(deadline))?;
        self.0.set_write_timeout(Some(deadline))?;
        let writer = self.0.try_clone()?;
        let mut qmp = Qmp::new(Stream::new(BufReader::new(self.0), writer));
        qmp.handshake().map_err(io::Error::other)?;
        let order = qmp::migrate {
            channels: None,
            detach: None,
            resume: None,
            uri: Some(format!("exec:cat >{}", file.display())),
        };
        qmp.execute(&order).map_err(io::Error::other)?;
        loop {
            let progress = qmp
                .execute(&qmp::query_migrate {})
                .map_err(io::Error::other)?;
            match progress.status {
                Some(MigrationStatus::completed) => break,
                Some(MigrationStatus::failed) => {
                    let why = progress
                        .error_desc
                        .unwrap_or_else(|| "it does not say why".into());
                    return Err(io::Error::other(format!("QEMU failed to: {why}")));
                }
                _ if Instant::now() >= until => return Err(io::ErrorKind::TimedOut.into()),
                _ => thread::sleep(LOOK_AGAIN),
            }
        }
        let result = meanwhile()?;
        qmp.execute(&qmp::cont {}).map_err(io::Error::other)?;
        Ok(result)
    }
}
