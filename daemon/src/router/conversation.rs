//! Answers one thing that a person said.
//!
//! ```text
//! session -> comprehension -> calls: execute each, read back, answer      -> keep turns and focus -> Done
//!                          -> ask / refuse: answer                        -> keep                 -> Done
//!                          -> conversation: the language model, streaming -> keep                 -> Done
//! ```
//! [`SayEvent::Done`] comes after the turns are durable: who has seen it may pull the plug. One session answers one thing at a
//! time; a second one meanwhile is [`SayError::Busy`] at once. A listener who goes away ends the language model's answer at
//! its next token (what was said so far is kept), but never a command.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::Principal;
use super::command::{Command, Commands};
use super::comprehension::{Comprehension, ComprehensionError, ComprehensionTimings};
use super::outcome::{CommandError, Done};
use super::speech::Speech;
use crate::inference::InferenceHandle;
use crate::inference::chat::{ChatEvent, ChatTimings};
use crate::inference::error::InferenceError;
use crate::session::{NewTurn, Session, SessionError, SessionId, Sessions, Speaker, TurnOutcome};
use crate::things::registry::Registry;
use crate::understanding::{Call, Explanation, Focus, Operation, Understanding};

/// Longest sentence taken, in bytes: a long paragraph.
pub const SENTENCE_BYTES_MAX: usize = 4096;
/// Events that wait for a slow listener; then the answer waits, too.
const EVENTS: usize = 64;

/// What happens while something is answered, in order; the last is `Done` or `Failed`.
#[derive(Debug)]
pub enum SayEvent {
    /// What the sentence came to.
    Understood {
        /// What will be done, if anything.
        calls: Vec<Call>,
        /// How each clause was decided.
        explanations: Vec<Explanation>,
    },
    /// A call was carried out, or not.
    Executed {
        /// The call.
        call: Call,
        /// What became of it.
        result: Result<Done, CommandError>,
        /// The answer for a person, in the device's terms.
        answer: String,
    },
    /// A piece of the language model's answer.
    Delta(String),
    /// All is said, done and durable.
    Done(Report),
    /// It could not be answered.
    Failed(SayError),
}

/// What kind of answer it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Calls were carried out (or failed).
    Command,
    /// A question went back.
    Question,
    /// A command that must not or cannot be carried out.
    Refusal,
    /// The person took a question back; nothing was done.
    Cancellation,
    /// The language model answered.
    Conversation,
}

impl Kind {
    /// Its name on the bus and in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Question => "question",
            Self::Refusal => "refusal",
            Self::Cancellation => "cancellation",
            Self::Conversation => "conversation",
        }
    }
}

/// The answer as a whole.
#[derive(Debug, Clone)]
pub struct Report {
    /// What was answered.
    pub text: String,
    /// What kind of answer it is.
    pub kind: Kind,
    /// Identifies this exchange in logs and stored turns.
    pub trace_id: String,
    /// Where the time went.
    pub timings: SayTimings,
}

/// Where the time of an answer went. `T_total = T_encode + T_infer + T_decode`, with the links' and the store's shares shown apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SayTimings {
    /// Loading the session.
    pub load: Duration,
    /// Understanding.
    pub comprehension: ComprehensionTimings,
    /// From the sentence to the first frame on the wire; for commands.
    pub first_frame: Option<Duration>,
    /// Waiting for devices, from frame to answer, all calls together.
    pub devices: Duration,
    /// The language model, for conversation.
    pub chat: Option<ChatTimings>,
    /// From the sentence to the language model's first piece of text.
    pub first_text: Option<Duration>,
    /// Making the turns durable.
    pub keep: Duration,
    /// All of it.
    pub total: Duration,
}

