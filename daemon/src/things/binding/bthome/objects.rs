//! The table of BTHome v2 objects (<https://bthome.io/format/>, sections "Sensor data", "Binary Sensor data", "Events", "Device information").

use serde_json::{Value, json};

use crate::things::binding::scalar;

/// Counts changes, so that one that is heard twice is told apart.
pub const PACKET_ID: u8 = 0x00;

/// How an object's bytes are read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    /// Unsigned, so many bytes, times the factor.
    Unsigned(usize, f64),
    /// Two's complement, so many bytes, times the factor.
    Signed(usize, f64),
    /// One byte: zero or not.
    Truth,
    /// One byte: an index into the words.
    Choice(&'static [&'static str]),
    /// A length byte and UTF-8.
    Text,
    /// A length byte and bytes.
    Raw,
    /// Numbers of a version, the least significant first, so many.
    Version(usize),
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Object {
    /// Object id.
    pub id: u8,
    /// Name of the property.
    pub name: &'static str,
    /// How its bytes are read.
    pub shape: Shape,
    /// Unit as published, or empty.
    pub unit: &'static str,
}

const fn row(id: u8, name: &'static str, shape: Shape, unit: &'static str) -> Object {
    Object {
        id,
        name,
        shape,
        unit,
    }
}

use Shape::{Choice, Raw, Signed, Text, Truth, Unsigned, Version};

/// All objects but the packet id and the events, in the order of their ids.
pub const OBJECTS: &[Object] = &[
    row(0x01, "battery", Unsigned(1, 1.0), "%"),
    row(0x02, "temperature", Signed(2, 0.01), "°C"),
    row(0x03, "humidity", Unsigned(2, 0.01), "%"),
    row(0x04, "pressure", Unsigned(3, 0.01), "hPa"),
    row(0x05, "illuminance", Unsigned(3, 0.01), "lx"),
    row(0x06, "mass", Unsigned(2, 0.01), "kg"),
    row(0x07, "mass_lb", Unsigned(2, 0.01), "lb"),
    row(0x08, "dew_point", Signed(2, 0.01), "°C"),
    row(0x09, "count", Unsigned(1, 1.0), ""),
    row(0x0a, "energy", Unsigned(3, 0.001), "kWh"),
    row(0x0b, "power", Unsigned(3, 0.01), "W"),
    row(0x0c, "voltage", Unsigned(2, 0.001), "V"),
    row(0x0d, "pm2_5", Unsigned(2, 1.0), "ug/m3"),
    row(0x0e, "pm10", Unsigned(2, 1.0), "ug/m3"),
    row(0x0f, "generic", Truth, ""),
    row(0x10, "power_on", Truth, ""),
    row(0x11, "opening", Truth, ""),
    row(0x12, "co2", Unsigned(2, 1.0), "ppm"),
    row(0x13, "tvoc", Unsigned(2, 1.0), "ug/m3"),
    row(0x14, "moisture", Unsigned(2, 0.01), "%"),
    row(0x15, "battery_low", Truth, ""),
    row(0x16, "battery_charging", Truth, ""),
    row(0x17, "carbon_monoxide", Truth, ""),
    row(0x18, "cold", Truth, ""),
    row(0x19, "connectivity", Truth, ""),
    row(0x1a, "door", Truth, ""),
    row(0x1b, "garage_door", Truth, ""),
    row(0x1c, "gas_detected", Truth, ""),
    row(0x1d, "heat", Truth, ""),
    row(0x1e, "light", Truth, ""),
    row(0x1f, "lock", Truth, ""),
    row(0x20, "moisture_detected", Truth, ""),
    row(0x21, "motion", Truth, ""),
    row(0x22, "moving", Truth, ""),
    row(0x23, "occupancy", Truth, ""),
    row(0x24, "plug", Truth, ""),
    row(0x25, "presence", Truth, ""),
    row(0x26, "problem", Truth, ""),
    row(0x27, "running", Truth, ""),
    row(0x28, "safety", Truth, ""),
    row(0x29, "smoke", Truth, ""),
    row(0x2a, "sound", Truth, ""),
    row(0x2b, "tamper", Truth, ""),
    row(0x2c, "vibration", Truth, ""),
    row(0x2d, "window", Truth, ""),
    row(0x2e, "humidity", Unsigned(1, 1.0), "%"),
    row(0x2f, "moisture", Unsigned(1, 1.0), "%"),
    row(0x3d, "count", Unsigned(2, 1.0), ""),
    row(0x3e, "count", Unsigned(4, 1.0), ""),
    row(0x3f, "rotation", Signed(2, 0.1), "°"),
    row(0x40, "distance_mm", Unsigned(2, 1.0), "mm"),
    row(0x41, "distance", Unsigned(2, 0.1), "m"),
    row(0x42, "duration", Unsigned(3, 0.001), "s"),
    row(0x43, "current", Unsigned(2, 0.001), "A"),
    row(0x44, "speed", Unsigned(2, 0.01), "m/s"),
    row(0x45, "temperature", Signed(2, 0.1), "°C"),
    row(0x46, "uv_index", Unsigned(1, 0.1), ""),
    row(0x47, "volume", Unsigned(2, 0.1), "L"),
    row(0x48, "volume_ml", Unsigned(2, 1.0), "mL"),
    row(0x49, "volume_flow_rate", Unsigned(2, 0.001), "m3/h"),
    row(0x4a, "voltage", Unsigned(2, 0.1), "V"),
    row(0x4b, "gas", Unsigned(3, 0.001), "m3"),
    row(0x4c, "gas", Unsigned(4, 0.001), "m3"),
    row(0x4d, "energy", Unsigned(4, 0.001), "kWh"),
    row(0x4e, "volume", Unsigned(4, 0.001), "L"),
    row(0x4f, "water", Unsigned(4, 0.001), "L"),
    row(0x50, "timestamp", Unsigned(4, 1.0), "s"),
    row(0x51, "acceleration", Unsigned(2, 0.001), "m/s²"),
    row(0x52, "gyroscope", Unsigned(2, 0.001), "°/s"),
    row(0x53, "text", Text, ""),
    row(0x54, "raw", Raw, ""),
    row(0x55, "volume_storage", Unsigned(4, 0.001), "L"),
    row(0x56, "conductivity", Unsigned(2, 1.0), "µS/cm"),
    row(0x57, "temperature", Signed(1, 1.0), "°C"),
    row(0x58, "temperature", Signed(1, 0.35), "°C"),
    row(0x59, "count", Signed(1, 1.0), ""),
    row(0x5a, "count", Signed(2, 1.0), ""),
    row(0x5b, "count", Signed(4, 1.0), ""),
    row(0x5c, "power", Signed(4, 0.01), "W"),
    row(0x5d, "current", Signed(2, 0.001), "A"),
    row(0x5e, "direction", Unsigned(2, 0.01), "°"),
    row(0x5f, "precipitation", Unsigned(2, 0.1), "mm"),
    row(0x60, "channel", Unsigned(1, 1.0), ""),
    row(0x61, "rotational_speed", Unsigned(2, 1.0), "rpm"),
    row(0x62, "speed", Signed(4, 0.000_001), "m/s"),
    row(0x63, "acceleration", Signed(4, 0.000_001), "m/s²"),
    row(
        0x64,
        "light_level",
        Choice(&["dark", "twilight", "bright"]),
        "",
    ),
    row(0x65, "settings_revision", Unsigned(1, 1.0), ""),
    row(0xf0, "device_type", Unsigned(2, 1.0), ""),
    row(0xf1, "firmware_version", Version(4), ""),
    row(0xf2, "firmware_version", Version(3), ""),
];

