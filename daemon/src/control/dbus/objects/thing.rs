//! `org.openautoglm.Edge1.Thing`: one thing, by the registry's snapshot.
//!
//! Never asks the device: [`super::super::manager`] does, by the router.

use std::collections::HashMap;

use zbus::object_server::SignalEmitter;
use zbus::{OwnedVariant, Variant, interface};

use super::super::value;
use crate::things::description::ThingId;
use crate::things::registry::{Presence, Registry, ThingSnapshot};

/// A thing on the bus.
#[derive(Debug)]
pub(super) struct Thing {
    pub(super) id: ThingId,
    pub(super) registry: Registry,
}

impl Thing {
    fn look<T: Default>(&self, part: impl FnOnce(&ThingSnapshot) -> T) -> T {
        self.registry
            .things()
            .get(&self.id)
            .map(part)
            .unwrap_or_default()
    }
}

#[interface(name = "org.openautoglm.Edge1.Thing")]
impl Thing {
    /// Identifier from its description.
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> String {
        self.id.to_string()
    }

    /// What people call it.
    #[zbus(property)]
    fn title(&self) -> String {
        self.look(|thing| thing.description.title.clone())
    }

    /// Whether it can be reached now.
    #[zbus(property)]
    fn online(&self) -> bool {
        self.look(|thing| matches!(thing.presence, Presence::Online { .. }))
    }

    /// The link that reaches it; empty while none does.
    #[zbus(property)]
    fn link(&self) -> String {
        self.look(link_of)
    }

    /// Its Thing Description, as JSON.
    #[zbus(property)]
    fn description(&self) -> String {
        self.look(|thing| thing.description.document.to_string())
    }

    /// Property values as last reported.
    #[zbus(property)]
    fn values(&self) -> HashMap<String, OwnedVariant> {
        self.look(|thing| {
            let members = thing
                .values
                .iter()
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect();
            value::owned_dictionary(&members)
        })
    }

    /// The device emitted an event.
    #[zbus(signal)]
    pub(super) async fn event(
        emitter: &SignalEmitter<'_>,
        name: &str,
        data: Variant<'_>,
    ) -> zbus::Result<()>;
}

/// The link that reaches it; empty while none does.
pub(super) fn link_of(thing: &ThingSnapshot) -> String {
    match &thing.presence {
        Presence::Online { link, .. } => link.to_string(),
        Presence::Interrupted { .. } | Presence::Offline { .. } => String::new(),
    }
}
