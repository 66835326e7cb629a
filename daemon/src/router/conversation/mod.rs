//! Answers one thing that a person said.
//!
//! ```text
//! session -> comprehension -> calls: execute each, read back, answer      -> keep turns and focus -> Done
//!                          -> ask / refuse: answer                        -> keep                 -> Done
//!                          -> conversation: the language model, here or elsewhere, streaming -> keep                 -> Done
//! ```
//! [`SayEvent::Done`] comes after the turns are durable: who has seen it may pull the plug. One session answers one thing at a
//! time; a second one meanwhile is [`SayError::Busy`] at once. A listener who goes away ends the language model's answer at
//! its next token (what was said so far is kept), but never a command.
mod event;
mod exchange;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::Principal;
use super::command::Commands;
use super::comprehension::Comprehension;
use super::speech::Speech;
use crate::inference::class::Class;
use crate::inference::upstream::Dispatcher;
use crate::session::{SessionId, Sessions};
use crate::things::registry::Registry;

pub use event::{Kind, Report, SayError, SayEvent, SayTimings};
use exchange::Exchange;

/// Longest sentence taken, in bytes: a long paragraph.
pub const SENTENCE_BYTES_MAX: usize = 4096;
/// Events that wait for a slow listener; then the answer waits, too.
const EVENTS: usize = 64;

/// One thing that a person said.
#[derive(Debug, Clone)]
pub struct Utterance {
    /// In which conversation.
    pub session: SessionId,
    /// Who.
    pub principal: Principal,
    /// What.
    pub text: String,
    /// Who waits for the answer: whose turn comes first where a model is busy.
    pub class: Class,
    /// Refuse at once what a model will probably not have answered by then.
    pub end_within: Option<Duration>,
}

/// Holds conversations. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Conversations {
    parts: Arc<Parts>,
}

#[derive(Debug)]
struct Parts {
    commands: Commands,
    comprehension: Comprehension,
    dispatcher: Dispatcher,
    registry: Registry,
    sessions: Sessions,
    speech: Speech,
    answering: Mutex<HashSet<String>>,
    running: TaskTracker,
}

/// Frees its session when the answer is complete.
struct Answering {
    parts: Arc<Parts>,
    session: String,
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.parts
            .answering
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.session);
    }
}

impl Conversations {
    /// `running` tracks answers in progress, so that a stop can wait for them.
    #[must_use]
    pub fn new(
        commands: Commands,
        comprehension: Comprehension,
        dispatcher: Dispatcher,
        registry: Registry,
        sessions: Sessions,
        speech: Speech,
        running: TaskTracker,
    ) -> Self {
        let answering = Mutex::default();
        Self {
            parts: Arc::new(Parts {
                commands,
                comprehension,
                dispatcher,
                registry,
                sessions,
                speech,
                answering,
                running,
            }),
        }
    }

    /// Answers; the events come as they happen.
    ///
    /// # Errors
    /// [`SayError::Length`] and [`SayError::Busy`] at once; the rest comes as [`SayEvent::Failed`].
    pub fn say(&self, utterance: Utterance) -> Result<mpsc::Receiver<SayEvent>, SayError> {
        let bytes = utterance.text.len();
        if utterance.text.trim().is_empty() || bytes > SENTENCE_BYTES_MAX {
            return Err(SayError::Length { bytes });
        }
        let session = utterance.session.as_str().to_owned();
        if !self
            .parts
            .answering
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(session.clone())
        {
            return Err(SayError::Busy {
                session: utterance.session,
            });
        }
        let answering = Answering {
            parts: Arc::clone(&self.parts),
            session,
        };
        let (events, stream) = mpsc::channel(EVENTS);
        self.parts.running.spawn(async move {
            let mut exchange = Exchange::new(&answering.parts, utterance, events);
            let last = match exchange.answer().await {
                Ok(report) => SayEvent::Done(report),
                Err(error) => {
                    tracing::warn!(trace = %exchange.trace_id, %error, "not answered");
                    SayEvent::Failed(error)
                }
            };
            let events = exchange.events;
            // The session is free again before the listener can say the next thing.
            drop(answering);
            let _ = events.send(last).await;
        });
        Ok(stream)
    }
}
