//! Tasmota: its discovery messages as Thing Descriptions with forms.
//!
//! `tasmota/discovery/MAC/config` says what a device has (relays, lights, topics, states), `tasmota/discovery/MAC/sensors` what it
//! measures. A device with one relay is one Thing with its sensors; several relays are named one by one by their owner, so each is a
//! Thing of its own, and the sensors are one more. State comes in `stat/…/RESULT` (after a command), `stat/…/STATUS10` and
//! `STATUS11` (when asked) and `tele/…/STATE` and `SENSOR` (by itself).
//!
//! Not taken: shutters, fans and switches without relays; colour. Each is left out, and what remains is served.
//!
//! Read first: <https://tasmota.github.io/docs/MQTT/> and <https://tasmota.github.io/docs/Commands/>; the fields of discovery are those
//! that Tasmota's `xdrv_12_discovery.ino` documents.

use serde::Deserialize;
use serde_json::{Value, json};

use super::td::{Description, extend, slug, spoken};

/// Relays and lights of one device.
const RELAYS_MAX: usize = 32;
/// Measured values of one device.
const SENSORS_MAX: usize = 64;

/// Discovery that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// Not JSON, or not as documented.
    #[error("the discovery message cannot be read: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A field with a value that makes no sense.
    #[error("the discovery message's {0} is not usable")]
    Field(&'static str),
}

/// What `…/config` says.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Config {
    mac: String,
    #[serde(rename = "dn")]
    device_name: String,
    #[serde(rename = "fn", default)]
    friendly_names: Vec<Option<String>>,
    #[serde(rename = "md", default)]
    module: String,
    #[serde(rename = "t")]
    topic: String,
    #[serde(rename = "ft")]
    full_topic: String,
    #[serde(rename = "tp")]
    prefixes: Vec<String>,
    #[serde(rename = "onln", default = "online")]
    online: String,
    #[serde(rename = "ofln", default = "offline")]
    offline: String,
    #[serde(rename = "state", default)]
    states: Vec<String>,
    #[serde(rename = "rl", default)]
    relays: Vec<u8>,
    #[serde(rename = "lt_st", default)]
    light_subtype: u8,
    #[serde(rename = "so", default)]
    options: std::collections::BTreeMap<String, Value>,
}

fn online() -> String {
    "Online".to_owned()
}

fn offline() -> String {
    "Offline".to_owned()
}

/// A relay that switches a light (`rl` 2), and one that switches anything (`rl` 1).
const LIGHT: u8 = 2;
const BASIC: u8 = 1;

impl Config {
    /// Reads `…/config`.
    ///
    /// # Errors
    /// [`DiscoveryError`].
    pub fn parse(payload: &[u8]) -> Result<Self, DiscoveryError> {
        let config: Self = serde_json::from_slice(payload)?;
        let is_mac =
            config.mac.len() == 12 && config.mac.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_mac {
            return Err(DiscoveryError::Field("mac"));
        }
        if config.prefixes.len() != 3 {
            return Err(DiscoveryError::Field("tp"));
        }
        if !config.full_topic.contains("%prefix%") || !config.full_topic.contains("%topic%") {
            return Err(DiscoveryError::Field("ft"));
        }
        if config.relays.len() > RELAYS_MAX {
            return Err(DiscoveryError::Field("rl"));
        }
        Ok(config)
    }

    fn topic(&self, prefix: usize, last: &str) -> String {
        let prefix = self.prefixes.get(prefix).map_or("", String::as_str);
        let full = self
            .full_topic
            .replace("%prefix%", prefix)
            .replace("%topic%", &self.topic);
        format!("{}/{last}", full.trim_end_matches('/'))
    }

    fn command(&self, last: &str) -> String {
        self.topic(0, last)
    }

    fn stat(&self, last: &str) -> String {
        self.topic(1, last)
    }

    fn tele(&self, last: &str) -> String {
        self.topic(2, last)
    }

    fn id(&self, part: &str) -> String {
        // RFC 9039 §4.1: a 48-bit address becomes an EUI-64; §3.4: parts of a device follow an underscore.
        let (start, end) = self.mac.split_at_checked(6).unwrap_or((&self.mac, ""));
        format!(
            "urn:dev:mac:{}fffe{}{part}",
            start.to_ascii_lowercase(),
            end.to_ascii_lowercase()
        )
    }
}

