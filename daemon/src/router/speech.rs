//! What the box says: answers in the wording's sentences, and the frame of a conversation with the language model.

use std::sync::Arc;

use serde_json::Value;

use super::outcome::CommandError;
use crate::inference::chat::{ChatMessage, ChatRequest, Choice, Role, Sampling};
use crate::session::{Session, Speaker, TurnRecord};
use crate::things::description::ThingDescription;
use crate::things::registry::{Presence, Things};
use crate::things::schema::CheckError;
use crate::understanding::reply;
use crate::understanding::wording::Wording;
use crate::understanding::Call;

/// Discourages a small model from saying the same sentence for ever; chosen because 1.0 loops within 60 tokens
/// on the default model and 1.3 makes it lose its thread.
const REPETITION_PENALTY: f32 = 1.15;
/// Things named to the model; more would crowd out the conversation.
const THINGS_TOLD_MAX: usize = 12;

/// Makes answers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Speech {
    wording: Arc<Wording>,
    context_turns: usize,
    answer_tokens_max: usize,
}

impl Speech {
    /// Speaks in `wording`; the model sees `context_turns` earlier turns and answers in at most `answer_tokens_max` tokens.
    #[must_use]
    pub fn new(wording: Arc<Wording>, context_turns: usize, answer_tokens_max: usize) -> Self {
        Self { wording, context_turns, answer_tokens_max }
    }

    /// A call that the device carried out: its own output, or else what it reports of the property that the call sets.
    #[must_use]
    pub fn success(&self, thing: &ThingDescription, call: &Call, output: &Value, now: Option<(&str, &Value)>) -> String {
        match now {
            Some((property, value)) => reply::property_report(property, value, thing, &self.wording),
            None => {
                let output = Some(output).filter(|output| !output.is_null());
                reply::answer(call, output, thing, &self.wording)
            }
        }
    }

    /// A call that was not carried out, or perhaps not.
    #[must_use]
    pub fn failure(&self, error: &CommandError) -> String {
        let say = |name, places: &[(&str, &str)]| reply::say(&self.wording, name, places);
        let of = |name, thing: &str| say(name, &[("thing", &thing.to_lowercase())]);
        match error {
            CommandError::Check(CheckError::Value(error)) => reply::value_error(error, &self.wording),
            CommandError::Check(
                CheckError::NoSuchAction { thing, .. }
                | CheckError::NoSuchProperty { thing, .. }
                | CheckError::ReadOnly { thing, .. }
                | CheckError::WriteOnly { thing, .. },
            ) => of("not_offered", thing),
            CommandError::Denied { resource, .. } => say("denied", &[("resource", resource)]),
            CommandError::UnknownThing { thing } => say("gone", &[("thing", thing.as_str())]),
            CommandError::NotConnected { thing } => of("not_connected", thing),
            CommandError::Busy { thing } => of("busy", thing),
            CommandError::Device { thing, message, .. } => {
                let places = [("thing", thing.to_lowercase()), ("message", unstopped(message).to_owned())];
                say("device_fault", &places.each_ref().map(|(place, value)| (*place, value.as_str())))
            }
            CommandError::NoAnswer { thing, deadline } => {
                let places = [("thing", thing.to_lowercase()), ("seconds", deadline.as_secs_f64().to_string())];
                say("no_answer", &places.each_ref().map(|(place, value)| (*place, value.as_str())))
            }
            CommandError::Interrupted { thing } => of("interrupted", thing),
            CommandError::Running { .. } => say("running", &[]),
            CommandError::Conflict { .. } => say("conflict", &[]),
            CommandError::NotTaken { reason } => say("not_taken", &[("reason", unstopped(reason))]),
            CommandError::Store { cause } => say("not_stored", &[("cause", unstopped(cause))]),
            CommandError::Earlier { message, .. } => say("failed_earlier", &[("message", unstopped(message))]),
        }
    }

    /// A question that the person took back.
    #[must_use]
    pub fn cancelled(&self) -> String {
        reply::say(&self.wording, "cancelled", &[])
    }

    /// What the language model is asked: frame, things, the last turns, and what was said now.
    #[must_use]
    pub fn chat_request(&self, session: &Session, text: &str, things: &Things) -> ChatRequest {
        let mut messages = vec![ChatMessage { role: Role::System, content: self.frame(things) }];
        let skipped = session.turns.len().saturating_sub(self.context_turns);
        for turn in &session.turns[skipped..] {
            push(&mut messages, role(turn), &turn.text);
        }
        push(&mut messages, Role::User, text);
        ChatRequest {
            messages,
            max_tokens: self.answer_tokens_max,
            sampling: Sampling { choice: Choice::Greedy, repetition_penalty: REPETITION_PENALTY },
            begin_within: None,
        }
    }
    /// The frame with the things in it. It changes only when things come or go, so that the model's cache of it stays good.
    fn frame(&self, things: &Things) -> String {
        let words = &self.wording.conversation;
        let names: Vec<&str> = things
            .values()
            .filter(|thing| matches!(thing.presence, Presence::Online { .. }))
            .map(|thing| thing.description.title.as_str())
            .take(THINGS_TOLD_MAX)
            .collect();
        if names.is_empty() {
            return words.frame.clone();
        }
        let told = reply::fill(&words.things, &[("things", &names.join(", "))]);
        format!("{} {told}", words.frame)
    }
}

/// Words from elsewhere without their full stop, as the wording's sentence has its own.
fn unstopped(text: &str) -> &str {
    text.trim().trim_end_matches('.')
}

fn role(turn: &TurnRecord) -> Role {
    match turn.speaker {
        Speaker::User => Role::User,
        Speaker::Assistant | Speaker::Device => Role::Assistant,
    }
}

/// Adds a message; two of one role in a row become one, as chat templates want them to alternate.
fn push(messages: &mut Vec<ChatMessage>, role: Role, text: &str) {
    match messages.last_mut() {
        Some(last) if last.role == role => {
            last.content.push('\n');
            last.content.push_str(text);
        }
        _ => messages.push(ChatMessage { role, content: text.to_owned() }),
    }
}
