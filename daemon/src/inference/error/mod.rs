//! What can go wrong, by who is to blame: [`LoadError`] for the bundle on disk, [`InferenceError`] for one request.

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

use thiserror::Error;

pub use self::load::{LoadError, ProveError, ReloadError};
use super::{
    class::Class, manifest::Task, status::ModelState, tts::espeak::EspeakError,
    upstream::UpstreamError,
};

mod load;

/// What is known of the time that a request takes that was refused for want of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Nothing: the queue is full, whatever it takes.
    Unknown,
    /// By what was measured it would wait so long; with a limit on the whole answer, until its end.
    Estimated(Duration),
    /// It has waited so long.
    Passed(Duration),
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => Ok(()),
            Self::Estimated(wait) => write!(f, ", an estimated {} ms", wait.as_millis()),
            Self::Passed(wait) => write!(f, ", this one for {} ms", wait.as_millis()),
        }
    }
}

/// Why one request was not served. The model goes on with the next.
#[derive(Debug, Error)]
pub enum InferenceError {
    /// The model is not there (yet).
    #[error("the {task} model is not ready: {state}")]
    NotReady {
        /// Which model.
        task: Task,
        /// What it is doing instead.
        state: ModelState,
    },
    /// Refused at once: the queue is full, or the request could not have met its deadline.
    #[error(
        "the {task} model is overloaded: {queued} of {capacity} {class} requests waiting{wait}"
    )]
    Overloaded {
        /// Which model.
        task: Task,
        /// The request's class.
        class: Class,
        /// Requests of its class waiting or running.
        queued: usize,
        /// Most requests of its class that may wait.
        capacity: usize,
        /// What is known of the time that it takes.
        wait: Wait,
    },
    /// The request asks for nothing, or for more than one request may.
    #[error("{what} is {actual}, allowed are {allowed}")]
    OutOfRange {
        /// The part of the request.
        what: &'static str,
        /// What it is.
        actual: String,
        /// What it may be.
        allowed: String,
    },
    /// Even the last message alone is longer than the context.
    #[error(
        "the last message needs {tokens} tokens with its frame, the context leaves room for {limit}"
    )]
    PromptTooLong {
        /// Tokens needed.
        tokens: usize,
        /// Tokens there is room for.
        limit: usize,
    },
    /// The tokenizer failed on this text.
    #[error("the text cannot be tokenized")]
    Tokenize {
        /// What the tokenizer library said.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The answer cannot be held to the form that was asked for: the form is not valid, or cannot be enforced, or is too large.
    #[error("the form of the answer cannot be used: {reason}")]
    Form {
        /// What is wrong with it.
        reason: String,
    },
    /// No token can follow: all logits are NaN, or nothing is allowed.
    #[error("the model gives no token that may come next")]
    NoToken,
    /// The chat template refused these messages.
    #[error("the chat template refused the messages")]
    Template {
        /// What the template said.
        #[source]
        source: minijinja::Error,
    },
    /// ONNX Runtime failed while running the graph.
    #[error("ONNX Runtime failed")]
    Run {
        /// What it said; shared by all answers of one run.
        #[source]
        source: Arc<ort::Error>,
    },
    /// The graph ran, and what came out has the wrong shape.
    #[error("the graph's output {name:?} has {actual} values, expected {expected}")]
    Output {
        /// The output.
        name: &'static str,
        /// Number of values expected.
        expected: usize,
        /// Number of values there.
        actual: usize,
    },
    /// A tensor of the request is not what the bundle says.
    #[error("the input {name:?} is {actual}, expected {expected}")]
    Tensor {
        /// The input.
        name: String,
        /// What would fit.
        expected: String,
        /// What it is.
        actual: String,
    },
    /// The graph ran, and what came out is not what the bundle says.
    #[error("the graph did not keep to its bundle: {what}")]
    Outputs {
        /// Which output, and in what way.
        what: String,
    },
    /// A text could not be turned into phonemes.
    #[error("the text cannot be turned into phonemes")]
    Phonemes {
        /// What is wrong with the program that does it.
        #[source]
        source: EspeakError,
    },
    /// There is nothing in a text that is spoken.
    #[error("there is nothing in the text that can be spoken")]
    Silent,
    /// The voice was exchanged in the middle of a text, and the new one's sound cannot follow the old one's.
    #[error(
        "the voice was exchanged meanwhile: it has {now} samples per second, the one before {before}"
    )]
    VoiceChanged {
        /// Samples per second of what was heard.
        before: u32,
        /// Samples per second of what would follow.
        now: u32,
    },
    /// The model did not become ready in time.
    #[error("the {task} model was not ready after {waited_ms} ms: {state}")]
    WaitTimedOut {
        /// Which model.
        task: Task,
        /// How long was waited.
        waited_ms: u64,
        /// What it was doing at the end.
        state: ModelState,
    },
    /// An engine elsewhere had begun to answer, and did not get to the end.
    #[error("{source}")]
    Upstream {
        /// What happened to it.
        source: Box<UpstreamError>,
    },
    /// Neither the model here nor the engine elsewhere began to answer.
    #[error("{here}; elsewhere: {there}")]
    Nowhere {
        /// Why not here.
        here: Box<InferenceError>,
        /// Why not elsewhere.
        there: Box<UpstreamError>,
    },
    /// Inference is being stopped.
    #[error("inference is stopping")]
    Stopping,
}

impl From<ort::Error> for InferenceError {
    fn from(source: ort::Error) -> Self {
        Self::Run {
            source: Arc::new(source),
        }
    }
}

impl InferenceError {
    pub(super) fn timed_out(task: Task, waited: Duration, state: ModelState) -> Self {
        Self::WaitTimedOut {
            task,
            waited_ms: millis(waited),
            state,
        }
    }
}

/// Whole milliseconds, saturating.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// An error with its whole chain of causes on one line, for states and logs. Of a cause that draws a picture (TOML), the first
/// and the last line say where and what.
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        let mut lines = message
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty());
        let first = lines.next().unwrap_or_default();
        if !text.ends_with(first) {
            text.push_str(": ");
            text.push_str(first);
        }
        if let Some(last) = lines.next_back() {
            text.push_str(": ");
            text.push_str(last);
        }
        cause = error.source();
    }
    text
}
