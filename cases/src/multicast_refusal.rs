// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `multicast`: when a join is refused, and that nothing is left of it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use libc::{EOPNOTSUPP, NETLINK_NETFILTER, NETLINK_USERSOCK};
use nix::unistd::{Uid, setuid};
use nlring::{Flags, Geometry, Socket};

use crate::message::{Message, Writer, attributes};
use crate::multicast_ring::{GROUP, speak};
use crate::option::{NETLINK_RX_RING, assert_refused, request_for, set};
use crate::traffic::pin;
use crate::{Case, Setting, case, child, conntrack, groups, peers};

pub(crate) const CASES: &[Case] = &[
    case!(Multicast, who_may_not_join_at_all_is_told_so_as_ever).proves("multicast-eperm-first"),
    case!(Multicast, a_ring_refuses_before_the_family_is_asked).proves("multicast-before-callback"),
    case!(Multicast, of_a_join_and_a_ring_at_once_one_wins).proves("multicast-race"),
    case!(Multicast, a_join_that_loses_to_a_ring_is_taken_back).proves("multicast-race-undone"),
];

/// Somebody without any right.
const NOBODY: u32 = 65534;

fn geometry() -> anyhow::Result<Geometry> {
    Ok(Geometry::from_request(4096, 1, 2048, 2)?)
}

/// A socket with a ring, and one without.
fn both(family: i32) -> anyhow::Result<[Socket; 2]> {
    let ringed = Socket::open(family)?;
    ringed.set_up_rx_ring(&geometry()?, Flags::NONE)?;
    Ok([ringed, Socket::open(family)?])
}

/// Contract, "Multicast": the refusal comes after today's `EPERM`. Groups of netfilter are not for
/// everybody: who may not join them learns that, and not that there is a ring, by either way.
fn who_may_not_join_at_all_is_told_so_as_ever(setting: &mut Setting) -> anyhow::Result<()> {
    let sockets = both(NETLINK_NETFILTER)?;
    child::run(|| {
        setuid(Uid::from_raw(NOBODY))?;
        for (name, socket) in ["with a ring", "without"].iter().zip(&sockets) {
            let join = groups::join(socket, conntrack::NEW_GROUP);
            assert_refused(&format!("joining {name}"), join, libc::EPERM)?;
            let bind = groups::bind(socket, 1);
            assert_refused(&format!("binding {name}"), bind, libc::EPERM)?;
        }
        Ok(())
    })?;
    let [ringed, plain] = &sockets;
    let join = groups::join(ringed, conntrack::NEW_GROUP);
    assert_refused("joining by root with a ring", join, EOPNOTSUPP)?;
    groups::join(plain, conntrack::NEW_GROUP)?;
    setting.note("EPERM for nobody, ring or not; EOPNOTSUPP for root with a ring");
    Ok(())
}

/// `GENL_ID_CTRL` and `CTRL_CMD_GETFAMILY`, version 2.
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: [u8; 4] = [3, 2, 0, 0];
/// `CTRL_ATTR_FAMILY_NAME` and `CTRL_ATTR_MCAST_GROUPS`; `CTRL_ATTR_MCAST_GRP_NAME` and `_ID` in those.
const FAMILY_NAME: u16 = 2;
const GROUPS: u16 = 7;
const GROUP_NAME: u16 = 1;
const GROUP_ID: u16 = 2;

/// The number of a group of a generic family.
fn generic_group(family: &str, group: &str) -> anyhow::Result<u32> {
    let zero_ended = |name: &str| [name.as_bytes(), &[0]].concat();
    let socket = Socket::open(libc::NETLINK_GENERIC)?;
    let request = Writer::request(CONTROLLER, 0, 1)
        .with(&GET_FAMILY)
        .attribute(FAMILY_NAME, &zero_ended(family));
    socket.send(&request.end())?;
    let answer = peers::receive(&socket)?;
    let message = Message::read(&answer)?;
    let listed = message.attribute(GET_FAMILY.len(), GROUPS)?;
    for entry in attributes(listed.with_context(|| format!("no groups of family {family}"))?) {
        let entry: Vec<_> = attributes(entry?.1).collect::<Result<_, _>>()?;
        let value = |kind| entry.iter().find(|(found, _)| *found == kind);
        if value(GROUP_NAME).is_some_and(|(_, name)| *name == zero_ended(group)) {
            let (_, id) = value(GROUP_ID).context("a group without a number")?;
            return Ok(u32::from_ne_bytes((*id).try_into()?));
        }
    }
    anyhow::bail!("family {family} has no group {group}")
}

