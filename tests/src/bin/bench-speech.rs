//! Speech to text: the engine beside CTranslate2 on the same weights and recordings, in turn.
//!
//! Needs the default bundles (`make models`) and Debian's pocketsphinx-testdata (`make test` installs it); with `models/setup.py peers` CTranslate2 takes
//! its turns, in a process of its own. Read the ratios: they compare runs that were made next to one another.

use std::{
    fs::{self, File},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use autoglm_edge::{
    audio::read::{Format, Wanted, read},
    inference::{
        Inference, InferenceConfig,
        manifest::Task,
        stt::{RATE_HZ, SOUND_MAX, SttHandle, SttRequest},
    },
};
use autoglm_tests::bench::{
    bundles::{Bundles, STT},
    peer::Peer,
    statistics::{Sample, ms},
    table::{Table, number},
};
use clap::Parser;

const RECORDINGS: &str = "/usr/share/pocketsphinx/test/data/librivox";
/// How the files are named.
const PREFIX: &str = "sense_and_sensibility_01_austen_64kb-";

#[derive(Parser)]
struct Options {
    /// Rounds; each measures everything once
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Threads inside an operator
    #[arg(long, default_value_t = NonZeroUsize::MIN)]
    threads: NonZeroUsize,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let bundles = Bundles::find()?;
    if !Path::new(RECORDINGS).is_dir() {
        println!("- not measured: there are no recordings ({RECORDINGS}; pocketsphinx-testdata)\n");
        return Ok(());
    }
    let begun = Instant::now();
    let inference = Inference::start(InferenceConfig {
        embedding: "none".into(),
        stt: Some(STT.into()),
        threads: options.threads.into(),
        ..bundles.embedding_only()
    });
    let handle = inference.handle();
    handle
        .wait_ready(Task::Stt, Duration::from_secs(300))
        .await?;
    let load_ms = ms(begun.elapsed());
    let stt = handle.stt().context("it is configured")?.clone();
    let mut peer = Peer::ctranslate2(options.threads.get())?;
    println!(
        "- {} thread(s), {} rounds in turn; medians; a window is 30 s, however little is said in it",
        options.threads, options.rounds
    );
    match &peer {
        Some(peer) => println!(
            "- engine loaded in {load_ms:.0} ms, with all files hashed and the probe run; {} in {:.0} ms\n",
            peer.name, peer.load_ms
        ),
        None => println!("- no peer: `python3 models/setup.py peers` installs it\n"),
    }
    let scratch = tempfile::tempdir()?;
    let mut table = Table::new(&[
        "ms",
        "sound s",
        "engine",
        "of them hearing",
        "ms a token",
        "real-time factor",
        "ctranslate2",
        "ratio",
    ]);
    for (what, names) in [
        ("a sentence", &["0880"][..]),
        ("a paragraph", &["0870", "0880", "0890", "0920", "0930"]),
    ] {
        let sound = Sound::of(names, scratch.path())?;
        let row = measure(&stt, peer.as_mut(), &sound, options.rounds).await?;
        table.row(what, row);
    }
    println!("{table}");
    let peak = match &peer {
        Some(peer) => format!(", ctranslate2 with its Python {} MiB", peer.peak_kb / 1024),
        None => String::new(),
    };
    println!(
        "Most memory: this process {} MiB{peak}.",
        peak_kib()? / 1024
    );
    if let Err(stragglers) = inference.stop(Duration::from_secs(10)).await {
        bail!("still running: {stragglers:?}");
    }
    Ok(())
}

/// Recordings one after the other, at most a window.
struct Sound {
    samples: Vec<f32>,
    /// The same as a file, for others.
    path: PathBuf,
}

impl Sound {
    fn of(names: &[&str], scratch: &Path) -> Result<Self> {
        let mut samples = Vec::new();
        for name in names {
            let path = Path::new(RECORDINGS).join(format!("{PREFIX}{name}.wav"));
            let wanted = Wanted {
                rate_hz: RATE_HZ,
                length_max: SOUND_MAX,
            };
            let file = File::open(&path).with_context(|| path.display().to_string())?;
            samples.extend(read(file, Format::Wav, wanted)?);
            samples.extend(vec![0.0; RATE_HZ as usize / 2]);
        }
        let path = scratch.join(names.join("-"));
        let bytes: Vec<u8> = samples
            .iter()
            .flat_map(|sample| sample.to_le_bytes())
            .collect();
        fs::write(&path, bytes)?;
        Ok(Self { samples, path })
    }
}

async fn measure(
    stt: &SttHandle,
    mut peer: Option<&mut Peer>,
    sound: &Sound,
    rounds: usize,
) -> Result<Vec<String>> {
    let (mut ours, mut theirs) = (Sample::default(), Sample::default());
    let (mut hearing, mut token) = (Sample::default(), Sample::default());
    let mut texts = (String::new(), String::new());
    // The first is for warming up.
    for round in 0..=rounds {
        let begun = Instant::now();
        let transcript = stt
            .transcribe(SttRequest::new(sound.samples.clone(), RATE_HZ))
            .await?;
        let time = ms(begun.elapsed());
        let answer = peer
            .as_mut()
            .map(|peer| peer.hear(&sound.path))
            .transpose()?;
        if round == 0 {
            texts = (
                transcript.text(),
                answer.map(|answer| answer.text).unwrap_or_default(),
            );
            continue;
        }
        let timings = transcript.done.timings;
        ours.push(time);
        hearing.push(ms(timings.hear));
        token.push(ms(timings.read) / transcript.done.tokens.max(1) as f64);
        if let Some(answer) = answer {
            theirs.push(answer.ms);
        }
    }
    println!("- ours: {}", texts.0);
    if peer.is_some() {
        println!("- theirs: {}", texts.1.trim());
    }
    println!();
    let seconds = sound.samples.len() as f64 / f64::from(RATE_HZ);
    let ratio = ours.over(&theirs).p50();
    Ok(vec![
        number(seconds),
        number(ours.p50()),
        number(hearing.p50()),
        number(token.p50()),
        number(ours.p50() / 1000.0 / seconds),
        number(theirs.p50()),
        number(ratio),
    ])
}

/// Memory of this process in KiB, at most so far.
fn peak_kib() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|rest| rest.trim().strip_suffix("kB"));
    Ok(number.context("the kernel does not tell")?.trim().parse()?)
}
