//! `[inference.upstream.NAME]`: an engine elsewhere that may answer conversations in place of the bundle NAME.
//!
//! A bundle's `model.toml` may hold a table `[upstream]` of the same shape, but it cannot name this box's files: who makes a bundle does not
//! say which of its secrets are sent where. It counts only with `inference.bundle_upstreams`, and never against the configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use autoglm_drivers::backoff::Backoff;
use autoglm_drivers::http::{Access, Base};
use serde::{Deserialize, Serialize};

use super::access::file;
use super::validate::{ConfigError, Reject, absolute};

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
    /// `generate_stream`, word by word, or `infer`, the answer in one piece. Default: generate_stream.
    pub endpoint: String,
    /// The chat template (Jinja, as tokenizers have it) that makes one text of a conversation. Default: ChatML.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// With `infer`: the tensor that takes the text. Default: text_input.
    pub input: String,
    /// With `infer`: the tensor that brings the answer. Default: text_output.
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

/// An engine elsewhere, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamSettings {
    /// When it is asked.
    pub policy: UpstreamPolicy,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// Where it is, whom to trust, and which key it is shown.
    pub access: Access,
    /// The model's name there.
    pub model: String,
    /// For the connection with its TLS.
    pub connect_within: Duration,
    /// From the request to the first word.
    pub first_token_within: Duration,
    /// For the whole answer.
    pub total_within: Duration,
    /// Failures in a row after which it is left alone.
    pub failures_max: u32,
    /// For how long. Of `healthy_after` nothing is read.
    pub rest: Backoff,
    /// Answers from there at a time.
    pub answers_max: usize,
}

/// When an engine elsewhere is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamPolicy {
    /// Not at all.
    Never,
    /// When the model here cannot begin in time.
    WhenOverloaded,
    /// Whenever it can be asked; the model here answers for it while it cannot.
    Always,
}

impl UpstreamPolicy {
    /// Its name in the file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::WhenOverloaded => "when-overloaded",
            Self::Always => "always",
        }
    }
}

/// How an engine is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocol {
    /// `/v1/chat/completions` with `stream`, as OpenAI has it.
    OpenAi,
    /// The Open Inference Protocol (KServe v2), over REST.
    KServe {
        /// What is asked there.
        endpoint: KServeEndpoint,
        /// The chat template's file; `None` is ChatML.
        template: Option<PathBuf>,
    },
}

impl Protocol {
    /// Its name in the file.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::KServe { .. } => "kserve",
        }
    }
}

/// What is asked of an engine with the Open Inference Protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KServeEndpoint {
    /// `/v2/models/NAME/generate_stream`.
    GenerateStream,
    /// `/v2/models/NAME/infer`, with text as a tensor of bytes.
    Infer {
        /// The tensor that takes the text.
        input: String,
        /// The tensor that brings the answer.
        output: String,
    },
}

/// The check of all tables. `chat` is the bundle that converses, the only one that may have one.
pub(super) fn validate(
    reject: &Reject<'_>,
    raw: &RawUpstreams,
    chat: &str,
) -> Result<BTreeMap<String, UpstreamSettings>, ConfigError> {
    let check = |(name, raw): (&String, &RawUpstream)| {
        let table = format!("inference.upstream.{name}");
        if name != chat {
            return Err(reject.value(
                table,
                &raw.url,
                format!(
                    "must be named after the bundle in inference.chat ({chat}): only conversations go elsewhere, commands are understood here"
                ),
            ));
        }
        Ok((name.clone(), settings(reject, &table, raw)?))
    };
    raw.iter().map(check).collect()
}

/// The check of the table `[upstream]` in a bundle's `model.toml` at `path`.
///
/// # Errors
/// [`ConfigError`] names the file, the key and what is allowed.
pub fn of_bundle(raw: &RawUpstream, path: &Path) -> Result<UpstreamSettings, ConfigError> {
    let reject = Reject::at(path);
    let files = [
        ("upstream.ca", &raw.ca),
        ("upstream.key_file", &raw.key_file),
        (
            "upstream.kserve.template",
            raw.kserve.as_ref().map_or(&None, |it| &it.template),
        ),
    ];
    for (key, file) in files {
        if let Some(file) = file {
            return Err(reject.value(
                key,
                file,
                "a bundle may not name files of this machine; write the whole table as [inference.upstream.NAME] into the configuration",
            ));
        }
    }
    if raw.allow_clear {
        return Err(reject.value(
            "upstream.allow_clear",
            raw.allow_clear,
            "a bundle may not allow clear text; write the whole table as [inference.upstream.NAME] into the configuration",
        ));
    }
    settings(&reject, "upstream", raw)
}

