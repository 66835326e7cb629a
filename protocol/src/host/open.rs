//! A request from its acceptance to its answer.

use core::time::Duration;

use crate::message::Message;
use crate::{Config, Instant};

use super::description::DescriptionFetch;
use super::{DeliveryState, Request, RequestId};

#[derive(Debug)]
pub(super) struct Open {
    pub(super) deadline: Instant,
    pub(super) delivery: DeliveryState,
    pub(super) expects: Expects,
    /// A further message of this request that waits for room in the send queue.
    pub(super) follow_up: Option<Message>,
}

#[derive(Debug)]
pub(super) enum Expects {
    Value,
    Done,
    Description(DescriptionFetch),
}

/// The message that asks, and what will answer it.
pub(super) fn compose(
    id: RequestId,
    request: Request,
    deadline: Duration,
    config: &Config,
) -> (Message, Expects) {
    let id = id.0;
    let deadline_ms = u32::try_from(deadline.as_millis())
        .unwrap_or(u32::MAX)
        .max(1);
    match request {
        Request::Describe => (
            Message::Describe { id, offset: 0 },
            Expects::Description(DescriptionFetch::new(config.description_bytes_max)),
        ),
        Request::Read { property } => (
            Message::Read {
                id,
                property,
                deadline_ms,
            },
            Expects::Value,
        ),
        Request::Write { property, value } => (
            Message::Write {
                id,
                property,
                deadline_ms,
                value,
            },
            Expects::Done,
        ),
        Request::Observe { property } => (
            Message::Observe {
                id,
                property,
                deadline_ms,
            },
            Expects::Value,
        ),
        Request::Unobserve { property } => (Message::Unobserve { id, property }, Expects::Done),
        Request::Invoke { action, input } => (
            Message::Invoke {
                id,
                action,
                deadline_ms,
                input,
            },
            Expects::Done,
        ),
    }
}
