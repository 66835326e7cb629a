//! Things, links and models as objects below our root, announced by the ObjectManager.
//!
//! Each object reads its owner's snapshot; none holds state of its own. [`Tree`] is the one place that adds, removes and announces
//! changes, by comparing the snapshots that it has announced with those that are.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use zbus::object_server::SignalEmitter;
use zbus::{Connection, OwnedObjectPath, OwnedVariant, Variant, interface};

use super::manager::Manager;
use super::names::{ROOT, path};
use super::value;
use crate::inference::InferenceHandle;
use crate::inference::adapt::Level;
use crate::inference::error::LoadError;
use crate::inference::providers::{Choice, Measured, Tried, candidate};
use crate::inference::status::{InferenceStatus, ModelState, ModelStatus};
use crate::link::board::{LinkSnapshot, Links};
use crate::status::model_state;
use crate::things::description::ThingId;
use crate::things::registry::{DeviceEvent, Presence, Registry, ThingSnapshot, Things};
use autoglm_drivers::link::LinkId;

/// A thing on the bus.
#[derive(Debug)]
pub struct Thing {
    id: ThingId,
    registry: Registry,
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
    async fn event(emitter: &SignalEmitter<'_>, name: &str, data: Variant<'_>) -> zbus::Result<()>;
}

fn link_of(thing: &ThingSnapshot) -> String {
    match &thing.presence {
        Presence::Online { link, .. } => link.to_string(),
        Presence::Interrupted { .. } | Presence::Offline { .. } => String::new(),
    }
}

/// A link on the bus.
#[derive(Debug)]
pub struct Link {
    id: LinkId,
    links: Links,
}

impl Link {
    fn look<T: Default>(&self, part: impl FnOnce(&LinkSnapshot) -> T) -> T {
        self.links
            .borrow()
            .get(&self.id)
            .map(part)
            .unwrap_or_default()
    }
}

#[interface(name = "org.openautoglm.Edge1.Link")]
impl Link {
    /// Its device's name in the configuration, and its kind.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> String {
        self.id.to_string()
    }

    /// Name of its device in the configuration.
    #[zbus(property(emits_changed_signal = "const"))]
    fn device(&self) -> String {
        self.look(|link| link.device.clone())
    }

    /// Where it leads, as a URI.
    #[zbus(property(emits_changed_signal = "const"))]
    fn address(&self) -> String {
        self.look(|link| link.address.to_string())
    }

    /// `connected`: it carries the device. `standby`: another does. `connecting`, `reconnecting`, `disconnected`; `refused`: whoever
    /// answers is not authentic, or the key cannot be used.
    #[zbus(property)]
    fn state(&self) -> String {
        self.look(|link| link.state.name().to_owned())
    }

    /// Why it is not connected; empty otherwise.
    #[zbus(property)]
    fn detail(&self) -> String {
        self.look(|link| link.state.cause().unwrap_or_default().to_owned())
    }

    /// `private`: encrypted, and both ends have proved that they have the device's key. `clear`: neither.
    #[zbus(property(emits_changed_signal = "const"))]
    fn security(&self) -> String {
        self.look(|link| link.privacy.name().to_owned())
    }

    /// Smoothed round-trip time in microseconds, when the link was used last; 0 while it is not known.
    #[zbus(property(emits_changed_signal = "false"))]
    fn rtt_us(&self) -> u64 {
        self.look(|link| micros(link.quality.rtt))
    }

    /// Share of packets that had to be sent again, 0 to 1, when the link was used last; -1 while it is not known.
    #[zbus(property(emits_changed_signal = "false"))]
    fn loss(&self) -> f64 {
        self.look(|link| link.quality.loss.unwrap_or(-1.0))
    }

    /// Bytes handed to the link since the daemon started.
    #[zbus(property(emits_changed_signal = "false"))]
    fn bytes_sent(&self) -> u64 {
        self.look(|link| link.quality.bytes_sent)
    }

    /// Bytes taken from the link since the daemon started.
    #[zbus(property(emits_changed_signal = "false"))]
    fn bytes_received(&self) -> u64 {
        self.look(|link| link.quality.bytes_received)
    }
}

fn micros(time: Option<Duration>) -> u64 {
    time.map_or(0, |time| {
        u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
    })
}

/// A model on the bus.
#[derive(Debug)]
pub struct Model {
    name: Arc<str>,
    inference: InferenceHandle,
}

