// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the harness and the agent in the guest say to each other, and how it is framed.
//!
//! The conversation: the host says [`ToGuest::Hello`] until the guest answers [`ToHost::Ready`] with
//! the same nonce (a virtio-serial port can lose bytes sent before its other end is open). Then, per
//! job, [`ToGuest::Run`], any number of [`ToHost::Note`], one [`ToHost::Outcome`], and the host's
//! [`ToGuest::Acknowledge`]; the guest repeats an outcome until it is acknowledged. An outcome that
//! never came is no verdict at all. [`ToGuest::PowerOff`] ends it.

mod frame;
mod message;

pub use frame::{FrameError, FrameReader, MAX_BODY, write_frame};
pub use message::{Job, LOG_MARK, LOG_MARK_END, Link, Outcome, Status, ToGuest, ToHost};
