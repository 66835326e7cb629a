//! The events of an answer, as the daemon writes them into the pipe (`control::json` makes them).

use std::fmt;

use serde::Deserialize;
use serde_json::{Map, Value as Json};

use crate::understanding::Call;

/// One event. Members that are not known here are passed over, and so are events: newer daemons may have more.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// What the sentence came to.
    Understood {
        /// What will be done.
        calls: Vec<Call>,
        /// How each clause was decided.
        #[serde(default)]
        explanations: Vec<Explanation>,
    },
    /// A call was carried out, or not.
    Executed {
        /// The answer for a person, in the device's terms.
        answer: String,
        /// The error's name; `None` for success.
        error: Option<String>,
        /// Where the time went, in microseconds.
        #[serde(default)]
        timings_us: Map<String, Json>,
    },
    /// A piece of the language model's answer.
    Delta {
        /// The piece.
        text: String,
    },
    /// All is said and done.
    Done {
        /// `command`, `question`, `refusal` or `conversation`.
        kind: String,
        /// The answer as a whole.
        text: String,
        /// Identifies the exchange in the daemon's logs.
        #[serde(default)]
        trace: String,
        /// Where the time went, in microseconds.
        #[serde(default)]
        timings_us: Map<String, Json>,
        /// Where a language model's answer was made.
        #[serde(default)]
        origin: Option<Origin>,
    },
    /// It could not be answered.
    Failed {
        /// The error's name.
        error: String,
        /// Why.
        message: String,
    },
    /// One that is not known here.
    #[serde(other)]
    Unknown,
}

impl Event {
    /// Whether showing it needs the things' titles.
    #[must_use]
    pub fn names_things(&self) -> bool {
        matches!(self, Self::Understood { calls, .. } if !calls.is_empty())
    }
}

/// Where a language model's answer was made, and why there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Origin {
    /// `here` or `upstream`.
    pub place: String,
    /// The model's name there.
    pub model: String,
    /// With `upstream`, its address.
    pub url: Option<String>,
    /// Why not in the other place, where that was wanted.
    pub reason: Option<String>,
}

impl Origin {
    /// Whether it is worth a word: it was made elsewhere, or here although it should not have been.
    #[must_use]
    pub fn is_notable(&self) -> bool {
        self.place != "here" || self.reason.is_some()
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.url {
            Some(url) => write!(f, "answered by {} at {url}", self.model)?,
            None => write!(f, "answered here by {}", self.model)?,
        }
        match &self.reason {
            Some(reason) => write!(f, ", because {reason}"),
            None => Ok(()),
        }
    }
}

/// How one clause was decided.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Explanation {
    /// The clause as it was compared.
    pub clause: String,
    /// The phrase that was nearest.
    pub phrase: Option<String>,
    /// Cosine similarity with it, -1 to 1.
    pub similarity: f64,
    /// How far it was above the best call that differs.
    pub margin: f64,
    /// Why it was decided so.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::understanding::Operation;

    #[test]
    fn events_of_the_daemon_are_read_and_newer_ones_passed_over() {
        let read = |json: Json| serde_json::from_value::<Event>(json).unwrap();
        let understood = read(json!({
            "event": "understood",
            "calls": [{"thing": "urn:lamp-1", "operation": {"invoke": {"action": "turn_on", "input": null}}}],
            "explanations": [{"clause": "lamp on", "phrase": "turn on the lamp", "similarity": 0.9, "margin": 0.2, "reason": "near"}],
        }));
        let Event::Understood {
            calls,
            explanations,
        } = &understood
        else {
            panic!("{understood:?}")
        };
        assert_eq!(
            calls[0].operation,
            Operation::Invoke {
                action: "turn_on".to_owned(),
                input: None
            }
        );
        assert_eq!(explanations[0].similarity, 0.9);
        assert!(understood.names_things());
        let executed = read(
            json!({"event": "executed", "status": "SUCCEEDED", "output": null, "call": {}, "answer": "On."}),
        );
        assert!(matches!(executed, Event::Executed { error: None, .. }));
        assert_eq!(
            read(json!({"event": "thinking", "depth": 3})),
            Event::Unknown
        );
    }
}
