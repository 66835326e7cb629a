//! Where a session runs, and how that is told to ONNX Runtime: loudly.
//!
//! `ort` 2.0.0-rc.15 gives every session a policy by which ONNX Runtime chooses a device by itself as soon as a plugin library is
//! registered, and runs everything on the CPU when it is handed no device. So a session here always names its provider, the CPU too.

use std::{fmt, path::PathBuf};

use ort::{
    environment::Environment,
    session::builder::{AutoDevicePolicy, SessionBuilder},
};
use serde::{Deserialize, Serialize};

use super::{
    builtin::{self, Options},
    candidate::{Candidate, Origin},
    inspect,
    outcome::{Measured, Verdict},
};

/// A chosen provider and how it is used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Placement {
    /// Who runs it.
    pub candidate: Candidate,
    /// Its options.
    pub options: Options,
    /// Whether the CPU provider may run the nodes that it does not take.
    pub lets_cpu_help: bool,
    /// The compiled graph that is opened in place of the bundle's.
    pub compiled: Option<PathBuf>,
}

impl Placement {
    /// The CPU provider.
    pub fn cpu() -> Self {
        Self {
            candidate: Candidate::cpu(),
            options: Options::new(),
            lets_cpu_help: true,
            compiled: None,
        }
    }

    /// Tells `builder` to run here and nowhere else.
    ///
    /// # Errors
    /// When the provider is not registered, lists no such device, or refuses its options.
    pub(in super::super) fn attach(
        &self,
        builder: SessionBuilder,
        environment: &Environment,
    ) -> ort::Result<SessionBuilder> {
        let builder = match self.lets_cpu_help || self.candidate.is_cpu() {
            true => builder,
            false => builder.with_disable_cpu_fallback()?,
        };
        let builtin = builtin::find(&self.candidate.provider);
        if let (Some(builtin), Origin::Builtin) = (builtin, &self.candidate.origin) {
            return builtin.register(builder, self.candidate.kind, &self.options);
        }
        let mut devices = inspect::devices_of(environment, &self.candidate);
        if devices.is_empty() {
            return match self.candidate.is_cpu() {
                // A build that lists no devices at all has no plugin whose device could be chosen in its place.
                true => Ok(builder.with_auto_device(AutoDevicePolicy::PreferCPU)?),
                false => Err(ort::Error::new(format!(
                    "{} lists no such device any more",
                    self.candidate
                ))),
            };
        }
        devices.truncate(1);
        let prefixed: Vec<(String, String)> = self
            .options
            .iter()
            .map(|(key, value)| (format!("{}.{key}", self.candidate.provider), value.clone()))
            .collect();
        Ok(builder.with_devices(devices, Some(&prefixed))?)
    }
}

/// A candidate, or a wish that nobody meets, and what became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Tried {
    /// The candidate in words, or the selector that nobody matches.
    pub who: String,
    /// ONNX Runtime's name of the provider; empty where nobody matched.
    pub provider: String,
    /// The kind of its device; empty where nobody matched.
    pub device: &'static str,
    /// What the policy makes of it.
    pub verdict: Verdict,
    /// What was measured, where the probe ran.
    pub measured: Option<Measured>,
    /// Whether that was remembered from an earlier trial.
    pub is_remembered: bool,
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.who, self.verdict)
    }
}

/// Where a model runs, and who else was tried.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// Where it runs.
    pub placement: Placement,
    /// What was measured there; `None` for the CPU provider.
    pub measured: Option<Measured>,
    /// Who was wanted before it and is no good, in order.
    pub refused: Vec<Tried>,
}

impl Choice {
    /// The CPU provider because nothing else was asked for.
    pub fn cpu() -> Self {
        Self {
            placement: Placement::cpu(),
            measured: None,
            refused: Vec::new(),
        }
    }

    /// Whether somebody else was wanted first.
    pub fn is_fallback(&self) -> bool {
        !self.refused.is_empty()
    }
}
