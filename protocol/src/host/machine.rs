//! The host machine: open requests, matched with their answers, and the events of one device.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use crate::connection::{Connection, ConnectionEvent, LostReason};
use crate::message::{Fault, FaultCode, Message, MessageError, Value};
use crate::segment::MessageToken;
use crate::transfer::{HostTransferEvent, TransferId};
use crate::wire::{CloseReason, Identity, Role};
use crate::{Config, Instant, LinkKind, PeerInfo, Security, SendError, Standing, Stats};

use super::description::{Fetched, Part};
use super::open::{Expects, Open, compose};
use super::transfer::OutgoingTransfer;
use super::{DeliveryState, HostEvent, Reply, Request, RequestError, RequestFailure, RequestId};

/// What an event costs in the backlog besides the bytes of its message.
const EVENT_OVERHEAD_BYTES: usize = 64;

/// One host on one link. See the [crate] for the calling contract, the [module](super) for asking again.
#[derive(Debug)]
pub struct Host {
    connection: Connection,
    presence: Presence,
    open: BTreeMap<RequestId, Open>,
    events: VecDeque<Queued>,
    backlog_bytes: usize,
    pub(super) transfers: BTreeMap<TransferId, OutgoingTransfer>,
    /// Bounded by the transfers: each has two at most.
    pub(super) transfer_events: VecDeque<HostTransferEvent>,
}

/// How much of the device is known.
#[derive(Debug)]
enum Presence {
    Absent,
    /// Connected, but not announced; what it sent already waits behind the announcement.
    Unannounced {
        peer: PeerInfo,
        held: VecDeque<Queued>,
    },
    Announced,
}

#[derive(Debug)]
struct Queued {
    event: HostEvent,
    cost: usize,
}

impl Host {
    /// A host that begins to seek a device at once.
    ///
    /// `boot_id` names this start of the program, drawn at random; `epoch` grows with each machine that it builds for
    /// the same link. The pair must never be used twice.
    #[must_use]
    pub fn new(config: Config, link: LinkKind, boot_id: u32, epoch: u32) -> Self {
        Self::with_security(config, link, boot_id, epoch, Security::None)
    }

    /// As [`Host::new`], with `security`.
    #[must_use]
    pub fn with_security(
        config: Config,
        link: LinkKind,
        boot_id: u32,
        epoch: u32,
        security: Security,
    ) -> Self {
        let identity = Identity { boot_id, epoch };
        Self {
            connection: Connection::new(config, link, Role::Host, identity, security),
            presence: Presence::Absent,
            open: BTreeMap::new(),
            events: VecDeque::new(),
            backlog_bytes: 0,
            transfers: BTreeMap::new(),
            transfer_events: VecDeque::new(),
        }
    }

    /// Takes bytes in any portions (stream), or exactly one packet (datagram).
    pub fn handle_input(&mut self, now: Instant, bytes: &[u8]) {
        self.connection.handle_input(now, bytes);
        self.advance(now);
    }

