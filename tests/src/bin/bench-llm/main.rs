//! The language model: tokens per second by length of the context, alone and side by side, the engine against a bare loop over the
//! same graph in the same process, in turn.
//!
//! Needs the default bundles (`make models`); with `models/setup.py peers` (`make bench-llm` runs it) onnxruntime-genai takes its turns,
//! with the same weights in its own layout. Read the ratios: they compare runs that were made next to one another.

use std::{
    num::NonZeroUsize,
    path::PathBuf,
    time::{Duration, Instant},
};

mod apart;
mod forms;
mod turns;

use anyhow::{Context, Result, bail, ensure};
use autoglm_edge::inference::{
    Inference, InferenceConfig, InferenceHandle,
    chat::{ChatEvent, ChatMessage, ChatRequest, Role, Speculation},
    manifest::Task,
    runtime::Runtime,
};
use autoglm_tests::bench::{
    bundles::{Bundles, CHAT, Tokens, rendered},
    floor,
    peer::Peer,
    statistics::{Sample, ms},
    table::{Table, number},
};
use clap::Parser;

const CONTEXT_TOKENS: usize = 2048;
const CONTEXTS: [usize; 3] = [64, 512, 1500];
const PREFILLS: [usize; 2] = [128, 512];

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
    /// Be the engine that is killed, with its state in this directory
    #[arg(long, hide = true)]
    apart: Option<PathBuf>,
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
    let genai = Peer::genai(options.threads.get(), CONTEXT_TOKENS)?;
    match &genai {
        Some(peer) => println!("- {}, loaded in {:.0} ms\n", peer.name, peer.load_ms),
        None => println!("- no peer: `python3 models/setup.py peers` installs it\n"),
    }
    let mut bench = Bench {
        genai,
        floor: floor::Decoder::new(
            Runtime::load(None)?.environment(),
            &bundles.bundle(CHAT).join("model.onnx"),
            options.threads.get(),
            CONTEXT_TOKENS,
        )?,
        tokens: bundles.tokens(CHAT)?,
        handle,
        options,
        prompts: 0,
    };
    let mut table = Table::new(&["tokens/s", "engine", "bare loop", "ratio", "genai", "ratio"]);
    for length in PREFILLS {
        bench.prefill(&mut table, length).await?;
    }
    for context in CONTEXTS {
        bench.decode(&mut table, context).await?;
    }
    bench.side_by_side(&mut table).await?;
    println!("{table}");
    let mut table = Table::new(&["tokens/s", "with guesses", "without", "ratio", "remark"]);
    bench.speculation(&mut table).await?;
    println!("{table}");
    let mut table = Table::new(&["tokens/s", "engine", "genai", "ratio", "remark"]);
    bench.form(&mut table).await?;
    println!("{table}");
    println!("{}", bench.turns().await?);
    println!("{}", bench.alone()?);
    if let Err(stragglers) = inference.stop(Duration::from_secs(10)).await {
        bail!("still running: {stragglers:?}");
    }
    Ok(())
}

struct Bench {
    genai: Option<Peer>,
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

    async fn prefill(&mut self, table: &mut Table, length: usize) -> Result<()> {
        let (mut engine, mut bare, mut genai) =
            (Sample::default(), Sample::default(), Sample::default());
        let mut counted = 0;
        for round in 0..=self.options.rounds {
            let (messages, ids) = self.prompt(length)?;
            let answer = self.ask(messages, 1, Speculation::Off).await?;
            ensure!(answer.prompt_tokens == ids.len(), "both read the same");
            let begun = Instant::now();
            self.floor.feed(&ids, 0)?;
            let bare_ms = ms(begun.elapsed());
            let peer = self.genai.as_mut().map(|peer| peer.prefill(&ids));
            let peer = peer.transpose()?;
            if round > 0 {
                counted = ids.len();
                let computed = (answer.prompt_tokens - answer.reused_tokens) as f64;
                engine.push(computed / answer.first_ms * 1e3);
                bare.push(ids.len() as f64 / bare_ms * 1e3);
                if let Some(timed) = peer {
                    genai.push(ids.len() as f64 / timed.ms * 1e3);
                }
            }
        }
        row(
            table,
            &format!("prompt of {counted}"),
            &engine,
            &[&bare, &genai],
        );
        Ok(())
    }

    async fn decode(&mut self, table: &mut Table, context: usize) -> Result<()> {
        let (mut engine, mut bare, mut genai) =
            (Sample::default(), Sample::default(), Sample::default());
        let tokens = self.options.tokens;
        for round in 0..=self.options.rounds {
            let (messages, ids) = self.prompt(context)?;
            let answer = self.ask(messages, tokens, Speculation::Off).await?;
            let token = self.floor.feed(&ids, 0)?;
            let begun = Instant::now();
            self.floor.decode(token, ids.len(), tokens - 1)?;
            let bare_ms = ms(begun.elapsed());
            let peer = self
                .genai
                .as_mut()
                .map(|peer| peer.decode(&ids, tokens - 1));
            let peer = peer.transpose()?;
            if round > 0 && answer.tokens > tokens / 2 {
                engine.push(answer.rate());
                bare.push((tokens - 1) as f64 / bare_ms * 1e3);
                if let Some(timed) = peer {
                    genai.push((tokens - 1) as f64 / timed.ms * 1e3);
                }
            }
        }
        row(
            table,
            &format!("answer at {context}"),
            &engine,
            &[&bare, &genai],
        );
        Ok(())
    }

    async fn side_by_side(&mut self, table: &mut Table) -> Result<()> {
        let (mut engine, mut alone) = (Sample::default(), Sample::default());
        let (tokens, sessions) = (self.options.tokens, self.options.sessions.get());
        for _ in 0..self.options.rounds {
            let (messages, _) = self.prompt(64)?;
            alone.push(
                self.ask(messages.clone(), tokens, Speculation::Off)
                    .await?
                    .rate(),
            );
            // Once to have the prompts in the caches: this is about answers.
            let prompts: Vec<_> = (0..sessions)
                .map(|_| Ok(self.prompt(64)?.0))
                .collect::<Result<_>>()?;
            for prompt in &prompts {
                self.ask(prompt.clone(), 1, Speculation::Off).await?;
            }
            let begun = Instant::now();
            let answers = prompts
                .into_iter()
                .map(|prompt| self.ask(prompt, tokens, Speculation::Off));
            let answers = futures_util::future::try_join_all(answers).await?;
            let drawn: usize = answers.iter().map(|answer| answer.tokens).sum();
            engine.push(drawn as f64 / ms(begun.elapsed()) * 1e3);
        }
        let name = format!("{sessions} answers together, against one");
        row(table, &name, &engine, &[&alone]);
        Ok(())
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

/// Ours, then each of the others with our ratio to it. What was not measured is left empty.
fn row(table: &mut Table, name: &str, engine: &Sample, others: &[&Sample]) {
    let mut cells = vec![number(engine.p50())];
    for other in others.iter().filter(|other| !other.is_empty()) {
        cells.extend([number(other.p50()), number(engine.over(other).p50())]);
    }
    table.row(name, cells);
}
