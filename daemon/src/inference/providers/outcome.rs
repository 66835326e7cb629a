//! What a trial saw, and what a policy makes of it. Pure data: [`policy`](super::policy) judges, the store remembers.

use std::fmt;

use serde::{Deserialize, Serialize};

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
