//! The configuration file as it is written, and every default.
//!
//! Unknown keys are refused, so that a typing error is never a silent default.

use serde::{Deserialize, Serialize};

use super::ChatCache;

/// The whole file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawConfig {
    /// `[box]`
    #[serde(rename = "box")]
    pub edge_box: RawBox,
    /// `[bus]`
    pub bus: RawBus,
    /// `[log]`
    pub log: RawLog,
    /// `[metrics]`
    pub metrics: RawMetrics,
    /// `[reconnect]`
    pub reconnect: RawReconnect,
    /// `[commands]`
    pub commands: RawCommands,
    /// `[inference]`
    pub inference: RawInference,
    /// `[understanding]`
    pub understanding: RawUnderstanding,
    /// `[sessions]`
    pub sessions: RawSessions,
    /// `[foreign]`
    pub foreign: super::foreign::RawForeign,
    /// `[fleet]`
    pub fleet: Option<RawFleet>,
    /// `[[broker]]`
    pub broker: Vec<RawBroker>,
    /// `[[device]]`
    pub device: Vec<RawDevice>,
}

/// `[box]`: who this is and where its state lives.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawBox {
    /// Name of this box. Default: the host name, since that is what people already call it.
    pub id: Option<String>,
    /// State directory. Default: systemd's StateDirectory, or where the package puts it.
    pub state_dir: String,
}

impl Default for RawBox {
    fn default() -> Self {
        let state_dir =
            std::env::var("STATE_DIRECTORY").unwrap_or_else(|_| "/var/lib/autoglm-edge".to_owned());
        Self {
            id: None,
            state_dir,
        }
    }
}

/// `[bus]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawBus {
    /// `system`, `session` or `off`. Default: system, where a daemon belongs.
    pub kind: String,
}

impl Default for RawBus {
    fn default() -> Self {
        Self {
            kind: "system".to_owned(),
        }
    }
}

/// `[log]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawLog {
    /// Filter in `tracing` syntax. Default: info for us, warnings of the libraries.
    pub filter: String,
}

impl Default for RawLog {
    fn default() -> Self {
        Self {
            filter: "warn,autoglm_edge=info,autoglm_drivers=info".to_owned(),
        }
    }
}

/// `[metrics]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawMetrics {
    /// `ADDRESS:PORT` of this machine that answers `GET /metrics`. Default: none; whoever has an account here could read it.
    pub listen: Option<String>,
}

/// `[reconnect]`: how links come back.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawReconnect {
    /// Shortest wait in milliseconds. Default 100: a replugged adapter is back at once.
    pub min_ms: u64,
    /// Longest wait in milliseconds. Default 2000: looking for a device node costs nothing.
    pub max_ms: u64,
    /// Seconds of health after which waits start small again. Default 30.
    pub healthy_s: u64,
}

impl Default for RawReconnect {
    fn default() -> Self {
        Self {
            min_ms: 100,
            max_ms: 2000,
            healthy_s: 30,
        }
    }
}

/// `[commands]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawCommands {
    /// How long a device may take, in milliseconds. Default 10000: motors are slow, people wait no longer.
    pub deadline_ms: u64,
}

impl Default for RawCommands {
    fn default() -> Self {
        Self {
            deadline_ms: 10_000,
        }
    }
}

