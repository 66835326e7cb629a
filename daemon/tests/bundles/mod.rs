//! Where the tests find the real ONNX Runtime and the real bundles. Absent, a test fails and says what to run.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(
    clippy::allow_attributes,
    reason = "which part is unused differs from file to file"
)]

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};

use autoglm_edge::inference::{
    InferenceConfig, budget::MemoryLimits, providers::ProvidersConfig, runtime,
};

/// Long enough for the slowest model on a busy machine; a test that needs it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) const EMBEDDING: &str = "all-minilm-l6-v2-int8";
pub(crate) const CHAT: &str = "smollm2-135m-instruct-int4";
pub(crate) const VAD: &str = "silero-vad";
pub(crate) const STT: &str = "whisper-tiny-en-int8";
pub(crate) const TTS: &str = "piper-en-us-joe-int8";

/// `AUTOGLM_EDGE_CACHE`, or the user's cache directory.
pub(crate) fn cache() -> PathBuf {
    let set = std::env::var_os("AUTOGLM_EDGE_CACHE").map(PathBuf::from);
    let cache = set
        .or_else(|| runtime::cache_dir().map(|cache| cache.join("autoglm-edge")))
        .expect("a cache directory");
    assert!(
        cache.join("models").is_dir(),
        "no bundles in {}: run `make test`, which fetches them",
        cache.display()
    );
    cache
}

pub(crate) fn runtime_path() -> PathBuf {
    let parent = cache().join("runtime");
    let found = std::fs::read_dir(&parent)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("libonnxruntime.so"))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "no ONNX Runtime in {}: run `make test`, which fetches it",
            parent.display()
        )
    })
}

pub(crate) fn bundle(name: &str) -> PathBuf {
    let dir = cache().join("models").join(name);
    assert!(
        dir.join("model.toml").is_file(),
        "no bundle {}: run `make test`, which fetches it",
        dir.display()
    );
    dir
}

/// Conversations at a time, unless a test says otherwise.
pub(crate) const CHAT_SESSIONS: usize = 8;

pub(crate) fn config() -> InferenceConfig {
    for name in [EMBEDDING, CHAT, VAD] {
        bundle(name);
    }
    InferenceConfig {
        runtime_path: Some(runtime_path()),
        model_dirs: vec![cache().join("models")],
        embedding: EMBEDDING.into(),
        chat: CHAT.into(),
        vad: VAD.into(),
        stt: None,
        tts: None,
        espeak_ng: autoglm_edge::config::ESPEAK_NG.into(),
        generic: Vec::new(),
        context_tokens: 1024,
        chat_sessions: NonZeroUsize::new(CHAT_SESSIONS).expect("it is not zero"),
        threads: NonZeroUsize::MIN.into(),
        snapshots: None,
        // Nothing is written there unless a policy asks for providers.
        providers: ProvidersConfig::cpu(std::env::temp_dir().join("autoglm-edge-unused")),
        memory: MemoryLimits::default(),
        adapt: None,
    }
}

/// Only the named bundles, linked into a directory of their own; whatever else is configured is missing.
pub(crate) fn config_of(dir: &Path, names: &[&str]) -> InferenceConfig {
    for name in names {
        std::os::unix::fs::symlink(bundle(name), dir.join(name)).expect("a fresh directory");
    }
    InferenceConfig {
        model_dirs: vec![dir.into()],
        ..config()
    }
}
