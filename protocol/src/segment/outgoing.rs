//! Messages waiting to be sent, one queue a channel, handed out a segment at a time.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::Channel;

/// A sender's name for a message whose progress it wants to hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MessageToken(pub u64);

/// A piece of a message, ready for a Data packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its channel.
    pub channel: Channel,
    /// Its number on that channel.
    pub channel_seq: u8,
    /// It begins a message.
    pub start: bool,
    /// It ends a message.
    pub end: bool,
    /// The message's token.
    pub token: Option<MessageToken>,
    /// The bytes.
    pub payload: Vec<u8>,
}

#[derive(Debug)]
struct Waiting {
    bytes: Vec<u8>,
    /// What it counts in the queue.
    cost: usize,
    sent: usize,
    token: Option<MessageToken>,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Waiting>,
    next_seq: u8,
}

/// The queues. Invariant: `bytes` is the sum of all messages' costs and stays within `bytes_max`.
#[derive(Debug)]
pub struct OutgoingQueues {
    queues: [Queue; 4],
    bytes: usize,
    bytes_max: usize,
}

/// Counted with each message besides its bytes, so that empty messages cannot pile up without limit.
const MESSAGE_OVERHEAD_BYTES: usize = 64;

impl OutgoingQueues {
    /// Empty queues that hold up to `bytes_max` together (each message counts 64 more than its length); each channel
    /// leaves an eighth more to those above it.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            queues: Default::default(),
            bytes: 0,
            bytes_max,
        }
    }

    /// Takes a message; hands it back if there is no room.
    ///
    /// # Errors
    /// The message itself, when the queues are full.
    pub fn push(
        &mut self,
        channel: Channel,
        message: Vec<u8>,
        token: Option<MessageToken>,
    ) -> Result<(), Vec<u8>> {
        let cost = message.len() + MESSAGE_OVERHEAD_BYTES;
        // Less urgent channels leave room, so that a long transfer does not shut out a command.
        let kept_free = self.bytes_max / 8 * channel as usize;
        if self.bytes + cost > self.bytes_max - kept_free {
            return Err(message);
        }
        self.bytes += cost;
        self.queues[channel as usize].messages.push_back(Waiting {
            bytes: message,
            cost,
            sent: 0,
            token,
        });
        Ok(())
    }

    /// Whether `channel` has something to send.
    #[must_use]
    pub fn has(&self, channel: Channel) -> bool {
        !self.queues[channel as usize].messages.is_empty()
    }

    /// Whether any channel has something to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        Channel::ALL.iter().all(|&channel| !self.has(channel))
    }

    /// The next message of `channel`, while no segment of it was handed out; the last chance to seal it.
    pub fn unbegun_mut(&mut self, channel: Channel) -> Option<&mut Vec<u8>> {
        let message = self.queues[channel as usize].messages.front_mut()?;
        (message.sent == 0).then_some(&mut message.bytes)
    }

    /// The next segment of `channel`, of at most `payload_max` bytes.
    pub fn pop_segment(&mut self, channel: Channel, payload_max: usize) -> Option<Segment> {
        let queue = &mut self.queues[channel as usize];
        let message = queue.messages.front_mut()?;
        let from = message.sent;
        let to = message.bytes.len().min(from + payload_max);
        message.sent = to;
        let segment = Segment {
            channel,
            channel_seq: queue.next_seq,
            start: from == 0,
            end: to == message.bytes.len(),
            token: message.token,
            payload: message.bytes[from..to].to_vec(),
        };
        queue.next_seq = queue.next_seq.wrapping_add(1);
        if segment.end {
            self.bytes -= message.cost;
            queue.messages.pop_front();
        }
        Some(segment)
    }

    /// Takes back the message of `token` if no segment of it was handed out; says whether it did.
    pub fn withdraw(&mut self, token: MessageToken) -> bool {
        for queue in &mut self.queues {
            let found = queue
                .messages
                .iter()
                .position(|message| message.token == Some(token) && message.sent == 0);
            if let Some(message) = found.and_then(|at| queue.messages.remove(at)) {
                self.bytes -= message.cost;
                return true;
            }
        }
        false
    }
}
