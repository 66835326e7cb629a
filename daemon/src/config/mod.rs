//! Configuration: TOML text -> [`raw::RawConfig`] -> [`Config`].
//!
//! The raw form mirrors the file and refuses unknown keys; [`Config`] holds checked types and is the only
//! form that leaves this module. Every error names the file, the key, the value and what is allowed. All
//! defaults stand in `raw.rs` (those of foreign devices in `foreign.rs`, of strain in `adapt.rs`, of execution providers in `providers.rs`, of engines elsewhere in `upstream.rs`), each with its unit and reason. Secrets never stand in the file, only paths to them.

mod access;
pub mod adapt;
mod chat_cache;
mod device;
mod fleet;
pub mod foreign;
pub mod key;
pub mod providers;
mod raw;
pub mod upstream;
mod validate;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use autoglm_drivers::backoff::Backoff;
use autoglm_drivers::link::{LinkAddress, LinkId};
use autoglm_drivers::mqtt::Broker;

pub use chat_cache::ChatCache;
pub use key::{KeyError, KeyKind, KeySource};
pub use raw::RawConfig;
pub use validate::ConfigError;

/// Where the packaged daemon looks for its configuration.
pub const DEFAULT_PATH: &str = "/etc/autoglm-edge/config.toml";

/// Where Debian's package puts the program that makes phonemes of text.
pub const ESPEAK_NG: &str = "/usr/bin/espeak-ng";

/// The daemon's configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of this box in topics and on the bus: `[a-z0-9-]`, 1 to 63 characters.
    pub box_id: String,
    /// Directory of the store; created with mode 0700.
    pub state_dir: PathBuf,
    /// Which message bus to serve on.
    pub bus: Bus,
    /// Log filter in `tracing` syntax.
    pub log_filter: String,
    /// Where numbers for Prometheus are served, an address of loopback; nowhere if there is none.
    pub metrics: Option<SocketAddr>,
    /// The devices, and the links that reach them.
    pub devices: Vec<DeviceConfig>,
    /// Reconnection of links.
    pub link_backoff: Backoff,
    /// Models and runtime.
    pub inference: InferenceSettings,
    /// Devices that do not speak our protocol.
    pub foreign: foreign::ForeignConfig,
    /// Fleet connection, if one is wanted.
    pub fleet: Option<FleetConfig>,
    /// Conversations.
    pub sessions: SessionSettings,
    /// How long a device may take to carry out a command.
    pub command_deadline: Duration,
    /// A wording file that replaces the built-in English one.
    pub wording: Option<PathBuf>,
}

/// The message bus to serve on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bus {
    /// The system bus: callers are authorised by polkit.
    System,
    /// The session bus: for development; only our own user (and root) may call.
    Session,
    /// No D-Bus door.
    Off,
}

/// One device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceConfig {
    /// Short name, unique.
    pub name: String,
    /// The links that reach it, the preferred one first; at least one.
    pub links: Vec<LinkConfig>,
    /// How its connection is protected.
    pub protection: Protection,
    /// How long its connection is kept while no link reaches it; zero: not at all.
    pub resume: Duration,
}

/// One link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkConfig {
    /// Its device's name and its kind, with a number where there are several of a kind.
    pub id: LinkId,
    /// Where it leads.
    pub address: LinkAddress,
}

/// How a device's connection is protected. There is no fall-back from any to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protection {
    /// In the clear: on lines that nobody else reaches.
    Clear,
    /// By a key that box and device share.
    PreShared {
        /// Where it is.
        key: KeySource,
    },
    /// By a shared key, and a static pair at each end.
    Mutual {
        /// Where the shared key is.
        key: KeySource,
        /// Where this box's private key is.
        identity: KeySource,
        /// The device's public key.
        peer: [u8; 32],
    },
}

