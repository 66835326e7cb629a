//! What the inference engine costs above the bare graphs: every row is the engine and the [`floor`] on the same input in the same
//! process, round by round in turn, and their ratio.
//!
//! Needs the default bundles (`make models`). Read the ratios: on a machine with other work the milliseconds of two runs differ
//! more than the engine and the floor within one.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use autoglm_edge::inference::{
    Inference, InferenceConfig, InferenceHandle,
    chat::{ChatEvent, ChatMessage, ChatRequest, ChatTimings, Role, Sampling},
    manifest::Task,
    runtime::{self, Runtime},
};
use clap::Parser;
use tokenizers::Tokenizer;

mod floor;

const EMBEDDING: &str = "all-minilm-l6-v2-int8";
const CHAT: &str = "smollm2-135m-instruct-int4";
const CONTEXT_TOKENS: usize = 1024;
const DECODED: usize = 65;

#[derive(Parser)]
struct Options {
    /// Directory with `runtime/` and `models/` [default: the user's cache]
    #[arg(long, env = "AUTOGLM_EDGE_CACHE")]
    cache: Option<PathBuf>,
    /// Rounds; each measures everything once
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Threads inside an operator
    #[arg(long, default_value_t = NonZeroUsize::MIN)]
    threads: NonZeroUsize,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let cache = options
        .cache
        .or_else(|| runtime::cache_dir().map(|cache| cache.join("autoglm-edge")))
        .context("no cache directory: give --cache")?;
    let models = cache.join("models");
    ensure!(
        models.join(CHAT).is_dir(),
        "no bundles in {}: run `make models`",
        models.display()
    );
    let inference = Inference::start(InferenceConfig {
        runtime_path: Some(library(&cache)?),
        model_dirs: vec![models.clone()],
        embedding: EMBEDDING.into(),
        chat: CHAT.into(),
        vad: "silero-vad".into(),
        context_tokens: CONTEXT_TOKENS,
        threads: options.threads,
    });
    let handle = inference.handle();
    for task in [Task::Embedding, Task::Chat, Task::Vad] {
        handle.wait_ready(task, Duration::from_secs(120)).await?;
        println!(
            "{task}: {}",
            handle
                .status()
                .borrow()
                .model(task)
                .context("it is configured")?
                .state
        );
    }
    println!(
        "{} thread(s), {} rounds; engine and floor in turn\n",
        options.threads, options.rounds
    );
    bench_embedding(
        &handle,
        &models.join(EMBEDDING),
        options.threads,
        options.rounds,
    )
    .await?;
    bench_chat(&handle, &models.join(CHAT), options.threads, options.rounds).await?;
    if let Err(stragglers) = inference.stop(Duration::from_secs(10)).await {
        bail!("still running: {stragglers:?}");
    }
    Ok(())
}

fn library(cache: &Path) -> Result<PathBuf> {
    let parent = cache.join("runtime");
    let entries = std::fs::read_dir(&parent)
        .with_context(|| format!("no {}: run `make models`", parent.display()))?;
    entries
        .flatten()
        .map(|entry| entry.path().join("libonnxruntime.so"))
        .find(|path| path.is_file())
        .with_context(|| format!("no ONNX Runtime in {}: run `make models`", parent.display()))
}

/// Measurements of one row: the engine's and the floor's, in milliseconds.
#[derive(Default)]
struct Row {
    engine: Vec<f64>,
    floor: Vec<f64>,
}

impl Row {
    fn print(mut self, name: &str, note: &str) {
        // Of the pairs, not of the medians: the two of a pair ran one after the other, under the same load.
        let mut ratios: Vec<f64> = self
            .engine
            .iter()
            .zip(&self.floor)
            .map(|(engine, floor)| engine / floor)
            .collect();
        for values in [&mut self.engine, &mut self.floor, &mut ratios] {
            values.sort_by(f64::total_cmp);
        }
        println!(
            "{name:<34} {:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>7.3}  {note}",
            at(&self.engine, 0.5),
            at(&self.engine, 0.95),
            at(&self.floor, 0.5),
            at(&self.floor, 0.95),
            at(&ratios, 0.5),
        );
    }
}

fn at(sorted: &[f64], quantile: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * quantile).round() as usize]
}

