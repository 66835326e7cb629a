//! How well and how fast sentences become calls, with the real embedding model, beside the
//! peer (nearest phrase over 0.45) on the same sentences and phrases in the same run.
//!
//! Run: `cargo run --release -p autoglm-tests --bin bench-understanding`. Failures of the
//! report part are shown only when asked for by its own flag, so that nobody tunes on it by accident.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use autoglm_edge::inference::manifest::Task;
use autoglm_edge::inference::{Inference, InferenceConfig, runtime};
use autoglm_edge::understanding::Understanding;
use autoglm_edge::understanding::wording::{Thresholds, Wording};
use autoglm_tests::sentences::{
    Embeddings, Part, Scene, Verdict, judge, nearest_phrase, sentences,
};
use clap::Parser;

/// Long enough to load the model on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Parser)]
struct Arguments {
    /// Where the model bundles are [default: the user's cache]
    #[arg(long)]
    models: Option<PathBuf>,
    /// ONNX Runtime's library [default: the standard places, then the user's cache]
    #[arg(long)]
    runtime: Option<PathBuf>,
    /// Name of the embedding bundle
    #[arg(long, default_value = "all-minilm-l6-v2-int8")]
    embedding: String,
    /// Show the failures of the tuning part
    #[arg(long)]
    failures: bool,
    /// Instead, try each threshold over a range with the others as they are, on the tuning part
    #[arg(long)]
    calibrate: bool,
    /// Show the failures of the report part; whoever tunes must not
    #[arg(long)]
    report_failures: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let cache = runtime::cache_dir().map(|cache| cache.join("autoglm-edge"));
    let models = match (&arguments.models, &cache) {
        (Some(models), _) => models.clone(),
        (None, Some(cache)) => cache.join("models"),
        (None, None) => anyhow::bail!("--models is needed: there is no cache directory"),
    };
    let runtime_path = arguments.runtime.clone().or_else(|| {
        let found = std::fs::read_dir(cache?.join("runtime")).ok()?;
        let mut libraries = found
            .flatten()
            .map(|entry| entry.path().join("libonnxruntime.so"));
        libraries.find(|path| path.is_file())
    });
    let inference = Inference::start(InferenceConfig {
        runtime_path,
        model_dirs: vec![models],
        embedding: arguments.embedding.clone(),
        chat: "none".into(),
        vad: "none".into(),
        context_tokens: 128,
        threads: NonZeroUsize::MIN,
    });
    let handle = inference.handle();
    handle
        .wait_ready(Task::Embedding, PATIENCE)
        .await
        .context("the embedding model")?;
    let embeddings = Embeddings::new(handle.embedder().clone());
    let begun = Instant::now();
    let scenes = Scene::all(&embeddings, &Wording::english()).await?;
    let mut counts: Vec<usize> = Vec::new();
    for scene in scenes.values() {
        let count = |thing| scene.catalogue.phrases_for(thing).len();
        counts.extend(scene.catalogue.descriptions().map(count));
    }
    println!(
        "phrases embedded in {:.1} s, {} to {} for a thing",
        begun.elapsed().as_secs_f64(),
        counts.iter().min().unwrap_or(&0),
        counts.iter().max().unwrap_or(&0)
    );