/// `[inference]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawInference {
    /// ONNX Runtime's shared library. Default: looked for in the usual places.
    pub runtime: Option<String>,
    /// Directories with bundles. Default: the package's, then the site's own.
    pub model_dirs: Vec<String>,
    /// Bundle that understands commands.
    pub embedding: String,
    /// Bundle that converses.
    pub chat: String,
    /// Bundle that notices speech.
    pub vad: String,
    /// Bundle that writes down what is said; empty for none, which saves some 150 MB of memory.
    pub stt: String,
    /// Bundle that speaks; empty for none.
    pub tts: String,
    /// The program that makes phonemes of text. Default: where Debian's package puts it.
    pub espeak_ng: String,
    /// Bundles that take and give plain tensors. Default: none.
    pub generic: Vec<String>,
    /// Longest conversation that the model sees, in tokens. Default 2048: up to 25 MB of key-value cache for each conversation with
    /// the default model, taken as it grows.
    pub context_tokens: usize,
    /// Conversations that are answered at a time. Default 8: batching gains little beyond it.
    pub chat_sessions: usize,
    /// What the key-value cache of conversations holds: `bytes` (the default; a quarter of the memory, faster in long conversations) or
    /// `floats`.
    pub chat_cache: ChatCache,
    /// Disk space in MiB for the key-value caches of conversations, 0 for none. Default 256: some 21,900 tokens with the default model.
    pub context_cache_mib: u64,
    /// Memory in MiB that models may take together, by estimate; 0 for three quarters of what the machine, or the service's control group,
    /// has.
    pub memory_mib: u64,
    /// Threads per model, 0 for half of the processors that the machine lends (at least one): the links need the rest. Never more than it lends.
    pub threads: usize,
    /// Longest answer in tokens. Default 96: a few sentences; a small model's longer answers get worse, not better.
    pub answer_tokens_max: usize,
    /// Directory of plugin libraries with execution providers. Default: where the unit lets code be loaded from.
    pub provider_dir: String,
    /// Seconds that the proof of a provider may take. Default 300: compilers for NPUs take minutes.
    pub provider_trial_s: u64,
    /// MiB of private memory that it may take. Default 4096.
    pub provider_trial_mib: u64,
    /// MiB of graphs compiled by providers that are kept; 0 keeps none. Default 512.
    pub compiled_mib_max: u64,
    /// Whether the engines that bundles themselves name are asked. Default: no, since what is said would go where a bundle's maker likes.
    pub bundle_upstreams: bool,
    /// `[inference.providers.NAME]`
    pub providers: super::providers::RawProviders,
    /// `[inference.upstream.NAME]`
    pub upstream: super::upstream::RawUpstreams,
    /// `[inference.adapt]`
    pub adapt: super::adapt::RawAdapt,
}

impl Default for RawInference {
    fn default() -> Self {
        Self {
            runtime: None,
            model_dirs: vec![
                "/usr/lib/autoglm-edge/models".to_owned(),
                "/var/lib/autoglm-edge/models".to_owned(),
            ],
            embedding: "all-minilm-l6-v2-int8".to_owned(),
            chat: "smollm2-135m-instruct-int4".to_owned(),
            vad: "silero-vad".to_owned(),
            stt: "whisper-tiny-en-int8".to_owned(),
            tts: "piper-en-us-joe-int8".to_owned(),
            espeak_ng: crate::config::ESPEAK_NG.to_owned(),
            generic: Vec::new(),
            context_tokens: 2048,
            chat_sessions: 8,
            chat_cache: ChatCache::default(),
            context_cache_mib: 256,
            memory_mib: 0,
            threads: 0,
            answer_tokens_max: 96,
            provider_dir: crate::config::providers::STANDARD_DIR.to_owned(),
            provider_trial_s: 300,
            provider_trial_mib: 4096,
            compiled_mib_max: 512,
            providers: super::providers::RawProviders::default(),
            bundle_upstreams: false,
            upstream: super::upstream::RawUpstreams::default(),
            adapt: super::adapt::RawAdapt::default(),
        }
    }
}

/// `[understanding]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawUnderstanding {
    /// A wording file that replaces the built-in English one.
    pub wording: Option<String>,
}

/// `[sessions]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawSessions {
    /// Turns that the language model sees again. Default 12; not tuned.
    pub context_turns: usize,
    /// Turns kept per conversation. Default 512, the most that one commit can delete as a whole.
    pub turns_max: u64,
    /// Conversations kept. Default 200.
    pub sessions_max: usize,
    /// Days after which an untouched conversation is deleted. Default 30.
    pub age_max_days: u64,
}

impl Default for RawSessions {
    fn default() -> Self {
        Self {
            context_turns: 12,
            turns_max: 512,
            sessions_max: 200,
            age_max_days: 30,
        }
    }
}

/// `[fleet]`: present means wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawFleet {
    /// `mqtts://host[:port]` or `mqtt://host[:port]`.
    pub broker: String,
    /// Whether `mqtt://`, which everybody on the way can read and change, may leave this machine. Default: no.
    #[serde(default)]
    pub allow_clear: bool,
    /// First part of all topics.
    #[serde(default = "topic_root")]
    pub topic_root: String,
    /// Seconds that the broker keeps commands for us. Default one day.
    #[serde(default = "session_expiry_s")]
    pub session_expiry_s: u64,
    /// MQTT keep-alive in seconds. Default 15: a dead connection is noticed after 23.
    #[serde(default = "keep_alive_s")]
    pub keep_alive_s: u64,
    /// `[fleet.tls]`, with `mqtts://`.
    pub tls: Option<RawTls>,
    /// `[fleet.login]`
    pub login: Option<RawLogin>,
    /// `[fleet.outbox]`
    #[serde(default)]
    pub outbox: RawOutbox,
}