/// Where models and runtime are.
#[derive(Debug, Clone)]
pub struct InferenceSettings {
    /// ONNX Runtime's shared library; found in the usual places when none is named.
    pub runtime: Option<PathBuf>,
    /// Directories that hold bundles.
    pub model_dirs: Vec<PathBuf>,
    /// Bundle that understands commands.
    pub embedding: String,
    /// Bundle that converses.
    pub chat: String,
    /// Bundle that notices speech.
    pub vad: String,
    /// Bundle that writes down what is said; `None` for none.
    pub stt: Option<String>,
    /// Bundle that speaks, if one is wanted.
    pub tts: Option<String>,
    /// The program that makes phonemes of text.
    pub espeak_ng: PathBuf,
    /// Bundles that take and give plain tensors.
    pub generic: Vec<String>,
    /// Longest conversation that the model sees, in tokens.
    pub context_tokens: usize,
    /// Conversations that are answered at a time.
    pub chat_sessions: NonZeroUsize,
    /// What their key-value cache holds.
    pub chat_cache: ChatCache,
    /// Disk space for the key-value caches of conversations; 0 for none.
    pub context_cache_bytes: u64,
    /// Memory of all models together, by estimate; `None` for a share of what the machine has.
    pub memory_bytes: Option<u64>,
    /// Threads that one model may use; `None` for half of what the machine lends.
    pub threads: Option<NonZeroUsize>,
    /// Longest answer in tokens.
    pub answer_tokens_max: usize,
    /// What models run on.
    pub providers: providers::ProviderSettings,
    /// Engines elsewhere that may answer in place of a bundle, by its name.
    pub upstreams: std::collections::BTreeMap<String, upstream::UpstreamSettings>,
    /// Whether the engines that bundles themselves name are asked.
    pub is_bundle_upstream_allowed: bool,
    /// What strain is, and what is done about it; `None` where nobody looks.
    pub adapt: Option<adapt::AdaptSettings>,
}

/// The fleet's broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetConfig {
    /// Its address, and how it is spoken to.
    pub broker: Broker,
    /// First part of all topics.
    pub topic_root: String,
    /// How long the broker keeps commands for us while we are away.
    pub session_expiry: Duration,
    /// What waits for it.
    pub outbox: OutboxConfig,
}

/// What waits for the broker, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxConfig {
    /// Which values of properties are told.
    pub telemetry: Telemetry,
    /// Results: how many may wait, bytes that they may take, how long they are worth something.
    pub results: Class,
    /// Events.
    pub events: Class,
    /// Values of properties. The lifetime counts with [`Telemetry::Every`] only: the latest value is true until the next.
    pub telemetry_class: Class,
}

/// Limits of one class of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Class {
    /// Messages.
    pub entries_max: u64,
    /// Bytes.
    pub bytes_max: u64,
    /// After this time a message is dropped.
    pub lifetime: Duration,
}

/// Which values of properties the fleet is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telemetry {
    /// The newest of each; one that was replaced before it left is not sent.
    Latest,
    /// Each change.
    Every,
    /// None.
    Off,
}

/// Limits of conversations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionSettings {
    /// Turns of a conversation that the language model sees again.
    pub context_turns: usize,
    /// Turns kept per conversation.
    pub turns_max: u64,
    /// Conversations kept.
    pub sessions_max: usize,
    /// Conversations untouched for longer are deleted.
    pub age_max: Duration,
}

impl Config {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// [`ConfigError`] names file, key and value.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        Self::from_text(&text, path)
    }

    /// Checks configuration text; `path` only names it in errors.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_text(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let raw: RawConfig = toml::from_str(text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            message: error.to_string(),
        })?;
        validate::validate(raw, path)
    }
}

/// Reads and checks the file at `path`, and the certificates, keys and passwords that it names, as a connection to a broker or an engine elsewhere would now. The daemon
/// itself starts without them, and tries them again with each connection.
///
/// # Errors
/// As [`Config::load`], and [`ConfigError::Access`].
pub fn check(path: &Path) -> Result<Config, ConfigError> {
    let config = Config::load(path)?;
    let fleet = config.fleet.iter().map(|fleet| &fleet.broker);
    let foreign = config.foreign.mqtt.iter().map(|foreign| &foreign.broker);
    let links = config.devices.iter().flat_map(|device| &device.links);
    let devices = links.filter_map(|link| match &link.address {
        LinkAddress::Mqtt { broker, .. } => Some(broker),
        LinkAddress::Serial { .. } | LinkAddress::Ble(_) => None,
    });
    for broker in fleet.chain(foreign).chain(devices) {
        let access = broker.access.check(std::time::SystemTime::now());
        access.map_err(|source| ConfigError::access(path, broker, source))?;
    }
    for upstream in config.inference.upstreams.values() {
        let access = upstream.access.check();
        access.map_err(|source| ConfigError::upstream(path, &upstream.access.base, source))?;
    }
    Ok(config)
}

/// The file's effective values, defaults included, as TOML.
///
/// # Errors
/// As [`Config::load`].
pub fn effective(path: &Path) -> Result<String, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let raw: RawConfig = toml::from_str(&text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        message: error.to_string(),
    })?;
    validate::validate(raw.clone(), path)?;
    toml::to_string(&raw).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        message: error.to_string(),
    })
}