/// Contract, "Multicast": the refusal comes before any callback of the family. That of generic netlink
/// has an opinion of its own on who may hear sampled packets, which shows who was asked first.
fn a_ring_refuses_before_the_family_is_asked(setting: &mut Setting) -> anyhow::Result<()> {
    let group = generic_group("psample", "packets")?;
    let sockets = both(libc::NETLINK_GENERIC)?;
    child::run(|| {
        setuid(Uid::from_raw(NOBODY))?;
        for (socket, errno) in sockets.iter().zip([EOPNOTSUPP, libc::EPERM]) {
            assert_refused("joining", groups::join(socket, group), errno)?;
            if let Some(mask) = 1_u32.checked_shl(group - 1) {
                assert_refused("binding", groups::bind(socket, mask), errno)?;
            }
        }
        Ok(())
    })?;
    let [ringed, plain] = &sockets;
    let join = groups::join(ringed, group);
    assert_refused("joining by root with a ring", join, EOPNOTSUPP)?;
    groups::join(plain, group)?;
    setting.note(format!(
        "group {group}: the family's EPERM without a ring, EOPNOTSUPP with one"
    ));
    Ok(())
}

/// Many times a socket that joins a group and gets a ring at once: calls `judge` with what came of the ring,
/// and of the join.
fn race(
    family: i32,
    group: u32,
    setting: &Setting,
    span: Duration,
    mut judge: impl FnMut(&Socket, io::Result<()>, io::Result<()>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    /// Before a join, in nanoseconds. A set-up takes some tens of microseconds, and when a join has to come
    /// to meet its end is not known.
    const STAGGER: u64 = 120_000;
    // The end of a ring waits for RCU, for longer than a hundred races take.
    let _expedited = Expedited::begin()?;
    let request = request_for(&geometry()?, Flags::NONE);
    let mut random = fastrand::Rng::with_seed(setting.seed);
    let over = AtomicBool::new(false);
    let (asked, outcome) = (
        Mutex::new(None::<(BorrowedFd<'_>, Duration)>),
        Mutex::new(None),
    );
    let end = Instant::now() + span;
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = pin(1); // where there is but one CPU there is less of a race
            while !over.load(Ordering::Relaxed) {
                let Some((socket, delay)) = asked.lock().expect("nobody panics").take() else {
                    std::hint::spin_loop();
                    continue;
                };
                let then = Instant::now() + delay;
                while Instant::now() < then {}
                let join = groups::join(&socket, group);
                *outcome.lock().expect("nobody panics") = Some(join);
            }
        });
        let _stop = StopsAtEnd(&over);
        pin(0)?;
        while Instant::now() < end {
            let socket = Socket::open(family)?;
            groups::bind(&socket, 0)?;
            let delay = Duration::from_nanos(random.u64(..STAGGER));
            // SAFETY: the other is done with it when its outcome is there, and the socket is not closed before.
            let lent = unsafe { BorrowedFd::borrow_raw(socket.as_fd().as_raw_fd()) };
            *asked.lock().expect("nobody panics") = Some((lent, delay));
            let ring = set(&socket, NETLINK_RX_RING, &request);
            let join = loop {
                if let Some(join) = outcome.lock().expect("nobody panics").take() {
                    break join;
                }
                thread::yield_now();
            };
            judge(&socket, ring, join)?;
        }
        Ok(())
    })
}

/// Has a thread that looks at it stop, however this one goes on.
struct StopsAtEnd<'a>(&'a AtomicBool);

impl Drop for StopsAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Grace periods that end at once, at the price of every CPU's attention; as before when it is dropped.
struct Expedited(String);

impl Expedited {
    const SWITCH: &str = "/sys/kernel/rcu_expedited";

    fn begin() -> anyhow::Result<Self> {
        let before = fs::read_to_string(Self::SWITCH).context(Self::SWITCH)?;
        fs::write(Self::SWITCH, "1").context(Self::SWITCH)?;
        Ok(Self(before))
    }
}

