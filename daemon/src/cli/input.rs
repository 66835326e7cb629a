//! What a person types after an action or a property, as the JSON that the thing's schema asks for.
//!
//! Types are converted, values are not judged: whether 400 percent is too much is the daemon's to say, in one place.

use serde_json::{Map, Number, Value as Json};

use super::exit::Exit;
use super::failure::Failure;
use crate::things::description::{DataSchema, DataType};

/// The input of an action; `None` where nothing was typed.
///
/// # Errors
/// [`Exit::InvalidValue`] for a text that cannot be of the schema's type, [`Exit::Usage`] for a form that is none.
pub fn input(schema: Option<&DataSchema>, words: &[String]) -> Result<Option<Json>, Failure> {
    match (schema, words) {
        (_, []) => Ok(None),
        (Some(schema), words) => value(schema, words).map(Some),
        (None, _) => Err(Failure::new(
            Exit::InvalidValue,
            "the action takes no input",
        )),
    }
}

/// A value of the schema's type.
///
/// # Errors
/// As [`input`].
pub fn value(schema: &DataSchema, words: &[String]) -> Result<Json, Failure> {
    match words {
        [word] if is_object(schema) && word.trim_start().starts_with('{') => json(word),
        words if is_object(schema) => object(schema, words),
        [word] => scalar("the value", schema, word),
        _ => Err(Failure::new(Exit::Usage, "one value is taken here")
            .hint("put text with spaces in quotes")),
    }
}

fn is_object(schema: &DataSchema) -> bool {
    schema.data_type == Some(DataType::Object)
        || (schema.data_type.is_none() && !schema.members.is_empty())
}

fn object(schema: &DataSchema, words: &[String]) -> Result<Json, Failure> {
    if let ([word], Some((name, member))) = (words, schema.members.iter().next())
        && schema.members.len() == 1
        && !word.starts_with(&format!("{name}="))
    {
        return Ok(Json::Object(Map::from_iter([(
            name.clone(),
            scalar(name, member, word)?,
        )])));
    }
    let mut object = Map::new();
    for word in words {
        let Some((name, text)) = word.split_once('=') else {
            return Err(
                Failure::new(Exit::Usage, format!("{word:?} is not NAME=VALUE"))
                    .hint(members_hint(schema)),
            );
        };
        let Some(member) = schema.members.get(name) else {
            return Err(Failure::new(
                Exit::InvalidValue,
                format!("the input has no member {name:?}"),
            )
            .hint(members_hint(schema)));
        };
        if object
            .insert(name.to_owned(), scalar(name, member, text)?)
            .is_some()
        {
            return Err(Failure::new(Exit::Usage, format!("{name} is given twice")));
        }
    }
    Ok(Json::Object(object))
}

fn members_hint(schema: &DataSchema) -> String {
    let members: Vec<&str> = schema.members.keys().map(String::as_str).collect();
    format!("its members are {}", members.join(", "))
}

fn scalar(name: &str, schema: &DataSchema, text: &str) -> Result<Json, Failure> {
    if let Some(choice) = choice(schema, text) {
        return Ok(choice);
    }
    let wrong = |what: &str| {
        Failure::new(
            Exit::InvalidValue,
            format!("{name}: {text:?} is not {what}"),
        )
    };
    let typed = text.trim();
    match schema.data_type {
        Some(DataType::Boolean) => match typed.to_ascii_lowercase().as_str() {
            "true" | "on" => Ok(Json::Bool(true)),
            "false" | "off" => Ok(Json::Bool(false)),
            _ => Err(wrong("true, false, on or off")),
        },
        // JSON Schema counts 40.0 as an integer; other fractions are the daemon's to refuse, with the schema's words.
        Some(DataType::Integer) => integer(typed)
            .or_else(|| number(typed))
            .ok_or_else(|| wrong("a whole number")),
        Some(DataType::Number) => integer(typed)
            .or_else(|| number(typed))
            .ok_or_else(|| wrong("a number")),
        Some(DataType::String) => Ok(Json::String(text.to_owned())),
        Some(DataType::Object | DataType::Array) => json(text),
        Some(DataType::Null) => Err(Failure::new(
            Exit::InvalidValue,
            format!("{name} takes no value"),
        )),
        None => Ok(serde_json::from_str(text).unwrap_or_else(|_| Json::String(text.to_owned()))),
    }
}

