//! Bluetooth for a person at the box: who is heard, pairing, forgetting. The doors call it; links and foreign devices go their own ways.
//!
//! The radio is started by the configuration, or by the first who asks here: on a box that uses no Bluetooth nothing is asked of it.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use autoglm_drivers::ble::address::{AdapterSelector, Layout, MTU_BYTES_MAX, Target};
use autoglm_drivers::ble::{
    Advertisement, BleAddress, BleError, Credential, DeviceAddress, Radio, RadioStatus,
};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::foreign::SensorCounters;

/// Devices that one look around may tell of. Chosen as more than a person reads.
const DEVICES_MAX: usize = 256;
/// How long bluetoothd and an adapter may take to be known after the radio was started.
const PARTS: Duration = Duration::from_secs(3);

/// Handle. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bluetooth {
    radio: Arc<OnceLock<Radio>>,
    tracker: TaskTracker,
    cancel: CancellationToken,
    counters: Option<SensorCounters>,
}

/// A device that was heard.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Heard {
    /// The adapter that heard it best.
    pub adapter: String,
    /// What it calls itself, where it said.
    pub name: Option<String>,
    /// Its strongest signal in dBm, where that is known.
    pub rssi_dbm: Option<i16>,
    /// Services that it advertises, those with data included.
    pub services: Vec<Uuid>,
    /// Companies whose data it advertises.
    pub manufacturers: Vec<u16>,
}

impl Bluetooth {
    /// With the radio, if the configuration started one.
    #[must_use]
    pub fn new(
        radio: Option<Radio>,
        counters: Option<SensorCounters>,
        tracker: TaskTracker,
        cancel: CancellationToken,
    ) -> Self {
        let known = OnceLock::new();
        if let Some(radio) = radio {
            let _ = known.set(radio);
        }
        Self {
            radio: Arc::new(known),
            tracker,
            cancel,
            counters,
        }
    }

    /// The radio, with its parts looked for.
    async fn radio(&self, selector: &AdapterSelector) -> Result<&Radio, BleError> {
        let radio = self
            .radio
            .get_or_init(|| Radio::spawn(&self.tracker, self.cancel.clone()));
        let mut status = radio.status();
        let has_parts = |status: &RadioStatus| missing(status, selector).is_none();
        let found = tokio::time::timeout(PARTS, status.wait_for(has_parts)).await;
        match found {
            Ok(Ok(_)) => Ok(radio),
            Ok(Err(_)) => Err(BleError::Stopped),
            Err(_) => match missing(&radio.status().borrow(), selector) {
                Some(error) => Err(error),
                None => Ok(radio),
            },
        }
    }

