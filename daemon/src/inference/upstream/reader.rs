//! What an engine's events come to, whatever its protocol. Pure.

use super::{
    super::chat::{Finish, Usage},
    kserve, openai,
};

/// Longest piece of an engine's own words that is shown, in characters.
const EXCERPT_CHARS_MAX: usize = 200;

/// What one event brings.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A piece of the answer, not empty.
    Text(String),
    /// Nothing to pass on.
    Nothing,
    /// The last event.
    End,
}

/// What was told beside the text.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    /// Why the answer ended; `None` as long as it has not.
    pub(super) finish: Option<Finish>,
    /// Zeros where the engine did not say.
    pub(super) usage: Usage,
}

/// Why an event is no part of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ReadError {
    /// The engine says that it failed, in these words.
    Engine(String),
    /// It makes no sense.
    Nonsense(String),
}

/// Reads events by one protocol.
#[derive(Debug)]
pub(super) enum Reader {
    OpenAi(openai::Reader),
    KServe(kserve::Reader),
}

impl Reader {
    pub(super) fn read(&mut self, data: &str) -> Result<Heard, ReadError> {
        match self {
            Self::OpenAi(reader) => reader.read(data),
            Self::KServe(reader) => reader.read(data),
        }
    }

    pub(super) fn told(&self) -> &Told {
        match self {
            Self::OpenAi(reader) => reader.told(),
            Self::KServe(reader) => reader.told(),
        }
    }
}

/// The beginning of a text from outside, fit for a log line: one line, without control characters.
pub(super) fn excerpt(text: &str) -> String {
    let mut shown: String = text
        .trim()
        .chars()
        .take(EXCERPT_CHARS_MAX)
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect();
    if text.trim().chars().count() > EXCERPT_CHARS_MAX {
        shown.push('…');
    }
    shown
}
