//! One entity of Home Assistant's discovery: checked, and made into affordances ([`writer`] puts one of them down).

mod writer;

use serde_json::{Map, Value, json};

use super::{DiscoveryError, Entity};
use crate::things::binding::mqtt::td::{Description, spoken};
use crate::things::binding::mqtt::template::Template;

/// Members that are templates.
const TEMPLATES: &[&str] = &[
    "availability_template",
    "value_template",
    "command_template",
    "state_value_template",
    "brightness_value_template",
    "brightness_command_template",
    "position_template",
    "set_position_template",
    "percentage_value_template",
    "percentage_command_template",
];

/// Whether an entity can be taken.
pub(super) fn check(entity: &Entity) -> Result<(), DiscoveryError> {
    let config = &entity.config;
    for member in TEMPLATES {
        match config.get(*member) {
            None => {}
            Some(Value::String(text)) => {
                Template::parse(text)
                    .map_err(|error| DiscoveryError::Template { member, error })?;
            }
            Some(_) => return Err(DiscoveryError::Member(member)),
        }
    }
    let needs = |member: &'static str| {
        let topic = config
            .get(member)
            .and_then(Value::as_str)
            .unwrap_or_default();
        let is_good = !topic.is_empty() && topic.len() <= 512 && !topic.contains(['+', '#', '\0']);
        if is_good {
            Ok(())
        } else {
            Err(DiscoveryError::Member(member))
        }
    };
    match entity.component.as_str() {
        "sensor" | "binary_sensor" | "event" => needs("state_topic"),
        "light" => {
            needs("command_topic")?;
            match config.get("schema").and_then(Value::as_str) {
                None | Some("basic" | "default" | "json") => Ok(()),
                Some(_) => Err(DiscoveryError::Variant("a light of the template schema")),
            }
        }
        "select"
            if config
                .get("options")
                .and_then(Value::as_array)
                .is_none_or(Vec::is_empty) =>
        {
            Err(DiscoveryError::Member("options"))
        }
        "cover"
            if config.get("command_topic").is_none()
                && config.get("set_position_topic").is_none() =>
        {
            Err(DiscoveryError::Member("command_topic"))
        }
        "cover" => Ok(()),
        "switch" | "number" | "select" | "text" | "button" | "lock" | "fan" => {
            needs("command_topic")
        }
        other => Err(DiscoveryError::Component(other.chars().take(40).collect())),
    }
}

/// Where an entity says whether it is there.
pub(super) fn availability(thing: &Description, entity: &Entity) -> Vec<Value> {
    let config = &entity.config;
    let form = |from: &Map<String, Value>, topic: &str, template: &str| {
        let topic = from.get(topic).and_then(Value::as_str)?;
        let payload = |member: &str, default: &str| {
            from.get(member).cloned().unwrap_or_else(|| json!(default))
        };
        let values = json!([
            [true, payload("payload_available", "online")],
            [false, payload("payload_not_available", "offline")]
        ]);
        let mut form =
            json!({"href": thing.href(topic), "contentType": "text/plain", "edge:values": values});
        if let Some(template) = from.get(template) {
            form["edge:template"] = template.clone();
        }
        Some(form)
    };
    match config.get("availability") {
        Some(Value::Array(list)) => list
            .iter()
            .filter_map(|entry| form(entry.as_object()?, "topic", "value_template"))
            .take(8)
            .collect(),
        _ => form(config, "availability_topic", "availability_template")
            .into_iter()
            .collect(),
    }
}

/// A property being written: where its value is reported and where it is set.
struct Writer<'a> {
    thing: &'a mut Description,
    entity: &'a Entity,
}

