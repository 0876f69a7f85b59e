// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which accelerator works on this machine. `/dev/kvm` that exists, opens and answers can still hang
//! every guest, so the only question that counts is put to it: does this kernel boot?

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::Instant;

use crate::accelerator::{Accelerator, Name};
use crate::cache::write_whole;
use crate::deadline::Deadlines;
use crate::end::Manner;
use crate::kernel::Built;
use crate::machine::{Config, Host, Vm};
use crate::topology::Topology;
use crate::{Cache, VmError, identity};

const DEVICE: &str = "/dev/kvm";

/// Finds out what this kernel runs under here: KVM if it boots under it within 5 s. The answer
/// is remembered by host kernel, QEMU and guest kernel; `say` hears the reason when it is new.
///
/// # Errors
/// QEMU is not installed or cannot be started at all, or the cache cannot be written.
pub fn probe(
    cache: &Cache,
    kernel: &Built,
    initramfs: &Path,
    say: &mut dyn FnMut(&str),
) -> Result<Accelerator, VmError> {
    let host = Host::find()?;
    let note = cache.place("accelerator", &format!("{}.json", key(&host.qemu, kernel)?))?;
    let recall = || {
        fs::read(&note)
            .ok()
            .and_then(|text| serde_json::from_slice::<Accelerator>(&text).ok())
    };
    if let Some(reason) = barred() {
        let found = Accelerator {
            name: Name::Tcg,
            reason,
        };
        return remember(&note, recall().as_ref(), found, say);
    }
    let of_boot = |known: &Accelerator| !known.reason.starts_with(BARRED);
    if let Some(known) = recall().filter(of_boot) {
        return Ok(known);
    }
    let _lock = cache.lock("probe", || ())?;
    if let Some(known) = recall().filter(of_boot) {
        return Ok(known); // by the process that was waited for
    }
    let found = try_kvm(cache, kernel, initramfs, &host)?;
    remember(&note, None, found, say)
}

const BARRED: &str = "no KVM: ";

/// Why KVM is out of the question without trying it.
fn barred() -> Option<String> {
    File::options()
        .read(true)
        .write(true)
        .open(DEVICE)
        .err()
        .map(|error| barred_by(&error))
}

fn barred_by(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!("{BARRED}there is no {DEVICE}: using TCG"),
        io::ErrorKind::PermissionDenied => format!(
            "{BARRED}no permission for {DEVICE}: using TCG; cure: sudo chmod 666 {DEVICE}, or for good a udev rule KERNEL==\"kvm\", MODE=\"0666\""
        ),
        _ => format!("{BARRED}{DEVICE} does not open ({error}): using TCG"),
    }
}

fn try_kvm(
    cache: &Cache,
    kernel: &Built,
    initramfs: &Path,
    host: &Host,
) -> Result<Accelerator, VmError> {
    let console = cache.place("log", "probe.console")?;
    let kvm = Accelerator {
        name: Name::Kvm,
        reason: String::new(),
    };
    let config = Config {
        kernel,
        initramfs,
        accelerator: &kvm,
        topology: Topology::None,
        cpus: 2,
        memory_mib: 256,
        console: &console,
        cable: None,
        captures: None,
    };
    let start = Instant::now();
    let tcg = |what: String| {
        Ok(Accelerator {
            name: Name::Tcg,
            reason: format!("{DEVICE} opens, but {what}: using TCG"),
        })
    };
    match Vm::boot_with(&config, host, Deadlines::of_probe()) {
        Ok(vm) => {
            let (seconds, clock) = (vm.boot_time().as_secs_f32(), vm.ready().clocksource.clone());
            drop(vm);
            Ok(Accelerator {
                name: Name::Kvm,
                reason: format!("the guest answered after {seconds:.1} s, clocksource {clock}"),
            })
        }
        Err(VmError::Ended { end, .. }) if end.manner == Manner::Silence => tcg(format!(
            "the guest said nothing for {:.0} s",
            start.elapsed().as_secs_f32()
        )),
        Err(VmError::Ended { end, .. }) => tcg(format!(
            "the VM was gone after {:.1} s ({}: {})",
            start.elapsed().as_secs_f32(),
            end.manner,
            end.what
        )),
        Err(VmError::Disguised { clocksource, .. }) => {
            tcg(format!("the guest's clocksource is {clocksource}"))
        }
        Err(error) => Err(error),
    }
}

fn remember(
    note: &Path,
    known: Option<&Accelerator>,
    found: Accelerator,
    say: &mut dyn FnMut(&str),
) -> Result<Accelerator, VmError> {
    if known != Some(&found) {
        write_whole(note, &serde_json::to_vec(&found).expect("plain data"))?;
        say(&found.reason);
    }
    Ok(found)
}

/// Everything on which the answer depends.
fn key(qemu: &Path, kernel: &Built) -> Result<String, VmError> {
    Ok(identity::of_host(qemu)?.part(&kernel.key).finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_bars_kvm_is_said_with_its_cure() {
        let permission = barred_by(&io::ErrorKind::PermissionDenied.into());
        assert!(
            permission.contains("chmod 666 /dev/kvm") && permission.contains("udev"),
            "{permission}"
        );
        assert!(barred_by(&io::ErrorKind::NotFound.into()).contains("there is no /dev/kvm"));
    }

    #[test]
    fn a_reason_is_said_once() {
        let directory = tempfile::tempdir().unwrap();
        let note = directory.path().join("note");
        let found = Accelerator {
            name: Name::Tcg,
            reason: "because".into(),
        };
        let mut said = 0;
        for known in [None, Some(&found)] {
            remember(&note, known, found.clone(), &mut |_| said += 1).unwrap();
        }
        assert_eq!(said, 1);
    }
}
