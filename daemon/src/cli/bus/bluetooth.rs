//! The daemon's Bluetooth: looking around, pairing, forgetting.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Map, Value as Json};
use zbus::{OwnedFd, Variant};

use super::Daemon;
use super::decode::objects;
use crate::cli::failure::Failure;

/// How a device is paired.
#[derive(Debug, Clone, Copy)]
pub struct Pairing<'a> {
    /// By which adapter; any when left out.
    pub adapter: Option<&'a str>,
    /// The six digits, where they are known.
    pub passkey: Option<u32>,
    /// The PIN of an old device.
    pub pin: Option<&'a str>,
    /// A person is there to be asked.
    pub ask: bool,
}

impl Daemon {
    /// Who is heard by Bluetooth: `address`, `adapter`, `services`, `manufacturers`, and where they are known `name` and `rssi-dbm`.
    ///
    /// # Errors
    /// What the daemon said.
    pub async fn bluetooth_scan(
        &self,
        adapter: Option<&str>,
        time: Option<Duration>,
    ) -> Result<Vec<Map<String, Json>>, Failure> {
        let mut options = adapter_option(adapter);
        if let Some(time) = time {
            let millis = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
            options.insert("duration-ms", Variant::from(millis));
        }
        let heard = self.bluetooth.scan(options).await;
        objects(&heard.map_err(|error| self.failure(&error))?)
    }

    /// Pairs with a device; what is asked and told comes on the socket.
    ///
    /// # Errors
    /// What the daemon said.
    pub async fn bluetooth_pair(
        &self,
        address: &str,
        pairing: Pairing<'_>,
    ) -> Result<OwnedFd, Failure> {
        let mut options = adapter_option(pairing.adapter);
        if let Some(passkey) = pairing.passkey {
            options.insert("passkey", Variant::from(passkey));
        }
        if let Some(pin) = pairing.pin {
            options.insert("pin", Variant::from(pin));
        }
        if pairing.ask {
            options.insert("ask", Variant::from(true));
        }
        let socket = self.bluetooth.pair(address, options).await;
        socket.map_err(|error| self.failure(&error))
    }

    /// Forgets a device.
    ///
    /// # Errors
    /// What the daemon said.
    pub async fn bluetooth_forget(
        &self,
        address: &str,
        adapter: Option<&str>,
    ) -> Result<(), Failure> {
        let forgotten = self
            .bluetooth
            .forget(address, adapter_option(adapter))
            .await;
        forgotten.map_err(|error| self.failure(&error))
    }
}

fn adapter_option(adapter: Option<&str>) -> HashMap<&'static str, Variant<'_>> {
    adapter
        .map(|adapter| ("adapter", Variant::from(adapter)))
        .into_iter()
        .collect()
}
