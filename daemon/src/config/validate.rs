//! From the raw file to checked values; each refusal names its culprit.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use autoglm_drivers::backoff::Backoff;
use autoglm_drivers::http::Base;
use autoglm_drivers::mqtt::{AccessError, Broker};

use super::device::{brokers, devices};
use super::fleet;
use super::raw::RawConfig;
use super::{Bus, Config, InferenceSettings, SessionSettings};

/// Most bundles of plain tensors: each takes a thread.
const GENERIC_MAX: usize = 16;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: cannot read the configuration")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a wrong type. The message shows the line.
    #[error("{path}: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, column and cause.
        message: String,
    },
    /// A value that is not allowed.
    #[error("{path}: {key} = {value}: {allowed}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The key, with its table.
        key: String,
        /// What stands there.
        value: String,
        /// What may stand there.
        allowed: String,
    },
    /// Certificates or a key that a request to an engine elsewhere could not use.
    #[error("{path}: the engine at {url} cannot be spoken to")]
    Upstream {
        /// The file that names them.
        path: PathBuf,
        /// The engine's address.
        url: String,
        /// What is wrong with which of them.
        #[source]
        source: Box<AccessError>,
    },
    /// Certificates, key or password that a broker connection could not use.
    #[error("{path}: the broker {broker} cannot be spoken to")]
    Access {
        /// The file that names them.
        path: PathBuf,
        /// The broker's address.
        broker: String,
        /// What is wrong with which of them.
        #[source]
        source: Box<AccessError>,
    },
}

impl ConfigError {
    pub(super) fn upstream(path: &Path, base: &Base, source: AccessError) -> Self {
        Self::Upstream {
            path: path.to_owned(),
            url: base.to_string(),
            source: Box::new(source),
        }
    }

    pub(super) fn access(path: &Path, broker: &Broker, source: AccessError) -> Self {
        Self::Access {
            path: path.to_owned(),
            broker: broker.to_string(),
            source: Box::new(source),
        }
    }
}

/// Reports a value of one file.
pub(super) struct Reject<'a>(&'a Path);

impl<'a> Reject<'a> {
    /// For values that stand in the file at `path`.
    pub(super) fn at(path: &'a Path) -> Self {
        Self(path)
    }

    pub(super) fn value(
        &self,
        key: impl Into<String>,
        value: impl ToString,
        allowed: impl ToString,
    ) -> ConfigError {
        ConfigError::Value {
            path: self.0.to_owned(),
            key: key.into(),
            value: format!("{:?}", value.to_string()),
            allowed: allowed.to_string(),
        }
    }

    /// A whole number within its range.
    pub(super) fn within(
        &self,
        key: &str,
        value: u64,
        min: u64,
        max: u64,
    ) -> Result<u64, ConfigError> {
        if (min..=max).contains(&value) {
            Ok(value)
        } else {
            Err(self.value(key, value, format!("must be from {min} to {max}")))
        }
    }

    fn count(&self, key: &str, value: usize, min: usize, max: usize) -> Result<usize, ConfigError> {
        self.within(key, value as u64, min as u64, max as u64)
            .map(|_| value)
    }
}

/// Numbers are served without asking who reads them, so they stay on the machine.
fn loopback(reject: &Reject<'_>, listen: &str) -> Result<SocketAddr, ConfigError> {
    let address = listen.parse::<SocketAddr>().ok();
    let address = address.filter(|address| address.ip().is_loopback());
    address.ok_or_else(|| {
        let allowed = "must be a port of this machine, as 127.0.0.1:9477 or [::1]:9477; to reach it from elsewhere, put a proxy before it that knows who asks";
        reject.value("metrics.listen", listen, allowed)
    })
}

