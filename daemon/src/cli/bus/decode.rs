//! What the daemon answers, as JSON and as snapshots of its objects. Pure.

use std::collections::HashMap;

use serde_json::{Map, Value as Json};
use zbus::OwnedVariant;

use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::control::dbus::client::Dictionary;
use crate::control::dbus::value;

/// A thing, as its object shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct ThingObject {
    /// Its identifier.
    pub id: String,
    /// What people call it.
    pub title: String,
    /// Whether it is connected.
    pub online: bool,
    /// Its link; empty while it is offline.
    pub link: String,
    /// Its Thing Description, as JSON.
    pub description: String,
    /// The values that it last reported.
    pub values: Map<String, Json>,
}

/// `BytesSent` as `bytes_sent`.
pub(super) fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for (at, letter) in name.char_indices() {
        if letter.is_ascii_uppercase() && at > 0 {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

pub(super) fn thing(mut properties: Map<String, Json>) -> ThingObject {
    let mut text = |name: &str| match properties.remove(name) {
        Some(Json::String(text)) => text,
        _ => String::new(),
    };
    let (id, title, link, description) =
        (text("id"), text("title"), text("link"), text("description"));
    let online = properties
        .get("online")
        .and_then(Json::as_bool)
        .unwrap_or_default();
    let values = match properties.remove("values") {
        Some(Json::Object(values)) => values,
        _ => Map::new(),
    };
    ThingObject {
        id,
        title,
        online,
        link,
        description,
        values,
    }
}

pub(super) fn by_name(mut objects: Vec<Map<String, Json>>) -> Vec<Map<String, Json>> {
    let name = |object: &Map<String, Json>| {
        object
            .get("name")
            .and_then(Json::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    objects.sort_by_key(name);
    objects
}

pub(super) fn objects(dictionaries: &[Dictionary]) -> Result<Vec<Map<String, Json>>, Failure> {
    dictionaries.iter().map(object).collect()
}

pub(super) fn object(
    dictionary: &HashMap<String, OwnedVariant>,
) -> Result<Map<String, Json>, Failure> {
    let convert =
        |(name, value): (&String, &OwnedVariant)| Ok((name.clone(), value::to_json(value)?));
    dictionary
        .iter()
        .map(convert)
        .collect::<Result<_, value::Unsayable>>()
        .map_err(|error| {
            Failure::new(
                Exit::Internal,
                "the daemon answered with something that is not understood",
            )
            .because(&error)
        })
}
