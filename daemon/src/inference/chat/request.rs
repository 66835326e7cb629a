//! What the chat model is asked, and what it tells: data only, with the checks that need no model.

use std::{ops::AddAssign, sync::Arc, time::Duration};

use serde_json::Value;

use super::{
    super::{class::Class, error::InferenceError},
    constrain::Form,
    logprobs::TOP_LOGPROBS_MAX,
    sampler::Sampling,
    stop::{STOP_BYTES_MAX, STOPS_MAX},
};

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
    /// Descriptions of tools, as the model's chat template wants them (OpenAI's form, mostly).
    pub tools: Vec<Value>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Texts that end the answer; they are no part of it. At most [`STOPS_MAX`] of 1 to [`STOP_BYTES_MAX`] bytes.
    pub stop: Vec<String>,
    /// The form that the answer must have.
    pub form: Option<Form>,
    /// Tell how likely each token was ([`ChatEvent::Choices`]), and so many alternatives, at most [`TOP_LOGPROBS_MAX`].
    pub logprobs: Option<usize>,
    /// Who waits for the answer, and so whose turn comes first.
    pub class: Class,
    /// Refuse instead of waiting longer than this for the model. `None` waits as long as the queue takes.
    pub begin_within: Option<Duration>,
    /// Refuse at once if the whole answer will probably take longer than this from now, by what answers took lately and what is before it. An
    /// answer that has begun is not cut off.
    pub end_within: Option<Duration>,
    /// Whether tokens are guessed from what was said already, and verified several at a time.
    pub speculation: Speculation,
}

/// Whether tokens are guessed, and verified several at a time.
///
/// Worth it where an answer repeats parts of its prompt: names, quotations, structured texts. The answer is that of
/// [`Reference`](Self::Reference), token for token. That one may differ from that of [`Off`](Self::Off) where two tokens are nearly equally
/// likely, since tokens with a guess are computed by the kernel for several tokens (`graph::in_place` says why that matters).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Speculation {
    /// One token at a time, together with other answers.
    #[default]
    Off,
    /// As many at a time as were guessed right. An answer with guesses runs by itself.
    On,
    /// By the same kernels as `On`, but every token is chosen in a run of its own: what `On` is held against.
    Reference,
}

impl ChatRequest {
    /// A request with the defaults: greedy, and as patient as the queue is long.
    pub fn new(messages: Vec<ChatMessage>, max_tokens: usize) -> Self {
        Self {
            messages,
            max_tokens,
            tools: Vec::new(),
            sampling: Sampling::default(),
            stop: Vec::new(),
            form: None,
            logprobs: None,
            class: Class::default(),
            begin_within: None,
            end_within: None,
            speculation: Speculation::default(),
        }
    }

    /// Bytes of all messages and tools.
    pub(super) fn bytes(&self) -> usize {
        let tools = self.tools.iter().map(|tool| tool.to_string().len());
        let messages = self.messages.iter();
        messages
            .map(|message| message.content.len())
            .chain(tools)
            .sum()
    }

    pub(in super::super) fn check(&self) -> Result<(), InferenceError> {
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
        let bytes = self.bytes();
        if bytes > TEXT_BYTES_MAX {
            return refuse(
                "bytes of all messages and tools",
                bytes,
                format!("up to {TEXT_BYTES_MAX}"),
            );
        }
        if self.max_tokens == 0 {
            return refuse("max_tokens", 0, "1 or more".into());
        }
        if self.stop.len() > STOPS_MAX {
            return refuse(
                "number of stop strings",
                self.stop.len(),
                format!("up to {STOPS_MAX}"),
            );
        }
        let lengths = self.stop.iter().map(String::len);
        if let Some(bytes) = lengths
            .into_iter()
            .find(|bytes| !(1..=STOP_BYTES_MAX).contains(bytes))
        {
            return refuse(
                "bytes of a stop string",
                bytes,
                format!("1 to {STOP_BYTES_MAX}"),
            );
        }
        if let Some(top) = self.logprobs.filter(|top| *top > TOP_LOGPROBS_MAX) {
            return refuse("logprobs", top, format!("up to {TOP_LOGPROBS_MAX}"));
        }
        self.sampling.check()
    }
}

/// What happens to a request, in order: `Started`, any number of `Choices` and `Delta`, then `Done` or `Failed`. `Failed` may come first. A
/// stream that ends with neither means that the model's thread broke down under it.
#[derive(Debug)]
pub enum ChatEvent {
    /// The prompt is made and the model begins to read it.
    Started {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Of these, tokens that a cache held already.
        reused_tokens: usize,
        /// Oldest messages that were left out because the conversation is longer than the context.
        dropped_messages: usize,
        /// The bundle that answers.
        bundle: Arc<str>,
    },
    /// The next piece of the answer: whole characters, never empty.
    Delta(String),
    /// The next tokens chosen, each before the text that it is part of; only if [`ChatRequest::logprobs`] asked for it.
    Choices(Vec<TokenChoice>),
    /// The answer is complete.
    Done {
        /// Tokens of the answer.
        tokens: usize,
        /// What it cost.
        usage: Usage,
        /// Why it ended.
        finish: Finish,
        /// Where the time went.
        timings: ChatTimings,
    },
    /// There is no (more) answer.
    Failed(InferenceError),
}

/// One token that was chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenChoice {
    /// The token itself.
    pub chosen: NamedToken,
    /// The likeliest ones, the chosen one perhaps among them.
    pub top: Vec<NamedToken>,
}

/// A token and how likely the model itself found it, before penalties, forms and temperature.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedToken {
    /// Its number in the vocabulary.
    pub id: u32,
    /// Its text; of a part of a character, U+FFFD.
    pub text: String,
    /// Natural logarithm of its probability, at most 0.
    pub logprob: f32,
}

/// What an answer cost, in tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// The prompt.
    pub prompt_tokens: usize,
    /// Of these, the ones that a cache held already.
    pub reused_tokens: usize,
    /// The answer.
    pub answer_tokens: usize,
    /// Of these, the ones that were guessed right.
    pub guessed_tokens: usize,
    /// Of these, the ones that the form left no choice about.
    pub forced_tokens: usize,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model ended its turn, or the form is complete.
    EndOfTurn,
    /// A stop string came up.
    StopString,
    /// It has [`ChatRequest::max_tokens`] tokens.
    MaxTokens,
    /// The context is full.
    ContextFull,
}

/// Where the time of an answer went, as the clock on the wall goes: what the model did for others meanwhile counts, too.
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
    /// Tokens that were guessed and computed along.
    pub drafted_tokens: u64,
    /// Of these, the ones that were right.
    pub taken_tokens: u64,
    /// Answers that came to their end.
    pub answered: u64,
    /// Answers that nobody wanted any more.
    pub cancelled: u64,
    /// Requests that were accepted and then failed.
    pub failed: u64,
    /// Times that an answer made room for a more urgent one, and waited.
    pub parked: u64,
    /// Requests that were not accepted, or given up before they began, because others were before them.
    pub refused: u64,
}

impl AddAssign for ChatCounters {
    fn add_assign(&mut self, more: Self) {
        let Self {
            prompt_tokens,
            drawn_tokens,
            drafted_tokens,
            taken_tokens,
            answered,
            cancelled,
            failed,
            parked,
            refused,
        } = more;
        self.prompt_tokens += prompt_tokens;
        self.drawn_tokens += drawn_tokens;
        self.drafted_tokens += drafted_tokens;
        self.taken_tokens += taken_tokens;
        self.answered += answered;
        self.cancelled += cancelled;
        self.failed += failed;
        self.parked += parked;
        self.refused += refused;
    }
}
