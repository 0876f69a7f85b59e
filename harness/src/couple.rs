// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two VMs with a cable between them: in one runs the case, in the other what faces it.

use std::thread;

use nlring_cases::PEER;
use nlring_channel::{Outcome, Status};

use crate::case_run::{Errand, Guest};
use crate::loss::Loss;

/// Two guests as one.
pub struct Couple<G> {
    /// Where the case runs.
    pub near: G,
    /// Where its peer does.
    pub far: G,
}

impl<G: Guest + Send> Guest for Couple<G> {
    /// Both at once. What the other machine says counts only if the case passes: it fails when it is left alone.
    fn run(&mut self, errand: &Errand<'_>, on_note: &mut dyn FnMut(&str)) -> Result<Outcome, Loss> {
        let name = format!("{}{PEER}", errand.name);
        let facing = Errand {
            name: &name,
            ..*errand
        };
        let far = &mut self.far;
        let (near, far) = thread::scope(|scope| {
            let far = scope.spawn(|| far.run(&facing, &mut |_| ()));
            let near = self.near.run(errand, on_note);
            (near, far.join())
        });
        let far = far.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let (near, far) = (near?, far.map_err(of_the_other)?);
        Ok(both(near, &far))
    }

    fn power_off(self: Box<Self>) -> Result<(), Loss> {
        let Self { near, far } = *self;
        Box::new(near).power_off()?;
        Box::new(far).power_off().map_err(of_the_other)
    }
}

fn of_the_other(loss: Loss) -> Loss {
    Loss {
        why: format!("the other machine: {}", loss.why),
        ..loss
    }
}

fn both(near: Outcome, far: &Outcome) -> Outcome {
    let said = far
        .evidence
        .iter()
        .map(|line| format!("the other machine: {line}"));
    let evidence = near.evidence.iter().cloned().chain(said).collect();
    if near.status == Status::Pass && far.status != Status::Pass {
        return Outcome {
            status: far.status,
            detail: format!("the other machine: {}", far.detail),
            evidence,
        };
    }
    Outcome { evidence, ..near }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Says this of a case, or is lost.
    struct Puppet(Option<Status>, &'static str);

    impl Guest for Puppet {
        fn run(&mut self, errand: &Errand<'_>, _: &mut dyn FnMut(&str)) -> Result<Outcome, Loss> {
            assert_eq!(errand.name, self.1);
            let status = self.0.ok_or_else(|| Loss::from(String::from("gone")))?;
            Ok(Outcome {
                status,
                detail: format!("{status:?} of {}", self.1),
                evidence: vec![String::from("seen")],
            })
        }

        fn power_off(self: Box<Self>) -> Result<(), Loss> {
            Ok(())
        }
    }

    fn run(near: Option<Status>, far: Option<Status>) -> Result<Outcome, Loss> {
        let errand = Errand {
            name: "x",
            seed: 1,
            deadline: Duration::ZERO,
            patience: 1,
        };
        let mut couple = Couple {
            near: Puppet(near, "x"),
            far: Puppet(far, "x@peer"),
        };
        couple.run(&errand, &mut |_| ())
    }

    #[test]
    fn a_pass_takes_both_and_a_failure_is_told_by_whom() {
        use Status::{Fail, Pass, Skip};
        for (near, far, status, detail) in [
            (Pass, Pass, Pass, "Pass of x"),
            (Fail, Pass, Fail, "Fail of x"),
            (Fail, Fail, Fail, "Fail of x"),
            (Pass, Fail, Fail, "the other machine: Fail of x@peer"),
            (Pass, Skip, Skip, "the other machine: Skip of x@peer"),
        ] {
            let outcome = run(Some(near), Some(far)).unwrap();
            assert_eq!((outcome.status, outcome.detail.as_str()), (status, detail));
            assert_eq!(outcome.evidence, ["seen", "the other machine: seen"]);
        }
        let lost = run(Some(Pass), None).unwrap_err();
        assert_eq!(lost.why, "the other machine: gone");
        assert_eq!(run(None, Some(Pass)).unwrap_err().why, "gone");
    }
}
