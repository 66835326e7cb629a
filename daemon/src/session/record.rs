//! The stored forms of a session and its turns, and the names under which they lie. No I/O.
//!
//! A session's key is its id; a turn's key is `<session id>/<sequence number, 20 digits>`, so that the order of keys is the
//! order of turns. The session's record says which sequence numbers exist: `first_seq <= seq < next_seq`.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use crate::store::{Key, StoreError, Tree, VALUE_BYTES_MAX, Versioned};

/// Format of [`SessionRecord`] and of [`TurnRecord`].
const FORMAT: u8 = 1;

/// Longest session id in bytes; with the slash and the number it stays below the store's longest key.
pub const SESSION_ID_BYTES_MAX: usize = 64;

/// Longest title in bytes, chosen to fit one line of a list.
const TITLE_BYTES_MAX: usize = 120;

/// A conversation's name: 1 to 64 of `A-Z a-z 0-9 . _ -`, so that it can stand in keys, paths and on the command line.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(String);

impl SessionId {
    /// Checks and takes an id.
    ///
    /// # Errors
    /// [`InvalidSessionId`].
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidSessionId> {
        let text = text.into();
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        match !text.is_empty() && text.len() <= SESSION_ID_BYTES_MAX && text.bytes().all(is_allowed)
        {
            true => Ok(Self(text)),
            false => Err(InvalidSessionId),
        }
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn key(&self) -> Result<Key, StoreError> {
        Key::new(self.0.clone())
    }

    pub(super) fn turn_key(&self, seq: u64) -> Result<Key, StoreError> {
        Key::new(format!("{}/{seq:020}", self.0))
    }

    /// What the keys of this session's turns begin with; no other session's do, since an id holds no slash.
    pub(super) fn turn_prefix(&self) -> String {
        format!("{}/", self.0)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Text that is no session id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a session id is 1 to {SESSION_ID_BYTES_MAX} of A-Z a-z 0-9 . _ -")]
pub struct InvalidSessionId;

/// A conversation as it is stored, without its turns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// The session's id.
    pub id: String,
    /// When it was begun, in milliseconds since 1970.
    pub created_unix_ms: u64,
    /// When a turn was last added, in milliseconds since 1970.
    pub updated_unix_ms: u64,
    /// The beginning of the first thing that the user said; empty before that.
    pub title: String,
    /// What the conversation is about right now (the Things last referred to, a question that waits for its answer), in the form
    /// that the understanding module chooses. Nobody else looks inside.
    pub focus: Option<serde_json::Value>,
    /// Sequence number of the oldest turn that is kept.
    pub first_seq: u64,
    /// Sequence number that the next turn gets.
    pub next_seq: u64,
}

/// Who speaks in a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Speaker {
    /// The person or program that asked.
    User,
    /// The box.
    Assistant,
    /// A device, in its own acknowledgement.
    Device,
}

/// What came of a turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TurnOutcome {
    /// Nothing was asked of a device.
    Said,
    /// The device did it and said so.
    Done,
    /// It was not tried: not understood, not allowed, out of range.
    Refused,
    /// It was tried and failed, or the device did not answer.
    Failed,
    /// A question went back to the user.
    Asked,
}

/// One thing said, as the caller gives it.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTurn {
    /// Who said it.
    pub speaker: Speaker,
    /// What was said. Cut at the end when the record would be too large to store.
    pub text: String,
    /// The call that it became, if it became one.
    pub call: Option<serde_json::Value>,
    /// What came of it.
    pub outcome: TurnOutcome,
    /// From the end of the request to this turn.
    pub latency: Option<Duration>,
    /// The trace that it belongs to.
    pub trace_id: Option<String>,
    /// Where a language model's answer was made, and why there.
    pub origin: Option<serde_json::Value>,
}

/// One turn as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TurnRecord {
    /// Its place in the conversation, from 0, without gaps.
    pub seq: u64,
    /// When it was said, in milliseconds since 1970.
    pub when_unix_ms: u64,
    /// Who said it.
    pub speaker: Speaker,
    /// What was said.
    pub text: String,
    /// Whether `text` is only the beginning.
    pub is_cut: bool,
    /// The call that it became.
    pub call: Option<serde_json::Value>,
    /// What came of it.
    pub outcome: TurnOutcome,
    /// From the end of the request to this turn, in milliseconds.
    pub latency_ms: Option<u64>,
    /// The trace that it belongs to.
    pub trace_id: Option<String>,
    /// Where a language model's answer was made, and why there; absent in turns of older daemons.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<serde_json::Value>,
}

impl SessionRecord {
    /// A session that begins at `now`.
    pub(super) fn begin(id: &SessionId, now: SystemTime) -> Self {
        Self {
            id: id.as_str().to_owned(),
            created_unix_ms: unix_ms(now),
            updated_unix_ms: unix_ms(now),
            title: String::new(),
            focus: None,
            first_seq: 0,
            next_seq: 0,
        }
    }

