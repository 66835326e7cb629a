//! Addresses of BLE links: `ble://<adapter>/<device>?<options>`.
//!
//! - adapter: empty (any), a name (`hci0`) or a controller's address. Names change with the USB port, addresses do not.
//! - device: an address (`C0:FF:EE:00:00:01`), `name/<advertised name>` or `service/<uuid>`. The two latter suit devices that
//!   change their address for privacy; if several devices fit, the first one heard is taken.
//! - options: `service`, `write`, `notify` (UUIDs, the Nordic UART service's by default), `mtu` (20 to 500).
//!
//! This module parses, prints and compares; it never looks for a device.

use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use uuid::Uuid;

/// A device's or a controller's address.
pub use btleplug::api::BDAddr as DeviceAddress;

/// The most bytes in one packet. BlueZ 5.66 loses writes of 512 to 514 bytes without a word although it reports an ATT MTU of
/// 517, and Bluetooth Core 5.4 Vol 3 Part F §3.2.9 limits a value to 512: chosen below both.
pub const MTU_BYTES_MAX: usize = 500;
/// The least: an ATT MTU of 23 (Core 5.4 Vol 3 Part G §5.2.1) less the three bytes of a write's or notification's header.
pub const MTU_BYTES_MIN: usize = 20;

/// What stands for itself neither in a name nor in an option.
const RESERVED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'&')
    .add(b'/')
    .add(b'<')
    .add(b'>')
    .add(b'?');

/// The service and the two characteristics that carry packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Layout {
    /// The service.
    pub service: Uuid,
    /// Written by us.
    pub write: Uuid,
    /// Notified by the device.
    pub notify: Uuid,
}

impl Layout {
    /// The Nordic UART service, which much existing firmware has.
    pub const NORDIC_UART: Self = Self {
        service: Uuid::from_u128(0x6e400001_b5a3_f393_e0a9_e50e24dcca9e),
        write: Uuid::from_u128(0x6e400002_b5a3_f393_e0a9_e50e24dcca9e),
        notify: Uuid::from_u128(0x6e400003_b5a3_f393_e0a9_e50e24dcca9e),
    };
}

impl Default for Layout {
    fn default() -> Self {
        Self::NORDIC_UART
    }
}

/// Which controller of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AdapterSelector {
    /// Whichever heard the device last.
    Any,
    /// By its name, as in `hci0`.
    Name(String),
    /// By its address.
    Address(DeviceAddress),
}

/// Which device.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// By its address.
    Address(DeviceAddress),
    /// By the name that it advertises.
    Name(String),
    /// By a service that it advertises.
    Service(Uuid),
}

/// Where a BLE link leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BleAddress {
    /// The controller.
    pub adapter: AdapterSelector,
    /// The device.
    pub target: Target,
    /// What carries packets there.
    pub layout: Layout,
    /// The most bytes in one packet, 20 to 500, whatever the device would take.
    pub mtu_bytes_max: usize,
}

/// Why a BLE address was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BleAddressError {
    /// No device after the adapter.
    #[error(
        "a BLE address needs a device, as in ble:///C0:FF:EE:00:00:01, ble:///name/Lamp or ble://hci0/service/<uuid>"
    )]
    NoDevice,
    /// The device part is none of the three forms.
    #[error(
        "`{0}` is no device: give its address (C0:FF:EE:00:00:01), name/<name> or service/<uuid>"
    )]
    Device(String),
    /// The adapter part is neither a name nor an address.
    #[error("`{0}` is no adapter: give its name (hci0) or its address, or nothing for any")]
    Adapter(String),
    /// Something that should be a UUID.
    #[error("`{0}` is no UUID (128 bits, or 16 bits as in 181a)")]
    Uuid(String),
    /// The packet size.
    #[error("mtu `{0}` is not a number from {MTU_BYTES_MIN} to {MTU_BYTES_MAX}")]
    Mtu(String),
    /// An option that BLE links do not have.
    #[error("unknown option `{0}` in a BLE address (known: service, write, notify, mtu)")]
    UnknownOption(String),
}

/// A UUID of 128 bits, or of 16 bits over the Bluetooth base (Core 5.4 Vol 3 Part B §2.5.1).
///
/// # Errors
/// [`BleAddressError::Uuid`].
pub fn parse_uuid(text: &str) -> Result<Uuid, BleAddressError> {
    let short = (text.len() == 4)
        .then(|| u16::from_str_radix(text, 16).ok())
        .flatten();
    match short {
        Some(short) => Ok(btleplug::api::bleuuid::uuid_from_u16(short)),
        None => Uuid::parse_str(text).map_err(|_| BleAddressError::Uuid(text.to_owned())),
    }
}

impl FromStr for BleAddress {
    type Err = BleAddressError;

