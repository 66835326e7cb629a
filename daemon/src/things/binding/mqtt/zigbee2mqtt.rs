//! Zigbee2MQTT: the list of devices at `BASE/bridge/devices` as Thing Descriptions with forms.
//!
//! What a device `exposes` becomes properties; `state` of a light, switch or fan is called `on`, of a cover `open`, of a lock `locked`, since
//! that is what people say; brightness is told in percent. `action` (what a button does) becomes an event. Reports come from
//! `BASE/NAME`, commands go to `BASE/NAME/set`, questions to `BASE/NAME/get` where the device can be asked.
//!
//! Not taken: groups, the coordinator, devices that are disabled or whose interview found no definition (each is told with its reason).
//!
//! Read first: <https://www.zigbee2mqtt.io/guide/usage/exposes.html> and
//! <https://www.zigbee2mqtt.io/guide/usage/mqtt_topics_and_messages.html>.

use serde::Deserialize;
use serde_json::{Value, json};

use super::td::{Description, extend, spoken};

/// Devices of one bridge. Zigbee networks of one coordinator end at about 200.
pub const DEVICES_MAX: usize = 512;
/// Payloads `online` (Zigbee2MQTT 1) and `{"state":"online"}` (2) alike.
const STATE_TEMPLATE: &str = "{{ value_json.state if value_json.state is defined else value }}";

/// The list cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// Not JSON, or not a list of devices.
    #[error("the list of devices cannot be read: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Too many.
    #[error("the list has {0} devices, more than {DEVICES_MAX}")]
    TooMany(usize),
}

/// A device of the list that does not become a Thing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {reason}")]
pub struct Skipped {
    /// Its friendly name.
    pub name: String,
    /// Why.
    pub reason: &'static str,
}

#[derive(Deserialize)]
struct RawDevice {
    ieee_address: String,
    #[serde(rename = "type", default)]
    kind: String,
    friendly_name: String,
    #[serde(default)]
    disabled: bool,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    definition: Option<RawDefinition>,
}

#[derive(Deserialize)]
struct RawDefinition {
    #[serde(default)]
    model: String,
    #[serde(default)]
    vendor: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    exposes: Vec<RawExpose>,
}

#[derive(Deserialize, Clone, Default)]
#[serde(default)]
struct RawExpose {
    #[serde(rename = "type")]
    kind: String,
    name: Option<String>,
    label: Option<String>,
    property: Option<String>,
    endpoint: Option<String>,
    access: u8,
    value_on: Option<Value>,
    value_off: Option<Value>,
    value_min: Option<f64>,
    value_max: Option<f64>,
    value_step: Option<f64>,
    unit: Option<String>,
    values: Vec<Value>,
    features: Vec<RawExpose>,
    description: Option<String>,
}

/// Bits of `access`: in the published state, can be set, can be asked for.
const PUBLISHED: u8 = 1;
const SET: u8 = 2;
const GET: u8 = 4;

/// The topic of the list of devices.
#[must_use]
pub fn list_topic(base: &str) -> String {
    format!("{base}/bridge/devices")
}

/// The descriptions of all devices of a bridge; those that are no Things say why.
///
/// # Errors
/// [`ListError`] when there is no list.
pub fn descriptions(
    broker: &str,
    base: &str,
    payload: &[u8],
) -> Result<Vec<Result<Value, Skipped>>, ListError> {
    let list: Vec<Value> = serde_json::from_slice(payload)?;
    if list.len() > DEVICES_MAX {
        return Err(ListError::TooMany(list.len()));
    }
    Ok(list
        .into_iter()
        .map(|device| describe(broker, base, device))
        .collect())
}

