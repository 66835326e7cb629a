//! Home Assistant's MQTT discovery: configuration messages as Thing Descriptions with forms.
//!
//! Two layouts of the topic are read: `PREFIX/COMPONENT/[NODE/]OBJECT/config`, one entity each, and `PREFIX/device/[NODE/]OBJECT/config`, a
//! device with its `components`; with abbreviations and the base topic `~`. Entities of one device become one Thing; a device with several
//! lights, switches, fans, covers or locks becomes a Thing for each of them and one for the rest, since people name them one by one.
//!
//! Components taken: sensor, binary_sensor, switch, light (default and json schema: state and brightness), number, select, text, button,
//! cover, lock, fan, event. Templates: see [`super::template`]. What is not taken is refused by name: other components, light's template
//! schema, other templates. `expire_after`, colour and effects are left out.
//!
//! Read first: <https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery>.

mod abbreviation;
mod entity;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::td::{Description, slug};
use super::template::TemplateError;
use crate::things::binding::form::percent_encode;

/// Entities of one broker. Chosen as ten times what a large home publishes.
pub const ENTITIES_MAX: usize = 4096;
/// The longest configuration message, in bytes.
pub const CONFIG_BYTES_MAX: usize = 64 * 1024;

/// A configuration message, or an entity of one, that does not become a Thing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// The topic has not the form of a configuration topic.
    #[error("`{0}` is no configuration topic")]
    Topic(String),
    /// Not JSON, or no object.
    #[error("the configuration cannot be read: {0}")]
    Malformed(String),
    /// Too long.
    #[error("the configuration has {0} bytes, more than {CONFIG_BYTES_MAX}")]
    TooLong(usize),
    /// Too many entities.
    #[error("more than {ENTITIES_MAX} entities")]
    TooMany,
    /// A component that is not taken.
    #[error("the component `{0}` is not taken")]
    Component(String),
    /// A member that must be there is not, or is of another kind than documented.
    #[error("{0} is missing or not as documented")]
    Member(&'static str),
    /// A member with something that is not taken.
    #[error("{member}: {error}")]
    Template {
        /// Which.
        member: &'static str,
        /// Why.
        error: TemplateError,
    },
    /// A variant that is not taken.
    #[error("{0} is not taken")]
    Variant(&'static str),
}

/// An entity as it was configured.
#[derive(Debug, Clone, PartialEq)]
struct Entity {
    component: String,
    /// The last part of its topic, or its key among a device's components.
    object: String,
    /// Its members, abbreviations written out.
    config: Map<String, Value>,
    device: Option<Device>,
}

#[derive(Debug, Clone, PartialEq)]
struct Device {
    id: String,
    name: Option<String>,
    area: Option<String>,
}

/// Names what is described together: a device, or an entity without one.
pub type Group = String;

/// What is known of all configuration messages of one broker.
#[derive(Debug, Default)]
pub struct Discovery {
    /// By topic, and by key within it.
    entities: BTreeMap<String, Vec<Entity>>,
}

impl Discovery {
    /// Takes a configuration message; an empty one removes what its topic configured. Returns the groups that changed, and what was refused.
    ///
    /// # Errors
    /// [`DiscoveryError`] when the message as a whole cannot be used; what its topic configured before stays as it was.
    pub fn handle_config(
        &mut self,
        prefix: &str,
        topic: &str,
        payload: &[u8],
    ) -> Result<(BTreeSet<Group>, Vec<DiscoveryError>), DiscoveryError> {
        let (component, object) =
            parse_topic(prefix, topic).ok_or_else(|| DiscoveryError::Topic(topic.to_owned()))?;
        let mut changed: BTreeSet<Group> = self
            .entities
            .get(topic)
            .into_iter()
            .flatten()
            .map(Entity::group)
            .collect();
        if payload.is_empty() {
            self.entities.remove(topic);
            return Ok((changed, Vec::new()));
        }
        if payload.len() > CONFIG_BYTES_MAX {
            return Err(DiscoveryError::TooLong(payload.len()));
        }
        let config: Value = serde_json::from_slice(payload)
            .map_err(|error| DiscoveryError::Malformed(error.to_string()))?;
        let Value::Object(config) = config else {
            return Err(DiscoveryError::Malformed("it is no object".to_owned()));
        };
        let config = abbreviation::written_out(config);
        let mut refused = Vec::new();
        let mut entities = Vec::new();
        for found in entities_of(component, object, config)? {
            match entity::check(&found) {
                Ok(()) => entities.push(found),
                Err(error) => refused.push(error),
            }
        }
        let count: usize = self
            .entities
            .iter()
            .filter(|(known, _)| *known != topic)
            .map(|(_, known)| known.len())
            .sum();
        if count + entities.len() > ENTITIES_MAX {
            return Err(DiscoveryError::TooMany);
        }
        changed.extend(entities.iter().map(Entity::group));
        self.entities.insert(topic.to_owned(), entities);
        Ok((changed, refused))
    }

    /// The descriptions of a group as it is now; none when it is gone.
    #[must_use]
    pub fn descriptions(&self, broker: &str, group: &Group) -> Vec<Value> {
        let members: Vec<&Entity> = self
            .entities
            .values()
            .flatten()
            .filter(|entity| entity.group() == *group)
            .collect();
        let (mains, others): (Vec<&Entity>, Vec<&Entity>) =
            members.iter().copied().partition(|entity| entity.is_main());
        if mains.len() <= 1 {
            return describe(broker, group, &members, None)
                .into_iter()
                .collect();
        }
        let mut things: Vec<Value> = mains
            .iter()
            .filter_map(|main| describe(broker, group, &[*main], Some(main)))
            .collect();
        things.extend(describe(broker, group, &others, None));
        things
    }
}

impl Entity {
    fn group(&self) -> Group {
        match &self.device {
            Some(device) => format!("device/{}", device.id),
            None => format!("{}/{}", self.component, self.object),
        }
    }

    /// Whether people call it by its own name: "the kitchen light", not "the plug's power".
    fn is_main(&self) -> bool {
        matches!(
            self.component.as_str(),
            "light" | "switch" | "fan" | "cover" | "lock"
        )
    }

    fn name(&self) -> Option<&str> {
        self.config
            .get("name")
            .and_then(Value::as_str)
            .map(str::trim)
            .filter(|name| !name.is_empty())
    }
}

/// Component and object of a configuration topic.
fn parse_topic<'a>(prefix: &str, topic: &'a str) -> Option<(&'a str, &'a str)> {
    let rest = topic
        .strip_prefix(prefix)?
        .strip_prefix('/')?
        .strip_suffix("/config")?;
    let parts: Vec<&str> = rest.split('/').collect();
    match parts.as_slice() {
        [component, object] | [component, _, object] => Some((component, object)),
        _ => None,
    }
}

