//! `org.openautoglm.Edge1.Model`: how one configured model stands, by the engine's status.
//!
//! What is done to models is at the root of the tree ([`super::super::models`]).

use std::sync::Arc;

use zbus::interface;

use crate::inference::InferenceHandle;
use crate::inference::error::LoadError;
use crate::inference::providers::{Choice, Measured, Tried, candidate};
use crate::inference::status::{ModelState, ModelStatus};
use crate::status::model_state;

/// A model on the bus.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) name: Arc<str>,
    pub(super) inference: InferenceHandle,
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
