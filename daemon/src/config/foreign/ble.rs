//! `[foreign.ble]`: sensors that broadcast (BTHome), and the adapter by which described devices (GATT) are reached.

use std::collections::BTreeMap;

use autoglm_drivers::ble::DeviceAddress;
use autoglm_drivers::ble::address::{AdapterSelector, parse_adapter};
use serde::{Deserialize, Serialize};

use super::super::device::key_source;
use super::super::key::KeySource;
use super::super::raw::RawKey;
use super::super::validate::{ConfigError, Reject};

/// The longest title, in bytes: people say it.
const TITLE_BYTES_MAX: usize = 100;
/// The most sensors that may be listed. Chosen as more than one adapter hears.
const SENSORS_MAX: usize = 256;

/// `[foreign.ble]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawBle {
    /// The adapter: its name, its address, or empty for whichever hears a device. Default: empty.
    #[serde(default)]
    pub adapter: String,
    /// Which BTHome sensors become Things: `listed`, `all` that are heard, or `off`. Default: listed, since those of the neighbours
    /// are heard, too.
    #[serde(default = "bthome")]
    pub bthome: String,
    /// `[[foreign.ble.sensor]]`
    #[serde(default)]
    pub sensor: Vec<RawSensor>,
}

/// `[[foreign.ble.sensor]]`: a sensor that broadcasts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawSensor {
    /// Its Bluetooth address.
    pub address: String,
    /// What people call it. Default: the name that it broadcasts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Its bind key, where it encrypts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<RawKey>,
}

fn bthome() -> String {
    "listed".to_owned()
}

/// Bluetooth devices that do not speak our protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BleConfig {
    /// By which adapter.
    pub adapter: AdapterSelector,
    /// Which BTHome sensors become Things.
    pub admission: Admission,
    /// Those that are listed, by address.
    pub sensors: BTreeMap<DeviceAddress, SensorConfig>,
}

/// Which BTHome sensors become Things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// None.
    Off,
    /// Those in the configuration.
    Listed,
    /// Whoever is heard.
    All,
}

/// A sensor that broadcasts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SensorConfig {
    /// What people call it.
    pub title: Option<String>,
    /// Where its bind key is.
    pub key: Option<KeySource>,
}

pub(super) fn validate(reject: &Reject<'_>, raw: RawBle) -> Result<BleConfig, ConfigError> {
    let adapter = parse_adapter(&raw.adapter)
        .map_err(|error| reject.value("foreign.ble.adapter", &raw.adapter, error))?;
    let admission = match raw.bthome.as_str() {
        "off" => Admission::Off,
        "listed" => Admission::Listed,
        "all" => Admission::All,
        other => {
            let allowed = "must be \"listed\", \"all\" or \"off\"";
            return Err(reject.value("foreign.ble.bthome", other, allowed));
        }
    };
    if raw.sensor.len() > SENSORS_MAX {
        let allowed = format!("at most {SENSORS_MAX} sensors");
        return Err(reject.value("foreign.ble.sensor", raw.sensor.len(), allowed));
    }
    let mut sensors = BTreeMap::new();
    for sensor in raw.sensor {
        let address: DeviceAddress = sensor.address.parse().map_err(|_| {
            let allowed = "must be a Bluetooth address, as in A4:C1:38:8D:18:B2";
            reject.value("foreign.ble.sensor.address", &sensor.address, allowed)
        })?;
        let key = |member: &str| format!("foreign.ble.sensor.{address}.{member}");
        if let Some(title) = &sensor.title
            && (title.trim().is_empty() || title.len() > TITLE_BYTES_MAX)
        {
            let allowed = format!("must have 1 to {TITLE_BYTES_MAX} bytes");
            return Err(reject.value(key("title"), title, allowed));
        }
        let config = SensorConfig {
            title: sensor.title,
            key: sensor
                .key
                .map(|source| key_source(reject, &key("key"), &source))
                .transpose()?,
        };
        if sensors.insert(address, config).is_some() {
            let allowed = "stands twice; a sensor is listed once";
            return Err(reject.value("foreign.ble.sensor.address", address, allowed));
        }
    }
    if admission == Admission::Off && !sensors.is_empty() {
        let allowed = "is off, and sensors are listed: remove them, or say \"listed\"";
        return Err(reject.value("foreign.ble.bthome", "off", allowed));
    }
    Ok(BleConfig {
        adapter,
        admission,
        sensors,
    })
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::super::super::Config;
    use super::*;

    fn read(text: &str) -> Result<BleConfig, String> {
        let config = Config::from_text(text, Path::new("config.toml"));
        config
            .map(|config| config.foreign.ble.expect("[foreign.ble] stands there"))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn sensors_are_listed_with_title_and_key() {
        let config = read(
            "[foreign.ble]\nadapter = \"hci1\"\n[[foreign.ble.sensor]]\naddress = \"a4:c1:38:8d:18:b2\"\ntitle = \"Balcony\"\n\
             key = { file = \"/k\" }\n[[foreign.ble.sensor]]\naddress = \"A4:C1:38:8D:18:B3\"\n",
        )
        .unwrap();
        assert_eq!(config.adapter, AdapterSelector::Name("hci1".into()));
        assert_eq!(config.admission, Admission::Listed);
        let [first, second]: [&SensorConfig; 2] = config
            .sensors
            .values()
            .collect::<Vec<_>>()
            .try_into()
            .unwrap();
        assert_eq!(first.title.as_deref(), Some("Balcony"));
        assert_eq!(first.key, Some(KeySource::File(PathBuf::from("/k"))));
        assert_eq!(*second, SensorConfig::default());
    }

    #[test]
    fn a_table_alone_listens_to_nobody_unknown() {
        let config = read("[foreign.ble]\n").unwrap();
        assert_eq!(config.adapter, AdapterSelector::Any);
        assert_eq!(config.admission, Admission::Listed);
    }

    #[test]
    fn a_wrong_value_names_key_value_and_what_is_allowed() {
        let sensor = "[[foreign.ble.sensor]]\naddress = \"A4:C1:38:8D:18:B2\"\n";
        for (text, parts) in [
            (
                "[foreign.ble]\nadapter = \"usb 1\"".to_owned(),
                ["foreign.ble.adapter", "usb 1", "hci0"],
            ),
            (
                "[foreign.ble]\nbthome = \"some\"".to_owned(),
                ["foreign.ble.bthome", "some", "listed"],
            ),
            (
                "[[foreign.ble.sensor]]\naddress = \"A4:C1\"".to_owned(),
                ["foreign.ble.sensor.address", "A4:C1", "A4:C1:38"],
            ),
            (
                format!("{sensor}key = {{ file = \"k\" }}"),
                ["A4:C1:38:8D:18:B2.key.file", "k", "absolute"],
            ),
            (
                format!("{sensor}title = \" \""),
                ["A4:C1:38:8D:18:B2.title", " ", "1 to"],
            ),
            (
                format!("{sensor}{sensor}"),
                ["foreign.ble.sensor.address", "A4:C1:38:8D:18:B2", "twice"],
            ),
            (
                format!("[foreign.ble]\nbthome = \"off\"\n{sensor}"),
                ["foreign.ble.bthome", "off", "listed"],
            ),
        ] {
            let message = read(&text).unwrap_err();
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        }
    }
}
