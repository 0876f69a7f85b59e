// SPDX-License-Identifier: MIT OR Apache-2.0
//! The verdict on a case, from two witnesses: the guest's outcome and the kernel's log.

use nlring_channel::{Outcome, Status};
use serde::{Deserialize, Serialize};

use crate::loss::Loss;
use crate::splat::{Scan, Splat};

/// What a case's run amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The guest says that the sentence held, and the kernel's log has nothing against it.
    Pass,
    /// The sentence did not hold, or the kernel complained.
    Fail,
    /// A requirement is missing; the detail names it.
    Skip,
    /// Nothing can be said about the case: no VM, VM lost, no word from the guest, no readable log.
    Infra,
}

impl Verdict {
    /// The word used everywhere: JSON, tables, file names.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Skip => "skip",
            Self::Infra => "infra",
        }
    }
}

/// How far the guest's own testimony came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Testimony {
    /// It never said that it is ready, or is not the machine that was asked for.
    NoGuest(Loss),
    /// It was ready, and was lost before its outcome was acknowledged.
    Lost(Loss),
    /// It gave its outcome.
    Outcome(Outcome),
}

/// The verdict and its one-line detail.
///
/// The log is heard first: a scan that could not be made is `infra`, whatever the guest said; a splat
/// that was not announced fails the case, also when the guest was lost to it, and so does a panic of which
/// QEMU knows and the log does not; a guest that never was ready has proved nothing either way. Where a
/// splat is announced, a pass needs it.
#[must_use]
pub fn judge(
    testimony: &Testimony,
    log: &Result<Scan, String>,
    announced: Option<&str>,
) -> (Verdict, String) {
    let splats = match (testimony, log) {
        (Testimony::NoGuest(loss), Ok(scan)) => {
            let said = scan
                .splats
                .first()
                .map(|splat| format!("; kernel log: {splat}"));
            let said = said.unwrap_or_default();
            return (Verdict::Infra, format!("{}{said}", loss.why));
        }
        (Testimony::NoGuest(loss) | Testimony::Lost(loss), Err(_)) => {
            return (Verdict::Infra, loss.why.clone());
        }
        (Testimony::Outcome(_), Err(why)) => return (Verdict::Infra, why.clone()),
        (_, Ok(scan)) => &scan.splats,
    };
    if let Some(splat) = unannounced(splats, announced) {
        let guest = match testimony {
            Testimony::Outcome(Outcome {
                status: Status::Pass,
                ..
            }) => String::from("the guest said pass"),
            Testimony::Outcome(outcome) => format!("the guest said: {}", outcome.detail),
            Testimony::NoGuest(loss) | Testimony::Lost(loss) => loss.why.clone(),
        };
        return (Verdict::Fail, format!("kernel log: {splat}; {guest}"));
    }
    let outcome = match testimony {
        Testimony::Outcome(outcome) => outcome,
        Testimony::Lost(loss) if loss.is_panic() => {
            let why = &loss.why;
            return (
                Verdict::Fail,
                format!("the kernel told of its panic by pvpanic, and not in its log: {why}"),
            );
        }
        Testimony::NoGuest(loss) | Testimony::Lost(loss) => {
            return (Verdict::Infra, loss.why.clone());
        }
    };
    match (outcome.status, announced) {
        (Status::Pass, Some(text)) if splats.is_empty() => (
            Verdict::Fail,
            format!("the announced splat did not come: the kernel's log has none that is {text:?}"),
        ),
        (Status::Pass, _) => (Verdict::Pass, outcome.detail.clone()),
        (Status::Fail, _) => (Verdict::Fail, outcome.detail.clone()),
        (Status::Skip, _) => (Verdict::Skip, outcome.detail.clone()),
    }
}

/// The first splat that is not the announced one. What came before the case began is not, nor is another
/// that has the same words: the same may come again, but from the same place.
fn unannounced<'a>(splats: &'a [Splat], announced: Option<&str>) -> Option<&'a Splat> {
    let mut announced_one = None;
    splats.iter().find(|splat| {
        let is_meant = splat.job.is_some()
            && announced.is_some_and(|announcement| splat.is_announced_by(announcement));
        let fingerprint = splat.fingerprint();
        !is_meant || *announced_one.get_or_insert_with(|| fingerprint.clone()) != fingerprint
    })
}

#[cfg(test)]
mod tests {
    use nlring_vm::end::{End, Manner};

    use super::*;

    const BANNER: &str = "[    0.000000] Linux version 6.1.1 (a@b) #1 SMP\n";
    const BEGINS: &str = "[    0.500000] nlring: job 1 begins: a_case, seed 7\n";
    const WARNING: &str =
        "[    1.000000] WARNING: CPU: 0 PID: 9 at net/netlink/ring.c:7 ring_take+0x1/0x2\n";

    fn outcome(status: Status) -> Testimony {
        Testimony::Outcome(Outcome {
            status,
            detail: String::from("said"),
            evidence: Vec::new(),
        })
    }

    fn log(lines: &str) -> Result<Scan, String> {
        Scan::of(&format!("{BANNER}{BEGINS}{lines}")).map_err(|error| error.to_string())
    }

