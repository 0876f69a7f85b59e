// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `library`: the ring library's examples at work, as whoever installs one would
//! run it.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::ledger::Ledger;
use crate::program::Program;
use crate::rules::Rules;
use crate::traffic::{self, Flow, From, OTHER_PORT, PORT, Sink, Window, warm_up};
use crate::{Case, Kernel, Setting, case, conntrack, route};

pub(crate) const CASES: &[Case] = &[
    case!(Library, an_example_judges_packets_in_both_orders)
        .across(1)
        .within(10),
    case!(Library, an_example_judges_packets_without_rings)
        .proves("rest-library")
        .across(1)
        .within(10),
    case!(
        Library,
        without_rings_in_the_kernel_an_example_does_its_work
    )
    .proves("rest-library")
    .on(Kernel::Plain)
    .across(1)
    .within(10),
    case!(Library, a_c_program_keeps_libmnl_and_gains_rings)
        .proves("rest-library")
        .across(1)
        .within(20),
    case!(Library, an_example_follows_logged_packets)
        .proves("rx-every-family")
        .within(10),
    case!(Library, an_example_watches_connections)
        .proves("rx-every-family multicast-opt-in")
        .within(10),
    case!(Library, an_example_dumps_routes)
        .proves("dump-frames")
        .within(10),
];

/// Packets that are to pass, and that are not.
const ACCEPTED: u32 = 400;
const DROPPED: u32 = 40;

/// Packets under way at once: fewer than a receive buffer holds.
const UNDER_WAY: u32 = 64;

/// Bytes of an IPv4 packet of a flow: 64 of payload.
const PACKET_LEN: u32 = 20 + 8 + 64;

/// How messages came to an example, as it says so in the end.
fn tally(in_frames: u32, copied: u32) -> String {
    format!("{in_frames} in frames, {copied} copied, 0 lost (0 times)")
}

/// Packets from across a pair of NICs for a judge in queue 0.
struct Court {
    sink: Sink,
    unwanted: Sink,
    patience: Duration,
    _rules: Rules,
}

impl Court {
    fn open(setting: &Setting) -> anyhow::Result<Self> {
        let patience = setting.patiently(Duration::from_secs(2));
        warm_up(0, patience)?;
        Ok(Self {
            sink: Sink::bind(From::Here, PORT)?,
            unwanted: Sink::bind(From::Here, OTHER_PORT)?,
            patience,
            _rules: Rules::install(&["meta l4proto udp queue num 0"], &[])?,
        })
    }

    /// Sends what is to pass, and what is not if `with_unwanted`, past the judge that has just said
    /// that it is ready; whatever is to arrive does, and nothing else.
    fn send(&self, with_unwanted: bool) -> anyhow::Result<()> {
        let window = Window::of(UNDER_WAY);
        let unwanted = if with_unwanted { DROPPED } else { 0 };
        let dropped = Flow {
            to: SocketAddrV4::new(traffic::near(0), OTHER_PORT),
            ..Flow::across(1, 0, unwanted)
        };
        let dropped = dropped.start(&Window::of(UNDER_WAY))?;
        let flow = Flow::across(0, 0, ACCEPTED).start(&window)?;
        let mut ledger = Ledger::default();
        for number in 0..ACCEPTED {
            let stamp = self.sink.next(self.patience)?;
            ledger.book(stamp.with_context(|| format!("packet {number} does not arrive"))?)?;
            window.seen();
        }
        ledger.assert_whole(0, ACCEPTED)?;
        traffic::sent(flow)?;
        traffic::sent(dropped)?;
        Ok(())
    }

    /// Has a Rust example judge, and tells its last two lines.
    fn judge(&self, arguments: &str, ways: &str) -> anyhow::Result<Vec<String>> {
        let count = ACCEPTED + DROPPED;
        let command = format!("nfq-verdict --drop-port {OTHER_PORT} --count {count} {arguments} 0");
        let program = Program::start(&command, self.patience)?;
        program.lines_until(&format!("queue 0: receives by {ways}, sends by {ways}"))?;
        self.send(true)?;
        let said = program.end()?;
        let passed = self.unwanted.next(Duration::from_millis(1))?;
        ensure!(passed.is_none(), "an unwanted packet passes: {passed:?}");
        let bytes = count * PACKET_LEN;
        let tally = match ways {
            "Ring" => tally(count, 0),
            _ => tally(0, count),
        };
        let wanted =
            format!("{ACCEPTED} packets accepted, {DROPPED} dropped, {bytes} bytes; {tally}");
        ensure!(
            said.len() == 2 && said[0] == wanted,
            "{command} said {said:?}, not {wanted:?}"
        );
        Ok(said)
    }
}

