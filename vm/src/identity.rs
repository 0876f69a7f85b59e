// SPDX-License-Identifier: MIT OR Apache-2.0
//! By what a VM, and the host that it runs on, are known to be the same as another time.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::VmError;
use crate::digest::Key;
use crate::machine::{Config, Host, parts};
use crate::qemu::{self, Part};
use crate::tsc::guest_khz;

/// Of a snapshot, what goes on with a counter at another speed measures time wrongly; two measurements of one
/// counter are never that far apart, in kHz.
const SAME_SPEED: u64 = 10_000;

/// The host's kernel, and QEMU, which is known by its file: asking for its version takes longer.
pub(crate) fn of_host(qemu: &Path) -> Result<Key, VmError> {
    let uname = nix::sys::utsname::uname().map_err(|error| {
        VmError::io("cannot ask for the version of", Path::new("/proc/version"))(error.into())
    })?;
    let file = fs::metadata(qemu).map_err(VmError::io("cannot read", qemu))?;
    Ok(Key::default()
        .part(uname.release().as_encoded_bytes())
        .part(uname.version().as_encoded_bytes())
        .part(format!("{} {}", file.size(), file.mtime())))
}

/// All that a VM is made of, so that the state of one can become that of another.
pub(crate) fn of_vm(config: &Config<'_>, host: &Host) -> Result<String, VmError> {
    // Captures are files of the host's; descriptors have any number. That there is a cable shows in the network.
    let config = Config {
        captures: None,
        cable: None,
        ..*config
    };
    let mut parts = parts(&config, host.chassis);
    parts.extend([
        Box::new(qemu::Console(0)) as Box<dyn Part>,
        Box::new(qemu::AgentPort(host.chassis, 0)),
        Box::new(qemu::MonitorPort(0)),
    ]);
    let speed = guest_khz();
    let key = of_host(&host.qemu)?
        .part(processor())
        .part(format!("{:?}", config.topology))
        .part((speed / SAME_SPEED).to_le_bytes())
        .part(&config.kernel.key);
    let arguments = qemu::arguments(&parts).into_iter();
    let arguments = arguments.map(|argument| {
        argument
            .to_string_lossy()
            .replace(&format!("={speed}"), "=")
    });
    Ok(arguments.fold(key, Key::part).finish())
}

/// Model and features of the host's processor, which under KVM are the guest's.
fn processor() -> String {
    let told = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let of_one = told.lines().take_while(|line| !line.is_empty());
    of_one
        .filter(|line| line.starts_with("model name") || line.starts_with("flags"))
        .collect()
}
