// SPDX-License-Identifier: MIT OR Apache-2.0
//! Everything that cases need to run in earnest: kernels, initramfs, accelerator.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::thread;
use std::time::Instant;

use nlring_cases::{Group, Topology, compat};
use nlring_channel::{Job, Outcome};
use nlring_vm::accelerator::Accelerator;
use nlring_vm::kernel::{self, Built};
use nlring_vm::machine::{Config, Vm};
use nlring_vm::matrix::{Entry, Matrix, WITH_FIRST, WITH_MUTANT};
use nlring_vm::shell::{self, Shell};
use nlring_vm::{Cache, VmError, gdb, initramfs, probe, selftests, topology, virtme};

use crate::case_run::{Errand, Guest, Hypervisor, PEER_CONSOLE, Stage, milliseconds};
use crate::couple::Couple;
use crate::error::Error;
use crate::event::{Event, KernelStep};
use crate::examples;
use crate::guest_binary;
use crate::loss::Loss;
use crate::names::group_word;
use crate::packages::{self, Need};
use crate::place::{Candidate, default_kernel};
use crate::plan::{Planned, known_kernel};
use crate::results::{Accel, Kernel};
use crate::run::Prepare;
use crate::snapshots::Snapshots;
use crate::tree::Tree;

/// vCPUs of a VM: two are what it takes to have a race.
const CPUS: u8 = 2;
/// vCPUs of a VM on this machine's file system: scripts do one thing after the other, and where there are
/// more vCPUs than CPUs they wait for each other. Of two VMs at once on 2 CPUs under TCG
/// `fib_rule_tests.sh` takes 42 s with two each, and 9 s with one; `fib_tests.sh` 210 s and 60 s.
const HOST_CPUS: u8 = 1;
/// Memory of a VM, in MiB.
const MEMORY_MIB: u32 = 256;
/// Memory of a VM whose kernel watches itself, in MiB: KASAN alone takes an eighth, and every object is larger.
const DEBUG_MEMORY_MIB: u32 = 1024;
/// Memory of a VM on this machine's file system, in MiB: scripts keep their files in it.
const HOST_MEMORY_MIB: u32 = 1024;

/// The name in the guest of the selftest that the series brings along.
const SELFTEST: &str = "netlink_mmap";

/// Kernels built, guest packed, accelerator known.
#[derive(Debug)]
pub struct Lab {
    root: PathBuf,
    guest: PathBuf,
    kernels: BTreeMap<String, Kitted>,
    /// For kernels of the group `compat`: the selftests of their base.
    selftests: BTreeMap<String, PathBuf>,
    accelerator: Accelerator,
    snapshots: Snapshots,
}

/// What a lab is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// Names of kernels, one at least.
    pub kernels: &'a [String],
    /// Whether the ring library's examples are to be in the guest.
    pub examples: bool,
}

/// A kernel and the file systems that it boots with.
#[derive(Debug)]
struct Kitted {
    kernel: Built,
    initramfs: PathBuf,
    /// The same with the ring library's examples, where they are asked for.
    with_examples: Option<PathBuf>,
}

/// The kernels of the matrix, as planning sees them, and the one that is asked for if it has a mutant, or not
/// all of the series.
pub fn candidates(tree: &Tree, asked: Option<&str>) -> Result<Vec<Candidate>, Error> {
    let matrix = Matrix::load(tree.root())?;
    let candidate = |entry: &Entry| Candidate {
        name: entry.name.clone(),
        base: entry.base.name.clone(),
        series: entry.series,
        ringed: entry.ringed,
        group: entry.group.clone(),
        debug: entry.debug,
    };
    let mut candidates: Vec<_> = matrix.entries().iter().map(candidate).collect();
    if let Some(name) = asked.filter(|name| name.contains([WITH_MUTANT, WITH_FIRST])) {
        candidates.push(candidate(&matrix.find(name)?));
    }
    Ok(candidates)
}

