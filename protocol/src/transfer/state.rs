//! Both directions side by side, and what they share: events for the owner, answers that wait for room.

use alloc::boxed::Box;
use alloc::collections::VecDeque;

use crate::Instant;
use crate::connection::Connection;
use crate::event_queue::EventQueue;
use crate::message::Message;

use super::incoming::Incoming;
use super::outgoing::Outgoing;
use super::{Offer, TransferEvent, TransferId};

/// Answers that may wait for room. A transfer leads to two at most, and those of one that is given up are dropped; what exceeds
/// it is a peer that offers without waiting for our answers, which are given up.
const REPLIES_MAX: usize = 8;

/// The transfers of one machine. Both sides of it end with the connection.
#[derive(Debug)]
pub(crate) struct TransferState {
    pub(super) outgoing: Option<Outgoing>,
    pub(super) incoming: Option<Box<Incoming>>,
    pub(super) events: EventQueue<TransferEvent>,
    /// Invariant: `replies.len() <= REPLIES_MAX`.
    replies: VecDeque<(TransferId, Message<'static>)>,
    /// What we gave up and the other end was not told of yet; no new offer is made before it is.
    pub(super) aborting: Option<TransferId>,
    /// The id that the next offer gets.
    pub(super) next_id: u64,
}

impl Default for TransferState {
    fn default() -> Self {
        Self {
            outgoing: None,
            incoming: None,
            events: EventQueue::new(),
            replies: VecDeque::new(),
            aborting: None,
            next_id: 0,
        }
    }
}

impl TransferState {
    pub(crate) fn backlog_bytes(&self) -> usize {
        self.events.bytes()
    }
}

/// A machine's transfers, to be worked with and let go; see the [module](super).
#[derive(Debug)]
pub struct Transfers<'a> {
    pub(super) connection: &'a mut Connection,
    pub(super) state: &'a mut TransferState,
    /// What else waits for the owner.
    other_backlog_bytes: usize,
}

impl<'a> Transfers<'a> {
    pub(crate) fn new(
        connection: &'a mut Connection,
        state: &'a mut TransferState,
        other_backlog_bytes: usize,
    ) -> Self {
        Self {
            connection,
            state,
            other_backlog_bytes,
        }
    }

    /// The next event of a transfer, or `None`; to be polled as the machine's `poll_event` is. An offer may come before the
    /// machine's own event of the connection.
    pub fn poll(&mut self) -> Option<TransferEvent> {
        let event = self.state.events.pop()?;
        self.connection
            .set_backlog(self.other_backlog_bytes + self.state.events.bytes());
        Some(event)
    }

    /// Takes the messages of transfers, which mean the same to both roles; any other counts as unexpected. `cost` is what an
    /// event made of it costs.
    pub(crate) fn on_message(&mut self, message: Message<'_>, cost: usize) {
        match message {
            Message::TransferOffer {
                id,
                name,
                length,
                hash,
            } => {
                let (name, hash) = (name.into_owned(), *hash);
                self.on_offer(TransferId(id), Offer { name, length, hash }, cost);
            }
            Message::TransferWanted { id, offset } => self.on_wanted(TransferId(id), offset),
            Message::TransferPart { id, offset, bytes } => {
                self.on_part(TransferId(id), offset, bytes.into(), cost);
            }
            Message::TransferDone { id, code, text } => {
                self.on_done(TransferId(id), code, text);
            }
            Message::TransferAbort { id } => self.on_abort(TransferId(id)),
            _ => self.count_unexpected(),
        }
    }

    /// The connection ended, and both directions with it.
    pub(crate) fn on_lost(&mut self) {
        self.state.replies.clear();
        self.state.aborting = None;
        self.end_outgoing();
        self.end_incoming(super::EndReason::ConnectionLost);
    }

    /// Queues what waits for room, as far as there is room.
    pub(crate) fn send_replies(&mut self, now: Instant) {
        if let Some(id) = self.state.aborting
            && self.send(now, &Message::TransferAbort { id: id.0 })
        {
            self.state.aborting = None;
        }
        while let Some((id, reply)) = self.state.replies.pop_front() {
            if !self.send(now, &reply) {
                self.state.replies.push_front((id, reply));
                return;
            }
        }
    }

    /// Whether it was taken.
    fn send(&mut self, now: Instant, message: &Message<'_>) -> bool {
        self.connection.send(now, message, None).is_ok()
    }

    pub(super) fn reply(&mut self, id: TransferId, reply: Message<'static>) {
        if self.state.replies.len() < REPLIES_MAX {
            self.state.replies.push_back((id, reply));
        }
    }

    /// Drops the answers that wait and that nobody waits for any more.
    pub(super) fn forget_replies(&mut self, id: TransferId) {
        self.state.replies.retain(|(other, _)| *other != id);
    }

    pub(super) fn tell(&mut self, event: TransferEvent, cost: usize) {
        self.state.events.push(event, cost);
    }

    pub(super) fn count_unexpected(&mut self) {
        self.connection.stats.unexpected_messages += 1;
    }
}
