//! What the box says: answers in the wording's sentences, and the frame of a conversation with the language model.

use std::sync::Arc;

use serde_json::Value;

use super::outcome::CommandError;
use crate::inference::chat::{ChatMessage, ChatRequest, Role, Sampling};
use crate::session::{Session, Speaker, TurnRecord};
use crate::things::description::ThingDescription;
use crate::things::registry::{Presence, Things};
use crate::things::schema::CheckError;
use crate::understanding::Call;
use crate::understanding::reply;
use crate::understanding::wording::Wording;

/// Discourages a small model from saying the same sentence again and again, as it does when decoded greedily. Not tuned.
const REPETITION_PENALTY: f32 = 1.15;
/// Turns by which the model's view of a conversation moves on at a time.
const WINDOW_STEP: u64 = 8;
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
        Self {
            wording,
            context_turns,
            answer_tokens_max,
        }
    }

    /// A call that the device carried out: its own output, or else what it reports of the property that the call sets.
    #[must_use]
    pub fn success(
        &self,
        thing: &ThingDescription,
        call: &Call,
        output: &Value,
        now: Option<(&str, &Value)>,
    ) -> String {
        match now {
            Some((property, value)) => {
                reply::property_report(property, value, thing, &self.wording)
            }
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
            CommandError::Check(CheckError::Value(error)) => {
                reply::value_error(error, &self.wording)
            }
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
                let places = [
                    ("thing", thing.to_lowercase()),
                    ("message", unstopped(message).to_owned()),
                ];
                say(
                    "device_fault",
                    &places
                        .each_ref()
                        .map(|(place, value)| (*place, value.as_str())),
                )
            }
            CommandError::NoAnswer { thing, deadline } => {
                let places = [
                    ("thing", thing.to_lowercase()),
                    ("seconds", deadline.as_secs_f64().to_string()),
                ];
                say(
                    "no_answer",
                    &places
                        .each_ref()
                        .map(|(place, value)| (*place, value.as_str())),
                )
            }
            CommandError::Interrupted { thing } => of("interrupted", thing),
            CommandError::Running { .. } => say("running", &[]),
            CommandError::Conflict { .. } => say("conflict", &[]),
            CommandError::NotTaken { reason } => say("not_taken", &[("reason", unstopped(reason))]),
            CommandError::Store { cause } => say("not_stored", &[("cause", unstopped(cause))]),
            CommandError::Earlier { message, .. } => {
                say("failed_earlier", &[("message", unstopped(message))])
            }
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
        let mut messages = vec![ChatMessage {
            role: Role::System,
            content: self.frame(things),
        }];
        for turn in remembered(&session.turns, self.context_turns) {
            push(&mut messages, role(turn), &turn.text);
        }
        push(&mut messages, Role::User, text);
        ChatRequest {
            sampling: Sampling {
                repetition_penalty: REPETITION_PENALTY,
                ..Sampling::default()
            },
            ..ChatRequest::new(messages, self.answer_tokens_max)
        }
    }

    /// The frame with the things in it. It changes only when things come or go, so that the model's cache of it stays good.
    fn frame(&self, things: &Things) -> String {
        let words = &self.wording.conversation;
        let names: Vec<&str> = things
            .values()
            .filter(|thing| !matches!(thing.presence, Presence::Offline { .. }))
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

/// The last turns, `most` of them at the most. The window moves on by [`WINDOW_STEP`] turns at a time, so that most prompts begin as the one
/// before them did, and the model's cache of that beginning can be used.
fn remembered(turns: &[TurnRecord], most: usize) -> &[TurnRecord] {
    let Some(last) = turns.last() else {
        return turns;
    };
    let oldest = (last.seq + 1)
        .saturating_sub(most as u64)
        .next_multiple_of(WINDOW_STEP);
    let start = turns
        .iter()
        .position(|turn| turn.seq >= oldest)
        .unwrap_or(turns.len());
    &turns[start..]
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
        _ => messages.push(ChatMessage {
            role,
            content: text.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::TurnOutcome;

    fn turns(seqs: std::ops::Range<u64>) -> Vec<TurnRecord> {
        let turn = |seq| TurnRecord {
            seq,
            when_unix_ms: 0,
            speaker: Speaker::User,
            text: String::new(),
            is_cut: false,
            call: None,
            outcome: TurnOutcome::Said,
            latency_ms: None,
            trace_id: None,
            origin: None,
        };
        seqs.map(turn).collect()
    }

    #[test]
    fn the_remembered_turns_begin_at_the_same_one_for_a_while() {
        let first = |until| {
            remembered(&turns(0..until), 12)
                .first()
                .map(|turn| turn.seq)
        };
        assert_eq!((first(0), first(5), first(12)), (None, Some(0), Some(0)));
        let firsts: Vec<_> = (13..=20).map(first).collect();
        assert!(firsts.iter().all(|first| *first == Some(8)), "{firsts:?}");
        assert_eq!(first(21), Some(16));
    }

    #[test]
    fn never_more_turns_than_asked_for_are_remembered() {
        for until in 0..60 {
            let all = turns(until / 2..until);
            assert!(remembered(&all, 12).len() <= 12, "{until}");
        }
        assert!(remembered(&turns(0..9), 0).is_empty());
    }
}