    /// Says that the time of [`Host::poll_timeout`] has come; harmless at any time.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.connection.handle_timeout(now);
        self.advance(now);
        let overdue = |open: &Open| open.deadline <= now;
        while let Some(id) = self
            .open
            .iter()
            .find(|(_, open)| overdue(open))
            .map(|(id, _)| *id)
        {
            self.on_deadline(now, id);
        }
    }

    /// Appends one frame (stream) or one packet (datagram) to `out`; false if there is nothing to send.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        self.send_follow_ups(now);
        let has_sent = self.connection.poll_transmit(now, out);
        self.advance(now);
        has_sent
    }

    /// The next event, or `None`.
    pub fn poll_event(&mut self) -> Option<HostEvent> {
        let Queued { event, cost } = self.events.pop_front()?;
        self.backlog_bytes -= cost;
        self.connection.set_backlog(self.backlog_bytes);
        Some(event)
    }

    /// When to call [`Host::handle_timeout`]; ask anew after every call.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let deadline = self.open.values().map(|open| open.deadline).min();
        self.connection
            .poll_timeout()
            .into_iter()
            .chain(deadline)
            .min()
    }

    /// Asks the device; exactly one [`HostEvent::Reply`] will follow, within `deadline`.
    ///
    /// # Errors
    /// Nothing was sent and no event will follow.
    pub fn request(
        &mut self,
        now: Instant,
        id: RequestId,
        request: Request,
        deadline: Duration,
    ) -> Result<(), RequestError> {
        if !matches!(self.presence, Presence::Announced) {
            return Err(RequestError::NotConnected);
        }
        if self.open.contains_key(&id) {
            return Err(RequestError::DuplicateId(id));
        }
        if self.open.len() >= self.connection.config().requests_max {
            return Err(RequestError::Busy);
        }
        let (message, expects) = compose(id, request, deadline, self.connection.config());
        if !message.is_within_bounds() {
            return Err(RequestError::OutOfBounds);
        }
        let token = Some(MessageToken(id.0));
        self.connection
            .send(now, message.channel(), message.to_bytes(), token)
            .map_err(refusal)?;
        let open = Open {
            deadline: now + deadline,
            delivery: DeliveryState::NotSent,
            expects,
            follow_up: None,
        };
        self.open.insert(id, open);
        Ok(())
    }

    /// No longer wants a request. If no byte of it was sent it ends as [`RequestFailure::Cancelled`]; otherwise the
    /// device is told, and its answer still comes.
    pub fn cancel(&mut self, now: Instant, id: RequestId) {
        let Some(open) = self.open.get_mut(&id) else {
            return;
        };
        if self.connection.withdraw(MessageToken(id.0))
            || matches!(open.expects, Expects::Description(_))
        {
            self.finish(id, Err(RequestFailure::Cancelled));
            return;
        }
        open.follow_up = Some(Message::Cancel { id: id.0 });
        self.send_follow_ups(now);
    }

    /// Tells the device the time, in microseconds since 1970-01-01T00:00:00Z.
    ///
    /// # Errors
    /// Not connected, or no room.
    pub fn time_sync(&mut self, now: Instant, unix_micros: u64) -> Result<(), SendError> {
        let message = Message::TimeSync { unix_micros };
        self.connection
            .send(now, message.channel(), message.to_bytes(), None)
    }

    /// Goes on to another link, as the driver has closed the old one: what is sent and received from now on is of the new.
    ///
    /// With [`Config::resume_window`] at both ends the connection goes on there as if nothing had happened; otherwise it is
    /// lost as [`LostReason::LinkChanged`] and made anew. The same link may be given, as when it was
    /// opened again.
    pub fn change_link(&mut self, now: Instant, link: LinkKind) {
        self.connection.change_link(now, link);
        self.advance(now);
    }

    /// Ends the connection for good: open requests are answered, `poll_transmit` gives a last Close, and the machine
    /// stays silent.
    pub fn close(&mut self, now: Instant) {
        self.connection.close();
        self.advance(now);
    }

    /// Where the connection stands now. A device whose description was not announced yet may count as connected.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.connection.standing()
    }

    /// The counters so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.connection.stats()
    }

    pub(super) fn send(&mut self, now: Instant, message: &Message) -> Result<(), SendError> {
        if !message.is_within_bounds() {
            return Err(SendError::OutOfBounds);
        }
        self.connection
            .send(now, message.channel(), message.to_bytes(), None)
    }

    pub(super) fn send_if_announced(
        &mut self,
        now: Instant,
        message: &Message,
    ) -> Result<(), RequestError> {
        if !matches!(self.presence, Presence::Announced) {
            return Err(RequestError::NotConnected);
        }
        self.send(now, message).map_err(refusal)
    }

    pub(super) fn message_bytes_max(&self) -> Option<usize> {
        self.connection.peer_max_message()
    }

    pub(super) fn count_unexpected(&mut self) {
        self.connection.stats.unexpected_messages += 1;
    }

    fn advance(&mut self, now: Instant) {
        while let Some(event) = self.connection.poll_event() {
            match event {
                ConnectionEvent::Established { peer } => {
                    self.presence = Presence::Unannounced {
                        peer,
                        held: VecDeque::new(),
                    };
                }
                ConnectionEvent::Message(bytes) => match Message::from_bytes(&bytes) {
                    Ok(message) => self.on_message(message, bytes.len()),
                    Err(error) => self.on_bad_message(error),
                },
                ConnectionEvent::Started(MessageToken(id)) => {
                    if let Some(open) = self.open.get_mut(&RequestId(id)) {
                        open.delivery = open.delivery.max(DeliveryState::Sent);
                    }
                }
                ConnectionEvent::Delivered(MessageToken(id)) => self.on_delivered(RequestId(id)),
                ConnectionEvent::Incompatible { theirs } => {
                    self.push(HostEvent::IncompatibleVersion { theirs }, 0);
                }
                ConnectionEvent::Lost { reason } => {
                    self.interrupt_transfers();
                    while let Some((&id, open)) = self.open.first_key_value() {
                        let delivered = open.delivery;
                        self.finish(id, Err(RequestFailure::ConnectionLost { delivered }));
                    }
                    match core::mem::replace(&mut self.presence, Presence::Absent) {
                        Presence::Announced => self.push(HostEvent::Lost { reason }, 0),
                        // The driver never heard of this connection; what it held is gone with it.
                        Presence::Unannounced { held, .. } => {
                            self.backlog_bytes -=
                                held.iter().map(|queued| queued.cost).sum::<usize>();
                            if is_refusal(reason) {
                                self.push(HostEvent::Lost { reason }, 0);
                            }
                        }
                        Presence::Absent => {
                            if is_refusal(reason) {
                                self.push(HostEvent::Lost { reason }, 0);
                            }
                        }
                    }
                }
            }
        }
        self.send_follow_ups(now);
        self.connection.set_backlog(self.backlog_bytes);
    }

    fn on_message(&mut self, message: Message, size: usize) {
        let cost = size + EVENT_OVERHEAD_BYTES;
        match message {
            Message::Announce { hash, .. } => self.on_announce(*hash),
            Message::Description {
                id,
                hash,
                length,
                offset,
                bytes,
            } => {
                let hash = *hash;
                self.on_description(
                    RequestId(id),
                    &Part {
                        hash,
                        length,
                        offset,
                        bytes: &bytes,
                    },
                );
            }
            Message::Result {
                id,
                code,
                value,
                text,
            } => {
                let result = match code {
                    0 => Ok(value),
                    code => Err(Fault::new(
                        FaultCode::from_u16(code),
                        text.unwrap_or_default(),
                    )),
                };
                self.on_result(RequestId(id), result);
            }
            Message::Progress { id, value } if self.open.contains_key(&RequestId(id)) => {
                self.push(
                    HostEvent::Progress {
                        id: RequestId(id),
                        value,
                    },
                    cost,
                );
            }
            Message::Progress { .. } => self.connection.stats.late_replies += 1,
            Message::PropertyChanged { property, value } => {
                self.push(HostEvent::PropertyChanged { property, value }, cost);
            }
            Message::Event { name, data } => self.push(HostEvent::Event { name, data }, cost),
            Message::Log { level, text } => self.push(HostEvent::Log { level, text }, cost),
            Message::TransferWanted { id, offset } => {
                self.on_transfer_wanted(TransferId(id), offset)
            }
            Message::TransferDone { id, code, text } => {
                self.on_transfer_done(TransferId(id), code, text);
            }
            Message::Describe { .. }
            | Message::Read { .. }
            | Message::Write { .. }
            | Message::Observe { .. }
            | Message::Unobserve { .. }
            | Message::Invoke { .. }
            | Message::Cancel { .. }
            | Message::TimeSync { .. }
            | Message::TransferOffer { .. }
            | Message::TransferPart { .. }
            | Message::TransferAbort { .. } => self.connection.stats.unexpected_messages += 1,
        }
    }

    fn on_bad_message(&mut self, error: MessageError) {
        match error {
            MessageError::UnknownKind { .. } => self.connection.stats.unexpected_messages += 1,
            MessageError::Malformed { .. } | MessageError::TooLong { .. } => {
                self.connection.stats.bad_messages += 1;
                // Waiting for a better answer would be in vain.
                let id = error.request_id().map(RequestId);
                id.into_iter()
                    .for_each(|id| self.finish(id, Err(RequestFailure::BadReply)));
            }
        }
    }

    fn on_announce(&mut self, hash: [u8; 32]) {
        match core::mem::replace(&mut self.presence, Presence::Announced) {
            Presence::Unannounced { peer, held } => {
                let peer = PeerInfo {
                    description_hash: Some(hash),
                    ..peer
                };
                self.events.push_back(Queued {
                    event: HostEvent::Connected { peer },
                    cost: 0,
                });
                self.events.extend(held);
            }
            other => {
                self.presence = other;
                self.connection.stats.unexpected_messages += 1;
            }
        }
    }

    fn on_result(&mut self, id: RequestId, result: Result<Value, Fault>) {
        let Some(open) = self.open.get(&id) else {
            self.connection.stats.late_replies += 1;
            return;
        };
        let result = match (result, &open.expects) {
            (Err(fault), _) => Err(RequestFailure::Fault(fault)),
            (Ok(value), Expects::Value) => Ok(Reply::Value(value)),
            (Ok(value), Expects::Done) => Ok(Reply::Done(value)),
            (Ok(_), Expects::Description(_)) => Err(RequestFailure::BadReply),
        };
        // An answer proves the arrival, even if it overtook the acknowledgement.
        self.on_delivered(id);
        self.finish(id, result);
    }

    fn on_delivered(&mut self, id: RequestId) {
        if let Some(open) = self.open.get_mut(&id)
            && open.delivery != DeliveryState::Delivered
        {
            open.delivery = DeliveryState::Delivered;
            self.push(HostEvent::Accepted { id }, 0);
        }
    }

    fn on_description(&mut self, id: RequestId, part: &Part<'_>) {
        self.on_delivered(id);
        let Some(open) = self.open.get_mut(&id) else {
            self.connection.stats.late_replies += 1;
            return;
        };
        let Expects::Description(fetch) = &mut open.expects else {
            return self.finish(id, Err(RequestFailure::BadReply));
        };
        match fetch.on_part(part) {
            Ok(Fetched::Part { next_offset }) => {
                open.follow_up = Some(Message::Describe {
                    id: id.0,
                    offset: next_offset,
                });
            }
            Ok(Fetched::Whole(document)) => {
                self.finish(
                    id,
                    Ok(Reply::Description {
                        hash: part.hash,
                        document,
                    }),
                );
            }
            Err(failure) => self.finish(id, Err(failure)),
        }
    }

    fn on_deadline(&mut self, now: Instant, id: RequestId) {
        let Some(open) = self.open.get(&id) else {
            return;
        };
        let delivered = open.delivery;
        if !self.connection.withdraw(MessageToken(id.0)) && matches!(open.expects, Expects::Done) {
            // Best effort: the device knows the deadline too.
            let cancel = Message::Cancel { id: id.0 };
            let _ = self
                .connection
                .send(now, cancel.channel(), cancel.to_bytes(), None);
        }
        self.finish(id, Err(RequestFailure::DeadlineExceeded { delivered }));
    }

    fn finish(&mut self, id: RequestId, result: Result<Reply, RequestFailure>) {
        if self.open.remove(&id).is_some() {
            self.push(HostEvent::Reply { id, result }, 0);
        }
    }

    fn send_follow_ups(&mut self, now: Instant) {
        for open in self.open.values_mut() {
            let Some(message) = &open.follow_up else {
                continue;
            };
            match self
                .connection
                .send(now, message.channel(), message.to_bytes(), None)
            {
                Ok(()) => open.follow_up = None,
                Err(_) => return,
            }
        }
    }

    fn push(&mut self, event: HostEvent, cost: usize) {
        self.backlog_bytes += cost;
        let queued = Queued { event, cost };
        match &mut self.presence {
            Presence::Unannounced { held, .. } => held.push_back(queued),
            Presence::Absent | Presence::Announced => self.events.push_back(queued),
        }
    }
}

fn refusal(error: SendError) -> RequestError {
    match error {
        SendError::NotConnected => RequestError::NotConnected,
        SendError::QueueFull => RequestError::Busy,
        SendError::TooLarge { size, limit } => RequestError::TooLarge { size, limit },
        SendError::OutOfBounds => RequestError::OutOfBounds,
    }
}

/// Whether the owner must hear of it although it heard of no connection: only a person can mend wrong keys.
fn is_refusal(reason: LostReason) -> bool {
    matches!(
        reason,
        LostReason::Unauthenticated | LostReason::ClosedByPeer(CloseReason::Unauthenticated)
    )
}
