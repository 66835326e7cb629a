//! The language model: tokens per second by length of the context, alone and side by side, the engine against a bare loop over the
//! same graph in the same process, in turn.
//!
//! Needs the default bundles (`make models`); with `models/setup.py peers` (`make bench-llm` runs it) two other engines take their turns
//! with the same weights: onnxruntime-genai, in its own layout, and llama.cpp, in the file that our bundle is made from. Read the ratios:
//! they compare runs that were made next to one another.

use std::{
    num::NonZeroUsize,
    path::PathBuf,
    time::{Duration, Instant},
};

mod apart;
mod forms;
mod rates;
mod together;
mod turns;

use anyhow::{Context, Result, bail};
use autoglm_edge::inference::{
    Inference, InferenceConfig, InferenceHandle,
    chat::{ChatCache, ChatEvent, ChatMessage, ChatRequest, Role, Speculation},
    manifest::Task,
    runtime::Runtime,
};
use autoglm_tests::bench::{
    bundles::{Bundles, CHAT, Tokens, rendered},
    floor,
    peer::{Llama, Peer},
    statistics::{Sample, ms},
    table::number,
};
use clap::{Parser, ValueEnum};

const CONTEXT_TOKENS: usize = 2048;

#[derive(Parser)]
struct Options {
    /// Rounds; each measures everything once
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Threads inside an operator
    #[arg(long, default_value_t = NonZeroUsize::MIN)]
    threads: NonZeroUsize,
    /// Tokens of each answer
    #[arg(long, default_value_t = 32)]
    tokens: usize,
    /// Conversations side by side
    #[arg(long, default_value_t = NonZeroUsize::new(8).expect("eight is not zero"))]
    sessions: NonZeroUsize,
    /// What the engine's key-value cache holds: bytes or floats
    #[arg(long, default_value = "bytes", value_parser = cache)]
    cache: ChatCache,
    /// Measure these parts alone
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Let llama.cpp compute attention without its fused kernel: with AVX2 slower for prompts, faster for answers in a long context
    #[arg(long)]
    llama_plain_attention: bool,
    /// Be the engine that is killed, with its state in this directory
    #[arg(long, hide = true)]
    apart: Option<PathBuf>,
}

fn cache(name: &str) -> Result<ChatCache, String> {
    match name {
        "bytes" => Ok(ChatCache::Bytes),
        "floats" => Ok(ChatCache::Floats),
        _ => Err("one of bytes, floats".to_owned()),
    }
}

impl Options {
    /// llama.cpp with one slot, as it is best for one answer at a time.
    fn llama(&self) -> Llama<'static> {
        Llama {
            threads: self.threads.get(),
            slots: 1,
            context_tokens: CONTEXT_TOKENS,
            plain_attention: self.llama_plain_attention,
            state: None,
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut options = Options::parse();
    if let Some(state) = options.apart.take() {
        return apart::serve(state, &options).await;
    }
    let bundles = Bundles::find()?;
    let inference = Inference::start(InferenceConfig {
        embedding: "none".into(),
        chat: CHAT.into(),
        context_tokens: CONTEXT_TOKENS,
        chat_sessions: options.sessions,
        chat_cache: options.cache,
        threads: options.threads.into(),
        ..bundles.embedding_only()
    });
    let handle = inference.handle();
    handle
        .wait_ready(Task::Chat, Duration::from_secs(300))
        .await?;
    println!(
        "- {} thread(s), {} rounds of {} tokens, engine and bare loop in turn; medians\n",
        options.threads, options.rounds, options.tokens
    );
    let threads = options.threads.get();
    println!("- the engine's cache holds {:?}", options.cache);
    let genai = Peer::genai(threads, CONTEXT_TOKENS)?;
    let llama = Peer::llama(&options.llama())?;
    for (name, peer) in [("genai", &genai), ("llama.cpp", &llama)] {
        match peer {
            Some(peer) => println!("- {}", peer.name),
            None => println!("- no {name} here: `python3 models/setup.py peers` installs it"),
        }
    }
    println!();
    let mut bench = Bench {
        genai,
        llama,
        floor: floor::Decoder::new(
            Runtime::load(None)?.environment(),
            &bundles.bundle(CHAT).join("model.onnx"),
            threads,
            CONTEXT_TOKENS,
        )?,
        tokens: bundles.tokens(CHAT)?,
        handle,
        options,
        prompts: 0,
    };
    for part in Part::value_variants() {
        if !bench.options.only.is_empty() && !bench.options.only.contains(part) {
            continue;
        }
        let table = match part {
            Part::Rates => bench.rates().await?,
            Part::Together => bench.together().await?,
            Part::Guesses => bench.speculation().await?,
            Part::Form => bench.form().await?,
            Part::Turns => bench.turns().await?,
            Part::Alone => bench.alone()?,
        };
        println!("{table}");
    }
    if let Err(stragglers) = inference.stop(Duration::from_secs(10)).await {
        bail!("still running: {stragglers:?}");
    }
    Ok(())
}

/// A table, in the order in which they are measured.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// How fast prompts are read and answers written
    Rates,
    /// Conversations side by side
    Together,
    /// Guessed tokens
    Guesses,
    /// A tool call under its schema
    Form,
    /// A conversation's second turn, warm and after kill -9
    Turns,
    /// Loading and memory, in a process of its own
    Alone,
}

