//! The registry: the one owner of the Things that this box knows.
//!
//! Its task takes attachments and values from link supervisors and publishes a snapshot after each change; everybody
//! else (router, understanding, D-Bus objects, status) reads snapshots and never asks the owner. Queue full: the
//! supervisor waits, which holds its port and so the device.
//!
//! A Thing that is gone stays known as offline, so that a person hears "not connected" and not "unknown".

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

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

/// A device that was introduced on a link.
#[derive(Debug, Clone)]
pub struct Attachment {
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
    Detach(LinkId),
    Property {
        link: LinkId,
        property: String,
        value: Value,
    },
    Event {
        link: LinkId,
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
    by_link: BTreeMap<LinkId, ThingId>,
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
            by_link: BTreeMap::new(),
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

    /// A link was lost.
    pub async fn detach(&self, link: LinkId) {
        let _ = self.changes.send(Change::Detach(link)).await;
    }

    /// A device reported a value.
    pub async fn property_changed(&self, link: LinkId, property: String, value: Value) {
        let _ = self
            .changes
            .send(Change::Property {
                link,
                property,
                value,
            })
            .await;
    }

    /// A device emitted an event.
    pub async fn event(&self, link: LinkId, name: String, data: Value) {
        let _ = self.changes.send(Change::Event { link, name, data }).await;
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
            Change::Detach(link) => {
                if let Some((thing, title)) = self.detach(&link) {
                    self.report(Report::Presence {
                        thing,
                        title,
                        is_online: false,
                    })
                    .await;
                }
            }
            Change::Property {
                link,
                property,
                value,
            } => {
                let Some(thing) = self.by_link.get(&link).cloned() else {
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
            Change::Event { link, name, data } => {
                if let Some(thing) = self.by_link.get(&link) {
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
            link,
            description,
            schemas,
            port,
            boot_id,
        } = attachment;
        let id = description.id.clone();
        if let Some((other, _)) = self
            .by_link
            .iter()
            .find(|(other, thing)| **thing == id && **other != link)
        {
            // The newest wins: a device that was moved to another port is announced there before the old one times out.
            tracing::warn!(thing = %id, from = %other, to = %link, "thing moved to another link");
            let other = other.clone();
            self.by_link.remove(&other);
        }
        self.by_link.insert(link.clone(), id.clone());
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

    /// The Thing that cannot be reached any more, with its title.
    fn detach(&mut self, link: &LinkId) -> Option<(ThingId, String)> {
        let id = self.by_link.remove(link)?;
        let mut title = String::new();
        self.publish.send_modify(|things| {
            if let Some(thing) = Arc::make_mut(things).get_mut(&id) {
                thing.presence = Presence::Offline {
                    since: SystemTime::now(),
                };
                title.clone_from(&thing.description.title);
            }
        });
        Some((id, title))
    }
}