/// The row of an object id.
#[must_use]
pub fn find(id: u8) -> Option<&'static Object> {
    OBJECTS.iter().find(|object| object.id == id)
}

impl Object {
    /// How many bytes its value has; zero where a length byte says so.
    #[must_use]
    pub fn width(&self) -> usize {
        match self.shape {
            Unsigned(width, _) | Signed(width, _) | Version(width) => width,
            Truth | Choice(_) => 1,
            Text | Raw => 0,
        }
    }

    /// The value of its bytes. None: a text that is not UTF-8, a choice that is not published.
    #[must_use]
    pub fn value(&self, bytes: &[u8]) -> Option<Value> {
        let raw = || {
            bytes
                .iter()
                .rev()
                .fold(0u64, |sum, byte| sum << 8 | u64::from(*byte))
        };
        match self.shape {
            Unsigned(_, factor) => scalar::number(scalar::scaled(raw() as f64, factor, 0.0)),
            Signed(width, factor) => {
                let shift = 64 - 8 * width as u32;
                let signed = (raw() << shift) as i64 >> shift;
                scalar::number(scalar::scaled(signed as f64, factor, 0.0))
            }
            Truth => Some(Value::Bool(raw() != 0)),
            Choice(words) => words
                .get(usize::from(*bytes.first()?))
                .map(|word| json!(word)),
            Text => std::str::from_utf8(bytes).ok().map(|text| json!(text)),
            Raw => Some(json!(hex::encode(bytes))),
            Version(_) => {
                let numbers: Vec<String> = bytes.iter().rev().map(u8::to_string).collect();
                Some(json!(numbers.join(".")))
            }
        }
    }

