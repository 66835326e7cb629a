//! Values and times as a person reads them.
//!
//! Whatever a device or a model said passes [`plain`] before it reaches a terminal: it must not move the cursor, rename the
//! window or type for the person.

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value as Json;

use crate::things::description::{DataSchema, DataType};

/// Without control characters (they become U+FFFD), but with line ends and tabs.
#[must_use]
pub fn plain(text: &str) -> Cow<'_, str> {
    let is_bad = |c: char| c.is_control() && c != '\n' && c != '\t';
    match text.contains(is_bad) {
        true => Cow::Owned(text.replace(is_bad, "\u{fffd}")),
        false => Cow::Borrowed(text),
    }
}

/// A value in the words of its schema: the title of a choice, the unit after a number.
#[must_use]
pub fn value(value: &Json, schema: Option<&DataSchema>) -> String {
    let choice =
        schema.and_then(|schema| schema.choices.iter().find(|choice| choice.value == *value));
    if let Some(title) = choice.and_then(|choice| choice.title.as_ref()) {
        return plain(title).into_owned();
    }
    let text = match value {
        Json::String(text) => plain(text).into_owned(),
        Json::Object(members) => {
            let member = |(name, value): (&String, &Json)| {
                let schema = schema.and_then(|schema| schema.members.get(name));
                format!("{}={}", plain(name), self::value(value, schema))
            };
            return members.iter().map(member).collect::<Vec<_>>().join(", ");
        }
        value => plain(&value.to_string()).into_owned(),
    };
    match schema.and_then(|schema| schema.unit.as_ref()) {
        Some(unit) => format!("{text} {}", plain(unit)),
        None => text,
    }
}

/// What a schema takes: `integer, 0 to 100 percent`, `low, medium or high`.
#[must_use]
pub fn taken(schema: &DataSchema) -> String {
    if !schema.choices.is_empty() {
        let names: Vec<String> = schema
            .choices
            .iter()
            .map(|choice| value(&choice.value, Some(schema)))
            .collect();
        return match names.split_last() {
            Some((last, [])) => last.clone(),
            Some((last, others)) => format!("{} or {last}", others.join(", ")),
            None => String::new(),
        };
    }
    let mut text = schema.data_type.map_or("any", type_name).to_owned();
    match (schema.minimum, schema.maximum) {
        (Some(minimum), Some(maximum)) => text.push_str(&format!(", {minimum} to {maximum}")),
        (Some(minimum), None) => text.push_str(&format!(", from {minimum}")),
        (None, Some(maximum)) => text.push_str(&format!(", up to {maximum}")),
        (None, None) => {}
    }
    if let Some(unit) = &schema.unit {
        let bounded = schema.minimum.is_some() || schema.maximum.is_some();
        text.push_str(if bounded { " " } else { ", in " });
        text.push_str(&plain(unit));
    }
    if let Some(step) = schema.multiple_of {
        text.push_str(&format!(", in steps of {step}"));
    }
    text
}

/// An action's input as it is typed: `level=<integer, 0 to 100 percent>`; members that may be left out in brackets.
#[must_use]
pub fn usage(schema: Option<&DataSchema>) -> String {
    let Some(schema) = schema else {
        return String::new();
    };
    if schema.members.is_empty() {
        return format!("<{}>", taken(schema));
    }
    let members = schema.members.iter().map(|(name, member)| {
        let text = format!("{}=<{}>", plain(name), taken(member));
        if schema.required.contains(name) {
            text
        } else {
            format!("[{text}]")
        }
    });
    members.collect::<Vec<_>>().join(" ")
}

fn type_name(data_type: DataType) -> &'static str {
    match data_type {
        DataType::Boolean => "boolean",
        DataType::Integer => "integer",
        DataType::Number => "number",
        DataType::String => "text",
        DataType::Object => "object",
        DataType::Array => "array",
        DataType::Null => "nothing",
    }
}

/// A time in milliseconds since 1970, in `zone`, to the second.
#[must_use]
pub fn time(unix_ms: u64, zone: &TimeZone) -> String {
    i64::try_from(unix_ms)
        .ok()
        .and_then(|millis| Timestamp::from_millisecond(millis).ok())
        .map_or_else(String::new, |time| {
            time.to_zoned(zone.clone())
                .strftime("%Y-%m-%d %H:%M:%S")
                .to_string()
        })
}

/// Whole microseconds as milliseconds, with as many digits as tell something.
#[must_use]
pub fn millis(micros: u64) -> String {
    let precision = match micros {
        0..10_000 => 2,
        10_000..100_000 => 1,
        _ => 0,
    };
    format!(
        "{:.precision$} ms",
        Duration::from_micros(micros).as_secs_f64() * 1000.0
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::things::description::ThingDescription;

    fn schema(schema: Json) -> DataSchema {
        let thing = json!({"id": "urn:x", "title": "X", "actions": {"act": {"input": schema}}});
        ThingDescription::from_value(thing).unwrap().actions["act"]
            .input
            .clone()
            .unwrap()
    }

    #[test]
    fn a_device_cannot_drive_the_terminal() {
        assert_eq!(
            plain("a\u{1b}[2Jb\u{9b}c\r\u{7f}"),
            "a\u{fffd}[2Jb\u{fffd}c\u{fffd}\u{fffd}"
        );
        assert_eq!(plain("käse\n\tx"), "käse\n\tx");
        assert_eq!(
            value(&json!({"a\u{1b}": ["\u{9b}"]}), None),
            "a\u{fffd}=[\"\u{fffd}\"]"
        );
    }

    #[test]
    fn numbers_have_their_unit_and_choices_their_title() {
        let percent =
            schema(json!({"type": "integer", "unit": "percent", "minimum": 0, "maximum": 100}));
        assert_eq!(value(&json!(40), Some(&percent)), "40 percent");
        assert_eq!(taken(&percent), "integer, 0 to 100 percent");
        let mode = schema(
            json!({"oneOf": [{"const": 1, "title": "Night"}, {"const": 2, "title": "Day"}]}),
        );
        assert_eq!(value(&json!(2), Some(&mode)), "Day");
        assert_eq!(taken(&mode), "Night or Day");
        assert_eq!(value(&json!({"a": true, "b": "x"}), None), "a=true, b=x");
    }

    #[test]
    fn usage_is_what_one_types() {
        let input = schema(
            json!({"type": "object", "required": ["level"], "properties": {
                "level": {"type": "integer", "minimum": 0, "maximum": 100, "unit": "percent"},
                "fade": {"type": "number", "unit": "s"},
            }}),
        );
        assert_eq!(
            usage(Some(&input)),
            "[fade=<number, in s>] level=<integer, 0 to 100 percent>"
        );
        assert_eq!(usage(None), "");
    }

    #[test]
    fn times_are_local_and_durations_have_three_digits() {
        assert_eq!(time(0, &TimeZone::UTC), "1970-01-01 00:00:00");
        assert_eq!(time(u64::MAX, &TimeZone::UTC), "");
        assert_eq!(millis(1_234), "1.23 ms");
        assert_eq!(millis(12_345), "12.3 ms");
        assert_eq!(millis(1_234_567), "1235 ms");
    }
}
