//! What is asked of a provider, and whether what was measured is enough: a pure judgement.
//!
//! Facts and judgement are apart: [`Outcome`] is what a trial saw and what the store remembers, [`Verdict`] is what a policy makes of
//! it. So another policy needs no other trial.

use std::collections::BTreeMap;

use super::{
    builtin::Options,
    candidate::{Candidate, Selector, short},
    outcome::{Outcome, Verdict},
};

/// Largest difference from the CPU provider's output that is taken for the same answer, see [`Difference::scaled`](super::outcome::Difference::scaled). OpenVINO's was
/// 7e-6, two kernels of the CPU provider itself differ by 0.035, and the wrong answers that were met by 0.9 and more.
pub const TOLERANCE: f64 = 0.02;

/// Least share of the CPU provider's nodes that must have moved where a provider is only preferred. Not all: providers leave
/// nodes that compute shapes to the CPU on purpose.
pub const NODES_MIN_PREFERRED: f64 = 0.9;

/// What the configuration asks of a model's provider.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Whether one of `wanted` must be found; otherwise the model runs on the CPU provider when none is good enough.
    pub is_required: bool,
    /// Who is wanted, the best first. Empty: the CPU provider.
    pub wanted: Vec<Selector>,
    /// Who may be tried at all; empty: everybody.
    pub allow: Vec<Selector>,
    /// Least share of nodes that must have moved off the CPU provider, 0 to 1. At 1, ONNX Runtime is also forbidden to use the CPU.
    pub nodes_min: f64,
    /// Largest difference, see [`Difference::scaled`](super::outcome::Difference::scaled).
    pub tolerance: f64,
    /// Longest time as a multiple of the CPU provider's; `None`: whatever it takes.
    pub time_max: Option<f64>,
    /// Options by provider, lower case and without `ExecutionProvider`.
    pub options: BTreeMap<String, Options>,
}

impl Default for Policy {
    /// The CPU provider.
    fn default() -> Self {
        Self {
            is_required: false,
            wanted: Vec::new(),
            allow: Vec::new(),
            nodes_min: NODES_MIN_PREFERRED,
            tolerance: TOLERANCE,
            time_max: Some(1.0),
            options: BTreeMap::new(),
        }
    }
}

impl Policy {
    /// What is asked of a provider that is required: all of the graph, in whatever time.
    pub fn required() -> Self {
        Self {
            is_required: true,
            nodes_min: 1.0,
            time_max: None,
            ..Self::default()
        }
    }

    /// Whether anybody but the CPU provider is wanted before it.
    pub fn wants_others(&self) -> bool {
        self.wanted.first().is_some_and(|first| !first.is_cpu())
    }

    /// Whether `candidate` may be tried.
    pub fn allows(&self, candidate: &Candidate) -> bool {
        self.allow.is_empty()
            || self
                .allow
                .iter()
                .any(|selector| selector.matches(candidate))
    }

    /// The options of a candidate's provider.
    pub fn options_for(&self, candidate: &Candidate) -> Options {
        let name = short(&candidate.provider).to_ascii_lowercase();
        self.options.get(&name).cloned().unwrap_or_default()
    }

    /// Whether ONNX Runtime may put nodes on the CPU provider that the chosen one does not take.
    pub fn lets_cpu_help(&self) -> bool {
        self.nodes_min < 1.0
    }

    /// Judges what a trial saw.
    pub fn judge(&self, outcome: &Outcome) -> Verdict {
        let measured = match outcome {
            Outcome::Failed { stage, message } => {
                return Verdict::Failed {
                    stage: stage.clone(),
                    message: message.clone(),
                };
            }
            Outcome::Measured(measured) => measured,
        };
        let difference = &measured.difference;
        // Not `> tolerance`: a NaN must be wrong.
        let is_right = difference.scaled <= self.tolerance;
        let time = measured.time_ratio();
        if measured.nodes_placed == 0 {
            Verdict::Elsewhere
        } else if !is_right {
            Verdict::Wrong {
                output: difference.output.clone(),
                difference: difference.scaled,
                tolerance: self.tolerance,
            }
        } else if measured.moved() < self.nodes_min {
            Verdict::Partial {
                placed: measured.nodes_placed,
                total: measured.nodes_placed + measured.nodes_left,
                moved: measured.moved(),
                nodes_min: self.nodes_min,
            }
        } else if let Some(time_max) = self.time_max.filter(|max| time > *max) {
            Verdict::Slower {
                ratio: time,
                time_max,
            }
        } else {
            Verdict::Accepted
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::outcome::{Compiled, Difference, Measured},
        *,
    };

    fn measured() -> Measured {
        Measured {
            nodes_placed: 18,
            nodes_left: 1,
            nodes_cpu: 31,
            difference: Difference {
                output: "stateN".into(),
                largest: 7e-6,
                scaled: 5e-6,
            },
            cpu_us: 200,
            provider_us: 100,
            open_ms: 10,
            compiled: Compiled::None,
        }
    }

    fn judged(change: impl FnOnce(&mut Measured)) -> &'static str {
        let mut measured = measured();
        change(&mut measured);
        Policy::default().judge(&Outcome::Measured(measured)).name()
    }

    #[test]
    fn every_way_to_be_no_good_has_its_verdict() {
        assert_eq!(judged(|_| {}), "accepted");
        assert_eq!(judged(|m| m.nodes_placed = 0), "elsewhere");
        assert_eq!(judged(|m| m.difference.scaled = 0.021), "wrong");
        assert_eq!(judged(|m| m.difference.scaled = f64::NAN), "wrong");
        assert_eq!(judged(|m| m.nodes_left = 15), "partial");
        assert_eq!(judged(|m| m.provider_us = 201), "slower");
        assert_eq!(
            judged(|m| (m.nodes_placed, m.difference.scaled) = (0, 1.0)),
            "elsewhere",
            "what ran on the CPU says nothing of the provider"
        );
    }

    #[test]
    fn a_policy_may_take_what_another_refuses() {
        let mut facts = measured();
        (facts.nodes_left, facts.provider_us) = (15, 900);
        let facts = Outcome::Measured(facts);
        let lenient = Policy {
            nodes_min: 0.5,
            time_max: None,
            ..Policy::default()
        };
        assert_eq!(Policy::default().judge(&facts).name(), "partial");
        assert_eq!(lenient.judge(&facts), Verdict::Accepted);
    }

    #[test]
    fn a_nan_stays_one_in_the_store() {
        let mut facts = measured();
        facts.difference.scaled = f64::NAN;
        let text = serde_json::to_string(&Outcome::Measured(facts)).unwrap();
        let back: Outcome = serde_json::from_str(&text).unwrap();
        assert_eq!(Policy::default().judge(&back).name(), "wrong");
    }
}
