//! What the inference engine costs above the bare graphs: every row is the engine and the [`floor`] on the same input in the same
//! process, round by round in turn, and their ratio.
//!
//! Needs the default bundles (`make models`). Read the ratios: on a machine with other work the milliseconds of two runs differ
//! more than the engine and the floor within one.

use std::{
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use autoglm_edge::inference::{
    Inference, InferenceConfig, InferenceHandle,
    chat::{ChatEvent, ChatMessage, ChatRequest, ChatTimings, Role},
    manifest::Task,
    runtime::Runtime,
};
use autoglm_tests::bench::{
    bundles::{Bundles, CHAT, EMBEDDING, rendered},
    floor,
    statistics::{Sample, ms},
    table::{Table, number, spread},
};
use clap::Parser;

const CONTEXT_TOKENS: usize = 1024;
const DECODED: usize = 65;

#[derive(Parser)]
struct Options {
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
    let bundles = Bundles::find()?;
    let inference = Inference::start(InferenceConfig {
        chat: CHAT.into(),
        vad: "silero-vad".into(),
        stt: None,
        context_tokens: CONTEXT_TOKENS,
        threads: options.threads.into(),
        ..bundles.embedding_only()
    });
    let handle = inference.handle();
    for task in [Task::Embedding, Task::Chat, Task::Vad] {
        handle.wait_ready(task, Duration::from_secs(120)).await?;
        let status = handle.status();
        let status = status.borrow();
        let state = &status.model(task).context("it is configured")?.state;
        println!("- {task}: {state}");
    }
    println!(
        "- {} thread(s), {} rounds, engine and floor in turn\n",
        options.threads, options.rounds
    );
    let mut table = Table::new(&[
        "ms",
        "engine p50",
        "p95",
        "floor p50",
        "p95",
        "ratio",
        "remark",
    ]);
    let (threads, rounds) = (options.threads, options.rounds);
    bench_embedding(&mut table, &handle, &bundles, threads, rounds).await?;
    bench_chat(&mut table, &handle, &bundles, threads, rounds).await?;
    println!("{table}");
    if let Err(stragglers) = inference.stop(Duration::from_secs(10)).await {
        bail!("still running: {stragglers:?}");
    }
    Ok(())
}

/// Measurements of one row, in milliseconds, in turn.
#[derive(Default)]
struct Row {
    engine: Sample,
    floor: Sample,
}

impl Row {
    fn add_to(&self, table: &mut Table, name: &str, note: &str) {
        let [engine, engine_p95, _] = spread(&self.engine);
        let [floor, floor_p95, _] = spread(&self.floor);
        let ratio = number(self.engine.over(&self.floor).p50());
        table.row(
            name,
            [engine, engine_p95, floor, floor_p95, ratio, note.to_owned()],
        );
    }
}

async fn bench_embedding(
    table: &mut Table,
    handle: &InferenceHandle,
    bundles: &Bundles,
    threads: NonZeroUsize,
    rounds: usize,
) -> Result<()> {
    let runtime = Runtime::load(None)?;
    let mut floor = floor::Embedder::new(
        runtime.environment(),
        &bundles.bundle(EMBEDDING).join("model.onnx"),
        threads.get(),
    )?;
    let tokens = bundles.tokens(EMBEDDING)?;
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
    let (mut single, mut many, mut together) = (Row::default(), Row::default(), Row::default());
    let (mut tokenize, mut infer) = (Sample::default(), Sample::default());
    for round in 0..=rounds {
        let warm = round > 0;
        for sentence in sentences {
            let begun = Instant::now();
            let embedded = handle
                .embedder()
                .embed_timed(vec![sentence.to_owned()])
                .await?;
            let engine = ms(begun.elapsed());
            let input = tokens.of_sentence(sentence)?;
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
        let callers = sentences.map(|sentence| handle.embedder().embed(vec![sentence.to_owned()]));
        futures_util::future::try_join_all(callers).await?;
        let engine = ms(begun.elapsed()) / sentences.len() as f64;
        let inputs = sentences.map(|sentence| tokens.of_sentence(sentence));
        let begun = Instant::now();
        for input in inputs {
            floor.embed(&input?)?;
        }
        let bare = ms(begun.elapsed()) / sentences.len() as f64;
        if warm {
            together.engine.push(engine);
            together.floor.push(bare);
        }
        let begun = Instant::now();
        handle.embedder().embed(bulk.clone()).await?;
        let engine = ms(begun.elapsed()) / bulk.len() as f64;
        let inputs = bulk
            .iter()
            .map(|text| tokens.of_sentence(text))
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
    let split = format!(
        "tokenize {}, infer {} (p50)",
        number(tokenize.p50()),
        number(infer.p50())
    );
    single.add_to(table, "embed one sentence", &split);
    together.add_to(
        table,
        "five callers at once, per sentence",
        "floor: one by one",
    );
    many.add_to(table, "embed 200 phrases, per phrase", "floor: one by one");
    Ok(())
}

async fn bench_chat(
    table: &mut Table,
    handle: &InferenceHandle,
    bundles: &Bundles,
    threads: NonZeroUsize,
    rounds: usize,
) -> Result<()> {
    let runtime = Runtime::load(None)?;
    let graph = bundles.bundle(CHAT).join("model.onnx");
    let mut floor =
        floor::Decoder::new(runtime.environment(), &graph, threads.get(), CONTEXT_TOKENS)?;
    let tokens = bundles.tokens(CHAT)?;
    let (mut cold, mut reuse, mut decode) = (Row::default(), Row::default(), Row::default());
    let (mut encode_ms, mut reused) = (Sample::default(), 0);
    let mut prompt_tokens = 0;
    for round in 0..=rounds {
        // The round's number comes first, so that nothing of another round's prompt can be reused.
        let system = format!(
            "{round} is the number of this house. {}",
            "The lamp in the hall is on. ".repeat(22)
        );
        let first = prompt(&system, "Tell me a long story about a lighthouse.");
        let engine_cold = generate(handle, &first, DECODED).await?;
        let ids = tokens.of_text(&rendered(&first))?;
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
        let ids = tokens.of_text(&rendered(&second))?;
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
    let note = format!(
        "{prompt_tokens} tokens, template and tokenizer {}",
        number(encode_ms.p50())
    );
    cold.add_to(table, "first token, cold", &note);
    reuse.add_to(
        table,
        "first token, beginning reused",
        &format!("{reused} tokens reused"),
    );
    decode.add_to(
        table,
        "each further token",
        &format!("{:.1} tokens/s", 1e3 / decode.engine.p50()),
    );
    Ok(())
}

fn prompt(system: &str, user: &str) -> Vec<ChatMessage> {
    let message = |role, content: &str| ChatMessage {
        role,
        content: content.to_owned(),
    };
    vec![message(Role::System, system), message(Role::User, user)]
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
    let request = ChatRequest::new(messages.to_vec(), max_tokens);
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
            ChatEvent::Choices(_) => {}
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
