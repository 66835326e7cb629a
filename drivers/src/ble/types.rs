//! What BLE tells its users: advertisements, the state of adapters, and errors by blame.

use std::collections::BTreeMap;
use std::time::Duration;

use uuid::Uuid;

use super::address::{AdapterSelector, DeviceAddress, Target};

/// One advertisement, or a part of one that changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Advertisement {
    /// The adapter that heard it.
    pub adapter: String,
    /// Who sent it.
    pub device: DeviceAddress,
    /// The advertised name, where it is known.
    pub name: Option<String>,
    /// Signal strength in dBm, -127 to 20, where it is known.
    pub rssi_dbm: Option<i16>,
    /// Advertised services; empty where this part does not say.
    pub services: Vec<Uuid>,
    /// Service data by service, without the UUID in front: `0000fcd2-…` holds BTHome.
    pub service_data: BTreeMap<Uuid, Vec<u8>>,
    /// Manufacturer data by company identifier.
    pub manufacturer_data: BTreeMap<u16, Vec<u8>>,
}

/// One adapter, as observers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterStatus {
    /// Its name, as in `hci0`.
    pub name: String,
    /// Its address.
    pub address: DeviceAddress,
    /// Whether it is switched on.
    pub is_on: bool,
    /// Whether it scans.
    pub is_scanning: bool,
    /// Devices that it holds connected.
    pub connected: usize,
}

/// Bluetooth on this machine, as observers see it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RadioStatus {
    /// Whether bluetoothd answers on the system bus.
    pub has_service: bool,
    /// The adapters that are plugged in, by name.
    pub adapters: BTreeMap<String, AdapterStatus>,
}

/// A step on the way to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The connection itself.
    Connect,
    /// Learning the device's services.
    Discover,
    /// Asking for notifications.
    Subscribe,
    /// Pairing.
    Pair,
    /// Removing the device from BlueZ.
    Forget,
    /// Reading a characteristic.
    Read,
    /// Writing one.
    Write,
}

impl std::fmt::Display for Step {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::Connect => "connecting",
            Self::Discover => "learning its services",
            Self::Subscribe => "asking for notifications",
            Self::Pair => "pairing",
            Self::Forget => "forgetting it",
            Self::Read => "reading",
            Self::Write => "writing",
        })
    }
}

/// What a device asks of its pairing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairingWants {
    /// Six digits that it shows.
    Passkey,
    /// The PIN of an old device.
    Pin,
    /// That somebody compares six digits here with those that it shows.
    Comparison,
    /// That somebody types on it six digits that are shown here.
    Typing,
    /// A "yes", with nothing to compare.
    Consent,
}

impl std::fmt::Display for PairingWants {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::Passkey => {
                "it shows a passkey, which must be given, or typed by a person at a terminal"
            }
            Self::Pin => "it has a PIN, which must be given, or typed by a person at a terminal",
            Self::Comparison => {
                "it shows other digits, or digits that a person at a terminal must compare"
            }
            Self::Typing => "digits must be typed on it that only a person at a terminal is shown",
            Self::Consent => "it compares nothing, so a passkey or PIN would be given in vain",
        })
    }
}

