//! The voice: how much faster than it is spoken, how soon the first sentence is there, and what it takes; beside piper-tts with the same voice in 32 bits, in turn.
//!
//! Each in a process of its own (this one is ours), so the memory is that of the voice alone; both with the variation that they have by default, and one thread unless
//! told otherwise. Needs the default bundles and espeak-ng (`make bench`), and for the peer `python3 models/setup.py peers`.

use std::fs;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use autoglm_edge::inference::{
    Inference, InferenceConfig, InferenceHandle, manifest::Task, tts::SpeakRequest,
};
use autoglm_tests::bench::{
    bundles::Bundles,
    peer::Peer,
    statistics::{Sample, ms},
    table::{Table, number},
};
use clap::Parser;

const VOICE: &str = "piper-en-us-joe-int8";

/// Four sentences as a box says them, some 15 s.
const TEXT: &str = "The temperature in the greenhouse is twenty-one degrees, and the windows are closed. The front door has been open since seven in the evening. \
                    Please remember to water the plants on Tuesday, and to take the recycling bins out before eight o'clock. Do you want me to switch off the heating?";

#[derive(Parser)]
struct Options {
    /// Rounds; each has both speak the text once
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Threads inside an operator
    #[arg(long, default_value_t = NonZeroUsize::MIN)]
    threads: NonZeroUsize,
}

/// What one of them took.
#[derive(Default)]
struct Side {
    /// Wall time as a part of the time that it sounds.
    factor: Sample,
    /// Until the first sentence is there.
    first: Sample,
    whole: Sample,
}

impl Side {
    fn note(&mut self, first_ms: f64, whole_ms: f64, seconds: f64) {
        self.factor.push(whole_ms / 1e3 / seconds);
        self.first.push(first_ms);
        self.whole.push(whole_ms);
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let bundles = Bundles::find()?;
    let mut peer = Peer::piper(options.threads.get())?;
    let begun = Instant::now();
    let inference = Inference::start(InferenceConfig {
        embedding: "none".into(),
        tts: Some(VOICE.into()),
        threads: options.threads.into(),
        ..bundles.embedding_only()
    });
    let handle = inference.handle();
    handle
        .wait_ready(Task::Tts, Duration::from_secs(120))
        .await?;
    let load_ms = ms(begun.elapsed());
    let (mut ours, mut theirs) = (Side::default(), Side::default());
    let (mut queue, mut phonemes) = (Sample::default(), Sample::default());
    for round in 0..=options.rounds {
        let spoken = speak(&handle).await?;
        let said = peer.as_mut().map(|peer| peer.speak(TEXT)).transpose()?;
        // The first is for warming up.
        if round > 0 {
            ours.note(spoken.first_ms, spoken.ms, spoken.seconds);
            queue.push(spoken.queue_ms);
            phonemes.push(spoken.phonemes_ms);
            if let Some(said) = said {
                theirs.note(said.first_ms, said.ms, said.seconds);
            }
        }
    }
    match &peer {
        Some(peer) => println!("- in turn with {} on the same voice in 32 bits", peer.name),
        None => println!("- alone: `python3 models/setup.py peers` fetches piper-tts"),
    }
    println!(
        "- {} thread(s), {} rounds; ours: phonemes {} ms of a text (p50), waiting {} ms\n",
        options.threads,
        options.rounds,
        number(phonemes.p50()),
        number(queue.p50())
    );
    let mut table = Table::new(&[
        "four sentences",
        "ours p50",
        "p95",
        "piper-tts p50",
        "p95",
        "ours to it",
    ]);
    for (name, ours, theirs) in [
        (
            "time to make it, as a part of its length",
            &ours.factor,
            &theirs.factor,
        ),
        ("first sentence, ms", &ours.first, &theirs.first),
        ("whole text, ms", &ours.whole, &theirs.whole),
    ] {
        let cells = [
            ours.p50(),
            ours.p95(),
            theirs.p50(),
            theirs.p95(),
            ours.over(theirs).p50(),
        ];
        table.row(name, cells.map(number));
    }
    let peer = peer.as_ref();
    let (load, peak) = peer.map_or((f64::NAN, f64::NAN), |peer| {
        (peer.load_ms, peer.peak_kb as f64 / 1024.0)
    });
    let dash = f64::NAN;
    table.row(
        "loading, ms (ours with digests and probe)",
        [load_ms, dash, load, dash, load_ms / load].map(number),
    );
    let own = peak_mib()?;
    table.row(
        "most memory of the process, MiB",
        [own, dash, peak, dash, own / peak].map(number),
    );
    println!("{table}");
    if let Err(stragglers) = inference.stop(Duration::from_secs(10)).await {
        bail!("still running: {stragglers:?}");
    }
    Ok(())
}

struct Spoken {
    first_ms: f64,
    ms: f64,
    seconds: f64,
    queue_ms: f64,
    phonemes_ms: f64,
}

async fn speak(handle: &InferenceHandle) -> Result<Spoken> {
    let voice = handle.tts().context("the voice was not started")?;
    let begun = Instant::now();
    let mut speech = voice.speak(SpeakRequest::new(TEXT))?;
    let mut first_ms = None;
    let (mut seconds, mut queue_ms, mut phonemes_ms) = (0.0, 0.0, 0.0);
    while let Some(spoken) = speech.next().await {
        let spoken = spoken?;
        first_ms = first_ms.or_else(|| Some(ms(begun.elapsed())));
        // The silence between sentences, which the peer leaves out, is not made: it counts for nothing.
        let silence = spoken
            .samples
            .iter()
            .take_while(|sample| **sample == 0)
            .count();
        seconds += (spoken.samples.len() - silence) as f64 / f64::from(spoken.sample_rate_hz);
        queue_ms += ms(spoken.timings.queue);
        phonemes_ms += ms(spoken.timings.phonemes);
    }
    Ok(Spoken {
        first_ms: first_ms.context("nothing was spoken")?,
        ms: ms(begun.elapsed()),
        seconds,
        queue_ms,
        phonemes_ms,
    })
}

/// The most memory that this process has had.
fn peak_mib() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    Ok(kib.context("the kernel does not tell")? / 1024.0)
}