fn head() {
    println!(
        "{:<34} {:>9} {:>9} {:>9} {:>9} {:>7}",
        "medians, ms", "engine", "p95", "floor", "p95", "ratio"
    );
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

async fn bench_embedding(
    handle: &InferenceHandle,
    bundle: &Path,
    threads: NonZeroUsize,
    rounds: usize,
) -> Result<()> {
    let runtime = Runtime::load(None)?;
    let mut floor = floor::Embedder::new(
        runtime.environment(),
        &bundle.join("model.onnx"),
        threads.get(),
    )?;
    let tokenizer = tokenizer(bundle)?;
    let sentences = [
        "turn on the desk lamp",
        "set the desk lamp to 40 percent",
        "what is the temperature in the greenhouse right now",
        "please close the blinds in the living room and tell me when that is done",
        "stop the pump",
    ];
    let bulk: Vec<String> = (0..40)
        .flat_map(|index| sentences.map(|sentence| format!("{sentence} number {index}")))
        .collect();
    let ids = |text: &str| -> Result<Vec<i64>> { encode(&tokenizer, text, true) };
    let (mut single, mut many) = (Row::default(), Row::default());
    let (mut tokenize, mut infer) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let warm = round > 0;
        for sentence in sentences {
            let begun = Instant::now();
            let embedded = handle
                .embedder()
                .embed_timed(vec![sentence.to_owned()])
                .await?;
            let engine = ms(begun.elapsed());
            let input = ids(sentence)?;
            let begun = Instant::now();
            floor.embed(&input)?;
            let bare = ms(begun.elapsed());
            if warm {
                single.engine.push(engine);
                single.floor.push(bare);
                tokenize.push(ms(embedded.timings.tokenize));
                infer.push(ms(embedded.timings.infer));
            }
        }
        let begun = Instant::now();
        handle.embedder().embed(bulk.clone()).await?;
        let engine = ms(begun.elapsed()) / bulk.len() as f64;
        let inputs = bulk
            .iter()
            .map(|text| ids(text))
            .collect::<Result<Vec<_>>>()?;
        let begun = Instant::now();
        for input in &inputs {
            floor.embed(input)?;
        }
        let bare = ms(begun.elapsed()) / bulk.len() as f64;
        if warm {
            many.engine.push(engine);
            many.floor.push(bare);
        }
    }
    tokenize.sort_by(f64::total_cmp);
    infer.sort_by(f64::total_cmp);
    head();
    let split = format!(
        "tokenize {:.2}, infer {:.2} (medians)",
        at(&tokenize, 0.5),
        at(&infer, 0.5)
    );
    single.print("embed one sentence", &split);
    many.print("embed 200 phrases, per phrase", "floor: one by one");
    Ok(())
}

async fn bench_chat(
    handle: &InferenceHandle,
    bundle: &Path,
    threads: NonZeroUsize,
    rounds: usize,
) -> Result<()> {
    let runtime = Runtime::load(None)?;
    let graph = bundle.join("model.onnx");
    let mut floor =
        floor::Decoder::new(runtime.environment(), &graph, threads.get(), CONTEXT_TOKENS)?;
    let tokenizer = tokenizer(bundle)?;
    let (mut cold, mut reuse, mut decode) = (Row::default(), Row::default(), Row::default());
    let (mut encode_ms, mut reused) = (Vec::new(), 0);
    let mut prompt_tokens = 0;
    for round in 0..=rounds {
        // The round's number comes first, so that nothing of another round's prompt can be reused.
        let system = format!(
            "{round} is the number of this house. {}",
            "The lamp in the hall is on. ".repeat(22)
        );
        let first = prompt(&system, "Tell me a long story about a lighthouse.");
        let engine_cold = generate(handle, &first, DECODED).await?;
        let ids = encode(&tokenizer, &rendered(&first), false)?;
        ensure!(
            ids.len() == engine_cold.prompt_tokens,
            "engine and floor read the same prompt"
        );
        ensure!(
            engine_cold.reused_tokens < 8,
            "the prompt is cold: {} tokens reused",
            engine_cold.reused_tokens
        );
        let begun = Instant::now();
        let token = floor.feed(&ids, 0)?;
        let floor_cold = ms(begun.elapsed());
        let begun = Instant::now();
        floor.decode(token, ids.len(), engine_cold.tokens - 1)?;
        let floor_decode = ms(begun.elapsed()) / (engine_cold.tokens - 1) as f64;

        let second = prompt(&system, "What is the capital of Japan?");
        let engine_reuse = generate(handle, &second, 1).await?;
        let ids = encode(&tokenizer, &rendered(&second), false)?;
        let begun = Instant::now();
        floor.feed(
            &ids[engine_reuse.reused_tokens..],
            engine_reuse.reused_tokens,
        )?;
        let floor_reuse = ms(begun.elapsed());
        if round > 0 {
            prompt_tokens = engine_cold.prompt_tokens;
            reused = engine_reuse.reused_tokens;
            cold.engine.push(engine_cold.first_token_ms);
            cold.floor.push(floor_cold);
            decode
                .engine
                .push(ms(engine_cold.timings.decode) / (engine_cold.tokens - 1) as f64);
            decode.floor.push(floor_decode);
            reuse.engine.push(engine_reuse.first_token_ms);
            reuse.floor.push(floor_reuse);
            encode_ms.push(ms(engine_cold.timings.encode));
        }
    }
    encode_ms.sort_by(f64::total_cmp);
    let mut rates: Vec<f64> = decode
        .engine
        .iter()
        .map(|token_ms| 1e3 / token_ms)
        .collect();
    rates.sort_by(f64::total_cmp);
    let note = format!(
        "{prompt_tokens} tokens, template and tokenizer {:.2}",
        at(&encode_ms, 0.5)
    );
    cold.print("first token, cold", &note);
    reuse.print(
        "first token, beginning reused",
        &format!("{reused} tokens reused"),
    );
    decode.print(
        "each further token",
        &format!("{:.1} tokens/s", at(&rates, 0.5)),
    );
    Ok(())
}

