//! What a listener hears while something said is answered, and what it may know about the time that took.
//!
//! Data only; [`super::exchange`] makes it, the doors put it into their own form.

use std::time::Duration;

use super::SENTENCE_BYTES_MAX;
use crate::inference::chat::ChatTimings;
use crate::inference::error::InferenceError;
use crate::inference::upstream::Origin;
use crate::router::comprehension::{ComprehensionError, ComprehensionTimings};
use crate::router::outcome::{CommandError, Done};
use crate::session::{SessionError, SessionId};
use crate::understanding::{Call, Explanation};

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
    /// Where a language model's answer was made, and why there; `None` for answers without one.
    pub origin: Option<Origin>,
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
            Self::Busy { .. }
            | Self::Comprehension(
                ComprehensionError::Busy
                | ComprehensionError::Model(InferenceError::Overloaded { .. }),
            )
            | Self::Chat(InferenceError::Overloaded { .. }) => "Busy",
            Self::Comprehension(_) | Self::Chat(_) => "ModelUnavailable",
            Self::Session(_) => "StoreUnavailable",
        }
    }
}
