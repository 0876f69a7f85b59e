// SPDX-License-Identifier: MIT OR Apache-2.0
//! A case of the group `ordering` across two machines: what another kernel sends.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nlring::{Flags, Geometry};

use crate::consumer::{Binding, Consumer, Way};
use crate::nfqueue::Verdict;
use crate::rules::Rules;
use crate::stamp::Stamp;
use crate::traffic::{From, PORT, Sink, far, near};
use crate::{Case, Setting, case};

pub(crate) const CASES: &[Case] =
    &[
        case!(Ordering, packets_of_another_machine_come_in_order_and_whole)
            .proves("rx-ordered-ids rx-valid")
            .facing(the_machine_that_sends)
            .within(15),
    ];

/// The port by which the two say how far they are.
const CONTROL: u16 = 6998;
/// Datagrams that are sent before the other end says that they have come.
const BURST: u32 = 16;
const BURSTS: u32 = 20;

/// Contract, "RX", the whole way: what another machine sends comes into an ordered ring as it was
/// sent, and behind its verdict to the program that it was for, with every byte.
fn packets_of_another_machine_come_in_order_and_whole(setting: &mut Setting) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(2));
    let control = UdpSocket::bind((near(0), CONTROL))?;
    control.set_read_timeout(Some(patience))?;
    let sink = Sink::bind(From::Here, PORT)?;
    let _rules = Rules::install(&[&format!("udp dport {PORT} queue num 0")], &[])?;
    let geometry = Geometry::for_messages(2048, 64)?;
    let mut consumer = Consumer::ringed(Binding::of(0), geometry, Flags::ORDERED)?;
    let (_, other) = control
        .recv_from(&mut [0; 16])
        .context("the other machine does not call")?;
    for burst in 0..BURSTS {
        control.send_to(b"go", other)?;
        for sequence in burst * BURST..(burst + 1) * BURST {
            let packet = consumer.packet(patience)?;
            let due = Stamp { flow: 0, sequence };
            ensure!(
                packet.id == sequence + 1 && packet.stamp == Some(due),
                "{packet:?} stands where {due:?} is due"
            );
            ensure!(
                matches!(packet.way, Way::Frame(_)),
                "packet {} came by {:?}",
                packet.id,
                packet.way
            );
            consumer.verdict(packet.id, Verdict::Accept)?;
            let arrived = sink.next(patience)?;
            ensure!(arrived == Some(due), "{arrived:?} arrives for {due:?}");
        }
    }
    control.send_to(b"done", other)?;
    setting.note(format!(
        "{} datagrams of another machine, in order",
        BURSTS * BURST
    ));
    Ok(())
}

/// The other machine: calls, and sends a burst each time it is told to.
fn the_machine_that_sends(setting: &mut Setting) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(4));
    let control = UdpSocket::bind((far(0), CONTROL))?;
    control.connect((near(0), CONTROL))?;
    let socket = UdpSocket::bind((far(0), 0))?;
    socket.connect((near(0), PORT))?;
    let mut random = fastrand::Rng::with_seed(setting.seed);
    let mut sequence = 0;
    let mut told = call(&control, patience)?;
    control.set_read_timeout(Some(patience))?;
    while told == b"go" {
        for _ in 0..BURST {
            let stamp = Stamp { flow: 0, sequence };
            socket.send(&stamp.payload(random.usize(16..=1400)))?;
            sequence += 1;
        }
        told = hear(&control).context("the other machine says nothing more")?;
    }
    ensure!(told == b"done", "the other machine says {told:?}");
    setting.note(format!("{sequence} datagrams sent"));
    Ok(())
}

/// Says that we are here until the other end has something to say.
fn call(control: &UdpSocket, patience: Duration) -> anyhow::Result<Vec<u8>> {
    let deadline = Instant::now() + patience;
    control.set_read_timeout(Some(Duration::from_millis(20)))?;
    loop {
        // Nobody may listen there yet.
        match control.send(b"here").and_then(|_| hear(control)) {
            Ok(told) => return Ok(told),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::ConnectionRefused
                ) => {}
            Err(error) => return Err(error.into()),
        }
        ensure!(
            Instant::now() < deadline,
            "the other machine does not answer within {patience:?}"
        );
    }
}

fn hear(control: &UdpSocket) -> std::io::Result<Vec<u8>> {
    let mut room = [0; 16];
    let len = control.recv(&mut room)?;
    Ok(room[..len].to_vec())
}
