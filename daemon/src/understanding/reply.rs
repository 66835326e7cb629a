//! What we say: questions, refusals and the device's own answer, in the wording's sentences.
//!
//! Values come from the device's reply, never from what was asked of it.

use serde_json::Value;

use crate::things::description::ThingDescription;
use crate::things::schema::{ValueError, ValueFault};

use super::values::{join, number_words, range_words, state_words, unit_words, value_words};
use super::wording::Wording;
use super::{Call, Operation, Refusal};

/// The templates that a wording must have.
pub const TEMPLATES: &[&str] = &[
    "ask_confirm",
    "ask_choose",
    "ask_one",
    "ask_instead",
    "ask_value",
    "ask_unclear",
    "ask_which_thing",
    "or",
    "and",
    "command_action",
    "command_input",
    "command_write",
    "command_read",
    "unknown_thing",
    "not_offered",
    "not_told",
    "out_of_range",
    "not_a_multiple",
    "not_in_enum",
    "wrong_type",
    "missing",
    "unexpected",
    "wrong_unit",
    "at_limit",
    "state_unknown",
    "deferred",
    "other",
    "between",
    "at_least",
    "at_most",
    "any",
    "answer_value",
    "answer_done",
    "answer_result",
    "answer_state",
    "answer_not",
    "answer_yes",
    "answer_no",
    "yes",
    "no",
    "cancelled",
    "denied",
    "gone",
    "not_connected",
    "busy",
    "device_fault",
    "no_answer",
    "interrupted",
    "running",
    "conflict",
    "not_taken",
    "not_stored",
    "failed_earlier",
];

/// Puts values into the `{places}` of a template.
pub fn fill(template: &str, places: &[(&str, &str)]) -> String {
    let mut text = String::with_capacity(template.len() + 32);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        let Some((name, tail)) = after.split_once('}') else {
            rest = after;
            continue;
        };
        let value = places.iter().find(|(place, _)| *place == name);
        text.push_str(value.map_or("", |(_, value)| value));
        rest = tail;
    }
    text.push_str(rest);
    text
}

/// The named sentence of [`TEMPLATES`] with its places filled.
pub fn say(wording: &Wording, name: &str, places: &[(&str, &str)]) -> String {
    let template = wording.replies.get(name).map_or("", String::as_str);
    fill(template, places)
}

/// A refusal as a sentence.
pub fn refusal(refusal: &Refusal, wording: &Wording) -> String {
    let say = |name: &str, places: &[(&str, &str)]| say(wording, name, places);
    match refusal {
        Refusal::UnknownThing { name } => say("unknown_thing", &[("name", name)]),
        Refusal::NotOffered { thing } => say("not_offered", &[("thing", &thing.to_lowercase())]),
        Refusal::NotTold { thing } => say("not_told", &[("thing", &thing.to_lowercase())]),
        Refusal::WrongUnit {
            thing,
            expected,
            actual,
        } => say(
            "wrong_unit",
            &[
                ("thing", &thing.to_lowercase()),
                ("expected", unit_words(expected, None, wording)),
                ("actual", actual),
            ],
        ),
        Refusal::AtLimit { thing, limit } => say(
            "at_limit",
            &[("thing", &thing.to_lowercase()), ("limit", limit)],
        ),
        Refusal::StateUnknown { thing, property } => say(
            "state_unknown",
            &[
                ("thing", &thing.to_lowercase()),
                ("name", &property.to_lowercase()),
            ],
        ),
        Refusal::Deferred => say("deferred", &[]),
        Refusal::Value(error) => value_error(error, wording),
    }
}

/// A value that a thing does not take, as a sentence that names what it would take.
pub fn value_error(error: &ValueError, wording: &Wording) -> String {
    let thing = error.subject.thing.as_str();
    let name = error
        .subject
        .member
        .as_deref()
        .unwrap_or(&error.subject.affordance)
        .to_lowercase();
    let say = |template: &str, rest: &[(&str, &str)]| {
        let mut places = vec![("thing", thing), ("name", name.as_str())];
        places.extend(rest);
        say(wording, template, &places)
    };
    let plain = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match &error.fault {
        ValueFault::OutOfRange {
            min,
            max,
            actual,
            unit,
        } => {
            let allowed = range_words(*min, *max, unit.as_deref(), wording);
            let actual = number_words(Some(*actual));
            say(
                "out_of_range",
                &[("allowed", &allowed), ("actual", &actual)],
            )
        }
        ValueFault::NotAMultiple { step, actual } => {
            let (step, actual) = (number_words(Some(*step)), number_words(Some(*actual)));
            say("not_a_multiple", &[("step", &step), ("actual", &actual)])
        }
        ValueFault::NotInEnum { allowed, actual } => {
            let or = wording.replies.get("or").map_or(" ", String::as_str);
            say(
                "not_in_enum",
                &[("allowed", &join(allowed, or)), ("actual", &plain(actual))],
            )
        }
        ValueFault::WrongType { actual, .. } => say("wrong_type", &[("actual", &plain(actual))]),
        ValueFault::Missing { member } => say("missing", &[("name", member)]),
        ValueFault::Unexpected { .. } => say("unexpected", &[]),
        ValueFault::Other { rule } => say("other", &[("rule", rule)]),
    }
}

