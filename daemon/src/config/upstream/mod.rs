//! `[inference.upstream.NAME]`: an engine elsewhere that may answer conversations in place of the bundle NAME.
//!
//! A bundle's `model.toml` may hold a table `[upstream]` of the same shape, but it cannot name this box's files: who makes a bundle does not
//! say which of its secrets are sent where. It counts only with `inference.bundle_upstreams`, and never against the configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use autoglm_drivers::backoff::Backoff;
use autoglm_drivers::http::{Access, Base};

pub use self::raw::{RawKServe, RawUpstream, RawUpstreams};
use super::access::file;
use super::validate::{ConfigError, Reject, absolute};

mod raw;

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
    /// `/v2/models/NAME/generate_stream` with `text_input` and `text_output`, as Triton and KServe have it.
    GenerateStream,
    /// `/v2/models/NAME/infer`, with text as a tensor of bytes.
    Infer(TextTensors),
    /// `/v2/models/NAME/generate_stream` with the same tensors, a piece of the answer in each event, as MLServer has it.
    InferStream(TextTensors),
}

/// Tensors of bytes with one element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextTensors {
    /// The one that takes the text.
    pub input: String,
    /// The one that brings the answer.
    pub output: String,
}

impl KServeEndpoint {
    /// Whether the answer comes in events, piece by piece.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        !matches!(self, Self::Infer(_))
    }
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
            let tensors = TextTensors {
                input: kserve.input,
                output: kserve.output,
            };
            let endpoint = match kserve.endpoint.as_str() {
                "generate_stream" => KServeEndpoint::GenerateStream,
                "infer" => KServeEndpoint::Infer(tensors),
                "infer_stream" => KServeEndpoint::InferStream(tensors),
                other => {
                    return Err(reject.value(
                        key("kserve.endpoint"),
                        other,
                        "must be \"generate_stream\", \"infer\" or \"infer_stream\"",
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
mod tests;