/// Why something said could not be answered.
#[derive(Debug, thiserror::Error)]
pub enum SayError {
    /// Empty or too long.
    #[error("a sentence has 1 to {SENTENCE_BYTES_MAX} bytes, this one has {bytes}")]
    Length {
        /// Its length.
        bytes: usize,
    },
    /// This session is answering something else.
    #[error("the session {session} is still answering; wait for the answer")]
    Busy {
        /// The session.
        session: SessionId,
    },
    /// It could not be understood.
    #[error(transparent)]
    Comprehension(#[from] ComprehensionError),
    /// The language model cannot answer.
    #[error("conversation is not possible now: {0}")]
    Chat(#[from] InferenceError),
    /// The session cannot be read or kept.
    #[error("the conversation cannot be kept: {0}")]
    Session(#[from] SessionError),
}

impl SayError {
    /// The error's name on D-Bus.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Length { .. } => "InvalidSentence",
            Self::Busy { .. } | Self::Comprehension(ComprehensionError::Busy) => "Busy",
            Self::Comprehension(_) | Self::Chat(_) => "ModelUnavailable",
            Self::Session(_) => "StoreUnavailable",
        }
    }
}

/// One thing that a person said.
#[derive(Debug, Clone)]
pub struct Utterance {
    /// In which conversation.
    pub session: SessionId,
    /// Who.
    pub principal: Principal,
    /// What.
    pub text: String,
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
    inference: InferenceHandle,
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
        inference: InferenceHandle,
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
                inference,
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

/// One utterance on its way to its answer.
struct Exchange {
    parts: Arc<Parts>,
    utterance: Utterance,
    events: mpsc::Sender<SayEvent>,
    trace_id: String,
    started: Instant,
    timings: SayTimings,
    turns: Vec<NewTurn>,
}

impl Exchange {
    fn new(parts: &Arc<Parts>, utterance: Utterance, events: mpsc::Sender<SayEvent>) -> Self {
        Self {
            parts: Arc::clone(parts),
            utterance,
            events,
            trace_id: uuid::Uuid::now_v7().to_string(),
            started: Instant::now(),
            timings: SayTimings::default(),
            turns: Vec::new(),
        }
    }

    async fn answer(&mut self) -> Result<Report, SayError> {
        let session = self
            .parts
            .sessions
            .load(&self.utterance.session, SystemTime::now())
            .await?;
        self.timings.load = self.started.elapsed();
        let focus = focus_of(&session);
        let understood = self
            .parts
            .comprehension
            .understand(self.utterance.text.clone(), focus)
            .await?;
        self.timings.comprehension = understood.timings;
        let resolution = understood.resolution;
        let calls = match &resolution.understanding {
            Understanding::Calls(calls) => calls.clone(),
            _ => Vec::new(),
        };
        let explanations = resolution.explanations;
        tracing::debug!(trace = %self.trace_id, session = %self.utterance.session, calls = calls.len(), "understood");
        let _ = self
            .events
            .send(SayEvent::Understood {
                calls,
                explanations,
            })
            .await;

        let (kind, text) = match resolution.understanding {
            Understanding::Calls(calls) => (Kind::Command, self.execute(calls).await),
            Understanding::Ask { question, .. } => {
                self.remember_sentence(TurnOutcome::Asked);
                self.remember(
                    Speaker::Assistant,
                    question.clone(),
                    None,
                    TurnOutcome::Asked,
                );
                (Kind::Question, question)
            }
            Understanding::Refuse { message, .. } => {
                self.remember_sentence(TurnOutcome::Refused);
                self.remember(
                    Speaker::Assistant,
                    message.clone(),
                    None,
                    TurnOutcome::Refused,
                );
                (Kind::Refusal, message)
            }
            Understanding::Cancelled => {
                let text = self.parts.speech.cancelled();
                self.remember_sentence(TurnOutcome::Said);
                self.remember(Speaker::Assistant, text.clone(), None, TurnOutcome::Said);
                (Kind::Cancellation, text)
            }
            Understanding::Conversation => (Kind::Conversation, self.converse(&session).await?),
        };

        let keeping = Instant::now();
        let focus = serde_json::to_value(&resolution.focus).ok();
        let turns = std::mem::take(&mut self.turns);
        let _kept = self
            .parts
            .sessions
            .append(&self.utterance.session, turns, focus, SystemTime::now())
            .await?;
        self.timings.keep = keeping.elapsed();
        self.timings.total = self.started.elapsed();
        Ok(Report {
            text,
            kind,
            trace_id: self.trace_id.clone(),
            timings: self.timings,
        })
    }

    fn remember_sentence(&mut self, outcome: TurnOutcome) {
        let text = self.utterance.text.clone();
        self.remember(Speaker::User, text, None, outcome);
    }

