//! Carrying something large from the host to the device (firmware, a model), in parts, with a hash over all, going on where it
//! stopped.
//!
//! Neither machine holds more than the parts on their way: the host's owner reads what is wanted next, the device's owner stores
//! what comes. Parts travel on the bulk channel, so that they delay a command by a segment at most. An interrupted transfer is
//! offered anew; the device says from where it wants it, by the [`TransferDigest`] of what it has stored already.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use sha2::{Digest, Sha256};

use crate::message::Fault;

/// A transfer's name, chosen by the host; two at a time need two names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransferId(pub u64);

/// What is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// What it is, in words that the device knows.
    pub name: String,
    /// Its length in bytes.
    pub length: u32,
    /// Its SHA-256.
    pub hash: [u8; 32],
}

/// What a host's owner has to know of a transfer; [`Host::poll_transfer`](crate::Host::poll_transfer) gives it.
#[derive(Debug, Clone, PartialEq)]
pub enum HostTransferEvent {
    /// The device wants it from `offset` on: write with [`Host::write_transfer`](crate::Host::write_transfer).
    Wanted {
        /// The transfer.
        id: TransferId,
        /// The first byte wanted, 0 to the length.
        offset: u32,
    },
    /// The device has all of it and the hash is right, or it refuses.
    Finished {
        /// The transfer.
        id: TransferId,
        /// The outcome.
        result: Result<(), Fault>,
    },
    /// The connection was lost; offer it again to go on.
    Interrupted {
        /// The transfer.
        id: TransferId,
    },
}

/// What a device's owner has to know of a transfer; [`Device::poll_transfer`](crate::Device::poll_transfer) gives it.
#[derive(Debug, Clone, PartialEq)]
pub enum DeviceTransferEvent {
    /// Answer with [`Device::accept_transfer`](crate::Device::accept_transfer) or
    /// [`Device::refuse_transfer`](crate::Device::refuse_transfer).
    Offered {
        /// The transfer.
        id: TransferId,
        /// What is offered.
        offer: Offer,
    },
    /// The next bytes, without a gap.
    Part {
        /// The transfer.
        id: TransferId,
        /// Where they begin.
        offset: u32,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// All of it has come, and the hash is right; the host is told.
    Complete {
        /// The transfer.
        id: TransferId,
    },
    /// It ended early. What was stored may be used to go on, unless `is_worthless`.
    Ended {
        /// The transfer.
        id: TransferId,
        /// All of it has come and the hash is wrong.
        is_worthless: bool,
    },
}

/// The hash of a beginning: of nothing, or of what is stored already.
#[derive(Clone, Default)]
pub struct TransferDigest {
    hasher: Sha256,
    length: u32,
}

impl TransferDigest {
    /// Of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the bytes that follow.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        let more = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.length = self.length.saturating_add(more);
    }

    /// How many bytes it is of.
    #[must_use]
    pub fn length(&self) -> u32 {
        self.length
    }

    pub(crate) fn matches(self, hash: &[u8; 32]) -> bool {
        <[u8; 32]>::from(self.hasher.finalize()) == *hash
    }
}

impl fmt::Debug for TransferDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TransferDigest({} bytes)", self.length)
    }
}
