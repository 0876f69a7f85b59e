// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo test --features vm`: every case as a test of its own, the way `nlring run` runs it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use libtest_mimic::{Arguments, Failed, Trial};
use nlring_harness::case_run::{Moment, perform};
use nlring_harness::error::Error;
use nlring_harness::event::Event;
use nlring_harness::lab::{self, Lab, Order};
use nlring_harness::names::full_name;
use nlring_harness::place::Place;
use nlring_harness::plan::{self, Planned, Request, Rounds};
use nlring_harness::render::{Lines, Renderer};
use nlring_harness::report::Report;
use nlring_harness::results::CaseResult;
use nlring_harness::room::Room;
use nlring_harness::tree::Tree;
use nlring_harness::verdict::Verdict;

/// Where the VMs of one kernel come from and where their evidence goes: made by the first case that
/// needs it, so that a filter that leaves a kernel out does not build it.
struct Ground {
    lab: Lab,
    report: PathBuf,
}

type Shared =
    Arc<LazyLock<Result<Ground, Error>, Box<dyn FnOnce() -> Result<Ground, Error> + Send>>>;

/// What keeps VMs from taking more memory than there is; their number is that of the test threads.
static ROOM: LazyLock<Room> = LazyLock::new(|| Room::here(usize::MAX));

fn main() {
    let arguments = Arguments::from_args();
    let (tree, plan) = match find_plan() {
        Ok(found) => found,
        Err(error) => {
            eprintln!("infra: {error}");
            std::process::exit(i32::from(error.exit_status()));
        }
    };
    let mut grounds: BTreeMap<String, Shared> = BTreeMap::new();
    let trials: Vec<Trial> = plan
        .into_iter()
        .map(|planned| {
            let ground = planned.kernel().map(|kernel| {
                let ground = grounds.entry(kernel.to_owned()).or_insert_with(|| {
                    let (tree, kernel) = (tree.clone(), kernel.to_owned());
                    Arc::new(LazyLock::new(Box::new(move || prepare(&tree, kernel))))
                });
                Arc::clone(ground)
            });
            Trial::test(full_name(planned.case), move || {
                run(ground.as_ref(), &planned)
            })
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}

fn find_plan() -> Result<(Tree, Vec<Planned>), Error> {
    let tree = Tree::find()?;
    let request = Request {
        filters: &[],
        group: None,
        kernel: None,
        partition: None,
        rounds: Rounds {
            seed: 1,
            repeat: 1,
            cold: false,
        },
    };
    let plan = plan::plan(
        nlring_cases::all(),
        &lab::candidates(&tree, None)?,
        &request,
    )?;
    Ok((tree, plan))
}

fn prepare(tree: &Tree, kernel: String) -> Result<Ground, Error> {
    let report = Report::open(&tree.default_report().join("cargo-test"))?;
    let mut lines = Lines::new(std::io::stderr());
    let order = Order {
        kernels: &[kernel],
        examples: true,
    };
    let lab = Lab::prepare(tree, order, &mut |event: Event| lines.show(&event))?;
    Ok(Ground {
        lab,
        report: report.directory().to_owned(),
    })
}

fn run(ground: Option<&Shared>, planned: &Planned) -> Result<(), Failed> {
    let (Some(ground), Place::On(_)) = (ground, &planned.place) else {
        eprintln!("skip: {}: {:?}", planned.case.name, planned.place);
        return Ok(());
    };
    let ground = LazyLock::force(ground).as_ref();
    let Ground { lab, report } = ground.map_err(|error| format!("infra: {error}"))?;
    let mut judged = None;
    perform(lab, &ROOM, &[planned], report, &mut |_, moment| {
        if let Moment::Judged(result, _) = moment {
            judged = Some(result);
        }
    });
    let result = judged.expect("every round is judged");
    match result.verdict {
        Verdict::Pass => Ok(()),
        Verdict::Skip => {
            eprintln!("skip: {}: {}", result.name, result.detail);
            Ok(())
        }
        Verdict::Fail | Verdict::Infra => Err(Failed::from(story(&result, report))),
    }
}

/// All that a person needs: no rerun for the sake of the text.
fn story(result: &CaseResult, report: &std::path::Path) -> String {
    let kernel = result.kernel.as_deref().unwrap_or("none");
    let mut text = format!(
        "{}: {}\nkernel {kernel}, seed {}",
        result.verdict.word(),
        result.detail,
        result.seed
    );
    for line in &result.evidence {
        text.push_str("\n  ");
        text.push_str(line);
    }
    let folder = report.join(&result.name);
    text + &format!(
        "
evidence is in {}",
        folder.display()
    )
}
