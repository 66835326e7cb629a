//! Bluetooth devices that do not speak our protocol: sensors that broadcast, and devices whose characteristics a description names.
//!
//! ```text
//! Radio ── advertisements ─► sensors (one task) ─► bthome (pure) ─► registry
//!   └───── GattClient ─────► device (one task each) ─► gatt (pure) ─► registry
//! ```
//! Who is connected when is the radio's business: one operation at a time on each adapter, and only with who was heard. Here it is
//! decided when a sensor counts as away ([`presence`]), when a device is tried again, and what its bytes are asked for.
//!
//! Never pairs: a device that refuses without pairing says so in its status, with the command that pairs it.

mod counter;
mod device;
mod exchange;
mod presence;
mod sensors;
#[cfg(test)]
mod tests;

use autoglm_drivers::ble::address::{AdapterSelector, Layout, MTU_BYTES_MAX, Target};
use autoglm_drivers::ble::{BleAddress, DeviceAddress, Radio, RadioStatus};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Board;
use crate::config::foreign::{Admission, BleConfig};
use crate::store::StoreHandle;
use crate::things::binding::gatt::GattThing;
use crate::things::registry::Registry;

/// The name of Bluetooth among buses and brokers.
pub(super) const SOURCE: &str = "ble";
/// Sensors whose counter is to start over; a person asks, one at a time.
const FORGOTTEN: usize = 4;

/// What Bluetooth's owners need from the rest.
#[derive(Debug)]
pub(super) struct Around<'a> {
    pub(super) radio: &'a Radio,
    pub(super) store: &'a StoreHandle,
    pub(super) registry: &'a Registry,
    pub(super) board: &'a Board,
}

/// Lets the counter of a sensor start over, as it does with a new battery in some.
#[derive(Debug, Clone)]
pub struct SensorCounters(mpsc::Sender<DeviceAddress>);

impl SensorCounters {
    /// What the sensor sends next counts as new, whatever its counter. Waits while others are being forgotten.
    pub async fn forget(&self, sensor: DeviceAddress) {
        // An owner that is gone means that the daemon stops.
        let _ = self.0.send(sensor).await;
    }
}

/// Starts the owner tasks on `tracker`.
pub(super) fn start(
    config: &BleConfig,
    things: Vec<GattThing>,
    around: &Around<'_>,
    tracker: &TaskTracker,
    cancel: &CancellationToken,
) -> Option<SensorCounters> {
    for thing in things {
        let address = BleAddress {
            adapter: config.adapter.clone(),
            target: Target::Address(DeviceAddress::from(thing.address)),
            layout: Layout::default(),
            mtu_bytes_max: MTU_BYTES_MAX,
        };
        let owner = device::Owner::new(thing, address, around);
        tracker.spawn(owner.run(cancel.clone()));
    }
    if config.admission == Admission::Off {
        return None;
    }
    let (forget, forgotten) = mpsc::channel(FORGOTTEN);
    let owner = sensors::Owner::new(
        config.clone(),
        around.registry.clone(),
        around.store.clone(),
        around.board.clone(),
    );
    let (radio, cancel) = (around.radio.clone(), cancel.clone());
    tracker.spawn(async move {
        let advertisements = radio.advertisements().await;
        owner
            .run(advertisements, radio.status(), forgotten, cancel)
            .await;
    });
    Some(SensorCounters(forget))
}

/// Whether `adapter`, named by the radio, is what the configuration selects.
fn selects(selector: &AdapterSelector, adapter: &str, radio: &RadioStatus) -> bool {
    match selector {
        AdapterSelector::Any => true,
        AdapterSelector::Name(name) => name == adapter,
        AdapterSelector::Address(address) => radio
            .adapters
            .get(adapter)
            .is_some_and(|known| known.address == *address),
    }
}

/// Why nobody can be heard now, if so.
fn deafness(selector: &AdapterSelector, radio: &RadioStatus) -> Option<&'static str> {
    let mut fitting = radio
        .adapters
        .values()
        .filter(|adapter| selects(selector, &adapter.name, radio))
        .peekable();
    if !radio.has_service {
        Some("no bluetoothd answers")
    } else if fitting.peek().is_none() {
        Some("the Bluetooth adapter is not plugged in")
    } else if fitting.all(|adapter| !adapter.is_on) {
        Some("the Bluetooth adapter is switched off")
    } else {
        None
    }
}