/// The descriptions of a device: `sensors` is its `…/sensors` message, if there was one.
///
/// # Errors
/// [`DiscoveryError`] when `sensors` is none.
pub fn descriptions(
    broker: &str,
    config: &Config,
    sensors: Option<&[u8]>,
) -> Result<Vec<Value>, DiscoveryError> {
    let relays: Vec<usize> = (0..config.relays.len())
        .filter(|index| matches!(config.relays.get(*index), Some(&(BASIC | LIGHT))))
        .collect();
    let measured = match sensors {
        None => Vec::new(),
        Some(payload) => {
            let message: Value = serde_json::from_slice(payload)?;
            let tree = message
                .get("sn")
                .cloned()
                .ok_or(DiscoveryError::Field("sn"))?;
            leaves(&tree)
        }
    };
    let unit = |name: &str| sensors.and_then(|payload| units(payload, name));
    let mut things = Vec::new();
    for index in &relays {
        let is_alone = relays.len() == 1;
        let named = config.friendly_names.get(*index).cloned().flatten();
        let title = match (is_alone, named) {
            (true, _) if config.friendly_names.iter().flatten().count() <= 1 => {
                config.device_name.clone()
            }
            (_, Some(name)) => name,
            (true, None) => config.device_name.clone(),
            (false, None) => format!("{} {}", config.device_name, index + 1),
        };
        let part = if is_alone {
            String::new()
        } else {
            format!("_{}", index + 1)
        };
        let mut thing = describe(broker, config, &part, &title);
        relay(&mut thing, config, *index, is_alone);
        if is_alone {
            measured
                .iter()
                .for_each(|leaf| sensor(&mut thing, config, leaf, &unit));
        }
        things.push(thing.finish());
    }
    if relays.len() != 1 && !measured.is_empty() {
        let mut thing = describe(broker, config, "", &config.device_name);
        thing.set("edge:kind", json!(["sensor"]));
        measured
            .iter()
            .for_each(|leaf| sensor(&mut thing, config, leaf, &unit));
        things.push(thing.finish());
    }
    Ok(things)
}

fn describe(broker: &str, config: &Config, part: &str, title: &str) -> Description {
    let mut thing = Description::new(broker, &config.id(part), title);
    thing.set(
        "description",
        json!(format!(
            "Tasmota {} ({})",
            config.module, config.device_name
        )),
    );
    let availability = json!([{
        "href": thing.href(&config.tele("LWT")), "contentType": "text/plain",
        "edge:values": [[true, config.online], [false, config.offline]],
    }]);
    thing.set("edge:availability", availability);
    thing
}

/// Where a command's result is told: in `RESULT`, or, with SetOption4, under its own name.
fn result_topic(config: &Config, command: &str) -> String {
    let is_own = config.options.get("4").and_then(Value::as_u64) == Some(1);
    config.stat(if is_own { command } else { "RESULT" })
}

fn relay(thing: &mut Description, config: &Config, index: usize, is_alone: bool) {
    let is_light = config.relays.get(index) == Some(&LIGHT);
    thing.set(
        "edge:kind",
        if is_light {
            json!(["light", "lamp"])
        } else {
            json!(["switch", "plug"])
        },
    );
    let state = |at: usize, default: &str| {
        config
            .states
            .get(at)
            .cloned()
            .unwrap_or_else(|| default.to_owned())
    };
    let power = json!({"edge:values": [[true, state(1, "ON")], [false, state(0, "OFF")]]});
    // The only relay is reported as POWER, by some firmwares as POWER1.
    let numbered = format!("POWER{}", index + 1);
    let names = if is_alone {
        vec!["POWER".to_owned(), numbered]
    } else {
        vec![numbered]
    };
    let schema = json!({"title": "On", "type": "boolean"});
    command(thing, config, "on", schema, &names, &power);
    // Lights with one or two channels dim under one name; separate channels (SetOption68) do not.
    let is_dimmed = is_light && config.light_subtype > 0 && is_alone;
    if is_dimmed {
        let schema = json!({"title": "Brightness", "type": "integer", "unit": "percent", "minimum": 0, "maximum": 100});
        command(
            thing,
            config,
            "brightness",
            schema,
            &["Dimmer".to_owned()],
            &json!({}),
        );
    }
    if is_dimmed && matches!(config.light_subtype, 2 | 5) {
        let schema = json!({"title": "Color temperature", "type": "integer", "unit": "mired", "minimum": 153, "maximum": 500});
        command(
            thing,
            config,
            "color_temperature",
            schema,
            &["CT".to_owned()],
            &json!({}),
        );
    }
}

