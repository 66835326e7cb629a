//! The layouts of graphs that are known, each with what `model.toml` says of it.

use std::{collections::BTreeMap, ops::RangeInclusive};

use serde::Deserialize;

use super::TensorFacts;

/// Layout `gqa-in-place`. Inputs `input_ids[B,S] i64`, `seqlens_k[B] i32` (total length - 1), `total_sequence_length i32`,
/// `logits_pos[n] i64`, `past_key_values.{layer}.{key,value}[B,kv_heads,max,head_dim]`; outputs `logits[n,vocab_size]` and
/// `present.{layer}.{key,value}`, bound to the same buffers as the past.
///
/// Layout `optimum`. Inputs `input_ids[B,S] i64`, `attention_mask[B,past+S] i64`, perhaps `position_ids[B,S] i64`, and
/// `past_key_values.{layer}.{key,value}[B,kv_heads,past,head_dim]`; outputs `logits[B,S,vocab_size]` and `present.{layer}.{key,value}`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatGraph {
    /// The graph's file.
    pub file: String,
    /// Number of attention layers.
    pub layers: usize,
    /// Key-value heads per layer.
    pub kv_heads: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Number of token ids, which is the width of `logits`.
    pub vocab_size: usize,
    /// The longest context that the model was made for, in tokens.
    pub context_tokens: usize,
    /// Element type of the cache; `f32`, `f16` or `i8`.
    pub kv_type: String,
    /// Layout `optimum` alone: how the graph treats its cache. Such graphs are taken for appending ones if it is not said.
    #[serde(default)]
    pub cache: CacheForm,
    /// Declared inputs.
    pub inputs: BTreeMap<String, TensorFacts>,
    /// Declared outputs.
    pub outputs: BTreeMap<String, TensorFacts>,
}

/// How a graph of the layout `optimum` treats its key-value cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CacheForm {
    /// It joins past and new into new tensors. Every graph can be run so.
    #[default]
    Appended,
    /// Past and present may be one buffer, of which the attention mask says how much counts (GroupQueryAttention). Several
    /// sequences run together.
    InPlace,
}

/// Layout `bert-last-hidden-state`. Inputs `input_ids`, `attention_mask` and perhaps `token_type_ids`, all `[B,S] i64`; output
/// `last_hidden_state[B,S,dimensions] f32`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingGraph {
    /// The graph's file.
    pub file: String,
    /// How token vectors become one sentence vector.
    pub pooling: Pooling,
    /// Whether the sentence vector is scaled to length 1.
    pub normalize: bool,
    /// Length of the sentence vector.
    pub dimensions: usize,
    /// Longest input in tokens; what is beyond is cut off.
    pub max_tokens: usize,
    /// Declared inputs.
    pub inputs: BTreeMap<String, TensorFacts>,
    /// Declared outputs.
    pub outputs: BTreeMap<String, TensorFacts>,
}

/// How token vectors become one sentence vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The mean over all tokens of the sentence.
    Mean,
}

/// Layout `silero-v5`. Inputs `input[B, context_samples + chunk_samples] f32` in -1..1, `state` of `state_shape`, and perhaps
/// `sr i64`; outputs `output` (the probability) and `stateN` (the next state).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VadGraph {
    /// The graph's file.
    pub file: String,
    /// Sample rate in Hz.
    pub sample_rate_hz: u32,
    /// New samples per run.
    pub chunk_samples: usize,
    /// Samples of the previous chunk that are put in front of a chunk.
    pub context_samples: usize,
    /// Shape of the recurrent state.
    pub state_shape: Vec<usize>,
    /// Declared inputs.
    pub inputs: BTreeMap<String, TensorFacts>,
    /// Declared outputs.
    pub outputs: BTreeMap<String, TensorFacts>,
}

/// Layout `whisper`. `file` is the encoder: input `pcm[1,window_samples] f32` in -1..1, outputs `cross.{layer}.{key,value}[1,heads,positions,head_dim]`
/// with `positions = window_samples / position_samples`. `decoder` has the inputs `input_ids[B,S] i64`, `position_ids[B,S] i64`, `seqlens_k[B] i32` (total
/// length - 1), `total_sequence_length i32`, `logits_pos[n] i64`, `cross.{layer}.{key,value}` and
/// `past_key_values.{layer}.{key,value}[B,heads,max,head_dim]`; outputs `logits[n,vocab_size]` and `present.{layer}.{key,value}`, bound to the same
/// buffers as the past.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhisperGraph {
    /// The encoder's file.
    pub file: String,
    /// Number of attention layers of the decoder.
    pub layers: usize,
    /// Attention heads per layer.
    pub heads: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Number of token ids, which is the width of `logits`.
    pub vocab_size: usize,
    /// The most tokens that the decoder was made for, with those that begin an answer.
    pub context_tokens: usize,
    /// Sample rate in Hz.
    pub sample_rate_hz: u32,
    /// The longest sound that is heard at once, in samples; a multiple of `position_samples`.
    pub window_samples: usize,
    /// Samples of each position of the encoder.
    pub position_samples: usize,
    /// The languages that it understands, as ISO 639-1 has them.
    pub languages: Vec<String>,
    /// The tokens that are no text.
    pub tokens: WhisperTokens,
    /// Declared inputs of the encoder.
    pub inputs: BTreeMap<String, TensorFacts>,
    /// Declared outputs of the encoder.
    pub outputs: BTreeMap<String, TensorFacts>,
    /// The decoder.
    pub decoder: DecoderFacts,
}