    /// The property's title.
    #[must_use]
    pub fn title(&self) -> String {
        let text = match self.name {
            "co2" => "CO2".to_owned(),
            "tvoc" => "TVOC".to_owned(),
            "pm2_5" => "PM2.5".to_owned(),
            "pm10" => "PM10".to_owned(),
            "uv_index" => "UV index".to_owned(),
            name => name.replace('_', " "),
        };
        let mut letters = text.chars();
        letters.next().map_or_else(String::new, |first| {
            first.to_uppercase().chain(letters).collect()
        })
    }

    /// The property's affordance, without forms: it is heard, never asked.
    #[must_use]
    pub fn schema(&self) -> Value {
        let kind = match self.shape {
            Unsigned(..) | Signed(..) => "number",
            Truth => "boolean",
            Choice(_) | Text | Raw | Version(_) => "string",
        };
        let mut schema =
            json!({"title": self.title(), "type": kind, "readOnly": true, "observable": true});
        if !self.unit.is_empty() {
            schema["unit"] = json!(self.unit);
        }
        if let Choice(words) = self.shape {
            schema["enum"] = json!(words);
        }
        schema
    }
}

/// What happens at a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// 0x3A.
    Button,
    /// 0x3B.
    Command,
    /// 0x3C.
    Dimmer,
}

const BUTTON: &[(u8, &str)] = &[
    (0x01, "press"),
    (0x02, "double_press"),
    (0x03, "triple_press"),
    (0x04, "long_press"),
    (0x05, "long_double_press"),
    (0x06, "long_triple_press"),
    (0x80, "hold_press"),
];
const COMMAND: &[(u8, &str)] = &[
    (0x00, "off"),
    (0x01, "on"),
    (0x02, "toggle"),
    (0x03, "step_up"),
    (0x04, "step_down"),
];
const DIMMER: &[(u8, &str)] = &[(0x01, "rotate_left"), (0x02, "rotate_right")];

impl Event {
    /// The event of an object id.
    #[must_use]
    pub fn from_id(id: u8) -> Option<Self> {
        match id {
            0x3a => Some(Self::Button),
            0x3b => Some(Self::Command),
            0x3c => Some(Self::Dimmer),
            _ => None,
        }
    }

    /// Its name in the description.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Button => "button",
            Self::Command => "command",
            Self::Dimmer => "dimmer",
        }
    }

    /// How many bytes follow the object id. None when they are cut off.
    #[must_use]
    pub fn length(self, after: &[u8]) -> Option<usize> {
        Some(match self {
            Self::Button => 1,
            // The length byte counts the arguments; the operation code stands between.
            Self::Command => usize::from(*after.first()?) + 2,
            // "None" has no number of steps in the format's own example (3C00).
            Self::Dimmer => {
                if *after.first()? == 0 {
                    1
                } else {
                    2
                }
            }
        })
    }

    /// What happened. None: nothing, or nothing that is published.
    #[must_use]
    pub fn data(self, bytes: &[u8]) -> Option<Value> {
        let word = |table: &[(u8, &'static str)], code: u8| {
            table
                .iter()
                .find(|(known, _)| *known == code)
                .map(|(_, word)| *word)
        };
        match self {
            Self::Button => word(BUTTON, *bytes.first()?).map(|word| json!(word)),
            Self::Command => {
                let word = word(COMMAND, *bytes.get(1)?)?;
                Some(match bytes.get(2) {
                    Some(steps) => json!({"command": word, "steps": steps}),
                    None => json!({"command": word}),
                })
            }
            Self::Dimmer => {
                let word = word(DIMMER, *bytes.first()?)?;
                Some(json!({"direction": word, "steps": bytes.get(1)}))
            }
        }
    }

    /// The event's affordance under this name.
    #[must_use]
    pub fn affordance(self, name: &str) -> Value {
        let title = name.replace('_', " ");
        let words =
            |table: &[(u8, &'static str)]| table.iter().map(|(_, word)| *word).collect::<Vec<_>>();
        let data = match self {
            Self::Button => json!({"type": "string", "enum": words(BUTTON)}),
            Self::Command => {
                json!({"type": "object", "properties": {"command": {"type": "string", "enum": words(COMMAND)}, "steps": {"type": "integer"}}})
            }
            Self::Dimmer => {
                json!({"type": "object", "properties": {"direction": {"type": "string", "enum": words(DIMMER)}, "steps": {"type": "integer"}}})
            }
        };
        json!({"title": title, "data": data})
    }
}
