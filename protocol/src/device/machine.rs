//! The device machine as its driver sees it: bytes and time in, answers and reports in, events out. What comes in is read in
//! `inbound`.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use crate::endpoint::Endpoint;
use crate::message::{Data, Fault, FaultCode, LOG_BYTES_MAX, LogLevel, Message, Value, give_back};
use crate::segment::{Buffers, Channel, MessageToken};
use crate::time_sync::TimeClient;
use crate::transfer::Transfers;
use crate::wire::{Identity, Role};
use crate::{Config, Instant, LinkKind, RequestId, Security, SendError, Stats};

use super::DeviceEvent;
use super::answers::Answers;
use super::memory::{RequestMemory, Waiting, encode_result};

/// [`Device::respond`] was called for a request that is not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no open request {}", .0.0)]
pub struct UnknownRequest(pub RequestId);

/// One device on one link. See the [crate] for the calling contract.
#[derive(Debug)]
pub struct Device {
    pub(super) endpoint: Endpoint<DeviceEvent>,
    pub(super) memory: RequestMemory,
    pub(super) answers: Answers,
    /// Bounded by `observed_max`.
    pub(super) observed: BTreeSet<String>,
    pub(super) time: TimeClient,
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
        let endpoint = Endpoint::new(config, link, Role::Device, identity, security);
        let config = endpoint.config();
        Self {
            memory: RequestMemory::new(config.request_memory_max, config.remembered_result_bytes),
            answers: Answers::new(description, config.request_memory_max),
            endpoint,
            observed: BTreeSet::new(),
            time: TimeClient::default(),
        }
    }

    /// Takes bytes in any portions (stream), or exactly one packet (datagram).
    pub fn handle_input(&mut self, now: Instant, bytes: &[u8]) {
        self.endpoint.handle_input(now, bytes);
        self.advance(now);
    }

    /// Says that the time of [`Device::poll_timeout`] has come; harmless at any time.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.endpoint.handle_timeout(now);
        self.advance(now);
    }

    /// Appends one frame (stream) or one packet (datagram) to `out`; false if there is nothing to send.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        self.send_waiting(now);
        let has_sent = self.endpoint.poll_transmit(now, out);
        self.advance(now);
        has_sent
    }

    /// The next event, or `None`.
    pub fn poll_event(&mut self) -> Option<DeviceEvent> {
        self.endpoint.poll_event()
    }

    /// When to call [`Device::handle_timeout`]; ask anew after every call.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.endpoint.poll_timeout()
    }

    /// Takes back what an event was made of, for the next ones. A driver that does so with every event keeps the machine from
    /// allocating anything in a steady state; it need not.
    pub fn recycle(&mut self, event: DeviceEvent) {
        event.give_back(self.endpoint.buffers());
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
        let observes = self.memory.finish(id, &result, self.endpoint.buffers());
        let observes = observes.ok_or(UnknownRequest(id))?;
        if let (Some(property), Err(_)) = (observes, &result) {
            self.observed.remove(&property);
        }
        if let Ok(value) = result {
            give_back(value, self.endpoint.buffers());
        }
        self.send_waiting(now);
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
        self.endpoint.send(now, &Message::Progress { id, value })
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
        self.endpoint
            .send(now, &Message::PropertyChanged { property, value })
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
        self.endpoint.send(now, &Message::Event { name, data })
    }

    /// Writes a log line, cut at [`LOG_BYTES_MAX`].
    ///
    /// # Errors
    /// Not connected, or no room.
    pub fn log(&mut self, now: Instant, level: LogLevel, text: &str) -> Result<(), SendError> {
        let text = text[..text.floor_char_boundary(LOG_BYTES_MAX)].into();
        self.endpoint.send(now, &Message::Log { level, text })
    }

    /// What is carried in both directions that is too large for a message.
    pub fn transfers(&mut self) -> Transfers<'_> {
        self.endpoint.transfers()
    }

    /// Goes on to another link, as the driver has closed the old one: what is sent and received from now on is of the new.
    ///
    /// With [`Config::resume_window`] at both ends the connection goes on there as if nothing had happened; otherwise it is
    /// lost as [`LostReason::LinkChanged`](crate::LostReason::LinkChanged) and made anew. The same link may be given, as when it was
    /// opened again.
    pub fn change_link(&mut self, now: Instant, link: LinkKind) {
        self.endpoint.change_link(now, link);
        self.advance(now);
    }

    /// Ends the connection for good: `poll_transmit` gives a last Close, and the machine stays silent.
    pub fn close(&mut self, now: Instant) {
        self.endpoint.close();
        self.advance(now);
    }

    /// The counters so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.endpoint.stats()
    }

    /// Queues what waits for room, as far as there is room.
    pub(super) fn send_waiting(&mut self, now: Instant) {
        if self.time.is_prompted() {
            let asked = now.as_micros();
            if self
                .endpoint
                .send(now, &Message::TimeRequest { asked })
                .is_ok()
            {
                self.time.on_asked(now);
            }
        }
        self.endpoint.transfers().send_replies(now);
        let endpoint = &mut self.endpoint;
        while let Some((id, result)) = self.answers.take_result() {
            let copy = endpoint.buffers().copy(&result);
            if send_result(endpoint, now, id, copy, None).is_err() {
                self.answers.put_back(id, result);
                break;
            }
            endpoint.buffers().give(result);
        }
        while let Some((id, waiting)) = self.memory.next_answer() {
            let answer = match waiting {
                Waiting::Answer(bytes) => endpoint.buffers().copy(bytes),
                Waiting::Forgotten => refusal(id, FaultCode::ResultForgotten, endpoint.buffers()),
            };
            let token = Some(MessageToken(id.0));
            if send_result(endpoint, now, id, answer, token).is_err() {
                break;
            }
            self.memory.on_sent(id, endpoint.buffers());
        }
        let part_max = endpoint.message_max(Channel::Bulk);
        while let Some((id, part)) = self.answers.next_part(part_max) {
            if endpoint.send(now, &part).is_err() {
                break;
            }
            self.answers.on_part_sent(id);
        }
    }
}

/// Queues an encoded Result, or what says that it is too large.
fn send_result(
    endpoint: &mut Endpoint<DeviceEvent>,
    now: Instant,
    id: RequestId,
    result: Vec<u8>,
    token: Option<MessageToken>,
) -> Result<(), SendError> {
    let result = match result.len() > endpoint.message_max(Channel::Command) {
        true => refusal(id, FaultCode::ResultTooLarge, endpoint.buffers()),
        false => result,
    };
    endpoint.send_encoded(now, Channel::Command, result, token)
}

fn refusal(id: RequestId, code: FaultCode, buffers: &mut Buffers) -> Vec<u8> {
    encode_result(id, &Err(Fault::new(code, "")), buffers)
}
