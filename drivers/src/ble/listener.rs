//! Reads an adapter's event stream, for ever: advertisements go to whoever listens, who was heard and who left to the adapter's
//! task.
//!
//! btleplug's stream begins with a replay of BlueZ's cache and never ends, even when the adapter is gone; dropping it panics in a
//! task of bluez-async. So it is read for the life of the process, and a device of the replay counts as heard only if BlueZ has
//! a signal strength for it, which it drops with the scan that heard it. A name may come after the device ([`nameless`](super::nameless)).

use std::collections::{BTreeMap, HashMap};
use std::mem::ManuallyDrop;
use std::time::{Duration, Instant};

use btleplug::api::{Central as _, CentralEvent, Peripheral as _, PeripheralProperties};
use btleplug::platform::{Adapter, PeripheralId};
use futures_util::StreamExt as _;
use tokio::sync::{broadcast, mpsc};
use uuid::Uuid;

use super::address::DeviceAddress;
use super::bluez::device_of;
use super::nameless::{Nameless, PAUSE};
use super::types::Advertisement;

/// The most that asking BlueZ for a device's properties may take.
const PROPERTIES: Duration = Duration::from_secs(5);
/// Devices whose properties are remembered; above, all are asked for again.
const KNOWN_MAX: usize = 512;
/// BlueZ's word for a signal strength that the controller did not measure (Core 5.4 Vol 4 Part E §7.7.65.2).
const RSSI_UNKNOWN: i16 = 127;

/// What an adapter's task is told.
#[derive(Debug)]
pub(super) enum Heard {
    Advertisement {
        device: DeviceAddress,
        name: Option<String>,
        services: Vec<Uuid>,
    },
    Disconnected(DeviceAddress),
    /// It is connected, and was so before this process was.
    LeftConnected {
        device: DeviceAddress,
        name: Option<String>,
        services: Vec<Uuid>,
    },
}

#[derive(Debug, Clone)]
struct Known {
    name: Option<String>,
    services: Vec<Uuid>,
    /// When BlueZ was asked.
    asked: Instant,
}

/// Reads one stream.
pub(super) struct Listener {
    pub(super) adapter: Adapter,
    pub(super) adapter_name: String,
    /// Full: an advertisement is dropped, since it comes again; a disconnection waits.
    pub(super) heard: mpsc::Sender<Heard>,
    pub(super) advertisements: broadcast::Sender<Advertisement>,
    known: HashMap<DeviceAddress, Known>,
    nameless: Nameless<PeripheralId>,
}

impl Listener {
    pub(super) fn new(
        adapter: Adapter,
        adapter_name: String,
        heard: mpsc::Sender<Heard>,
        advertisements: broadcast::Sender<Advertisement>,
    ) -> Self {
        Self {
            adapter,
            adapter_name,
            heard,
            advertisements,
            known: HashMap::new(),
            nameless: Nameless::default(),
        }
    }

