//! Values in words: numbers with their units, states, and what a schema allows.

use serde_json::Value;

use crate::things::description::DataSchema;

use super::phrases::OPPOSITES;
use super::reply::say;
use super::wording::{Verb, Wording};

/// A value with its unit, as people write it: "40 percent", "high", "yes".
pub(super) fn value_words(value: &Value, schema: &DataSchema, wording: &Wording) -> String {
    let titled = schema.choices.iter().find(|choice| choice.value == *value);
    if let Some(title) = titled.and_then(|choice| choice.title.as_ref()) {
        return title.to_lowercase();
    }
    match value {
        Value::Bool(true) => say(wording, "yes", &[]),
        Value::Bool(false) => say(wording, "no", &[]),
        Value::String(text) => text.clone(),
        Value::Number(number) => {
            let number = number.as_f64();
            match &schema.unit {
                Some(unit) => format!(
                    "{} {}",
                    number_words(number),
                    unit_words(unit, number, wording)
                ),
                None => number_words(number),
            }
        }
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| match schema.members.get(name) {
                Some(member) => {
                    let title = member
                        .naming
                        .title
                        .as_deref()
                        .unwrap_or(name)
                        .to_lowercase();
                    format!("{title} {}", value_words(value, member, wording))
                }
                None => format!("{name} {value}"),
            })
            .collect::<Vec<_>>()
            .join(", "),
        other => other.to_string(),
    }
}

pub(super) fn number_words(number: Option<f64>) -> String {
    let number = number.unwrap_or(f64::NAN);
    if number.fract() == 0.0 && number.abs() < 1e15 {
        format!("{number:.0}")
    } else {
        number.to_string()
    }
}

/// A unit as people say it; as the description writes it where the wording does not know it.
pub(super) fn unit_words<'a>(code: &'a str, number: Option<f64>, wording: &'a Wording) -> &'a str {
    let spoken = wording
        .unit_by_code(code)
        .and_then(|unit| unit.spoken.as_ref());
    spoken.map_or(code, |spoken| match number {
        Some(number) if number.abs() == 1.0 => &spoken.one,
        _ => &spoken.other,
    })
}

/// What to say of a yes or no: the template, and the word for it. "On" has an opposite ("off"), other
/// states can be denied ("not running"), and a noun ("child lock") is answered with yes or no.
pub(super) fn state_words(name: &str, state: bool, wording: &Wording) -> (&'static str, String) {
    let particles = |verb: &Verb| wording.verbs.get(verb).map(|words| &words.particles);
    let is_particle = |verb: &Verb| particles(verb).is_some_and(|list| list.has(name));
    let pairs = OPPOSITES.iter().flat_map(|(a, b)| [(a, b), (b, a)]);
    let opposite = pairs
        .filter(|(verb, _)| is_particle(verb))
        .find_map(|(_, other)| particles(other)?.iter().next());
    match opposite {
        Some(_) if state => return ("answer_state", name.to_owned()),
        Some(other) => return ("answer_state", other.join(" ")),
        None => {}
    }
    let grammar = &wording.grammar;
    let mut endings = grammar.gerund.iter().chain(&grammar.past);
    let is_state = !name.contains(' ') && endings.any(|ending| name.ends_with(ending.as_str()));
    let template = match (is_state, state) {
        (true, true) => "answer_state",
        (true, false) => "answer_not",
        (false, true) => "answer_yes",
        (false, false) => "answer_no",
    };
    (template, name.to_owned())
}

/// What a schema allows: "between 0 and 100 percent", "low, medium or high".
pub(super) fn allowed_words(schema: &DataSchema, wording: &Wording) -> String {
    if !schema.choices.is_empty() {
        let names = crate::things::schema::choice_names(schema);
        return join(&names, &say(wording, "or", &[]));
    }
    range_words(
        schema.minimum,
        schema.maximum,
        schema.unit.as_deref(),
        wording,
    )
}

pub(super) fn range_words(
    min: Option<f64>,
    max: Option<f64>,
    unit: Option<&str>,
    wording: &Wording,
) -> String {
    let unit = unit.map_or_else(String::new, |unit| {
        format!(" {}", unit_words(unit, None, wording))
    });
    let (low, high) = (number_words(min), number_words(max));
    let name = match (min, max) {
        (Some(_), Some(_)) => "between",
        (Some(_), None) => "at_least",
        (None, Some(_)) => "at_most",
        (None, None) => "any",
    };
    say(
        wording,
        name,
        &[("min", &low), ("max", &high), ("unit", &unit)],
    )
}

pub(super) fn join(names: &[String], last: &str) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [start @ .., end] => format!("{}{last}{end}", start.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_said_as_people_say_them() {
        let wording = Wording::english();
        let words = |code: &str, number| unit_words(code, Some(number), &wording).to_owned();
        assert_eq!(words("degree celsius", 21.5), "degrees Celsius");
        assert_eq!(words("degree celsius", 1.0), "degree Celsius");
        assert_eq!(words("percent", 40.0), "percent");
        assert_eq!(words("furlong", 3.0), "furlong");
    }

    #[test]
    fn states_are_said_by_their_own_or_their_opposite_word() {
        let wording = Wording::english();
        let words = |name, state| state_words(name, state, &wording);
        assert_eq!(words("on", true), ("answer_state", "on".to_owned()));
        assert_eq!(words("on", false), ("answer_state", "off".to_owned()));
        assert_eq!(
            words("locked", false),
            ("answer_state", "unlocked".to_owned())
        );
        assert_eq!(
            words("running", false),
            ("answer_not", "running".to_owned())
        );
        assert_eq!(
            words("child lock", true),
            ("answer_yes", "child lock".to_owned())
        );
    }
}