    /// The record after `turns` more turns were said, the oldest beyond `turns_max` being dropped; a title is taken from the first user turn.
    pub(super) fn grown(
        &self,
        turns: &[NewTurn],
        focus: Option<serde_json::Value>,
        turns_max: u64,
        now: SystemTime,
    ) -> Self {
        let mut next = self.clone();
        if next.title.is_empty() {
            let first = turns.iter().find(|turn| turn.speaker == Speaker::User);
            next.title = first.map_or_else(String::new, |turn| {
                cut(turn.text.trim(), TITLE_BYTES_MAX).to_owned()
            });
        }
        next.next_seq += turns.len() as u64;
        next.first_seq = next.first_seq.max(next.next_seq.saturating_sub(turns_max));
        // A clock that was set back must not make a session look older than it is.
        next.updated_unix_ms = next.updated_unix_ms.max(unix_ms(now));
        next.focus = focus;
        next
    }

    pub(super) fn encode(&self) -> Result<Versioned, StoreError> {
        Versioned::encode(FORMAT, self)
    }

    pub(super) fn decode(value: &Versioned) -> Result<Self, StoreError> {
        check_format(value, Tree::Sessions)?;
        value.decode()
    }
}

impl TurnRecord {
    pub(super) fn new(turn: NewTurn, seq: u64, now: SystemTime) -> Self {
        Self {
            seq,
            when_unix_ms: unix_ms(now),
            speaker: turn.speaker,
            text: turn.text,
            is_cut: false,
            call: turn.call,
            outcome: turn.outcome,
            latency_ms: turn
                .latency
                .map(|latency| u64::try_from(latency.as_millis()).unwrap_or(u64::MAX)),
            trace_id: turn.trace_id,
            origin: turn.origin,
        }
    }

    /// Encodes the turn, with its text cut as far as the store's largest value asks; JSON's escapes count.
    pub(super) fn encode(mut self) -> Result<Versioned, StoreError> {
        loop {
            match Versioned::encode(FORMAT, &self) {
                Err(StoreError::ValueTooLarge { bytes, limit }) if !self.text.is_empty() => {
                    // One byte of text takes at least one of the value, so this cuts too little at most, and ends at the empty text.
                    let excess = bytes.saturating_sub(limit).max(1);
                    let kept = cut(
                        &self.text,
                        self.text.len().saturating_sub(excess.div_ceil(6)),
                    )
                    .len();
                    self.text.truncate(kept);
                    self.is_cut = true;
                }
                result => return result,
            }
        }
    }

    pub(super) fn decode(value: &Versioned) -> Result<Self, StoreError> {
        check_format(value, Tree::Turns)?;
        value.decode()
    }
}

/// The longest beginning of `text` of at most `bytes_max` bytes that ends between characters.
fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

fn check_format(value: &Versioned, tree: Tree) -> Result<(), StoreError> {
    match value.format() {
        FORMAT => Ok(()),
        format => Err(StoreError::UnknownFormat { tree, format }),
    }
}

/// Milliseconds since 1970; a time before that is 0.
pub(super) fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

const _: () = assert!(
    VALUE_BYTES_MAX > 4 * 1024,
    "a turn's fixed fields must fit beside its text"
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(text: String) -> NewTurn {
        NewTurn {
            speaker: Speaker::User,
            text,
            call: None,
            outcome: TurnOutcome::Said,
            latency: None,
            trace_id: None,
            origin: None,
        }
    }

    #[test]
    fn ids_that_could_escape_a_key_are_refused() {
        for bad in ["", "a/b", "a b", "ä", "a\n", &"x".repeat(65)] {
            assert_eq!(SessionId::new(bad), Err(InvalidSessionId), "{bad:?}");
        }
        assert!(SessionId::new("door-1.A_b").is_ok());
    }

    proptest! {
        #[test]
        fn any_text_is_stored_whole_or_as_its_beginning(
            text in prop_oneof!["\\PC{0,60}", "[\u{1}\"\\\\aä€😀]{3000,9000}"],
        ) {
            let value = TurnRecord::new(said(text.clone()), 3, UNIX_EPOCH).encode().unwrap();
            let turn = TurnRecord::decode(&value).unwrap();
            prop_assert!(text.starts_with(&turn.text));
            prop_assert_eq!(turn.is_cut, turn.text != text);
        }

        #[test]
        fn kept_turns_are_the_newest_and_never_too_many(
            appended in proptest::collection::vec(0_usize..20, 1..20),
            turns_max in 1_u64..30,
        ) {
            let id = SessionId::new("s").unwrap();
            let mut record = SessionRecord::begin(&id, UNIX_EPOCH);
            let mut total = 0;
            for count in appended {
                let turns = vec![said("x".into()); count];
                record = record.grown(&turns, None, turns_max, UNIX_EPOCH);
                total += count as u64;
                prop_assert_eq!(record.next_seq, total);
                prop_assert_eq!(record.next_seq - record.first_seq, total.min(turns_max));
            }
        }
    }
}
