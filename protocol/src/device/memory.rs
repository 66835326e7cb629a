//! Which requests run, and what came of those that ran: the reason why none runs twice.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use crate::message::{Fault, FaultCode, Message, Value};
use crate::segment::Buffers;
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
        (id, fingerprint, effect): (RequestId, u32, Effect),
        deadline: Instant,
        observes: Option<String>,
        buffers: &mut Buffers,
    ) -> Begin {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == id) {
            if entry.fingerprint != fingerprint {
                return Begin::IdReused;
            }
            entry.interest = Interest::Waiting;
            entry.deadline = entry.deadline.max(deadline);
            return Begin::Repeated;
        }
        if self.entries.len() >= self.entries_max && !self.make_room(now, buffers) {
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
    fn make_room(&mut self, now: Instant, buffers: &mut Buffers) -> bool {
        let is_done = |entry: &Entry| !matches!(entry.outcome, Outcome::Running);
        let is_received = |entry: &Entry| is_done(entry) && entry.interest == Interest::Received;
        let is_overdue = |entry: &Entry| is_done(entry) && entry.deadline <= now;
        let oldest = |is_wanted: &dyn Fn(&Entry) -> bool| self.entries.iter().position(is_wanted);
        let dispensable = oldest(&|entry| is_received(entry) && is_overdue(entry))
            .or_else(|| oldest(&is_received))
            .or_else(|| oldest(&is_overdue));
        let dispensable = dispensable.and_then(|index| self.entries.remove(index));
        let has_room = dispensable.is_some();
        if let Some(Outcome::Done(bytes)) = dispensable.map(|entry| entry.outcome) {
            buffers.give(bytes);
        }
        has_room
    }

    /// Notes a request's outcome; gives the property that it was to observe, or that it is not running.
    pub(super) fn finish(
        &mut self,
        id: RequestId,
        result: &Result<Value, Fault>,
        buffers: &mut Buffers,
    ) -> Option<Option<String>> {
        let is_running =
            |entry: &&mut Entry| entry.id == id && matches!(entry.outcome, Outcome::Running);
        let entry = self.entries.iter_mut().find(is_running)?;
        let encoded = encode_result(id, result, buffers);
        let is_too_large =
            entry.interest == Interest::None && encoded.len() > self.result_bytes_max;
        entry.outcome = if is_too_large {
            Outcome::Forgotten
        } else {
            // What is kept for long must not keep a large buffer with it.
            Outcome::Done(buffers.copy_within(&encoded, self.result_bytes_max))
        };
        buffers.give(encoded);
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

    /// The next answer that waits to be sent; [`RequestMemory::on_sent`] says that it was.
    pub(super) fn next_answer(&self) -> Option<(RequestId, Waiting<'_>)> {
        let mut asked = self.entries.iter();
        asked.find_map(|entry| match &entry.outcome {
            _ if entry.interest != Interest::Waiting => None,
            Outcome::Running => None,
            Outcome::Done(bytes) => Some((entry.id, Waiting::Answer(bytes))),
            Outcome::Forgotten => Some((entry.id, Waiting::Forgotten)),
        })
    }

    /// The answer was taken for sending.
    pub(super) fn on_sent(&mut self, id: RequestId, buffers: &mut Buffers) {
        let Some(index) = self.entries.iter().position(|entry| entry.id == id) else {
            return;
        };
        let entry = &mut self.entries[index];
        entry.interest = Interest::Sent;
        let is_too_large =
            matches!(&entry.outcome, Outcome::Done(bytes) if bytes.len() > self.result_bytes_max);
        if entry.effect == Effect::Once && !is_too_large {
            return;
        }
        if let Outcome::Done(bytes) = core::mem::replace(&mut entry.outcome, Outcome::Forgotten) {
            buffers.give(bytes);
        }
        if entry.effect == Effect::Repeatable {
            self.entries.remove(index);
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

/// An answer that is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting<'a> {
    /// The encoded Result.
    Answer(&'a [u8]),
    /// It was executed, and its result is gone.
    Forgotten,
}

/// The encoded Result; one that breaks the bounds of a value becomes a fault.
pub(super) fn encode_result(
    id: RequestId,
    result: &Result<Value, Fault>,
    buffers: &mut Buffers,
) -> Vec<u8> {
    let id = id.0;
    let failed = |code: FaultCode, text| Message::Result {
        id,
        code: code.to_u16(),
        value: Value::Null.into(),
        text,
    };
    let mut message = match result {
        Ok(value) => Message::Result {
            id,
            code: 0,
            value: value.into(),
            text: None,
        },
        Err(Fault { code, message }) => {
            failed(*code, (!message.is_empty()).then(|| message.clone()))
        }
    };
    if !message.is_within_bounds() {
        message = failed(FaultCode::ResultTooLarge, None);
    }
    let mut bytes = buffers.take_roomiest();
    message.encode_into(&mut bytes);
    bytes
}
