//! The device machine: requests surfaced once, answers sent as room allows, reports of what happens.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use sha2::{Digest, Sha256};

use crate::connection::{Connection, ConnectionEvent};
use crate::message::{
    Data, Fault, FaultCode, LOG_BYTES_MAX, LogLevel, Message, MessageError, Value, give_back,
};
use crate::segment::{Channel, MessageToken};
use crate::transfer::{DeviceTransferEvent, Offer, TransferId};
use crate::wire::{Identity, Role};
use crate::{Config, Instant, LinkKind, RequestId, Security, SendError, Stats};

use super::DeviceEvent;
use super::incoming::Incoming;
use super::memory::{Begin, RequestMemory, Waiting, encode_result};
use super::transfer::IncomingTransfer;

/// What a Description needs besides its part of the document: at most 66 bytes of CBOR around it.
const DESCRIPTION_OVERHEAD_BYTES: usize = 72;

/// What an event costs in the backlog besides the bytes of its message.
pub(super) const EVENT_OVERHEAD_BYTES: usize = 64;

/// [`Device::respond`] was called for a request that is not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no open request {}", .0.0)]
pub struct UnknownRequest(pub RequestId);

/// One device on one link. See the [crate] for the calling contract.
#[derive(Debug)]
pub struct Device {
    connection: Connection,
    description: Vec<u8>,
    description_hash: [u8; 32],
    memory: RequestMemory,
    observed: BTreeSet<String>,
    /// Answers that need no memory (refusals, Unobserve) and wait for room; bounded by `request_memory_max`.
    answers: VecDeque<(RequestId, Vec<u8>)>,
    /// Parts of the description asked for and not sent yet, by request; bounded by `request_memory_max`.
    describing: BTreeMap<RequestId, u32>,
    max_message: usize,
    events: VecDeque<(DeviceEvent, usize)>,
    backlog_bytes: usize,
    pub(super) transfer: Option<Box<IncomingTransfer>>,
    pub(super) transfer_events: VecDeque<(DeviceTransferEvent, usize)>,
    /// What the host is to be told and waits for room; bounded by `request_memory_max`.
    pub(super) transfer_replies: VecDeque<Message<'static>>,
}

impl Device {
    /// A device that begins to seek a host at once; `description` is its Thing Description as JSON.
    ///
    /// `boot_id` is drawn at each power-up; `epoch` begins at any number. The pair must never be used twice.
    #[must_use]
    pub fn new(
        config: Config,
        link: LinkKind,
        boot_id: u32,
        epoch: u32,
        description: &[u8],
    ) -> Self {
        Self::with_security(config, link, boot_id, epoch, description, Security::None)
    }

    /// As [`Device::new`], with `security`.
    #[must_use]
    pub fn with_security(
        config: Config,
        link: LinkKind,
        boot_id: u32,
        epoch: u32,
        description: &[u8],
        security: Security,
    ) -> Self {
        let identity = Identity { boot_id, epoch };
        let connection = Connection::new(config, link, Role::Device, identity, security);
        let config = connection.config();
        Self {
            memory: RequestMemory::new(config.request_memory_max, config.remembered_result_bytes),
            connection,
            description: description.to_vec(),
            description_hash: Sha256::digest(description).into(),
            observed: BTreeSet::new(),
            answers: VecDeque::new(),
            describing: BTreeMap::new(),
            max_message: 0,
            events: VecDeque::new(),
            backlog_bytes: 0,
            transfer: None,
            transfer_events: VecDeque::new(),
            transfer_replies: VecDeque::new(),
        }
    }

    /// Takes bytes in any portions (stream), or exactly one packet (datagram).
    pub fn handle_input(&mut self, now: Instant, bytes: &[u8]) {
        self.connection.handle_input(now, bytes);
        self.advance(now);
    }

