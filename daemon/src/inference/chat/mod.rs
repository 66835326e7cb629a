//! Conversations' next answers, streamed, several at a time: template and tokenizer, prefill, decode, text.
//!
//! [`ChatHandle`] is what the rest of the daemon holds, [`ChatRequest`] and [`ChatEvent`] what goes through it; `worker` is the model on
//! its thread, `sequence` one answer under way. Around them stand the pure parts: `prompt` (what the model reads, and what is left
//! out), `batch` (what runs next), `cache::slots` (which cache serves whom), `sampler` (which token), `text` (whole
//! characters), [`admission`](super::admission) (whether a request can begin in time), `schedule` (who has a row, and who makes room). `graph` runs the
//! model, one file per layout.
//!
//! | channel | from, to | capacity | when full |
//! | --- | --- | --- | --- |
//! | jobs | handles -> encoding threads | 8 of voice, 32 of each other class | refused at once with `Overloaded` |
//! | prepared | encoding threads -> model thread | 2 of each class or more urgent | the next are prepared when these have a row |
//! | events | model thread -> one caller | [`EVENTS`] | texts are joined until there is room; the model never waits |
//!
//! Dropping the receiver of the events cancels: seen before every run of the model, which computes one token for each answer or one piece
//! of a prompt.

use std::{num::NonZeroUsize, sync::Arc, time::Instant};

use tokio::sync::{mpsc, watch};

use super::{
    admission::{Estimate, Load, Ticket},
    error::{InferenceError, Wait},
    manifest::Task,
    slot::Door,
};

mod batch;
mod byte_cache;
#[cfg(test)]
mod byte_tokenizer;
mod cache;
mod constrain;
mod desk;
mod drafts;
mod graph;
mod logprobs;
mod lookup;
mod outlet;
mod prompt;
mod pulse;
mod request;
mod sampler;
mod schedule;
mod sequence;
mod snapshot;
mod stop;
mod text;
mod worker;

pub use self::{
    constrain::Form,
    logprobs::TOP_LOGPROBS_MAX,
    request::{
        ChatCounters, ChatEvent, ChatMessage, ChatRequest, ChatTimings, Finish, NamedToken, Role,
        Speculation, TokenChoice, Usage,
    },
    sampler::{Choice, Sampling},
    snapshot::SnapshotConfig,
    stop::{STOP_BYTES_MAX, STOPS_MAX},
};
pub(super) use self::{pulse::Pulse, snapshot::Snapshots, worker::Chat};
pub use crate::config::ChatCache;

/// Events that may wait for a slow reader.
pub const EVENTS: usize = 64;

/// A cheap, clonable way to the chat model.
#[derive(Debug, Clone)]
pub struct ChatHandle {
    door: Door<ChatJob>,
    load: Arc<Load>,
    counters: Arc<watch::Sender<ChatCounters>>,
    pulse: Arc<Pulse>,
}

impl ChatHandle {
    /// `lanes` answers are under way at a time.
    pub(super) fn new(door: Door<ChatJob>, lanes: NonZeroUsize, pulse: Arc<Pulse>) -> Self {
        Self {
            door,
            load: Arc::new(Load::new(lanes)),
            counters: Arc::default(),
            pulse,
        }
    }

    /// How many times as long as at its best a token takes; `None` where nothing was answered lately.
    pub(super) fn slower(&self, now: Instant) -> Option<f64> {
        self.pulse.slower(now)
    }

    /// What the model has done since the start.
    pub fn counters(&self) -> ChatCounters {
        *self.counters.borrow()
    }

    fn note_refused(&self) {
        self.counters.send_modify(|total| total.refused += 1);
    }

    /// Queues a request and returns the stream of its events. Dropping the receiver cancels.
    ///
    /// # Errors
    /// At once: [`InferenceError::NotReady`]; [`InferenceError::Overloaded`] when the queue of its class is full, or
    /// [`begin_within`](ChatRequest::begin_within) or [`end_within`](ChatRequest::end_within) cannot be kept by the estimate;
    /// [`InferenceError::OutOfRange`]. What goes wrong later comes as [`ChatEvent::Failed`].
    pub fn generate(
        &self,
        request: ChatRequest,
    ) -> Result<mpsc::Receiver<ChatEvent>, InferenceError> {
        request.check()?;
        let (class, bytes) = (request.class, request.bytes());
        let Estimate {
            wait,
            answer,
            before,
        } = self.load.estimate(class, bytes, request.max_tokens);
        let limits = [
            (request.begin_within, wait),
            (request.end_within, wait + answer),
        ];
        let missed = limits
            .into_iter()
            .find(|(limit, estimate)| limit.is_some_and(|limit| *estimate > limit));
        if let Some((limit, estimate)) = missed {
            // Whoever wants an answer sooner than it could be made alone says nothing of the box.
            if limit.is_some_and(|limit| wait > limit) {
                self.note_refused();
            }
            return Err(InferenceError::Overloaded {
                task: Task::Chat,
                class,
                queued: before,
                capacity: class.places(),
                wait: Wait::Estimated(estimate),
            });
        }
        let (events, stream) = mpsc::channel(EVENTS);
        let ticket = self.load.enter(class, bytes, request.max_tokens);
        let job = ChatJob {
            request,
            events,
            since: Instant::now(),
            load: Arc::clone(&self.load),
            counters: Arc::clone(&self.counters),
            ticket,
        };
        let submitted = self.door.try_submit(class, job);
        if let Err(InferenceError::Overloaded { .. }) = &submitted {
            self.note_refused();
        }
        submitted.map(|()| stream)
    }
}

/// One request on its way to the model's thread.
#[derive(Debug)]
pub(super) struct ChatJob {
    request: ChatRequest,
    events: mpsc::Sender<ChatEvent>,
    since: Instant,
    load: Arc<Load>,
    counters: Arc<watch::Sender<ChatCounters>>,
    ticket: Ticket,
}
