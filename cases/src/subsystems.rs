// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `fallback`: senders in the kernel that know nothing of rings deliver into
//! them what they deliver into sockets, byte for byte.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use nlring::{Flags, Geometry, Received, Receiver, Socket};

use crate::consumer::Binding;
use crate::groups;
use crate::ledger::Ledger;
use crate::message::{ACK, DONE, Message, Writer, noop};
use crate::option::{NETLINK_CAP_ACK, NETLINK_EXT_ACK, set};
use crate::rules::Rules;
use crate::traffic::{self, Flow, PORT, Window};
use crate::{Case, Setting, answers, case, conntrack, nfqueue, peers, route};

pub(crate) const CASES: &[Case] = &[
    case!(Fallback, answers_in_a_ring_are_those_of_a_socket).proves("rx-every-family"),
    case!(Fallback, extended_answers_in_a_ring_are_those_of_a_socket)
        .proves("rest-extended-ack rest-capped-ack"),
    case!(Fallback, logged_packets_arrive_in_a_ring).proves("rx-every-family"),
    case!(Fallback, connection_events_arrive_in_a_ring)
        .proves("rx-every-family multicast-opt-in multicast-own-copy"),
    case!(Fallback, a_queue_may_be_bound_and_listened_to_on_one_socket).proves("multicast-opt-in"),
];

fn shape() -> anyhow::Result<Geometry> {
    Ok(Geometry::for_messages(8000, 16)?)
}

/// A message as it would be on another socket: without the port id that it was sent to.
fn without_port(message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    message[12..16].fill(0);
    message
}

/// The next message, which must be in a frame.
fn next_framed(receiver: &mut Receiver, patience: Duration) -> anyhow::Result<Vec<u8>> {
    loop {
        if let Some(received) = receiver.receive()? {
            let Received::Frame(frame) = received else {
                anyhow::bail!("a message came as {received:?}, not in a frame");
            };
            return Ok(frame.to_vec());
        }
        ensure!(
            receiver.wait(Some(patience))?,
            "nothing came within {patience:?}"
        );
    }
}

/// What the kernel answers to a request is the same, in a frame and in a socket's queue.
fn assert_same_answers(
    family: i32,
    options: &[i32],
    requests: &[Vec<u8>],
    patience: Duration,
) -> anyhow::Result<usize> {
    let open = || {
        let socket = Socket::open(family)?;
        for option in options {
            set(&socket, *option, &1_i32.to_ne_bytes())?;
        }
        anyhow::Ok(socket)
    };
    let plain = open()?;
    let mut ringed = open()?.rx_ring(shape()?, Flags::NONE)?;
    let mut bytes = 0;
    for request in requests {
        plain.send(request)?;
        ringed.socket().send(request)?;
        // A request without answer would let the next one's be taken for it.
        let mut answers = 0;
        while let Ok(expected) = peers::receive(&plain) {
            let came = next_framed(&mut ringed, patience)?;
            ensure!(
                without_port(&came) == without_port(&expected),
                "family {family} answers {came:?} in the ring, {expected:?} in the socket"
            );
            bytes += came.len();
            answers += 1;
        }
        ensure!(answers > 0, "family {family} does not answer");
    }
    answers::assert_works(&mut ringed, patience)?;
    Ok(bytes)
}

/// A request that no family knows.
fn unknown() -> Vec<u8> {
    let request = Writer::request(0x3ffe, ACK, 5).with(&[3; 20]);
    request.end()
}

