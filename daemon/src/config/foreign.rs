//! `[foreign]`: devices that do not speak our protocol. Off unless something stands there.
//!
//! The tables as they are written, their defaults with unit and reason, and the checks that make them [`ForeignConfig`].

mod ble;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use autoglm_drivers::link::LinkAddress;
use autoglm_drivers::modbus::BusPlace;
use autoglm_drivers::mqtt::Broker;
use autoglm_drivers::serial::{LineFormat, Parity, StopBits};
use serde::{Deserialize, Serialize};

pub use self::ble::{Admission, BleConfig, RawBle, RawSensor, SensorConfig};
use super::access::Written;
use super::raw::{RawLogin, RawTls, keep_alive_s};
use super::validate::{ConfigError, Reject, absolute, name};

/// `[foreign]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawForeign {
    /// Directory of Thing Descriptions with forms, `*.td.json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub things: Option<String>,
    /// `[[foreign.modbus]]`
    pub modbus: Vec<RawModbus>,
    /// `[[foreign.mqtt]]`
    pub mqtt: Vec<RawMqtt>,
    /// `[foreign.ble]`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ble: Option<RawBle>,
}

/// `[[foreign.modbus]]`: a bus with Modbus units, serial (RTU) or behind a device or gateway that speaks Modbus TCP.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawModbus {
    /// Short unique name; forms name the bus by it.
    pub name: String,
    /// `serial:///dev/…?baud=…`, `serial://usb/…`, or `modbus+tcp://HOST[:502]`.
    pub address: String,
    /// `none`, `even` or `odd`; of a serial line, as `stop_bits`. Default none: what most devices come with, though the specification says even.
    #[serde(default = "parity")]
    pub parity: String,
    /// 1 or 2. Default 1.
    #[serde(default = "stop_bits")]
    pub stop_bits: u8,
    /// How long a unit may take to answer, in milliseconds. Default 1000: slow units take some hundred.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
    /// How often observed properties are read whose forms say nothing, in milliseconds. Default 5000: people do not wait longer for news,
    /// and a bus of thirty units at 9600 baud still keeps up.
    #[serde(default = "poll_ms")]
    pub poll_ms: u64,
}

/// `[[foreign.mqtt]]`: a broker with devices behind it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawMqtt {
    /// Short unique name; forms name the broker by it.
    pub name: String,
    /// `mqtts://host[:port]` or `mqtt://host[:port]`.
    pub broker: String,
    /// Whether `mqtt://`, which everybody on the way can read and change, may leave this machine. Default: no.
    #[serde(default)]
    pub allow_clear: bool,
    /// MQTT keep-alive in seconds. Default 15: a dead connection is noticed after 23.
    #[serde(default = "keep_alive_s")]
    pub keep_alive_s: u64,
    /// Zigbee2MQTT's base topic, usually `zigbee2mqtt`. Absent: not looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zigbee2mqtt: Option<String>,
    /// Tasmota's discovery topic, usually `tasmota/discovery`. Absent: not looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasmota: Option<String>,
    /// Home Assistant's discovery prefix, usually `homeassistant`. Absent: not looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub home_assistant: Option<String>,
    /// `[foreign.mqtt.tls]`, with `mqtts://`.
    pub tls: Option<RawTls>,
    /// `[foreign.mqtt.login]`
    pub login: Option<RawLogin>,
}

fn parity() -> String {
    "none".to_owned()
}

fn stop_bits() -> u8 {
    1
}

fn timeout_ms() -> u64 {
    1000
}

fn poll_ms() -> u64 {
    5000
}

/// Foreign devices, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForeignConfig {
    /// Directory of Thing Descriptions with forms.
    pub things: Option<PathBuf>,
    /// Modbus buses.
    pub modbus: Vec<ModbusConfig>,
    /// Brokers.
    pub mqtt: Vec<MqttConfig>,
    /// Bluetooth.
    pub ble: Option<BleConfig>,
}

/// A Modbus bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModbusConfig {
    /// Its name in forms.
    pub name: String,
    /// Where it is.
    pub place: BusPlace,
    /// How long a unit may take to answer.
    pub timeout: Duration,
    /// How often observed properties are read whose forms say nothing.
    pub poll: Duration,
}

/// A broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MqttConfig {
    /// Its name in forms.
    pub name: String,
    /// Its address, and how it is spoken to.
    pub broker: Broker,
    /// Zigbee2MQTT's base topic.
    pub zigbee2mqtt: Option<String>,
    /// Tasmota's discovery topic.
    pub tasmota: Option<String>,
    /// Home Assistant's discovery prefix.
    pub home_assistant: Option<String>,
}

