//! What is asked of a provider, and whether what was measured is enough: a pure judgement.
//!
//! Facts and judgement are apart: [`Outcome`] is what a trial saw and what the store remembers, [`Verdict`] is what a policy makes of
//! it. So another policy needs no other trial.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{
    builtin::Options,
    candidate::{Candidate, Selector, short},
};

/// Largest difference from the CPU provider's output that is taken for the same answer, see [`Difference::scaled`]. OpenVINO's was
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
    /// Largest difference, see [`Difference::scaled`].
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

/// What a trial saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The probe ran to its end.
    Measured(Measured),
    /// It did not.
    Failed {
        /// How far it came.
        stage: String,
        /// What was said, in one line.
        message: String,
    },
}

/// The probe on a provider, compared with the CPU provider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Nodes that the provider ran, as ONNX Runtime cut the graph: a whole sub-graph compiled by the provider is one.
    pub nodes_placed: u32,
    /// Nodes that the CPU provider ran beside it.
    pub nodes_left: u32,
    /// Nodes that the CPU provider runs alone.
    pub nodes_cpu: u32,
    /// The output that differs most.
    pub difference: Difference,
    /// Median time of the probe on the CPU provider, in microseconds.
    pub cpu_us: u64,
    /// Median time of the probe on the provider, in microseconds.
    pub provider_us: u64,
    /// Time to open the graph on the provider, in milliseconds.
    pub open_ms: u64,
    /// What became of keeping the compiled graph.
    pub compiled: Compiled,
}

impl Measured {
    /// The share of the CPU provider's nodes that moved, 0 to 1.
    pub fn moved(&self) -> f64 {
        if self.nodes_placed == 0 {
            return 0.0;
        }
        (1.0 - f64::from(self.nodes_left) / f64::from(self.nodes_cpu.max(1))).max(0.0)
    }

    /// Time as a multiple of the CPU provider's.
    pub fn time_ratio(&self) -> f64 {
        self.provider_us as f64 / self.cpu_us.max(1) as f64
    }
}

/// How far an output is from the CPU provider's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Its name.
    pub output: String,
    /// The largest difference of two elements.
    #[serde(deserialize_with = "or_nan")]
    pub largest: f64,
    /// The same, divided by the largest element of the CPU provider's output where that is above 1.
    #[serde(deserialize_with = "or_nan")]
    pub scaled: f64,
}

/// JSON has no NaN; serde_json writes `null` for it.
fn or_nan<'de, D: serde::Deserializer<'de>>(source: D) -> Result<f64, D::Error> {
    Option::<f64>::deserialize(source).map(|value| value.unwrap_or(f64::NAN))
}

/// What became of keeping the compiled graph for the next start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compiled {
    /// The provider made none, or nothing asked for it.
    None,
    /// It is kept, and gave the same answer when it was opened again.
    Kept {
        /// Its size.
        bytes: u64,
        /// Time to open it, in milliseconds.
        open_ms: u64,
    },
    /// The provider keeps it in a way of its own, in a directory of its own.
    ByProvider {
        /// Its size.
        bytes: u64,
    },
    /// The provider wrote one that cannot be used.
    Unusable {
        /// Why.
        message: String,
    },
}

/// What a policy makes of a trial.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Good enough.
    Accepted,
    /// Right, but too much of the graph stays on the CPU provider.
    Partial {
        /// Nodes on the provider, as ONNX Runtime cut the graph.
        placed: u32,
        /// All nodes, counted the same way.
        total: u32,
        /// Share of the CPU provider's own nodes that moved.
        moved: f64,
        /// Least share that is enough.
        nodes_min: f64,
    },
    /// Another answer than the CPU provider's.
    Wrong {
        /// The output that differs most.
        output: String,
        /// By how much, see [`Difference::scaled`].
        difference: f64,
        /// By how much it may.
        tolerance: f64,
    },
    /// It refused, failed, crashed or took too long.
    Failed {
        /// How far it came.
        stage: String,
        /// What was said.
        message: String,
    },
    /// It took no node, and all of the graph silently ran on the CPU provider.
    Elsewhere,
    /// Right, and slower than the CPU provider.
    Slower {
        /// Time as a multiple of the CPU provider's.
        ratio: f64,
        /// Longest that is good enough.
        time_max: f64,
    },
    /// Nobody here is what was wanted.
    Absent,
    /// `allow` leaves it out.
    NotAllowed,
}

impl Verdict {
    /// The verdict in one word, for the status, D-Bus and scripts.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Partial { .. } => "partial",
            Self::Wrong { .. } => "wrong",
            Self::Failed { .. } => "failed",
            Self::Elsewhere => "elsewhere",
            Self::Slower { .. } => "slower",
            Self::Absent => "absent",
            Self::NotAllowed => "not-allowed",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted => f.write_str("accepted"),
            Self::Partial {
                placed,
                total,
                moved,
                nodes_min,
            } => write!(
                f,
                "partial: {placed} of {total} nodes placed, {:.0} % of the CPU's moved (nodes_min {:.0} %)",
                moved * 100.0,
                nodes_min * 100.0
            ),
            Self::Wrong {
                output,
                difference,
                tolerance,
            } => write!(
                f,
                "wrong: output {output:?} differs by {difference:.3} from the CPU's (tolerance {tolerance})"
            ),
            Self::Failed { stage, message } => write!(f, "failed at {stage}: {message}"),
            Self::Elsewhere => {
                f.write_str("elsewhere: it took no node, all of the graph ran on the CPU")
            }
            Self::Slower { ratio, time_max } => {
                write!(
                    f,
                    "slower: {ratio:.2} times the CPU's time (time_max {time_max})"
                )
            }
            Self::Absent => f.write_str("absent: no such provider or device here"),
            Self::NotAllowed => f.write_str("not allowed: `allow` leaves it out"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
