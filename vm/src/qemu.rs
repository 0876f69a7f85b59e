// SPDX-License-Identifier: MIT OR Apache-2.0
//! The VM as a list of parts. Each part knows what it adds to QEMU's command line and to the
//! kernel's, and nothing of the others.

use std::ffi::OsString;
use std::fmt::Display;
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use crate::accelerator::Name;
use crate::topology::Nic;
use crate::tsc::guest_khz;

/// The name by which the agent finds its port.
pub(crate) const AGENT_PORT: &str = "org.nlring.agent";

/// A part of a VM.
pub(crate) trait Part {
    /// What it adds to QEMU's command line.
    fn host(&self) -> Vec<OsString>;

    /// What it adds to the kernel's.
    fn kernel(&self) -> Option<String> {
        None
    }
}

/// QEMU's arguments for a VM of these parts.
pub(crate) fn arguments(parts: &[Box<dyn Part>]) -> Vec<OsString> {
    let kernel: Vec<_> = parts.iter().filter_map(|part| part.kernel()).collect();
    let mut arguments: Vec<_> = parts.iter().flat_map(|part| part.host()).collect();
    arguments.extend(words(["-append", &kernel.join(" ")]));
    arguments
}

fn words<const N: usize>(words: [&str; N]) -> Vec<OsString> {
    words.map(OsString::from).to_vec()
}

fn option(name: &str, value: impl Display) -> Vec<OsString> {
    words([name, &value.to_string()])
}

/// Which machine QEMU plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chassis {
    /// microvm, devices over virtio-mmio.
    Microvm,
    /// microvm with a PCI Express bus and the devices on it.
    MicrovmPcie,
    /// A whole PC.
    Q35,
}

impl Chassis {
    /// The transport that this machine has for virtio device `kind`.
    fn device(self, kind: &str) -> String {
        match self {
            Self::Microvm => format!("{kind}-device"),
            Self::MicrovmPcie | Self::Q35 => format!("{kind}-pci"),
        }
    }
}

impl Part for Chassis {
    fn host(&self) -> Vec<OsString> {
        // ACPI is what makes power-off work on microvm.
        option(
            "-machine",
            match self {
                Self::Microvm => "microvm,acpi=on,pcie=off,x-option-roms=off,isa-serial=on",
                Self::MicrovmPcie => "microvm,acpi=on,pcie=on,x-option-roms=off,isa-serial=on",
                Self::Q35 => "q35",
            },
        )
    }
}

/// Nothing that was not asked for: no default devices, no configuration of the host's, no display.
pub(crate) struct Bare;

impl Part for Bare {
    fn host(&self) -> Vec<OsString> {
        words(["-nodefaults", "-no-user-config", "-display", "none"])
    }
}

/// What executes the guest's instructions.
pub(crate) struct Execution(pub(crate) Name);

impl Part for Execution {
    fn host(&self) -> Vec<OsString> {
        match self.0 {
            // Without arch-capabilities, which only lists cures: KVM inside a VM can offer that register
            // and then refuse it, and QEMU gives up over it.
            Name::Kvm => words(["-accel", "kvm", "-cpu", "host,-arch-capabilities"]),
            Name::Tcg => words(["-accel", "tcg,thread=multi", "-cpu", "max"]),
        }
    }

    fn kernel(&self) -> Option<String> {
        match self.0 {
            Name::Kvm => None,
            // microvm has nothing to calibrate the TSC against, and one boot in seven hangs over it, so
            // it is told. Without the second word the kernel distrusts it on two CPUs, and counts time
            // in ticks of 4 ms. Under KVM the guest knows by itself.
            //
            // TCG keeps translated code by the address it runs at. With those of programs and libraries
            // chosen at random it translates each of them anew at every start: /bin/true takes 50 ms,
            // and 18 at the same address.
            Name::Tcg => Some(format!(
                "norandmaps tsc_early_khz={} tsc=reliable",
                guest_khz()
            )),
        }
    }
}

/// CPUs.
pub(crate) struct Processors(pub(crate) u8);

