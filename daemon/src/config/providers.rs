//! `[inference.providers]`: on what models may run, and what is asked of it.
//!
//! A table `all` for every model, and one for a model that needs another, which then replaces the first whole.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::validate::{ConfigError, Reject, absolute};

/// Where packages put plugin libraries.
pub const STANDARD_DIR: &str = "/usr/lib/autoglm-edge/providers";

/// The policy of every model that has none of its own.
pub const ALL: &str = "all";

/// `[inference.providers.NAME]`, by bundle; [`ALL`] for the rest.
pub type RawProviders = BTreeMap<String, RawPolicy>;

/// One policy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawPolicy {
    /// One of these, the best first, or the model is disabled. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub require: Vec<String>,
    /// One of these, the best first, or the CPU. Default: the CPU.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prefer: Vec<String>,
    /// Who may be tried at all. Default: everybody whom `require` or `prefer` means.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// Least share of the graph's nodes that must move off the CPU, 0 to 1. Default 1 with `require`, else 0.9.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes_min: Option<f64>,
    /// Largest difference from the CPU's output. Default 0.02.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<f64>,
    /// Longest time as a multiple of the CPU's, 0 for any. Default any with `require`, else 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_max: Option<f64>,
    /// Options by provider.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, BTreeMap<String, String>>,
}

/// What models run on, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct ProviderSettings {
    /// Directory of plugin libraries.
    pub dir: PathBuf,
    /// Longest that a proof may take.
    pub trial_time_max: Duration,
    /// Most private memory that a proof may take, in bytes.
    pub trial_memory_bytes: u64,
    /// Most bytes of compiled graphs that are kept.
    pub compiled_bytes_max: u64,
    /// What holds for every model without a policy of its own.
    pub policy: PolicySettings,
    /// Policies by bundle.
    pub models: BTreeMap<String, PolicySettings>,
}

/// One policy, checked but for the spelling of providers, which nobody here knows.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicySettings {
    /// Whether the model is disabled when none of `wanted` is good enough.
    pub is_required: bool,
    /// `PROVIDER`, `PROVIDER:KIND` or `*:KIND`, the best first.
    pub wanted: Vec<Pick>,
    /// Who may be tried at all; empty: everybody.
    pub allow: Vec<Pick>,
    /// Least share of nodes, 0 to 1.
    pub nodes_min: Option<f64>,
    /// Largest difference.
    pub tolerance: Option<f64>,
    /// Longest time as a multiple of the CPU's; `Some(None)` is any.
    pub time_max: Option<Option<f64>>,
    /// Options by provider.
    pub options: BTreeMap<String, BTreeMap<String, String>>,
}

/// A provider, a kind of device, or both, as written; the inference engine reads it with the same rules.
pub type Pick = String;

const PICK: &str = "must be PROVIDER, PROVIDER:KIND or *:KIND, with the kind cpu, gpu or npu";

pub(super) fn validate(
    reject: &Reject<'_>,
    raw: &super::raw::RawInference,
) -> Result<ProviderSettings, ConfigError> {
    const MIB: u64 = 1 << 20;
    let within =
        |key: &str, value, min, max| reject.within(&format!("inference.{key}"), value, min, max);
    let mut models = BTreeMap::new();
    for (name, policy) in &raw.providers {
        let table = format!("inference.providers.{name}");
        models.insert(name.clone(), self::policy(reject, &table, policy.clone())?);
    }
    let policy = match models.remove(ALL) {
        Some(policy) => policy,
        None => self::policy(reject, ALL, RawPolicy::default())?,
    };
    let trial_s = within("provider_trial_s", raw.provider_trial_s, 1, 3600)?;
    Ok(ProviderSettings {
        dir: absolute(reject, "inference.provider_dir", &raw.provider_dir)?,
        trial_time_max: Duration::from_secs(trial_s),
        trial_memory_bytes: MIB
            * within("provider_trial_mib", raw.provider_trial_mib, 64, 1 << 20)?,
        compiled_bytes_max: MIB * within("compiled_mib_max", raw.compiled_mib_max, 0, 1 << 20)?,
        policy,
        models,
    })
}

