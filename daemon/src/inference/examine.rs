//! What a person asks about a bundle: which there are, whether one is sound, and how fast it runs here.
//!
//! The work is done by the daemon's own program in a process of its own ([`providers::trial`](super::providers::trial)), by the same engine as in
//! the daemon and on the provider that was chosen there: a bundle that would take the daemon with it takes only that, and the memory
//! measured is the model's alone. What is shown are medians on a box that does its other work meanwhile.

use std::{
    cell::Cell,
    collections::BTreeMap,
    error::Error,
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{
    Inference, InferenceConfig, InferenceHandle,
    bundle::Bundle,
    chat::{ChatEvent, ChatMessage, ChatRequest, Role, Usage},
    class::Class,
    generic::GenericProbe,
    manifest::{Graph, Task},
    probe::{self, EmbeddingProbe, SttProbe, VadProbe},
    providers::{Placement, ProvidersConfig},
    runtime::Runtime,
    stt::SttRequest,
    tts::{SpeakRequest, TtsProbe},
    vad::VadState,
};

/// Longest that an examination may take.
pub(super) const TIME_MAX: Duration = Duration::from_secs(600);

/// How long each figure is measured at most, and how often at most.
const MEASURE_MAX: Duration = Duration::from_secs(5);
const ROUNDS: usize = 200;

/// Tokens of an answer that is measured.
const ANSWER_TOKENS: usize = 48;

/// Sentences that are embedded together.
const SENTENCES: usize = 8;

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

/// A bundle that lies in one of the directories.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Known {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub dir: PathBuf,
    /// What it does; absent where its `model.toml` cannot be used.
    pub task: Option<Task>,
    /// A name for people.
    pub title: String,
    /// The licence that the weights' package states.
    pub licence: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// What is wrong with it at first sight.
    pub problem: Option<String>,
}