    /// Listens for as long as it is told, and says who was heard.
    ///
    /// # Errors
    /// What is missing, with its remedy.
    pub async fn look_around(
        &self,
        selector: &AdapterSelector,
        time: Duration,
    ) -> Result<BTreeMap<DeviceAddress, Heard>, BleError> {
        let radio = self.radio(selector).await?;
        let status = radio.status();
        let mut advertisements = radio.advertisements().await;
        let mut found = BTreeMap::new();
        let listening = async {
            loop {
                match advertisements.recv().await {
                    Ok(heard) => {
                        let is_ours = is_selected(selector, &heard.adapter, &status.borrow());
                        if is_ours {
                            note(&mut found, heard);
                        }
                    }
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        };
        // That the time is over is how it ends.
        let _ = tokio::time::timeout(time, listening).await;
        match missing(&status.borrow(), selector) {
            Some(error) if found.is_empty() => Err(error),
            _ => Ok(found),
        }
    }

    /// Pairs with a device that advertises, and trusts it from then on.
    ///
    /// # Errors
    /// What is missing, or that the device refuses.
    pub async fn pair(
        &self,
        selector: &AdapterSelector,
        device: DeviceAddress,
        credential: Credential,
    ) -> Result<(), BleError> {
        let radio = self.radio(selector).await?;
        radio
            .pair(&address(selector, device), credential)
            .await
            .map(|_| ())
    }

    /// Forgets a device: its bond, its cached services, and where the counter of a sensor stood.
    ///
    /// # Errors
    /// What is missing.
    pub async fn forget(
        &self,
        selector: &AdapterSelector,
        device: DeviceAddress,
    ) -> Result<(), BleError> {
        if let Some(counters) = &self.counters {
            counters.forget(device).await;
        }
        let radio = self.radio(selector).await?;
        radio.forget(&address(selector, device), device).await
    }
}

fn address(selector: &AdapterSelector, device: DeviceAddress) -> BleAddress {
    BleAddress {
        adapter: selector.clone(),
        target: Target::Address(device),
        layout: Layout::default(),
        mtu_bytes_max: MTU_BYTES_MAX,
    }
}

fn is_selected(selector: &AdapterSelector, adapter: &str, status: &RadioStatus) -> bool {
    match selector {
        AdapterSelector::Any => true,
        AdapterSelector::Name(name) => name == adapter,
        AdapterSelector::Address(address) => status
            .adapters
            .get(adapter)
            .is_some_and(|known| known.address == *address),
    }
}

/// What must be there before anybody can be heard, and is not.
fn missing(status: &RadioStatus, selector: &AdapterSelector) -> Option<BleError> {
    let fitting = || {
        let adapters = status.adapters.values();
        adapters.filter(|adapter| is_selected(selector, &adapter.name, status))
    };
    if !status.has_service {
        Some(BleError::NoService)
    } else if let Some(first) = fitting().next() {
        let is_any_on = fitting().any(|adapter| adapter.is_on);
        (!is_any_on).then(|| BleError::AdapterOff {
            adapter: first.name.clone(),
        })
    } else {
        Some(BleError::NoAdapter(selector.clone()))
    }
}

/// An advertisement comes in parts: what one does not say, another did.
fn note(found: &mut BTreeMap<DeviceAddress, Heard>, heard: Advertisement) {
    if found.len() >= DEVICES_MAX && !found.contains_key(&heard.device) {
        return;
    }
    let known = found.entry(heard.device).or_default();
    if heard.rssi_dbm > known.rssi_dbm || known.adapter.is_empty() {
        known.adapter = heard.adapter;
    }
    known.rssi_dbm = known.rssi_dbm.max(heard.rssi_dbm);
    known.name = heard.name.or(known.name.take());
    let services = heard
        .services
        .into_iter()
        .chain(heard.service_data.into_keys());
    for service in services {
        if !known.services.contains(&service) {
            known.services.push(service);
        }
    }
    for company in heard.manufacturer_data.into_keys() {
        if !known.manufacturers.contains(&company) {
            known.manufacturers.push(company);
        }
    }
}

#[cfg(test)]
mod tests {
    use autoglm_drivers::ble::AdapterStatus;

    use super::*;

    fn part(rssi_dbm: Option<i16>, name: Option<&str>, service: Option<u128>) -> Advertisement {
        Advertisement {
            adapter: "hci0".to_owned(),
            device: DeviceAddress::from([1; 6]),
            name: name.map(str::to_owned),
            rssi_dbm,
            services: service.map(Uuid::from_u128).into_iter().collect(),
            service_data: BTreeMap::new(),
            manufacturer_data: BTreeMap::new(),
        }
    }

    #[test]
    fn the_parts_of_an_advertisement_are_put_together() {
        let mut found = BTreeMap::new();
        for part in [
            part(None, None, Some(1)),
            part(Some(-70), Some("Lamp"), None),
            part(Some(-60), None, Some(2)),
            part(None, None, Some(1)),
        ] {
            note(&mut found, part);
        }
        let heard = &found[&DeviceAddress::from([1; 6])];
        assert_eq!(heard.name.as_deref(), Some("Lamp"));
        assert_eq!(heard.rssi_dbm, Some(-60));
        assert_eq!(heard.services, [Uuid::from_u128(1), Uuid::from_u128(2)]);
    }

    #[test]
    fn what_is_missing_is_named_from_the_outside_in() {
        let mut status = RadioStatus::default();
        let said = |status: &RadioStatus| {
            missing(status, &AdapterSelector::Name("hci1".into())).map(|error| error.to_string())
        };
        assert!(said(&status).unwrap().contains("no bluetoothd"));
        status.has_service = true;
        assert!(said(&status).unwrap().contains("hci1 is not plugged in"));
        let adapter = |name: &str, is_on| AdapterStatus {
            name: name.to_owned(),
            address: DeviceAddress::default(),
            is_on,
            is_scanning: false,
            connected: 0,
        };
        status.adapters.insert("hci0".into(), adapter("hci0", true));
        assert!(said(&status).unwrap().contains("hci1 is not plugged in"));
        status
            .adapters
            .insert("hci1".into(), adapter("hci1", false));
        assert!(said(&status).unwrap().contains("hci1 is switched off"));
        status.adapters.insert("hci1".into(), adapter("hci1", true));
        assert_eq!(said(&status), None);
    }
}
