//! A request as it comes in: what it asks of the Thing, and what the memory must know of it.

use alloc::string::String;
use core::time::Duration;

use crate::frame::Checksum;
use crate::message::Message;
use crate::segment::Buffers;
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
    pub(super) fn new(
        now: Instant,
        mut message: Message<'_>,
        buffers: &mut Buffers,
    ) -> Option<Self> {
        let fingerprint = fingerprint(&mut message)?;
        let (id, deadline_ms, effect, observes, event) = match message {
            Message::Read {
                id,
                property,
                deadline_ms,
            } => {
                let (id, property) = (RequestId(id), buffers.text(&property));
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
                let (id, property) = (RequestId(id), buffers.text(&property));
                let observes = Some(property.clone());
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
                let (id, property) = (RequestId(id), buffers.text(&property));
                let value = value.into_value_in(buffers);
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
                let (id, action) = (RequestId(id), buffers.text(&action));
                let input = input.into_value_in(buffers);
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

/// The deadline is left out, since a repetition has a later one. `None` for a message that asks nothing.
fn fingerprint(request: &mut Message<'_>) -> Option<u32> {
    let deadline = |request: &mut Message<'_>, new: u32| match request {
        Message::Read { deadline_ms, .. }
        | Message::Write { deadline_ms, .. }
        | Message::Observe { deadline_ms, .. }
        | Message::Invoke { deadline_ms, .. } => Some(core::mem::replace(deadline_ms, new)),
        _ => None,
    };
    let given = deadline(request, 0)?;
    let mut checksum = Checksum::new();
    request.encode_to(&mut checksum);
    deadline(request, given);
    Some(checksum.finish())
}