struct Bench {
    genai: Option<Peer>,
    llama: Option<Peer>,
    floor: floor::Decoder,
    tokens: Tokens,
    handle: InferenceHandle,
    options: Options,
    /// Counts prompts, so that none begins as another.
    prompts: usize,
}

/// One answer as its caller saw it.
struct Answer {
    text: String,
    prompt_tokens: usize,
    reused_tokens: usize,
    tokens: usize,
    first_ms: f64,
    all_ms: f64,
}

impl Answer {
    /// Tokens per second after the first one.
    fn rate(&self) -> f64 {
        (self.tokens - 1) as f64 / (self.all_ms - self.first_ms) * 1e3
    }
}

impl Bench {
    /// A prompt of some `length` tokens with its ids, that shares no beginning with another.
    fn prompt(&mut self, length: usize) -> Result<(Vec<ChatMessage>, Vec<i64>)> {
        self.prompts += 1;
        let number = self.prompts;
        let of = |words: usize| {
            let text: Vec<&str> = ["river", "stone", "light", "north", "seven", "green"]
                .into_iter()
                .cycle()
                .skip(number % 5)
                .take(words)
                .collect();
            vec![
                say(
                    Role::System,
                    format!("{number} is the number of this house."),
                ),
                say(
                    Role::User,
                    format!("{} Tell me a very long story.", text.join(" ")),
                ),
            ]
        };
        let frame = self.tokens.of_text(&rendered(&of(0)))?.len();
        let messages = of(length.saturating_sub(frame));
        let ids = self.tokens.of_text(&rendered(&messages))?;
        Ok((messages, ids))
    }

    async fn ask(
        &self,
        messages: Vec<ChatMessage>,
        tokens: usize,
        speculation: Speculation,
    ) -> Result<Answer> {
        let request = ChatRequest {
            speculation,
            ..ChatRequest::new(messages, tokens)
        };
        answer(&self.handle, request, Instant::now()).await
    }
}

/// Asks, and measures from `begun` on.
async fn answer(handle: &InferenceHandle, request: ChatRequest, begun: Instant) -> Result<Answer> {
    let mut events = handle.chat().generate(request)?;
    let (mut text, mut prompt, mut first_ms) = (String::new(), (0, 0), None);
    while let Some(event) = events.recv().await {
        match event {
            ChatEvent::Started {
                prompt_tokens,
                reused_tokens,
                ..
            } => prompt = (prompt_tokens, reused_tokens),
            ChatEvent::Delta(piece) => {
                first_ms = first_ms.or_else(|| Some(ms(begun.elapsed())));
                text.push_str(&piece);
            }
            ChatEvent::Done { tokens, .. } => {
                return Ok(Answer {
                    text,
                    prompt_tokens: prompt.0,
                    reused_tokens: prompt.1,
                    tokens,
                    first_ms: first_ms.context("no text")?,
                    all_ms: ms(begun.elapsed()),
                });
            }
            ChatEvent::Failed(error) => return Err(error.into()),
            _ => {}
        }
    }
    bail!("the stream ended without Done")
}

fn say(role: Role, content: String) -> ChatMessage {
    ChatMessage { role, content }
}

/// What a peer answers, where there is one.
fn of<T>(
    peer: &mut Option<Peer>,
    question: impl FnOnce(&mut Peer) -> Result<T>,
) -> Result<Option<T>> {
    peer.as_mut().map(question).transpose()
}

/// The middle of a peer's measurements and our ratio to it; empty where it was not measured.
fn beside(ours: &Sample, theirs: &Sample) -> [String; 2] {
    match theirs.is_empty() {
        true => [String::new(), String::new()],
        false => [number(theirs.p50()), number(ours.over(theirs).p50())],
    }
}
