//! The JSON form of a Thing Description, and the checks that make it a
//! [`ThingDescription`].

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::description::{
    AFFORDANCES_MAX, ALIASES_MAX, Action, CHOICES_MAX, Choice, DataSchema, DataType,
    DescriptionError, Event, Fault, NAME_BYTES_MAX, Naming, Property, SCHEMA_DEPTH_MAX,
    ThingDescription, ThingId,
};

pub(super) fn malformed(error: serde_path_to_error::Error<serde_json::Error>) -> DescriptionError {
    DescriptionError::Malformed {
        path: error.path().to_string(),
        source: error.into_inner(),
    }
}

/// JSON-LD lets a list of one stand as the value itself.
#[derive(Deserialize, Default)]
#[serde(untagged)]
enum OneOrMany {
    #[default]
    None,
    One(String),
    Many(Vec<String>),
}

impl From<OneOrMany> for Vec<String> {
    fn from(raw: OneOrMany) -> Self {
        match raw {
            OneOrMany::None => Vec::new(),
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        }
    }
}

#[derive(Deserialize)]
pub(super) struct RawThing {
    id: String,
    title: String,
    description: Option<String>,
    #[serde(rename = "edge:aliases", default)]
    aliases: OneOrMany,
    #[serde(rename = "edge:location")]
    location: Option<String>,
    #[serde(rename = "edge:kind", default)]
    kinds: OneOrMany,
    #[serde(rename = "@type", default)]
    types: OneOrMany,
    #[serde(default)]
    properties: BTreeMap<String, Value>,
    #[serde(default)]
    actions: BTreeMap<String, RawAction>,
    #[serde(default)]
    events: BTreeMap<String, RawEvent>,
}

#[derive(Deserialize)]
struct RawNaming {
    title: Option<String>,
    description: Option<String>,
    #[serde(rename = "edge:aliases", default)]
    aliases: OneOrMany,
    #[serde(rename = "@type", default)]
    types: OneOrMany,
}

#[derive(Deserialize)]
struct RawProperty {
    #[serde(default)]
    observable: bool,
    #[serde(rename = "edge:confirm", default)]
    confirm: bool,
}

#[derive(Deserialize)]
struct RawAction {
    #[serde(flatten)]
    naming: RawNaming,
    input: Option<Value>,
    output: Option<Value>,
    #[serde(default)]
    safe: bool,
    #[serde(default)]
    idempotent: bool,
    #[serde(rename = "edge:confirm", default)]
    confirm: bool,
    #[serde(rename = "edge:sets")]
    sets: Option<String>,
}

#[derive(Deserialize)]
struct RawEvent {
    #[serde(flatten)]
    naming: RawNaming,
    data: Option<Value>,
}

#[derive(Deserialize)]
struct RawSchema {
    #[serde(flatten)]
    naming: RawNaming,
    #[serde(rename = "type")]
    data_type: Option<DataType>,
    unit: Option<String>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    #[serde(rename = "multipleOf")]
    multiple_of: Option<f64>,
    #[serde(rename = "enum")]
    values: Option<Vec<Value>>,
    #[serde(rename = "oneOf", default)]
    one_of: Vec<RawChoice>,
    #[serde(default)]
    properties: BTreeMap<String, Value>,
    #[serde(default)]
    required: Vec<String>,
    #[serde(rename = "readOnly", default)]
    read_only: bool,
    #[serde(rename = "writeOnly", default)]
    write_only: bool,
}

#[derive(Deserialize)]
struct RawChoice {
    #[serde(rename = "const")]
    value: Option<Value>,
    title: Option<String>,
    #[serde(rename = "edge:aliases", default)]
    aliases: OneOrMany,
}

pub(super) fn validate(
    raw: RawThing,
    document: Value,
) -> Result<ThingDescription, DescriptionError> {
    let id = ThingId::new(raw.id).map_err(|error| invalid("id", error.into()))?;
    let properties = affordances("properties", raw.properties, property)?;
    let actions = affordances("actions", raw.actions, action)?;
    for (name, action) in &actions {
        if let Some(sets) = &action.sets
            && !properties.contains_key(sets)
        {
            let path = format!("actions.{name}.edge:sets");
            return Err(invalid(path, Fault::NoSuchMember(sets.clone())));
        }
    }
    Ok(ThingDescription {
        id,
        title: name("title", raw.title)?,
        description: raw.description,
        aliases: names("edge:aliases", raw.aliases)?,
        location: raw
            .location
            .map(|text| name("edge:location", text))
            .transpose()?,
        kinds: names("edge:kind", raw.kinds)?,
        types: raw.types.into(),
        properties,
        actions,
        events: affordances("events", raw.events, event)?,
        document,
    })
}

fn invalid(path: impl Into<String>, fault: Fault) -> DescriptionError {
    DescriptionError::Invalid {
        path: path.into(),
        fault,
    }
}

fn name(path: &str, text: String) -> Result<String, DescriptionError> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        Err(invalid(path, Fault::Empty))
    } else if trimmed.len() > NAME_BYTES_MAX {
        let bytes = trimmed.len();
        Err(invalid(path, Fault::TooLong { bytes }))
    } else {
        Ok(trimmed.to_owned())
    }
}

fn names(path: &str, raw: OneOrMany) -> Result<Vec<String>, DescriptionError> {
    let texts = Vec::from(raw);
    at_most(path, texts.len(), ALIASES_MAX)?;
    texts.into_iter().map(|text| name(path, text)).collect()
}

fn at_most(path: &str, count: usize, limit: usize) -> Result<(), DescriptionError> {
    if count > limit {
        return Err(invalid(path, Fault::TooMany { count, limit }));
    }
    Ok(())
}

