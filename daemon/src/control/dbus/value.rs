//! Between D-Bus variants and JSON.
//!
//! D-Bus has no null: a null member of an object is left out, and a null anywhere else is the empty string. JSON numbers become
//! `x` (64-bit integers) or `d`; all integer types of D-Bus become JSON integers.

use std::collections::HashMap;

use serde_json::{Map, Number, Value as Json};
use zbus::wire::Type;
use zbus::{Array, OwnedVariant, Variant};

/// A variant that JSON cannot say (a file descriptor, say), or is nested too deep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a value of this D-Bus type cannot be sent to a device")]
pub struct Unsayable;

/// Deepest nesting followed; D-Bus itself allows 64.
const DEPTH_MAX: usize = 32;

/// A variant as JSON.
///
/// # Errors
/// [`Unsayable`].
pub fn to_json(value: &Variant<'_>) -> Result<Json, Unsayable> {
    convert(value, 0)
}

fn convert(value: &Variant<'_>, depth: usize) -> Result<Json, Unsayable> {
    if depth > DEPTH_MAX {
        return Err(Unsayable);
    }
    Ok(match value {
        Variant::Bool(truth) => Json::Bool(*truth),
        Variant::U8(number) => Json::from(*number),
        Variant::I16(number) => Json::from(*number),
        Variant::U16(number) => Json::from(*number),
        Variant::I32(number) => Json::from(*number),
        Variant::U32(number) => Json::from(*number),
        Variant::I64(number) => Json::from(*number),
        Variant::U64(number) => Json::from(*number),
        Variant::F64(number) => Number::from_f64(*number)
            .map(Json::Number)
            .ok_or(Unsayable)?,
        Variant::Str(text) => Json::String(text.to_string()),
        Variant::ObjectPath(path) => Json::String(path.to_string()),
        Variant::Variant(inner) => convert(inner, depth + 1)?,
        Variant::Array(items) => Json::Array(
            items
                .iter()
                .map(|item| convert(item, depth + 1))
                .collect::<Result<_, _>>()?,
        ),
        Variant::Structure(fields) => Json::Array(
            fields
                .fields()
                .iter()
                .map(|field| convert(field, depth + 1))
                .collect::<Result<_, _>>()?,
        ),
        Variant::Dict(members) => {
            let mut object = Map::new();
            for (key, value) in members.iter() {
                let Variant::Str(key) = key else {
                    return Err(Unsayable);
                };
                object.insert(key.to_string(), convert(value, depth + 1)?);
            }
            Json::Object(object)
        }
        _ => return Err(Unsayable),
    })
}

/// JSON as a variant.
#[must_use]
pub fn from_json(json: &Json) -> Variant<'static> {
    match json {
        Json::Null => Variant::from(String::new()),
        Json::Bool(truth) => Variant::from(*truth),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Variant::from(number),
            (None, Some(number)) => Variant::from(number),
            (None, None) => Variant::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Variant::from(text.clone()),
        Json::Array(items) => {
            let mut array = Array::new(<Variant<'_> as Type>::SIGNATURE);
            for item in items {
                // Every item is wrapped in a variant, which is what the array holds.
                let _ = array.append(Variant::Variant(Box::new(from_json(item))));
            }
            Variant::Array(array)
        }
        Json::Object(members) => Variant::from(dictionary(members)),
    }
}

/// A JSON object as `a{sv}`.
#[must_use]
pub fn dictionary(members: &Map<String, Json>) -> HashMap<String, Variant<'static>> {
    members
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| (key.clone(), from_json(value)))
        .collect()
}

/// A JSON object as an owned `a{sv}`, as methods return it.
#[must_use]
pub fn owned_dictionary(members: &Map<String, Json>) -> HashMap<String, OwnedVariant> {
    dictionary(members)
        .into_iter()
        // Only file descriptors cannot be owned, and JSON has none.
        .filter_map(|(key, value)| Some((key, OwnedVariant::try_from(value).ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_survives_the_bus_and_back() {
        for value in [
            json!(true),
            json!(-3),
            json!(1.5),
            json!("käse"),
            json!([1, "a", [true]]),
            json!({"a": {"b": [2.5]}}),
        ] {
            assert_eq!(to_json(&from_json(&value)), Ok(value));
        }
    }

    #[test]
    fn a_null_member_is_left_out() {
        assert_eq!(
            to_json(&from_json(&json!({"a": null, "b": 1}))),
            Ok(json!({"b": 1}))
        );
    }
}