/// The entities of one message: one, or a device's components.
fn entities_of(
    component: &str,
    object: &str,
    mut config: Map<String, Value>,
) -> Result<Vec<Entity>, DiscoveryError> {
    let device = device(config.get("device"));
    if component != "device" {
        return Ok(vec![Entity {
            component: component.to_owned(),
            object: object.to_owned(),
            config,
            device,
        }]);
    }
    let Some(Value::Object(components)) = config.remove("components") else {
        return Err(DiscoveryError::Member("components"));
    };
    if device.is_none() {
        return Err(DiscoveryError::Member("device"));
    }
    let found = components.into_iter().filter_map(|(key, own)| {
        let Value::Object(own) = own else { return None };
        let own = abbreviation::written_out(own);
        // A component with nothing but its platform is one that was removed.
        if own.keys().all(|member| member == "platform") {
            return None;
        }
        // What stands beside the components holds for all of them, where they say nothing else.
        let mut all = config.clone();
        all.extend(own);
        let component = all
            .get("platform")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        Some(Entity {
            component,
            object: key,
            config: all,
            device: device.clone(),
        })
    });
    Ok(found.collect())
}

fn device(raw: Option<&Value>) -> Option<Device> {
    let raw = raw?.as_object()?;
    let identifiers = raw.get("identifiers").map(|value| {
        value
            .as_array()
            .and_then(|all| all.first())
            .unwrap_or(value)
    });
    let connection = raw
        .get("connections")
        .and_then(|all| all.as_array()?.first()?.as_array()?.get(1));
    let id = identifiers.or(connection)?;
    let text = |member: &str| raw.get(member).and_then(Value::as_str).map(str::to_owned);
    Some(Device {
        id: id.as_str().map_or_else(|| id.to_string(), str::to_owned),
        name: text("name"),
        area: text("suggested_area"),
    })
}

/// One Thing out of entities; `main` is the one that it is called by, where its device has several.
fn describe(
    broker: &str,
    group: &Group,
    members: &[&Entity],
    main: Option<&Entity>,
) -> Option<Value> {
    let first = members
        .iter()
        .find(|entity| entity.is_main())
        .or_else(|| members.first())?;
    let device = first.device.as_ref();
    let device_name = device.and_then(|device| device.name.clone());
    let object = super::td::spoken(&first.object);
    let title = match (main.and_then(Entity::name), device_name, first.name()) {
        (Some(own), Some(device), _) if !own.contains(&device) => format!("{device} {own}"),
        (Some(own), ..) => own.to_owned(),
        (None, Some(device), _) => device,
        (None, None, Some(own)) => own.to_owned(),
        (None, None, None) => object,
    };
    let part = main.map_or_else(String::new, |main| format!("/{}", main.object));
    let id = format!(
        "homeassistant:{}",
        percent_encode(&format!("{group}{part}"))
    );
    let mut thing = Description::new(broker, &id, &title);
    if let Some(area) = device.and_then(|device| device.area.clone()) {
        thing.set("edge:location", json!(area));
    }
    let kinds = match first.component.as_str() {
        "light" => json!(["light", "lamp"]),
        "switch" if first.config.get("device_class") == Some(&json!("outlet")) => {
            json!(["plug", "outlet", "switch"])
        }
        "switch" => json!(["switch"]),
        "cover" => json!(["blind", "cover"]),
        main @ ("fan" | "lock") => json!([main]),
        _ => json!(["sensor"]),
    };
    thing.set("edge:kind", kinds);
    let availability = entity::availability(&thing, first);
    if !availability.is_empty() {
        thing.set("edge:availability", Value::Array(availability));
        let mode = first
            .config
            .get("availability_mode")
            .and_then(Value::as_str)
            .unwrap_or("latest");
        thing.set("edge:availabilityMode", json!(mode));
    }
    for entity in members {
        entity::add(&mut thing, entity, &key(entity));
    }
    (!thing.is_empty()).then(|| thing.finish())
}

/// What an entity's property is called in the description.
fn key(entity: &Entity) -> String {
    let class = entity.config.get("device_class").and_then(Value::as_str);
    slug(entity.name().or(class).unwrap_or(&entity.object))
}

#[cfg(test)]
mod tests;