fn describe(broker: &str, base: &str, device: Value) -> Result<Value, Skipped> {
    let name = device
        .get("friendly_name")
        .and_then(Value::as_str)
        .unwrap_or("(no name)")
        .to_owned();
    let skip = |reason| Skipped {
        name: name.clone(),
        reason,
    };
    let device: RawDevice =
        serde_json::from_value(device).map_err(|_| skip("its entry is not as documented"))?;
    if device.kind == "Coordinator" {
        return Err(skip("the coordinator is no thing"));
    }
    if device.disabled {
        return Err(skip("it is disabled"));
    }
    let Some(definition) = device.definition else {
        return Err(skip("Zigbee2MQTT has no definition for it"));
    };
    let address = device
        .ieee_address
        .trim_start_matches("0x")
        .to_ascii_lowercase();
    if address.len() != 16 || !address.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(skip("its IEEE address is none"));
    }
    let title = if device.friendly_name == device.ieee_address {
        format!("{} {}", definition.vendor, definition.model)
    } else {
        spoken(&device.friendly_name)
    };
    // RFC 9039 §4.1: the EUI-64 as it is.
    let mut thing = Description::new(broker, &format!("urn:dev:mac:{address}"), &title);
    let told = device.description.unwrap_or_else(|| {
        format!(
            "{} {}: {}",
            definition.vendor, definition.model, definition.description
        )
    });
    thing.set("description", json!(told));
    if let Some((place, _)) = device.friendly_name.split_once('/') {
        thing.set("edge:location", json!(spoken(place).to_lowercase()));
    }
    let topics = Topics {
        state: format!("{base}/{}", device.friendly_name),
    };
    let mut kinds: Vec<&str> = Vec::new();
    for expose in &definition.exposes {
        let kind = match expose.kind.as_str() {
            "light" => &["light", "lamp"][..],
            "switch" => &["switch", "plug"],
            "fan" => &["fan"],
            "cover" => &["blind", "cover"],
            "lock" => &["lock"],
            "climate" => &["thermostat"],
            _ => &[],
        };
        kinds.extend(
            kind.iter()
                .filter(|kind| !kinds.contains(*kind))
                .collect::<Vec<_>>(),
        );
        if expose.features.is_empty() || expose.kind == "composite" {
            add(&mut thing, &topics, expose, "");
        } else {
            for feature in &expose.features {
                add(&mut thing, &topics, feature, &expose.kind);
            }
        }
    }
    if kinds.is_empty() {
        kinds.push("sensor");
    }
    thing.set("edge:kind", json!(kinds));
    if thing.is_empty() {
        return Err(skip("it exposes nothing"));
    }
    let states = json!([[true, "online"], [false, "offline"]]);
    let availability = json!([
        {"href": thing.href(&format!("{base}/bridge/state")), "edge:template": STATE_TEMPLATE, "edge:values": states},
        // Devices report their availability only where the bridge is configured to watch it.
        {"href": thing.href(&format!("{}/availability", topics.state)), "edge:template": STATE_TEMPLATE, "edge:values": states, "edge:assumed": true},
    ]);
    thing.set("edge:availability", availability);
    Ok(thing.finish())
}

struct Topics {
    state: String,
}

/// Adds what one expose says; `parent` is the specific type around it, or empty.
fn add(thing: &mut Description, topics: &Topics, expose: &RawExpose, parent: &str) {
    let (Some(name), Some(property)) = (
        &expose.name,
        expose.property.as_ref().or(expose.name.as_ref()),
    ) else {
        return;
    };
    let escaped = property.replace('~', "~0").replace('/', "~1");
    let pointer = format!("/{escaped}");
    if name == "action" && expose.kind == "enum" {
        let forms = json!([{"href": thing.href(&topics.state), "op": "subscribeevent", "edge:pointer": pointer}]);
        thing.add(
            "events",
            "action",
            json!({"title": "Action", "data": {"type": "string"}, "forms": forms}),
        );
        return;
    }
    let Some(Meaning {
        key,
        title,
        schema,
        terms,
        access,
    }) = meaning(expose, name, parent)
    else {
        return;
    };
    let ending = expose
        .endpoint
        .as_ref()
        .map(|endpoint| (format!("{key}_{endpoint}"), format!("{title} {endpoint}")));
    let (key, title) = ending.unwrap_or((key, title));
    let mut forms = Vec::new();
    let mut form = |href: Value, op: Value, more: Value| {
        let mut form = json!({"href": href, "op": op, "edge:pointer": pointer});
        extend(&mut form, terms.clone());
        extend(&mut form, more);
        forms.push(form);
    };
    if access & PUBLISHED != 0 {
        let op = if access & GET == 0 {
            json!(["observeproperty", "readproperty"])
        } else {
            json!("observeproperty")
        };
        form(thing.href(&topics.state), op, json!({}));
    }
    if access & GET != 0 {
        let ask = json!({"href": thing.href(&format!("{}/get", topics.state)), "op": "readproperty",
            "mqv:controlPacket": "publish", "edge:pointer": pointer, "edge:value": ""});
        forms.push(ask);
    }
    let set = format!("{}/set", topics.state);
    if access & SET != 0 {
        let mut form = json!({"href": thing.href(&set), "op": "writeproperty", "mqv:controlPacket": "publish", "edge:pointer": pointer});
        extend(&mut form, terms);
        forms.push(form);
    }
    let mut affordance = json!({
        "title": title, "observable": access & PUBLISHED != 0,
        "readOnly": access & SET == 0, "writeOnly": access & PUBLISHED == 0,
    });
    extend(&mut affordance, schema);
    affordance["forms"] = Value::Array(forms);
    if let Some(description) = &expose.description {
        affordance["description"] = json!(description);
    }
    if parent == "lock" && name == "state" {
        affordance["edge:confirm"] = json!(true);
    }
    thing.add("properties", &key, affordance);
    if parent == "cover" && name == "state" && access & SET != 0 {
        let forms = json!([{"href": thing.href(&set), "op": "invokeaction", "edge:pointer": pointer, "edge:value": "STOP"}]);
        thing.add(
            "actions",
            "stop",
            json!({"title": "Stop", "idempotent": true, "forms": forms}),
        );
    }
}