pub(super) fn validate(reject: &Reject<'_>, raw: RawForeign) -> Result<ForeignConfig, ConfigError> {
    // Bluetooth is there once, and its Things' source is called so.
    let mut names = BTreeSet::from(["ble".to_owned()]);
    let mut unique = |key: &str, value: String| {
        let value = name(reject, key, value)?;
        if names.insert(value.clone()) {
            Ok(value)
        } else {
            Err(reject.value(
                key,
                value,
                "stands twice; names must be unique, and `ble` is Bluetooth's",
            ))
        }
    };
    let mut modbus = Vec::new();
    for bus in raw.modbus {
        let name = unique("foreign.modbus.name", bus.name.clone())?;
        modbus.push(self::modbus(reject, name, bus)?);
    }
    let mut mqtt = Vec::new();
    for broker in raw.mqtt {
        let name = unique("foreign.mqtt.name", broker.name.clone())?;
        mqtt.push(self::mqtt(reject, name, broker)?);
    }
    let things = raw
        .things
        .map(|path| absolute(reject, "foreign.things", &path));
    let ble = raw.ble.map(|raw| ble::validate(reject, raw));
    Ok(ForeignConfig {
        things: things.transpose()?,
        modbus,
        mqtt,
        ble: ble.transpose()?,
    })
}

fn modbus(reject: &Reject<'_>, name: String, raw: RawModbus) -> Result<ModbusConfig, ConfigError> {
    let key = |member: &str| format!("foreign.modbus.{name}.{member}");
    let timeout =
        Duration::from_millis(reject.within(&key("timeout_ms"), raw.timeout_ms, 10, 60_000)?);
    let poll =
        Duration::from_millis(reject.within(&key("poll_ms"), raw.poll_ms, 10, 86_400_000)?);
    Ok(ModbusConfig {
        place: bus_place(reject, &name, &raw)?,
        timeout,
        poll,
        name,
    })
}

fn bus_place(reject: &Reject<'_>, name: &str, raw: &RawModbus) -> Result<BusPlace, ConfigError> {
    let key = |member: &str| format!("foreign.modbus.{name}.{member}");
    let parity = match raw.parity.as_str() {
        "none" => Parity::None,
        "even" => Parity::Even,
        "odd" => Parity::Odd,
        other => {
            return Err(reject.value(
                key("parity"),
                other,
                "must be \"none\", \"even\" or \"odd\"",
            ));
        }
    };
    let stop_bits = match raw.stop_bits {
        1 => StopBits::One,
        2 => StopBits::Two,
        other => return Err(reject.value(key("stop_bits"), other, "must be 1 or 2")),
    };
    if raw.address.starts_with("modbus+tcp:") {
        let place = raw.address.parse().map(BusPlace::Tcp);
        return place.map_err(|error| reject.value(key("address"), &raw.address, error));
    }
    let address = raw
        .address
        .parse()
        .map_err(|error| reject.value(key("address"), &raw.address, error))?;
    let LinkAddress::Serial { place, baud } = address else {
        let why = "must be a serial line or modbus+tcp://HOST";
        return Err(reject.value(key("address"), &raw.address, why));
    };
    let format = LineFormat {
        baud,
        parity,
        stop_bits,
    };
    Ok(BusPlace::Serial { place, format })
}

