// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which cases are run, on which kernel, with which seed.

use nlring_cases::Case;

use crate::error::Error;
use crate::names::{full_name, group_word, nearest};
use crate::partition::Partition;
use crate::place::{Candidate, Place, place};
use crate::seed;

/// What is asked for, as on the command line.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Cases whose `group::name` contains, or if there is such a case is, one of these; none: all.
    pub filters: &'a [String],
    /// Only this group.
    pub group: Option<&'a str>,
    /// Only on this kernel.
    pub kernel: Option<&'a str>,
    /// Only this part.
    pub partition: Option<Partition>,
    /// How often, and how.
    pub rounds: Rounds,
}

/// How often chosen cases are run, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rounds {
    /// The run's seed.
    pub seed: u64,
    /// How often each case is run.
    pub repeat: u32,
    /// Whether each VM is to be booted, rather than go on from a snapshot of the first that is like it.
    pub cold: bool,
}

/// A case to be run, or to be skipped.
#[derive(Debug, Clone)]
pub struct Planned {
    /// Its place in the plan.
    pub index: usize,
    /// The case.
    pub case: &'static Case,
    /// Where.
    pub place: Place,
    /// The run's seed that has this repetition as its first.
    pub base_seed: u64,
    /// The case's seed.
    pub seed: u64,
    /// Which repetition; the first is 0.
    pub repetition: u32,
    /// Whether its VM is to be booted.
    pub cold: bool,
}

impl Planned {
    /// The kernel it runs on, or should have.
    #[must_use]
    pub fn kernel(&self) -> Option<&str> {
        match &self.place {
            Place::On(kernel) => Some(kernel),
            Place::Across(trio) => Some(&trio.ringed),
            Place::Nowhere { kernel, .. } => kernel.as_deref(),
        }
    }

    /// The folder of its evidence in a report.
    #[must_use]
    pub fn folder(&self) -> String {
        match self.repetition {
            0 => self.case.name.to_owned(),
            repetition => format!("{}.{}", self.case.name, repetition + 1),
        }
    }

    /// The command that runs it again, alone and with the same seed.
    #[must_use]
    pub fn again(&self) -> String {
        let kernel = self
            .kernel()
            .map(|kernel| format!(" --kernel {kernel}"))
            .unwrap_or_default();
        let name = if self.case.group.is_on_request() {
            full_name(self.case)
        } else {
            self.case.name.to_owned()
        };
        let cold = if self.cold { " --cold" } else { "" };
        let seed = self.base_seed;
        format!("ci/nlring run {name}{kernel}{cold} --seed {seed}")
    }
}

/// Chooses cases of `cases` and a kernel for each: the one asked for, else the first of `matrix` that
/// has what the case needs.
pub fn plan(
    cases: &'static [Case],
    matrix: &[Candidate],
    request: &Request<'_>,
) -> Result<Vec<Planned>, Error> {
    let asked = request
        .kernel
        .map(|name| known_kernel(matrix, name))
        .transpose()?;
    let mut chosen = select(cases, request)?;
    if let Some(partition) = request.partition {
        chosen = partition.take(chosen);
    }
    if chosen.is_empty() {
        return Err(Error::NothingSelected(describe(request)));
    }
    Ok(lay_out(chosen, matrix, asked, request.rounds))
}

/// These cases on the kernel `kernel` of `matrix`.
pub fn plan_of(
    cases: Vec<&'static Case>,
    matrix: &[Candidate],
    kernel: &str,
    rounds: Rounds,
) -> Result<Vec<Planned>, Error> {
    let kernel = known_kernel(matrix, kernel)?;
    Ok(lay_out(cases, matrix, Some(kernel), rounds))
}

fn lay_out(
    cases: Vec<&'static Case>,
    matrix: &[Candidate],
    asked: Option<&Candidate>,
    rounds: Rounds,
) -> Vec<Planned> {
    let once = cases
        .into_iter()
        .map(|case| (case, place(case, matrix, asked)));
    let once: Vec<_> = once.collect();
    let all = (0..rounds.repeat).flat_map(|repetition| {
        once.iter()
            .map(move |(case, place)| (repetition, *case, place))
    });
    all.enumerate()
        .map(|(index, (repetition, case, place))| {
            let base_seed = seed::of_repetition(rounds.seed, repetition);
            let seed = seed::of_case(base_seed, case.name);
            Planned {
                index,
                case,
                place: place.clone(),
                base_seed,
                seed,
                repetition,
                cold: rounds.cold,
            }
        })
        .collect()
}