fn settings(
    reject: &Reject<'_>,
    table: &str,
    raw: &RawUpstream,
) -> Result<UpstreamSettings, ConfigError> {
    let key = |member: &str| format!("{table}.{member}");
    let policy = match raw.policy.as_str() {
        "never" => UpstreamPolicy::Never,
        "when-overloaded" => UpstreamPolicy::WhenOverloaded,
        "always" => UpstreamPolicy::Always,
        other => {
            return Err(reject.value(
                key("policy"),
                other,
                "must be \"never\", \"when-overloaded\" or \"always\"",
            ));
        }
    };
    let protocol = self::protocol_of(reject, table, raw)?;
    let base: Base = raw
        .url
        .parse()
        // What is refused for its secret is not shown.
        .map_err(|error| match error {
            autoglm_drivers::http::AddressError::Secret
            | autoglm_drivers::http::AddressError::Query => reject.value(key("url"), "…", error),
            error => reject.value(key("url"), &raw.url, error),
        })?;
    let refuse_url = |why: &str| Err(reject.value(key("url"), &raw.url, why));
    if ["/v1", "/v2"]
        .iter()
        .any(|end| base.prefix().ends_with(end))
    {
        return refuse_url("must be without the /v1 or /v2 at its end, which is added");
    }
    if !base.is_tls() && !base.is_local() && !raw.allow_clear {
        return refuse_url(
            "is in clear text and not on this machine: everybody on the way could read what is said. Write https://, or allow_clear = true \
             where the network itself is trusted",
        );
    }
    if !base.is_tls() && raw.ca.is_some() {
        return refuse_url("is in clear text, but there is a `ca`: write https://, or remove it");
    }
    if raw.model.is_empty()
        || raw.model.len() > 256
        || !raw.model.chars().all(|it| it.is_ascii_graphic())
    {
        return Err(reject.value(
            key("model"),
            &raw.model,
            "must be 1 to 256 printable characters without spaces",
        ));
    }
    let named_file = |member: &str, text: &Option<String>| {
        text.as_ref()
            .map(|text| file(reject, &key(member), text))
            .transpose()
    };
    let millis = |member: &str, value, min| -> Result<Duration, ConfigError> {
        let value = reject.within(&key(member), value, min, 3_600_000)?;
        Ok(Duration::from_millis(value))
    };
    let connect_within = millis("connect_ms", raw.connect_ms, 10)?;
    let first_token_within = millis("first_token_ms", raw.first_token_ms, raw.connect_ms)?;
    let total_within = millis("total_ms", raw.total_ms, raw.first_token_ms)?;
    let rest_min = millis("rest_min_ms", raw.rest_min_ms, 10)?;
    Ok(UpstreamSettings {
        policy,
        protocol,
        access: Access {
            base,
            authority: named_file("ca", &raw.ca)?,
            key_file: named_file("key_file", &raw.key_file)?,
        },
        model: raw.model.clone(),
        connect_within,
        first_token_within,
        total_within,
        failures_max: u32::try_from(reject.within(
            &key("failures"),
            u64::from(raw.failures),
            1,
            100,
        )?)
        .unwrap_or(1),
        rest: Backoff {
            min: rest_min,
            max: millis("rest_max_ms", raw.rest_max_ms, raw.rest_min_ms)?,
            healthy_after: Duration::ZERO,
        },
        answers_max: usize::try_from(reject.within(
            &key("answers_max"),
            raw.answers_max as u64,
            1,
            256,
        )?)
        .unwrap_or(1),
    })
}