impl Drop for Expedited {
    fn drop(&mut self) {
        let _ = fs::write(Self::SWITCH, &self.0);
    }
}

/// Contract, "Multicast": the final decision is made where membership and "has an RX ring" change
/// together: of a join and a set-up at once exactly one wins, and the socket is what the winner
/// made.
fn of_a_join_and_a_ring_at_once_one_wins(setting: &mut Setting) -> anyhow::Result<()> {
    let span = setting.patiently(Duration::from_millis(200));
    let (mut rings, mut joins) = (0_u32, 0_u32);
    let (speaker, _) = peers::open()?;
    race(
        NETLINK_USERSOCK,
        GROUP,
        setting,
        span,
        |socket, ring, join| {
            match (ring, join) {
                (Ok(()), refused) => {
                    assert_refused("the join that lost", refused, EOPNOTSUPP)?;
                    let told = socket.rx_ring_request()?;
                    ensure!(told.is_some_and(|ring| ring.block_nr == 1), "{told:?}");
                    speak(&speaker, b"not for it")?;
                    peers::assert_nothing_queued(socket)?;
                    rings += 1;
                }
                (refused, Ok(())) => {
                    assert_refused("the ring that lost", refused, EOPNOTSUPP)?;
                    let told = socket.rx_ring_request()?;
                    ensure!(told.is_some_and(|ring| ring.block_nr == 0), "{told:?}");
                    speak(&speaker, b"for it")?;
                    ensure!(peers::receive(socket)? == b"for it", "the member is deaf");
                    joins += 1;
                }
                (Err(ring), Err(join)) => anyhow::bail!("both lost: {ring}, {join}"),
            }
            Ok(())
        },
    )?;
    // Where the machine is busy the join, which another thread begins, may come last each time.
    ensure!(rings > 0, "no race: {rings} rings, {joins} joins");
    setting.note(format!(
        "{rings} times the ring won, {joins} times the join"
    ));
    Ok(())
}

/// Contract, "Multicast": the loser of a race undoes its callbacks. Netfilter's notes that there is a
/// listener, and as long as there is none, connections are made without events: so the deletion of one
/// that was made after a lost join is heard by nobody, also who has come since.
fn a_join_that_loses_to_a_ring_is_taken_back(setting: &mut Setting) -> anyhow::Result<()> {
    /// The kernel looks for listeners when a connection is made.
    const EVENTS: (&str, &str) = ("/proc/sys/net/netfilter/nf_conntrack_events", "2");
    let span = setting.patiently(Duration::from_millis(200));
    fs::write(EVENTS.0, EVENTS.1)?;
    ensure!(is_heard(true)?, "a listener hears of no deletion");
    ensure!(
        !is_heard(false)?,
        "a deletion is heard that nobody waited for"
    );

    let (mut rings, mut joins) = (0_u32, 0_u32);
    let group = conntrack::DESTROY_GROUP;
    race(NETLINK_NETFILTER, group, setting, span, |_, ring, join| {
        if ring.is_ok() {
            assert_refused("the join that lost", join, EOPNOTSUPP)?;
            rings += 1;
            ensure!(
                !is_heard(false)?,
                "the family still counts on a listener whose join lost to ring {rings}"
            );
        } else {
            join.context("both lost")?;
            joins += 1;
        }
        Ok(())
    })?;
    ensure!(rings > 0, "the join always won, {joins} times");
    setting.note(format!("{rings} joins lost and left nothing, {joins} won"));
    Ok(())
}

/// Makes a connection, with a listener for deletions there or not, and tells whether who listens
/// when it is deleted hears of it.
fn is_heard(listens_before: bool) -> anyhow::Result<bool> {
    let listener = Socket::open(NETLINK_NETFILTER)?;
    groups::bind(&listener, 0)?; // without a port of its own it would be taken for the kernel
    if listens_before {
        groups::join(&listener, conntrack::DESTROY_GROUP)?;
    }
    conntrack::make(1..2)?;
    groups::join(&listener, conntrack::DESTROY_GROUP)?;
    conntrack::make(0..0)?; // which deletes all there are
    match peers::receive(&listener) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
