//! What BlueZ's errors mean for a decision. BlueZ says much by the text of one error name, so both are looked at; the texts are
//! those of BlueZ 5.66 (`src/error.c`, `src/shared/att.c`) and were met in the lab.

use std::time::Duration;

use super::address::DeviceAddress;
use super::machine::Fault;
use super::types::{BleError, Source, Step};

/// An operation that failed: what to decide by, and what to tell.
#[derive(Debug)]
pub(super) struct OperationError {
    pub(super) fault: Fault,
    pub(super) error: BleError,
}

/// Sorts an error by its D-Bus name and text.
pub(super) fn sort(name: &str, text: &str) -> Fault {
    let says = |part: &str| {
        text.to_ascii_lowercase()
            .contains(&part.to_ascii_lowercase())
    };
    match name {
        "org.bluez.Error.NotConnected" => Fault::NotConnected,
        // The bearer of attributes is gone, though the device may still count as connected.
        _ if says("Not connected") => Fault::NotConnected,
        "org.bluez.Error.InProgress" => Fault::Busy,
        _ if says("already in progress") || says("Operation already exists") => Fault::Busy,
        "org.bluez.Error.AuthenticationFailed"
        | "org.bluez.Error.AuthenticationCanceled"
        | "org.bluez.Error.AuthenticationRejected"
        | "org.bluez.Error.AuthenticationTimeout"
        | "org.bluez.Error.NotAuthorized" => Fault::Authentication,
        _ if says("Insufficient Authentication")
            || says("Insufficient Encryption")
            || says("Not paired") =>
        {
            Fault::Authentication
        }
        "org.freedesktop.DBus.Error.UnknownObject"
        | "org.freedesktop.DBus.Error.UnknownMethod"
        | "org.freedesktop.DBus.Error.UnknownInterface"
        | "org.bluez.Error.DoesNotExist" => Fault::Unknown,
        "org.freedesktop.DBus.Error.NoReply"
        | "org.freedesktop.DBus.Error.Timeout"
        | "org.freedesktop.DBus.Error.TimedOut" => Fault::TimedOut,
        _ => Fault::Failed,
    }
}

/// The D-Bus name under an error of btleplug, with its text.
fn of_btleplug(error: &btleplug::Error) -> Fault {
    match error {
        btleplug::Error::DeviceNotFound => Fault::Unknown,
        btleplug::Error::TimedOut(_) => Fault::TimedOut,
        btleplug::Error::Other(source) => match source.downcast_ref() {
            Some(bluez_async::BluetoothError::DbusError(error)) => sort(
                error.name().unwrap_or_default(),
                error.message().unwrap_or_default(),
            ),
            // Seen where the device left while its services were being learnt.
            Some(bluez_async::BluetoothError::ServiceDiscoveryTimedOut) => Fault::TimedOut,
            _ => Fault::Failed,
        },
        _ => Fault::Failed,
    }
}

impl OperationError {
    pub(super) fn from_btleplug(device: DeviceAddress, step: Step, error: btleplug::Error) -> Self {
        let fault = of_btleplug(&error);
        Self::new(device, step, fault, Box::new(error))
    }

    pub(super) fn from_zbus(device: DeviceAddress, step: Step, error: zbus::Error) -> Self {
        let fault = match &error {
            zbus::Error::MethodError(name, text, _) => {
                sort(name, text.as_deref().unwrap_or_default())
            }
            zbus::Error::InputOutput(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                Fault::TimedOut
            }
            _ => Fault::Failed,
        };
        Self::new(device, step, fault, Box::new(error))
    }

    pub(super) fn timed_out(device: DeviceAddress, step: Step, limit: Duration) -> Self {
        Self {
            fault: Fault::TimedOut,
            error: BleError::TimedOut {
                device,
                step,
                limit,
            },
        }
    }

    fn new(device: DeviceAddress, step: Step, fault: Fault, source: Source) -> Self {
        let error = match fault {
            Fault::Busy => BleError::Busy { device, source },
            Fault::Authentication => BleError::Authentication { device, source },
            Fault::NotConnected => BleError::NotConnected { device },
            _ => BleError::Failed {
                device,
                step,
                source,
            },
        };
        Self { fault, error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_of_bluez_are_understood() {
        for (name, text, fault) in [
            (
                "org.bluez.Error.Failed",
                "Operation already in progress",
                Fault::Busy,
            ),
            ("org.bluez.Error.InProgress", "In Progress", Fault::Busy),
            (
                "org.bluez.Error.Failed",
                "Insufficient Authentication (0x05)",
                Fault::Authentication,
            ),
            (
                "org.bluez.Error.AuthenticationFailed",
                "Authentication Failed",
                Fault::Authentication,
            ),
            (
                "org.bluez.Error.NotPermitted",
                "Not paired",
                Fault::Authentication,
            ),
            (
                "org.freedesktop.DBus.Error.UnknownObject",
                "",
                Fault::Unknown,
            ),
            (
                "org.bluez.Error.Failed",
                "Not connected",
                Fault::NotConnected,
            ),
            ("org.freedesktop.DBus.Error.NoReply", "", Fault::TimedOut),
            (
                "org.bluez.Error.Failed",
                "le-connection-abort-by-local",
                Fault::Failed,
            ),
        ] {
            assert_eq!(sort(name, text), fault, "{name} {text}");
        }
    }
}
