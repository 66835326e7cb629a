//! Fleet messages as JSON: what comes in, checked, and what goes out.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::router::outcome::{CommandError, Done, Outcome};
use crate::things::description::ThingId;
use crate::understanding::{Call, Operation};

/// Largest payload taken: a command is small, and the broker's sender is not trusted to be.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// Longest command id, as the ledger takes it with our prefix.
pub const ID_BYTES_MAX: usize = 100;

/// The payload as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRequest {
    id: Option<String>,
    thing: String,
    action: Option<String>,
    #[serde(default)]
    input: Option<Value>,
    write: Option<RawWrite>,
    read: Option<String>,
    deadline_ms: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWrite {
    property: String,
    value: Value,
}

/// A command that can be handed to the router.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Identity for at-most-once execution.
    pub id: String,
    /// What to do.
    pub call: Call,
    /// How long the device may take.
    pub deadline: Option<Duration>,
}

/// Why a message is no command. The sender is to blame.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// Larger than [`PAYLOAD_BYTES_MAX`].
    #[error("the payload has {bytes} bytes, at most {PAYLOAD_BYTES_MAX} are taken")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// No JSON object with the expected members.
    #[error("the payload is no command: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Neither correlation data nor `id`.
    #[error(
        "the command has no identity: set MQTT correlation data or \"id\", so that it is executed once"
    )]
    NoId,
    /// An id that is empty, too long, or not plain ASCII.
    #[error("the command's id must be 1 to {ID_BYTES_MAX} of A-Z a-z 0-9 . _ : -")]
    BadId,
    /// Not exactly one of `action`, `write` and `read`.
    #[error("a command has exactly one of \"action\", \"write\" and \"read\"")]
    NotOneOperation,
    /// `input` without `action`.
    #[error("\"input\" goes with \"action\"")]
    StrayInput,
    /// The thing's id.
    #[error(transparent)]
    Thing(#[from] crate::things::description::InvalidThingId),
}

impl Request {
    /// Reads a command; `correlation` is the message's correlation data, which wins over `id`.
    ///
    /// # Errors
    /// [`MessageError`] names what is wrong.
    pub fn parse(payload: &[u8], correlation: Option<&[u8]>) -> Result<Self, MessageError> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(MessageError::TooLarge {
                bytes: payload.len(),
            });
        }
        let raw: RawRequest = serde_json::from_slice(payload)?;
        let id = match correlation {
            Some(bytes) => readable(bytes),
            None => raw.id.ok_or(MessageError::NoId)?,
        };
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
        if id.is_empty() || id.len() > ID_BYTES_MAX || !id.bytes().all(is_plain) {
            return Err(MessageError::BadId);
        }
        let operation = match (raw.action, raw.write, raw.read) {
            (Some(action), None, None) => Operation::Invoke {
                action,
                input: raw.input,
            },
            (None, write, read) if raw.input.is_some() && (write.is_some() || read.is_some()) => {
                return Err(MessageError::StrayInput);
            }
            (None, Some(write), None) => Operation::Write {
                property: write.property,
                value: write.value,
            },
            (None, None, Some(property)) => Operation::Read { property },
            _ => return Err(MessageError::NotOneOperation),
        };
        let thing = ThingId::new(raw.thing)?;
        Ok(Self {
            id,
            call: Call { thing, operation },
            deadline: raw.deadline_ms.map(Duration::from_millis),
        })
    }
}

/// Correlation data as an id: as it is where it is plain text, else in base 16.
fn readable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.bytes().all(|byte| byte.is_ascii_graphic()) => text.to_owned(),
        _ => hex::encode(bytes),
    }
}

/// The reply to a message that is no command.
#[must_use]
pub fn rejected(error: &MessageError) -> Value {
    json!({"status": "REJECTED", "error": "Malformed", "message": error.to_string()})
}

/// The reply to a command. What the device cannot have begun is `REJECTED`, what it may have begun and did not finish is `FAILED`.
#[must_use]
pub fn reply(id: &str, result: &Result<Done, CommandError>) -> Value {
    let mut reply = Outcome::of(result).to_json();
    if let Some(members) = reply.as_object_mut() {
        members.insert("id".to_owned(), json!(id));
        let was_refused = match result {
            Ok(_) | Err(CommandError::Device { .. } | CommandError::Earlier { .. }) => false,
            Err(error) => error.is_certain(),
        };
        if was_refused {
            members.insert("status".to_owned(), json!("REJECTED"));
        }
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(payload: &str) -> String {
        Request::parse(payload.as_bytes(), None)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_command_is_read_with_its_input() {
        let payload =
            br#"{"id":"a1","thing":"urn:lamp","action":"set_brightness","input":{"level":40}}"#;
        let request = Request::parse(payload, None).unwrap();
        assert_eq!(request.id, "a1");
        let Operation::Invoke { action, input } = request.call.operation else {
            panic!()
        };
        assert_eq!(
            (action.as_str(), input),
            ("set_brightness", Some(json!({"level": 40})))
        );
    }

    #[test]
    fn correlation_data_wins_and_binary_data_becomes_base_16() {
        let payload = br#"{"id":"a1","thing":"urn:lamp","read":"on"}"#;
        assert_eq!(Request::parse(payload, Some(b"c-7")).unwrap().id, "c-7");
        assert_eq!(Request::parse(payload, Some(&[0, 255])).unwrap().id, "00ff");
    }

    #[test]
    fn a_malformed_command_names_its_culprit() {
        assert!(refusal("{").contains("no command"));
        assert!(refusal(r#"{"thing":"x","action":"y"}"#).contains("identity"));
        assert!(refusal(r#"{"id":"1","thing":"x"}"#).contains("exactly one"));
        assert!(refusal(r#"{"id":"1","thing":"x","read":"a","input":1}"#).contains("input"));
        assert!(refusal(r#"{"id":"1","thing":"x","acton":"y"}"#).contains("acton"));
        assert!(refusal(r#"{"id":"ä","thing":"x","read":"y"}"#).contains("id must be"));
        assert!(refusal(r#"{"id":"1","thing":"a b","read":"y"}"#).contains("a b"));
    }

    #[test]
    fn any_payload_is_refused_or_read_but_never_panics() {
        proptest::proptest!(|(payload: Vec<u8>, correlation: Option<Vec<u8>>)| {
            let _ = Request::parse(&payload, correlation.as_deref());
        });
    }
}
