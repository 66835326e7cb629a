//! What the connection brings to a device: requests to be surfaced or answered from memory, the host's coming and going.

use core::time::Duration;

use crate::connection::{ConnectionEvent, LostReason};
use crate::event_queue::EVENT_OVERHEAD_BYTES;
use crate::message::{FaultCode, Message, MessageError, Value};
use crate::segment::MessageToken;
use crate::{Instant, PeerInfo, RequestId};

use super::DeviceEvent;
use super::incoming::Incoming;
use super::machine::Device;
use super::memory::Begin;

impl Device {
    /// Takes what the connection has to tell, then queues what follows from it.
    pub(super) fn advance(&mut self, now: Instant) {
        while let Some(event) = self.endpoint.poll_connection() {
            match event {
                ConnectionEvent::Established { peer } => self.on_established(now, peer),
                ConnectionEvent::Message(bytes) => {
                    match Message::from_bytes(&bytes) {
                        Ok(message) => self.on_message(now, message, bytes.len()),
                        Err(error) => self.on_bad_message(error),
                    }
                    self.endpoint.buffers().give(bytes);
                }
                ConnectionEvent::Started(_) => {}
                ConnectionEvent::Delivered(MessageToken(id)) => {
                    self.memory.on_received(RequestId(id));
                }
                ConnectionEvent::Incompatible { theirs } => {
                    self.push(DeviceEvent::IncompatibleVersion { theirs }, 0);
                }
                ConnectionEvent::Lost { reason } => self.on_lost(reason),
            }
        }
        self.send_waiting(now);
        self.endpoint.note_backlog();
    }

    fn on_established(&mut self, now: Instant, peer: PeerInfo) {
        // The first message of a fresh connection always finds room.
        let _ = self.endpoint.send(now, &self.answers.announcement());
        self.push(DeviceEvent::Connected { peer }, 0);
    }

    fn on_lost(&mut self, reason: LostReason) {
        self.memory.on_lost();
        self.observed.clear();
        self.answers.on_lost();
        self.time.on_lost();
        self.endpoint.transfers().on_lost();
        self.push(DeviceEvent::Lost { reason }, 0);
    }

    fn on_message(&mut self, now: Instant, message: Message<'_>, size: usize) {
        let cost = size + EVENT_OVERHEAD_BYTES;
        match message {
            Message::Describe { id, offset } => {
                self.answers
                    .on_describe(RequestId(id), offset, self.endpoint.buffers());
            }
            Message::Read { .. }
            | Message::Observe { .. }
            | Message::Write { .. }
            | Message::Invoke { .. } => {
                self.on_request(now, message, cost);
            }
            Message::Unobserve { id, property } => {
                self.observed.remove(property.as_ref());
                self.answers
                    .answer(RequestId(id), &Ok(Value::Null), self.endpoint.buffers());
            }
            Message::Cancel { id } if self.memory.is_running(RequestId(id)) => {
                self.push(DeviceEvent::Cancel { id: RequestId(id) }, cost);
            }
            // Answered before the cancellation came.
            Message::Cancel { .. } => {}
            Message::TimeSync { .. } => self.time.on_prompt(),
            Message::TimeReply {
                asked,
                received,
                sent,
            } => match self.time.on_reply(now, asked, received, sent) {
                Some(sample) => self.push(DeviceEvent::TimeSync(sample), cost),
                None => self.endpoint.counters().unexpected_messages += 1,
            },
            // Transfers, and what only a device sends.
            other => self.endpoint.transfers().on_message(other, cost),
        }
    }

    /// A message that is not understood is answered where it names a request, so that the host need not wait.
    fn on_bad_message(&mut self, error: MessageError) {
        let counters = self.endpoint.counters();
        let code = match error {
            MessageError::UnknownKind { .. } => {
                counters.unexpected_messages += 1;
                FaultCode::Unsupported
            }
            MessageError::Malformed { .. } | MessageError::TooLong { .. } => {
                counters.bad_messages += 1;
                FaultCode::Malformed
            }
        };
        if let Some(id) = error.request_id() {
            self.answers
                .refuse(RequestId(id), code, self.endpoint.buffers());
        }
    }

    fn on_request(&mut self, now: Instant, message: Message<'_>, cost: usize) {
        let Some(incoming) = Incoming::new(now, message, self.endpoint.buffers()) else {
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
            self.observed.len() >= self.endpoint.config().observed_max
                && !self.observed.contains(property)
        });
        if is_full {
            return self.refuse(id, FaultCode::Busy);
        }
        if deadline_ms == 0 {
            return self.refuse(id, FaultCode::Expired);
        }
        let deadline = now + Duration::from_millis(deadline_ms.into());
        let request = (id, fingerprint, effect);
        match self.memory.begin(
            now,
            request,
            deadline,
            observes.clone(),
            self.endpoint.buffers(),
        ) {
            Begin::New => {
                self.observed.extend(observes);
                self.push(event, cost);
            }
            Begin::Repeated => {
                self.observed.extend(observes);
                self.endpoint.counters().repeated_requests += 1;
            }
            Begin::IdReused => self.refuse(id, FaultCode::IdReused),
            Begin::Full => self.refuse(id, FaultCode::Busy),
        }
    }

    fn refuse(&mut self, id: RequestId, code: FaultCode) {
        self.answers.refuse(id, code, self.endpoint.buffers());
    }

    fn push(&mut self, event: DeviceEvent, cost: usize) {
        self.endpoint.events.push(event, cost);
    }
}
