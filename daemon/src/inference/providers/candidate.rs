//! What a model could run on: an execution provider on one kind of device, and how the configuration names it.
//!
//! Pure data. A candidate says who would run the model and where its code comes from; whether it can is for
//! [`trial`](super::trial) to find out.

use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

/// ONNX Runtime's own provider, which every build has and against which all others are judged.
pub const CPU: &str = "CPUExecutionProvider";

/// What ONNX Runtime's names of providers end with, and nobody says.
const SUFFIX: &str = "ExecutionProvider";

/// Longest name that is taken from a plugin library: `ort` 2.0.0-rc.15 copies it into 128 bytes with a full stop behind it.
pub(super) const NAME_BYTES_MAX: usize = 120;

/// What a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A general processor.
    Cpu,
    /// A graphics processor.
    Gpu,
    /// A processor for neural networks.
    Npu,
}

impl Kind {
    /// The word that configuration, status and logs use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Gpu => "gpu",
            Self::Npu => "npu",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a provider's code is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// In ONNX Runtime, or in libraries that it loads by itself.
    Builtin,
    /// In a plugin library.
    Library(PathBuf),
}

/// A provider on a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// ONNX Runtime's name of the provider.
    pub provider: String,
    /// What its device is.
    pub kind: Kind,
    /// Where its code is.
    pub origin: Origin,
    /// Who made the device; empty where nobody says.
    pub vendor: String,
    /// The device's PCI vendor, or what stands for it; 0 where nobody says.
    pub vendor_id: u32,
    /// The device's model among its vendor's, as ONNX Runtime says; several devices may have the same.
    pub device_id: u32,
    /// What provider and device say of themselves: versions, bus addresses.
    pub facts: BTreeMap<String, String>,
}

impl Candidate {
    /// ONNX Runtime's own CPU provider.
    pub fn cpu() -> Self {
        Self::builtin(CPU, Kind::Cpu)
    }

    pub(super) fn builtin(provider: &str, kind: Kind) -> Self {
        Self {
            provider: provider.to_owned(),
            kind,
            origin: Origin::Builtin,
            vendor: String::new(),
            vendor_id: 0,
            device_id: 0,
            facts: BTreeMap::new(),
        }
    }

    /// Whether this is ONNX Runtime's own CPU provider.
    pub fn is_cpu(&self) -> bool {
        self.provider == CPU
    }
}

/// `OpenVINO on npu`; the CPU provider is `CPU`.
impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_cpu() {
            true => f.write_str("CPU"),
            false => write!(f, "{} on {}", short(&self.provider), self.kind),
        }
    }
}

/// A provider's name as people say it.
pub fn short(provider: &str) -> &str {
    match provider.strip_suffix(SUFFIX) {
        Some("") | None => provider,
        Some(short) => short,
    }
}

/// Which candidates are meant: `PROVIDER`, `PROVIDER:KIND` or `*:KIND`, in which the provider's name may leave out
/// `ExecutionProvider`, and capitals do not count. `CPU` is ONNX Runtime's own CPU provider, and no kind of device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// Lower case and without the suffix; `None` is any but the CPU provider.
    provider: Option<String>,
    kind: Option<Kind>,
}

/// What is wrong with a selector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be PROVIDER, PROVIDER:KIND or *:KIND, with the kind cpu, gpu or npu")]
pub struct SelectorError;

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let (provider, kind) = match text.split_once(':') {
            None => (text, None),
            Some((provider, kind)) => {
                let kind = match kind.to_ascii_lowercase().as_str() {
                    "cpu" => Kind::Cpu,
                    "gpu" => Kind::Gpu,
                    "npu" => Kind::Npu,
                    _ => return Err(SelectorError),
                };
                (provider, Some(kind))
            }
        };
        let is_fit = |name: &str| {
            (1..=NAME_BYTES_MAX).contains(&name.len())
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        };
        match provider {
            "*" if kind.is_some() => Ok(Self {
                provider: None,
                kind,
            }),
            name if is_fit(name) => Ok(Self {
                provider: Some(short(name).to_ascii_lowercase()),
                kind,
            }),
            _ => Err(SelectorError),
        }
    }
}

impl Selector {
    /// Whether a candidate is meant.
    pub fn matches(&self, candidate: &Candidate) -> bool {
        let is_named = match &self.provider {
            None => !candidate.is_cpu(),
            Some(name) => short(&candidate.provider).eq_ignore_ascii_case(name),
        };
        is_named && self.kind.is_none_or(|kind| kind == candidate.kind)
    }

    /// Whether ONNX Runtime's own CPU provider is meant.
    pub fn is_cpu(&self) -> bool {
        self.matches(&Candidate::cpu())
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.provider.as_deref().unwrap_or("*"))?;
        match self.kind {
            Some(kind) => write!(f, ":{kind}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_names_a_provider_a_kind_of_device_or_both() {
        let openvino = |kind| Candidate::builtin("OpenVINOExecutionProvider", kind);
        let selector = |text: &str| text.parse::<Selector>().unwrap();
        for text in [
            "OpenVINO",
            "openvinoexecutionprovider",
            "openvino:NPU",
            "*:npu",
        ] {
            // A name in full is cut at its suffix as it is written; in another case it is compared whole.
            let is_whole = text == "openvinoexecutionprovider";
            assert_eq!(
                selector(text).matches(&openvino(Kind::Npu)),
                !is_whole,
                "{text}"
            );
        }
        assert!(!selector("openvino:gpu").matches(&openvino(Kind::Npu)));
        assert!(selector("CPU").is_cpu());
        assert!(selector("CPUExecutionProvider").is_cpu());
        assert!(
            !selector("*:cpu").is_cpu(),
            "another provider on the same processor, never the CPU provider"
        );
        assert!(selector("*:cpu").matches(&openvino(Kind::Cpu)));
        for bad in ["", "*", ":npu", "OpenVINO:tpu", "a b", "a/b:npu", "*:"] {
            assert_eq!(bad.parse::<Selector>(), Err(SelectorError), "{bad:?}");
        }
    }
}