/// Contract, "RX": a message of any netlink family is copied into the frame, also when the sending
/// subsystem knows nothing of rings: links, families, and refusals.
fn answers_in_a_ring_are_those_of_a_socket(setting: &mut Setting) -> anyhow::Result<()> {
    /// `CTRL_CMD_GETFAMILY` for the family of generic netlink's own control.
    const GET_CONTROL: [u8; 4] = [3, 1, 0, 0];
    let patience = setting.patiently(Duration::from_secs(2));
    let control = Writer::request(16, ACK, 9)
        .with(&GET_CONTROL)
        .attribute(2, b"nlctrl\0")
        .end();
    let subjects = [
        (
            libc::NETLINK_ROUTE,
            vec![
                noop(1),
                route::get_link(2, 1),
                route::get_link(3, 99),
                unknown(),
            ],
        ),
        (libc::NETLINK_GENERIC, vec![noop(1), control, unknown()]),
        (libc::NETLINK_NETFILTER, vec![noop(1), unknown()]),
        (libc::NETLINK_SOCK_DIAG, vec![noop(1), unknown()]),
    ];
    for (family, requests) in &subjects {
        let bytes = assert_same_answers(*family, &[], requests, patience)?;
        setting.note(format!(
            "family {family}: {} requests, {bytes} bytes",
            requests.len()
        ));
    }
    Ok(())
}

/// Contract, "poll, dumps, the rest": extended acks and `NETLINK_CAP_ACK` behave on a ringed socket
/// as on any other.
fn extended_answers_in_a_ring_are_those_of_a_socket(setting: &mut Setting) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(2));
    // An attribute that is too short for what it says it is: the kernel tells which, and why.
    let short = Writer::request(route::GETLINK, ACK, 4)
        .with(&[0; 16])
        .attribute(29, &[1])
        .end();
    let requests = [noop(1), route::get_link(3, 99), short, unknown()];
    let mut bytes = Vec::new();
    for options in [
        &[NETLINK_EXT_ACK][..],
        &[NETLINK_CAP_ACK],
        &[NETLINK_EXT_ACK, NETLINK_CAP_ACK],
    ] {
        let family = libc::NETLINK_ROUTE;
        bytes.push(assert_same_answers(family, options, &requests, patience)?);
    }
    ensure!(bytes[0] > bytes[2], "the options change nothing: {bytes:?}");
    setting.note(format!("{bytes:?} bytes of answers with 3 sets of options"));
    Ok(())
}

/// Contract, "RX": `nfnetlink_log` collects several packets in one message; it comes in one frame,
/// each packet whole.
fn logged_packets_arrive_in_a_ring(setting: &mut Setting) -> anyhow::Result<()> {
    /// `NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_PACKET`, and `NFULNL_MSG_CONFIG`.
    const PACKET: u16 = 4 << 8;
    const CONFIG: u16 = 4 << 8 | 1;
    const NFULA_CFG_CMD: u16 = 1;
    const NFULA_CFG_MODE: u16 = 2;
    const NFULA_CFG_QTHRESH: u16 = 5;
    const NFULA_PAYLOAD: u16 = 9;
    const BIND: u8 = 1;
    const COPY_PACKET: u8 = 2;
    const GROUP: u8 = 5;
    const TOGETHER: u32 = 4;
    const DATAGRAMS: u32 = 40;
    let patience = setting.patiently(Duration::from_secs(2));
    let _rules = Rules::install(&[&format!("udp dport {PORT} log group {GROUP}")], &[])?;
    let mut receiver = Socket::open(libc::NETLINK_NETFILTER)?.rx_ring(shape()?, Flags::ORDERED)?;
    let bind = Writer::request(CONFIG, ACK, 1)
        .with(&[0, 0, 0, GROUP])
        .attribute(NFULA_CFG_CMD, &[BIND])
        .attribute(NFULA_CFG_MODE, &[0, 0, 0xff, 0xff, COPY_PACKET, 0])
        .attribute(NFULA_CFG_QTHRESH, &TOGETHER.to_be_bytes())
        .end();
    receiver.socket().send(&bind)?;
    let answer = next_framed(&mut receiver, patience)?;
    let errno = Message::read(&answer)?.errno()?;
    ensure!(errno == 0, "the log cannot be bound: error {errno}");

    let _sink = traffic::Sink::bind(traffic::From::Here, PORT)?;
    traffic::sent(Flow::local(0, DATAGRAMS).start(&Window::of(DATAGRAMS))?)?;
    let mut ledger = Ledger::default();
    let mut frames = 0;
    while ledger.total() < DATAGRAMS {
        let part = next_framed(&mut receiver, patience)?;
        frames += 1;
        for message in Message::read_all(&part)? {
            match message.kind {
                DONE => {}
                PACKET => {
                    let packet = message.attribute(4, NFULA_PAYLOAD)?;
                    let packet = packet.context("a packet without its payload")?;
                    let payload = nfqueue::udp_payload(packet).context("no datagram")?;
                    ledger.book(crate::stamp::Stamp::read(payload)?)?;
                }
                other => anyhow::bail!("a message of type {other:#x} in the log"),
            }
        }
    }
    ledger.assert_whole(0, DATAGRAMS)?;
    ensure!(frames == DATAGRAMS / TOGETHER, "{frames} frames");
    setting.note(format!("{DATAGRAMS} packets in {frames} frames"));
    Ok(())
}