impl Lab {
    /// Makes what is not cached: kernels, the guest binary, the ring library's examples, the initramfs, the
    /// accelerator's answer.
    pub fn prepare(
        tree: &Tree,
        order: Order<'_>,
        on: &mut dyn FnMut(Event),
    ) -> Result<Self, Error> {
        let Order { kernels, examples } = order;
        require("run cases", &[Need::Run])?;
        let cache = Cache::open()?;
        let matrix = Matrix::load(tree.root())?;
        if kernels
            .iter()
            .any(|name| matrix.find(name).is_ok_and(|entry| runs_selftests(&entry)))
        {
            require("run the kernel's own selftests", &[Need::Compat])?;
            virtme::install(tree.root())?;
        }
        // First what fails fast: nobody should wait for a kernel to learn that cargo is missing.
        let guest = guest_binary::ensure(tree, || on(Event::GuestBinary))?;
        let examples = if examples {
            on(Event::Examples);
            Some(examples::ensure(tree)?)
        } else {
            None
        };
        let mut kitted = BTreeMap::new();
        // The accelerator is asked with a kernel as it should be: one that is broken on purpose may hang
        // for reasons of its own.
        let witness = matrix.find(&kernels[0])?.unmutated().to_owned();
        let needed = kernels
            .iter()
            .chain((!kernels.contains(&witness)).then_some(&witness));
        for name in needed {
            let kernel = build_kernel(tree, &cache, name, on)?;
            kitted.insert(
                name.clone(),
                kit_out(&cache, &guest, kernel, examples.as_ref())?,
            );
        }
        let selftests = selftests(tree, &cache, kernels, on)?;
        let witness = &kitted[&witness];
        let mut is_news = false;
        let accelerator = probe::probe(
            &cache,
            &witness.kernel,
            &witness.initramfs,
            &mut |_reason| {
                is_news = true;
            },
        )?;
        let accel = Accel {
            name: accelerator.name.as_str().to_owned(),
            reason: accelerator.reason.clone(),
        };
        on(Event::Accelerator { accel, is_news });
        Ok(Self {
            root: tree.root().to_owned(),
            guest,
            kernels: kitted,
            selftests,
            accelerator,
            snapshots: Snapshots::new(cache)?,
        })
    }

    /// What prepares it for the cases of this plan, when their kernels are known.
    #[must_use]
    pub fn preparation(tree: &Tree, plan: &[Planned]) -> impl Prepare + use<> {
        let tree = tree.clone();
        let examples = plan
            .iter()
            .any(|planned| planned.case.group.runs_examples());
        move |kernels: &[String], on: &mut dyn FnMut(Event)| {
            let order = Order { kernels, examples };
            let lab = Self::prepare(&tree, order, on)?;
            Ok(Box::new(lab) as Box<dyn Hypervisor>)
        }
    }

    fn start_bare(
        &self,
        kitted: &Kitted,
        examples: bool,
        (topology, cable): (topology::Topology, Option<BorrowedFd<'_>>),
        cold: bool,
        console: &Path,
    ) -> Result<Vm, VmError> {
        let kernel = &kitted.kernel;
        let initramfs = match &kitted.with_examples {
            Some(initramfs) if examples => initramfs,
            _ => &kitted.initramfs,
        };
        let config = Config {
            kernel,
            initramfs,
            accelerator: &self.accelerator,
            topology,
            cable,
            cpus: CPUS,
            memory_mib: bare_memory_mib(kernel),
            console,
            captures: console.parent(),
        };
        if cold {
            Vm::boot(&config)
        } else {
            self.snapshots.start(&config)
        }
    }

    fn boot_on_host(&self, kernel: &Built, console: &Path) -> Result<Vm, VmError> {
        virtme::boot(&virtme::Config {
            machine: self.on_host(kernel, console),
            agent: &self.guest,
            environment: &[(compat::DIRECTORY, &self.selftests[&kernel.name])],
        })
    }

    /// The same for a person, who works on `kernel` in a VM on this machine's file system and may name none, and
    /// for `what` needs these; the kernel's name.
    pub fn prepare_for_person(
        tree: &Tree,
        kernel: Option<&str>,
        (what, needs): (&'static str, &[Need]),
        on: &mut dyn FnMut(Event),
    ) -> Result<(Self, String), Error> {
        let candidates = candidates(tree, kernel)?;
        let name = match kernel {
            Some(name) => known_kernel(&candidates, name)?,
            None => default_kernel(&candidates).ok_or_else(|| Error::UnknownKernel {
                name: String::from("with memory-mapped netlink, for all cases"),
                known: candidates
                    .iter()
                    .map(|kernel| kernel.name.clone())
                    .collect(),
            })?,
        };
        require(what, needs)?;
        let kernels = [name.name.clone()];
        virtme::install(tree.root())?;
        let order = Order {
            kernels: &kernels,
            examples: false,
        };
        let lab = Self::prepare(tree, order, on)?;
        let [name] = kernels;
        Ok((lab, name))
    }

    /// A VM on this machine's file system, with a session in it.
    pub fn shell(
        &self,
        kernel: &str,
        session: &shell::Session<'_>,
        console: &Path,
    ) -> Result<Shell, Error> {
        let machine = self.on_host(&self.kernels[kernel].kernel, console);
        Ok(Shell::boot(&machine, session)?)
    }

    /// Such a VM, in the hands of gdb.
    pub fn debug(
        &self,
        kernel: &str,
        session: &gdb::Session<'_>,
        console: &Path,
    ) -> Result<ExitStatus, Error> {
        let machine = self.on_host(&self.kernels[kernel].kernel, console);
        Ok(gdb::debug(&machine, session)?)
    }

    /// Directories with programs that a person may want to run on `kernel`, separated by colons: the series'
    /// selftest, and the ring library's examples where they are built.
    #[must_use]
    pub fn path(&self, kernel: &str) -> String {
        let kitted = &self.kernels[kernel].kernel;
        let selftest = kitted.selftest.as_ref().and_then(|path| path.parent());
        let examples = self.guest.parent().map(|built| built.join("examples"));
        let directories = selftest.map(Path::to_owned).into_iter().chain(examples);
        let texts = directories.map(|directory| directory.display().to_string());
        texts.collect::<Vec<_>>().join(":")
    }

    fn on_host<'a>(&'a self, kernel: &'a Built, console: &'a Path) -> virtme::Machine<'a> {
        virtme::Machine {
            root: &self.root,
            kernel,
            accelerator: &self.accelerator,
            cpus: HOST_CPUS,
            memory_mib: HOST_MEMORY_MIB,
            console,
        }
    }
}

