//! What a bundle's `model.toml` says, as written: the serde side of [`Bundle`](super::bundle::Bundle).
//!
//! Nothing here touches the file system or trusts a number; [`bundle`](super::bundle) does the checking and is the only
//! reader. Unknown keys are refused, so that a misspelt key is an error and not a silently ignored wish. `origin` and
//! `parity` are for people and for the tool that builds bundles; the daemon keeps them unread.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

pub use self::layouts::{
    CacheForm, ChatGraph, DecoderFacts, DimensionLimits, EmbeddingGraph, Pooling, TensorsGraph,
    TtsGraph, TtsScales, VadGraph, WhisperGraph, WhisperTokens,
};
use crate::config::upstream::RawUpstream;

mod layouts;

/// The one format number that this daemon reads.
pub const FORMAT: u32 = 1;

/// What a model does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// Sentences to vectors.
    Embedding,
    /// Messages to an answer.
    Chat,
    /// Sound to the probability of speech.
    Vad,
    /// Speech to text.
    Stt,
    /// Text to speech.
    Tts,
    /// Named tensors to named tensors.
    Generic,
}

impl Task {
    /// The word that `model.toml`, logs and the status use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::Chat => "chat",
            Self::Vad => "vad",
            Self::Stt => "stt",
            Self::Tts => "tts",
            Self::Generic => "generic",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The whole of `model.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Format number; only [`FORMAT`] is read.
    pub format: u32,
    /// The bundle's name, which is also its directory's name.
    pub name: String,
    /// What the model does.
    pub task: Task,
    /// A name for people.
    pub title: String,
    /// The licence that the weights' package states.
    pub licence: String,
    /// Precision of the weights, for people: `int4`, `int8`, `fp32`.
    pub precision: String,
    /// Where the weights came from.
    #[serde(default)]
    pub origin: Vec<toml::Table>,
    /// Every file of the bundle but `model.toml` itself, by its path inside the bundle.
    pub files: BTreeMap<String, FileFacts>,
    /// The graph and what its inputs and outputs mean.
    pub graph: Graph,
    /// The tokenizer, for tasks that read text.
    pub tokenizer: Option<TokenizerFacts>,
    /// The chat template, for chat.
    pub template: Option<FileReference>,
    /// The input whose output is known.
    pub probe: FileReference,
    /// An engine elsewhere that may answer in place of this bundle. It counts only where the configuration lets it.
    pub upstream: Option<RawUpstream>,
    /// Measured agreement with the original weights, for people.
    #[serde(default)]
    pub parity: toml::Table,
}

/// Size and digest of one file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileFacts {
    /// SHA-256 as 64 hexadecimal digits, lower case.
    pub sha256: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// A table that names one file of the bundle.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileReference {
    /// Path inside the bundle; a key of `[files]`.
    pub file: String,
}

/// The tokenizer's file and the tokens that end an answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerFacts {
    /// A `tokenizer.json` in the format of the `tokenizers` library.
    pub file: String,
    /// Token ids that end the model's turn (chat only).
    #[serde(default)]
    pub end_of_turn: Vec<u32>,
}

/// Element type and shape of one input or output. A dimension is a number or the name of a free one.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorFacts {
    /// `f32`, `i64`, `i32` and so on.
    #[serde(rename = "type")]
    pub element_type: String,
    /// Dimensions, outermost first.
    pub shape: Vec<Dimension>,
}

/// One dimension of a tensor.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Dimension {
    /// A fixed number of elements.
    Fixed(u64),
    /// A dimension chosen at run time.
    Free(String),
}

/// As `model.toml` has it.
impl fmt::Debug for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(extent) => write!(f, "{extent}"),
            Self::Free(name) => f.write_str(name),
        }
    }
}

/// The graph, by the layout that says what its inputs and outputs mean. A new layout is a new variant here and a new
/// engine beside it; a new model of a known layout is a bundle and no code.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "layout")]
pub enum Graph {
    /// Token ids to logits with the key-value cache bound in place (GroupQueryAttention).
    #[serde(rename = "gqa-in-place")]
    Chat(ChatGraph),
    /// Token ids to logits as optimum and transformers.js export it: an attention mask, and past and present per layer.
    #[serde(rename = "optimum")]
    Optimum(ChatGraph),
    /// Token ids to one vector per token.
    #[serde(rename = "bert-last-hidden-state")]
    Embedding(EmbeddingGraph),
    /// 16 kHz sound to a probability, with a state handed from chunk to chunk.
    #[serde(rename = "silero-v5")]
    Vad(VadGraph),
    /// Speech to text in two graphs: what was heard, and the tokens of what was said.
    #[serde(rename = "whisper")]
    Whisper(Box<WhisperGraph>),
    /// Phoneme ids to sound, as Piper exports its voices.
    #[serde(rename = "piper-vits")]
    Tts(TtsGraph),
    /// Named tensors in and out, without a meaning of their own.
    #[serde(rename = "tensors")]
    Tensors(TensorsGraph),
}

impl Graph {
    /// The task that this layout serves.
    pub fn task(&self) -> Task {
        match self {
            Self::Chat(_) | Self::Optimum(_) => Task::Chat,
            Self::Embedding(_) => Task::Embedding,
            Self::Vad(_) => Task::Vad,
            Self::Whisper(_) => Task::Stt,
            Self::Tts(_) => Task::Tts,
            Self::Tensors(_) => Task::Generic,
        }
    }

    /// The decoder, if this is one of the layouts for chat.
    pub fn chat(&self) -> Option<&ChatGraph> {
        match self {
            Self::Chat(graph) | Self::Optimum(graph) => Some(graph),
            Self::Embedding(_)
            | Self::Vad(_)
            | Self::Whisper(_)
            | Self::Tts(_)
            | Self::Tensors(_) => None,
        }
    }

    /// Attention layers, for which `{layer}` stands in the names of tensors.
    pub fn layers(&self) -> usize {
        match self {
            Self::Chat(graph) | Self::Optimum(graph) => graph.layers,
            Self::Whisper(graph) => graph.layers,
            Self::Embedding(_) | Self::Vad(_) | Self::Tts(_) | Self::Tensors(_) => 0,
        }
    }

    /// The graph's file inside the bundle. Where there are two, the one that providers are proved on.
    pub fn file(&self) -> &str {
        match self {
            Self::Chat(graph) | Self::Optimum(graph) => &graph.file,
            Self::Embedding(graph) => &graph.file,
            Self::Vad(graph) => &graph.file,
            Self::Whisper(graph) => &graph.file,
            Self::Tts(graph) => &graph.file,
            Self::Tensors(graph) => &graph.file,
        }
    }

    /// The inputs that the file declares.
    pub fn inputs(&self) -> &BTreeMap<String, TensorFacts> {
        match self {
            Self::Chat(graph) | Self::Optimum(graph) => &graph.inputs,
            Self::Embedding(graph) => &graph.inputs,
            Self::Vad(graph) => &graph.inputs,
            Self::Whisper(graph) => &graph.inputs,
            Self::Tts(graph) => &graph.inputs,
            Self::Tensors(graph) => &graph.inputs,
        }
    }

    /// The outputs that the file declares.
    pub fn outputs(&self) -> &BTreeMap<String, TensorFacts> {
        match self {
            Self::Chat(graph) | Self::Optimum(graph) => &graph.outputs,
            Self::Embedding(graph) => &graph.outputs,
            Self::Vad(graph) => &graph.outputs,
            Self::Whisper(graph) => &graph.outputs,
            Self::Tts(graph) => &graph.outputs,
            Self::Tensors(graph) => &graph.outputs,
        }
    }
}
