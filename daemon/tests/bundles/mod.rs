//! Where the tests find the real ONNX Runtime and the real bundles, copies of these to be changed, and waiting for a model's state.
//! What is absent fails a test, which says what to run.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(
    clippy::allow_attributes,
    reason = "which part is unused differs from file to file"
)]

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};

use autoglm_edge::inference::{
    InferenceConfig, InferenceHandle, budget::MemoryLimits, manifest::Task,
    providers::ProvidersConfig, runtime, status::ModelState,
};
use sha2::{Digest as _, Sha256};

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
        chat_cache: autoglm_edge::inference::chat::ChatCache::default(),
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

/// A private copy of a bundle in `dir`, to be changed or damaged.
pub(crate) fn copied(dir: &Path, name: &str) {
    copied_as(dir, name, name);
}

/// The same under another name.
pub(crate) fn copied_as(dir: &Path, name: &str, as_name: &str) {
    copied_files(&bundle(name), &dir.join(as_name));
}

/// Copies the files of a directory into a new one.
pub(crate) fn copied_files(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// The SHA-256 of a file, as `model.toml` has it.
pub(crate) fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Waits until the state of a model satisfies `wanted`.
pub(crate) async fn until(
    handle: &InferenceHandle,
    task: Task,
    wanted: impl Fn(&ModelState) -> bool,
) -> ModelState {
    let mut status = handle.status();
    let reached = status.wait_for(|status| wanted(&status.model(task).unwrap().state));
    let status = tokio::time::timeout(PATIENCE, reached)
        .await
        .expect("the state is reached")
        .unwrap();
    status.model(task).unwrap().state.clone()
}
