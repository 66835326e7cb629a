//! A request as it comes in: what it asks of the Thing, and what the memory must know of it.

use alloc::string::String;
use core::time::Duration;

use crate::frame::crc32c;
use crate::message::Message;
use crate::{Instant, RequestId};

use super::DeviceEvent;
use super::memory::Effect;

#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) id: RequestId,
    /// Tells different requests under one id apart.
    pub(super) fingerprint: u32,
    pub(super) deadline_ms: u32,
    pub(super) effect: Effect,
    /// The property that it begins to observe.
    pub(super) observes: Option<String>,
    pub(super) event: DeviceEvent,
}

impl Incoming {
    /// `None` for a message that asks nothing of the Thing.
    pub(super) fn new(now: Instant, message: Message) -> Option<Self> {
        let fingerprint = fingerprint(&message);
        let (id, deadline_ms, effect, observes, event) = match message {
            Message::Read {
                id,
                property,
                deadline_ms,
            } => {
                let id = RequestId(id);
                (
                    id,
                    deadline_ms,
                    Effect::Repeatable,
                    None,
                    DeviceEvent::Read { id, property },
                )
            }
            Message::Observe {
                id,
                property,
                deadline_ms,
            } => {
                let (id, observes) = (RequestId(id), Some(property.clone()));
                (
                    id,
                    deadline_ms,
                    Effect::Repeatable,
                    observes,
                    DeviceEvent::Read { id, property },
                )
            }
            Message::Write {
                id,
                property,
                deadline_ms,
                value,
            } => {
                let id = RequestId(id);
                (
                    id,
                    deadline_ms,
                    Effect::Once,
                    None,
                    DeviceEvent::Write {
                        id,
                        property,
                        value,
                    },
                )
            }
            Message::Invoke {
                id,
                action,
                deadline_ms,
                input,
            } => {
                let id = RequestId(id);
                let deadline = now + Duration::from_millis(deadline_ms.into());
                let event = DeviceEvent::Invoke {
                    id,
                    action,
                    input,
                    deadline,
                };
                (id, deadline_ms, Effect::Once, None, event)
            }
            _ => return None,
        };
        Some(Self {
            id,
            fingerprint,
            deadline_ms,
            effect,
            observes,
            event,
        })
    }
}

/// The deadline is left out, since a repetition has a later one.
fn fingerprint(request: &Message) -> u32 {
    let mut request = request.clone();
    match &mut request {
        Message::Read { deadline_ms, .. }
        | Message::Write { deadline_ms, .. }
        | Message::Observe { deadline_ms, .. }
        | Message::Invoke { deadline_ms, .. } => *deadline_ms = 0,
        _ => {}
    }
    crc32c(&request.to_bytes())
}
