//! The default models as the benches use them: where they are, and the chat model's tokens.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use autoglm_edge::inference::InferenceConfig;
use autoglm_edge::inference::budget::MemoryLimits;
use autoglm_edge::inference::chat::ChatMessage;
use autoglm_edge::inference::providers::ProvidersConfig;
use tokenizers::Tokenizer;

use crate::edge_box;
use crate::process::newest;

/// The default embedding model's bundle.
pub const EMBEDDING: &str = "all-minilm-l6-v2-int8";
/// The default chat model's bundle.
pub const CHAT: &str = "smollm2-135m-instruct-int4";

/// The default speech-to-text model's bundle.
pub const STT: &str = "whisper-tiny-en-int8";

/// ONNX Runtime and the bundles in the cache.
#[derive(Debug, Clone)]
pub struct Bundles {
    runtime: PathBuf,
    models: PathBuf,
}

impl Bundles {
    /// Finds them in the cache: `AUTOGLM_EDGE_CACHE`, or the user's.
    ///
    /// # Errors
    /// When they are not there; says what to do.
    pub fn find() -> anyhow::Result<Self> {
        let cache = edge_box::cache()?;
        Ok(Self {
            runtime: newest(&cache.join("runtime"))?,
            models: cache.join("models"),
        })
    }

    /// The directory with all of them.
    #[must_use]
    pub fn models(&self) -> &Path {
        &self.models
    }

    /// The directory of one of them.
    #[must_use]
    pub fn bundle(&self, name: &str) -> PathBuf {
        self.models.join(name)
    }

    /// ONNX Runtime's library.
    #[must_use]
    pub fn library(&self) -> PathBuf {
        self.runtime.join("libonnxruntime.so")
    }

    /// ONNX Runtime's name with its version, as its package has it.
    #[must_use]
    pub fn runtime_name(&self) -> String {
        let name = self.runtime.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// An inference engine with only the embedding model.
    #[must_use]
    pub fn embedding_only(&self) -> InferenceConfig {
        InferenceConfig {
            runtime_path: Some(self.library()),
            model_dirs: vec![self.models.clone()],
            embedding: EMBEDDING.into(),
            chat: "none".into(),
            vad: "none".into(),
            stt: None,
            tts: None,
            espeak_ng: autoglm_edge::config::ESPEAK_NG.into(),
            generic: Vec::new(),
            context_tokens: 128,
            chat_sessions: NonZeroUsize::new(8).expect("eight is not zero"),
            chat_cache: autoglm_edge::inference::chat::ChatCache::default(),
            threads: NonZeroUsize::MIN.into(),
            snapshots: None,
            // Nothing is written there: no policy asks for providers.
            providers: ProvidersConfig::cpu(std::env::temp_dir().join("autoglm-edge-unused")),
            memory: MemoryLimits::default(),
            adapt: None,
        }
    }

    /// The tokenizer of one of them.
    ///
    /// # Errors
    /// When its file is not there or broken.
    pub fn tokens(&self, name: &str) -> anyhow::Result<Tokens> {
        let path = self.bundle(name).join("tokenizer.json");
        let mut tokenizer = Tokenizer::from_file(&path)
            .map_err(anyhow::Error::from_boxed)
            .with_context(|| path.display().to_string())?;
        tokenizer.with_padding(None);
        Ok(Tokens(tokenizer))
    }
}

/// A bundle's tokenizer.
#[derive(Debug)]
pub struct Tokens(Tokenizer);

impl Tokens {
    /// The tokens of a sentence, between the model's marks of its beginning and end.
    ///
    /// # Errors
    /// The tokenizer's.
    pub fn of_sentence(&self, text: &str) -> anyhow::Result<Vec<i64>> {
        self.encode(text, true)
    }

    /// The tokens of a text as it stands.
    ///
    /// # Errors
    /// The tokenizer's.
    pub fn of_text(&self, text: &str) -> anyhow::Result<Vec<i64>> {
        self.encode(text, false)
    }

    fn encode(&self, text: &str, marks: bool) -> anyhow::Result<Vec<i64>> {
        let encoding = self
            .0
            .encode_fast(text, marks)
            .map_err(anyhow::Error::from_boxed)?;
        Ok(encoding.get_ids().iter().map(|&id| i64::from(id)).collect())
    }
}

/// The default chat model's template, written out; `bench-inference` checks that the engine counts as many tokens.
#[must_use]
pub fn rendered(messages: &[ChatMessage]) -> String {
    let mut text = String::new();
    for message in messages {
        let role = message.role.as_str();
        text += &format!("<|im_start|>{role}\n{}<|im_end|>\n", message.content);
    }
    text + "<|im_start|>assistant\n"
}
