//! What can go wrong, by who is to blame: [`LoadError`] for the bundle on disk, [`InferenceError`] for one request.

use std::{error::Error as StdError, fmt, path::PathBuf, sync::Arc, time::Duration};

use thiserror::Error;

use super::{
    bundle::BundleError,
    class::Class,
    manifest::Task,
    probe::ProbeError,
    providers::{Tried, trial::TrialError},
    runtime::RuntimeError,
    status::ModelState,
    tts::espeak::EspeakError,
    upstream::UpstreamError,
};

/// Why a model that is on disk is not served. The model stays disabled until its files change.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The bundle itself is at fault.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// There is no such bundle.
    #[error("there is no bundle {name} (looked for {})", paths(looked))]
    Absent {
        /// Its name.
        name: String,
        /// Where it was looked for.
        looked: Vec<PathBuf>,
    },
    /// The configuration asks this bundle for something that it does not do.
    #[error("the bundle {name} does {actual}, the configuration names it for {expected}")]
    WrongTask {
        /// The bundle's name.
        name: String,
        /// The task it is configured for.
        expected: Task,
        /// The task it has.
        actual: Task,
    },
    /// ONNX Runtime would not load the graph.
    #[error("ONNX Runtime refused {}", path.display())]
    Graph {
        /// The graph's file.
        path: PathBuf,
        /// What ONNX Runtime said.
        #[source]
        source: ort::Error,
    },
    /// The graph needs an operator that this build of ONNX Runtime does not have.
    #[error("{} needs the operator {operator}, which this ONNX Runtime does not have", path.display())]
    Operator {
        /// The graph's file.
        path: PathBuf,
        /// The operator, with its domain where that is not ONNX's own.
        operator: String,
        /// What ONNX Runtime said.
        #[source]
        source: ort::Error,
    },
    /// An input or output has the element type that was promised and another shape.
    #[error("{}: {what} {name:?} has the shape {actual}, expected {expected}", path.display())]
    Shape {
        /// The graph's file.
        path: PathBuf,
        /// `input` or `output`.
        what: &'static str,
        /// Its name.
        name: String,
        /// Dimensions that were promised; a free one by its name.
        expected: String,
        /// Dimensions that are there; a free one is -1.
        actual: String,
    },
    /// The tokenizer makes ids that the graph has no row for.
    #[error(
        "{} makes token ids up to {highest}, the graph's {tensor} takes ids below {limit}",
        path.display()
    )]
    Vocabulary {
        /// The tokenizer's file.
        path: PathBuf,
        /// The highest id of its vocabulary.
        highest: u32,
        /// The graph's tensor.
        tensor: &'static str,
        /// Ids that the graph has.
        limit: usize,
    },
    /// The model would not fit into memory.
    #[error(
        "{} needs some {needed_mib} MiB of memory, {available_mib} MiB are left ({limit})",
        path.display()
    )]
    Memory {
        /// The graph's file.
        path: PathBuf,
        /// Estimate for weights, their packed copy and the key-value cache.
        needed_mib: u64,
        /// What may still be taken.
        available_mib: u64,
        /// Who says so: `MemAvailable`, or the `memory.max` of a control group.
        limit: String,
    },
    /// The configuration requires a provider, and none is good enough.
    #[error(
        "no provider that the configuration requires can run {name}: {}",
        list(tried)
    )]
    NoProvider {
        /// The bundle's name.
        name: String,
        /// Who was tried, and why not.
        tried: Vec<Tried>,
    },
    /// Providers are wanted, and none could be tried: this box's fault.
    #[error("providers cannot be tried")]
    Trial {
        /// Why.
        #[source]
        source: TrialError,
    },
    /// Providers are wanted for a graph that can only be run on the CPU, since nobody here knows how to prove another.
    #[error("{name} has a graph whose providers cannot be proved")]
    Unprovable {
        /// The bundle's name.
        name: String,
    },
    /// The graph's inputs or outputs are not those that `model.toml` or the layout promises.
    #[error("{}: {what} {name:?} is {actual}, expected {expected}", path.display())]
    Signature {
        /// The graph's file.
        path: PathBuf,
        /// `input` or `output`.
        what: &'static str,
        /// Its name.
        name: String,
        /// Element type that was promised.
        expected: String,
        /// Element type that is there, or `absent`.
        actual: String,
    },
    /// The tokenizer file cannot be used.
    #[error("{} is not a usable tokenizer", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What the tokenizer library said.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The chat template cannot be used.
    #[error("{} is not a usable chat template", path.display())]
    Template {
        /// The file.
        path: PathBuf,
        /// Line and complaint.
        #[source]
        source: minijinja::Error,
    },
    /// The key-value cache would be larger than allowed.
    #[error(
        "a key-value cache of {tokens} tokens needs {bytes} bytes, at most {limit} are allowed"
    )]
    CacheTooLarge {
        /// Context length asked for.
        tokens: usize,
        /// Bytes that it would need.
        bytes: u128,
        /// Bytes allowed.
        limit: u128,
    },
    /// The system reserved no address space for the caches.
    #[error("no memory could be reserved for {slots} key-value caches of {tokens} tokens")]
    CacheMemory {
        /// Tokens of each.
        tokens: usize,
        /// Conversations at a time.
        slots: usize,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The voice's text cannot be turned into phonemes.
    #[error("text cannot be turned into phonemes")]
    Phonemes {
        /// What is wrong with the program that does it.
        #[source]
        source: EspeakError,
    },
    /// The model does not compute what its bundle says it computes.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The probe could not be run at all.
    #[error("the probe of {name} could not be run")]
    ProbeRun {
        /// The bundle's name.
        name: String,
        /// Why.
        #[source]
        source: Box<InferenceError>,
    },
    /// The system gave no thread for it.
    #[error("no thread could be started for the model")]
    Thread {
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A bug of ours or of a library on the model's thread; the model is loaded anew.
    #[error("the model's thread panicked: {message}")]
    Panicked {
        /// The panic's message.
        message: String,
    },
}

fn list(tried: &[Tried]) -> String {
    let each: Vec<String> = tried.iter().map(Tried::to_string).collect();
    each.join("; ")
}

/// Why a proof that was asked for gave no choice.
#[derive(Debug, Error)]
pub enum ProveError {
    /// There is no such bundle.
    #[error("there is no bundle {name:?}")]
    Missing {
        /// The name.
        name: String,
        /// Where it was looked for.
        looked: Vec<PathBuf>,
    },
    /// There is no ONNX Runtime.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The bundle cannot be used, or nobody can run it.
    #[error(transparent)]
    Load(Box<LoadError>),
    /// The bundle failed where it was tried by itself.
    #[error("{name} failed at {stage}: {message}")]
    Unsound {
        /// The bundle's name.
        name: String,
        /// How far it came.
        stage: String,
        /// What was said, or how the process ended.
        message: String,
    },
    /// Inference is being stopped.
    #[error("inference is stopping")]
    Stopped,
}

/// Why a model that was to be loaded anew is not.
#[derive(Debug, Clone, Error)]
pub enum ReloadError {
    /// No model of this name is configured.
    #[error("no model {name:?} is configured")]
    Unknown {
        /// The name.
        name: String,
    },
    /// Its bundle is not there. If it served, it goes on.
    #[error("its bundle is not there (looked for {})", paths(looked))]
    Missing {
        /// Where it was looked for.
        looked: Vec<PathBuf>,
    },
    /// There is no ONNX Runtime.
    #[error(transparent)]
    Runtime(Arc<RuntimeError>),
    /// The bundle cannot be used. If another version of it served, that goes on.
    #[error(transparent)]
    Load(Arc<LoadError>),
    /// Too many asked at once.
    #[error("it is being looked after; try again in a moment")]
    Busy,
    /// Inference is being stopped.
    #[error("inference is stopping")]
    Stopped,
}

fn paths(looked: &[PathBuf]) -> String {
    let each: Vec<String> = looked
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    each.join(", ")
}

impl From<LoadError> for ProveError {
    fn from(error: LoadError) -> Self {
        Self::Load(Box::new(error))
    }
}

/// What is known of the time that a request takes that was refused for want of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Nothing: the queue is full, whatever it takes.
    Unknown,
    /// By what was measured it would wait so long; with a limit on the whole answer, until its end.
    Estimated(Duration),
    /// It has waited so long.
    Passed(Duration),
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => Ok(()),
            Self::Estimated(wait) => write!(f, ", an estimated {} ms", wait.as_millis()),
            Self::Passed(wait) => write!(f, ", this one for {} ms", wait.as_millis()),
        }
    }
}