struct Meaning {
    key: String,
    title: String,
    schema: Value,
    /// Terms that turn the device's value into ours.
    terms: Value,
    access: u8,
}

/// What an expose is called, and what its values are. None: nothing that can be said.
fn meaning(expose: &RawExpose, name: &str, parent: &str) -> Option<Meaning> {
    let called = expose.label.clone().unwrap_or_else(|| spoken(name));
    let (key, title) = match (parent, name) {
        ("light" | "switch" | "fan", "state") => ("on".to_owned(), "On".to_owned()),
        ("cover", "state") => ("open".to_owned(), "Open".to_owned()),
        ("lock", "state") => ("locked".to_owned(), "Locked".to_owned()),
        ("climate", "occupied_heating_setpoint" | "current_heating_setpoint") => {
            (name.to_owned(), "Target temperature".to_owned())
        }
        ("climate", "local_temperature") => (name.to_owned(), "Temperature".to_owned()),
        _ => (name.to_owned(), called),
    };
    let (schema, terms) = match (expose.kind.as_str(), parent, name) {
        ("enum", "cover", "state") => (
            json!({"type": "boolean"}),
            json!({"edge:values": [[true, "OPEN"], [false, "CLOSE"]]}),
        ),
        ("binary", ..) => {
            let (on, off) = (expose.value_on.clone()?, expose.value_off.clone()?);
            (
                json!({"type": "boolean"}),
                json!({"edge:values": [[true, on], [false, off]]}),
            )
        }
        ("numeric", "light", "brightness") => {
            let max = expose.value_max.filter(|max| *max > 0.0).unwrap_or(254.0);
            let schema =
                json!({"type": "integer", "unit": "percent", "minimum": 0, "maximum": 100});
            (schema, json!({"edge:scale": 100.0 / max}))
        }
        ("numeric", ..) => {
            let mut schema = json!({"type": "number"});
            let whole = [expose.value_min, expose.value_max, expose.value_step];
            if whole
                .iter()
                .all(|bound| bound.is_some_and(|bound| bound.fract() == 0.0))
            {
                schema["type"] = json!("integer");
            }
            for (member, bound) in [("minimum", expose.value_min), ("maximum", expose.value_max)] {
                if let Some(bound) = bound
                    .filter(|_| expose.value_min <= expose.value_max || expose.value_max.is_none())
                {
                    schema[member] = json!(bound);
                }
            }
            if let Some(unit) = &expose.unit {
                schema["unit"] = json!(unit);
            }
            (schema, json!({}))
        }
        ("enum", ..) if !expose.values.is_empty() => {
            (json!({"type": "string", "enum": expose.values}), json!({}))
        }
        ("text" | "enum", ..) => (json!({"type": "string"}), json!({})),
        ("list", ..) => (json!({"type": "array"}), json!({})),
        ("composite", ..) => {
            let mut members = serde_json::Map::new();
            for feature in &expose.features {
                if let (Some(inner), Some(meaning)) = (
                    &feature.name,
                    meaning(feature, feature.name.as_deref()?, ""),
                ) {
                    // Terms do not reach inside an object, so truth values stay as the device writes them.
                    let schema = if feature.kind == "binary" {
                        json!({})
                    } else {
                        meaning.schema
                    };
                    members.insert(
                        feature.property.clone().unwrap_or_else(|| inner.clone()),
                        schema,
                    );
                }
            }
            (json!({"type": "object", "properties": members}), json!({}))
        }
        _ => return None,
    };
    let inner = expose
        .features
        .iter()
        .fold(0, |access, feature| access | feature.access);
    let access = if expose.kind == "composite" {
        expose.access | inner
    } else {
        expose.access
    };
    // Without any of the three there is nothing to do with it.
    (access & (PUBLISHED | SET) != 0).then_some(Meaning {
        key,
        title,
        schema,
        terms,
        access,
    })
}