fn policy(reject: &Reject<'_>, table: &str, raw: RawPolicy) -> Result<PolicySettings, ConfigError> {
    let picks = |name: &str, picks: &[String]| -> Result<Vec<Pick>, ConfigError> {
        for pick in picks {
            if !is_pick(pick) {
                return Err(reject.value(format!("{table}.{name}"), pick, PICK));
            }
        }
        Ok(picks.to_vec())
    };
    let number = |name: &str, value: Option<f64>, min: f64, max: f64| match value {
        Some(value) if !(min..=max).contains(&value) => Err(reject.value(
            format!("{table}.{name}"),
            value,
            format!("must be from {min} to {max}"),
        )),
        value => Ok(value),
    };
    if !raw.require.is_empty() && !raw.prefer.is_empty() {
        let both = raw.prefer.join(", ");
        return Err(reject.value(
            format!("{table}.prefer"),
            both,
            "may not stand beside `require`, which falls back to nobody",
        ));
    }
    let is_required = !raw.require.is_empty();
    let (name, wanted) = match is_required {
        true => ("require", &raw.require),
        false => ("prefer", &raw.prefer),
    };
    let time_max = number("time_max", raw.time_max, 0.0, 1e6)?;
    Ok(PolicySettings {
        is_required,
        wanted: picks(name, wanted)?,
        allow: picks("allow", &raw.allow)?,
        nodes_min: number("nodes_min", raw.nodes_min, 0.0, 1.0)?,
        tolerance: number("tolerance", raw.tolerance, 0.0, 1e6)?,
        time_max: time_max.map(|value| (value > 0.0).then_some(value)),
        options: raw.options,
    })
}

fn is_pick(text: &str) -> bool {
    let (provider, kind) = match text.split_once(':') {
        None => (text, None),
        Some((provider, kind)) => (provider, Some(kind.to_ascii_lowercase())),
    };
    let is_kind = kind
        .as_deref()
        .is_none_or(|kind| ["cpu", "gpu", "npu"].contains(&kind));
    let is_name = (1..=120).contains(&provider.len())
        && provider
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    is_kind && (is_name || (provider == "*" && kind.is_some()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;

    #[test]
    fn a_model_may_have_a_policy_of_its_own() {
        let text = r#"
            [inference]
            provider_trial_s = 60
            [inference.providers.all]
            prefer = ["*:npu", "OpenVINO:gpu"]
            allow = ["OpenVINO", "QNN"]
            options = { OpenVINO = { num_of_threads = "2" } }
            [inference.providers.silero-vad]
            require = ["cpu_ep"]
            time_max = 0
        "#;
        let config = Config::from_text(text, Path::new("config.toml")).unwrap();
        let providers = config.inference.providers;
        assert_eq!(providers.trial_time_max.as_secs(), 60);
        assert_eq!(providers.policy.wanted, ["*:npu", "OpenVINO:gpu"]);
        assert!(!providers.policy.is_required && providers.policy.time_max.is_none());
        let own = &providers.models["silero-vad"];
        assert!(own.is_required && own.allow.is_empty() && own.options.is_empty());
        assert_eq!(own.time_max, Some(None), "any");
    }

    #[test]
    fn what_cannot_be_meant_is_named() {
        for (text, named) in [
            ("prefer = [\"*\"]", "inference.providers.all.prefer"),
            ("prefer = [\"OpenVINO:tpu\"]", "OpenVINO:tpu"),
            ("require = [\"a\"]\nprefer = [\"b\"]", "beside `require`"),
            ("nodes_min = 1.5", "from 0 to 1"),
            ("tolerance = nan", "tolerance"),
            ("[inference]\nprovider_trial_s = 0", "provider_trial_s"),
            ("prefered = [\"a\"]", "prefered"),
            (
                "[inference.providers.silero-vad]\nallow = [\"\"]",
                "inference.providers.silero-vad.allow",
            ),
            ("[inference.providers.silero-vad]\nalow = [\"a\"]", "alow"),
        ] {
            let table = match text.starts_with('[') {
                true => "",
                false => "[inference.providers.all]\n",
            };
            let text = format!("{table}{text}\n");
            let error = Config::from_text(&text, Path::new("config.toml")).unwrap_err();
            assert!(error.to_string().contains(named), "{named:?} in {error}");
        }
    }
}