/// Memory of a VM with nothing in it but the guest binary, in MiB.
fn bare_memory_mib(kernel: &Built) -> u32 {
    if kernel.debug {
        DEBUG_MEMORY_MIB
    } else {
        MEMORY_MIB
    }
}

/// Packs what this kernel boots with.
fn kit_out(
    cache: &Cache,
    guest: &Path,
    kernel: Built,
    examples: Option<&BTreeMap<String, PathBuf>>,
) -> Result<Kitted, VmError> {
    let selftest = kernel.selftest.clone();
    let mut programs: BTreeMap<_, _> = selftest
        .map(|selftest| (SELFTEST.to_owned(), selftest))
        .into_iter()
        .collect();
    let initramfs = initramfs::pack(cache, guest, &programs)?;
    let with_examples = examples
        .map(|examples| {
            programs.extend(examples.clone());
            initramfs::pack(cache, guest, &programs)
        })
        .transpose()?;
    Ok(Kitted {
        kernel,
        initramfs,
        with_examples,
    })
}

/// Whether it is for the group whose cases are the kernel's own selftests.
fn runs_selftests(entry: &Entry) -> bool {
    entry.group == Some(group_word(Group::Compat))
}

/// The selftests of the bases of those of `kernels` that are for the group `compat`.
fn selftests(
    tree: &Tree,
    cache: &Cache,
    kernels: &[String],
    on: &mut dyn FnMut(Event),
) -> Result<BTreeMap<String, PathBuf>, Error> {
    let matrix = Matrix::load(tree.root())?;
    let mut programs: Vec<&str> = compat::all()
        .flat_map(|selftest| selftest.helpers.split(','))
        .filter(|helper| !helper.is_empty())
        .collect();
    programs.sort_unstable();
    programs.dedup();
    let mut found = BTreeMap::new();
    for name in kernels {
        let entry = matrix.find(name)?;
        if runs_selftests(&entry) {
            let mut on_step = |event| {
                on(Event::Kernel {
                    name: name.clone(),
                    step: step(event),
                });
            };
            let directory =
                selftests::install(cache, &entry, &compat::HOMES, &programs, &mut on_step)?;
            found.insert(name.clone(), directory);
        }
    }
    Ok(found)
}

/// The kernel `name`, from the cache or built now.
pub fn build_kernel(
    tree: &Tree,
    cache: &Cache,
    name: &str,
    on: &mut dyn FnMut(Event),
) -> Result<Built, Error> {
    let matrix = Matrix::load(tree.root())?;
    let entry = matrix.find(name)?;
    let begun = Instant::now();
    let cached = kernel::cached(cache, tree.root(), &entry)?;
    let (built, built_in) = if let Some(built) = cached {
        (built, None)
    } else {
        require("build a kernel", &[Need::Build, Need::Kernel])?;
        let mut on_step = |event| {
            on(Event::Kernel {
                name: name.to_owned(),
                step: step(event),
            });
        };
        let built = kernel::build(cache, tree.root(), &entry, &mut on_step)?;
        (built, Some(begun.elapsed()))
    };
    on(Event::KernelReady {
        kernel: describe(&built),
        built_in,
    });
    Ok(built)
}

/// Refuses to begin `what` without the packages that it needs.
pub fn require(what: &'static str, needs: &[Need]) -> Result<(), Error> {
    let missing = packages::missing(needs);
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Error::MissingPackages { what, missing })
    }
}

/// What a kernel is known by.
#[must_use]
pub fn describe(built: &Built) -> Kernel {
    Kernel {
        name: built.name.clone(),
        release: built.release.clone(),
        base: built.base.clone(),
        series_sha256: built.series_sha256.clone(),
        config_sha256: built.config_sha256.clone(),
        compiler: built.compiler.clone(),
    }
}