/// Why one request was not served. The model goes on with the next.
#[derive(Debug, Error)]
pub enum InferenceError {
    /// The model is not there (yet).
    #[error("the {task} model is not ready: {state}")]
    NotReady {
        /// Which model.
        task: Task,
        /// What it is doing instead.
        state: ModelState,
    },
    /// Refused at once: the queue is full, or the request could not have met its deadline.
    #[error(
        "the {task} model is overloaded: {queued} of {capacity} {class} requests waiting{wait}"
    )]
    Overloaded {
        /// Which model.
        task: Task,
        /// The request's class.
        class: Class,
        /// Requests of its class waiting or running.
        queued: usize,
        /// Most requests of its class that may wait.
        capacity: usize,
        /// What is known of the time that it takes.
        wait: Wait,
    },
    /// The request asks for nothing, or for more than one request may.
    #[error("{what} is {actual}, allowed are {allowed}")]
    OutOfRange {
        /// The part of the request.
        what: &'static str,
        /// What it is.
        actual: String,
        /// What it may be.
        allowed: String,
    },
    /// Even the last message alone is longer than the context.
    #[error(
        "the last message needs {tokens} tokens with its frame, the context leaves room for {limit}"
    )]
    PromptTooLong {
        /// Tokens needed.
        tokens: usize,
        /// Tokens there is room for.
        limit: usize,
    },
    /// The tokenizer failed on this text.
    #[error("the text cannot be tokenized")]
    Tokenize {
        /// What the tokenizer library said.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The answer cannot be held to the form that was asked for: the form is not valid, or cannot be enforced, or is too large.
    #[error("the form of the answer cannot be used: {reason}")]
    Form {
        /// What is wrong with it.
        reason: String,
    },
    /// No token can follow: all logits are NaN, or nothing is allowed.
    #[error("the model gives no token that may come next")]
    NoToken,
    /// The chat template refused these messages.
    #[error("the chat template refused the messages")]
    Template {
        /// What the template said.
        #[source]
        source: minijinja::Error,
    },
    /// ONNX Runtime failed while running the graph.
    #[error("ONNX Runtime failed")]
    Run {
        /// What it said; shared by all answers of one run.
        #[source]
        source: Arc<ort::Error>,
    },
    /// The graph ran, and what came out has the wrong shape.
    #[error("the graph's output {name:?} has {actual} values, expected {expected}")]
    Output {
        /// The output.
        name: &'static str,
        /// Number of values expected.
        expected: usize,
        /// Number of values there.
        actual: usize,
    },
    /// A tensor of the request is not what the bundle says.
    #[error("the input {name:?} is {actual}, expected {expected}")]
    Tensor {
        /// The input.
        name: String,
        /// What would fit.
        expected: String,
        /// What it is.
        actual: String,
    },
    /// The graph ran, and what came out is not what the bundle says.
    #[error("the graph did not keep to its bundle: {what}")]
    Outputs {
        /// Which output, and in what way.
        what: String,
    },
    /// A text could not be turned into phonemes.
    #[error("the text cannot be turned into phonemes")]
    Phonemes {
        /// What is wrong with the program that does it.
        #[source]
        source: EspeakError,
    },
    /// There is nothing in a text that is spoken.
    #[error("there is nothing in the text that can be spoken")]
    Silent,
    /// The voice was exchanged in the middle of a text, and the new one's sound cannot follow the old one's.
    #[error(
        "the voice was exchanged meanwhile: it has {now} samples per second, the one before {before}"
    )]
    VoiceChanged {
        /// Samples per second of what was heard.
        before: u32,
        /// Samples per second of what would follow.
        now: u32,
    },
    /// The model did not become ready in time.
    #[error("the {task} model was not ready after {waited_ms} ms: {state}")]
    WaitTimedOut {
        /// Which model.
        task: Task,
        /// How long was waited.
        waited_ms: u64,
        /// What it was doing at the end.
        state: ModelState,
    },
    /// An engine elsewhere had begun to answer, and did not get to the end.
    #[error("{source}")]
    Upstream {
        /// What happened to it.
        source: Box<UpstreamError>,
    },
    /// Neither the model here nor the engine elsewhere began to answer.
    #[error("{here}; elsewhere: {there}")]
    Nowhere {
        /// Why not here.
        here: Box<InferenceError>,
        /// Why not elsewhere.
        there: Box<UpstreamError>,
    },
    /// Inference is being stopped.
    #[error("inference is stopping")]
    Stopping,
}

impl From<ort::Error> for InferenceError {
    fn from(source: ort::Error) -> Self {
        Self::Run {
            source: Arc::new(source),
        }
    }
}

impl InferenceError {
    pub(super) fn timed_out(task: Task, waited: Duration, state: ModelState) -> Self {
        Self::WaitTimedOut {
            task,
            waited_ms: millis(waited),
            state,
        }
    }
}

/// Whole milliseconds, saturating.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// An error with its whole chain of causes on one line, for states and logs. Of a cause that draws a picture (TOML), the first
/// and the last line say where and what.
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        let mut lines = message
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty());
        let first = lines.next().unwrap_or_default();
        if !text.ends_with(first) {
            text.push_str(": ");
            text.push_str(first);
        }
        if let Some(last) = lines.next_back() {
            text.push_str(": ");
            text.push_str(last);
        }
        cause = error.source();
    }
    text
}
