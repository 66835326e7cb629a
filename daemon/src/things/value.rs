//! Between the wire's values and JSON.
//!
//! JSON has no bytes: they become a base16 string on the way up, and never come down (a schema cannot ask for
//! them). Numbers keep being integers where they are, so that `40` is not sent as `40.0`.

use autoglm_protocol::Value as Wire;
use serde_json::{Map, Number, Value as Json};

/// A value that the wire cannot carry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the number {0} does not fit the wire (64-bit signed integers and doubles do)")]
pub struct Unrepresentable(pub String);

/// A device's value as JSON. Not-a-number and infinities become null, which no numeric schema accepts.
#[must_use]
pub fn to_json(value: Wire) -> Json {
    match value {
        Wire::Null => Json::Null,
        Wire::Bool(truth) => Json::Bool(truth),
        Wire::Int(number) => Json::from(number),
        Wire::Float(number) => Number::from_f64(number).map_or(Json::Null, Json::Number),
        Wire::Text(text) => Json::String(text),
        Wire::Bytes(bytes) => Json::String(hex::encode(bytes)),
        Wire::Array(items) => Json::Array(items.into_iter().map(to_json).collect()),
        Wire::Map(members) => Json::Object(
            members
                .into_iter()
                .map(|(key, value)| (key, to_json(value)))
                .collect(),
        ),
    }
}

/// JSON as the wire carries it.
///
/// # Errors
/// [`Unrepresentable`] for integers beyond 64 bits.
pub fn to_wire(value: &Json) -> Result<Wire, Unrepresentable> {
    Ok(match value {
        Json::Null => Wire::Null,
        Json::Bool(truth) => Wire::Bool(*truth),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), ..) => Wire::Int(number),
            (None, Some(number), _) => return Err(Unrepresentable(number.to_string())),
            (None, None, Some(number)) => Wire::Float(number),
            (None, None, None) => return Err(Unrepresentable(number.to_string())),
        },
        Json::String(text) => Wire::Text(text.clone()),
        Json::Array(items) => Wire::Array(items.iter().map(to_wire).collect::<Result<_, _>>()?),
        Json::Object(members) => Wire::Map(object(members)?),
    })
}

fn object(members: &Map<String, Json>) -> Result<Vec<(String, Wire)>, Unrepresentable> {
    members
        .iter()
        .map(|(key, value)| Ok((key.clone(), to_wire(value)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_survives_the_wire_and_back() {
        for value in [
            json!(null),
            json!(true),
            json!(40),
            json!(-1.5),
            json!("käse"),
            json!([1, {"a": [false]}]),
        ] {
            assert_eq!(to_json(to_wire(&value).unwrap()), value);
        }
    }

    #[test]
    fn a_number_too_large_is_refused_and_nan_is_null() {
        assert!(to_wire(&json!(u64::MAX)).is_err());
        assert_eq!(to_json(Wire::Float(f64::NAN)), Json::Null);
    }
}
