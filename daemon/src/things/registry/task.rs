//! The registry's owner task: applies one change after another, publishes the snapshot, then reports.
//!
//! It waits for nothing but its queue and the receiver of its reports.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use autoglm_drivers::link::LinkId;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Attachment, Change, DeviceEvent, DeviceName, Presence, Report, ThingSnapshot, Things};
use crate::things::description::{ThingDescription, ThingId};
use crate::things::schema::ThingSchemas;

/// The owner task's state.
#[derive(Debug)]
pub struct RegistryTask {
    pub(super) changes: mpsc::Receiver<Change>,
    pub(super) publish: watch::Sender<Arc<Things>>,
    pub(super) events: broadcast::Sender<DeviceEvent>,
    pub(super) reports: Option<mpsc::Sender<Report>>,
    pub(super) by_device: BTreeMap<DeviceName, ThingId>,
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
