//! The registry: the one owner of the Things that this box knows.
//!
//! Its task takes attachments and values from link supervisors and publishes a snapshot after each change; everybody
//! else (router, understanding, D-Bus objects, status) reads snapshots and never asks the owner. Queue full: the
//! supervisor waits, which holds its port and so the device.
//!
//! A Thing that is gone stays known as offline, so that a person hears "not connected" and not "unknown".

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use autoglm_drivers::port::Port;
use serde_json::Value;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::description::{ThingDescription, ThingId};
use super::schema::ThingSchemas;
use autoglm_drivers::link::LinkId;

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

/// The owner task's state.
#[derive(Debug)]
pub struct RegistryTask {
    changes: mpsc::Receiver<Change>,
    publish: watch::Sender<Arc<Things>>,
    events: broadcast::Sender<DeviceEvent>,
    reports: Option<mpsc::Sender<Report>>,
    by_device: BTreeMap<DeviceName, ThingId>,
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

impl RegistryTask {
    /// Reports to `reports` from now on. While that queue is full the registry waits, and so the devices: its receiver must
    /// not wait for anything but a disk.
    #[must_use]
    pub fn reporting_to(self, reports: mpsc::Sender<Report>) -> Self {
        Self {
            reports: Some(reports),
            ..self
        }
    }

    async fn report(&self, report: Report) {
        if let Some(reports) = &self.reports {
            // A receiver that is gone has stopped before us.
            let _ = reports.send(report).await;
        }
    }

    /// Owns the Things until cancelled.
    pub async fn run(mut self, cancel: CancellationToken) {
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                change = self.changes.recv() => match change {
                    Some(change) => self.apply(change).await,
                    None => return,
                },
            }
        }
    }

    async fn apply(&mut self, change: Change) {
        match change {
            Change::Attach(attachment, visible) => {
                let (thing, title) = (
                    attachment.description.id.clone(),
                    attachment.description.title.clone(),
                );
                self.attach(attachment);
                let _ = visible.send(());
                self.report(Report::Presence {
                    thing,
                    title,
                    is_online: true,
                })
                .await;
            }
            Change::Recall(description, schemas) => self.recall(description, schemas),
            Change::Interrupt(device) => self.interrupt(&device),
            Change::Resume(device, link) => self.resume(&device, link),
            Change::Detach(device) => {
                if let Some((thing, title)) = self.detach(&device) {
                    self.report(Report::Presence {
                        thing,
                        title,
                        is_online: false,
                    })
                    .await;
                }
            }
            Change::Property {
                device,
                property,
                value,
            } => {
                let Some(thing) = self.by_device.get(&device).cloned() else {
                    return;
                };
                let is_news = self.publish.send_if_modified(|things| {
                    // An unchanged value is no news, and wakes nobody.
                    let Some(known) = things.get(&thing) else {
                        return false;
                    };
                    if !known.description.properties.contains_key(&property)
                        || known.values.get(&property) == Some(&value)
                    {
                        return false;
                    }
                    if let Some(thing) = Arc::make_mut(things).get_mut(&thing) {
                        thing.values.insert(property.clone(), value.clone());
                    }
                    true
                });
                if is_news {
                    self.report(Report::Value {
                        thing,
                        property,
                        value,
                    })
                    .await;
                }
            }
            Change::Event { device, name, data } => {
                if let Some(thing) = self.by_device.get(&device) {
                    let event = DeviceEvent {
                        thing: thing.clone(),
                        name,
                        data,
                    };
                    // Nobody listening is no fault.
                    let _ = self.events.send(event.clone());
                    self.report(Report::Event(event)).await;
                }
            }
        }
    }

    fn attach(&mut self, attachment: Attachment) {
        let Attachment {
            device,
            link,
            description,
            schemas,
            port,
            boot_id,
        } = attachment;
        let id = description.id.clone();
        if let Some((other, _)) = self
            .by_device
            .iter()
            .find(|(other, thing)| **thing == id && **other != device)
        {
            // The newest wins: a device that was moved to another port is announced there before the old one times out.
            tracing::warn!(thing = %id, from = %other, to = %device, "two configured devices are one thing; the latest is it");
            let other = other.clone();
            self.by_device.remove(&other);
        }
        self.by_device.insert(device, id.clone());
        self.publish.send_modify(|things| {
            let things = Arc::make_mut(things);
            let values = match things.remove(&id) {
                Some(known) if known.description == description => known.values,
                _ => BTreeMap::new(),
            };
            things.insert(
                id,
                ThingSnapshot {
                    description,
                    schemas,
                    presence: Presence::Online {
                        link,
                        port,
                        boot_id,
                    },
                    values,
                },
            );
        });
    }

    fn recall(&mut self, description: Arc<ThingDescription>, schemas: Arc<ThingSchemas>) {
        self.publish.send_if_modified(|things| {
            if things.contains_key(&description.id) {
                return false;
            }
            let snapshot = ThingSnapshot {
                description: Arc::clone(&description),
                schemas,
                // Since when it is away nobody knows; since now nobody was there to know.
                presence: Presence::Offline {
                    since: SystemTime::now(),
                },
                values: BTreeMap::new(),
            };
            Arc::make_mut(things).insert(description.id.clone(), snapshot);
            true
        });
    }

    fn interrupt(&mut self, device: &DeviceName) {
        self.change_presence(device, |presence| match presence {
            Presence::Online { port, boot_id, .. } => Some(Presence::Interrupted {
                port: port.clone(),
                boot_id: *boot_id,
                since: Instant::now(),
            }),
            _ => None,
        });
    }

    fn resume(&mut self, device: &DeviceName, link: LinkId) {
        self.change_presence(device, |presence| match presence {
            Presence::Online { port, boot_id, .. }
            | Presence::Interrupted { port, boot_id, .. } => Some(Presence::Online {
                link,
                port: port.clone(),
                boot_id: *boot_id,
            }),
            Presence::Offline { .. } => None,
        });
    }

    /// The Thing that cannot be reached any more, with its title.
    fn detach(&mut self, device: &DeviceName) -> Option<(ThingId, String)> {
        self.change_presence(device, |_| {
            let since = SystemTime::now();
            Some(Presence::Offline { since })
        });
        let id = self.by_device.remove(device)?;
        let things = self.publish.borrow();
        let title = things.get(&id)?.description.title.clone();
        drop(things);
        Some((id, title))
    }

    fn change_presence(
        &mut self,
        device: &DeviceName,
        change: impl FnOnce(&Presence) -> Option<Presence>,
    ) {
        let Some(id) = self.by_device.get(device) else {
            return;
        };
        self.publish.send_if_modified(|things| {
            let changed = things.get(id).and_then(|thing| change(&thing.presence));
            match (changed, Arc::make_mut(things).get_mut(id)) {
                (Some(presence), Some(thing)) => {
                    thing.presence = presence;
                    true
                }
                _ => false,
            }
        });
    }
}
