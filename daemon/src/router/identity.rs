//! What makes a command the same one: its name at the device, and the digest by which the ledger tells a duplicate from another command
//! under the same id. Pure; [`command`](super::command) uses it.

use autoglm_protocol::RequestId;
use sha2::{Digest, Sha256};

use super::command::Command;
use crate::understanding::Operation;

/// The device's name for a command: the first 64 bits of a SHA-256 of its id, so that a retry has the same one.
pub(super) fn request_id(command_id: &str) -> RequestId {
    let hash = Sha256::digest(command_id.as_bytes());
    let mut first = [0u8; 8];
    first.copy_from_slice(&hash[..8]);
    RequestId(u64::from_be_bytes(first))
}

/// The name under which a request is asked anew after the device refused it under `id`.
pub(super) fn next_id(id: RequestId) -> RequestId {
    request_id(&format!("after {:016x}", id.0))
}

/// What the ledger compares to tell a duplicate from another command under the same id. Members of JSON objects count in the order
/// of their names, in whatever order they were sent.
pub(super) fn digest(command: &Command) -> String {
    let mut call = command.call.clone();
    match &mut call.operation {
        Operation::Invoke {
            input: Some(value), ..
        }
        | Operation::Write { value, .. } => value.sort_all_objects(),
        Operation::Invoke { input: None, .. } | Operation::Read { .. } => {}
    }
    let call = serde_json::to_vec(&call).unwrap_or_default();
    let mut hash = Sha256::new();
    hash.update(command.principal.to_string());
    hash.update([0]);
    hash.update(call);
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::super::Principal;
    use super::*;
    use crate::things::description::ThingId;
    use crate::understanding::Call;

    #[test]
    fn the_order_of_members_does_not_make_another_command() {
        let digest_of = |input| {
            let call = Call {
                thing: ThingId::new("urn:lamp").unwrap(),
                operation: Operation::Invoke {
                    action: "fade".into(),
                    input: serde_json::from_str(input).unwrap(),
                },
            };
            digest(&Command::fresh(Principal::Fleet, call))
        };
        assert_eq!(
            digest_of(r#"{"to": {"b": 1, "a": 2}, "in": 3}"#),
            digest_of(r#"{"in": 3, "to": {"a": 2, "b": 1}}"#)
        );
        assert_ne!(digest_of(r#"{"in": 3}"#), digest_of(r#"{"in": 4}"#));
    }
}
