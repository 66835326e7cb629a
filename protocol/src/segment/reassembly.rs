//! Segments of one channel put in order and joined to messages.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::wire::WINDOW_MAX;

/// What a peer did that segments must not do; the transport below it is exact, so it is the peer's mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReassemblyError {
    /// A segment continues a message that nobody began, or begins one inside another.
    #[error("segment out of place")]
    OutOfPlace,
    /// The message exceeds the announced limit.
    #[error("message exceeds {limit} bytes")]
    MessageTooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// The channel's numbering contradicts the packets' numbering.
    #[error("channel sequence number {channel_seq} outside the window")]
    BadChannelSeq {
        /// The number.
        channel_seq: u8,
    },
}

#[derive(Debug)]
struct Waiting {
    start: bool,
    end: bool,
    payload: Vec<u8>,
}

/// One channel's receiver. Invariants: `waiting.len() < WINDOW_MAX`, `joined.len() <= message_bytes_max`.
#[derive(Debug)]
pub struct Reassembly {
    next_seq: u8,
    waiting: BTreeMap<u8, Waiting>,
    joined: Option<Vec<u8>>,
    message_bytes_max: usize,
}

impl Reassembly {
    /// A receiver for messages of up to `message_bytes_max` bytes.
    #[must_use]
    pub fn new(message_bytes_max: usize) -> Self {
        Self {
            next_seq: 0,
            waiting: BTreeMap::new(),
            joined: None,
            message_bytes_max,
        }
    }

    /// Takes a segment that the transport gives for the first time; appends the messages it completes to `messages`.
    ///
    /// # Errors
    /// The peer broke the protocol; the connection must end.
    pub fn on_segment(
        &mut self,
        channel_seq: u8,
        start: bool,
        end: bool,
        payload: &[u8],
        messages: &mut Vec<Vec<u8>>,
    ) -> Result<(), ReassemblyError> {
        if channel_seq != self.next_seq {
            let ahead = channel_seq.wrapping_sub(self.next_seq);
            let segment = Waiting {
                start,
                end,
                payload: payload.to_vec(),
            };
            if ahead >= WINDOW_MAX || self.waiting.insert(channel_seq, segment).is_some() {
                return Err(ReassemblyError::BadChannelSeq { channel_seq });
            }
            return Ok(());
        }
        self.join(start, end, payload, messages)?;
        while let Some(segment) = self.waiting.remove(&self.next_seq) {
            self.join(segment.start, segment.end, &segment.payload, messages)?;
        }
        Ok(())
    }

    fn join(
        &mut self,
        start: bool,
        end: bool,
        payload: &[u8],
        messages: &mut Vec<Vec<u8>>,
    ) -> Result<(), ReassemblyError> {
        self.next_seq = self.next_seq.wrapping_add(1);
        let mut joined = match (start, self.joined.take()) {
            (true, None) => Vec::new(),
            (false, Some(joined)) => joined,
            _ => return Err(ReassemblyError::OutOfPlace),
        };
        if joined.len() + payload.len() > self.message_bytes_max {
            return Err(ReassemblyError::MessageTooLong {
                limit: self.message_bytes_max,
            });
        }
        joined.extend_from_slice(payload);
        if end {
            messages.push(joined);
        } else {
            self.joined = Some(joined);
        }
        Ok(())
    }
}
