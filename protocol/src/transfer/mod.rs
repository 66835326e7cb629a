//! Carrying something large from one end to the other (firmware, a model; a crash log, audio), in parts, with a hash over all,
//! going on where it stopped.
//!
//! Both roles do both: [`Host::transfers`](crate::Host::transfers) and [`Device::transfers`](crate::Device::transfers) give the
//! same [`Transfers`]. Neither machine holds more than the parts on their way: the offering owner reads what is wanted next, the
//! taking owner stores what comes. Parts travel on the bulk channel, so that they delay a command by a segment at most. One
//! transfer is open in each direction at a time.
//!
//! The offering end: [`Transfers::offer`], on [`TransferEvent::Wanted`] [`Transfers::write`] until all is written, then
//! [`TransferEvent::Finished`]. The taking end: on [`TransferEvent::Offered`] [`Transfers::accept`] or [`Transfers::refuse`], store
//! each [`TransferEvent::Part`], on [`TransferEvent::Complete`] make it durable and [`Transfers::confirm`] it.
//!
//! An interrupted transfer is offered anew, over whatever link; the taking end says from where it wants it, by the
//! [`TransferDigest`] of what it has stored already. There is no deadline: an owner that loses patience aborts or refuses.

mod digest;
mod incoming;
mod outgoing;
mod state;

pub use digest::TransferDigest;
pub use incoming::NotOffered;
pub use outgoing::{OfferError, WriteError};
pub(crate) use state::TransferState;
pub use state::Transfers;

use alloc::string::String;
use alloc::vec::Vec;

use crate::message::Fault;

/// A transfer's name, counted by the offering machine. The two directions count on their own: which one is meant follows from
/// the event or the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransferId(pub u64);

/// What is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// What it is, in words that the other end knows; at most [`NAME_BYTES_MAX`](crate::message::NAME_BYTES_MAX) bytes.
    pub name: String,
    /// Its length in bytes, at most the other end's [`Config::transfer_bytes_max`](crate::Config::transfer_bytes_max).
    pub length: u32,
    /// Its SHA-256.
    pub hash: [u8; 32],
}

/// What an owner has to know of its transfers; [`Transfers::poll`] gives it.
#[derive(Debug, Clone, PartialEq)]
pub enum TransferEvent {
    /// The other end wants what we offered, from `offset` on: write with [`Transfers::write`].
    Wanted {
        /// The transfer.
        id: TransferId,
        /// The first byte wanted, 0 to the length.
        offset: u32,
    },
    /// The other end has confirmed what we offered, or refuses it.
    Finished {
        /// The transfer.
        id: TransferId,
        /// The outcome.
        result: Result<(), Fault>,
    },
    /// The connection was lost under what we offered; offer it again to go on.
    Interrupted {
        /// The transfer.
        id: TransferId,
    },
    /// The other end offers something: answer with [`Transfers::accept`] or [`Transfers::refuse`].
    Offered {
        /// The transfer.
        id: TransferId,
        /// What is offered; nothing was allocated for its length.
        offer: Offer,
    },
    /// The next bytes of what we accepted, without a gap.
    Part {
        /// The transfer.
        id: TransferId,
        /// Where they begin.
        offset: u32,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// All of what we accepted has come, and the hash is right: make it durable, then [`Transfers::confirm`] it.
    Complete {
        /// The transfer.
        id: TransferId,
    },
    /// What was offered to us ended before it was confirmed.
    Ended {
        /// The transfer.
        id: TransferId,
        /// Why.
        reason: EndReason,
    },
}

/// Why a transfer to us ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EndReason {
    /// The other end gave it up. What was stored may be used to go on.
    #[error("given up by the other end")]
    Aborted,
    /// The connection was lost. What was stored may be used to go on.
    #[error("the connection was lost")]
    ConnectionLost,
    /// The other end sent a part that is out of place, empty or too long. What was stored may be used to go on.
    #[error("a part is out of place")]
    Misplaced,
    /// All of it has come and the hash is wrong: what was stored is worthless.
    #[error("what came does not match its hash")]
    HashMismatch,
}