/// Adds an entity's affordances; `key` names it among the other entities of its Thing.
pub(super) fn add(thing: &mut Description, entity: &Entity, key: &str) {
    let title = entity.name().map_or_else(|| spoken(key), str::to_owned);
    let mut writer = Writer { thing, entity };
    let truth =
        |on: &str, off: &str| vec![(json!(true), on.to_owned()), (json!(false), off.to_owned())];
    let said =
        |member: &str, default: &str| text(entity, member).unwrap_or_else(|| default.to_owned());
    match entity.component.as_str() {
        "sensor" => writer.sensor(key, &title),
        "binary_sensor" => {
            let pairs = pairs(&truth(
                &said("payload_on", "ON"),
                &said("payload_off", "OFF"),
            ));
            writer.property(
                key,
                json!({"title": title, "type": "boolean"}),
                pairs.clone(),
                pairs,
                &State::PLAIN,
                None,
            );
        }
        "switch" | "fan" => {
            let (on, off) = (said("payload_on", "ON"), said("payload_off", "OFF"));
            let reported = pairs(&truth(&said("state_on", &on), &said("state_off", &off)));
            let state = if entity.component == "fan" {
                State {
                    template: "state_value_template",
                    ..State::PLAIN
                }
            } else {
                State::PLAIN
            };
            writer.property(
                "on",
                json!({"title": "On", "type": "boolean"}),
                reported,
                pairs(&truth(&on, &off)),
                &state,
                Some(("command_topic", "command_template")),
            );
            if entity.component == "fan" && text(entity, "percentage_command_topic").is_some() {
                let (min, max) = (
                    number(entity, "speed_range_min", 1.0),
                    number(entity, "speed_range_max", 100.0),
                );
                let scale = scaled(100.0 / (max - min + 1.0).max(1.0), 0.0);
                let state = State {
                    topic: "percentage_state_topic",
                    template: "percentage_value_template",
                };
                writer.property(
                    "speed",
                    percent("Speed"),
                    scale.clone(),
                    scale,
                    &state,
                    Some(("percentage_command_topic", "percentage_command_template")),
                );
            }
        }
        "light" => writer.light(),
        "number" => {
            let mut schema = json!({"title": title, "type": "number", "minimum": number(entity, "min", 1.0), "maximum": number(entity, "max", 100.0)});
            if let Some(unit) = text(entity, "unit_of_measurement") {
                schema["unit"] = json!(unit);
            }
            writer.property(
                key,
                schema,
                json!({}),
                json!({}),
                &State::PLAIN,
                Some(("command_topic", "command_template")),
            );
        }
        "select" => {
            let schema =
                json!({"title": title, "type": "string", "enum": entity.config.get("options")});
            writer.property(
                key,
                schema,
                json!({}),
                json!({}),
                &State::PLAIN,
                Some(("command_topic", "command_template")),
            );
        }
        "text" => {
            let schema = json!({"title": title, "type": "string"});
            writer.property(
                key,
                schema,
                json!({}),
                json!({}),
                &State::PLAIN,
                Some(("command_topic", "command_template")),
            );
        }
        "button" => writer.action(key, &title, &said("payload_press", "PRESS")),
        "cover" => writer.cover(),
        "lock" => {
            let (lock, unlock) = (
                said("payload_lock", "LOCK"),
                said("payload_unlock", "UNLOCK"),
            );
            let mut reported = truth(
                &said("state_locked", "LOCKED"),
                &said("state_unlocked", "UNLOCKED"),
            );
            // Until it is done it is as it was.
            reported.push((json!(false), said("state_locking", "LOCKING")));
            reported.push((json!(true), said("state_unlocking", "UNLOCKING")));
            let schema = json!({"title": "Locked", "type": "boolean", "edge:confirm": true});
            writer.property(
                "locked",
                schema,
                pairs(&reported),
                pairs(&truth(&lock, &unlock)),
                &State::PLAIN,
                Some(("command_topic", "command_template")),
            );
        }
        "event" => {
            let Some(topic) = text(entity, "state_topic") else {
                return;
            };
            let mut form = json!({"href": writer.thing.href(&topic), "op": "subscribeevent", "edge:pointer": "/event_type"});
            if let Some(template) = entity.config.get("value_template") {
                form = json!({"href": writer.thing.href(&topic), "op": "subscribeevent", "contentType": "text/plain", "edge:template": template});
            }
            writer.thing.add(
                "events",
                key,
                json!({"title": title, "data": {"type": "string"}, "forms": [form]}),
            );
        }
        _ => {}
    }
}

/// The members that say where a value is reported.
struct State {
    topic: &'static str,
    template: &'static str,
}

impl State {
    const PLAIN: Self = Self {
        topic: "state_topic",
        template: "value_template",
    };
}

fn text(entity: &Entity, member: &str) -> Option<String> {
    match entity.config.get(member)? {
        Value::String(text) => Some(text.clone()),
        // Payloads may be written as numbers or truth values.
        value @ (Value::Number(_) | Value::Bool(_)) => Some(value.to_string()),
        _ => None,
    }
}

fn number(entity: &Entity, member: &str, default: f64) -> f64 {
    entity
        .config
        .get(member)
        .and_then(Value::as_f64)
        .filter(|number| number.is_finite())
        .unwrap_or(default)
}

fn pairs(values: &[(Value, String)]) -> Value {
    json!({"edge:values": values.iter().map(|(ours, theirs)| json!([ours, theirs])).collect::<Vec<_>>()})
}

fn scaled(scale: f64, offset: f64) -> Value {
    json!({"edge:scale": scale, "edge:offset": offset})
}

fn percent(title: &str) -> Value {
    json!({"title": title, "type": "integer", "unit": "percent", "minimum": 0, "maximum": 100})
}