    /// Says that the time of [`Device::poll_timeout`] has come; harmless at any time.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.connection.handle_timeout(now);
        self.advance(now);
    }

    /// Appends one frame (stream) or one packet (datagram) to `out`; false if there is nothing to send.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        self.send_answers(now);
        let has_sent = self.connection.poll_transmit(now, out);
        self.advance(now);
        has_sent
    }

    /// The next event, or `None`.
    pub fn poll_event(&mut self) -> Option<DeviceEvent> {
        let (event, cost) = self.events.pop_front()?;
        self.give_back(cost);
        Some(event)
    }

    /// When to call [`Device::handle_timeout`]; ask anew after every call.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.connection.poll_timeout()
    }

    /// Takes back what an event was made of, for the next ones. A driver that does so with every event keeps the machine from
    /// allocating anything in a steady state; it need not.
    pub fn recycle(&mut self, event: DeviceEvent) {
        event.give_back(&mut self.connection.buffers);
    }

    /// Answers a request. Without a connection the answer is remembered until the host asks again.
    ///
    /// # Errors
    /// The request is not running: never surfaced, or answered before.
    pub fn respond(
        &mut self,
        now: Instant,
        id: RequestId,
        result: Result<Value, Fault>,
    ) -> Result<(), UnknownRequest> {
        let buffers = &mut self.connection.buffers;
        let observes = self.memory.finish(id, &result, buffers);
        let observes = observes.ok_or(UnknownRequest(id))?;
        if let (Some(property), Err(_)) = (observes, &result) {
            self.observed.remove(&property);
        }
        if let Ok(value) = result {
            give_back(value, &mut self.connection.buffers);
        }
        self.send_answers(now);
        Ok(())
    }

    /// Reports how far a running request is; for one that is not running this does nothing.
    ///
    /// # Errors
    /// Not connected, no room, or too large; a report lost so may be given up.
    pub fn progress<'a>(
        &mut self,
        now: Instant,
        id: RequestId,
        value: impl Into<Data<'a>>,
    ) -> Result<(), SendError> {
        if !self.memory.is_running(id) {
            return Ok(());
        }
        let (id, value) = (id.0, value.into());
        self.send(now, &Message::Progress { id, value })
    }

    /// Reports a property's new value, if the host observes it; otherwise this does nothing.
    ///
    /// # Errors
    /// No room, or too large.
    pub fn property_changed<'a>(
        &mut self,
        now: Instant,
        property: &str,
        value: impl Into<Data<'a>>,
    ) -> Result<(), SendError> {
        if !self.observed.contains(property) {
            return Ok(());
        }
        let (property, value) = (property.into(), value.into());
        self.send(now, &Message::PropertyChanged { property, value })
    }

    /// Raises an event of the Thing.
    ///
    /// # Errors
    /// Not connected, no room, or too large.
    pub fn event<'a>(
        &mut self,
        now: Instant,
        name: &str,
        data: impl Into<Data<'a>>,
    ) -> Result<(), SendError> {
        let (name, data) = (name.into(), data.into());
        self.send(now, &Message::Event { name, data })
    }

    /// Writes a log line, cut at [`LOG_BYTES_MAX`].
    ///
    /// # Errors
    /// Not connected, or no room.
    pub fn log(&mut self, now: Instant, level: LogLevel, text: &str) -> Result<(), SendError> {
        let text = text[..text.floor_char_boundary(LOG_BYTES_MAX)].into();
        self.send(now, &Message::Log { level, text })
    }

    /// Goes on to another link, as the driver has closed the old one: what is sent and received from now on is of the new.
    ///
    /// With [`Config::resume_window`] at both ends the connection goes on there as if nothing had happened; otherwise it is
    /// lost as [`LostReason::LinkChanged`](crate::LostReason::LinkChanged) and made anew. The same link may be given, as when it was
    /// opened again.
    pub fn change_link(&mut self, now: Instant, link: LinkKind) {
        self.connection.change_link(now, link);
        self.advance(now);
    }

    /// Ends the connection for good: `poll_transmit` gives a last Close, and the machine stays silent.
    pub fn close(&mut self, now: Instant) {
        self.connection.close();
        self.advance(now);
    }

    /// The counters so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.connection.stats()
    }

    /// What waits for the owner grows by `cost`.
    pub(super) fn charge(&mut self, cost: usize) {
        self.backlog_bytes += cost;
    }

    /// The owner has fetched what had `cost`.
    pub(super) fn give_back(&mut self, cost: usize) {
        self.backlog_bytes -= cost;
        self.connection.set_backlog(self.backlog_bytes);
    }

    pub(super) fn answers_max(&self) -> usize {
        self.connection.config().request_memory_max
    }

    pub(super) fn count_unexpected(&mut self) {
        self.connection.stats.unexpected_messages += 1;
    }

    pub(super) fn send(&mut self, now: Instant, message: &Message<'_>) -> Result<(), SendError> {
        if !message.is_within_bounds() {
            return Err(SendError::OutOfBounds);
        }
        self.connection.send(now, message, None)
    }

    fn advance(&mut self, now: Instant) {
        while let Some(event) = self.connection.poll_event() {
            match event {
                ConnectionEvent::Established { peer } => {
                    self.max_message = peer.max_message;
                    let length = self.description.len() as u32;
                    let announce = Message::Announce {
                        hash: self.description_hash.into(),
                        length,
                    };
                    // The first message of a fresh connection always finds room.
                    let _ = self.send(now, &announce);
                    self.push(DeviceEvent::Connected { peer }, 0);
                }
                ConnectionEvent::Message(bytes) => {
                    match Message::from_bytes(&bytes) {
                        Ok(message) => self.on_message(now, message, bytes.len()),
                        Err(error) => self.on_bad_message(error),
                    }
                    self.connection.buffers.give(bytes);
                }
                ConnectionEvent::Started(_) => {}
                ConnectionEvent::Delivered(MessageToken(id)) => {
                    self.memory.on_received(RequestId(id))
                }
                ConnectionEvent::Incompatible { theirs } => {
                    self.push(DeviceEvent::IncompatibleVersion { theirs }, 0);
                }
                ConnectionEvent::Lost { reason } => {
                    self.memory.on_lost();
                    self.observed.clear();
                    self.answers.clear();
                    self.describing.clear();
                    self.end_transfer();
                    self.push(DeviceEvent::Lost { reason }, 0);
                }
            }
        }
        self.send_answers(now);
        self.connection.set_backlog(self.backlog_bytes);
    }

    fn on_message(&mut self, now: Instant, message: Message<'_>, size: usize) {
        let cost = size + EVENT_OVERHEAD_BYTES;
        match message {
            Message::Describe { id, offset } => self.on_describe(RequestId(id), offset),
            Message::Read { .. }
            | Message::Observe { .. }
            | Message::Write { .. }
            | Message::Invoke { .. } => {
                self.on_request(now, message, cost);
            }
            Message::Unobserve { id, property } => {
                self.observed.remove(property.as_ref());
                self.answer(RequestId(id), &Ok(Value::Null));
            }
            Message::Cancel { id } if self.memory.is_running(RequestId(id)) => {
                self.push(DeviceEvent::Cancel { id: RequestId(id) }, cost);
            }
            // Answered before the cancellation came.
            Message::Cancel { .. } => {}
            Message::TimeSync { unix_micros } => {
                self.push(DeviceEvent::TimeSync { unix_micros }, cost)
            }
            Message::TransferOffer {
                id,
                name,
                length,
                hash,
            } => {
                let (name, hash) = (name.into_owned(), *hash);
                self.on_offer(TransferId(id), Offer { name, length, hash }, cost);
            }
            Message::TransferPart { id, offset, bytes } => {
                self.on_part(TransferId(id), offset, bytes.into());
            }
            Message::TransferAbort { id } => self.on_transfer_abort(TransferId(id)),
            Message::Announce { .. }
            | Message::Description { .. }
            | Message::Result { .. }
            | Message::Progress { .. }
            | Message::PropertyChanged { .. }
            | Message::Event { .. }
            | Message::Log { .. }
            | Message::TransferWanted { .. }
            | Message::TransferDone { .. } => self.connection.stats.unexpected_messages += 1,
        }
    }

    /// A message that is not understood is answered where it names a request, so that the host need not wait.
    fn on_bad_message(&mut self, error: MessageError) {
        let code = match error {
            MessageError::UnknownKind { .. } => {
                self.connection.stats.unexpected_messages += 1;
                FaultCode::Unsupported
            }
            MessageError::Malformed { .. } | MessageError::TooLong { .. } => {
                self.connection.stats.bad_messages += 1;
                FaultCode::Malformed
            }
        };
        if let Some(id) = error.request_id() {
            self.refuse(RequestId(id), code);
        }
    }

    fn on_request(&mut self, now: Instant, message: Message<'_>, cost: usize) {
        let Some(incoming) = Incoming::new(now, message, &mut self.connection.buffers) else {
            return;
        };
        let Incoming {
            id,
            fingerprint,
            deadline_ms,
            effect,
            observes,
            event,
        } = incoming;
        let is_full = observes.as_ref().is_some_and(|property| {
            self.observed.len() >= self.connection.config().observed_max
                && !self.observed.contains(property)
        });
        if is_full {
            return self.refuse(id, FaultCode::Busy);
        }
        if deadline_ms == 0 {
            return self.refuse(id, FaultCode::Expired);
        }
        let deadline = now + Duration::from_millis(deadline_ms.into());
        let buffers = &mut self.connection.buffers;
        let request = (id, fingerprint, effect);
        match self
            .memory
            .begin(now, request, deadline, observes.clone(), buffers)
        {
            Begin::New => {
                self.observed.extend(observes);
                self.push(event, cost);
            }
            Begin::Repeated => {
                self.observed.extend(observes);
                self.connection.stats.repeated_requests += 1;
            }
            Begin::IdReused => self.refuse(id, FaultCode::IdReused),
            Begin::Full => self.refuse(id, FaultCode::Busy),
        }
    }

    fn on_describe(&mut self, id: RequestId, offset: u32) {
        if offset as usize > self.description.len() {
            return self.refuse(id, FaultCode::OutOfRange);
        }
        let is_full = self.describing.len() >= self.connection.config().request_memory_max;
        if is_full && !self.describing.contains_key(&id) {
            return self.refuse(id, FaultCode::Busy);
        }
        self.describing.insert(id, offset);
    }

    fn refuse(&mut self, id: RequestId, code: FaultCode) {
        self.answer(id, &Err(Fault::new(code, "")));
    }

    fn answer(&mut self, id: RequestId, result: &Result<Value, Fault>) {
        // Beyond the bound the refusal itself is given up: the host's deadline will tell it.
        if self.answers.len() < self.connection.config().request_memory_max {
            let answer = encode_result(id, result, &mut self.connection.buffers);
            self.answers.push_back((id, answer));
        }
    }

    /// Queues what waits for room, as far as there is room.
    fn send_answers(&mut self, now: Instant) {
        self.send_transfer_replies(now);
        while let Some((id, bytes)) = self.answers.pop_front() {
            let answer = self.connection.buffers.copy(&bytes);
            if self.send_answer(now, id, answer, None).is_err() {
                return self.answers.push_front((id, bytes));
            }
            self.connection.buffers.give(bytes);
        }
        while let Some((id, waiting)) = self.memory.next_answer() {
            let buffers = &mut self.connection.buffers;
            let answer = match waiting {
                Waiting::Answer(bytes) => buffers.copy(bytes),
                Waiting::Forgotten => {
                    let fault = Fault::new(FaultCode::ResultForgotten, "");
                    encode_result(id, &Err(fault), buffers)
                }
            };
            let token = Some(MessageToken(id.0));
            if self.send_answer(now, id, answer, token).is_err() {
                break;
            }
            self.memory.on_sent(id, &mut self.connection.buffers);
        }
        let max_message = self.max_message;
        while let Some((&id, &offset)) = self.describing.first_key_value() {
            let offset = offset as usize;
            let part_bytes = (self.description.len() - offset)
                .min(max_message.saturating_sub(DESCRIPTION_OVERHEAD_BYTES));
            let message = Message::Description {
                id: id.0,
                hash: self.description_hash.into(),
                length: self.description.len() as u32,
                offset: offset as u32,
                bytes: self.description[offset..offset + part_bytes]
                    .to_vec()
                    .into(),
            };
            if self.connection.send(now, &message, None).is_err() {
                return;
            }
            self.describing.remove(&id);
        }
    }

    fn send_answer(
        &mut self,
        now: Instant,
        id: RequestId,
        answer: Vec<u8>,
        token: Option<MessageToken>,
    ) -> Result<(), SendError> {
        let buffers = &mut self.connection.buffers;
        let answer = match answer.len() > self.max_message {
            true => {
                let fault = Fault::new(FaultCode::ResultTooLarge, "");
                encode_result(id, &Err(fault), buffers)
            }
            false => answer,
        };
        self.connection
            .send_bytes(now, Channel::Command, answer, token)
    }

    fn push(&mut self, event: DeviceEvent, cost: usize) {
        self.backlog_bytes += cost;
        self.events.push_back((event, cost));
    }
}