/// All bundles in `dirs`, those that are found first where there are several of a name. Reads no large file.
pub(super) fn list(dirs: &[PathBuf]) -> Vec<Known> {
    let mut all: BTreeMap<String, Known> = BTreeMap::new();
    for dir in dirs {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        for entry in entries {
            let dir = entry.path();
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if all.contains_key(&name) || !dir.join(super::bundle::MANIFEST_FILE).is_file() {
                continue;
            }
            let known = match Bundle::open(&dir) {
                Ok(bundle) => {
                    let manifest = bundle.manifest();
                    Known {
                        task: Some(manifest.task),
                        title: manifest.title.clone(),
                        licence: manifest.licence.clone(),
                        bytes: manifest.files.values().map(|facts| facts.bytes).sum(),
                        problem: None,
                        name: name.clone(),
                        dir,
                    }
                }
                Err(error) => Known {
                    task: None,
                    title: String::new(),
                    licence: String::new(),
                    bytes: 0,
                    problem: Some(super::error::chain(&error)),
                    name: name.clone(),
                    dir,
                },
            };
            all.insert(name, known);
        }
    }
    all.into_values().collect()
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
        memory: super::budget::MemoryLimits::default(),
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

async fn measure(bundle: &Bundle, handle: &InferenceHandle) -> Result<Vec<Figure>, Box<dyn Error>> {
    match &bundle.manifest().graph {
        Graph::Embedding(_) => {
            let probe: EmbeddingProbe = probe::read(bundle)?;
            let one = repeat(async || {
                let embedded = handle
                    .embedder()
                    .embed_timed(vec![probe.text.clone()])
                    .await?;
                Ok(millis(embedded.timings.tokenize + embedded.timings.infer))
            })
            .await?;
            let many = repeat(async || {
                let texts = vec![probe.text.clone(); SENTENCES];
                let embedded = handle.embedder().embed_timed(texts).await?;
                let time = embedded.timings.tokenize + embedded.timings.infer;
                Ok(SENTENCES as f64 / time.as_secs_f64())
            })
            .await?;
            Ok(vec![
                one.figure("the probe's sentence by itself", "ms"),
                many.figure("the same eight times together", "sentences/s"),
            ])
        }
        Graph::Vad(graph) => {
            let probe: VadProbe = probe::read(bundle)?;
            let chunk = probe.samples.get(..graph.chunk_samples);
            let chunk = chunk.ok_or("the probe holds no whole chunk")?.to_vec();
            let times = repeat(async || {
                let begun = Instant::now();
                handle
                    .vad()
                    .score(chunk.clone(), VadState::default())
                    .await?;
                Ok(millis(begun.elapsed()))
            })
            .await?;
            let length = graph.chunk_samples as f64 / f64::from(graph.sample_rate_hz) * 1000.0;
            let what = format!("a chunk of {length:.0} ms of sound");
            Ok(vec![times.figure(&what, "ms")])
        }
        Graph::Whisper(graph) => {
            // A second of sound takes as long as a whole window, but for its words.
            let probe: SttProbe = probe::read(bundle)?;
            let stt = handle.stt().ok_or("the model was not started")?;
            let (mut hear, mut read) = (Rates::default(), Rates::default());
            let all = repeat(async || {
                let begun = Instant::now();
                let request = SttRequest::new(probe.samples(), graph.sample_rate_hz);
                let done = stt.transcribe(request).await?.done;
                hear.0.push(millis(done.timings.hear));
                read.note(done.tokens as f64, done.timings.read);
                Ok(millis(begun.elapsed()))
            })
            .await?;
            let window = graph.window_samples as f64 / f64::from(graph.sample_rate_hz);
            let what = format!("hearing a window of up to {window:.0} s of sound");
            Ok(vec![
                hear.figure(&what, "ms"),
                read.figure("reading what was heard", "tokens/s"),
                all.figure("the probe's sound, all in all", "ms"),
            ])
        }
        Graph::Tts(_) => {
            let probe: TtsProbe = probe::read(bundle)?;
            let tts = handle.tts().ok_or("the model was not started")?;
            let seconds = Cell::new(0.0);
            let times = repeat(async || {
                let begun = Instant::now();
                let mut speech = tts.speak(SpeakRequest::new(probe.text.clone()))?;
                let mut samples = 0.0;
                while let Some(spoken) = speech.next().await {
                    let spoken = spoken?;
                    samples += spoken.samples.len() as f64 / f64::from(spoken.sample_rate_hz);
                }
                seconds.set(samples);
                Ok(millis(begun.elapsed()))
            })
            .await?;
            let length = seconds.get();
            let factor = Rates(times.0.iter().map(|ms| ms / 1000.0 / length).collect());
            Ok(vec![
                times.figure(&format!("{length:.1} s of speech"), "ms"),
                factor.figure("the same, as a part of its length", "of real time"),
            ])
        }
        Graph::Tensors(_) => {
            let inputs = GenericProbe::of(bundle)?.inputs;
            let generic = handle.generic(&bundle.manifest().name);
            let generic = generic.ok_or("the model was not started")?;
            let times = repeat(async || {
                let begun = Instant::now();
                generic.run(inputs.clone(), Class::default()).await?;
                Ok(millis(begun.elapsed()))
            })
            .await?;
            Ok(vec![times.figure("the probe's inputs", "ms")])
        }
        Graph::Chat(_) | Graph::Optimum(_) => chat(handle).await,
    }
}

async fn chat(handle: &InferenceHandle) -> Result<Vec<Figure>, Box<dyn Error>> {
    let (mut prefill, mut decode) = (Rates::default(), Rates::default());
    let begun = Instant::now();
    let mut length = 0;
    for round in 0..ROUNDS {
        if round > 1 && begun.elapsed() > MEASURE_MAX {
            break;
        }
        // A beginning of its own each time, so that no cache of an earlier one serves.
        let text = format!(
            "{round} is the number of this letter. {}Sum it up.",
            "The boat left the harbour at dawn, and nobody on the pier waved. ".repeat(12)
        );
        let message = ChatMessage {
            role: Role::User,
            content: text,
        };
        let mut events = handle
            .chat()
            .generate(ChatRequest::new(vec![message], ANSWER_TOKENS))?;
        loop {
            match events.recv().await {
                Some(ChatEvent::Done { usage, timings, .. }) => {
                    let Usage {
                        prompt_tokens,
                        reused_tokens,
                        answer_tokens,
                        ..
                    } = usage;
                    length = prompt_tokens;
                    prefill.note((prompt_tokens - reused_tokens) as f64, timings.prefill);
                    decode.note(answer_tokens.saturating_sub(1) as f64, timings.decode);
                    break;
                }
                Some(ChatEvent::Failed(error)) => return Err(error.into()),
                Some(_) => {}
                None => return Err("the model's thread broke down".into()),
            }
        }
    }
    Ok(vec![
        prefill.figure(&format!("reading a prompt of {length} tokens"), "tokens/s"),
        decode.figure("answering after it, one conversation", "tokens/s"),
    ])
}

/// Measures until there are [`ROUNDS`] or [`MEASURE_MAX`] is over. The first is for warming up.
async fn repeat<F>(mut measure: F) -> Result<Rates, Box<dyn Error>>
where
    F: AsyncFnMut() -> Result<f64, super::error::InferenceError>,
{
    let mut rates = Rates::default();
    measure().await?;
    let begun = Instant::now();
    while rates.0.is_empty() || (rates.0.len() < ROUNDS && begun.elapsed() < MEASURE_MAX) {
        rates.0.push(measure().await?);
    }
    Ok(rates)
}

#[derive(Default)]
struct Rates(Vec<f64>);

impl Rates {
    fn note(&mut self, count: f64, time: Duration) {
        if count > 0.0 && !time.is_zero() {
            self.0.push(count / time.as_secs_f64());
        }
    }

    fn figure(mut self, what: &str, unit: &str) -> Figure {
        self.0.sort_by(f64::total_cmp);
        Figure {
            what: what.to_owned(),
            value: self.0.get(self.0.len() / 2).copied().unwrap_or(0.0),
            unit: unit.to_owned(),
            rounds: self.0.len(),
        }
    }
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
