//! Segments of one channel put in order and joined to messages.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::Buffers;
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
    /// A packet is missing, or came twice, on a link that both ends were told loses nothing and keeps the order.
    #[error("packet {seq} instead of {expected} on a link that is said to be reliable")]
    Gap {
        /// The number that was to come next, or the first that did not arrive.
        expected: u16,
        /// The number that came, or the one behind the last that was sent.
        seq: u16,
    },
    /// The channel's numbering contradicts the packets' numbering.
    #[error("channel sequence number {channel_seq} outside the window")]
    BadChannelSeq {
        /// The number.
        channel_seq: u8,
    },
}

/// A segment as it came.
#[derive(Debug, Clone, Copy)]
pub struct ArrivedSegment<'a> {
    /// Its number on its channel.
    pub channel_seq: u8,
    /// It begins a message.
    pub start: bool,
    /// It ends a message.
    pub end: bool,
    /// The bytes.
    pub payload: &'a [u8],
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
    /// What came too early: at `i` the segment `next_seq + 1 + i`, if it has come.
    waiting: VecDeque<Option<Waiting>>,
    joined: Option<Vec<u8>>,
    message_bytes_max: usize,
}

impl Reassembly {
    /// A receiver for messages of up to `message_bytes_max` bytes.
    #[must_use]
    pub fn new(message_bytes_max: usize) -> Self {
        Self {
            next_seq: 0,
            waiting: VecDeque::new(),
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
        segment: &ArrivedSegment<'_>,
        messages: &mut Vec<Vec<u8>>,
        buffers: &mut Buffers,
    ) -> Result<(), ReassemblyError> {
        let channel_seq = segment.channel_seq;
        let ahead = channel_seq.wrapping_sub(self.next_seq);
        if let Some(at) = usize::from(ahead).checked_sub(1) {
            if self.waiting.len() <= at && ahead < WINDOW_MAX {
                self.waiting.resize_with(at + 1, || None);
            }
            let place = self.waiting.get_mut(at).filter(|place| place.is_none());
            *place.ok_or(ReassemblyError::BadChannelSeq { channel_seq })? = Some(Waiting {
                start: segment.start,
                end: segment.end,
                payload: buffers.copy(segment.payload),
            });
            return Ok(());
        }
        self.join(segment, messages, buffers)?;
        // The first place is that of the segment which is waited for now.
        while let Some(next) = self.waiting.pop_front() {
            let Some(waiting) = next else {
                return Ok(());
            };
            let segment = ArrivedSegment {
                channel_seq: self.next_seq,
                start: waiting.start,
                end: waiting.end,
                payload: &waiting.payload,
            };
            self.join(&segment, messages, buffers)?;
            buffers.give(waiting.payload);
        }
        Ok(())
    }

    fn join(
        &mut self,
        segment: &ArrivedSegment<'_>,
        messages: &mut Vec<Vec<u8>>,
        buffers: &mut Buffers,
    ) -> Result<(), ReassemblyError> {
        self.next_seq = self.next_seq.wrapping_add(1);
        let payload = segment.payload;
        let mut joined = match (segment.start, self.joined.take()) {
            (true, None) => buffers.take(payload.len()),
            (false, Some(joined)) => joined,
            _ => return Err(ReassemblyError::OutOfPlace),
        };
        if joined.len() + payload.len() > self.message_bytes_max {
            return Err(ReassemblyError::MessageTooLong {
                limit: self.message_bytes_max,
            });
        }
        joined.extend_from_slice(payload);
        if segment.end {
            messages.push(joined);
        } else {
            self.joined = Some(joined);
        }
        Ok(())
    }
}