/// A property that a command of its own name sets and several messages report.
fn command(
    thing: &mut Description,
    config: &Config,
    key: &str,
    schema: Value,
    names: &[String],
    terms: &Value,
) {
    let mut forms = Vec::new();
    let Some(own) = names.last() else { return };
    for name in names {
        let told = [
            (result_topic(config, name), format!("/{name}")),
            (config.tele("STATE"), format!("/{name}")),
            (config.stat("STATUS11"), format!("/StatusSTS/{name}")),
        ];
        for (topic, pointer) in told {
            let mut form = json!({"href": thing.href(&topic), "op": "observeproperty", "edge:pointer": pointer});
            extend(&mut form, terms.clone());
            forms.push(form);
        }
    }
    forms.push(json!({"href": thing.href(&config.command("STATUS")), "op": "readproperty", "contentType": "text/plain",
        "mqv:controlPacket": "publish", "edge:value": "11"}));
    let mut write = json!({"href": thing.href(&config.command(own)), "op": "writeproperty", "contentType": "text/plain",
        "mqv:controlPacket": "publish"});
    extend(&mut write, terms.clone());
    forms.push(write);
    let mut property = json!({"observable": true, "forms": forms});
    extend(&mut property, schema);
    thing.add("properties", key, property);
}

/// A measured value: the path of names that leads to it.
type Leaf = Vec<String>;

/// The measured values of a `SENSOR` message: numbers and texts below the name of a sensor, without the time and the units.
fn leaves(tree: &Value) -> Vec<Leaf> {
    let Some(sensors) = tree.as_object() else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (sensor, values) in sensors {
        let Some(values) = values.as_object() else {
            continue;
        };
        for (quantity, value) in values {
            let is_single = !value.is_object() && !value.is_array();
            if is_single
                && quantity != "Id"
                && quantity != "TotalStartTime"
                && found.len() < SENSORS_MAX
            {
                found.push(vec![sensor.clone(), quantity.clone()]);
            }
        }
    }
    found
}

/// The unit that the message names for all values of a kind.
fn units(payload: &[u8], quantity: &str) -> Option<String> {
    let message: Value = serde_json::from_slice(payload).ok()?;
    let named = |member: &str| {
        message
            .pointer(&format!("/sn/{member}"))
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    match quantity {
        "Temperature" | "DewPoint" => named("TempUnit").map(|unit| format!("°{unit}")),
        "Pressure" | "SeaPressure" => named("PressureUnit"),
        "Humidity" | "Moisture" => Some("%".to_owned()),
        "Power" => Some("W".to_owned()),
        "ApparentPower" => Some("VA".to_owned()),
        "ReactivePower" => Some("var".to_owned()),
        "Voltage" => Some("V".to_owned()),
        "Current" => Some("A".to_owned()),
        "Total" | "Today" | "Yesterday" => Some("kWh".to_owned()),
        "Illuminance" => Some("lx".to_owned()),
        "Distance" => Some("cm".to_owned()),
        "CarbonDioxide" | "eCO2" => Some("ppm".to_owned()),
        "TVOC" => Some("ppb".to_owned()),
        _ => None,
    }
}

fn sensor(
    thing: &mut Description,
    config: &Config,
    leaf: &Leaf,
    unit: &dyn Fn(&str) -> Option<String>,
) {
    let [sensor, quantity] = leaf.as_slice() else {
        return;
    };
    let pointer: String = leaf
        .iter()
        .map(|part| format!("/{}", part.replace('~', "~0").replace('/', "~1")))
        .collect();
    let forms = json!([
        {"href": thing.href(&config.tele("SENSOR")), "op": "observeproperty", "edge:pointer": pointer},
        {"href": thing.href(&config.stat("STATUS10")), "op": "observeproperty", "edge:pointer": format!("/StatusSNS{pointer}")},
        {"href": thing.href(&config.command("STATUS")), "op": "readproperty", "contentType": "text/plain",
            "mqv:controlPacket": "publish", "edge:value": "10"},
    ]);
    let mut property = json!({"title": spoken(quantity), "type": "number", "readOnly": true, "observable": true,
        "edge:aliases": [format!("{} {}", spoken(sensor), spoken(quantity))], "forms": forms});
    if let Some(unit) = unit(quantity) {
        property["unit"] = json!(unit);
    }
    thing.add("properties", &slug(quantity), property);
}