fn step(event: kernel::Event) -> KernelStep {
    match event {
        kernel::Event::Phase(phase) => KernelStep::Phase(match phase {
            kernel::Phase::Fetch => "fetching the source",
            kernel::Phase::Unpack => "unpacking",
            kernel::Phase::Patch => "applying the series",
            kernel::Phase::Configure => "configuring",
            kernel::Phase::Compile => "compiling",
            kernel::Phase::Selftest => "building its selftest",
            kernel::Phase::Store => "storing",
        }),
        kernel::Event::Steps { done, total, what } => KernelStep::Progress { done, total, what },
        kernel::Event::Waiting => {
            KernelStep::Waiting(String::from("another process is building it"))
        }
    }
}

impl Hypervisor for Lab {
    fn start(&self, kernel: &str, stage: Stage, console: &Path) -> Result<Box<dyn Guest>, Loss> {
        let kitted = &self.kernels[kernel];
        let Stage::Bare {
            topology,
            examples,
            cold,
        } = stage
        else {
            let vm = self.boot_on_host(&kitted.kernel, console)?;
            return Ok(Box::new(occupied(
                vm,
                &kitted.kernel,
                topology::Topology::None,
            )?));
        };
        let start = |network, cable: Option<BorrowedFd<'_>>, console: &Path| {
            let vm = self.start_bare(kitted, examples, (network, cable), cold, console)?;
            occupied(vm, &kitted.kernel, network)
        };
        let network = match topology {
            Topology::None => topology::Topology::None,
            Topology::Pairs(count) => topology::Topology::Pairs(count),
            Topology::Apart => return couple(&start, console),
        };
        Ok(Box::new(start(network, None, console)?))
    }

    fn memory_mib(&self, kernel: &str, stage: Stage) -> u32 {
        match stage {
            Stage::Host => HOST_MEMORY_MIB,
            Stage::Bare { topology, .. } => {
                let vms = if topology == Topology::Apart { 2 } else { 1 };
                vms * bare_memory_mib(&self.kernels[kernel].kernel)
            }
        }
    }

    fn symbols(&self, kernel: &str) -> Option<&Path> {
        Some(&self.kernels[kernel].kernel.vmlinux)
    }

    fn patience(&self, kernel: &str) -> u32 {
        let debug = self.kernels[kernel].kernel.debug;
        nlring_vm::deadline::patience(self.accelerator.name, debug)
    }
}

/// A booted VM, the links that its jobs find, and how many it was given.
struct Occupied {
    vm: Vm,
    links: Vec<nlring_channel::Link>,
    jobs: u32,
}

/// `vm`, if it is of `kernel`.
fn occupied(vm: Vm, kernel: &Built, network: topology::Topology) -> Result<Occupied, Loss> {
    if vm.ready().release != kernel.release {
        return Err(format!(
            "the guest runs {}, but kernel {} was built as {}",
            vm.ready().release,
            kernel.name,
            kernel.release
        )
        .into());
    }
    Ok(Occupied {
        vm,
        links: network.links(),
        jobs: 0,
    })
}

/// Starts a VM in this network, on this cable, its console going to this file.
type Start<'a> =
    dyn Fn(topology::Topology, Option<BorrowedFd<'_>>, &Path) -> Result<Occupied, Loss> + Sync + 'a;

/// Two VMs with a cable between them.
fn couple(start: &Start<'_>, console: &Path) -> Result<Box<dyn Guest>, Loss> {
    let failure = |error| Loss::from(format!("cannot make a cable between two VMs: {error}"));
    let (here, there) = UnixStream::pair().map_err(failure)?;
    let end = |end, cable: &UnixStream, console: &Path| {
        start(topology::Topology::Cable(end), Some(cable.as_fd()), console)
    };
    let (near, far) = thread::scope(|scope| {
        let far = scope.spawn(|| {
            end(
                topology::End::Far,
                &there,
                &console.with_file_name(PEER_CONSOLE),
            )
        });
        let near = end(topology::End::Near, &here, console);
        (near, far.join())
    });
    let far = far.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    Ok(Box::new(Couple {
        near: near?,
        far: far?,
    }))
}

impl Guest for Occupied {
    fn run(&mut self, errand: &Errand<'_>, on_note: &mut dyn FnMut(&str)) -> Result<Outcome, Loss> {
        self.jobs += 1;
        let job = Job {
            number: self.jobs,
            name: errand.name.to_owned(),
            seed: errand.seed,
            deadline_ms: milliseconds(errand.deadline),
            patience: errand.patience,
            links: self.links.clone(),
        };
        self.vm.run(&job, on_note).map_err(Loss::from)
    }

    fn power_off(self: Box<Self>) -> Result<(), Loss> {
        self.vm.power_off().map_err(Loss::from)
    }
}
