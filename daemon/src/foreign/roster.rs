//! One foreign Thing's place in the registry, and what is said about trouble with it.

use std::collections::BTreeSet;

use autoglm_drivers::link::LinkId;
use autoglm_drivers::port::{self, Command};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::things::binding::Described;
use crate::things::registry::{Attachment, DeviceName, Registry};

/// Different complaints that are remembered as said; then the log has enough of them.
const COMPLAINTS_MAX: usize = 256;

/// A Thing's place in the registry. Its link there is its bus or broker.
#[derive(Debug)]
pub(super) struct Berth {
    device: DeviceName,
    source: LinkId,
    described: Described,
    registry: Registry,
}

impl Berth {
    pub(super) fn new(source: &str, described: Described, registry: Registry) -> Self {
        // No configured device has a slash in its name.
        let device = DeviceName(format!("{source}/{}", described.description.id));
        Self {
            device,
            source: LinkId(source.to_owned()),
            described,
            registry,
        }
    }

    /// The Thing is there: everybody sees it, and its requests come out of the receiver.
    pub(super) async fn attach(&self) -> mpsc::Receiver<Command> {
        let (port, commands) = port::requests();
        let attachment = Attachment {
            device: self.device.clone(),
            link: self.source.clone(),
            description: self.described.description.clone(),
            schemas: self.described.schemas.clone(),
            port,
            // What a foreign device has executed nobody remembers, so each time it comes back it counts as started anew.
            boot_id: rand::random(),
        };
        // A registry that is gone means that the daemon stops; the owner's own cancellation follows.
        let _ = self.registry.attach(attachment).await;
        commands
    }

    /// The Thing is away. Drop the receiver of its requests first.
    pub(super) async fn detach(&self) {
        self.registry.detach(self.device.clone()).await;
    }

    /// Makes the Thing known while it is away, so that a person hears "not connected" and not "unknown".
    pub(super) async fn introduce(&self) {
        drop(self.attach().await);
        self.detach().await;
    }

    pub(super) async fn report(&self, property: String, value: Value) {
        self.registry
            .property_changed(self.device.clone(), property, value)
            .await;
    }

    pub(super) async fn event(&self, name: String, data: Value) {
        self.registry.event(self.device.clone(), name, data).await;
    }
}

/// Says each trouble once, and counts all.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    said: BTreeSet<String>,
    count: u64,
}

impl Complaints {
    /// Trouble with what `about` names. The same about the same is logged once, then at debug level.
    pub(super) fn say(&mut self, about: &str, error: &dyn std::fmt::Display) {
        self.count += 1;
        let said = format!("{about}: {error}");
        if self.said.len() < COMPLAINTS_MAX && self.said.insert(said) {
            tracing::warn!(about, %error, "not usable; said once, counted always");
        } else {
            tracing::debug!(about, %error, "not usable");
        }
    }

    /// How many since the start.
    pub(super) fn count(&self) -> u64 {
        self.count
    }
}
