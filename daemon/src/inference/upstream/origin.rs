//! Where an answer was made, and why there: data only. Doors, the stored turn and the command line all show this.

use std::fmt;
use std::sync::Arc;

use serde_json::{Value, json};

/// Where an answer was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The place.
    pub place: Place,
    /// The model's name, as that place has it.
    pub model: Arc<str>,
    /// Why not in the other place; `None` where nothing else was wanted.
    pub reason: Option<String>,
}

/// A place where answers are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// On this box.
    Here,
    /// By an engine elsewhere.
    Upstream {
        /// Its address.
        url: Arc<str>,
    },
}

impl Origin {
    /// As JSON: `place` (`here` or `upstream`), `model`, with upstream `url`, and `reason` where there is one.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut told = match &self.place {
            Place::Here => json!({"place": "here", "model": *self.model}),
            Place::Upstream { url } => {
                json!({"place": "upstream", "model": *self.model, "url": **url})
            }
        };
        if let Some(reason) = &self.reason {
            told["reason"] = json!(reason);
        }
        told
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Here => write!(f, "here by {}", self.model)?,
            Place::Upstream { url } => write!(f, "by {} at {url}", self.model)?,
        }
        match &self.reason {
            Some(reason) => write!(f, ", because {reason}"),
            None => Ok(()),
        }
    }
}
