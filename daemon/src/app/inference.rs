//! What the engine is to run, and who else may answer: the configuration in the engine's own types.
//!
//! Never decides anything: defaults are the configuration's and the engine's. Read [`InferenceConfig`] and
//! [`crate::config`] first.

use crate::config::Config;
use crate::config::adapt::AdaptSettings;
use crate::config::providers::PolicySettings;
use crate::inference::InferenceConfig;
use crate::inference::adapt::{self, AdaptConfig};
use crate::inference::budget::MemoryLimits;
use crate::inference::chat::SnapshotConfig;
use crate::inference::providers::{Policy, ProvidersConfig, Selector, candidate};
use crate::inference::threads::Threads;
use crate::inference::upstream::DispatcherConfig;
use crate::store::Store;
use crate::store::verdicts::Verdicts;

/// The models, and what they may use.
pub(super) fn engine(config: &Config, store: &Store) -> InferenceConfig {
    InferenceConfig {
        runtime_path: config.inference.runtime.clone(),
        model_dirs: config.inference.model_dirs.clone(),
        embedding: config.inference.embedding.clone(),
        chat: config.inference.chat.clone(),
        vad: config.inference.vad.clone(),
        stt: config.inference.stt.clone(),
        tts: config.inference.tts.clone(),
        espeak_ng: config.inference.espeak_ng.clone(),
        generic: config.inference.generic.clone(),
        context_tokens: config.inference.context_tokens,
        chat_sessions: config.inference.chat_sessions,
        chat_cache: config.inference.chat_cache,
        threads: Threads {
            asked: config.inference.threads,
            lent: None,
        },
        snapshots: (config.inference.context_cache_bytes > 0).then(|| SnapshotConfig {
            directory: config.state_dir.join("contexts"),
            bytes_max: config.inference.context_cache_bytes,
            store: store.handle(),
        }),
        providers: providers(config, store),
        memory: MemoryLimits {
            bytes_max: config.inference.memory_bytes,
            ..MemoryLimits::default()
        },
        adapt: config.inference.adapt.as_ref().map(adapt),
    }
}

/// What models run on, as the engine takes it.
fn providers(config: &Config, store: &Store) -> ProvidersConfig {
    let settings = &config.inference.providers;
    let policy = |settings: &PolicySettings| {
        let defaults = match settings.is_required {
            true => Policy::required(),
            false => Policy::default(),
        };
        // The configuration's check lets nothing through that is no selector.
        let picks = |picks: &[String]| -> Vec<Selector> {
            picks.iter().filter_map(|pick| pick.parse().ok()).collect()
        };
        let options = settings.options.iter().map(|(provider, options)| {
            let name = candidate::short(provider).to_ascii_lowercase();
            (name, options.clone())
        });
        Policy {
            wanted: picks(&settings.wanted),
            allow: picks(&settings.allow),
            nodes_min: settings.nodes_min.unwrap_or(defaults.nodes_min),
            tolerance: settings.tolerance.unwrap_or(defaults.tolerance),
            time_max: settings.time_max.unwrap_or(defaults.time_max),
            options: options.collect(),
            ..defaults
        }
    };
    ProvidersConfig {
        dir: settings.dir.clone(),
        cache_dir: config.state_dir.join("compiled"),
        cache_bytes_max: settings.compiled_bytes_max,
        trial_time_max: settings.trial_time_max,
        trial_memory_bytes: settings.trial_memory_bytes,
        program: None,
        policy: policy(&settings.policy),
        policies: settings
            .models
            .iter()
            .map(|(name, settings)| (name.clone(), policy(settings)))
            .collect(),
        verdicts: Some(Verdicts::new(store.handle())),
        fixed: None,
    }
}

/// What strain is, as the engine takes it.
fn adapt(settings: &AdaptSettings) -> AdaptConfig {
    AdaptConfig {
        timing: adapt::Timing {
            rise: settings.rise,
            dwell: settings.dwell,
            dwell_max: settings.dwell_max,
        },
        limits: adapt::Limits {
            cpu_percent: settings.cpu_percent,
            memory_percent: settings.memory_percent,
            zone_c: settings.zone_c,
            slower_times: settings.slower_times,
        },
        measures: adapt::Measures {
            eased_threads: settings.eased_threads,
            strained_threads: settings.strained_threads,
            smaller: settings.smaller_chat.as_deref().map(Into::into),
        },
        ..AdaptConfig::default()
    }
}

/// Who else may answer conversations.
pub(super) fn elsewhere(config: &Config) -> DispatcherConfig {
    let inference = &config.inference;
    DispatcherConfig {
        chat: inference.chat.clone(),
        upstream: inference.upstreams.get(&inference.chat).cloned(),
        bundled_in: inference
            .is_bundle_upstream_allowed
            .then(|| inference.model_dirs.clone()),
    }
}
