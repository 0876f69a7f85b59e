// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which CPU goes on with what a NIC received: RPS, in place of the queues that a hub's NICs have not.

use std::fs;

use anyhow::Context as _;

/// Has this CPU go on with what the near NIC of this pair receives, until it is dropped.
#[derive(Debug)]
pub(crate) struct Steering {
    path: String,
}

impl Steering {
    /// To the CPU of this number.
    pub(crate) fn of(pair: u8, cpu: u32) -> anyhow::Result<Self> {
        let path = format!("/sys/class/net/near{pair}/queues/rx-0/rps_cpus");
        let mask = format!("{:x}", 1_u64 << cpu);
        fs::write(&path, mask).with_context(|| format!("cannot write {path}"))?;
        Ok(Self { path })
    }
}

impl Drop for Steering {
    fn drop(&mut self) {
        let _ = fs::write(&self.path, "0"); // the NIC goes with its VM
    }
}

/// Times that each CPU was told by another to go on with packets so far.
pub(crate) fn received() -> anyhow::Result<Vec<u32>> {
    const PATH: &str = "/proc/net/softnet_stat";
    /// `received_rps`, in hex.
    const FIELD: usize = 9;
    let table = fs::read_to_string(PATH).with_context(|| format!("cannot read {PATH}"))?;
    let count = |line: &str| {
        let field = line.split_whitespace().nth(FIELD);
        u32::from_str_radix(field.unwrap_or_default(), 16)
            .with_context(|| format!("{PATH}: {line}"))
    };
    table.lines().map(count).collect()
}
