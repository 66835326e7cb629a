//! A request from its acceptance to its answer.

use alloc::vec::Vec;
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
    pub(super) follow_up: Option<Message<'static>>,
}

/// The open requests. Invariant: in the order of their ids, none twice.
///
/// A vector, because there are at most `Config::requests_max`, and one that has grown once needs no memory again.
#[derive(Debug, Default)]
pub(super) struct OpenRequests(Vec<(RequestId, Open)>);

impl OpenRequests {
    fn find(&self, id: RequestId) -> Result<usize, usize> {
        self.0.binary_search_by_key(&id, |(id, _)| *id)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn contains_key(&self, id: &RequestId) -> bool {
        self.find(*id).is_ok()
    }

    pub(super) fn get(&self, id: &RequestId) -> Option<&Open> {
        self.find(*id).ok().map(|at| &self.0[at].1)
    }

    pub(super) fn get_mut(&mut self, id: &RequestId) -> Option<&mut Open> {
        self.find(*id).ok().map(|at| &mut self.0[at].1)
    }

    pub(super) fn insert(&mut self, id: RequestId, open: Open) {
        match self.find(id) {
            Ok(at) => self.0[at].1 = open,
            Err(at) => self.0.insert(at, (id, open)),
        }
    }

    pub(super) fn remove(&mut self, id: &RequestId) -> Option<Open> {
        self.find(*id).ok().map(|at| self.0.remove(at).1)
    }

    pub(super) fn iter(&self) -> core::slice::Iter<'_, (RequestId, Open)> {
        self.0.iter()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Open> {
        self.0.iter().map(|(_, open)| open)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Open> {
        self.0.iter_mut().map(|(_, open)| open)
    }
}

#[derive(Debug)]
pub(super) enum Expects {
    Value,
    Done,
    Description(DescriptionFetch),
}

/// The message that asks, and what will answer it.
pub(super) fn compose<'a>(
    id: RequestId,
    request: &'a Request,
    deadline: Duration,
    config: &Config,
) -> (Message<'a>, Expects) {
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
                property: property.into(),
                deadline_ms,
            },
            Expects::Value,
        ),
        Request::Write { property, value } => (
            Message::Write {
                id,
                property: property.into(),
                deadline_ms,
                value: value.into(),
            },
            Expects::Done,
        ),
        Request::Observe { property } => (
            Message::Observe {
                id,
                property: property.into(),
                deadline_ms,
            },
            Expects::Value,
        ),
        Request::Unobserve { property } => {
            let property = property.into();
            (Message::Unobserve { id, property }, Expects::Done)
        }
        Request::Invoke { action, input } => (
            Message::Invoke {
                id,
                action: action.into(),
                deadline_ms,
                input: input.into(),
            },
            Expects::Done,
        ),
    }
}