impl Model {
    fn look<T: Default>(&self, part: impl FnOnce(&ModelStatus) -> T) -> T {
        let status = self.inference.status();
        let status = status.borrow();
        status
            .models
            .iter()
            .find(|model| model.name == self.name)
            .map(part)
            .unwrap_or_default()
    }
}

#[interface(name = "org.openautoglm.Edge1.Model")]
impl Model {
    /// The bundle's name.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> String {
        self.name.to_string()
    }

    /// `embedding`, `chat`, `vad`, `stt`, `tts` or `generic`.
    #[zbus(property(emits_changed_signal = "const"))]
    fn task(&self) -> String {
        self.look(|model| model.task.to_string())
    }

    /// `missing`, `loading`, `ready`, `disabled` or `stopped`.
    #[zbus(property)]
    fn state(&self) -> String {
        self.look(|model| model_state(&model.state).to_owned())
    }

    /// The state in words: what it runs on, or what is missing and what to do.
    #[zbus(property)]
    fn detail(&self) -> String {
        self.look(|model| model.state.to_string())
    }

    /// The execution provider that runs it, `CPU` for ONNX Runtime's own; empty while it is not ready.
    #[zbus(property)]
    fn provider(&self) -> String {
        self.look(|model| match choice(model) {
            Some(choice) => candidate::short(&choice.placement.candidate.provider).to_owned(),
            None => String::new(),
        })
    }

    /// The kind of device that runs it: `cpu`, `gpu` or `npu`; empty while it is not ready.
    #[zbus(property)]
    fn device(&self) -> String {
        self.look(|model| match choice(model) {
            Some(choice) => choice.placement.candidate.kind.as_str().to_owned(),
            None => String::new(),
        })
    }

    /// The bundle that serves: the one of this name, or a smaller one in its place while the box is strained; empty while none is ready.
    #[zbus(property)]
    fn bundle(&self) -> String {
        self.look(|model| match &model.state {
            ModelState::Ready { running, .. } => running.bundle.to_string(),
            _ => String::new(),
        })
    }

    /// Threads inside an operator; 0 while it is not ready.
    #[zbus(property)]
    fn threads(&self) -> u32 {
        self.look(|model| match &model.state {
            ModelState::Ready { running, .. } => {
                u32::try_from(running.threads.get()).unwrap_or(u32::MAX)
            }
            _ => 0,
        })
    }

    /// Nodes of the graph on the provider, as ONNX Runtime cut it; 0 on the CPU and while it is not ready.
    #[zbus(property)]
    fn nodes_placed(&self) -> u32 {
        self.look(|model| measured(model).map_or(0, |measured| measured.nodes_placed))
    }

    /// Nodes of the graph that the CPU runs beside the provider; 0 where nothing was measured.
    #[zbus(property)]
    fn nodes_left(&self) -> u32 {
        self.look(|model| measured(model).map_or(0, |measured| measured.nodes_left))
    }

    /// The provider's time for the bundle's probe as a multiple of the CPU's; 0 where nothing was measured.
    #[zbus(property)]
    fn time_ratio(&self) -> f64 {
        self.look(|model| measured(model).map_or(0.0, Measured::time_ratio))
    }

    /// Who was wanted before what runs it, and why not: provider, kind of device, verdict (`partial`, `wrong`, `failed`, `elsewhere`,
    /// `slower`, `absent`, `not-allowed`), the verdict in words.
    #[zbus(property)]
    fn refused(&self) -> Vec<(String, String, String, String)> {
        self.look(|model| {
            let told = |tried: &Tried| {
                let provider = match tried.provider.is_empty() {
                    true => tried.who.clone(),
                    false => candidate::short(&tried.provider).to_owned(),
                };
                let verdict = &tried.verdict;
                (
                    provider,
                    tried.device.to_owned(),
                    verdict.name().to_owned(),
                    verdict.to_string(),
                )
            };
            refused(model).iter().map(told).collect()
        })
    }
}

fn choice(model: &ModelStatus) -> Option<&Choice> {
    match &model.state {
        ModelState::Ready { choice, .. } => Some(choice),
        _ => None,
    }
}

fn measured(model: &ModelStatus) -> Option<&Measured> {
    choice(model)?.measured.as_ref()
}

fn refused(model: &ModelStatus) -> &[Tried] {
    match &model.state {
        ModelState::Ready { choice, .. } => &choice.refused,
        ModelState::Disabled { error } => match error.as_ref() {
            LoadError::NoProvider { tried, .. } => tried,
            _ => &[],
        },
        _ => &[],
    }
}

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
