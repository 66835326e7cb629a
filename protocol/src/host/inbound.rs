//! What the connection brings to a host: answers for open requests, events of the device, its coming and going.

use crate::connection::{ConnectionEvent, LostReason};
use crate::event_queue::EVENT_OVERHEAD_BYTES;
use crate::message::{Fault, FaultCode, Message, MessageError, Value};
use crate::segment::MessageToken;
use crate::wire::CloseReason;
use crate::{Instant, PeerInfo};

use super::description::{Fetched, Part};
use super::machine::{Host, Presence};
use super::open::Expects;
use super::{DeliveryState, HostEvent, Reply, RequestFailure, RequestId};

impl Host {
    /// Takes what the connection has to tell, then queues what follows from it.
    pub(super) fn advance(&mut self, now: Instant) {
        while let Some(event) = self.endpoint.poll_connection() {
            match event {
                ConnectionEvent::Established { peer } => {
                    self.presence = Presence::Unannounced(peer);
                    self.endpoint.events.hold();
                }
                ConnectionEvent::Message(bytes) => {
                    match Message::from_bytes(&bytes) {
                        Ok(message) => self.on_message(now, message, bytes.len()),
                        Err(error) => self.on_bad_message(error),
                    }
                    self.endpoint.buffers().give(bytes);
                }
                ConnectionEvent::Started(MessageToken(id)) => {
                    if let Some(open) = self.open.get_mut(&RequestId(id)) {
                        open.delivery = open.delivery.max(DeliveryState::Sent);
                    }
                }
                ConnectionEvent::Delivered(MessageToken(id)) => self.on_delivered(RequestId(id)),
                ConnectionEvent::Incompatible { theirs } => {
                    self.push(HostEvent::IncompatibleVersion { theirs }, 0);
                }
                ConnectionEvent::Lost { reason } => self.on_lost(reason),
            }
        }
        self.send_waiting(now);
        self.endpoint.note_backlog();
    }

    fn on_lost(&mut self, reason: LostReason) {
        self.time.forget_request();
        self.endpoint.transfers().on_lost();
        while let Some(&(id, ref open)) = self.open.iter().next() {
            let delivered = open.delivery;
            self.finish(id, Err(RequestFailure::ConnectionLost { delivered }));
        }
        let was_known = matches!(self.presence, Presence::Announced);
        self.presence = Presence::Absent;
        // The driver never heard of a connection that was not announced; what was held is gone with it.
        self.endpoint.events.discard_held();
        // Of wrong keys the owner must hear all the same: only a person can mend them.
        let is_refusal = matches!(
            reason,
            LostReason::Unauthenticated | LostReason::ClosedByPeer(CloseReason::Unauthenticated)
        );
        if was_known || is_refusal {
            self.push(HostEvent::Lost { reason }, 0);
        }
    }

    fn on_message(&mut self, now: Instant, message: Message<'_>, size: usize) {
        let cost = size + EVENT_OVERHEAD_BYTES;
        let buffers = self.endpoint.buffers();
        match message {
            Message::Announce { hash, .. } => self.on_announce(*hash),
            Message::Description {
                id,
                hash,
                length,
                offset,
                bytes,
            } => {
                let part = Part {
                    hash: *hash,
                    length,
                    offset,
                    bytes: &bytes,
                };
                self.on_description(RequestId(id), &part);
            }
            Message::Result {
                id,
                code,
                value,
                text,
            } => {
                let fault = || Fault::new(FaultCode::from_u16(code), text.unwrap_or_default());
                let result = if code == 0 {
                    Ok(value.into_value_in(buffers))
                } else {
                    Err(fault())
                };
                self.on_result(RequestId(id), result);
            }
            Message::Progress { id, value } if self.open.contains_key(&RequestId(id)) => {
                let (id, value) = (RequestId(id), value.into_value_in(buffers));
                self.push(HostEvent::Progress { id, value }, cost);
            }
            Message::Progress { .. } => self.endpoint.counters().late_replies += 1,
            Message::PropertyChanged { property, value } => {
                let property = buffers.text(&property);
                let value = value.into_value_in(buffers);
                self.push(HostEvent::PropertyChanged { property, value }, cost);
            }
            Message::Event { name, data } => {
                let (name, data) = (buffers.text(&name), data.into_value_in(buffers));
                self.push(HostEvent::Event { name, data }, cost);
            }
            Message::Log { level, text } => {
                let text = buffers.text(&text);
                self.push(HostEvent::Log { level, text }, cost);
            }
            Message::TimeRequest { asked } => self.time.on_request(now, asked),
            // Transfers, and what only a host sends.
            other => self.endpoint.transfers().on_message(other, cost),
        }
    }

    fn on_bad_message(&mut self, error: MessageError) {
        match error {
            MessageError::UnknownKind { .. } => self.endpoint.counters().unexpected_messages += 1,
            MessageError::Malformed { .. } | MessageError::TooLong { .. } => {
                self.endpoint.counters().bad_messages += 1;
                // Waiting for a better answer would be in vain.
                let id = error.request_id().map(RequestId);
                id.into_iter()
                    .for_each(|id| self.finish(id, Err(RequestFailure::BadReply)));
            }
        }
    }

    fn on_announce(&mut self, hash: [u8; 32]) {
        match self.presence {
            Presence::Unannounced(peer) => {
                let description_hash = Some(hash);
                let peer = PeerInfo {
                    description_hash,
                    ..peer
                };
                self.presence = Presence::Announced;
                self.endpoint.events.release(HostEvent::Connected { peer });
            }
            Presence::Absent | Presence::Announced => {
                self.endpoint.counters().unexpected_messages += 1;
            }
        }
    }

    fn on_result(&mut self, id: RequestId, result: Result<Value, Fault>) {
        let Some(open) = self.open.get(&id) else {
            self.endpoint.counters().late_replies += 1;
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
            self.endpoint.counters().late_replies += 1;
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
                let hash = part.hash;
                self.finish(id, Ok(Reply::Description { hash, document }));
            }
            Err(failure) => self.finish(id, Err(failure)),
        }
    }

    fn push(&mut self, event: HostEvent, cost: usize) {
        self.endpoint.events.push(event, cost);
    }
}