/// The choice that `text` names: its value as it is, or its title or another name in any case.
fn choice(schema: &DataSchema, text: &str) -> Option<Json> {
    let exact = schema.choices.iter().find(|choice| match &choice.value {
        Json::String(value) => value == text,
        value => serde_json::from_str::<Json>(text).is_ok_and(|typed| typed == *value),
    });
    let named = || {
        let wanted = text.to_lowercase();
        schema.choices.iter().find(|choice| {
            choice
                .title
                .iter()
                .chain(&choice.aliases)
                .any(|name| name.to_lowercase() == wanted)
        })
    };
    exact.or_else(named).map(|choice| choice.value.clone())
}

fn integer(text: &str) -> Option<Json> {
    text.parse::<i64>().ok().map(Json::from)
}

fn number(text: &str) -> Option<Json> {
    text.parse::<f64>()
        .ok()
        .and_then(Number::from_f64)
        .map(Json::Number)
}

fn json(text: &str) -> Result<Json, Failure> {
    serde_json::from_str(text).map_err(|error| {
        Failure::new(Exit::InvalidValue, format!("{text:?} is not JSON")).because(&error)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::things::description::ThingDescription;

    /// An action that takes `schema`, read by the code that reads devices' descriptions.
    fn read(schema: Json, words: &[&str]) -> Result<Json, Exit> {
        let thing = json!({"id": "urn:x", "title": "X", "actions": {"act": {"input": schema}}});
        let thing = ThingDescription::from_value(thing).unwrap();
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        let schema = thing.actions["act"].input.as_ref().unwrap();
        value(schema, &words).map_err(|failure| failure.exit)
    }

    fn scene() -> Json {
        json!({"type": "object", "properties": {
            "level": {"type": "integer"}, "fade": {"type": "number"}, "name": {"type": "string"},
            "on": {"type": "boolean"}, "tags": {"type": "array"},
            "mode": {"oneOf": [{"const": 1, "title": "Night light"}, {"const": 2, "title": "Reading"}]},
        }})
    }

    #[test]
    fn pairs_become_an_object_of_the_schemas_types() {
        let words = [
            "level=40",
            "fade=0.5",
            "name=40",
            "on=off",
            "tags=[1]",
            "mode=night light",
        ];
        let expected =
            json!({"level": 40, "fade": 0.5, "name": "40", "on": false, "tags": [1], "mode": 1});
        assert_eq!(read(scene(), &words), Ok(expected));
    }

    #[test]
    fn json_is_taken_as_it_is() {
        assert_eq!(
            read(scene(), &[r#"{"level": 40.5}"#]),
            Ok(json!({"level": 40.5}))
        );
        assert_eq!(read(scene(), &["{level"]), Err(Exit::InvalidValue));
    }

    #[test]
    fn a_value_after_the_first_equals_sign_may_hold_others() {
        assert_eq!(read(scene(), &["name=a=b"]), Ok(json!({"name": "a=b"})));
    }

    #[test]
    fn a_lone_value_goes_to_the_only_member() {
        let one = json!({"type": "object", "properties": {"level": {"type": "integer"}}, "required": ["level"]});
        assert_eq!(read(one.clone(), &["40"]), Ok(json!({"level": 40})));
        assert_eq!(read(one.clone(), &["level=40"]), Ok(json!({"level": 40})));
        assert_eq!(read(one, &["forty"]), Err(Exit::InvalidValue));
        assert_eq!(read(scene(), &["40"]), Err(Exit::Usage));
    }

    #[test]
    fn scalars_are_converted_and_never_guessed() {
        assert_eq!(read(json!({"type": "integer"}), &["-3"]), Ok(json!(-3)));
        assert_eq!(
            read(json!({"type": "string"}), &["true"]),
            Ok(json!("true"))
        );
        assert_eq!(read(json!({"type": "boolean"}), &["ON"]), Ok(json!(true)));
        for (schema, word) in [
            (json!({"type": "integer"}), "forty"),
            (json!({"type": "boolean"}), "1"),
            (json!({"type": "number"}), "NaN"),
            (json!({"type": "number"}), "1e999"),
        ] {
            assert_eq!(
                read(schema.clone(), &[word]),
                Err(Exit::InvalidValue),
                "{schema} {word}"
            );
        }
        assert_eq!(
            read(json!({"type": "string"}), &["two", "words"]),
            Err(Exit::Usage)
        );
    }

    #[test]
    fn an_unknown_or_repeated_member_is_named() {
        assert_eq!(read(scene(), &["colour=red"]), Err(Exit::InvalidValue));
        assert_eq!(read(scene(), &["level=1", "level=2"]), Err(Exit::Usage));
    }

    #[test]
    fn an_action_without_input_takes_none() {
        assert_eq!(input(None, &[]).unwrap(), None);
        assert_eq!(
            input(None, &["x".to_owned()]).unwrap_err().exit,
            Exit::InvalidValue
        );
    }
}