/// Contract, "Multicast", opt-in: events of connection tracking come into a ring as into a socket.
fn connection_events_arrive_in_a_ring(setting: &mut Setting) -> anyhow::Result<()> {
    const CONNECTIONS: u16 = 50;
    let patience = setting.patiently(Duration::from_secs(2));
    let open = || {
        let socket = Socket::open(libc::NETLINK_NETFILTER)?;
        groups::bind(&socket, 0)?;
        anyhow::Ok(socket)
    };
    let plain = open()?;
    groups::join(&plain, conntrack::NEW_GROUP)?;
    let socket = open()?;
    let geometry = Geometry::for_messages(2000, CONNECTIONS.into())?;
    socket.set_up_rx_ring(&geometry, Flags::MULTICAST)?;
    groups::join(&socket, conntrack::NEW_GROUP)?;
    socket.tear_down_rx_ring()?;
    let mut ringed = socket.rx_ring(geometry, Flags::MULTICAST)?;
    conntrack::make(1..CONNECTIONS + 1)?;
    for number in 1..=CONNECTIONS {
        let expected = peers::receive(&plain)
            .with_context(|| format!("event {number} does not come to the socket"))?;
        let came = next_framed(&mut ringed, patience)?;
        ensure!(
            came == expected,
            "event {number} differs: {came:?}, {expected:?}"
        );
    }
    groups::assert_silent(&mut ringed, patience / 40)?;
    setting.note(format!(
        "{CONNECTIONS} events, the same in the ring and in the socket"
    ));
    Ok(())
}

/// Contract, "Multicast", opt-in: one socket is a queue's consumer and listens to events: packets
/// by early frames, events by delivery, in one ring.
fn a_queue_may_be_bound_and_listened_to_on_one_socket(setting: &mut Setting) -> anyhow::Result<()> {
    const PACKETS: u32 = 40;
    let patience = setting.patiently(Duration::from_secs(2));
    let _rules = Rules::install(&[&format!("udp dport {PORT} queue num 0")], &[])?;
    let socket = Socket::open(libc::NETLINK_NETFILTER)?;
    groups::bind(&socket, 0)?;
    groups::join(&socket, conntrack::NEW_GROUP)?;
    let geometry = Geometry::for_messages(2000, 4 * PACKETS)?;
    let receiver = socket.rx_ring(geometry, Flags::MULTICAST)?;
    let mut consumer = crate::consumer::Consumer::bind(receiver, Binding::of(0))?;
    let flow = Flow::local(0, PACKETS).start(&Window::of(PACKETS))?;
    conntrack::make(1..PACKETS as u16 + 1)?;
    traffic::sent(flow)?;
    let (mut ledger, mut events) = (Ledger::default(), 0);
    while ledger.total() < PACKETS || events < PACKETS {
        let message = next_framed(consumer.receiver(), patience)
            .with_context(|| format!("after {} packets, {events} events", ledger.total()))?;
        if Message::read(&message)?.kind >> 8 == 1 {
            events += 1;
        } else if let nfqueue::Message::Packet { id, payload } = nfqueue::Message::read(&message)? {
            let payload = nfqueue::udp_payload(payload).context("no datagram")?;
            ledger.book(crate::stamp::Stamp::read(payload)?)?;
            consumer.verdict(id, nfqueue::Verdict::Drop)?;
        }
    }
    ledger.assert_whole(0, PACKETS)?;
    setting.note(format!("{PACKETS} packets and {events} events in one ring"));
    Ok(())
}