/// A call in words, for a question: "set brightness to 40 percent (desk lamp)".
pub fn call_words(call: &Call, description: &ThingDescription, wording: &Wording) -> String {
    let thing = description.title.to_lowercase();
    let titled = |title: &Option<String>, name: &str| {
        title
            .clone()
            .unwrap_or_else(|| name.replace('_', " "))
            .to_lowercase()
    };
    let (template, title, value) = match &call.operation {
        Operation::Invoke { action, input } => {
            let known = description.actions.get(action);
            let title = known.and_then(|action| action.naming.title.clone());
            let schema = known.and_then(|action| action.input.as_ref());
            match input.as_ref().zip(schema) {
                Some((input, schema)) => {
                    let value = single(input).map_or_else(
                        || value_words(input, schema, wording),
                        |(name, value)| {
                            let member = schema.members.get(name).unwrap_or(schema);
                            value_words(value, member, wording)
                        },
                    );
                    ("command_input", titled(&title, action), value)
                }
                None => ("command_action", titled(&title, action), String::new()),
            }
        }
        Operation::Read { property } => {
            let known = description.properties.get(property);
            let title = known.and_then(|property| property.naming.title.clone());
            ("command_read", titled(&title, property), String::new())
        }
        Operation::Write { property, value } => {
            let known = description.properties.get(property);
            let title = known.and_then(|property| property.naming.title.clone());
            let value = known.map_or_else(
                || value.to_string(),
                |property| value_words(value, &property.schema, wording),
            );
            ("command_write", titled(&title, property), value)
        }
    };
    let places = [
        ("title", title.as_str()),
        ("thing", thing.as_str()),
        ("value", value.as_str()),
    ];
    say(wording, template, &places)
}

/// The only member of an object.
fn single(input: &Value) -> Option<(&String, &Value)> {
    let members = input.as_object().filter(|members| members.len() == 1)?;
    members.iter().next()
}

/// The device's own answer as a sentence. `reply` is what the device sent back: the value of a
/// property, an action's output, or nothing.
pub fn answer(
    call: &Call,
    reply: Option<&Value>,
    description: &ThingDescription,
    wording: &Wording,
) -> String {
    let thing = description.title.as_str();
    match &call.operation {
        Operation::Invoke { action, .. } => {
            let known = description.actions.get(action);
            let title = known.and_then(|action| action.naming.title.clone());
            let title = title
                .unwrap_or_else(|| action.replace('_', " "))
                .to_lowercase();
            let schema = known.and_then(|action| action.output.as_ref());
            match reply.filter(|reply| !reply.is_null()) {
                None => say(
                    wording,
                    "answer_done",
                    &[("thing", thing), ("title", &title)],
                ),
                Some(reply) => {
                    let value = schema.map_or_else(
                        || reply.to_string(),
                        |schema| value_words(reply, schema, wording),
                    );
                    let places = [
                        ("thing", thing),
                        ("title", title.as_str()),
                        ("value", value.as_str()),
                    ];
                    say(wording, "answer_result", &places)
                }
            }
        }
        Operation::Read { property } | Operation::Write { property, .. } => {
            let known = description.properties.get(property);
            let name = known
                .and_then(|property| property.naming.title.clone())
                .unwrap_or_else(|| property.replace('_', " "))
                .to_lowercase();
            let Some(reply) = reply.filter(|reply| !reply.is_null()) else {
                return say(
                    wording,
                    "answer_done",
                    &[("thing", thing), ("title", &name)],
                );
            };
            if let Some(state) = reply.as_bool()
                && known.is_none_or(|property| property.schema.choices.is_empty())
            {
                let (template, name) = state_words(&name, state, wording);
                return say(wording, template, &[("thing", thing), ("name", &name)]);
            }
            let value = known.map_or_else(
                || reply.to_string(),
                |property| value_words(reply, &property.schema, wording),
            );
            say(
                wording,
                "answer_value",
                &[("thing", thing), ("name", &name), ("value", &value)],
            )
        }
    }
}

/// A property's value that the device reported, as a sentence ("Desk lamp: brightness 40 percent.").
pub fn property_report(
    property: &str,
    value: &Value,
    description: &ThingDescription,
    wording: &Wording,
) -> String {
    let call = Call {
        thing: description.id.clone(),
        operation: Operation::Read {
            property: property.to_owned(),
        },
    };
    answer(&call, Some(value), description, wording)
}