    if arguments.calibrate {
        calibrate(&embeddings).await?;
        drop(inference);
        return Ok(());
    }
    for part in [Part::Tuning, Part::Report] {
        let show = match part {
            Part::Tuning => arguments.failures,
            Part::Report => arguments.report_failures,
        };
        let mut ours = Tally::default();
        let mut peer = Tally::default();
        let mut embed = Vec::new();
        let mut rest = Vec::new();
        for sentence in sentences(part)? {
            let scene = scenes.get(&sentence.scene).context("a sentence's scene")?;
            let said = scene.say(&sentence, &embeddings).await?;
            let begun = Instant::now();
            embeddings.embed_anew(&said.texts).await?;
            embed.push(begun.elapsed());
            rest.push(said.rest);
            let verdict = judge(&sentence, &said.resolution.understanding);
            ours.count(verdict);
            if show && verdict != Verdict::Right {
                println!("{verdict:?} {:?} after {:?}", sentence.say, sentence.before);
                println!("    {}", short(&said.resolution.understanding));
                for why in &said.resolution.explanations {
                    println!(
                        "    {:?} {:.2} ahead {:.2} {:?}: {}",
                        why.clause, why.similarity, why.margin, why.phrase, why.reason
                    );
                }
            }
            let nearest = nearest_phrase(scene, &sentence, &embeddings).await?;
            peer.count(judge(&sentence, &nearest));
        }
        println!("{}", part.name());
        println!("  ours           {ours}");
        println!("  nearest phrase {peer}");
        println!(
            "  ms per sentence: embed {}, the rest {}",
            quantiles(&mut embed),
            quantiles(&mut rest)
        );
    }
    drop(inference);
    Ok(())
}

type Threshold = fn(&mut Thresholds) -> &mut f32;

/// Prints what each value of each threshold does to the tuning part. The report part is not read.
async fn calibrate(embeddings: &Embeddings) -> Result<()> {
    let thresholds: [(&str, Threshold); 6] = [
        ("named", |all| &mut all.named),
        ("verb_unknown", |all| &mut all.verb_unknown),
        ("nothing_named", |all| &mut all.nothing_named),
        ("question", |all| &mut all.question),
        ("margin", |all| &mut all.margin),
        ("lead", |all| &mut all.lead),
    ];
    let tuning = sentences(Part::Tuning)?;
    for (name, threshold) in thresholds {
        for step in 0..20 {
            let mut wording = Wording::english();
            let scale = if ["margin", "lead"].contains(&name) {
                0.01
            } else {
                0.05
            };
            *threshold(&mut wording.thresholds) = step as f32 * scale;
            let scenes = Scene::all(embeddings, &wording).await?;
            let mut tally = Tally::default();
            for sentence in &tuning {
                let scene = scenes.get(&sentence.scene).context("a sentence's scene")?;
                let said = scene.say(sentence, embeddings).await?;
                tally.count(judge(sentence, &said.resolution.understanding));
            }
            println!("{name:14} {:.2} {tally}", step as f32 * scale);
        }
    }
    Ok(())
}

fn short(understanding: &Understanding) -> String {
    match understanding {
        Understanding::Calls(calls) => {
            let calls: Vec<String> = calls
                .iter()
                .map(|call| format!("{} {:?}", call.thing, call.operation))
                .collect();
            calls.join("; ")
        }
        Understanding::Ask { question, .. } => format!("ask: {question}"),
        Understanding::Refuse { message, .. } => format!("refuse: {message}"),
        other => format!("{other:?}"),
    }
}

#[derive(Default)]
struct Tally {
    right: usize,
    asked: usize,
    missed: usize,
    wrong: usize,
}

impl Tally {
    fn count(&mut self, verdict: Verdict) {
        *match verdict {
            Verdict::Right => &mut self.right,
            Verdict::AskedBack => &mut self.asked,
            Verdict::Missed => &mut self.missed,
            Verdict::WrongCall => &mut self.wrong,
        } += 1;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = self.right + self.asked + self.missed + self.wrong;
        let percent = |count: usize| 100.0 * count as f64 / all.max(1) as f64;
        write!(
            f,
            "right {} of {all} ({:.1} %), asked back {} ({:.1} %), missed {} ({:.1} %), dangerous wrong {} ({:.1} %)",
            self.right,
            percent(self.right),
            self.asked,
            percent(self.asked),
            self.missed,
            percent(self.missed),
            self.wrong,
            percent(self.wrong),
        )
    }
}

fn quantiles(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |part: f64| {
        let index = ((times.len() as f64 - 1.0) * part).round() as usize;
        times
            .get(index)
            .map_or(0.0, |time| time.as_secs_f64() * 1e3)
    };
    format!("p50 {:.2} p95 {:.2}", at(0.5), at(0.95))
}