/// The one case that `filter` means, and the kernel that it runs on: `asked`, or the first that has what it
/// needs.
pub fn one_case(
    cases: &'static [Case],
    matrix: &[Candidate],
    filter: &str,
    asked: Option<&str>,
) -> Result<(&'static Case, String), Error> {
    let filters = [filter.to_owned()];
    let request = Request {
        filters: &filters,
        group: None,
        kernel: asked,
        partition: None,
        rounds: Rounds {
            seed: 0,
            repeat: 1,
            cold: false,
        },
    };
    match plan(cases, matrix, &request)?.as_slice() {
        [
            Planned {
                case,
                place: Place::On(kernel),
                ..
            },
        ] => Ok((case, kernel.clone())),
        [Planned { case, place, .. }] => Err(Error::Unsearchable {
            case: full_name(case),
            kernel: asked.unwrap_or("one kernel").to_owned(),
            reason: match place {
                Place::Nowhere { requirement, .. } => requirement.clone(),
                _ => String::from("it compares several kernels"),
            },
        }),
        several => Err(Error::SeveralCases {
            filter: filter.to_owned(),
            cases: several
                .iter()
                .map(|planned| full_name(planned.case))
                .collect(),
        }),
    }
}

/// The kernel of this name.
pub fn known_kernel<'a>(matrix: &'a [Candidate], name: &str) -> Result<&'a Candidate, Error> {
    matrix
        .iter()
        .find(|kernel| kernel.name == name)
        .ok_or_else(|| Error::UnknownKernel {
            name: name.to_owned(),
            known: matrix.iter().map(|kernel| kernel.name.clone()).collect(),
        })
}

fn select(cases: &'static [Case], request: &Request<'_>) -> Result<Vec<&'static Case>, Error> {
    // A name may be the beginning of another; whole, it is meant alone.
    let is_whole = |filter: &String| cases.iter().any(|case| full_name(case) == *filter);
    let matches = |case: &Case, filter: &String| {
        let name = full_name(case);
        name.contains(filter)
            && (name == *filter || !is_whole(filter))
            && is_asked_for(case, filter, request)
    };
    for filter in request.filters {
        if !cases.iter().any(|case| matches(case, filter)) {
            return Err(Error::UnknownCase {
                filter: filter.clone(),
                nearest: nearest(cases.iter().map(|case| case.name), filter)
                    .and_then(|name| cases.iter().find(|case| case.name == name))
                    .map(full_name),
            });
        }
    }
    if let Some(group) = request.group {
        let mut groups: Vec<String> = cases.iter().map(|case| group_word(case.group)).collect();
        groups.dedup();
        if !groups.iter().any(|known| known == group) {
            return Err(Error::UnknownGroup {
                name: group.to_owned(),
                known: groups,
            });
        }
    }
    let wanted = |case: &&Case| {
        let of_group = request
            .group
            .is_none_or(|group| group_word(case.group) == group);
        let named = if request.filters.is_empty() {
            is_asked_for(case, "", request)
        } else {
            request.filters.iter().any(|filter| matches(case, filter))
        };
        of_group && named
    };
    Ok(cases.iter().filter(wanted).collect())
}

/// Whether a case that is run on request only is requested: its group is named, by option or filter.
fn is_asked_for(case: &Case, filter: &str, request: &Request<'_>) -> bool {
    !case.group.is_on_request()
        || request.group.is_some()
        || filter.contains(&group_word(case.group))
}

