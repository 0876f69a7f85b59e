// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line: what can be asked, and who answers.

use std::env;
use std::io::{self, Write};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use nlring_vm::Cache;
use nlring_vm::kernel;
use nlring_vm::matrix::{Entry, Matrix, WITH_MUTANT};

use crate::bisect::Bisection;
use crate::coverage;
use crate::error::Error;
use crate::event::Event;
use crate::interrupt;
use crate::lab::{self, Lab};
use crate::lint;
use crate::listing::{self, ListedKernel};
use crate::merge;
use crate::mutant;
use crate::mutants::Court;
use crate::partition::Partition;
use crate::plan::{self, Request, Rounds};
use crate::render::{self, Output};
use crate::report::{self, Report, summary};
use crate::repro::Recipe;
use crate::room::Room;
use crate::run::Run;
use crate::tree::Tree;
use crate::{doctor, gdb, seed, shell};

/// In lines that a terminal of 80 columns does not break.
const STATUSES: &str = "\
Exit status:
  0      all is well; run, merge: every case passed or was skipped
  1      run, merge: a case failed; mutants: one survived;
         doctor: a run cannot work like this; lint: there are complaints
  2      wrong usage: unknown option, kernel or group, a report directory that
         cannot be written; merge: a report that cannot be read, or is of
         another kernel than the others; bisect: the case does not fail, or
         does not pass, where it must
  3      infra: no VM, VM lost, no word from the guest, no kernel, a missing
         package, no disk space, no memory for a VM;
         run, merge: no case failed, and at least one has no verdict;
         mutants: none survived, and at least one could not be built or has no
         verdict
  4      nothing selected: no case matches a FILTER, or all of them together;
         no mutant has this NAME
  128+N  ended by signal N, as 130 by Ctrl-C;
         run: what was finished is in the report";

/// Memory-mapped netlink, proved in virtual machines.
#[derive(Debug, Parser)]
#[command(name = "nlring", version, after_help = STATUSES, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check that everything is here that a run needs
    #[command(after_help = STATUSES)]
    Doctor,
    /// List the cases
    #[command(after_help = STATUSES)]
    List {
        /// Print an array of `{name, group, kernels, topology, expects_splat}`
        #[arg(long)]
        json: bool,
        /// Print cases/COVERAGE.md: which cases prove a clause of the contract, which mutants break it
        #[arg(long, conflicts_with = "json")]
        coverage: bool,
    },
    /// List or build the kernels of kernel-config/kernels.toml
    #[command(subcommand, after_help = STATUSES)]
    Kernel(KernelCommand),
    /// Run cases, each in a VM of its own, and report their verdicts
    #[command(after_help = STATUSES)]
    Run(RunArguments),
    /// Run a case again that did not pass: on the same kernel, in the same network, with the same seed
    #[command(after_help = STATUSES)]
    Repro(ReproArguments),
    /// Build the series with a fault in it, run the cases that should see it, and say whether they do:
    /// for each fault of kernel-config/mutants
    #[command(after_help = STATUSES)]
    Mutants(MutantsArguments),
    /// Make one report of several: of a run split over machines by --partition, or of sittings with
    /// --repeat. Counts are added up; a kernel of one name must be the same in all of them
    #[command(after_help = STATUSES)]
    Merge(MergeArguments),
    /// Find the patch of the series that makes a case fail, by running it on kernels with the first N patches
    #[command(after_help = STATUSES)]
    Bisect(BisectArguments),
    /// Open a shell on a kernel, in a VM on this machine's own file system, where only /tmp and the like can be
    /// written, for the VM alone; the series' selftest (`netlink_mmap`) and the ring library's examples, if they
    /// are built, are in PATH. Ends with the status of that shell, or of COMMAND
    #[command(after_help = STATUSES)]
    Shell(PersonArguments),
    /// Debug a kernel with gdb, in such a VM; gdb begins when the kernel is up and no program has run.
    /// Ends with the status of gdb
    #[command(after_help = STATUSES)]
    Gdb(PersonArguments),
}