    fn from_str(text: &str) -> Result<Self, BleAddressError> {
        let rest = text.strip_prefix("ble:").unwrap_or(text);
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let place = place.strip_prefix("//").unwrap_or(place);
        let (adapter, device) = place.split_once('/').ok_or(BleAddressError::NoDevice)?;
        let mut address = Self {
            adapter: parse_adapter(adapter)?,
            target: parse_target(device)?,
            layout: Layout::default(),
            mtu_bytes_max: MTU_BYTES_MAX,
        };
        for option in query.split('&').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("service", value)) => address.layout.service = parse_uuid(value)?,
                Some(("write", value)) => address.layout.write = parse_uuid(value)?,
                Some(("notify", value)) => address.layout.notify = parse_uuid(value)?,
                Some(("mtu", value)) => {
                    address.mtu_bytes_max = value
                        .parse()
                        .ok()
                        .filter(|mtu| (MTU_BYTES_MIN..=MTU_BYTES_MAX).contains(mtu))
                        .ok_or_else(|| BleAddressError::Mtu(value.to_owned()))?;
                }
                _ => return Err(BleAddressError::UnknownOption(option.to_owned())),
            }
        }
        Ok(address)
    }
}

/// An adapter by its name or address; any, where the text is empty.
///
/// # Errors
/// [`BleAddressError::Adapter`].
pub fn parse_adapter(text: &str) -> Result<AdapterSelector, BleAddressError> {
    if text.is_empty() {
        return Ok(AdapterSelector::Any);
    }
    if let Ok(address) = text.parse() {
        return Ok(AdapterSelector::Address(address));
    }
    match text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        true => Ok(AdapterSelector::Name(text.to_owned())),
        false => Err(BleAddressError::Adapter(text.to_owned())),
    }
}

fn parse_target(text: &str) -> Result<Target, BleAddressError> {
    if text.is_empty() {
        return Err(BleAddressError::NoDevice);
    }
    let wrong = || BleAddressError::Device(text.to_owned());
    match text.split_once('/') {
        None => text.parse().map(Target::Address).map_err(|_| wrong()),
        Some(("name", name)) if !name.is_empty() => percent_decode_str(name)
            .decode_utf8()
            .map(|name| Target::Name(name.into_owned()))
            .map_err(|_| wrong()),
        Some(("service", uuid)) => parse_uuid(uuid).map(Target::Service),
        Some(_) => Err(wrong()),
    }
}

impl fmt::Display for AdapterSelector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => Ok(()),
            Self::Name(name) => out.write_str(name),
            Self::Address(address) => address.fmt(out),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(out),
            Self::Name(name) => write!(out, "name/{}", utf8_percent_encode(name, RESERVED)),
            Self::Service(uuid) => write!(out, "service/{uuid}"),
        }
    }
}

impl fmt::Display for BleAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "ble://{}/{}", self.adapter, self.target)?;
        let usual = Layout::default();
        let mut separator = '?';
        for (name, value, usual) in [
            ("service", self.layout.service, usual.service),
            ("write", self.layout.write, usual.write),
            ("notify", self.layout.notify, usual.notify),
        ] {
            if value != usual {
                write!(out, "{separator}{name}={value}")?;
                separator = '&';
            }
        }
        if self.mtu_bytes_max != MTU_BYTES_MAX {
            write!(out, "{separator}mtu={}", self.mtu_bytes_max)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_printing_and_parsing() {
        for text in [
            "ble:///C0:FF:EE:00:00:01",
            "ble://hci0/C0:FF:EE:00:00:01?mtu=20",
            "ble://00:AA:01:00:00:42/name/Lamp%20%2F%20desk%3F",
            "ble:///service/6e400001-b5a3-f393-e0a9-e50e24dcca9e",
            "ble:///C0:FF:EE:00:00:01?service=0000ffe0-0000-1000-8000-00805f9b34fb&mtu=244",
        ] {
            let address: BleAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(address.to_string().parse(), Ok(address));
        }
    }

    #[test]
    fn a_name_may_hold_any_character() {
        let address: BleAddress = "ble:///name/K%C3%BCche%20%25?mtu=100".parse().unwrap();
        assert_eq!(address.target, Target::Name("Küche %".to_owned()));
    }

    #[test]
    fn a_short_uuid_stands_on_the_bluetooth_base() {
        assert_eq!(
            parse_uuid("181a").unwrap().to_string(),
            "0000181a-0000-1000-8000-00805f9b34fb"
        );
    }

    #[test]
    fn a_wrong_address_names_its_culprit() {
        let parse = |text: &str| text.parse::<BleAddress>().unwrap_err().to_string();
        assert!(parse("ble://hci0").contains("needs a device"));
        assert!(parse("ble:///").contains("needs a device"));
        assert!(parse("ble:///lamp").contains("`lamp`"));
        assert!(parse("ble:///name/").contains("`name/`"));
        assert!(parse("ble://hci 0/name/x").contains("`hci 0`"));
        assert!(parse("ble:///service/xyz").contains("`xyz`"));
        assert!(parse("ble:///name/x?mtu=512").contains("`512`"));
        assert!(parse("ble:///name/x?speed=1").contains("`speed=1`"));
    }
}
