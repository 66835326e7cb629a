//! One utterance on its way to its answer: understood, carried out or conversed about, kept.
//!
//! It never outlives its utterance and never decides who may ask; [`super::Conversations`] holds one for each session that is answering.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde_json::Value;
use tokio::sync::mpsc;

use super::{Kind, Parts, Report, SayError, SayEvent, SayTimings, Utterance};
use crate::inference::chat::{ChatEvent, ChatRequest};
use crate::inference::upstream::Origin;
use crate::router::command::Command;
use crate::router::outcome::{CommandError, Done};
use crate::session::{NewTurn, Session, Speaker, TurnOutcome};
use crate::understanding::{Call, Focus, Operation, Understanding};

/// One utterance on its way to its answer.
pub(super) struct Exchange {
    parts: Arc<Parts>,
    utterance: Utterance,
    pub(super) events: mpsc::Sender<SayEvent>,
    pub(super) trace_id: String,
    started: Instant,
    timings: SayTimings,
    turns: Vec<NewTurn>,
    origin: Option<Origin>,
}

impl Exchange {
    pub(super) fn new(
        parts: &Arc<Parts>,
        utterance: Utterance,
        events: mpsc::Sender<SayEvent>,
    ) -> Self {
        Self {
            parts: Arc::clone(parts),
            utterance,
            events,
            trace_id: uuid::Uuid::now_v7().to_string(),
            started: Instant::now(),
            timings: SayTimings::default(),
            turns: Vec::new(),
            origin: None,
        }
    }

    pub(super) async fn answer(&mut self) -> Result<Report, SayError> {
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
            .understand(self.utterance.class, self.utterance.text.clone(), focus)
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
            origin: self.origin.take(),
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
            origin: None,
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
        let request = ChatRequest {
            class: self.utterance.class,
            end_within: self.utterance.end_within,
            ..self.parts.speech.chat_request(
                session,
                &self.utterance.text,
                &self.parts.registry.things(),
            )
        };
        // A listener who goes away before the first word ends it, too.
        let parts = Arc::clone(&self.parts);
        let mut answer = tokio::select! {
            answer = parts.dispatcher.ask(request) => Some(answer?),
            () = self.events.closed() => None,
        };
        self.origin = answer.as_ref().map(|answer| answer.origin().clone());
        let mut text = String::new();
        while let Some(answer) = &mut answer {
            let event = tokio::select! {
                event = answer.next() => event,
                () = self.events.closed() => None,
            };
            let Some(event) = event else { break };
            match event {
                ChatEvent::Started { .. } | ChatEvent::Choices(_) => {}
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
        if let (Some(turn), Some(origin)) = (self.turns.last_mut(), &self.origin) {
            turn.origin = Some(origin.to_json());
        }
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