#[derive(Debug, Subcommand)]
enum KernelCommand {
    /// List the kernels, and whether they are built
    #[command(after_help = STATUSES)]
    List {
        /// Their names; none: all
        kernels: Vec<String>,
        /// Print an array of `{name, base, fragments, ringed, cached}`
        #[arg(long)]
        json: bool,
        /// Print the directory in which each is, or would be when built: a path of the cache, named by all
        /// that the kernel is made of, for whoever keeps kernels elsewhere, as CI does
        #[arg(long, conflicts_with = "json")]
        paths: bool,
    },
    /// Build kernels; one that is built and whose source, patches, configuration and compiler have not
    /// changed since is not built again
    #[command(after_help = STATUSES)]
    Build {
        /// Their names; none: all but those that are for a group of cases only, or for debugging
        kernels: Vec<String>,
        /// With the fault of kernel-config/mutants/M.patch in the series
        #[arg(long, value_name = "M", requires = "kernels")]
        mutant: Option<String>,
    },
    /// Judge the series patch by patch: each must build with and without the option, and compiler (W=1),
    /// sparse, kernel-doc and checkpatch --strict must not say anything new; without the option the
    /// text of `af_netlink.o` must not grow. What was clean is not judged again until it changes
    #[command(after_help = STATUSES)]
    Lint {
        /// On this base; may be given again [default: on all of them]
        #[arg(long = "base", value_name = "B")]
        bases: Vec<String>,
    },
}

/// How VMs are run, whatever for.
#[derive(Debug, Args)]
struct Manner {
    /// VMs at once, at most: fewer run where memory is short, or a case asks to run alone
    #[arg(long, value_name = "N", default_value_t = default_jobs())]
    jobs: NonZeroUsize,
    /// Seed of everything random [default: a random one, printed]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(..1 << 53))]
    seed: Option<u64>,
}

