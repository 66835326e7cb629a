//! Why a model does not serve: it could not be loaded, proved or loaded anew.

use std::{error::Error as StdError, path::PathBuf, sync::Arc};

use thiserror::Error;

use super::InferenceError;
use crate::inference::{
    bundle::{Bundle, BundleError},
    manifest::Task,
    probe::ProbeError,
    providers::{Tried, trial::TrialError},
    runtime::RuntimeError,
    tts::espeak::EspeakError,
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

impl LoadError {
    /// Of a bundle whose probe could not be run.
    pub(in crate::inference) fn probe_run(bundle: &Bundle) -> impl Fn(InferenceError) -> Self {
        let name = bundle.manifest().name.clone();
        move |source| Self::ProbeRun {
            name: name.clone(),
            source: Box::new(source),
        }
    }
}
