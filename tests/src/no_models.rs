//! The part of a box that sends conversations elsewhere, without a model of its own: what comes back came from there.

use std::{num::NonZeroUsize, path::Path};

use anyhow::Context as _;
use autoglm_edge::{
    config::{Config, ESPEAK_NG},
    inference::{
        Inference, InferenceConfig,
        budget::MemoryLimits,
        providers::ProvidersConfig,
        upstream::{Dispatcher, DispatcherConfig},
    },
};

/// An engine with nothing in it, which has to be kept, and the dispatcher before it. `table` is `[inference.upstream.CHAT]` of the configuration.
///
/// # Errors
/// The table is refused.
pub fn dispatcher(
    directory: &Path,
    chat: &str,
    table: &str,
) -> anyhow::Result<(Inference, Dispatcher)> {
    let text = format!("[inference]\nchat = \"{chat}\"\n{table}");
    let config = Config::from_text(&text, Path::new("config.toml")).context("the table")?;
    let inference = Inference::start(InferenceConfig {
        generic: Vec::new(),
        memory: MemoryLimits::default(),
        runtime_path: None,
        model_dirs: vec![directory.to_owned()],
        embedding: chat.to_owned(),
        chat: chat.to_owned(),
        vad: chat.to_owned(),
        stt: None,
        tts: None,
        espeak_ng: ESPEAK_NG.into(),
        context_tokens: 512,
        chat_sessions: NonZeroUsize::MIN,
        chat_cache: autoglm_edge::inference::chat::ChatCache::default(),
        threads: NonZeroUsize::MIN.into(),
        snapshots: None,
        providers: ProvidersConfig::cpu(directory.join("unused")),
        adapt: None,
    });
    let dispatcher = Dispatcher::new(
        inference.handle(),
        DispatcherConfig {
            chat: chat.to_owned(),
            upstream: config.inference.upstreams.get(chat).cloned(),
            bundled_in: None,
        },
    );
    Ok((inference, dispatcher))
}