    fn remember(
        &mut self,
        speaker: Speaker,
        text: String,
        call: Option<&Call>,
        outcome: TurnOutcome,
    ) {
        self.turns.push(NewTurn {
            speaker,
            text,
            call: call.and_then(|call| serde_json::to_value(call).ok()),
            outcome,
            latency: Some(self.started.elapsed()),
            trace_id: Some(self.trace_id.clone()),
        });
    }

    /// Carries out the calls in order; one that fails does not keep the next from being tried, since each was asked for.
    async fn execute(&mut self, calls: Vec<Call>) -> String {
        self.remember_sentence(TurnOutcome::Said);
        let mut answers = Vec::with_capacity(calls.len());
        for call in calls {
            let began = self.started.elapsed();
            let command = Command::fresh(self.utterance.principal.clone(), call.clone());
            let result = self.parts.commands.execute(command).await;
            if let Ok(done) = &result {
                self.timings
                    .first_frame
                    .get_or_insert(began + done.timings.written);
                self.timings.devices += done.timings.answered.saturating_sub(done.timings.written);
            }
            let answer = self.answer_for(&call, &result).await;
            let outcome = if result.is_ok() {
                TurnOutcome::Done
            } else {
                TurnOutcome::Failed
            };
            self.remember(Speaker::Device, answer.clone(), Some(&call), outcome);
            answers.push(answer.clone());
            let _ = self
                .events
                .send(SayEvent::Executed {
                    call,
                    result,
                    answer,
                })
                .await;
        }
        answers.join(" ")
    }

    /// The words for one result: the device's own output, or the property that the action sets, read back from the device.
    async fn answer_for(&self, call: &Call, result: &Result<Done, CommandError>) -> String {
        let things = self.parts.registry.things();
        let Some(thing) = things.get(&call.thing) else {
            return result
                .as_ref()
                .err()
                .map(ToString::to_string)
                .unwrap_or_default();
        };
        let done = match result {
            Ok(done) => done,
            Err(error) => return self.parts.speech.failure(error),
        };
        let affected = match &call.operation {
            Operation::Invoke { action, .. } if done.output == Value::Null => thing
                .description
                .actions
                .get(action)
                .and_then(|action| action.sets.clone()),
            _ => None,
        };
        let now = match affected {
            Some(property) => {
                let read = Call {
                    thing: call.thing.clone(),
                    operation: Operation::Read {
                        property: property.clone(),
                    },
                };
                let command = Command::fresh(self.utterance.principal.clone(), read);
                self.parts
                    .commands
                    .execute(command)
                    .await
                    .ok()
                    .map(|done| (property, done.output))
            }
            None => None,
        };
        self.parts.speech.success(
            &thing.description,
            call,
            &done.output,
            now.as_ref().map(|(name, value)| (name.as_str(), value)),
        )
    }

    /// The language model answers, with the session's context.
    async fn converse(&mut self, session: &Session) -> Result<String, SayError> {
        let request = self.parts.speech.chat_request(
            session,
            &self.utterance.text,
            &self.parts.registry.things(),
        );
        let mut stream = self.parts.inference.chat().generate(request)?;
        let mut text = String::new();
        while let Some(event) = stream.recv().await {
            match event {
                ChatEvent::Started { .. } => {}
                ChatEvent::Delta(piece) => {
                    self.timings
                        .first_text
                        .get_or_insert(self.started.elapsed());
                    text.push_str(&piece);
                    if self.events.send(SayEvent::Delta(piece)).await.is_err() {
                        // Nobody listens any more: dropping the stream cancels at the next token.
                        break;
                    }
                }
                ChatEvent::Done { timings, .. } => self.timings.chat = Some(timings),
                ChatEvent::Failed(error) => return Err(error.into()),
            }
        }
        self.remember_sentence(TurnOutcome::Said);
        self.remember(Speaker::Assistant, text.clone(), None, TurnOutcome::Said);
        Ok(text)
    }
}

/// The focus that the session kept; one that a newer or older daemon wrote otherwise is no focus.
fn focus_of(session: &Session) -> Focus {
    session
        .record
        .focus
        .clone()
        .and_then(|focus| serde_json::from_value(focus).ok())
        .unwrap_or_default()
}