fn affordances<R, A>(
    class: &str,
    raw: BTreeMap<String, R>,
    one: impl Fn(&str, R) -> Result<A, DescriptionError>,
) -> Result<BTreeMap<String, A>, DescriptionError> {
    at_most(class, raw.len(), AFFORDANCES_MAX)?;
    raw.into_iter()
        .map(|(key, affordance)| {
            let path = format!("{class}.{key}");
            Ok((name(&path, key)?, one(&path, affordance)?))
        })
        .collect()
}

fn naming(path: &str, raw: RawNaming) -> Result<Naming, DescriptionError> {
    Ok(Naming {
        title: raw
            .title
            .map(|text| name(&format!("{path}.title"), text))
            .transpose()?,
        description: raw.description,
        aliases: names(&format!("{path}.edge:aliases"), raw.aliases)?,
        types: raw.types.into(),
    })
}

fn property(path: &str, json: Value) -> Result<Property, DescriptionError> {
    let raw: RawProperty = read(path, &json)?;
    let schema = schema(path, json, 0)?;
    Ok(Property {
        naming: schema.naming.clone(),
        schema,
        observable: raw.observable,
        confirm: raw.confirm,
    })
}

fn action(path: &str, raw: RawAction) -> Result<Action, DescriptionError> {
    let part = |member: &str, json: Option<Value>| {
        json.map(|json| schema(&format!("{path}.{member}"), json, 0))
            .transpose()
    };
    Ok(Action {
        input: part("input", raw.input)?,
        output: part("output", raw.output)?,
        naming: naming(path, raw.naming)?,
        safe: raw.safe,
        idempotent: raw.idempotent,
        confirm: raw.confirm,
        sets: raw.sets,
    })
}

fn event(path: &str, raw: RawEvent) -> Result<Event, DescriptionError> {
    Ok(Event {
        naming: naming(path, raw.naming)?,
        data: raw
            .data
            .map(|json| schema(&format!("{path}.data"), json, 0))
            .transpose()?,
    })
}

/// Deserialises a part that the raw form kept as JSON, keeping the whole path in errors.
fn read<'a, T: Deserialize<'a>>(path: &str, json: &'a Value) -> Result<T, DescriptionError> {
    serde_path_to_error::deserialize(json).map_err(
        |error: serde_path_to_error::Error<serde_json::Error>| DescriptionError::Malformed {
            path: match error.path().to_string().as_str() {
                "." => path.to_owned(),
                inner => format!("{path}.{inner}"),
            },
            source: error.into_inner(),
        },
    )
}

fn schema(path: &str, json: Value, depth: usize) -> Result<DataSchema, DescriptionError> {
    if depth >= SCHEMA_DEPTH_MAX {
        return Err(invalid(path, Fault::TooDeep));
    }
    let raw: RawSchema = read(path, &json)?;
    if let (Some(minimum), Some(maximum)) = (raw.minimum, raw.maximum)
        && minimum > maximum
    {
        return Err(invalid(path, Fault::EmptyRange { minimum, maximum }));
    }
    if let Some(step) = raw.multiple_of.filter(|step| *step <= 0.0) {
        let path = format!("{path}.multipleOf");
        return Err(invalid(path, Fault::NotPositive(step)));
    }
    if raw.read_only && raw.write_only {
        return Err(invalid(path, Fault::NeitherReadNorWritten));
    }
    at_most(path, raw.properties.len(), AFFORDANCES_MAX)?;
    let members = raw
        .properties
        .into_iter()
        .map(|(key, member)| {
            let schema = schema(&format!("{path}.properties.{key}"), member, depth + 1)?;
            Ok((key, schema))
        })
        .collect::<Result<BTreeMap<_, _>, DescriptionError>>()?;
    if let Some(missing) = raw.required.iter().find(|key| !members.contains_key(*key)) {
        let path = format!("{path}.required");
        return Err(invalid(path, Fault::NoSuchMember(missing.clone())));
    }
    Ok(DataSchema {
        choices: choices(path, raw.values, raw.one_of)?,
        naming: naming(path, raw.naming)?,
        data_type: raw.data_type,
        unit: raw.unit,
        minimum: raw.minimum,
        maximum: raw.maximum,
        multiple_of: raw.multiple_of,
        members,
        required: raw.required,
        read_only: raw.read_only,
        write_only: raw.write_only,
        json,
    })
}

/// `oneOf` of anything but constants is a schema that only [`super::schema`] judges; it gives no choices.
fn choices(
    path: &str,
    values: Option<Vec<Value>>,
    one_of: Vec<RawChoice>,
) -> Result<Vec<Choice>, DescriptionError> {
    let (path, choices) = match values {
        Some(values) if values.is_empty() => {
            return Err(invalid(format!("{path}.enum"), Fault::NoChoice));
        }
        Some(values) => (
            format!("{path}.enum"),
            values
                .into_iter()
                .map(|value| Choice {
                    value,
                    title: None,
                    aliases: Vec::new(),
                })
                .collect::<Vec<_>>(),
        ),
        None => {
            let path = format!("{path}.oneOf");
            let mut choices = Vec::with_capacity(one_of.len());
            for raw in one_of {
                let Some(value) = raw.value else { continue };
                choices.push(Choice {
                    value,
                    title: raw.title.map(|text| name(&path, text)).transpose()?,
                    aliases: names(&path, raw.aliases)?,
                });
            }
            (path, choices)
        }
    };
    at_most(&path, choices.len(), CHOICES_MAX)?;
    Ok(choices)
}