/// `[fleet.tls]`, `[foreign.mqtt.tls]`, `[broker.tls]`: PEM files, as absolute paths or `credential:NAME` (of systemd's `LoadCredential=`).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawTls {
    /// The authorities that may have signed the broker's certificate.
    pub ca: String,
    /// Our certificate, then those that lead to the authority. Default: none.
    pub certificate: Option<String>,
    /// Its private key. Default: none.
    pub key: Option<String>,
}

/// `[fleet.login]`, `[foreign.mqtt.login]`, `[broker.login]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawLogin {
    /// User name at the broker.
    pub user: String,
    /// The file with the password, as an absolute path or `credential:NAME`.
    pub password_file: String,
}

/// `[fleet.outbox]`: what waits for the broker.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawOutbox {
    /// `latest`, `every` or `off`. Default: latest, since a value that is over explains little.
    pub telemetry: String,
    /// Results that may wait. Default 2000.
    pub results_max: u64,
    /// KiB of results that may wait. Default 4096.
    pub results_kib_max: u64,
    /// Events that may wait. Default 20000: one every 30 s for a week.
    pub events_max: u64,
    /// KiB of events that may wait. Default 7168.
    pub events_kib_max: u64,
    /// Values that may wait. Default 10000.
    pub telemetry_max: u64,
    /// KiB of values that may wait. Default 4096.
    pub telemetry_kib_max: u64,
    /// Seconds after which a result that did not get through is dropped. Default one week, as long as a command may live.
    pub result_lifetime_s: u64,
    /// Seconds after which an event that did not get through is dropped. Default one week.
    pub event_lifetime_s: u64,
    /// Seconds after which a value that did not get through is dropped, with `telemetry = "every"`. Default one day.
    pub telemetry_lifetime_s: u64,
}

impl Default for RawOutbox {
    fn default() -> Self {
        Self {
            telemetry: "latest".to_owned(),
            results_max: 2_000,
            results_kib_max: 4_096,
            events_max: 20_000,
            events_kib_max: 7_168,
            telemetry_max: 10_000,
            telemetry_kib_max: 4_096,
            result_lifetime_s: 604_800,
            event_lifetime_s: 604_800,
            telemetry_lifetime_s: 86_400,
        }
    }
}

fn topic_root() -> String {
    "autoglm".to_owned()
}

fn session_expiry_s() -> u64 {
    86_400
}

pub(super) fn keep_alive_s() -> u64 {
    15
}

/// `[[broker]]`: how a broker is spoken to by which devices are reached.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawBroker {
    /// `mqtts://host[:port]` or `mqtt://host[:port]`, as the devices' links name it.
    pub address: String,
    /// Whether `mqtt://` may leave this machine with a login in it. Default: no.
    #[serde(default)]
    pub allow_clear: bool,
    /// MQTT keep-alive in seconds. Default 15: a dead connection is noticed after 23.
    #[serde(default = "keep_alive_s")]
    pub keep_alive_s: u64,
    /// `[broker.tls]`, with `mqtts://`.
    pub tls: Option<RawTls>,
    /// `[broker.login]`
    pub login: Option<RawLogin>,
}

/// `[[device]]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawDevice {
    /// Short unique name.
    pub name: String,
    /// `serial:///dev/…?baud=…`, `ble://ADAPTER/DEVICE` or `mqtts://BROKER/TOPIC`, the preferred one first.
    pub links: Vec<String>,
    /// The key that box and device share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<RawKey>,
    /// This box's private key, where static pairs are used too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<RawKey>,
    /// The device's public key, 64 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Whether a device without a key may be reached by radio, where everybody near can listen and answer in its name. Default: no.
    #[serde(default)]
    pub allow_clear: bool,
    /// Seconds that the connection is kept while no link reaches the device. Default 30: longer than it takes to walk to a cable,
    /// shorter than anybody believes that a command still waits.
    #[serde(default = "resume_s")]
    pub resume_s: u64,
}

fn resume_s() -> u64 {
    30
}

/// Where a key is: `{ file = "/…" }` or `{ credential = "NAME" }`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
pub enum RawKey {
    /// A file that only the daemon's user may read.
    File(String),
    /// A credential that systemd hands over.
    Credential(String),
}