impl Part for Processors {
    fn host(&self) -> Vec<OsString> {
        option("-smp", self.0)
    }
}

/// Memory, in MiB.
pub(crate) struct Memory(pub(crate) u32);

impl Part for Memory {
    fn host(&self) -> Vec<OsString> {
        option("-m", self.0)
    }
}

/// The kernel image: an ELF file, entered by PVH, or a bzImage, which the firmware unpacks.
pub(crate) struct Kernel(pub(crate) PathBuf);

impl Part for Kernel {
    fn host(&self) -> Vec<OsString> {
        vec!["-kernel".into(), self.0.clone().into()]
    }
}

/// The guest's file system.
pub(crate) struct Initramfs(pub(crate) PathBuf);

impl Part for Initramfs {
    fn host(&self) -> Vec<OsString> {
        vec!["-initrd".into(), self.0.clone().into()]
    }
}

/// A panic ends the VM: the kernel reboots at once, and QEMU ends instead.
pub(crate) struct EndsOnPanic;

impl Part for EndsOnPanic {
    fn host(&self) -> Vec<OsString> {
        words(["-no-reboot"])
    }

    fn kernel(&self) -> Option<String> {
        Some("panic=-1".to_owned())
    }
}

/// A device by which the kernel tells QEMU of its panic, whatever has become of the console. QEMU is not
/// to end the VM then: the kernel has not said all yet, and ends it by itself.
pub(crate) struct PanicWitness;

impl Part for PanicWitness {
    fn host(&self) -> Vec<OsString> {
        words(["-device", "pvpanic", "-action", "panic=none"])
    }
}

/// What the kernel frees of its socket buffers is overwritten, so that who reads one that is gone does not
/// find it as it was. Of these alone: to overwrite all takes time in every case.
pub(crate) struct PoisonsFreedMessages;

impl Part for PoisonsFreedMessages {
    fn host(&self) -> Vec<OsString> {
        Vec::new()
    }

    fn kernel(&self) -> Option<String> {
        Some("slub_debug=P,skbuff_head_cache".to_owned())
    }
}

/// No terminals of the BSD kind: the kernel would make 256 pairs of them, a fifth of a second.
pub(crate) struct NoLegacyTerminals;

impl Part for NoLegacyTerminals {
    fn host(&self) -> Vec<OsString> {
        Vec::new()
    }

    fn kernel(&self) -> Option<String> {
        Some("pty.legacy_count=0".to_owned())
    }
}

/// The kernel's log, whole, over the UART into a descriptor.
pub(crate) struct Console(pub(crate) RawFd);

impl Part for Console {
    fn host(&self) -> Vec<OsString> {
        let mut arguments = option("-chardev", format!("socket,id=console,fd={}", self.0));
        arguments.extend(words(["-serial", "chardev:console"]));
        arguments
    }

    fn kernel(&self) -> Option<String> {
        Some("console=ttyS0 ignore_loglevel".to_owned())
    }
}

/// QEMU's monitor, which speaks QMP, over a descriptor.
pub(crate) struct MonitorPort(pub(crate) RawFd);

impl Part for MonitorPort {
    fn host(&self) -> Vec<OsString> {
        let mut arguments = option("-chardev", format!("socket,id=monitor,fd={}", self.0));
        arguments.extend(words(["-mon", "chardev=monitor,mode=control"]));
        arguments
    }
}

/// A state that the VM goes on from, read from a descriptor, rather than a boot.
pub(crate) struct Incoming(pub(crate) RawFd);

impl Part for Incoming {
    fn host(&self) -> Vec<OsString> {
        option("-incoming", format!("fd:{}", self.0))
    }
}

/// The agent's channel: a port of a virtio-serial device, over a descriptor.
pub(crate) struct AgentPort(pub(crate) Chassis, pub(crate) RawFd);

impl Part for AgentPort {
    fn host(&self) -> Vec<OsString> {
        let Self(chassis, descriptor) = self;
        let device = chassis.device("virtio-serial");
        [
            option("-chardev", format!("socket,id=agent,fd={descriptor}")),
            option("-device", format!("{device},max_ports=2")),
            option(
                "-device",
                format!("virtserialport,chardev=agent,name={AGENT_PORT}"),
            ),
        ]
        .concat()
    }
}

