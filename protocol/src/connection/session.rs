//! What outlives an interruption: the messages that have not arrived, and how many have.
//!
//! Where both ends have kept it, they say in their Hellos that they resume. The first message of each (after a handshake) is then a
//! Resume: how many messages of each channel it was given, so that the other drops those and sends the rest anew. Until that has
//! come an end sends nothing else. A message that had arrived in part is sent whole.

use alloc::vec::Vec;

use crate::segment::OutgoingQueues;

use super::{LostReason, PeerInfo};

/// Bytes of a Resume: the session and four counts.
const RESUME_BYTES: usize = 20;

/// How many messages of each channel were taken, modulo 2^32; those of the connection itself do not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Which connection it was that is resumed, and resumed again: the key of the first.
    pub(crate) session: u32,
    pub(crate) counts: [u32; 4],
}

impl Taken {
    pub(crate) fn encode(self) -> Vec<u8> {
        let [a, b, c, d] = self.counts;
        [self.session, a, b, c, d].map(u32::to_le_bytes).concat()
    }

    pub(crate) fn decode(message: &[u8]) -> Option<Self> {
        let bytes: [u8; RESUME_BYTES] = message.try_into().ok()?;
        let mut numbers = bytes.chunks_exact(4).map(|bytes| {
            let number = |number, byte: &u8| number << 8 | u32::from(*byte);
            bytes.iter().rev().fold(0, number)
        });
        Some(Self {
            session: numbers.next()?,
            counts: [
                numbers.next()?,
                numbers.next()?,
                numbers.next()?,
                numbers.next()?,
            ],
        })
    }
}

/// Where an established connection stands with the one that it resumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resumption {
    /// It is a fresh one.
    None,
    /// The other end has not said yet what it has.
    Awaited,
    Done,
}

/// An interrupted connection.
#[derive(Debug)]
pub(crate) struct Suspended {
    pub(crate) peer: PeerInfo,
    pub(crate) queues: OutgoingQueues,
    pub(crate) taken: Taken,
    /// What its owner is told if it is not resumed in time.
    pub(crate) reason: LostReason,
}
