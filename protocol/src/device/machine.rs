//! The device machine as its driver sees it: bytes and time in, answers and reports in, events out. What comes in is read in
//! `inbound`.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use crate::endpoint::Endpoint;
use crate::message::{Fault, FaultCode, LOG_BYTES_MAX, LogLevel, Message, Value};
use crate::segment::{Channel, MessageToken};
use crate::time_sync::TimeClient;
use crate::transfer::Transfers;
use crate::wire::{Identity, Role};
use crate::{Config, Instant, LinkKind, RequestId, Security, SendError, Stats};

use super::DeviceEvent;
use super::answers::Answers;
use super::memory::{RequestMemory, Sending, encode_result};

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
        let observes = self.memory.finish(id, &result).ok_or(UnknownRequest(id))?;
        if let (Some(property), Err(_)) = (observes, &result) {
            self.observed.remove(&property);
        }
        self.send_waiting(now);
        Ok(())
    }

    /// Reports how far a running request is; for one that is not running this does nothing.
    ///
    /// # Errors
    /// Not connected, no room, or too large; a report lost so may be given up.
    pub fn progress(&mut self, now: Instant, id: RequestId, value: Value) -> Result<(), SendError> {
        if !self.memory.is_running(id) {
            return Ok(());
        }
        self.endpoint
            .send(now, &Message::Progress { id: id.0, value })
    }

    /// Reports a property's new value, if the host observes it; otherwise this does nothing.
    ///
    /// # Errors
    /// No room, or too large.
    pub fn property_changed(
        &mut self,
        now: Instant,
        property: &str,
        value: Value,
    ) -> Result<(), SendError> {
        if !self.observed.contains(property) {
            return Ok(());
        }
        self.endpoint.send(
            now,
            &Message::PropertyChanged {
                property: property.into(),
                value,
            },
        )
    }

    /// Raises an event of the Thing.
    ///
    /// # Errors
    /// Not connected, no room, or too large.
    pub fn event(&mut self, now: Instant, name: &str, data: Value) -> Result<(), SendError> {
        self.endpoint.send(
            now,
            &Message::Event {
                name: name.into(),
                data,
            },
        )
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
        let endpoint = &mut self.endpoint;
        let message_max = endpoint.message_max(Channel::Command);
        let part_max = endpoint.message_max(Channel::Bulk);
        endpoint.transfers().send_replies(now);
        let mut send = |id: RequestId, bytes: Vec<u8>, token| {
            let bytes = match bytes.len() > message_max {
                true => encode_result(id, &Err(Fault::new(FaultCode::ResultTooLarge, ""))),
                false => bytes,
            };
            taken(endpoint.send_encoded(now, Channel::Command, bytes, token))
        };
        self.answers.send_results(|id, bytes| send(id, bytes, None));
        self.memory
            .send_answers(|id, bytes| send(id, bytes, Some(MessageToken(id.0))));
        self.answers
            .send_parts(part_max, |part| taken(endpoint.send(now, part)));
    }
}

fn taken(sent: Result<(), SendError>) -> Sending {
    match sent {
        Ok(()) => Sending::Queued,
        Err(_) => Sending::NoRoom,
    }
}
