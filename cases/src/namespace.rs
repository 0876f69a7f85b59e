// SPDX-License-Identifier: MIT OR Apache-2.0
//! The other end of the NIC pairs.

use std::fs::File;
use std::io;
use std::thread;

use nix::sched::{CloneFlags, setns};

use crate::Unmet;

/// Where the namespace of the far NICs is kept.
const PEER: &str = "/run/netns/peer";

/// Does something in the peer's namespace, as opening a socket, which then stays there.
pub(crate) fn in_peer<T: Send>(act: impl FnOnce() -> io::Result<T> + Send) -> anyhow::Result<T> {
    let namespace = File::open(PEER)
        .map_err(|error| Unmet(format!("the network namespace {PEER}: {error}")))?;
    // A thread of its own, which takes its namespace with it when it ends.
    let done = thread::scope(|scope| {
        scope
            .spawn(|| {
                setns(&namespace, CloneFlags::CLONE_NEWNET)?;
                act()
            })
            .join()
    });
    match done {
        Ok(result) => Ok(result?),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
