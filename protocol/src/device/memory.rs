//! Which requests run, and what came of those that ran: the reason why none runs twice.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use crate::message::{Fault, FaultCode, Message, Value};
use crate::{Instant, RequestId};

/// Whether doing a request again changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// A write or an invocation: executed at most once, and remembered.
    Once,
    /// A read: forgotten when answered.
    Repeatable,
}

/// What a request turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// Never seen: execute it.
    New,
    /// Seen before; its answer will be, or is being, sent without executing it again.
    Repeated,
    /// Its id belongs to a different request.
    IdReused,
    /// No place is free.
    Full,
}

#[derive(Debug)]
enum Outcome {
    Running,
    /// The encoded Result.
    Done(Vec<u8>),
    /// Executed; the Result was too large to keep.
    Forgotten,
}

/// Where the host stands with the answer, on the present connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interest {
    /// Nobody asked on this connection.
    None,
    /// Asked, not sent.
    Waiting,
    Sent,
    /// The host's transport has the answer.
    Received,
}

#[derive(Debug)]
struct Entry {
    id: RequestId,
    fingerprint: u32,
    effect: Effect,
    deadline: Instant,
    outcome: Outcome,
    interest: Interest,
    observes: Option<String>,
}

/// Invariants: `entries.len() <= entries_max`, oldest first, no id twice.
#[derive(Debug)]
pub(super) struct RequestMemory {
    entries: VecDeque<Entry>,
    entries_max: usize,
    result_bytes_max: usize,
}

impl RequestMemory {
    pub(super) fn new(entries_max: usize, result_bytes_max: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            entries_max,
            result_bytes_max,
        }
    }

    /// Notes a request. `fingerprint` tells different requests under one id apart.
    pub(super) fn begin(
        &mut self,
        now: Instant,
        id: RequestId,
        fingerprint: u32,
        effect: Effect,
        deadline: Instant,
        observes: Option<String>,
    ) -> Begin {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == id) {
            if entry.fingerprint != fingerprint {
                return Begin::IdReused;
            }
            entry.interest = Interest::Waiting;
            entry.deadline = entry.deadline.max(deadline);
            return Begin::Repeated;
        }
        if self.entries.len() >= self.entries_max && !self.make_room(now) {
            return Begin::Full;
        }
        self.entries.push_back(Entry {
            id,
            fingerprint,
            effect,
            deadline,
            outcome: Outcome::Running,
            interest: Interest::Waiting,
            observes,
        });
        Begin::New
    }

    /// Gives up the oldest of the answers that are least likely to be asked for again: first those that the host has and
    /// no longer waits for, then those that it has, then those that nobody waits for.
    fn make_room(&mut self, now: Instant) -> bool {
        let is_done = |entry: &Entry| !matches!(entry.outcome, Outcome::Running);
        let is_received = |entry: &Entry| is_done(entry) && entry.interest == Interest::Received;
        let is_overdue = |entry: &Entry| is_done(entry) && entry.deadline <= now;
        let oldest = |is_wanted: &dyn Fn(&Entry) -> bool| self.entries.iter().position(is_wanted);
        let dispensable = oldest(&|entry| is_received(entry) && is_overdue(entry))
            .or_else(|| oldest(&is_received))
            .or_else(|| oldest(&is_overdue));
        dispensable
            .and_then(|index| self.entries.remove(index))
            .is_some()
    }

    /// Notes a request's outcome; gives the property that it was to observe, or that it is not running.
    pub(super) fn finish(
        &mut self,
        id: RequestId,
        result: &Result<Value, Fault>,
    ) -> Option<Option<String>> {
        let is_running =
            |entry: &&mut Entry| entry.id == id && matches!(entry.outcome, Outcome::Running);
        let entry = self.entries.iter_mut().find(is_running)?;
        let encoded = encode_result(id, result);
        let is_too_large =
            entry.interest == Interest::None && encoded.len() > self.result_bytes_max;
        entry.outcome = if is_too_large {
            Outcome::Forgotten
        } else {
            Outcome::Done(encoded)
        };
        let observes = entry.observes.take();
        if entry.effect == Effect::Repeatable && entry.interest == Interest::None {
            self.entries.retain(|entry| entry.id != id);
        }
        Some(observes)
    }

    pub(super) fn is_running(&self, id: RequestId) -> bool {
        self.entries
            .iter()
            .any(|entry| entry.id == id && matches!(entry.outcome, Outcome::Running))
    }

    /// Sends waiting answers by `send`, which gets id and bytes, until it says that there is no room.
    pub(super) fn send_answers(&mut self, mut send: impl FnMut(RequestId, Vec<u8>) -> Sending) {
        let mut index = 0;
        while let Some(entry) = self.entries.get_mut(index) {
            index += 1;
            if entry.interest != Interest::Waiting {
                continue;
            }
            let bytes = match &entry.outcome {
                Outcome::Running => continue,
                Outcome::Done(bytes) => bytes.clone(),
                Outcome::Forgotten => {
                    encode_result(entry.id, &Err(Fault::new(FaultCode::ResultForgotten, "")))
                }
            };
            let size = bytes.len();
            if send(entry.id, bytes) == Sending::NoRoom {
                return;
            }
            entry.interest = Interest::Sent;
            if entry.effect == Effect::Repeatable {
                index -= 1;
                self.entries.remove(index);
            } else if size > self.result_bytes_max {
                entry.outcome = Outcome::Forgotten;
            }
        }
    }

    /// The host's transport has the answer.
    pub(super) fn on_received(&mut self, id: RequestId) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == id)
            && entry.interest == Interest::Sent
        {
            entry.interest = Interest::Received;
        }
    }

    /// The connection ended: whoever still wants an answer must ask again.
    pub(super) fn on_lost(&mut self) {
        self.entries.retain(|entry| {
            entry.effect == Effect::Once || matches!(entry.outcome, Outcome::Running)
        });
        for entry in &mut self.entries {
            let is_too_large = matches!(&entry.outcome, Outcome::Done(bytes) if bytes.len() > self.result_bytes_max);
            if is_too_large {
                entry.outcome = Outcome::Forgotten;
            }
            if entry.interest != Interest::Received {
                entry.interest = Interest::None;
            }
        }
    }
}

/// Whether an answer was taken for sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sending {
    Queued,
    NoRoom,
}

/// The encoded Result; one that breaks the bounds of a value becomes a fault.
pub(super) fn encode_result(id: RequestId, result: &Result<Value, Fault>) -> Vec<u8> {
    let id = id.0;
    let message = match result {
        Ok(value) => Message::Result {
            id,
            code: 0,
            value: value.clone(),
            text: None,
        },
        Err(Fault { code, message }) => Message::Result {
            id,
            code: code.to_u16(),
            value: Value::Null,
            text: (!message.is_empty()).then(|| message.clone()),
        },
    };
    if message.is_within_bounds() {
        return message.to_bytes();
    }
    let code = FaultCode::ResultTooLarge.to_u16();
    Message::Result {
        id,
        code,
        value: Value::Null,
        text: None,
    }
    .to_bytes()
}