fn mqtt(reject: &Reject<'_>, name: String, raw: RawMqtt) -> Result<MqttConfig, ConfigError> {
    let key = |member: &str| format!("foreign.mqtt.{name}.{member}");
    let topic = |member: &str, topic: Option<String>| match topic {
        None => Ok(None),
        Some(topic) => {
            let trimmed = topic.trim_matches('/').to_owned();
            let is_good = (1..=256).contains(&trimmed.len()) && !trimmed.contains(['+', '#', '\0']);
            if is_good {
                Ok(Some(trimmed))
            } else {
                Err(reject.value(key(member), topic, "must be a topic without wildcards"))
            }
        }
    };
    Ok(MqttConfig {
        broker: Written {
            table: &format!("foreign.mqtt.{name}"),
            key: "broker",
            broker: &raw.broker,
            allow_clear: raw.allow_clear,
            keep_alive_s: raw.keep_alive_s,
            tls: raw.tls.as_ref(),
            login: raw.login.as_ref(),
        }
        .broker(reject)?,
        zigbee2mqtt: topic("zigbee2mqtt", raw.zigbee2mqtt)?,
        tasmota: topic("tasmota", raw.tasmota)?,
        home_assistant: topic("home_assistant", raw.home_assistant)?,
        name,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use autoglm_drivers::mqtt::Transport;

    use super::super::Config;
    use super::*;

    fn read(text: &str) -> Result<ForeignConfig, String> {
        let config = Config::from_text(text, Path::new("config.toml"));
        config
            .map(|config| config.foreign)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_is_foreign_unless_it_is_configured() {
        assert_eq!(read("").unwrap(), ForeignConfig::default());
    }

    #[test]
    fn buses_and_brokers_are_read_with_their_defaults() {
        let config = read(
            "[foreign]\nthings = \"/etc/things\"\n[[foreign.modbus]]\nname = \"meters\"\naddress = \"serial:///dev/ttyUSB0?baud=9600\"\n\
             [[foreign.mqtt]]\nname = \"home\"\nbroker = \"mqtt://127.0.0.1\"\nzigbee2mqtt = \"zigbee2mqtt/\"\n",
        )
        .unwrap();
        assert_eq!(config.modbus[0].timeout, Duration::from_secs(1));
        assert!(
            matches!(&config.modbus[0].place, BusPlace::Serial { format, .. } if *format == LineFormat::at(9600)),
            "{:?}",
            config.modbus[0].place
        );
        assert_eq!(config.mqtt[0].zigbee2mqtt.as_deref(), Some("zigbee2mqtt"));
        assert_eq!(config.mqtt[0].tasmota, None);
    }

    #[test]
    fn a_broker_is_spoken_to_as_the_fleets_is() {
        let broker = |rest: &str| read(&format!("[[foreign.mqtt]]\nname = \"home\"\n{rest}"));
        let message = broker("broker = \"mqtt://broker.example\"").unwrap_err();
        assert!(
            message.contains("foreign.mqtt.home.broker") && message.contains("allow_clear"),
            "{message}"
        );
        broker("broker = \"mqtt://broker.example\"\nallow_clear = true").unwrap();
        let message = broker("broker = \"mqtts://broker.example\"").unwrap_err();
        assert!(message.contains("[foreign.mqtt.home.tls]"), "{message}");
        let config = broker(
            "broker = \"mqtts://broker.example\"\n[foreign.mqtt.tls]\nca = \"/ca\"\n[foreign.mqtt.login]\nuser = \"u\"\npassword_file = \"/p\"\n",
        )
        .unwrap();
        let access = &config.mqtt[0].broker.access;
        assert!(
            matches!(&access.transport, Transport::Tls(files) if files.authority == Path::new("/ca")),
            "{access:?}"
        );
        assert_eq!(
            access.login.as_ref().map(|login| login.user.as_str()),
            Some("u")
        );
    }

    #[test]
    fn a_wrong_value_names_key_value_and_what_is_allowed() {
        let bus = "[[foreign.modbus]]\nname = \"meters\"\naddress = \"serial:///dev/ttyUSB0\"\n";
        let broker = "[[foreign.mqtt]]\nname = \"meters\"\nbroker = \"mqtt://127.0.0.1\"\n";
        for (text, parts) in [
            (
                format!("{bus}parity = \"mark\""),
                ["foreign.modbus.meters.parity", "mark", "even"],
            ),
            (
                "[[foreign.modbus]]\nname = \"plc\"\naddress = \"modbus+tcp://plc:0\"\n".to_owned(),
                ["foreign.modbus.plc.address", "modbus+tcp://plc:0", "502"],
            ),
            (
                format!("{bus}stop_bits = 3"),
                ["foreign.modbus.meters.stop_bits", "3", "1 or 2"],
            ),
            (
                format!("{bus}timeout_ms = 1"),
                ["foreign.modbus.meters.timeout_ms", "1", "10"],
            ),
            (
                format!("{bus}{broker}"),
                ["foreign.mqtt.name", "meters", "twice"],
            ),
            (
                format!("{broker}tasmota = \"a/#\""),
                ["foreign.mqtt.meters.tasmota", "a/#", "wildcards"],
            ),
            (
                format!("{broker}tasmotta = \"a\""),
                ["tasmotta", "unknown", ""],
            ),
            (
                "[foreign]\nthings = \"here\"".to_owned(),
                ["foreign.things", "here", "absolute"],
            ),
        ] {
            let message = read(&text).unwrap_err();
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        }
    }
}
