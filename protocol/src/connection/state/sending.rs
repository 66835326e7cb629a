//! What the owner hands over to be sent, and takes back.

use alloc::vec::Vec;

use crate::Instant;
use crate::message::Message;
use crate::segment::{Channel, MessageToken, OutgoingQueues};

use super::super::SendError;
use super::{Connection, Standing, State};

impl Connection {
    pub(crate) fn standing(&self) -> Standing {
        match (&self.state, &self.suspended) {
            (State::Established(established), _) if established.is_settled() => Standing::Connected,
            (State::Established(established), _) if established.is_open() => Standing::Interrupted,
            (State::Seeking { .. }, Some(_)) => Standing::Interrupted,
            _ => Standing::Absent,
        }
    }

    /// The largest message that can be sent on `channel`, by the peer's limit and our queue, while there is somebody to take it.
    pub(crate) fn message_max(&self, channel: Channel) -> Option<usize> {
        let peers = match (&self.state, &self.suspended) {
            (State::Established(established), _) => established.peer.max_message,
            (_, Some(suspended)) => suspended.peer.max_message,
            _ => return None,
        };
        Some(peers.min(self.queue_max(channel)))
    }

    fn queue_max(&self, channel: Channel) -> usize {
        OutgoingQueues::message_max(self.config.send_queue_bytes, channel)
    }

    /// Encodes and queues a message.
    pub(crate) fn send(
        &mut self,
        now: Instant,
        message: &Message<'_>,
        token: Option<MessageToken>,
    ) -> Result<(), SendError> {
        let mut bytes = self.buffers.take_roomiest();
        message.encode_into(&mut bytes);
        self.send_bytes(now, message.channel(), bytes, token)
    }

    /// Queues an encoded message.
    pub(crate) fn send_bytes(
        &mut self,
        now: Instant,
        channel: Channel,
        message: Vec<u8>,
        token: Option<MessageToken>,
    ) -> Result<(), SendError> {
        let queue_max = self.queue_max(channel);
        let (queues, limit) = match (&mut self.state, &mut self.suspended) {
            (State::Established(established), _) if established.is_open() => {
                (&mut established.sender.queues, established.peer.max_message)
            }
            (State::Seeking { .. }, Some(suspended)) => {
                (&mut suspended.queues, suspended.peer.max_message)
            }
            _ => {
                self.buffers.give(message);
                return Err(SendError::NotConnected);
            }
        };
        let (size, limit) = (message.len(), limit.min(queue_max));
        if size > limit {
            self.buffers.give(message);
            return Err(SendError::TooLarge { size, limit });
        }
        if let Err(message) = queues.push(channel, message, token) {
            self.buffers.give(message);
            return Err(SendError::QueueFull);
        }
        if let State::Established(established) = &self.state {
            established.watch_credit(now, &mut self.timers);
        }
        self.stats.messages_sent += 1;
        Ok(())
    }

    /// Takes a message back if no byte of it was handed out.
    pub(crate) fn withdraw(&mut self, token: MessageToken) -> bool {
        match (&mut self.state, &mut self.suspended) {
            (State::Established(established), _) => established.sender.queues.withdraw(token),
            (_, Some(suspended)) => suspended.queues.withdraw(token),
            _ => false,
        }
    }
}
