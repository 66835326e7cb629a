//! Devices that do not speak our protocol, kept as Things: when they are asked, when they count as away, who serves their ports.
//!
//! ```text
//! config, *.td.json, discovery messages -> things/binding (pure) -> one task per bus or broker -> registry, like any other device
//! ```
//! Each configured Modbus bus ([`modbus`]) and broker ([`mqtt`]) has one owner task. It serves the [`Port`] of each of its Things, so that the
//! router notices nothing, and attaches and detaches them as they come and go ([`roster`]). Descriptions in files are read by [`files`].
//!
//! Never interprets payloads or registers itself, and opens no socket: that is `things::binding` and `drivers`.
//!
//! [`Port`]: autoglm_drivers::port::Port

pub mod files;
mod modbus;
mod mqtt;
mod roster;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use autoglm_drivers::serial::TtyWatch;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::foreign::ForeignConfig;
use crate::things::registry::Registry;
use files::Bound;

/// How a bus or broker stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceStatus {
    /// `modbus` or `mqtt`.
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

/// Starts the owner tasks on `tracker`. What is wrong with a description in a file is logged, and that file left out.
#[must_use]
pub fn start(
    config: &ForeignConfig,
    box_id: &str,
    ttys: Option<&TtyWatch>,
    registry: &Registry,
    tracker: &TaskTracker,
    cancel: &CancellationToken,
) -> Sources {
    let (publish, sources) = watch::channel(Arc::default());
    let board = Board(publish);
    let (mut on_buses, mut at_brokers) = (
        BTreeMap::<String, Vec<_>>::new(),
        BTreeMap::<String, Vec<_>>::new(),
    );
    for loaded in files::load(config) {
        match loaded {
            Ok(Bound::Modbus(thing)) => on_buses.entry(thing.bus.clone()).or_default().push(thing),
            Ok(Bound::Mqtt(thing)) => at_brokers
                .entry(thing.broker.clone())
                .or_default()
                .push(thing),
            Ok(Bound::Gatt(thing)) => tracing::warn!(
                thing = %thing.described.description.id,
                "a thing is described by GATT forms, which are not served over Bluetooth yet: it is left out"
            ),
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
            ttys.cloned(),
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
    sources
}

/// Waits until `moment`, for ever without one.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