/// `nfq-verdict`: each packet judged once, all of them read in place; in the order of sending by fewer
/// messages than packets.
fn an_example_judges_packets_in_both_orders(setting: &mut Setting) -> anyhow::Result<()> {
    let court = Court::open(setting)?;
    for order in ["allocation", "sending"] {
        let said = court.judge(&format!("--order {order}"), "Ring")?;
        let numbers: Vec<u32> = said[1]
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        let [verdicts, messages, calls] = numbers[..] else {
            anyhow::bail!("no three numbers in {:?}", said[1]);
        };
        ensure!(verdicts == ACCEPTED + DROPPED, "{}", said[1]);
        ensure!(calls <= messages && messages <= verdicts, "{}", said[1]);
        ensure!(order == "sending" || messages == verdicts, "{}", said[1]);
        setting.note(format!("order of {order}: {}", said[1]));
    }
    Ok(())
}

/// `nfq-verdict --plain`: the same work through the ordinary socket.
fn an_example_judges_packets_without_rings(setting: &mut Setting) -> anyhow::Result<()> {
    let said = Court::open(setting)?.judge("--plain", "Plain")?;
    setting.note(said.join("; "));
    Ok(())
}

/// The same program where the kernel has no rings, without being told.
fn without_rings_in_the_kernel_an_example_does_its_work(
    setting: &mut Setting,
) -> anyhow::Result<()> {
    let said = Court::open(setting)?.judge("", "Plain")?;
    setting.note(said.join("; "));
    Ok(())
}

/// The C library, shared and static: a program opens its socket with libmnl and speaks on it with
/// libmnl, before rings were attached and after they were taken off.
fn a_c_program_keeps_libmnl_and_gains_rings(setting: &mut Setting) -> anyhow::Result<()> {
    let court = Court::open(setting)?;
    let bytes = ACCEPTED * PACKET_LEN;
    for program in ["nfq-verdict-c", "nfq-verdict-c-static"] {
        for (option, way) in [("", "by ring"), ("--plain", "plainly")] {
            let command = format!("{program} {option} 0 {ACCEPTED}");
            let program = Program::start(&command, court.patience)?;
            program.lines_until(&format!("receives {way}, sends {way}"))?;
            court.send(false)?;
            let said = program.end()?;
            let wanted = [
                format!("accepted {ACCEPTED} packets of {bytes} bytes, 0 lost"),
                "unbound the queue by libmnl".to_owned(),
            ];
            ensure!(said == wanted, "{command} said {said:?}, not {wanted:?}");
            setting.note(format!("{command}: {}", said[0]));
        }
    }
    Ok(())
}

/// What two programs said is the same but for the last line, of which it is told.
fn assert_alike(ringed: &[String], plain: &[String]) -> anyhow::Result<[String; 2]> {
    let (Some((last, ringed)), Some((plain_last, plain))) =
        (ringed.split_last(), plain.split_last())
    else {
        anyhow::bail!("an example said nothing");
    };
    if let Some((ringed, plain)) = ringed.iter().zip(plain).find(|(a, b)| a != b) {
        anyhow::bail!("by ring {ringed:?}, and without {plain:?}");
    }
    ensure!(
        ringed.len() == plain.len(),
        "{} lines by ring, {} without",
        ringed.len(),
        plain.len()
    );
    Ok([last.clone(), plain_last.clone()])
}

