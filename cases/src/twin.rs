// SPDX-License-Identifier: MIT OR Apache-2.0
//! A message of which there are two versions: one for 64-bit programs and its twin for 32-bit ones.
//! xfrm sends such (`include/uapi/linux/xfrm.h`).

use anyhow::{Context as _, ensure};
use nlring::{Flags, Geometry, Socket, Status};

use crate::frames::{Field, Frames};
use crate::message::{ACK, Message, Writer};
use crate::{Case, Setting, answers, case, peers};

pub(crate) const CASES: &[Case] = &[case!(
    Fallback,
    a_message_with_a_twin_for_32_bit_programs_comes_by_copy
)
.proves("rx-compat-twin rx-copy-length")];

/// `NETLINK_XFRM`.
const XFRM: i32 = 6;
/// `XFRM_MSG_NEWSA`.
const NEW: u16 = 0x10;
/// `XFRM_MSG_ALLOCSPI`.
const ALLOCATE: u16 = 0x16;
/// `XFRM_MSG_FLUSHSA`.
const FLUSH: u16 = 0x1c;

/// Asks for a number for an association that is to come: `struct xfrm_userspi_info`, of which the
/// destination, the protocol, the family and the range of numbers are told.
fn allocate(sequence: u32) -> Vec<u8> {
    let mut info = [0; 232];
    info[56..60].copy_from_slice(&[192, 0, 2, 1]);
    info[76] = libc::IPPROTO_ESP as u8;
    info[212..214].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    info[224..228].copy_from_slice(&0x100_u32.to_ne_bytes());
    info[228..232].copy_from_slice(&0xfff_u32.to_ne_bytes());
    Writer::request(ALLOCATE, 0, sequence).with(&info).end()
}

/// Forgets all associations: `struct xfrm_usersa_flush`.
fn flush(sequence: u32) -> Vec<u8> {
    Writer::request(FLUSH, ACK, sequence).with(&[0]).end()
}

/// Contract, "RX": a message with a 32-bit twin comes by `COPY` always, whatever room there is, since a
/// frame holds one version of it; one without comes in the next frame.
fn a_message_with_a_twin_for_32_bit_programs_comes_by_copy(
    setting: &mut Setting,
) -> anyhow::Result<()> {
    let geometry = Geometry::for_messages(8000, 4)?;
    let socket = Socket::open(XFRM)?;
    socket.set_up_rx_ring(&geometry, Flags::NONE)?;
    let frames = Frames::map(&socket, geometry)?;
    socket.send(&allocate(1))?;
    let (status, told) = (frames.status(0), frames.get(0, Field::Len));
    ensure!(
        status == Some(Status::Copy),
        "the frame of a message with a twin is {status:?}"
    );
    let message = peers::receive(&socket).context("the message of the COPY frame")?;
    ensure!(
        message.len() == told as usize && Message::read(&message)?.kind == NEW,
        "{} bytes came for a frame of {told}",
        message.len()
    );

    socket.send(&flush(2))?;
    let (status, told) = (frames.status(1), frames.get(1, Field::Len));
    ensure!(
        status == Some(Status::Valid) && told as usize == answers::ANSWER,
        "the answer without a twin is {status:?} with {told} bytes"
    );
    ensure!(
        Message::read(&frames.message(1))?.errno()? == 0,
        "the association stays"
    );
    setting.note(format!(
        "{} bytes by COPY, the answer behind them in a frame",
        message.len()
    ));
    Ok(())
}