fn protocol_of(
    reject: &Reject<'_>,
    table: &str,
    raw: &RawUpstream,
) -> Result<Protocol, ConfigError> {
    let key = |member: &str| format!("{table}.{member}");
    match (raw.protocol.as_str(), &raw.kserve) {
        ("openai", None) => Ok(Protocol::OpenAi),
        ("openai", Some(kserve)) => Err(reject.value(
            key("kserve.endpoint"),
            &kserve.endpoint,
            format!("needs {} = \"kserve\"", key("protocol")),
        )),
        ("kserve", kserve) => {
            let kserve = kserve.clone().unwrap_or_default();
            for (member, name) in [("input", &kserve.input), ("output", &kserve.output)] {
                if name.is_empty() || name.len() > 256 {
                    let key = key(&format!("kserve.{member}"));
                    return Err(reject.value(key, name, "must be a tensor's name"));
                }
            }
            let endpoint = match kserve.endpoint.as_str() {
                "generate_stream" => KServeEndpoint::GenerateStream,
                "infer" => KServeEndpoint::Infer {
                    input: kserve.input,
                    output: kserve.output,
                },
                other => {
                    return Err(reject.value(
                        key("kserve.endpoint"),
                        other,
                        "must be \"generate_stream\" or \"infer\"",
                    ));
                }
            };
            let template = kserve
                .template
                .map(|path| absolute(reject, &key("kserve.template"), &path))
                .transpose()?;
            Ok(Protocol::KServe { endpoint, template })
        }
        (other, _) => Err(reject.value(key("protocol"), other, "must be \"openai\" or \"kserve\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    const CHAT: &str = "smollm2-135m-instruct-int4";

    fn read(lines: &str) -> Result<UpstreamSettings, String> {
        let text = format!("[inference.upstream.{CHAT}]\n{lines}");
        Config::from_text(&text, Path::new("config.toml"))
            .map(|config| config.inference.upstreams[CHAT].clone())
            .map_err(|error| error.to_string())
    }

    const LEAST: &str =
        "policy = \"always\"\nurl = \"https://gpu.example/openai\"\nmodel = \"m\"\n";

    #[test]
    fn the_least_that_is_written_is_enough() {
        let settings = read(LEAST).unwrap();
        assert_eq!(settings.policy, UpstreamPolicy::Always);
        assert_eq!(settings.protocol, Protocol::OpenAi);
        assert_eq!(
            settings.access.base.to_string(),
            "https://gpu.example/openai"
        );
        assert_eq!(settings.access.authority, None);
    }

    #[test]
    fn what_cannot_be_meant_is_named_with_its_key() {
        for (line, named) in [
            ("polcy = 1", "polcy"),
            ("protocol = \"grpc\"", "protocol"),
            ("connect_ms = 1", "connect_ms"),
            ("first_token_ms = 100", "first_token_ms"),
            ("total_ms = 100", "total_ms"),
            ("rest_max_ms = 10", "rest_max_ms"),
            ("failures = 0", "failures"),
            ("answers_max = 0", "answers_max"),
            ("key_file = \"relative\"", "key_file"),
            (
                "[inference.upstream.smollm2-135m-instruct-int4.kserve]",
                "kserve.endpoint",
            ),
        ] {
            let message = read(&format!("{LEAST}{line}\n")).unwrap_err();
            assert!(message.contains(named), "{named:?} in {message}");
        }
        let without = |member: &str| {
            let lines = LEAST.lines().filter(|line| !line.starts_with(member));
            read(&lines.collect::<Vec<_>>().join("\n")).unwrap_err()
        };
        for member in ["policy", "url", "model"] {
            assert!(without(member).contains(member), "{member}");
        }
        let text = format!("[inference.upstream.all-minilm-l6-v2-int8]\n{LEAST}");
        let error = Config::from_text(&text, Path::new("config.toml")).unwrap_err();
        assert!(error.to_string().contains("understood here"), "{error}");
    }

    #[test]
    fn clear_text_leaves_this_machine_only_when_the_file_says_so() {
        let url = |url: &str, more: &str| {
            read(&format!(
                "policy = \"always\"\nurl = \"{url}\"\nmodel = \"m\"\n{more}"
            ))
        };
        assert!(url("http://127.0.0.1:8000", "").is_ok());
        assert!(
            url("http://gpu.example", "")
                .unwrap_err()
                .contains("allow_clear")
        );
        assert!(url("http://gpu.example", "allow_clear = true").is_ok());
        assert!(
            url("http://localhost", "ca = \"/ca.pem\"")
                .unwrap_err()
                .contains("https://")
        );
        assert!(
            url("https://gpu.example/v1", "")
                .unwrap_err()
                .contains("/v1")
        );
        let message = url("https://me:hunter2@gpu.example", "").unwrap_err();
        assert!(!message.contains("hunter2"), "{message}");
    }

    #[test]
    fn a_bundle_names_no_files_of_this_machine() {
        let raw: RawUpstream = toml::from_str(LEAST).unwrap();
        let path = Path::new("/bundles/b/model.toml");
        assert_eq!(of_bundle(&raw, path).unwrap().model, "m");
        for line in [
            "key_file = \"/etc/shadow\"",
            "ca = \"credential:fleet-ca\"",
            "allow_clear = true",
            "[kserve]\ntemplate = \"/etc/shadow\"",
        ] {
            let raw: RawUpstream = toml::from_str(&format!("{LEAST}{line}\n")).unwrap();
            let message = of_bundle(&raw, path).unwrap_err().to_string();
            assert!(message.contains("/bundles/b/model.toml"), "{message}");
            assert!(message.contains("a bundle may not"), "{message}");
        }
    }
}