/// Virtio devices are told of work by a trap rather than by a descriptor that another thread waits
/// for: with the latter virtio-serial can stall when two CPUs of the guest share one of the host.
pub(crate) struct ToldByTrap(pub(crate) Chassis);

impl Part for ToldByTrap {
    fn host(&self) -> Vec<OsString> {
        match self.0 {
            Chassis::Microvm => words([
                "-global",
                "virtio-mmio.ioeventfd=off",
                "-global",
                "virtio-mmio.force-legacy=off",
            ]),
            Chassis::MicrovmPcie | Chassis::Q35 => words(["-global", "virtio-pci.ioeventfd=off"]),
        }
    }
}

/// What a NIC is plugged into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plug {
    /// The hub that it shares with the other one of its pair only.
    Hub,
    /// A cable to another VM: a descriptor of a stream socket.
    Cable(RawFd),
}

/// A NIC.
pub(crate) struct Wire(pub(crate) Chassis, pub(crate) Nic, pub(crate) Plug);

impl Part for Wire {
    fn host(&self) -> Vec<OsString> {
        let Self(chassis, Nic { pair, link }, plug) = self;
        let (device, name, mac) = (chassis.device("virtio-net"), &link.name, &link.mac);
        let rom = if device.ends_with("pci") {
            ",romfile="
        } else {
            ""
        };
        let netdev = match plug {
            Plug::Hub => format!("hubport,id={name},hubid={pair}"),
            Plug::Cable(descriptor) => format!("socket,id={name},fd={descriptor}"),
        };
        [
            option("-netdev", netdev),
            option("-device", format!("{device},netdev={name},mac={mac}{rom}")),
        ]
        .concat()
    }
}

/// What a NIC sends and receives, as a file that `tcpdump -r` reads.
pub(crate) struct Capture(pub(crate) Nic, pub(crate) PathBuf);

impl Part for Capture {
    fn host(&self) -> Vec<OsString> {
        let Self(Nic { link, .. }, path) = self;
        let name = &link.name;
        let mut object =
            OsString::from(format!("filter-dump,id=capture-{name},netdev={name},file="));
        // QEMU ends a value at a comma, unless there are two.
        let path = path.as_os_str().as_bytes().iter();
        let path = path.flat_map(|&byte| std::iter::repeat_n(byte, 1 + usize::from(byte == b',')));
        object.push(OsString::from_vec(path.collect()));
        vec!["-object".into(), object]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Topology;

    #[test]
    fn a_capture_goes_to_any_path() {
        let nic = Topology::Pairs(1).nics().remove(0);
        let capture = Capture(nic, "a,b/near0.pcap".into());
        assert_eq!(
            capture.host(),
            [
                "-object",
                "filter-dump,id=capture-near0,netdev=near0,file=a,,b/near0.pcap"
            ]
        );
    }

    #[test]
    fn the_command_line_is_the_parts_in_order_and_one_kernel_line() {
        let nic = Topology::Pairs(1).nics().remove(1);
        let parts: Vec<Box<dyn Part>> = vec![
            Box::new(EndsOnPanic),
            Box::new(Execution(Name::Tcg)),
            Box::new(Wire(Chassis::Microvm, nic, Plug::Hub)),
        ];
        let line = arguments(&parts).join(" ".as_ref()).into_string().unwrap();
        let expected = "-no-reboot -accel tcg,thread=multi -cpu max -netdev hubport,id=far0,hubid=0 \
             -device virtio-net-device,netdev=far0,mac=52:54:00:09:00:02 -append panic=-1 norandmaps tsc_early_khz=";
        assert!(
            line.starts_with(expected) && line.ends_with(" tsc=reliable"),
            "{line}"
        );
    }

    #[test]
    fn the_tsc_is_not_lied_about_under_kvm() {
        assert_eq!(Execution(Name::Kvm).kernel(), None);
    }
}
