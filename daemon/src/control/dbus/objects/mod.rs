//! Things, links and models as objects below our root, announced by the ObjectManager.
//!
//! Each object reads its owner's snapshot; none holds state of its own. [`Tree`] is the one place that adds, removes and announces
//! changes, by comparing the snapshots that it has announced with those that are. What each object tells is in [`thing`], [`link`] and [`model`].

mod link;
mod model;
mod thing;

use std::collections::BTreeMap;
use std::sync::Arc;

use autoglm_drivers::link::LinkId;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, OwnedObjectPath};

use self::link::Link;
use self::model::Model;
use self::thing::{Thing, link_of};
use super::manager::Manager;
use super::names::{ROOT, path};
use super::value;
use crate::inference::InferenceHandle;
use crate::inference::adapt::Level;
use crate::inference::status::InferenceStatus;
use crate::link::board::{LinkSnapshot, Links};
use crate::things::registry::{DeviceEvent, Registry, Things};

/// What is announced on one connection to the bus.
#[derive(Debug)]
pub struct Tree {
    connection: Connection,
    registry: Registry,
    links: Links,
    inference: InferenceHandle,
    things_told: Arc<Things>,
    links_told: Arc<BTreeMap<LinkId, LinkSnapshot>>,
    models_told: BTreeMap<Arc<str>, String>,
    strain_told: Option<(Level, String)>,
}

impl Tree {
    /// A tree on which nothing is announced yet.
    #[must_use]
    pub fn new(
        connection: Connection,
        registry: Registry,
        links: Links,
        inference: InferenceHandle,
    ) -> Self {
        Self {
            connection,
            registry,
            links,
            inference,
            things_told: Arc::default(),
            links_told: Arc::default(),
            models_told: BTreeMap::new(),
            strain_told: None,
        }
    }

    /// Brings the objects in line with all snapshots.
    ///
    /// # Errors
    /// When the bus is gone.
    pub async fn follow(&mut self) -> zbus::Result<()> {
        self.follow_things().await?;
        self.follow_links().await?;
        let status = self.inference.status().borrow().clone();
        self.follow_models(&status).await?;
        self.follow_strain().await
    }

    async fn follow_strain(&mut self) -> zbus::Result<()> {
        let adaptation = self.inference.adaptation();
        let now = {
            let adaptation = adaptation.borrow();
            (adaptation.level, adaptation.reason.clone())
        };
        let told = self.strain_told.replace(now.clone());
        // Whoever comes to the bus now reads it.
        if told.is_some_and(|told| told != now) {
            let object = self
                .connection
                .object_server()
                .interface::<_, Manager>(ROOT)
                .await?;
            let manager = object.get().await;
            manager.strain_changed(object.signal_emitter()).await?;
            let emitter = object.signal_emitter();
            manager.strain_reason_changed(emitter).await?;
        }
        Ok(())
    }

    async fn follow_things(&mut self) -> zbus::Result<()> {
        let now = self.registry.things();
        let told = std::mem::replace(&mut self.things_told, Arc::clone(&now));
        for id in told.keys().filter(|id| !now.contains_key(*id)) {
            self.connection
                .object_server()
                .remove::<Thing, _>(path("things", id.as_str()))
                .await?;
        }
        for (id, thing) in now.iter() {
            let path = path("things", id.as_str());
            let Some(before) = told.get(id) else {
                self.add(
                    &path,
                    Thing {
                        id: id.clone(),
                        registry: self.registry.clone(),
                    },
                )
                .await?;
                continue;
            };
            let object = self
                .connection
                .object_server()
                .interface::<_, Thing>(path)
                .await?;
            let (emitter, state) = (object.signal_emitter(), object.get().await);
            if link_of(before) != link_of(thing) {
                state.online_changed(emitter).await?;
                state.link_changed(emitter).await?;
            }
            if before.description != thing.description {
                state.title_changed(emitter).await?;
                state.description_changed(emitter).await?;
            }
            if before.values != thing.values {
                state.values_changed(emitter).await?;
            }
        }
        Ok(())
    }

    async fn follow_links(&mut self) -> zbus::Result<()> {
        let now = Arc::clone(&self.links.borrow());
        let told = std::mem::replace(&mut self.links_told, Arc::clone(&now));
        for (id, link) in now.iter() {
            let path = path("links", &id.0);
            let Some(before) = told.get(id) else {
                self.add(
                    &path,
                    Link {
                        id: id.clone(),
                        links: self.links.clone(),
                    },
                )
                .await?;
                continue;
            };
            if before.state.name() != link.state.name()
                || before.state.cause() != link.state.cause()
            {
                let object = self
                    .connection
                    .object_server()
                    .interface::<_, Link>(path)
                    .await?;
                let state = object.get().await;
                state.state_changed(object.signal_emitter()).await?;
                state.detail_changed(object.signal_emitter()).await?;
            }
        }
        Ok(())
    }

    async fn follow_models(&mut self, status: &InferenceStatus) -> zbus::Result<()> {
        for model in &status.models {
            let path = path("models", &model.name);
            match self
                .models_told
                .insert(Arc::clone(&model.name), model.state.to_string())
            {
                None => {
                    self.add(
                        &path,
                        Model {
                            name: Arc::clone(&model.name),
                            inference: self.inference.clone(),
                        },
                    )
                    .await?;
                }
                Some(before) if before != model.state.to_string() => {
                    let object = self
                        .connection
                        .object_server()
                        .interface::<_, Model>(path)
                        .await?;
                    let state = object.get().await;
                    state.state_changed(object.signal_emitter()).await?;
                    state.detail_changed(object.signal_emitter()).await?;
                    state.provider_changed(object.signal_emitter()).await?;
                    state.device_changed(object.signal_emitter()).await?;
                    state.nodes_placed_changed(object.signal_emitter()).await?;
                    state.nodes_left_changed(object.signal_emitter()).await?;
                    state.time_ratio_changed(object.signal_emitter()).await?;
                    state.refused_changed(object.signal_emitter()).await?;
                    state.bundle_changed(object.signal_emitter()).await?;
                    state.threads_changed(object.signal_emitter()).await?;
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    async fn add<I: zbus::object_server::Interface>(
        &self,
        path: &OwnedObjectPath,
        object: I,
    ) -> zbus::Result<()> {
        self.connection
            .object_server()
            .at(path, object)
            .await
            .map(drop)
    }

    /// Announces a device's event.
    ///
    /// # Errors
    /// When the bus is gone.
    pub async fn announce(&self, event: &DeviceEvent) -> zbus::Result<()> {
        let emitter = SignalEmitter::new(&self.connection, path("things", event.thing.as_str()))?;
        Thing::event(&emitter, &event.name, value::from_json(&event.data)).await
    }
}