pub(super) fn validate(raw: RawConfig, path: &Path) -> Result<Config, ConfigError> {
    let reject = Reject(path);
    let box_id = match raw.edge_box.id {
        Some(id) => name(&reject, "box.id", id)?,
        None => host_name(),
    };
    let bus = match raw.bus.kind.as_str() {
        "system" => Bus::System,
        "session" => Bus::Session,
        "off" => Bus::Off,
        other => {
            return Err(reject.value(
                "bus.kind",
                other,
                "must be \"system\", \"session\" or \"off\"",
            ));
        }
    };
    raw.log
        .filter
        .parse::<tracing_subscriber::EnvFilter>()
        .map_err(|error| reject.value("log.filter", &raw.log.filter, error))?;
    let metrics = raw.metrics.listen.map(|listen| loopback(&reject, &listen));
    let metrics = metrics.transpose()?;
    let min_ms = reject.within("reconnect.min_ms", raw.reconnect.min_ms, 10, 60_000)?;
    let link_backoff = Backoff {
        min: Duration::from_millis(min_ms),
        max: Duration::from_millis(reject.within(
            "reconnect.max_ms",
            raw.reconnect.max_ms,
            min_ms,
            3_600_000,
        )?),
        healthy_after: Duration::from_secs(reject.within(
            "reconnect.healthy_s",
            raw.reconnect.healthy_s,
            1,
            86_400,
        )?),
    };
    let chat_sessions = reject.count(
        "inference.chat_sessions",
        raw.inference.chat_sessions,
        1,
        64,
    )?;
    let chat_sessions =
        NonZeroUsize::new(chat_sessions).expect("the range that was just checked begins at 1");
    let threads = reject.count("inference.threads", raw.inference.threads, 0, 256)?;
    let named = [
        ("inference.embedding", &raw.inference.embedding),
        ("inference.chat", &raw.inference.chat),
        ("inference.vad", &raw.inference.vad),
    ];
    let stt = Some(&raw.inference.stt).filter(|bundle| !bundle.is_empty());
    let tts = Some(&raw.inference.tts).filter(|bundle| !bundle.is_empty());
    let generic = raw.inference.generic.iter();
    for (key, bundle) in named
        .into_iter()
        .chain(stt.map(|bundle| ("inference.stt", bundle)))
        .chain(tts.map(|bundle| ("inference.tts", bundle)))
        .chain(generic.map(|bundle| ("inference.generic", bundle)))
    {
        if bundle.is_empty() || bundle.contains(['/', '\\']) || bundle.starts_with('.') {
            return Err(reject.value(
                key,
                bundle,
                "must be the name of a bundle's directory, not a path",
            ));
        }
    }
    let mut generic = raw.inference.generic.clone();
    generic.sort();
    if let Some(pair) = generic.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(reject.value("inference.generic", &pair[0], "must be named once"));
    }
    if generic.len() > GENERIC_MAX {
        let allowed = format!("must be at most {GENERIC_MAX} bundles");
        return Err(reject.value("inference.generic", generic.len(), allowed));
    }
    let providers = super::providers::validate(&reject, &raw.inference)?;
    let upstreams =
        super::upstream::validate(&reject, &raw.inference.upstream, &raw.inference.chat)?;
    let adapt = super::adapt::validate(&reject, &raw.inference.adapt, &raw.inference.chat)?;
    Ok(Config {
        box_id,
        state_dir: absolute(&reject, "box.state_dir", &raw.edge_box.state_dir)?,
        bus,
        log_filter: raw.log.filter,
        metrics,
        devices: devices(&reject, raw.device, &brokers(&reject, &raw.broker)?)?,
        link_backoff,
        inference: InferenceSettings {
            runtime: raw
                .inference
                .runtime
                .map(|path| absolute(&reject, "inference.runtime", &path))
                .transpose()?,
            model_dirs: raw
                .inference
                .model_dirs
                .iter()
                .map(|path| absolute(&reject, "inference.model_dirs", path))
                .collect::<Result<_, _>>()?,
            embedding: raw.inference.embedding,
            chat: raw.inference.chat,
            vad: raw.inference.vad,
            stt: stt.cloned(),
            tts: tts.cloned(),
            espeak_ng: absolute(&reject, "inference.espeak_ng", &raw.inference.espeak_ng)?,
            generic: raw.inference.generic,
            context_tokens: reject.count(
                "inference.context_tokens",
                raw.inference.context_tokens,
                256,
                131_072,
            )?,
            chat_sessions,
            chat_cache: raw.inference.chat_cache,
            context_cache_bytes: reject.within(
                "inference.context_cache_mib",
                raw.inference.context_cache_mib,
                0,
                1 << 20,
            )? << 20,
            memory_bytes: Some(
                reject.within("inference.memory_mib", raw.inference.memory_mib, 0, 1 << 20)? << 20,
            )
            .filter(|bytes| *bytes > 0),
            threads: NonZeroUsize::new(threads),
            answer_tokens_max: reject.count(
                "inference.answer_tokens_max",
                raw.inference.answer_tokens_max,
                1,
                4096,
            )?,
            providers,
            upstreams,
            is_bundle_upstream_allowed: raw.inference.bundle_upstreams,
            adapt,
        },
        foreign: super::foreign::validate(&reject, raw.foreign)?,
        fleet: raw
            .fleet
            .map(|fleet| fleet::fleet(&reject, fleet))
            .transpose()?,
        sessions: SessionSettings {
            context_turns: reject.count(
                "sessions.context_turns",
                raw.sessions.context_turns,
                0,
                100,
            )?,
            turns_max: reject.within("sessions.turns_max", raw.sessions.turns_max, 1, 512)?,
            sessions_max: reject.count(
                "sessions.sessions_max",
                raw.sessions.sessions_max,
                1,
                1_000_000,
            )?,
            age_max: Duration::from_secs(
                86_400
                    * reject.within(
                        "sessions.age_max_days",
                        raw.sessions.age_max_days,
                        1,
                        36_500,
                    )?,
            ),
        },
        command_deadline: Duration::from_millis(reject.within(
            "commands.deadline_ms",
            raw.commands.deadline_ms,
            100,
            600_000,
        )?),
        wording: raw
            .understanding
            .wording
            .map(|path| absolute(&reject, "understanding.wording", &path))
            .transpose()?,
    })
}