    /// Takes a stream and reads it in a task of its own.
    pub(super) async fn start(mut self) -> btleplug::Result<()> {
        let mut stream = ManuallyDrop::new(self.adapter.events().await?);
        tokio::spawn(async move {
            loop {
                let again = self.nameless.next();
                let wait = async {
                    match again {
                        Some(at) => tokio::time::sleep_until(at.into()).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    event = stream.next() => match event {
                        Some(event) => self.on_event(event).await,
                        None => break,
                    },
                    () = wait => self.ask_again().await,
                }
            }
            tracing::debug!(adapter = %self.adapter_name, "event stream ended");
        });
        Ok(())
    }

    /// Tells of the devices that are connected from before: the daemon was killed, and BlueZ keeps connections.
    pub(super) async fn tell_of_left_connected(&self) {
        let asked = tokio::time::timeout(PROPERTIES, self.adapter.peripherals()).await;
        for peripheral in asked.ok().and_then(Result::ok).unwrap_or_default() {
            let looked = async {
                let is_connected = peripheral.is_connected().await?;
                Ok::<_, btleplug::Error>((is_connected, peripheral.properties().await?))
            };
            let looked = tokio::time::timeout(PROPERTIES, looked).await;
            if let Ok(Ok((true, Some(properties)))) = looked {
                let left = Heard::LeftConnected {
                    device: properties.address,
                    name: properties.advertisement_name,
                    services: properties.services,
                };
                // An error means that the adapter's task has ended.
                let _ = self.heard.send(left).await;
            }
        }
    }

    async fn on_event(&mut self, event: CentralEvent) {
        match event {
            CentralEvent::DeviceDiscovered(id) | CentralEvent::ServicesAdvertisement { id, .. } => {
                if let Some((device, properties)) = self.learn(&id).await {
                    if properties.advertisement_name.is_none() {
                        self.nameless.on_heard(Instant::now(), id);
                    }
                    if properties.rssi.is_some() {
                        self.tell(self.advertisement(device, &properties));
                    }
                }
            }
            CentralEvent::RssiUpdate { id, rssi } => {
                self.tell_of(&id, |part| part.rssi_dbm = known_rssi(Some(rssi)))
                    .await;
            }
            CentralEvent::ManufacturerDataAdvertisement {
                id,
                manufacturer_data,
            } => {
                self.tell_of(&id, |part| {
                    part.manufacturer_data = manufacturer_data.into_iter().collect();
                })
                .await;
            }
            CentralEvent::ServiceDataAdvertisement { id, service_data } => {
                self.tell_of(&id, |part| {
                    part.service_data = service_data.into_iter().collect()
                })
                .await;
            }
            CentralEvent::DeviceDisconnected(id) => self.on_disconnected(&id).await,
            // Connections are believed from the operation that made them, power from org.bluez itself.
            CentralEvent::DeviceConnected(_)
            | CentralEvent::StateUpdate(_)
            | CentralEvent::DeviceUpdated(_)
            | CentralEvent::DeviceServicesModified(_) => {}
        }
    }

    /// Those whose name was not known yet.
    async fn ask_again(&mut self) {
        while let Some((id, asked)) = self.nameless.due(Instant::now()) {
            // `None`: BlueZ does not know it any more.
            let Some((device, properties)) = self.learn(&id).await else {
                continue;
            };
            if properties.advertisement_name.is_none() {
                self.nameless.on_still_nameless(Instant::now(), id, asked);
            } else if properties.rssi.is_some() {
                self.tell(self.advertisement(device, &properties));
            }
        }
    }

    /// The event may be old by now: a device that is connected again is not gone.
    async fn on_disconnected(&mut self, id: &PeripheralId) {
        let Some(device) = device_of(&id.to_string()) else {
            return;
        };
        let asked = async { self.adapter.peripheral(id).await?.is_connected().await };
        let is_back = matches!(tokio::time::timeout(PROPERTIES, asked).await, Ok(Ok(true)));
        if !is_back {
            // What it advertises from now on may be something else.
            self.known.remove(&device);
            // An error means that the adapter's task has ended.
            let _ = self.heard.send(Heard::Disconnected(device)).await;
        }
    }

    async fn tell_of(&mut self, id: &PeripheralId, fill: impl FnOnce(&mut Advertisement)) {
        let Some(device) = device_of(&id.to_string()) else {
            return;
        };
        let is_known = self
            .known
            .get(&device)
            .is_some_and(|known| known.name.is_some() || known.asked.elapsed() < PAUSE);
        if !is_known {
            self.learn(id).await;
        }
        let mut part = self.advertisement(device, &PeripheralProperties::default());
        fill(&mut part);
        self.tell(part);
    }

    /// Asks BlueZ for all that it knows of a device.
    async fn learn(&mut self, id: &PeripheralId) -> Option<(DeviceAddress, PeripheralProperties)> {
        let device = device_of(&id.to_string())?;
        let asked = async { self.adapter.peripheral(id).await?.properties().await };
        let properties = tokio::time::timeout(PROPERTIES, asked).await.ok()?.ok()??;
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        let known = Known {
            name: properties.advertisement_name.clone(),
            services: properties.services.clone(),
            asked: Instant::now(),
        };
        self.known.insert(device, known);
        Some((device, properties))
    }

    fn advertisement(
        &self,
        device: DeviceAddress,
        properties: &PeripheralProperties,
    ) -> Advertisement {
        Advertisement {
            adapter: self.adapter_name.clone(),
            device,
            name: self.known.get(&device).and_then(|known| known.name.clone()),
            rssi_dbm: known_rssi(properties.rssi),
            services: properties.services.clone(),
            service_data: BTreeMap::from_iter(properties.service_data.clone()),
            manufacturer_data: BTreeMap::from_iter(properties.manufacturer_data.clone()),
        }
    }

    fn tell_task(&self, device: DeviceAddress) {
        let known = self.known.get(&device);
        let heard = Heard::Advertisement {
            device,
            name: known.and_then(|known| known.name.clone()),
            services: known
                .map(|known| known.services.clone())
                .unwrap_or_default(),
        };
        // Full: it advertises again.
        let _ = self.heard.try_send(heard);
    }

    fn tell(&self, advertisement: Advertisement) {
        self.tell_task(advertisement.device);
        // Nobody may be listening.
        let _ = self.advertisements.send(advertisement);
    }
}

fn known_rssi(rssi: Option<i16>) -> Option<i16> {
    rssi.filter(|rssi| *rssi != RSSI_UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_strength_that_is_not_known_is_never_a_value() {
        for (said, known) in [
            (Some(RSSI_UNKNOWN), None),
            (None, None),
            (Some(-127), Some(-127)),
            (Some(-50), Some(-50)),
            (Some(20), Some(20)),
        ] {
            assert_eq!(known_rssi(said), known, "{said:?}");
        }
    }
}
