//! Messages waiting to be sent, one queue a channel, handed out a segment at a time.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::{Buffers, Channel};

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
    /// It belongs to a message of the connection itself (a handshake, a resumption), which is neither kept nor counted.
    pub is_internal: bool,
    /// The bytes.
    pub payload: Vec<u8>,
}

/// The other end says that it has what was never sent to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeverSent;

#[derive(Debug)]
struct Waiting {
    bytes: Vec<u8>,
    /// As it was before it was sealed, where it may have to be sent anew.
    unsealed: Option<Vec<u8>>,
    /// What it counts in the queue.
    cost: usize,
    sent: usize,
    /// Some of it was handed out, on this connection or on one that it resumes.
    was_begun: bool,
    is_internal: bool,
    token: Option<MessageToken>,
}

impl Waiting {
    fn give_back(self, buffers: &mut Buffers) {
        buffers.give(self.bytes);
        self.unsealed
            .into_iter()
            .for_each(|bytes| buffers.give(bytes));
    }
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Waiting>,
    /// Handed out whole, and kept until they have arrived.
    kept: VecDeque<Waiting>,
    /// How many messages have arrived, modulo 2^32.
    arrived: u32,
    next_seq: u8,
}

/// The queues. Invariant: `bytes` is the sum of all messages' costs and stays within `bytes_max`.
#[derive(Debug)]
pub struct OutgoingQueues {
    queues: [Queue; 4],
    bytes: usize,
    bytes_max: usize,
    keeps: bool,
    /// Nothing but internal messages may go, until the other end has said what it has.
    is_held: bool,
}

/// Counted with each message besides its bytes, so that empty messages cannot pile up without limit.
pub(crate) const MESSAGE_OVERHEAD_BYTES: usize = 64;