/// `nflog-tail`, with a ring in a loop around `poll`, and without: one line per packet, the same.
fn an_example_follows_logged_packets(setting: &mut Setting) -> anyhow::Result<()> {
    const PACKETS: u32 = 60;
    let patience = setting.patiently(Duration::from_secs(2));
    let _rules = Rules::install(
        &[
            &format!("udp dport {PORT} log prefix \"seen: \" group 5"),
            &format!("udp dport {PORT} log prefix \"seen: \" group 6"),
        ],
        &[],
    )?;
    let ringed = Program::start(&format!("nflog-tail --count {PACKETS} 5"), patience)?;
    let plain = Program::start(&format!("nflog-tail --plain --count {PACKETS} 6"), patience)?;
    ringed.lines_until("log group 5: bound")?;
    plain.lines_until("log group 6: bound")?;
    let _sink = Sink::bind(From::Here, PORT)?;
    traffic::sent(Flow::local(0, PACKETS).start(&Window::of(PACKETS))?)?;
    let ringed = ringed.end()?;
    let [last, plain_last] = assert_alike(&ringed, &plain.end()?)?;
    let line = format!("seen: in 1 127.0.0.1 > 127.0.0.1, {PACKET_LEN} bytes");
    ensure!(
        ringed.len() == PACKETS as usize + 1 && ringed[0] == line,
        "{} lines, the first of them {:?}, not {line:?}",
        ringed.len(),
        ringed[0]
    );
    ensure!(
        last.starts_with(&format!("{PACKETS} packets by Ring; "))
            && last.contains(", 0 copied, 0 lost"),
        "in the end {last:?}"
    );
    ensure!(
        plain_last.starts_with(&format!("{PACKETS} packets by Plain; 0 in frames")),
        "in the end {plain_last:?}"
    );
    setting.note(format!("{last}; {plain_last}"));
    Ok(())
}

/// `conntrack-watch`, with a ring in tokio's loop, and without: the table and then the events, the same.
fn an_example_watches_connections(setting: &mut Setting) -> anyhow::Result<()> {
    const THERE: u16 = 300;
    const NEW: u16 = 50;
    let patience = setting.patiently(Duration::from_secs(2));
    conntrack::make(1..THERE + 1)?;
    let ringed = Program::start(&format!("conntrack-watch --count {NEW}"), patience)?;
    let plain = Program::start(&format!("conntrack-watch --plain --count {NEW}"), patience)?;
    let whole = format!("{THERE} connections");
    assert_alike(&ringed.lines_until(&whole)?, &plain.lines_until(&whole)?)?;
    conntrack::make(THERE + 1..THERE + NEW + 1)?;
    let ringed = ringed.end()?;
    let [last, plain_last] = assert_alike(&ringed, &plain.end()?)?;
    let first = format!("+ Udp 192.0.2.1:{} > 192.0.2.2:53", THERE + 1);
    ensure!(
        ringed.len() == usize::from(NEW) + 1 && ringed[0] == first,
        "{} lines, the first of them {:?}, not {first:?}",
        ringed.len(),
        ringed[0]
    );
    ensure!(
        last.starts_with(&format!("{THERE} connections, {NEW} events by Ring; "))
            && last.contains(", 0 copied, 0 lost"),
        "in the end {last:?}"
    );
    ensure!(
        plain_last.starts_with(&format!(
            "{THERE} connections, {NEW} events by Plain; 0 in frames"
        )),
        "in the end {plain_last:?}"
    );
    setting.note(format!("{last}; {plain_last}"));
    Ok(())
}

/// `route-dump`, with a ring and without: the same routes.
fn an_example_dumps_routes(setting: &mut Setting) -> anyhow::Result<()> {
    const ROUTES: u32 = 3000;
    let patience = setting.patiently(Duration::from_secs(2));
    route::make(ROUTES)?;
    let ringed = Program::start("route-dump", patience)?.end()?;
    let plain = Program::start("route-dump --plain", patience)?.end()?;
    let [last, plain_last] = assert_alike(&ringed, &plain)?;
    let line = "172.16.0.7/32 table 254 BlackHole";
    ensure!(ringed.iter().any(|said| said == line), "no {line:?}");
    let routes = ringed.len() - 1;
    ensure!(routes >= ROUTES as usize, "only {routes} routes");
    ensure!(
        last.starts_with(&format!("{routes} routes by Ring; "))
            && last.contains(", 0 copied, 0 lost"),
        "in the end {last:?}"
    );
    ensure!(
        plain_last.starts_with(&format!("{routes} routes by Plain; 0 in frames")),
        "in the end {plain_last:?}"
    );
    setting.note(format!("{last}; {plain_last}"));
    Ok(())
}