/// The tokens of layout `whisper` that are no text. All are below `vocab_size`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhisperTokens {
    /// What an answer begins with, before its first time: start, and for models of several languages language and task.
    pub start: Vec<u32>,
    /// The end of an answer.
    pub end: u32,
    /// That nobody speaks.
    pub no_speech: u32,
    /// The time 0; from here on each id is a time, `timestamp_samples` after the one before. What is between `end` and here is no text.
    pub first_timestamp: u32,
    /// Samples from one time to the next.
    pub timestamp_samples: usize,
    /// Ids that are never chosen.
    pub suppressed: Vec<u32>,
}

/// A graph that goes with another.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecoderFacts {
    /// Its file.
    pub file: String,
    /// Declared inputs.
    pub inputs: BTreeMap<String, TensorFacts>,
    /// Declared outputs.
    pub outputs: BTreeMap<String, TensorFacts>,
}

/// Layout `piper-vits`. Inputs `input[B,S] i64` (phoneme ids), `input_lengths[B] i64`, `scales[3] f32` (noise, length, noise of the
/// lengths) and, for a voice of several speakers, `sid[B] i64`; output `output`, `hop_samples` for each frame, f32 in -1..1.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TtsGraph {
    /// The graph's file.
    pub file: String,
    /// Sample rate in Hz.
    pub sample_rate_hz: u32,
    /// Samples per frame: the sound's length is a multiple of it.
    pub hop_samples: usize,
    /// Speakers that the voice has.
    pub speakers: u32,
    /// The voice of espeak-ng that makes its phonemes, as `espeak-ng --voices` has it.
    pub espeak_voice: String,
    /// The phoneme that stands before and behind every other one.
    pub pad: char,
    /// The phoneme that begins.
    pub begin: char,
    /// The phoneme that ends.
    pub end: char,
    /// Number of phoneme ids that the graph has.
    pub symbols: u32,
    /// What it was made to be spoken with.
    pub scales: TtsScales,
    /// The id of each phoneme: one character of espeak-ng's IPA in NFD, or a mark of punctuation.
    pub phonemes: BTreeMap<char, u32>,
    /// Declared inputs.
    pub inputs: BTreeMap<String, TensorFacts>,
    /// Declared outputs.
    pub outputs: BTreeMap<String, TensorFacts>,
}

/// How a voice is spoken with.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TtsScales {
    /// How much the sound varies from one time to the next; 0 is always the same.
    pub noise: f32,
    /// How long everything takes; 1 is as recorded.
    pub length: f32,
    /// How much the lengths of the phonemes vary; 0 is always the same.
    pub noise_width: f32,
}

/// Layout `tensors`: whatever the inputs and outputs say. A free dimension has one extent in all inputs of a request.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorsGraph {
    /// The graph's file.
    pub file: String,
    /// The free dimension that is the first one of every input and output, and whose rows do not touch each other: requests are run
    /// together up to its `max`. Absent: each request is run by itself.
    pub batch: Option<String>,
    /// Limits of every free dimension of the inputs.
    #[serde(default)]
    pub dimensions: BTreeMap<String, DimensionLimits>,
    /// Declared inputs.
    pub inputs: BTreeMap<String, TensorFacts>,
    /// Declared outputs.
    pub outputs: BTreeMap<String, TensorFacts>,
}

/// Limits of a free dimension, both inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DimensionLimits {
    /// Least extent.
    #[serde(default = "one")]
    pub min: usize,
    /// Largest extent.
    pub max: usize,
}

fn one() -> usize {
    1
}

impl TensorsGraph {
    /// What a free dimension may be; a name that has no limits takes nothing.
    pub fn range(&self, dimension: &str) -> RangeInclusive<usize> {
        match self.dimensions.get(dimension) {
            Some(limits) => limits.min..=limits.max,
            None => RangeInclusive::new(1, 0),
        }
    }

    /// Most rows of a run; 1 where there is no batch.
    pub fn rows_max(&self) -> usize {
        self.batch
            .as_deref()
            .map_or(1, |batch| *self.range(batch).end())
    }
}