fn describe(request: &Request<'_>) -> String {
    let mut parts: Vec<String> = request.filters.to_vec();
    parts.extend(request.group.map(|group| format!("--group {group}")));
    parts.extend(
        request
            .partition
            .map(|partition| format!("--partition {partition}")),
    );
    if parts.is_empty() {
        String::from("everything")
    } else {
        parts.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nlring_cases::{Group, Kernel};

    const fn case(name: &'static str, group: Group, kernel: Kernel) -> Case {
        let run = |_: &mut nlring_cases::Setting| Ok(());
        Case::new(group, name, run).on(kernel).within(1)
    }

    static CASES: [Case; 5] = [
        case("frames_stand_in_order", Group::Ordering, Kernel::Ringed),
        case("frames_may_overtake", Group::Ordering, Kernel::Ringed),
        case("a_plain_kernel_says_so", Group::Fallback, Kernel::Plain),
        case("recvmsg_works", Group::Fallback, Kernel::Any),
        case("rtnetlink.sh", Group::Compat, Kernel::Any),
    ];

    fn matrix() -> Vec<Candidate> {
        [("6.1", true), ("6.1-off", false)]
            .map(|(name, ringed)| Candidate {
                name: name.to_owned(),
                base: String::from("6.1"),
                series: true,
                ringed,
                group: None,
                debug: false,
            })
            .to_vec()
    }

    /// With what the group `compat` needs, in front, where nothing else may take it.
    fn matrix_with_trio() -> Vec<Candidate> {
        let of_group = |name: &str, series, ringed| Candidate {
            name: name.to_owned(),
            base: String::from("6.1"),
            series,
            ringed,
            group: Some(String::from("compat")),
            debug: false,
        };
        let mut matrix = vec![
            of_group("6.1-compat-plain", false, false),
            of_group("6.1-compat-off", true, false),
            of_group("6.1-compat", true, true),
        ];
        matrix.extend(self::matrix());
        matrix
    }

    fn everything() -> Request<'static> {
        Request {
            filters: &[],
            group: None,
            kernel: None,
            partition: None,
            rounds: Rounds {
                seed: 7,
                repeat: 1,
                cold: false,
            },
        }
    }

    fn names(plan: &[Planned]) -> Vec<(&'static str, Option<&str>)> {
        plan.iter()
            .map(|planned| (planned.case.name, planned.kernel()))
            .collect()
    }

    #[test]
    fn each_case_runs_on_the_first_kernel_that_has_what_it_needs() {
        let plan = plan(&CASES, &matrix(), &everything()).unwrap();
        assert_eq!(
            names(&plan),
            [
                ("frames_stand_in_order", Some("6.1")),
                ("frames_may_overtake", Some("6.1")),
                ("a_plain_kernel_says_so", Some("6.1-off")),
                ("recvmsg_works", Some("6.1")),
            ]
        );
        assert!(
            plan.iter()
                .all(|planned| matches!(planned.place, Place::On(_)))
        );
    }

    #[test]
    fn a_kernel_that_watches_itself_is_taken_where_it_is_needed() {
        static WITNESS: [Case; 1] = [case("a_fault_is_heard", Group::Witness, Kernel::Debug)];
        let mut matrix = matrix();
        let planned = |matrix: &[Candidate], group, kernel| {
            let request = Request {
                group,
                kernel,
                ..everything()
            };
            plan(&WITNESS, matrix, &request).map(|plan| plan[0].place.clone())
        };
        let group = Some("witness");
        let place = planned(&matrix, group, None).unwrap();
        assert!(matches!(place, Place::Nowhere { kernel: None, .. }));
        let place = planned(&matrix, group, Some("6.1")).unwrap();
        let Place::Nowhere { requirement, .. } = place else {
            panic!("{place:?}")
        };
        assert_eq!(
            requirement,
            "needs a kernel that watches itself; 6.1 does not"
        );
        matrix[1].debug = true;
        let on = Place::On(String::from("6.1-off"));
        assert_eq!(planned(&matrix, group, None).unwrap(), on);
        assert_eq!(planned(&matrix, group, Some("6.1-off")).unwrap(), on);
        assert!(planned(&matrix, None, None).is_err(), "unasked");
    }

    #[test]
    fn a_kernel_that_watches_itself_is_not_taken_unasked() {
        let mut matrix = matrix();
        matrix[0].debug = true;
        let chosen = |kernel| {
            let request = Request {
                kernel,
                ..everything()
            };
            plan(&CASES, &matrix, &request).unwrap()[0].place.clone()
        };
        assert!(matches!(chosen(None), Place::Nowhere { .. }));
        assert_eq!(chosen(Some("6.1")), Place::On(String::from("6.1")));
    }

    #[test]
    fn a_kernel_asked_for_that_lacks_something_skips_and_says_what() {
        let plan = plan(
            &CASES,
            &matrix(),
            &Request {
                kernel: Some("6.1-off"),
                ..everything()
            },
        )
        .unwrap();
        let Place::Nowhere {
            kernel,
            requirement,
        } = &plan[0].place
        else {
            panic!("{plan:?}")
        };
        assert_eq!(kernel.as_deref(), Some("6.1-off"));
        assert_eq!(
            requirement,
            "needs a kernel with memory-mapped netlink; 6.1-off has none"
        );
        assert_eq!(plan[2].place, Place::On(String::from("6.1-off")));
    }

    #[test]
    fn a_matrix_without_the_kernel_skips_and_says_so() {
        let plan = plan(&CASES, &matrix()[..1], &everything()).unwrap();
        assert!(
            matches!(&plan[2].place, Place::Nowhere { kernel: None, requirement } if requirement.contains("names none"))
        );
    }

    #[test]
    fn what_is_run_on_request_runs_where_its_group_is_named_and_across_its_kernels() {
        let chosen = |filters: &[&str], group| {
            let filters: Vec<String> = filters.iter().map(|&filter| filter.to_owned()).collect();
            let request = Request {
                filters: &filters,
                group,
                ..everything()
            };
            plan(&CASES, &matrix_with_trio(), &request)
        };
        let everything = chosen(&[], None).unwrap();
        assert_eq!(
            names(&everything),
            names(&plan(&CASES, &matrix(), &self::everything()).unwrap())
        );
        let refused = chosen(&["rtnetlink"], None).unwrap_err().to_string();
        assert!(refused.contains("compat::rtnetlink.sh"), "{refused}");
        for asked in [
            chosen(&[], Some("compat")),
            chosen(&["compat::rtnet"], None),
        ] {
            let asked = asked.unwrap();
            let Place::Across(trio) = &asked[0].place else {
                panic!("{asked:?}")
            };
            assert_eq!(
                trio.kernels(),
                ["6.1-compat-plain", "6.1-compat-off", "6.1-compat"]
            );
            assert!(
                asked[0]
                    .again()
                    .contains("run compat::rtnetlink.sh --kernel 6.1-compat")
            );
        }
    }

    #[test]
    fn the_kernel_asked_for_names_the_base_to_compare_on() {
        let request = Request {
            group: Some("compat"),
            kernel: Some("6.1-off"),
            ..everything()
        };
        let across = plan(&CASES, &matrix_with_trio(), &request).unwrap();
        assert_eq!(names(&across), [("rtnetlink.sh", Some("6.1-compat"))]);
        let nowhere = plan(&CASES, &matrix(), &request).unwrap();
        assert!(
            matches!(&nowhere[0].place, Place::Nowhere { requirement, .. } if requirement.contains("three kernels")),
            "{nowhere:?}"
        );
    }

    #[test]
    fn filters_groups_and_partitions_narrow_the_plan() {
        let filters = [String::from("ordering::"), String::from("recvmsg")];
        let chosen = plan(
            &CASES,
            &matrix(),
            &Request {
                filters: &filters,
                ..everything()
            },
        )
        .unwrap();
        assert_eq!(chosen.len(), 3);
        let chosen = plan(
            &CASES,
            &matrix(),
            &Request {
                filters: &filters,
                group: Some("fallback"),
                ..everything()
            },
        )
        .unwrap();
        assert_eq!(names(&chosen), [("recvmsg_works", Some("6.1"))]);
        let part = |text: &str| {
            let partition = Some(text.parse().unwrap());
            names(
                &plan(
                    &CASES,
                    &matrix(),
                    &Request {
                        partition,
                        ..everything()
                    },
                )
                .unwrap(),
            )
            .len()
        };
        assert_eq!((part("1/3"), part("2/3"), part("3/3")), (2, 1, 1));
    }

    #[test]
    fn repetitions_differ_in_their_seeds_and_each_can_be_had_alone() {
        let plan_of = |seed, repeat, cold| {
            let rounds = Rounds { seed, repeat, cold };
            let request = Request {
                rounds,
                ..everything()
            };
            plan(&CASES, &matrix(), &request).unwrap()
        };
        let thrice = plan_of(7, 3, false);
        assert_eq!(thrice.len(), 12);
        let third = &thrice[8];
        assert_eq!(
            (third.repetition, third.index, third.case.name),
            (2, 8, CASES[0].name)
        );
        assert_eq!(third.folder(), "frames_stand_in_order.3");
        assert_ne!(third.seed, thrice[0].seed);
        assert_eq!(plan_of(third.base_seed, 1, false)[0].seed, third.seed);
        assert_eq!(
            third.again(),
            format!(
                "ci/nlring run frames_stand_in_order --kernel 6.1 --seed {}",
                third.base_seed
            )
        );
        assert_eq!(
            plan_of(7, 1, true)[0].again(),
            "ci/nlring run frames_stand_in_order --kernel 6.1 --cold --seed 7"
        );
    }

    #[test]
    fn what_is_not_known_is_named_with_what_is() {
        let text =
            |request: &Request<'_>| plan(&CASES, &matrix(), request).unwrap_err().to_string();
        let filters = [String::from("frames_stand_in_ordr")];
        assert!(
            text(&Request {
                filters: &filters,
                ..everything()
            })
            .contains("frames_stand_in_order")
        );
        assert!(
            text(&Request {
                kernel: Some("6.2"),
                ..everything()
            })
            .contains("6.1, 6.1-off")
        );
        assert!(
            text(&Request {
                group: Some("order"),
                ..everything()
            })
            .contains("ordering, fallback")
        );
        let filters = [String::from("recvmsg")];
        let nothing = plan(
            &CASES,
            &matrix(),
            &Request {
                filters: &filters,
                group: Some("ordering"),
                ..everything()
            },
        )
        .unwrap_err();
        assert!(matches!(nothing, Error::NothingSelected(_)), "{nothing}");
    }
}