#[derive(Debug, Args)]
struct RunArguments {
    /// Run cases whose `group::name` contains FILTER, or another FILTER; none: all
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
    /// Run on this kernel, or on K+M: with the fault of kernel-config/mutants/M.patch; skip what it
    /// cannot run [default: for each case the first in the matrix that has what it needs]
    #[arg(long, value_name = "K")]
    kernel: Option<String>,
    /// Run only the cases of this group
    #[arg(long, value_name = "G")]
    group: Option<String>,
    #[command(flatten)]
    manner: Manner,
    /// Run each case N times with different seeds, up to 20 in one VM, and report how often it passed
    #[arg(long, value_name = "N", default_value = "1")]
    repeat: NonZeroU32,
    /// Boot each VM rather than let it go on from a snapshot of the first that is like it
    #[arg(long)]
    cold: bool,
    /// Run only part i of n, as 1/2
    #[arg(long, value_name = "i/n")]
    partition: Option<Partition>,
    /// Write the report to this directory [default: target/nlring-report in the source tree]
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Print the content of results.json on standard output, and everything else on standard error
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ReproArguments {
    /// Its folder in a report
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Run it on this tree's kernel of that name, whether it is the same or not
    #[arg(long)]
    any_kernel: bool,
    /// Run it N times with different seeds, of which the first is the same
    #[arg(long, value_name = "N", default_value = "1")]
    repeat: NonZeroU32,
    /// Write the report to this directory [default: target/nlring-report/repro in the source tree]
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Print the content of results.json on standard output, and everything else on standard error
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct MergeArguments {
    /// A report's directory, or its results.json
    #[arg(value_name = "REPORT", required = true)]
    reports: Vec<PathBuf>,
    /// Write the merged report to this directory [default: target/nlring-report/merged in the source tree]
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Print the content of results.json on standard output, and everything else on standard error
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct BisectArguments {
    /// The case, or its folder in a report, which says kernel and seed
    #[arg(value_name = "CASE")]
    case: String,
    /// On this kernel [default: the first in the matrix that has what the case needs]
    #[arg(long, value_name = "K")]
    kernel: Option<String>,
    /// It passes with the first N patches [default: found out]
    #[arg(long, value_name = "N")]
    good: Option<usize>,
    /// It fails with the first M patches [default: with all]
    #[arg(long, value_name = "M")]
    bad: Option<usize>,
    /// Seed of everything random [default: that in the folder, else a random one, printed]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(..1 << 53))]
    seed: Option<u64>,
    /// Run it N times with different seeds on each; it fails if it does so once
    #[arg(long, value_name = "N", default_value = "1")]
    repeat: NonZeroU32,
    /// Write the report of each run to a directory of its kernel's name in this one [default:
    /// target/nlring-report/bisect in the source tree]
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct PersonArguments {
    /// On this kernel [default: the first in the matrix that has rings]
    #[arg(long, value_name = "K")]
    kernel: Option<String>,
    /// Have the guest's shell run this. For `shell`, rather than reading commands, and its exit status is that
    /// of nlring; for `gdb`, as soon as the guest is up
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    command: Vec<String>,
}

#[derive(Debug, Args)]
struct MutantsArguments {
    /// Judge only the mutants of these names; none: all
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// List the mutants: what each breaks, and the cases that should see it
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    manner: Manner,
    /// Run each case N times on each mutant, which is killed if it is killed in each round
    #[arg(long, value_name = "N", default_value = "1")]
    repeat: NonZeroU32,
    /// Judge only part i of n, as 1/2
    #[arg(long, value_name = "i/n")]
    partition: Option<Partition>,
    /// Write the report of each mutant to a directory of its name in this one [default:
    /// target/nlring-report/mutants in the source tree]
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Print `{mutants: [{name, killed, by, detail}], totals: {killed, survived, unjudged}}` on standard
    /// output, and everything else on standard error; with --list, an array of
    /// `{name, subject, breaks, seen_by, kernel}`
    #[arg(long)]
    json: bool,
}

/// As many VMs as there are CPUs, although each has two: a guest boots on one, and seldom keeps both busy
/// (measured on 2 CPUs under TCG: two at once take two thirds of the time of one after the other).
fn default_jobs() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

impl Cli {
    /// Answers; the exit status.
    pub fn answer(self) -> Result<u8, Error> {
        let tree = Tree::find()?;
        match self.command {
            Command::Doctor => {
                let diagnosis = doctor::examine(&tree);
                print(&diagnosis.to_string())?;
                Ok(u8::from(!diagnosis.is_healthy()))
            }
            Command::List { coverage: true, .. } => {
                let (clauses, cases) = (nlring_cases::clause::SECTIONS, nlring_cases::all());
                print(&coverage::markdown(clauses, cases, &mutant::all(&tree)?))?;
                Ok(0)
            }
            Command::List { json, .. } => {
                let listed = listing::cases(nlring_cases::all(), &lab::candidates(&tree, None)?);
                print(&if json {
                    report::json(&listed)
                } else {
                    listing::cases_table(&listed) + "\n"
                })?;
                Ok(0)
            }
            Command::Kernel(KernelCommand::List {
                kernels,
                paths: true,
                ..
            }) => list_paths(&tree, &kernels),
            Command::Kernel(KernelCommand::List { kernels, json, .. }) => {
                list_kernels(&tree, &kernels, json)
            }
            Command::Kernel(KernelCommand::Build { kernels, mutant }) => {
                build_kernels(&tree, kernels, mutant.as_deref())
            }
            Command::Kernel(KernelCommand::Lint { bases }) => {
                end_on_signals()?;
                let is_clean = lint::series(&tree, &bases, &mut io::stdout())?;
                Ok(u8::from(!is_clean))
            }
            Command::Run(arguments) => run(&tree, arguments),
            Command::Repro(arguments) => repro(&tree, arguments),
            Command::Mutants(arguments) => mutants(&tree, arguments),
            Command::Merge(arguments) => merge_reports(&tree, arguments),
            Command::Bisect(arguments) => bisect(&tree, &arguments),
            Command::Shell(PersonArguments { kernel, command }) => {
                shell::run(&tree, kernel.as_deref(), &command)
            }
            Command::Gdb(PersonArguments { kernel, command }) => {
                gdb::run(&tree, kernel.as_deref(), &command)
            }
        }
    }
}

/// The kernels of these names; of none, all.
fn entries(tree: &Tree, names: &[String]) -> Result<Vec<Entry>, Error> {
    let matrix = Matrix::load(tree.root())?;
    if names.is_empty() {
        return Ok(matrix.entries().to_vec());
    }
    let found = names.iter().map(|name| matrix.find(name));
    Ok(found.collect::<Result<_, _>>()?)
}

fn list_kernels(tree: &Tree, names: &[String], json: bool) -> Result<u8, Error> {
    let cache = Cache::open()?;
    let listed: Vec<ListedKernel> = entries(tree, names)?
        .iter()
        .map(|entry| {
            // Whatever keeps a kernel from being looked up keeps it from being built, and is told there.
            let cached = kernel::cached(&cache, tree.root(), entry).ok().flatten();
            ListedKernel::of(entry, cached.map(|built| built.release))
        })
        .collect();
    print(&if json {
        report::json(&listed)
    } else {
        listing::kernels_table(&listed) + "\n"
    })?;
    Ok(0)
}

fn list_paths(tree: &Tree, names: &[String]) -> Result<u8, Error> {
    let cache = Cache::open()?;
    for entry in entries(tree, names)? {
        let path = kernel::place(&cache, tree.root(), &entry)?;
        print(&format!("{}\n", path.display()))?;
    }
    Ok(0)
}

fn build_kernels(tree: &Tree, mut names: Vec<String>, mutant: Option<&str>) -> Result<u8, Error> {
    let matrix = Matrix::load(tree.root())?;
    if let Some(mutant) = mutant {
        for name in &mut names {
            *name = format!("{name}{WITH_MUTANT}{mutant}");
        }
    }
    for name in &names {
        matrix.find(name)?;
    }
    let cache = Cache::open()?;
    if names.is_empty() {
        names = matrix
            .entries()
            .iter()
            .filter(|entry| entry.group.is_none() && !entry.debug)
            .map(|entry| entry.name.clone())
            .collect();
    }
    end_on_signals()?;
    let mut renderer = render::choose(Output::Person);
    for name in names {
        lab::build_kernel(tree, &cache, &name, &mut |event| renderer.show(&event))?;
    }
    Ok(0)
}

/// Nothing needs to be put in order: the cache is never half-written.
fn end_on_signals() -> Result<(), Error> {
    interrupt::watch(|signal| std::process::exit(128 + signal)).map_err(Error::Output)
}

fn run(tree: &Tree, arguments: RunArguments) -> Result<u8, Error> {
    let seed = arguments.manner.seed.unwrap_or_else(seed::random);
    let request = Request {
        filters: &arguments.filters,
        group: arguments.group.as_deref(),
        kernel: arguments.kernel.as_deref(),
        partition: arguments.partition,
        rounds: Rounds {
            seed,
            repeat: arguments.repeat.get(),
            cold: arguments.cold,
        },
    };
    let candidates = lab::candidates(tree, request.kernel)?;
    let plan = plan::plan(nlring_cases::all(), &candidates, &request)?;
    let report = Report::open(&arguments.report.unwrap_or_else(|| tree.default_report()))?;
    let output = Output::of(arguments.json);
    let mut renderer = render::choose(output);
    let prepare = Lab::preparation(tree, &plan);
    let outcome = Run {
        plan,
        seed,
        room: Room::here(arguments.manner.jobs.get()),
        report,
        root: tree.root().to_owned(),
    }
    .carry_out(prepare, renderer.as_mut());
    drop(renderer);
    let results = outcome?;
    summarise(&summary::of_run(&results))?;
    if arguments.json {
        print(&report::json(&results))?;
    }
    Ok(results.totals.exit_status())
}

fn repro(tree: &Tree, arguments: ReproArguments) -> Result<u8, Error> {
    let recipe = Recipe::read(&arguments.path)?;
    let kernel = recipe.kernel.name.as_str();
    if !arguments.any_kernel {
        let mut renderer = render::choose(Output::of(arguments.json));
        let cache = Cache::open()?;
        let built = lab::build_kernel(tree, &cache, kernel, &mut |event| renderer.show(&event))?;
        recipe.admits(&lab::describe(&built))?;
    }
    let report = tree.default_report().join("repro");
    run(
        tree,
        RunArguments {
            filters: vec![recipe.case.clone()],
            kernel: Some(kernel.to_owned()),
            group: None,
            manner: Manner {
                jobs: NonZeroUsize::MIN,
                seed: Some(recipe.seed),
            },
            repeat: arguments.repeat,
            cold: recipe.cold,
            partition: None,
            report: Some(arguments.report.unwrap_or(report)),
            json: arguments.json,
        },
    )
}

fn mutants(tree: &Tree, arguments: MutantsArguments) -> Result<u8, Error> {
    let mut chosen = mutant::chosen(mutant::all(tree)?, &arguments.names)?;
    if let Some(partition) = arguments.partition {
        chosen = partition.take(chosen);
    }
    if chosen.is_empty() {
        return Err(Error::NoMutant);
    }
    if arguments.list {
        print(&if arguments.json {
            report::json(&chosen)
        } else {
            listing::mutants_table(&chosen) + "\n"
        })?;
        return Ok(0);
    }
    let output = Output::of(arguments.json);
    let report = tree.default_report().join("mutants");
    let court = Court {
        tree: tree.clone(),
        jobs: arguments.manner.jobs,
        seed: arguments.manner.seed.unwrap_or_else(seed::random),
        repeat: arguments.repeat.get(),
        report: arguments.report.unwrap_or(report),
        output,
    };
    let mut say = |line: &str| match output {
        Output::Person => print(&format!("{line}\n")),
        Output::Program => {
            eprintln!("{line}");
            Ok(())
        }
    };
    let judgement = court.judge(&chosen, &mut say)?;
    summarise(&summary::of_mutants(&judgement))?;
    if arguments.json {
        print(&report::json(&judgement))?;
    } else {
        print(&format!("{}\n", judgement.totals))?;
    }
    Ok(judgement.exit_status())
}

fn merge_reports(tree: &Tree, arguments: MergeArguments) -> Result<u8, Error> {
    let directory = arguments.report;
    let report = Report::open(&directory.unwrap_or_else(|| tree.default_report().join("merged")))?;
    let results = merge::merge(&arguments.reports, &report)?;
    let mut renderer = render::choose(Output::of(arguments.json));
    for (index, case) in results.cases.iter().enumerate() {
        if case.is_trouble() {
            renderer.show(&Event::Judged {
                index,
                result: case.clone(),
                rounds: 1,
                again: case.again().unwrap_or("not told").to_owned(),
            });
        }
    }
    renderer.show(&Event::Reported {
        results: results.clone(),
        directory: report.directory().to_owned(),
    });
    drop(renderer);
    summarise(&summary::of_run(&results))?;
    if arguments.json {
        print(&report::json(&results))?;
    }
    Ok(results.totals.exit_status())
}

/// Tells GitHub, where that asks.
fn summarise(summary: &str) -> Result<(), Error> {
    summary::append(summary, env::var_os(summary::VARIABLE).as_deref())
}

fn bisect(tree: &Tree, arguments: &BisectArguments) -> Result<u8, Error> {
    let recipe = Path::new(&arguments.case).exists();
    let recipe = recipe.then(|| Recipe::read(Path::new(&arguments.case)));
    let recipe = recipe.transpose()?;
    let of_recipe = recipe.as_ref().map(|recipe| recipe.kernel.name.as_str());
    let kernel = arguments.kernel.as_deref().or(of_recipe);
    let seed = arguments.seed.or(recipe.as_ref().map(|recipe| recipe.seed));
    let filter = recipe
        .as_ref()
        .map_or(&arguments.case, |recipe| &recipe.case);
    let rounds = Rounds {
        seed: seed.unwrap_or_else(seed::random),
        repeat: arguments.repeat.get(),
        cold: recipe.as_ref().is_some_and(|recipe| recipe.cold),
    };
    let (case, kernel) = plan::one_case(
        nlring_cases::all(),
        &lab::candidates(tree, kernel)?,
        filter,
        kernel,
    )?;
    let report = tree.default_report().join("bisect");
    let bisection = Bisection {
        tree: tree.clone(),
        case,
        kernel,
        rounds,
        report: arguments.report.clone().unwrap_or(report),
    };
    let mut say = |line: &str| print(&format!("{line}\n"));
    let answer = bisection.carry_out(arguments.good, arguments.bad, &mut say)?;
    say(&answer)?;
    Ok(0)
}

/// Prints; a reader that went away (`| head`) has had enough, which is no error.
fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::Output(error)),
        _ => Ok(()),
    }
}
