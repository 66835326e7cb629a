//! Devices that do not speak our protocol, kept as Things: when they are asked, when they count as away, who serves their ports.
//!
//! ```text
//! config, *.td.json, discovery messages -> things/binding (pure) -> one task per bus or broker -> registry, like any other device
//! ```
//! Each configured Modbus bus ([`modbus`]) and broker ([`mqtt`]) has one owner task; of Bluetooth ([`ble`]) there is one for all that
//! broadcast and one for each device that is connected. It serves the [`Port`] of each of its Things, so that the
//! router notices nothing, and attaches and detaches them as they come and go ([`roster`]). Descriptions in files are read by [`files`].
//!
//! Never interprets payloads or registers itself, and opens no socket: that is `things::binding` and `drivers`.
//!
//! [`Port`]: autoglm_drivers::port::Port

mod ble;
pub mod files;
mod modbus;
mod mqtt;
mod roster;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use autoglm_drivers::ble::Radio;
use autoglm_drivers::serial::TtyWatch;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::foreign::ForeignConfig;
use crate::store::StoreHandle;
use crate::things::registry::Registry;
pub use ble::SensorCounters;
use files::Bound;

/// How a bus or broker stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceStatus {
    /// `modbus`, `mqtt`, `bthome` or `gatt`.
    pub kind: &'static str,
    /// Where it is.
    pub address: String,
    /// `starting`, `connected` or `waiting`.
    pub state: &'static str,
    /// Why it waits, or empty.
    pub detail: String,
    /// Things that it knows.
    pub things: usize,
    /// Those of them that are there.
    pub online: usize,
    /// Messages and answers that could not be used, since the start.
    pub errors: u64,
}

/// All buses and brokers by name, to watch.
pub type Sources = watch::Receiver<Arc<BTreeMap<String, SourceStatus>>>;

/// Where owner tasks publish how they stand.
#[derive(Debug, Clone)]
struct Board(watch::Sender<Arc<BTreeMap<String, SourceStatus>>>);

impl Board {
    fn publish(&self, name: &str, status: SourceStatus) {
        self.0.send_if_modified(|all| {
            if all.get(name) == Some(&status) {
                return false;
            }
            Arc::make_mut(all).insert(name.to_owned(), status);
            true
        });
    }
}

/// What foreign devices need from the rest of the daemon.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// Where Things are kept.
    pub registry: &'a Registry,
    /// Where the counters of sensors are kept.
    pub store: &'a StoreHandle,
    /// Bluetooth, where the configuration has it.
    pub radio: Option<&'a Radio>,
    /// Serial ports, where udev tells of them.
    pub ttys: Option<&'a TtyWatch>,
}

/// The owner tasks, as the rest sees them.
#[derive(Debug, Clone)]
pub struct Foreign {
    /// How each bus, broker and Bluetooth device stands.
    pub sources: Sources,
    /// Lets counters of sensors start over, where sensors are listened to.
    pub counters: Option<SensorCounters>,
}

/// Starts the owner tasks on `tracker`. What is wrong with a description in a file is logged, and that file left out.
#[must_use]
pub fn start(
    config: &ForeignConfig,
    box_id: &str,
    around: Surroundings<'_>,
    tracker: &TaskTracker,
    cancel: &CancellationToken,
) -> Foreign {
    let registry = around.registry;
    let (publish, sources) = watch::channel(Arc::default());
    let board = Board(publish);
    let (mut on_buses, mut at_brokers, mut by_radio) = (
        BTreeMap::<String, Vec<_>>::new(),
        BTreeMap::<String, Vec<_>>::new(),
        Vec::new(),
    );
    for loaded in files::load(config) {
        match loaded {
            Ok(Bound::Modbus(thing)) => on_buses.entry(thing.bus.clone()).or_default().push(thing),
            Ok(Bound::Mqtt(thing)) => at_brokers
                .entry(thing.broker.clone())
                .or_default()
                .push(thing),
            Ok(Bound::Gatt(thing)) => by_radio.push(thing),
            Err(error) => {
                tracing::error!(%error, "a thing description cannot be used and is left out")
            }
        }
    }
    for bus in &config.modbus {
        let things = on_buses.remove(&bus.name).unwrap_or_default();
        let owner = modbus::Owner::new(
            bus.clone(),
            things,
            around.ttys.cloned(),
            registry.clone(),
            board.clone(),
        );
        tracker.spawn(owner.run(cancel.clone()));
    }
    for broker in &config.mqtt {
        let things = at_brokers.remove(&broker.name).unwrap_or_default();
        let owner = mqtt::Owner::connect(
            broker.clone(),
            box_id,
            things,
            registry.clone(),
            board.clone(),
            tracker,
            cancel,
        );
        tracker.spawn(owner.run(cancel.clone()));
    }
    let counters = match (&config.ble, around.radio) {
        (Some(config), Some(radio)) => {
            let around = ble::Around {
                radio,
                store: around.store,
                registry,
                board: &board,
            };
            ble::start(config, by_radio, &around, tracker, cancel)
        }
        _ => None,
    };
    Foreign { sources, counters }
}

/// Waits until `moment`, for ever without one.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
