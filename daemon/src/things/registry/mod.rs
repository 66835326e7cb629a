//! The registry: the one owner of the Things that this box knows.
//!
//! Its task takes attachments and values from link supervisors and publishes a snapshot after each change; everybody
//! else (router, understanding, D-Bus objects, status) reads snapshots and never asks the owner. Queue full: the
//! supervisor waits, which holds its port and so the device.
//!
//! A Thing that is gone stays known as offline, so that a person hears "not connected" and not "unknown".
//!
//! Here is what is known and the handle; [`task`] is the owner.

pub mod task;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use autoglm_drivers::link::LinkId;
use autoglm_drivers::port::Port;
use serde_json::Value;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use self::task::RegistryTask;
use super::description::{ThingDescription, ThingId};
use super::schema::ThingSchemas;

/// Changes waiting for the owner task.
const CHANGES: usize = 128;
/// Device events kept for slow listeners, which then skip the oldest and are told so.
const EVENTS: usize = 64;

/// Name of a device in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceName(pub String);

impl fmt::Display for DeviceName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// A device that was introduced.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// Which device of the configuration.
    pub device: DeviceName,
    /// The link that reaches it.
    pub link: LinkId,
    /// What it says about itself.
    pub description: Arc<ThingDescription>,
    /// Its affordances' schemas, compiled.
    pub schemas: Arc<ThingSchemas>,
    /// The way to it.
    pub port: Port,
    /// Its power-up identity: the same one remembers which requests it has executed.
    pub boot_id: u32,
}

/// Whether a Thing can be reached now.
#[derive(Debug, Clone)]
pub enum Presence {
    /// On this link, by this port.
    Online {
        /// The link.
        link: LinkId,
        /// The way to it.
        port: Port,
        /// The device's power-up identity.
        boot_id: u32,
    },
    /// Its link broke, and its connection is kept: what is asked now waits for the device to return.
    Interrupted {
        /// The way to it, if it returns in time.
        port: Port,
        /// The device's power-up identity.
        boot_id: u32,
        /// Since when.
        since: Instant,
    },
    /// Not now.
    Offline {
        /// Since when.
        since: SystemTime,
    },
}

/// A Thing as it is known now.
#[derive(Debug, Clone)]
pub struct ThingSnapshot {
    /// What it says about itself.
    pub description: Arc<ThingDescription>,
    /// Its affordances' schemas, compiled.
    pub schemas: Arc<ThingSchemas>,
    /// Whether and where it is.
    pub presence: Presence,
    /// Property values as last reported.
    pub values: BTreeMap<String, Value>,
}

/// All Things, by id.
pub type Things = BTreeMap<ThingId, ThingSnapshot>;

/// A device's event.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceEvent {
    /// Who.
    pub thing: ThingId,
    /// Which.
    pub name: String,
    /// Its data.
    pub data: Value,
}

/// What a fleet is told of Things, in the order in which it happened. Unlike snapshots and [`Registry::events`] nothing is left out.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// A device emitted an event.
    Event(DeviceEvent),
    /// A property has a new value.
    Value {
        /// Whose.
        thing: ThingId,
        /// Which.
        property: String,
        /// Its value.
        value: Value,
    },
    /// A Thing came or went.
    Presence {
        /// Which.
        thing: ThingId,
        /// Its title.
        title: String,
        /// Whether it can be reached now.
        is_online: bool,
    },
}

enum Change {
    Attach(Attachment, oneshot::Sender<()>),
    Recall(Arc<ThingDescription>, Arc<ThingSchemas>),
    Interrupt(DeviceName),
    Resume(DeviceName, LinkId),
    Detach(DeviceName),
    Property {
        device: DeviceName,
        property: String,
        value: Value,
    },
    Event {
        device: DeviceName,
        name: String,
        data: Value,
    },
}

/// Handle to the registry. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Registry {
    changes: mpsc::Sender<Change>,
    snapshot: watch::Receiver<Arc<Things>>,
    events: broadcast::Sender<DeviceEvent>,
}

/// Makes a registry: the handle, and the task to run.
#[must_use]
pub fn registry() -> (Registry, RegistryTask) {
    let (changes, queue) = mpsc::channel(CHANGES);
    let (publish, snapshot) = watch::channel(Arc::default());
    let (events, _) = broadcast::channel(EVENTS);
    let handle = Registry {
        changes,
        snapshot,
        events: events.clone(),
    };
    (
        handle,
        RegistryTask {
            changes: queue,
            publish,
            events,
            reports: None,
            by_device: BTreeMap::new(),
        },
    )
}

impl Registry {
    /// The Things as they are now.
    #[must_use]
    pub fn things(&self) -> Arc<Things> {
        Arc::clone(&self.snapshot.borrow())
    }

    /// The Things, to watch.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Things>> {
        self.snapshot.clone()
    }

    /// Device events from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<DeviceEvent> {
        self.events.subscribe()
    }

    /// A device was introduced; returns when everybody can see it. False when the registry has stopped.
    pub async fn attach(&self, attachment: Attachment) -> bool {
        let (visible, is_visible) = oneshot::channel();
        self.changes
            .send(Change::Attach(attachment, visible))
            .await
            .is_ok()
            && is_visible.await.is_ok()
    }

    /// A device was known before the daemon started: its Thing is offline until it comes. One that is known already is left as it is.
    pub async fn recall(&self, description: Arc<ThingDescription>, schemas: Arc<ThingSchemas>) {
        let recall = Change::Recall(description, schemas);
        let _ = self.changes.send(recall).await;
    }

    /// A device's link broke, and its connection is kept.
    pub async fn interrupt(&self, device: DeviceName) {
        let _ = self.changes.send(Change::Interrupt(device)).await;
    }

    /// A device's connection goes on, over this link.
    pub async fn resume(&self, device: DeviceName, link: LinkId) {
        let _ = self.changes.send(Change::Resume(device, link)).await;
    }

    /// A device's connection is over.
    pub async fn detach(&self, device: DeviceName) {
        let _ = self.changes.send(Change::Detach(device)).await;
    }

    /// A device reported a value.
    pub async fn property_changed(&self, device: DeviceName, property: String, value: Value) {
        let _ = self
            .changes
            .send(Change::Property {
                device,
                property,
                value,
            })
            .await;
    }

    /// A device emitted an event.
    pub async fn event(&self, device: DeviceName, name: String, data: Value) {
        let _ = self
            .changes
            .send(Change::Event { device, name, data })
            .await;
    }
}