impl OutgoingQueues {
    /// Empty queues that hold up to `bytes_max` together (each message counts 64 more than its length); each channel
    /// leaves an eighth more to those above it.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            queues: Default::default(),
            bytes: 0,
            bytes_max,
            keeps: false,
            is_held: false,
        }
    }

    /// The longest message that queues of `bytes_max` ever take on `channel`; for a longer one waiting is in vain.
    #[must_use]
    pub const fn message_max(bytes_max: usize, channel: Channel) -> usize {
        let kept_free = bytes_max / 8 * channel as usize;
        (bytes_max - kept_free).saturating_sub(MESSAGE_OVERHEAD_BYTES)
    }

    /// The same queues, which keep what was handed out until it has arrived, so that it can be handed out anew.
    #[must_use]
    pub fn keeping(self) -> Self {
        Self {
            keeps: true,
            ..self
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
            unsealed: None,
            cost,
            sent: 0,
            was_begun: false,
            is_internal: false,
            token,
        });
        Ok(())
    }

    /// Puts a message of the connection itself before all others.
    pub fn push_internal(&mut self, message: Vec<u8>) {
        self.queues[Channel::Control as usize]
            .messages
            .push_front(Waiting {
                bytes: message,
                unsealed: None,
                cost: 0,
                sent: 0,
                was_begun: false,
                is_internal: true,
                token: None,
            });
    }

    /// Puts the internal messages of other queues before all others.
    pub fn adopt_internal(&mut self, mut other: Self) {
        let theirs = &mut other.queues[Channel::Control as usize].messages;
        while let Some(message) = theirs.pop_back().filter(|message| message.is_internal) {
            self.push_internal(message.bytes);
        }
    }

    /// Takes back all that has not arrived, in order, to be handed out anew on another connection; held until
    /// [`OutgoingQueues::resume`].
    pub fn rewind(&mut self) {
        for queue in &mut self.queues {
            while let Some(message) = queue.kept.pop_back() {
                queue.messages.push_front(message);
            }
            queue.messages.retain(|message| !message.is_internal);
            for message in &mut queue.messages {
                message.sent = 0;
                if let Some(unsealed) = message.unsealed.take() {
                    message.bytes = unsealed;
                }
            }
            queue.next_seq = 0;
        }
        self.is_held = true;
    }

    /// The other end has so many messages of each channel: what it has is dropped (`arrived` gets its tokens), the rest may go.
    ///
    /// # Errors
    /// It claims to have what was never sent.
    pub fn resume(
        &mut self,
        counts: [u32; 4],
        arrived: &mut Vec<MessageToken>,
        buffers: &mut Buffers,
    ) -> Result<(), NeverSent> {
        for (queue, count) in self.queues.iter_mut().zip(counts) {
            for _ in 0..count.wrapping_sub(queue.arrived) {
                // The one in front may be ours to speak of the resumption itself.
                let at = usize::from(
                    queue
                        .messages
                        .front()
                        .is_some_and(|first| first.is_internal),
                );
                let message = queue
                    .messages
                    .remove(at)
                    .filter(|message| message.was_begun)
                    .ok_or(NeverSent)?;
                self.bytes -= message.cost;
                queue.arrived = queue.arrived.wrapping_add(1);
                arrived.extend(message.token);
                message.give_back(buffers);
            }
        }
        self.is_held = false;
        Ok(())
    }

    /// The oldest message of `channel` that was handed out whole has arrived.
    pub fn on_arrived(&mut self, channel: Channel, buffers: &mut Buffers) {
        let queue = &mut self.queues[channel as usize];
        if let Some(message) = queue.kept.pop_front() {
            self.bytes -= message.cost;
            queue.arrived = queue.arrived.wrapping_add(1);
            message.give_back(buffers);
        }
    }

    /// Whether `channel` has something to send.
    #[must_use]
    pub fn has(&self, channel: Channel) -> bool {
        let first = self.queues[channel as usize].messages.front();
        first.is_some_and(|message| message.is_internal || !self.is_held)
    }

    /// Whether any channel has something to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        Channel::ALL.iter().all(|&channel| !self.has(channel))
    }

    /// Seals the next message of `channel`, if no segment of it was handed out.
    pub fn seal_next(
        &mut self,
        channel: Channel,
        buffers: &mut Buffers,
        seal: impl FnOnce(&mut Vec<u8>),
    ) {
        if !self.has(channel) {
            return;
        }
        let first = self.queues[channel as usize].messages.front_mut();
        if let Some(message) = first.filter(|message| message.sent == 0) {
            let is_kept = self.keeps && !message.is_internal;
            message.unsealed = is_kept.then(|| buffers.copy(&message.bytes));
            seal(&mut message.bytes);
        }
    }

    /// The next segment of `channel`, of at most `payload_max` bytes.
    pub fn pop_segment(
        &mut self,
        channel: Channel,
        payload_max: usize,
        buffers: &mut Buffers,
    ) -> Option<Segment> {
        if !self.has(channel) {
            return None;
        }
        let queue = &mut self.queues[channel as usize];
        let message = queue.messages.front_mut()?;
        message.was_begun = true;
        let from = message.sent;
        let to = message.bytes.len().min(from + payload_max);
        message.sent = to;
        let is_kept = self.keeps && !message.is_internal;
        let payload = match from == 0 && to == message.bytes.len() && !is_kept {
            // The message is the segment.
            true => core::mem::take(&mut message.bytes),
            false => buffers.copy(&message.bytes[from..to]),
        };
        let segment = Segment {
            channel,
            channel_seq: queue.next_seq,
            start: from == 0,
            end: from + payload.len() >= message.bytes.len(),
            token: message.token,
            is_internal: message.is_internal,
            payload,
        };
        queue.next_seq = queue.next_seq.wrapping_add(1);
        if segment.end
            && let Some(message) = queue.messages.pop_front()
        {
            match is_kept {
                true => queue.kept.push_back(message),
                false => {
                    self.bytes -= message.cost;
                    message.give_back(buffers);
                }
            }
        }
        Some(segment)
    }

    /// Takes back the message of `token` if no segment of it was handed out; says whether it did.
    pub fn withdraw(&mut self, token: MessageToken) -> bool {
        for queue in &mut self.queues {
            let found = queue
                .messages
                .iter()
                .position(|message| message.token == Some(token) && !message.was_begun);
            if let Some(message) = found.and_then(|at| queue.messages.remove(at)) {
                self.bytes -= message.cost;
                return true;
            }
        }
        false
    }
}
