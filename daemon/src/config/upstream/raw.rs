//! The tables as they are written, with their defaults.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `[inference.upstream.NAME]`, by bundle.
pub type RawUpstreams = BTreeMap<String, RawUpstream>;

/// One engine, as it is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawUpstream {
    /// `never`, `when-overloaded` or `always`. No default: what is said leaves the box.
    pub policy: String,
    /// `openai` or `kserve`. Default: openai.
    #[serde(default = "protocol")]
    pub protocol: String,
    /// What stands before `/v1/…` or `/v2/…`: `https://host[:port][/prefix]`, or `http://` to this machine.
    pub url: String,
    /// The model's name there.
    pub model: String,
    /// Whether `http://` may leave this machine. Default: no.
    #[serde(default)]
    pub allow_clear: bool,
    /// The authorities that may have signed the engine's certificate: absolute path or `credential:NAME`. Default: the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// The file with the key that the engine is shown: absolute path or `credential:NAME`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
    /// Milliseconds for the connection with its TLS. Default 2000.
    #[serde(default = "connect_ms")]
    pub connect_ms: u64,
    /// Milliseconds from the request to the first word. Default 20000: long prompts are read by busy engines.
    #[serde(default = "first_token_ms")]
    pub first_token_ms: u64,
    /// Milliseconds for the whole answer. Default 120000.
    #[serde(default = "total_ms")]
    pub total_ms: u64,
    /// Failures in a row after which the engine is left alone. Default 3.
    #[serde(default = "failures")]
    pub failures: u32,
    /// Shortest time in milliseconds for which it is left alone. Default 1000.
    #[serde(default = "rest_min_ms")]
    pub rest_min_ms: u64,
    /// Longest time in milliseconds for which it is left alone. Default 60000.
    #[serde(default = "rest_max_ms")]
    pub rest_max_ms: u64,
    /// Answers from there at a time. Default 8.
    #[serde(default = "answers_max")]
    pub answers_max: usize,
    /// `[inference.upstream.NAME.kserve]`, with `protocol = "kserve"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kserve: Option<RawKServe>,
}

/// How text is put to an engine that knows no conversations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawKServe {
    /// `generate_stream`, word by word, `infer`, the answer in one piece, or `infer_stream`, tensors word by word. Default: generate_stream.
    pub endpoint: String,
    /// The chat template (Jinja, as tokenizers have it) that makes one text of a conversation. Default: ChatML.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// With `infer` and `infer_stream`: the tensor that takes the text. Default: text_input.
    pub input: String,
    /// With `infer` and `infer_stream`: the tensor that brings the answer. Default: text_output.
    pub output: String,
}

impl Default for RawKServe {
    fn default() -> Self {
        Self {
            endpoint: "generate_stream".to_owned(),
            template: None,
            input: "text_input".to_owned(),
            output: "text_output".to_owned(),
        }
    }
}

fn protocol() -> String {
    "openai".to_owned()
}

fn connect_ms() -> u64 {
    2_000
}

fn first_token_ms() -> u64 {
    20_000
}

fn total_ms() -> u64 {
    120_000
}

fn failures() -> u32 {
    3
}

fn rest_min_ms() -> u64 {
    1_000
}

fn rest_max_ms() -> u64 {
    60_000
}

fn answers_max() -> usize {
    8
}
