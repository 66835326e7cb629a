//! How well and how fast sentences become calls, with the real embedding model, beside the
//! peer (nearest phrase over 0.45) on the same sentences and phrases in the same run.
//!
//! Run: `cargo run --release -p autoglm-tests --bin bench-understanding`. Failures of the
//! report part are shown only when asked for by its own flag, so that nobody tunes on it by accident.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use autoglm_edge::inference::manifest::Task;
use autoglm_edge::inference::{Inference, InferenceConfig};
use autoglm_edge::understanding::Understanding;
use autoglm_edge::understanding::wording::{Thresholds, Wording};
use autoglm_tests::bench::bundles::{Bundles, EMBEDDING};
use autoglm_tests::bench::statistics::{Sample, ms};
use autoglm_tests::bench::table::{Table, spread};
use autoglm_tests::sentences::{
    Embeddings, Part, Scene, Verdict, judge, nearest_phrase, sentences,
};
use clap::Parser;

/// Long enough to load the model on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Parser)]
struct Arguments {
    /// Name of the embedding bundle
    #[arg(long, default_value = EMBEDDING)]
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
    let bundles = Bundles::find()?;
    let inference = Inference::start(InferenceConfig {
        embedding: arguments.embedding.clone(),
        ..bundles.embedding_only()
    });
    let handle = inference.handle();
    handle
        .wait_ready(Task::Embedding, PATIENCE)
        .await
        .context("the embedding model")?;
    let embeddings = Embeddings::new(handle.embedder().clone());
    let begun = Instant::now();
    let scenes = Scene::all(&embeddings, &Wording::english()).await?;
    let mut counts = Sample::default();
    for scene in scenes.values() {
        for thing in scene.catalogue.descriptions() {
            counts.push(scene.catalogue.phrases_for(thing).len() as f64);
        }
    }
    println!(
        "- phrases embedded in {:.1} s, {} to {} for a thing\n",
        begun.elapsed().as_secs_f64(),
        counts.quantile(0.0),
        counts.max()
    );

    if arguments.calibrate {
        calibrate(&embeddings).await?;
        drop(inference);
        return Ok(());
    }
    let mut verdicts = Table::new(&[
        "sentences",
        "all",
        "right",
        "asked back",
        "missed",
        "dangerous wrong",
    ]);
    let mut times = Table::new(&["ms per sentence", "p50", "p95", "max"]);
    for part in [Part::Tuning, Part::Report] {
        let show = match part {
            Part::Tuning => arguments.failures,
            Part::Report => arguments.report_failures,
        };
        let mut ours = Tally::default();
        let mut peer = Tally::default();
        let mut embed = Sample::default();
        let mut rest = Sample::default();
        for sentence in sentences(part)? {
            let scene = scenes.get(&sentence.scene).context("a sentence's scene")?;
            let said = scene.say(&sentence, &embeddings).await?;
            let begun = Instant::now();
            embeddings.embed_anew(&said.texts).await?;
            embed.push(ms(begun.elapsed()));
            rest.push(ms(said.rest));
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
        let name = part.name();
        verdicts.row(&format!("{name}, ours"), ours.cells());
        verdicts.row(&format!("{name}, nearest phrase"), peer.cells());
        times.row(&format!("{name}, embedding"), spread(&embed));
        times.row(&format!("{name}, the rest"), spread(&rest));
    }
    println!("{verdicts}\n{times}");
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
        let mut table = Table::new(&[
            "threshold",
            "all",
            "right",
            "asked back",
            "missed",
            "dangerous wrong",
        ]);
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
            let cells = tally.cells();
            table.row(&format!("{name} {:.2}", step as f32 * scale), cells);
        }
        println!("{table}");
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

impl Tally {
    /// How many, and how many of each kind.
    fn cells(&self) -> [String; 5] {
        let all = self.right + self.asked + self.missed + self.wrong;
        let share = |count: usize| {
            let percent = 100.0 * count as f64 / all.max(1) as f64;
            format!("{count} ({percent:.1} %)")
        };
        [
            all.to_string(),
            share(self.right),
            share(self.asked),
            share(self.missed),
            share(self.wrong),
        ]
    }
}