/// A name that is safe in topics, object paths and file names.
pub(super) fn name(reject: &Reject<'_>, key: &str, name: String) -> Result<String, ConfigError> {
    let is_fit = (1..=63).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if is_fit {
        Ok(name)
    } else {
        Err(reject.value(key, name, "must be 1 to 63 of a-z, 0-9 and -"))
    }
}

pub(super) fn absolute(reject: &Reject<'_>, key: &str, path: &str) -> Result<PathBuf, ConfigError> {
    if path.starts_with('/') {
        Ok(PathBuf::from(path))
    } else {
        Err(reject.value(key, path, "must be an absolute path"))
    }
}

/// The host name, made fit for a topic.
fn host_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let fit: String = host
        .trim()
        .to_ascii_lowercase()
        .chars()
        .map(|letter| {
            if letter.is_ascii_alphanumeric() {
                letter
            } else {
                '-'
            }
        })
        .take(63)
        .collect();
    if fit.is_empty() {
        "edge".to_owned()
    } else {
        fit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        Config::from_text(text, Path::new("config.toml"))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        let config = Config::from_text("", Path::new("config.toml")).unwrap();
        assert_eq!(config.bus, Bus::System);
        assert!(config.fleet.is_none() && config.devices.is_empty());
    }

    #[test]
    fn a_mistyped_key_is_named_with_its_line() {
        let message = refusal("[bus]\nknd = \"system\"\n");
        assert!(
            message.contains("config.toml")
                && message.contains("knd")
                && message.contains("line 2"),
            "{message}"
        );
    }

    #[test]
    fn a_wrong_value_names_key_value_and_what_is_allowed() {
        for (text, parts) in [
            ("[bus]\nkind = \"both\"", ["bus.kind", "both", "session"]),
            (
                "[commands]\ndeadline_ms = 5",
                ["commands.deadline_ms", "5", "100"],
            ),
            ("[box]\nid = \"My Box\"", ["box.id", "My Box", "a-z"]),
            (
                "[fleet]\nbroker=\"http://x\"",
                ["fleet.broker", "http://x", "mqtt://"],
            ),
            ("[log]\nfilter=\"a=b=c\"", ["log.filter", "a=b=c", ""]),
        ] {
            let message = refusal(text);
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        }
    }
}
