//! What a person asks about a bundle: which there are, whether one is sound, and how fast it runs here.
//!
//! The work is done by the daemon's own program in a process of its own ([`providers::trial`](super::providers::trial)), by the same engine as in
//! the daemon and on the provider that was chosen there: a bundle that would take the daemon with it takes only that, and the memory
//! measured is the model's alone. [`known`] lists, [`mod@measure`] measures.

pub mod known;
mod measure;

use std::{
    error::Error,
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use self::measure::measure;
use super::{
    Inference, InferenceConfig,
    budget::MemoryLimits,
    bundle::Bundle,
    manifest::Task,
    providers::{Placement, ProvidersConfig},
    runtime::Runtime,
};

/// Longest that an examination may take.
pub(super) const TIME_MAX: Duration = Duration::from_secs(600);

/// How much is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Depth {
    /// Digests, loading, probe.
    Verify,
    /// The speed, too.
    Benchmark,
}

/// What the child is to examine.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Examination {
    pub(super) bundle: PathBuf,
    pub(super) placement: Placement,
    pub(super) threads: NonZeroUsize,
    pub(super) context_tokens: usize,
    pub(super) espeak_ng: PathBuf,
    pub(super) depth: Depth,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Examined {
    /// The bundle's name.
    pub name: String,
    /// What it does.
    pub task: Task,
    /// Where it is.
    pub dir: PathBuf,
    /// The provider that it ran on.
    pub provider: String,
    /// Files whose digests were compared.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Milliseconds for the digests.
    pub verify_ms: f64,
    /// Milliseconds from the graph's first byte to the passed probe.
    pub load_ms: f64,
    /// Most memory that the process had at any time, in KiB, less what it had with ONNX Runtime alone.
    pub peak_kib: u64,
    /// Memory that it has after loading, in the same way.
    pub loaded_kib: u64,
    /// What was measured, by name.
    pub figures: Vec<Figure>,
}

/// One measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What, in words.
    pub what: String,
    /// How much, the median over `rounds`.
    pub value: f64,
    /// Of what.
    pub unit: String,
    /// How often it was measured.
    pub rounds: usize,
}

/// The child's work. `on_step` is told what begins.
pub(super) fn carry_out(
    runtime: &Runtime,
    examination: Examination,
    work: &Path,
    on_step: &mut dyn FnMut(&str),
) -> Result<Examined, Box<dyn Error>> {
    let Examination {
        bundle: dir,
        placement,
        threads,
        context_tokens,
        espeak_ng,
        depth,
    } = examination;
    on_step("the bundle");
    let bundle = Bundle::open(&dir)?;
    let manifest = bundle.manifest().clone();
    on_step("the digests");
    let begun = Instant::now();
    bundle.verify()?;
    let verify_ms = millis(begun.elapsed());
    on_step("loading and the probe");
    let before = resident();
    let provider = placement.candidate.to_string();
    let only = |task| match task == manifest.task {
        true => manifest.name.clone(),
        // No name of a bundle: it is looked for and never found.
        false => String::new(),
    };
    let engine = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let begun = Instant::now();
    let inference = Inference::start(InferenceConfig {
        memory: MemoryLimits::default(),
        runtime_path: Some(runtime.path().to_owned()),
        model_dirs: dir.parent().map(Path::to_owned).into_iter().collect(),
        embedding: only(Task::Embedding),
        chat: only(Task::Chat),
        vad: only(Task::Vad),
        stt: (manifest.task == Task::Stt).then(|| manifest.name.clone()),
        tts: (manifest.task == Task::Tts).then(|| manifest.name.clone()),
        espeak_ng,
        generic: (manifest.task == Task::Generic)
            .then(|| manifest.name.clone())
            .into_iter()
            .collect(),
        context_tokens,
        chat_sessions: NonZeroUsize::MIN,
        chat_cache: super::chat::ChatCache::default(),
        threads: threads.into(),
        snapshots: None,
        providers: ProvidersConfig {
            fixed: Some(placement),
            ..ProvidersConfig::cpu(work.to_owned())
        },
        // What is measured is measured as it is.
        adapt: None,
    });
    let handle = inference.handle();
    let loaded = engine.block_on(handle.wait_ready(manifest.task, TIME_MAX));
    let result = loaded.map_err(Box::<dyn Error>::from).and_then(|()| {
        // The engine compares the digests once more, which took as long as before.
        let load_ms = (millis(begun.elapsed()) - verify_ms).max(0.0);
        let loaded_kib = resident().saturating_sub(before);
        let figures = match depth {
            Depth::Verify => Vec::new(),
            Depth::Benchmark => {
                on_step("measuring");
                engine.block_on(measure(&bundle, &handle))?
            }
        };
        Ok(Examined {
            name: manifest.name.clone(),
            task: manifest.task,
            dir,
            provider,
            files: manifest.files.len(),
            bytes: manifest.files.values().map(|facts| facts.bytes).sum(),
            verify_ms,
            load_ms,
            peak_kib: peak().saturating_sub(before),
            loaded_kib,
            figures,
        })
    });
    drop(inference);
    result
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Memory of this process in KiB, now.
fn resident() -> u64 {
    status_kib("VmRSS:")
}

/// Memory of this process in KiB, at most so far.
fn peak() -> u64 {
    status_kib("VmHWM:")
}

fn status_kib(key: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse().ok())
        .unwrap_or(0)
}