fn tokenizer(bundle: &Path) -> Result<Tokenizer> {
    let path = bundle.join("tokenizer.json");
    let mut tokenizer = Tokenizer::from_file(&path).map_err(anyhow::Error::from_boxed)?;
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

fn encode(tokenizer: &Tokenizer, text: &str, special: bool) -> Result<Vec<i64>> {
    let encoding = tokenizer
        .encode_fast(text, special)
        .map_err(anyhow::Error::from_boxed)?;
    Ok(encoding.get_ids().iter().map(|&id| i64::from(id)).collect())
}

fn prompt(system: &str, user: &str) -> Vec<ChatMessage> {
    let message = |role, content: &str| ChatMessage {
        role,
        content: content.to_owned(),
    };
    vec![message(Role::System, system), message(Role::User, user)]
}

/// The default chat model's template, written out; that the engine counts as many tokens is checked.
fn rendered(messages: &[ChatMessage]) -> String {
    let mut text = String::new();
    for message in messages {
        text += &format!(
            "<|im_start|>{}\n{}<|im_end|>\n",
            message.role.as_str(),
            message.content
        );
    }
    text + "<|im_start|>assistant\n"
}

struct Generated {
    prompt_tokens: usize,
    reused_tokens: usize,
    tokens: usize,
    first_token_ms: f64,
    timings: ChatTimings,
}

/// Runs one request; the time to the first token is what a caller sees, from asking to the first text in hand.
async fn generate(
    handle: &InferenceHandle,
    messages: &[ChatMessage],
    max_tokens: usize,
) -> Result<Generated> {
    let request = ChatRequest {
        messages: messages.to_vec(),
        max_tokens,
        sampling: Sampling::default(),
        begin_within: None,
    };
    let begun = Instant::now();
    let mut events = handle.chat().generate(request)?;
    let (mut prompt, mut first_token_ms) = (None, None);
    while let Some(event) = events.recv().await {
        match event {
            ChatEvent::Started {
                prompt_tokens,
                reused_tokens,
                ..
            } => prompt = Some((prompt_tokens, reused_tokens)),
            ChatEvent::Delta(_) => {
                first_token_ms = first_token_ms.or_else(|| Some(ms(begun.elapsed())))
            }
            ChatEvent::Done {
                tokens, timings, ..
            } => {
                let (prompt_tokens, reused_tokens) = prompt.context("Done without Started")?;
                let first_token_ms = first_token_ms.context("no text")?;
                return Ok(Generated {
                    prompt_tokens,
                    reused_tokens,
                    tokens,
                    first_token_ms,
                    timings,
                });
            }
            ChatEvent::Failed(error) => return Err(error.into()),
        }
    }
    bail!("the stream ended without Done")
}
