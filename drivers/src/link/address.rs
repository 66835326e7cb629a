//! Link addresses: URIs, so that they can stand in a config file, a log line and a D-Bus property alike.
//!
//! `serial:///dev/ttyUSB0?baud=115200`, `serial://usb/serial/A50285BI`, `ble:///C0:FF:EE:00:00:01`, `mqtt://broker:1883/autoglm/devices/desk`. This module parses
//! and prints them; what they name is opened by [`super::open`].

use std::fmt;
use std::str::FromStr;

use super::LinkClass;
use crate::ble::BleAddress;
use crate::ble::address::BleAddressError;
use crate::mqtt::{Broker, BrokerError};
use crate::serial::{PlaceError, SerialPlace};

/// Baud rate of a serial link whose address names none: the rate that most boards' bootloaders and
/// the usual USB bridges come up with.
pub const BAUD_DEFAULT: u32 = 115_200;

/// Where a link leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LinkAddress {
    /// A serial line: `serial:///dev/ttyUSB0?baud=115200`, `serial://usb/serial/A50285BI`; see [`crate::serial::place`].
    Serial {
        /// The port.
        place: SerialPlace,
        /// Line speed in baud, 8N1, no flow control.
        baud: u32,
    },
    /// A BLE device: `ble:///C0:FF:EE:00:00:01`, `ble://hci0/name/Lamp`; see [`crate::ble::address`].
    Ble(BleAddress),
    /// A device at a broker: `mqtts://broker:8883/autoglm/devices/desk`.
    Mqtt {
        /// The broker; an address alone says nothing of certificates and logins.
        broker: Broker,
        /// The topic below which the device has `up`, `down` and `presence`.
        topic: String,
    },
}

/// Why a link address was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The part before `:` names no kind of link that exists.
    #[error("`{0}` is no link scheme (known: serial, ble, mqtt, mqtts)")]
    UnknownScheme(String),
    /// The port of a serial address.
    #[error(transparent)]
    Serial(#[from] PlaceError),
    /// An option after `?` that this kind of link does not have.
    #[error(
        "unknown option `{0}` in a serial address (known: baud, and of a USB adapter interface and port)"
    )]
    UnknownOption(String),
    /// A baud rate that is no number or is out of range.
    #[error("baud `{0}` is not a number from 50 to 4000000")]
    Baud(String),
    /// A BLE address.
    #[error(transparent)]
    Ble(#[from] BleAddressError),
    /// The broker's part of an MQTT address.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// An MQTT address without a topic, or with one that cannot be published to.
    #[error(
        "`{0}` is no topic of a device: a topic without `+` and `#` must follow the broker, as in mqtt://broker/autoglm/devices/desk"
    )]
    Topic(String),
}

impl FromStr for LinkAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = text.split_once(':').unwrap_or((text, ""));
        match scheme {
            "serial" => Self::serial(rest),
            "ble" => Ok(Self::Ble(rest.parse()?)),
            "mqtt" | "mqtts" => Self::mqtt(scheme, rest),
            _ => Err(AddressError::UnknownScheme(scheme.to_owned())),
        }
    }
}

impl LinkAddress {
    /// The kind of link that it names.
    #[must_use]
    pub fn class(&self) -> LinkClass {
        match self {
            Self::Serial { .. } => LinkClass::Serial,
            Self::Ble(_) => LinkClass::Ble,
            Self::Mqtt { .. } => LinkClass::Mqtt,
        }
    }

    fn serial(rest: &str) -> Result<Self, AddressError> {
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut place = SerialPlace::parse(path.strip_prefix("//").unwrap_or(path))?;
        let mut baud = BAUD_DEFAULT;
        for option in query.split('&').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("baud", value)) => {
                    baud = value
                        .parse()
                        .ok()
                        .filter(|baud| (50..=4_000_000).contains(baud))
                        .ok_or_else(|| AddressError::Baud(value.to_owned()))?;
                }
                Some((name, value)) if place.option(name, value)? => {}
                _ => return Err(AddressError::UnknownOption(option.to_owned())),
            }
        }
        Ok(Self::Serial { place, baud })
    }

    fn mqtt(scheme: &str, rest: &str) -> Result<Self, AddressError> {
        let place = rest.strip_prefix("//").unwrap_or(rest);
        let (broker, topic) = place.split_once('/').unwrap_or((place, ""));
        let topic = topic.trim_end_matches('/');
        // MQTT 5 §4.7: wildcards, NUL, and `$` at the beginning are not for publishing.
        if topic.is_empty() || topic.contains(['+', '#', '\0', '?']) || topic.starts_with('$') {
            return Err(AddressError::Topic(topic.to_owned()));
        }
        Ok(Self::Mqtt {
            broker: format!("{scheme}://{broker}").parse()?,
            topic: topic.to_owned(),
        })
    }
}

impl fmt::Display for LinkAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serial { place, baud } => {
                write!(out, "serial://{place}?baud={baud}")?;
                let mut options = place.options();
                options.try_for_each(|(name, value)| write!(out, "&{name}={value}"))
            }
            Self::Ble(address) => address.fmt(out),
            Self::Mqtt { broker, topic } => write!(out, "{broker}/{topic}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_printing_and_parsing() {
        for text in [
            "serial:///dev/ttyUSB0?baud=9600",
            "serial:///dev/serial/by-id/usb-x-if00?baud=3000000",
            "serial://usb/serial/A%2050285BI?baud=115200",
            "serial://usb/id/0403:6001?baud=9600&interface=1&port=0",
            "serial://usb/id/0403:6001/serial/A50285BI?baud=9600",
            "ble://hci0/name/Desk%20lamp?mtu=20",
            "mqtt://broker.local:1999/autoglm/devices/desk",
            "mqtt://[::1]:1883/desk",
            "mqtts://broker.local:8883/desk",
        ] {
            let address: LinkAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn a_missing_baud_rate_is_the_default() {
        let address: LinkAddress = "serial:///dev/ttyS1".parse().unwrap();
        assert_eq!(
            address,
            LinkAddress::Serial {
                place: SerialPlace::Path("/dev/ttyS1".into()),
                baud: BAUD_DEFAULT
            }
        );
    }

    #[test]
    fn a_wrong_address_names_its_culprit() {
        let parse = |text: &str| text.parse::<LinkAddress>().unwrap_err().to_string();
        assert!(parse("usb:///dev/x").contains("`usb`"));
        assert!(parse("serial://ttyUSB0").contains("absolute path"));
        assert!(parse("serial://usb/A50285BI").contains("usb/serial/"));
        assert!(parse("serial://usb/id/403:6001").contains("`403:6001`"));
        assert!(parse("serial://usb/serial/").contains("serial number"));
        assert!(parse("serial://usb/serial/A?interface=x").contains("interface `x`"));
        assert!(parse("serial:///dev/x?interface=1").contains("`interface=1`"));
        assert!(parse("serial:///dev/x?speed=1").contains("`speed=1`"));
        assert!(parse("serial:///dev/x?baud=fast").contains("`fast`"));
        assert!(parse("serial:///dev/x?baud=9").contains("`9`"));
        assert!(parse("ble:///lamp").contains("`lamp`"));
        assert!(parse("mqtt://broker").contains("topic"));
        assert!(parse("mqtt://broker/a/+/b").contains("`a/+/b`"));
        assert!(parse("mqtt://broker:0/a").contains("`0`"));
    }
}