/// What a Bluetooth stack said, in its own words.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why a device could not be reached, or an operation on it failed.
#[derive(Debug, thiserror::Error)]
pub enum BleError {
    /// Nobody serves Bluetooth on this machine.
    #[error(
        "no bluetoothd answers on the system bus (is it installed and running? `systemctl status bluetooth`)"
    )]
    NoService,
    /// The adapter is not plugged in.
    #[error("{}", absent(.0))]
    NoAdapter(AdapterSelector),
    /// It is switched off.
    #[error(
        "adapter {adapter} is switched off (`bluetoothctl power on`, or AutoEnable=true in /etc/bluetooth/main.conf)"
    )]
    AdapterOff {
        /// Its name.
        adapter: String,
    },
    /// BlueZ did not give it.
    #[error("adapter {adapter} could not be opened yet; this is tried again")]
    NotOpened {
        /// Its name.
        adapter: String,
    },
    /// It cannot scan at present.
    #[error("adapter {adapter} cannot scan at present; this is tried again")]
    ScanFailed {
        /// Its name.
        adapter: String,
    },
    /// The device does not advertise here.
    #[error("{target} was not heard within {} s (is it on, near, and not connected to somebody else?)", .after.as_secs())]
    NotHeard {
        /// Who was sought.
        target: Target,
        /// For how long, while the adapter could scan.
        after: Duration,
    },
    /// It took too long.
    #[error("{device}: {step} took longer than {} s", .limit.as_secs_f32())]
    TimedOut {
        /// The device.
        device: DeviceAddress,
        /// What took so long.
        step: Step,
        /// How long it may take.
        limit: Duration,
    },
    /// BlueZ is still at an earlier attempt.
    #[error("{device}: BlueZ is busy with an earlier attempt")]
    Busy {
        /// The device.
        device: DeviceAddress,
        /// BlueZ's words.
        #[source]
        source: Source,
    },
    /// The device lacks what should carry packets, also after BlueZ's cache of it was dropped.
    #[error(
        "{device} has no characteristic {characteristic} in service {service} (is it the right device? name others with ?service=, ?write= and ?notify=)"
    )]
    ServiceMissing {
        /// The device.
        device: DeviceAddress,
        /// The service.
        service: Uuid,
        /// What is missing in it.
        characteristic: Uuid,
    },
    /// The device wants to be paired first, or its bond is broken.
    #[error(
        "{device} refuses without pairing, or the pairing is broken on one side (pair it anew)"
    )]
    Authentication {
        /// The device.
        device: DeviceAddress,
        /// BlueZ's words.
        #[source]
        source: Source,
    },
    /// The device asks of its pairing what was not given. It can be tried again.
    #[error("{device} cannot be paired like this: {wants}")]
    PairingWants {
        /// The device.
        device: DeviceAddress,
        /// What it asks.
        wants: PairingWants,
    },
    /// The pairing was refused on one of its two sides. It can be tried again.
    #[error(
        "{device} was not paired: a wrong passkey, or a \"no\" at the device or here (try again)"
    )]
    PairingRefused {
        /// The device.
        device: DeviceAddress,
        /// BlueZ's words.
        #[source]
        source: Source,
    },
    /// Anything else, with BlueZ's words.
    #[error("{device}: {step} failed")]
    Failed {
        /// The device.
        device: DeviceAddress,
        /// The step.
        step: Step,
        /// BlueZ's words.
        #[source]
        source: Source,
    },
    /// Too many wait for this adapter.
    #[error("too many devices wait for adapter {adapter}")]
    QueueFull {
        /// Its name.
        adapter: String,
    },
    /// The device is no longer connected.
    #[error("{device} is not connected any more")]
    NotConnected {
        /// The device.
        device: DeviceAddress,
    },
    /// It went away in the middle of an operation. BlueZ tries to pair by itself with a device that refuses something without, and some
    /// devices end the connection then: nothing tells that from a device that left.
    #[error(
        "{device} ended the connection at {step} (if it does so each time, it wants to be paired first: `autoglmctl bluetooth pair {device}`)"
    )]
    LostMeanwhile {
        /// The device.
        device: DeviceAddress,
        /// What was under way.
        step: Step,
    },
    /// The daemon stops.
    #[error("Bluetooth was shut down")]
    Stopped,
}

fn absent(selector: &AdapterSelector) -> String {
    match selector {
        AdapterSelector::Any => {
            "no Bluetooth adapter is plugged in (`bluetoothctl list` shows those that are)"
                .to_owned()
        }
        selector => format!(
            "Bluetooth adapter {selector} is not plugged in (`bluetoothctl list` shows those that are)"
        ),
    }
}
