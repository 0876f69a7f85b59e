// SPDX-License-Identifier: MIT OR Apache-2.0
//! Boots one kernel many times, hands each VM a job, and says how long boots took and how many hung.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use nlring_vm::accelerator::{Accelerator, Name};
use nlring_vm::deadline::{self, Deadlines};
use nlring_vm::kernel::Built;
use nlring_vm::machine::{Chassis, Config, Host, Vm};
use nlring_vm::topology::Topology;
use nlring_vm::{Cache, Job, VmError, initramfs, probe};

/// Boot a kernel many times; exit status 1 if a boot, its job or its power-off failed.
#[derive(Parser)]
struct Arguments {
    /// The kernel image, entered by PVH
    vmlinux: PathBuf,
    /// The guest: a static program that does any job, as the example `echo_guest`
    guest: PathBuf,
    /// How often
    #[arg(long, default_value_t = 100)]
    boots: u32,
    /// The machine that QEMU plays
    #[arg(long, value_enum, default_value = "microvm")]
    machine: Machine,
    /// Pairs of NICs
    #[arg(long, default_value_t = 1)]
    pairs: u8,
    /// CPUs of the guest
    #[arg(long, default_value_t = 2)]
    cpus: u8,
    /// The console's log, that of the last boot or of the first that failed
    #[arg(long, default_value = "console.log")]
    console: PathBuf,
    /// The QEMU program, instead of the one on the path
    #[arg(long)]
    qemu: Option<PathBuf>,
    /// Ask the probe which accelerator to use, instead of TCG
    #[arg(long)]
    probe: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Machine {
    Microvm,
    MicrovmPcie,
    Q35,
}

fn main() -> ExitCode {
    match boots(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn boots(arguments: &Arguments) -> Result<(), VmError> {
    let cache = Cache::open()?;
    let initramfs = initramfs::pack(&cache, &arguments.guest, &BTreeMap::new())?;
    let unknown = || "given".to_owned();
    let kernel = Built {
        debug: false,
        name: unknown(),
        release: unknown(),
        base: unknown(),
        series_sha256: unknown(),
        config_sha256: unknown(),
        compiler: unknown(),
        vmlinux: arguments.vmlinux.clone(),
        image: arguments.vmlinux.clone(),
        config: PathBuf::new(),
        selftest: None,
        key: unknown(),
    };
    let accelerator = if arguments.probe {
        probe::probe(&cache, &kernel, &initramfs, &mut |reason| {
            println!("{reason}");
        })?
    } else {
        Accelerator {
            name: Name::Tcg,
            reason: "asked for".into(),
        }
    };
    let chassis = match arguments.machine {
        Machine::Microvm => Chassis::Microvm,
        Machine::MicrovmPcie => Chassis::MicrovmPcie,
        Machine::Q35 => Chassis::Q35,
    };
    let qemu = arguments
        .qemu
        .clone()
        .map_or_else(|| Host::find().map(|host| host.qemu), Ok)?;
    let host = Host { qemu, chassis };
    let topology = Topology::Pairs(arguments.pairs);
    let config = Config {
        kernel: &kernel,
        initramfs: &initramfs,
        accelerator: &accelerator,
        topology,
        cpus: arguments.cpus,
        memory_mib: 256,
        console: &arguments.console,
        cable: None,
        captures: None,
    };
    let mut times = Vec::new();
    for number in 1..=arguments.boots {
        times.push(once(&config, &host, number)?);
    }
    times.sort();
    let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f32();
    println!(
        "{} boots, none failed; to the first word: min {:.2} s, median {:.2} s, p95 {:.2} s, max {:.2} s",
        times.len(),
        at(0),
        at(50),
        at(95),
        at(100)
    );
    Ok(())
}

fn once(config: &Config<'_>, host: &Host, number: u32) -> Result<Duration, VmError> {
    let mut vm = Vm::boot_with(
        config,
        host,
        Deadlines::of(config.accelerator.name, config.kernel.debug),
    )?;
    let patience = deadline::patience(config.accelerator.name, config.kernel.debug);
    let job = Job {
        number,
        name: "ping".into(),
        seed: 0,
        deadline_ms: 10_000 * u64::from(patience),
        patience,
        links: config.topology.links(),
    };
    let outcome = vm.run(&job, &mut |note| println!("  {note}"))?;
    let time = vm.boot_time();
    println!(
        "{number}: {:.2} s, {:?}, {:?}: {}",
        time.as_secs_f32(),
        vm.ready(),
        outcome.status,
        outcome.detail
    );
    vm.power_off()?;
    Ok(time)
}
