//! A conversation's next answer, streamed: template and tokenizer, prefill, decode, text.
//!
//! [`ChatHandle`] is what the rest of the daemon holds; `worker` is the model on its thread. Around them stand the pure parts:
//! `prompt` (what the model reads, and what is left out), `sampler` (which token), `text` (whole characters), `admission`
//! (whether a request can begin in time). `decoder` is the graph with its key-value cache.
//!
//! | channel | from, to | capacity | when full |
//! | --- | --- | --- | --- |
//! | jobs | handles -> model thread | 32 | refused at once with `Overloaded` |
//! | events | model thread -> one caller | [`EVENTS`] | texts are joined until there is room; the model never waits |
//!
//! Dropping the receiver of the events cancels: seen before every token, and between two pieces of a long prompt.

use std::{
    ops::AddAssign,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, watch};

use super::{
    error::{InferenceError, millis},
    manifest::Task,
    slot::{Door, QUEUE},
};

mod admission;
#[cfg(test)]
mod byte_tokenizer;
mod constrain;
mod decoder;
mod logprobs;
mod lookup;
mod prompt;
mod sampler;
mod stop;
mod text;
mod worker;

use self::admission::{Load, Ticket};
pub(super) use self::worker::Chat;
pub use self::{
    constrain::Form,
    logprobs::{TOP_LOGPROBS_MAX, TokenLogprob},
    sampler::{Choice, Sampling},
    stop::{STOP_BYTES_MAX, STOPS_MAX},
};

/// Events that may wait for a slow reader.
pub const EVENTS: usize = 64;

/// Most messages in one request.
const MESSAGES_MAX: usize = 4096;

/// Most bytes of all messages together: far more than any context holds, and some 0.1 s to tokenize.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// Who said something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The frame of the conversation.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a tool.
    Tool,
}

impl Role {
    /// The word that chat templates use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatMessage {
    /// Who said it.
    pub role: Role,
    /// What was said.
    pub content: String,
}

/// What to answer, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatRequest {
    /// The conversation, oldest first.
    pub messages: Vec<ChatMessage>,
    /// Longest answer in tokens. Up to a quarter of the context is kept free for it; the conversation may use the rest.
    pub max_tokens: usize,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Refuse instead of waiting longer than this for the model. `None` waits as long as the queue takes.
    pub begin_within: Option<Duration>,
}

/// What happens to a request, in order: `Started`, any number of `Delta`, then `Done` or `Failed`. `Failed` may come first. A
/// stream that ends with neither means that the model's thread broke down under it.
#[derive(Debug)]
pub enum ChatEvent {
    /// The prompt is made and the model begins to read it.
    Started {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Of these, tokens that the cache held already.
        reused_tokens: usize,
        /// Oldest messages that were left out because the conversation is longer than the context.
        dropped_messages: usize,
    },
    /// The next piece of the answer: whole characters, never empty.
    Delta(String),
    /// The answer is complete.
    Done {
        /// Tokens of the answer.
        tokens: usize,
        /// Why it ended.
        finish: Finish,
        /// Where the time went.
        timings: ChatTimings,
    },
    /// There is no (more) answer.
    Failed(InferenceError),
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model ended its turn.
    EndOfTurn,
    /// It has [`ChatRequest::max_tokens`] tokens.
    MaxTokens,
    /// The context is full.
    ContextFull,
}

/// Where the time of an answer went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChatTimings {
    /// Waiting for the model.
    pub queue: Duration,
    /// Template and tokenizer.
    pub encode: Duration,
    /// The prompt through the model, up to the first token.
    pub prefill: Duration,
    /// All further tokens, with their text.
    pub decode: Duration,
}

/// What the model has done since the start, counted when a request ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChatCounters {
    /// Prompt tokens that were computed; reused ones do not count.
    pub prompt_tokens: u64,
    /// Tokens that were drawn, without the one that ends a turn.
    pub drawn_tokens: u64,
    /// Answers that came to their end.
    pub answered: u64,
    /// Answers that nobody wanted any more.
    pub cancelled: u64,
    /// Requests that were accepted and then failed.
    pub failed: u64,
}

impl AddAssign for ChatCounters {
    fn add_assign(&mut self, more: Self) {
        let Self {
            prompt_tokens,
            drawn_tokens,
            answered,
            cancelled,
            failed,
        } = more;
        self.prompt_tokens += prompt_tokens;
        self.drawn_tokens += drawn_tokens;
        self.answered += answered;
        self.cancelled += cancelled;
        self.failed += failed;
    }
}

/// A cheap, clonable way to the chat model.
#[derive(Debug, Clone)]
pub struct ChatHandle {
    door: Door<ChatJob>,
    load: Arc<Load>,
    counters: Arc<watch::Sender<ChatCounters>>,
}

impl ChatHandle {
    pub(super) fn new(door: Door<ChatJob>) -> Self {
        Self {
            door,
            load: Arc::default(),
            counters: Arc::default(),
        }
    }

    /// What the model has done since the start.
    pub fn counters(&self) -> ChatCounters {
        *self.counters.borrow()
    }

    /// Queues a request and returns the stream of its events. Dropping the receiver cancels.
    ///
    /// # Errors
    /// At once: [`InferenceError::NotReady`]; [`InferenceError::Overloaded`] when the queue is full or
    /// [`begin_within`](ChatRequest::begin_within) cannot be kept by the estimate; [`InferenceError::OutOfRange`]. What goes wrong
    /// later comes as [`ChatEvent::Failed`].
    pub fn generate(
        &self,
        request: ChatRequest,
    ) -> Result<mpsc::Receiver<ChatEvent>, InferenceError> {
        request.check()?;
        let wait = self.load.estimated_wait();
        if request.begin_within.is_some_and(|patience| wait > patience) {
            return Err(InferenceError::Overloaded {
                task: Task::Chat,
                queued: self.load.in_flight(),
                capacity: QUEUE,
                wait_ms: millis(wait),
            });
        }
        let (events, stream) = mpsc::channel(EVENTS);
        let ticket = self.load.enter();
        self.door.try_submit(ChatJob {
            request,
            events,
            since: Instant::now(),
            load: Arc::clone(&self.load),
            counters: Arc::clone(&self.counters),
            _ticket: ticket,
        })?;
        Ok(stream)
    }
}

impl ChatRequest {
    fn check(&self) -> Result<(), InferenceError> {
        let refuse = |what, actual: usize, allowed: String| {
            Err(InferenceError::OutOfRange {
                what,
                actual: actual.to_string(),
                allowed,
            })
        };
        if !(1..=MESSAGES_MAX).contains(&self.messages.len()) {
            return refuse(
                "number of messages",
                self.messages.len(),
                format!("1 to {MESSAGES_MAX}"),
            );
        }
        let bytes = self
            .messages
            .iter()
            .map(|message| message.content.len())
            .sum();
        if bytes > TEXT_BYTES_MAX {
            return refuse(
                "bytes of all messages",
                bytes,
                format!("up to {TEXT_BYTES_MAX}"),
            );
        }
        if self.max_tokens == 0 {
            return refuse("max_tokens", 0, "1 or more".into());
        }
        self.sampling.check()
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
    _ticket: Ticket,
}
