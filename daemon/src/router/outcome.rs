//! What became of a command, as every door reports it and the ledger remembers it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::things::description::ThingId;
use crate::things::schema::CheckError;

/// A command that the device carried out, in the device's own words.
#[derive(Debug, Clone, PartialEq)]
pub struct Done {
    /// Output of an action, or the value that was read or written; null where there is none.
    pub output: Value,
    /// When what happened; all zero for an outcome that the ledger remembered.
    pub timings: Timings,
}

/// Durations of one command's parts, from the moment the router got it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timings {
    /// The command was durably noted as running.
    pub noted: Duration,
    /// Its last byte had been handed to the link.
    pub written: Duration,
    /// The device's answer was complete.
    pub answered: Duration,
    /// The outcome was durable.
    pub total: Duration,
}

/// Why a command was not (or perhaps not) carried out.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CommandError {
    /// The principal may not do this.
    #[error("{principal} may not use {resource}")]
    Denied {
        /// Who asked.
        principal: String,
        /// Thing and affordance.
        resource: String,
    },
    /// No such thing here.
    #[error("no thing has the id {thing} (`autoglmctl things` lists them)")]
    UnknownThing {
        /// The id that was asked for.
        thing: ThingId,
    },
    /// The thing has no such action or property, or the value does not satisfy its schema.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The thing is not connected.
    #[error("{thing} is not connected")]
    NotConnected {
        /// The thing's title.
        thing: String,
    },
    /// Too many commands wait for it.
    #[error("too many commands wait for {thing}; try again")]
    Busy {
        /// The thing's title.
        thing: String,
    },
    /// The device refused or failed, in its own words.
    #[error("{thing} says: {message}")]
    Device {
        /// The thing's title.
        thing: String,
        /// The device's code.
        code: String,
        /// The device's words.
        message: String,
    },
    /// It did not answer in time; it may still do it.
    #[error("{thing} did not answer within {} ms; whether it acted is not known", deadline.as_millis())]
    NoAnswer {
        /// The thing's title.
        thing: String,
        /// How long it had.
        deadline: Duration,
    },
    /// The connection broke and the device restarted (or did not return): whether it acted is not known.
    #[error("the connection to {thing} broke while it worked; whether it acted is not known")]
    Interrupted {
        /// The thing's title.
        thing: String,
    },
    /// The same command is being carried out.
    #[error("the command {id} is being carried out")]
    Running {
        /// The command's id.
        id: String,
    },
    /// The id belongs to another command.
    #[error("the command id {id} was used for another command")]
    Conflict {
        /// The command's id.
        id: String,
    },
    /// It came too late, or with a lifetime or an id that is not taken.
    #[error("the command is not taken: {reason}")]
    NotTaken {
        /// Why.
        reason: String,
    },
    /// The store cannot note it, so it is not executed.
    #[error("commands cannot be noted durably, so none is carried out: {cause}")]
    Store {
        /// What the store said.
        cause: String,
    },
    /// The same command was carried out earlier and failed; it is not tried again.
    #[error("{message}")]
    Earlier {
        /// [`CommandError::name`] of that time.
        error: String,
        /// The words of that time.
        message: String,
    },
}

impl CommandError {
    /// The error's name, the same on D-Bus, in fleet messages and in the ledger.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Denied { .. } => "AccessDenied",
            Self::UnknownThing { .. } => "UnknownThing",
            Self::Check(CheckError::Value(_)) => "InvalidValue",
            Self::Check(_) => "NotOffered",
            Self::NotConnected { .. } => "NotConnected",
            Self::Busy { .. } => "Busy",
            Self::Device { .. } => "DeviceFault",
            Self::NoAnswer { .. } => "NoAnswer",
            Self::Interrupted { .. } => "Interrupted",
            Self::Running { .. } => "Running",
            Self::Conflict { .. } => "Conflict",
            Self::NotTaken { .. } => "NotTaken",
            Self::Store { .. } => "StoreUnavailable",
            Self::Earlier { error, .. } => error,
        }
    }

    /// Whether the device cannot have acted, so that asking again is harmless.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        !matches!(
            self,
            Self::NoAnswer { .. } | Self::Interrupted { .. } | Self::Running { .. }
        )
    }
}

/// A result that came from the ledger or goes to it: what a duplicate is answered with.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The device did it.
    Succeeded {
        /// Its output.
        output: Value,
    },
    /// It was not done, or that is not known.
    Failed {
        /// [`CommandError::name`].
        error: String,
        /// The words for a person.
        message: String,
    },
}

impl Outcome {
    /// The outcome of a result.
    #[must_use]
    pub fn of(result: &Result<Done, CommandError>) -> Self {
        match result {
            Ok(done) => Self::Succeeded {
                output: done.output.clone(),
            },
            Err(error) => Self::Failed {
                error: error.name().to_owned(),
                message: error.to_string(),
            },
        }
    }

    /// The result that it stands for, as a duplicate gets it.
    ///
    /// # Errors
    /// [`CommandError::Earlier`] for a failure.
    pub fn into_result(self) -> Result<Done, CommandError> {
        match self {
            Self::Succeeded { output } => Ok(Done {
                output,
                timings: Timings::default(),
            }),
            Self::Failed { error, message } => Err(CommandError::Earlier { error, message }),
        }
    }

    /// As JSON, for the ledger and for fleet messages.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::Succeeded { output } => json!({"status": "SUCCEEDED", "output": output}),
            Self::Failed { error, message } => {
                json!({"status": "FAILED", "error": error, "message": message})
            }
        }
    }

    /// From the ledger's JSON; `None` if it is not of this shape.
    #[must_use]
    pub fn from_json(json: &Value) -> Option<Self> {
        match json.get("status")?.as_str()? {
            "SUCCEEDED" => Some(Self::Succeeded {
                output: json.get("output")?.clone(),
            }),
            "FAILED" => Some(Self::Failed {
                error: json.get("error")?.as_str()?.to_owned(),
                message: json.get("message")?.as_str()?.to_owned(),
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_survives_the_ledger() {
        let done = Ok(Done {
            output: json!({"level": 40}),
            timings: Timings::default(),
        });
        let failed = Err(CommandError::NotConnected {
            thing: "Desk lamp".into(),
        });
        for outcome in [Outcome::of(&done), Outcome::of(&failed)] {
            assert_eq!(Outcome::from_json(&outcome.to_json()), Some(outcome));
        }
        assert_eq!(Outcome::from_json(&json!({"status": "?"})), None);
    }
}