    #[test]
    #[rustfmt::skip]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn every_pair_of_testimonies_has_its_verdict() {
        let lost = || Testimony::Lost(String::from("lost").into());
        let no_guest = || Testimony::NoGuest(String::from("no guest").into());
        let ended = |manner, panicked| {
            let end = End {
                manner,
                what: String::from("so"),
                panicked,
                witnesses: Vec::new(),
                last: String::new(),
                console: "log".into(),
            };
            Loss { why: end.to_string(), end: Some(Box::new(end)) }
        };
        let reset = || Testimony::Lost(ended(Manner::Crash, false));
        let panicked = || Testimony::Lost(ended(Manner::Crash, true));
        let panicked_in_boot = || Testimony::NoGuest(ended(Manner::Crash, true));
        let unreadable = || Err(String::from("no banner"));
        let table = [
            (outcome(Status::Pass), log(""), None, Verdict::Pass, "said"),
            (outcome(Status::Fail), log(""), None, Verdict::Fail, "said"),
            (outcome(Status::Skip), log(""), None, Verdict::Skip, "said"),
            (
                outcome(Status::Pass),
                log(WARNING),
                None,
                Verdict::Fail,
                "the guest said pass",
            ),
            (
                outcome(Status::Skip),
                log(WARNING),
                None,
                Verdict::Fail,
                "WARNING",
            ),
            (
                outcome(Status::Fail),
                log(WARNING),
                None,
                Verdict::Fail,
                "the guest said: said",
            ),
            (
                outcome(Status::Pass),
                unreadable(),
                None,
                Verdict::Infra,
                "no banner",
            ),
            (
                outcome(Status::Fail),
                unreadable(),
                None,
                Verdict::Infra,
                "no banner",
            ),
            (
                outcome(Status::Pass),
                log(WARNING),
                Some("warning: ring_take"),
                Verdict::Pass,
                "said",
            ),
            (
                outcome(Status::Pass),
                log(""),
                Some("warning: ring_take"),
                Verdict::Fail,
                "did not come",
            ),
            (
                outcome(Status::Pass),
                log(WARNING),
                Some("warning: ring_give"),
                Verdict::Fail,
                "WARNING",
            ),
            (
                outcome(Status::Fail),
                log(WARNING),
                Some("warning: ring_take"),
                Verdict::Fail,
                "said",
            ),
            (
                outcome(Status::Skip),
                log(""),
                Some("warning: ring_take"),
                Verdict::Skip,
                "said",
            ),
            (lost(), log(""), None, Verdict::Infra, "lost"),
            (lost(), log(WARNING), None, Verdict::Fail, "lost"),
            (
                lost(),
                log(WARNING),
                Some("warning: ring_take"),
                Verdict::Infra,
                "lost",
            ),
            (lost(), unreadable(), None, Verdict::Infra, "lost"),
            (reset(), log(""), None, Verdict::Infra, "crash: so"),
            (reset(), log(WARNING), None, Verdict::Fail, "crash: so"),
            (panicked(), log(""), None, Verdict::Fail, "pvpanic, and not in its log: crash: so"),
            (panicked(), log(WARNING), None, Verdict::Fail, "(line 3, warning 56a4ee1b); crash: so"),
            (panicked(), log(WARNING), Some("warning: ring_take"), Verdict::Fail, "pvpanic"),
            (panicked(), unreadable(), None, Verdict::Infra, "crash: so"),
            (panicked_in_boot(), log(""), None, Verdict::Infra, "crash: so"),
            (no_guest(), log(""), None, Verdict::Infra, "no guest"),
            (no_guest(), log(WARNING), None, Verdict::Infra, "WARNING"),
            (no_guest(), unreadable(), None, Verdict::Infra, "no guest"),
        ];
        for (testimony, log, announced, verdict, said) in table {
            let (got, detail) = judge(&testimony, &log, announced);
            assert_eq!(
                got, verdict,
                "{testimony:?} {log:?} {announced:?}: {detail}"
            );
            assert!(
                detail.contains(said),
                "{testimony:?} {log:?} {announced:?}: {detail}"
            );
            assert!(!detail.contains('\n'), "{detail}");
        }
    }

    #[test]
    fn a_pass_needs_the_announced_splat_and_no_other() {
        let again = WARNING.replace("1.000000", "2.000000");
        let elsewhere = format!("{again}[    2.000000] RIP: 0010:ring_poll+0x1/0x2\n");
        let before = |lines: &str| {
            Scan::of(&format!("{BANNER}{lines}{BEGINS}")).map_err(|error| error.to_string())
        };
        let announced = "warning: ring_take";
        for (log, announced, verdict, said) in [
            (log(WARNING), announced, Verdict::Pass, "said"),
            (
                log(&[WARNING, &again].concat()),
                announced,
                Verdict::Pass,
                "said",
            ),
            (
                log(&[WARNING, &elsewhere].concat()),
                announced,
                Verdict::Fail,
                "line 4",
            ),
            (log(""), announced, Verdict::Fail, "did not come"),
            (log(WARNING), "kasan: ring_take", Verdict::Fail, "line 3"),
            (log(WARNING), "ring_take", Verdict::Fail, "line 3"),
            (log(WARNING), "warning: ring_give", Verdict::Fail, "line 3"),
            (before(WARNING), announced, Verdict::Fail, "line 2"),
        ] {
            let (got, detail) = judge(&outcome(Status::Pass), &log, Some(announced));
            assert_eq!(got, verdict, "{log:?} {announced}: {detail}");
            assert!(detail.contains(said), "{log:?} {announced}: {detail}");
        }
    }
}
