//! What both roles are built on: one connection, what waits for the owner, and the transfers of both directions.
//!
//! It knows no requests: [`host`](crate::host) and [`device`](crate::device) do.

use alloc::vec::Vec;

use crate::connection::{Connection, ConnectionEvent};
use crate::event_queue::EventQueue;
use crate::message::Message;
use crate::segment::{Buffers, Channel, MessageToken};
use crate::transfer::{TransferState, Transfers};
use crate::wire::{Identity, Role};
use crate::{Config, Instant, LinkKind, Security, SendError, Standing, Stats};

#[derive(Debug)]
pub(crate) struct Endpoint<E> {
    connection: Connection,
    pub(crate) events: EventQueue<E>,
    transfers: TransferState,
}

impl<E> Endpoint<E> {
    pub(crate) fn new(
        config: Config,
        link: LinkKind,
        role: Role,
        identity: Identity,
        security: Security,
    ) -> Self {
        Self {
            connection: Connection::new(config, link, role, identity, security),
            events: EventQueue::new(),
            transfers: TransferState::default(),
        }
    }

    pub(crate) fn handle_input(&mut self, now: Instant, bytes: &[u8]) {
        self.connection.handle_input(now, bytes);
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.connection.handle_timeout(now);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.connection.poll_timeout()
    }

    pub(crate) fn poll_transmit(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        self.connection.poll_transmit(now, out)
    }

    /// What the connection has to tell, for the role to make events of.
    pub(crate) fn poll_connection(&mut self) -> Option<ConnectionEvent> {
        self.connection.poll_event()
    }

    /// The next event for the owner.
    pub(crate) fn poll_event(&mut self) -> Option<E> {
        let event = self.events.pop()?;
        self.note_backlog();
        Some(event)
    }

    /// Tells the connection what waits for the owner, so that the peer pauses in time.
    pub(crate) fn note_backlog(&mut self) {
        let bytes = self.events.bytes() + self.transfers.backlog_bytes();
        self.connection.set_backlog(bytes);
    }

    /// Memory that is used again.
    pub(crate) fn buffers(&mut self) -> &mut Buffers {
        &mut self.connection.buffers
    }

    pub(crate) fn send(&mut self, now: Instant, message: &Message<'_>) -> Result<(), SendError> {
        self.send_named(now, message, None)
    }

    /// As [`Endpoint::send`]; the connection will tell how `token` gets on.
    pub(crate) fn send_named(
        &mut self,
        now: Instant,
        message: &Message<'_>,
        token: Option<MessageToken>,
    ) -> Result<(), SendError> {
        if !message.is_within_bounds() {
            return Err(SendError::OutOfBounds);
        }
        self.connection.send(now, message, token)
    }

    pub(crate) fn send_encoded(
        &mut self,
        now: Instant,
        channel: Channel,
        message: Vec<u8>,
        token: Option<MessageToken>,
    ) -> Result<(), SendError> {
        self.connection.send_bytes(now, channel, message, token)
    }

    /// The longest message that can be sent on `channel`, in bytes; 0 without a connection.
    pub(crate) fn message_max(&self, channel: Channel) -> usize {
        self.connection.message_max(channel).unwrap_or(0)
    }

    /// Takes a message back; false if some of it was sent.
    pub(crate) fn withdraw(&mut self, token: MessageToken) -> bool {
        self.connection.withdraw(token)
    }

    pub(crate) fn transfers(&mut self) -> Transfers<'_> {
        let other_backlog_bytes = self.events.bytes();
        Transfers::new(
            &mut self.connection,
            &mut self.transfers,
            other_backlog_bytes,
        )
    }

    pub(crate) fn change_link(&mut self, now: Instant, link: LinkKind) {
        self.connection.change_link(now, link);
    }

    pub(crate) fn probe(&mut self) {
        self.connection.probe();
    }

    pub(crate) fn close(&mut self) {
        self.connection.close();
    }

    pub(crate) fn config(&self) -> &Config {
        self.connection.config()
    }

    pub(crate) fn standing(&self) -> Standing {
        self.connection.standing()
    }

    /// The counters so far.
    pub(crate) fn stats(&self) -> Stats {
        self.connection.stats()
    }

    /// Where the role counts what it met.
    pub(crate) fn counters(&mut self) -> &mut Stats {
        &mut self.connection.stats
    }
}
