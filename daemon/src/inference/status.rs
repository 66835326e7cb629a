//! The snapshot that observers read: where the runtime and each model stand.
//!
//! Written by the models' threads, read through a `watch` by anybody; a reader never asks a model. A change of state is
//! logged here, once, by the owner of the decision.

use std::{
    fmt,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{
    error::{LoadError, chain},
    manifest::Task,
    providers::{Choice, Found},
    runtime::{self, Runtime, RuntimeError},
};

/// Where ONNX Runtime and every configured model stand.
#[derive(Debug, Clone)]
pub struct InferenceStatus {
    /// ONNX Runtime.
    pub runtime: RuntimeState,
    /// One entry per configured model.
    pub models: Vec<ModelStatus>,
    /// Who could run models; empty until a model's policy asks for anybody but the CPU.
    pub providers: Arc<[Found]>,
    /// How often since the start a model came to run on the CPU although another provider was wanted.
    pub fallbacks: u64,
}

impl InferenceStatus {
    /// The model for a task, if one is configured.
    pub fn model(&self, task: Task) -> Option<&ModelStatus> {
        self.models.iter().find(|model| model.task == task)
    }
}

/// Where ONNX Runtime stands.
#[derive(Debug, Clone)]
pub enum RuntimeState {
    /// Nobody has needed it yet.
    Unloaded,
    /// It was not found or could not be loaded; it is tried again.
    Missing {
        /// Why, naming the file.
        error: Arc<RuntimeError>,
        /// What a person can do.
        remedy: &'static str,
    },
    /// Loaded, for as long as the process lives.
    Loaded {
        /// The file.
        path: Arc<Path>,
        /// Its own description of its build.
        build: Arc<str>,
    },
}

impl fmt::Display for RuntimeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unloaded => f.write_str("not loaded"),
            Self::Missing { error, remedy } => {
                write!(f, "missing: {}; {remedy}", chain(error.as_ref()))
            }
            Self::Loaded { path, .. } => write!(f, "loaded from {}", path.display()),
        }
    }
}

/// Where one model stands.
#[derive(Debug, Clone)]
pub struct ModelStatus {
    /// The bundle's name as configured.
    pub name: Arc<str>,
    /// What it is for.
    pub task: Task,
    /// Where it stands.
    pub state: ModelState,
}

/// What serves under a model's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// The bundle's name.
    pub bundle: Arc<str>,
    /// It serves in place of the one configured.
    pub is_instead: bool,
    /// Threads inside an operator.
    pub threads: NonZeroUsize,
}

/// The states of a model. `Missing` and `Disabled` are looked at again by themselves.
#[derive(Debug, Clone)]
pub enum ModelState {
    /// Its bundle, or ONNX Runtime, is not there.
    Missing {
        /// The places that were looked at.
        looked: Vec<PathBuf>,
        /// What a person can do.
        remedy: &'static str,
    },
    /// It is on its way.
    Loading {
        /// When it began.
        since: Instant,
        /// What it is doing.
        stage: LoadStage,
    },
    /// It serves.
    Ready {
        /// How long loading took, from the first byte to the passed probe.
        load_time: Duration,
        /// What it runs on, and who else was wanted.
        choice: Arc<Choice>,
        /// Which bundle it is, and with how many threads.
        running: Running,
        /// Why the bundle that was to take over, as it is on disk now, does not serve.
        unused: Option<Arc<LoadError>>,
    },
    /// It served and will serve again in a moment; requests wait for that.
    Reloading {
        /// When it began.
        since: Instant,
        /// What it is doing.
        stage: LoadStage,
    },
    /// It is not in memory; the next request brings it back, if there is room.
    Unloaded {
        /// Why.
        why: Arc<str>,
    },
    /// It is there and cannot be used; tried again when its files change.
    Disabled {
        /// Why.
        error: Arc<LoadError>,
    },
    /// Inference was stopped.
    Stopped,
}

impl ModelState {
    /// Whether requests are taken.
    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Ready { .. })
    }

    /// The bundle that serves in place of the one configured, if one does.
    pub fn instead(&self) -> Option<&Arc<str>> {
        match self {
            Self::Ready { running, .. } => running.is_instead.then_some(&running.bundle),
            _ => None,
        }
    }

    /// Whether requests are taken, if only to wait.
    pub fn takes_requests(&self) -> bool {
        match self {
            Self::Ready { .. } | Self::Reloading { .. } | Self::Unloaded { .. } => true,
            Self::Missing { .. } | Self::Loading { .. } | Self::Disabled { .. } | Self::Stopped => {
                false
            }
        }
    }
}

impl fmt::Display for ModelState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { looked, remedy } => {
                f.write_str("missing")?;
                for (index, path) in looked.iter().enumerate() {
                    write!(
                        f,
                        "{}{}",
                        if index == 0 { " (looked for " } else { ", " },
                        path.display()
                    )?;
                }
                write!(f, "{}; {remedy}", if looked.is_empty() { "" } else { ")" })
            }
            Self::Loading { stage, .. } => write!(f, "loading ({stage})"),
            Self::Reloading { stage, .. } => write!(f, "reloading ({stage}); requests wait"),
            Self::Unloaded { why } => {
                write!(f, "not in memory: {why}; the next request brings it back")
            }
            Self::Ready {
                load_time,
                choice,
                running,
                unused,
            } => {
                let threads = match running.threads.get() {
                    1 => "1 thread".to_owned(),
                    count => format!("{count} threads"),
                };
                write!(
                    f,
                    "ready on {} after {} ms, {threads}",
                    choice.placement.candidate,
                    load_time.as_millis()
                )?;
                if running.is_instead {
                    write!(f, ", {} in its place", running.bundle)?;
                }
                for tried in &choice.refused {
                    write!(f, "; not on {tried}")?;
                }
                if let Some(error) = unused {
                    let why = chain(error.as_ref());
                    write!(f, "; what was to take over cannot be used: {why}")?;
                }
                Ok(())
            }
            Self::Disabled { error } => write!(f, "disabled: {}", chain(error.as_ref())),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

/// What a loading model is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadStage {
    /// Looking for the bundle and for ONNX Runtime.
    Find,
    /// Comparing the files' digests.
    Verify,
    /// Finding out who can run it.
    Provider,
    /// ONNX Runtime reads and optimises the graph.
    Graph,
    /// The probe runs.
    Probe,
    /// The old one answers what it has begun.
    Drain,
}

impl fmt::Display for LoadStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Find => "looking for files",
            Self::Verify => "checking files",
            Self::Provider => "trying providers",
            Self::Graph => "loading the graph",
            Self::Probe => "running the probe",
            Self::Drain => "the old one ends its answers",
        })
    }
}

/// The writing end of the snapshot.
#[derive(Debug, Clone)]
pub(super) struct StatusBoard {
    shared: Arc<watch::Sender<InferenceStatus>>,
    /// The one model that this view is of, where a task has several.
    only: Option<Arc<str>>,
}

impl StatusBoard {
    pub(super) fn new(models: Vec<ModelStatus>) -> Self {
        Self {
            shared: Arc::new(watch::Sender::new(InferenceStatus {
                runtime: RuntimeState::Unloaded,
                models,
                providers: Arc::default(),
                fallbacks: 0,
            })),
            only: None,
        }
    }

    /// The same board, of which the model `name` alone is read and written.
    pub(super) fn of(&self, name: &str) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            only: Some(name.into()),
        }
    }

    fn is_meant(&self, model: &ModelStatus, task: Task) -> bool {
        let is_it = self.only.as_ref().is_none_or(|only| *only == model.name);
        model.task == task && is_it
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<InferenceStatus> {
        self.shared.subscribe()
    }

    pub(super) fn state_of(&self, task: Task) -> ModelState {
        let status = self.shared.borrow();
        let model = status
            .models
            .iter()
            .find(|model| self.is_meant(model, task));
        model.map_or(ModelState::Stopped, |model| model.state.clone())
    }

    pub(super) fn takes_requests(&self, task: Task) -> bool {
        let status = self.shared.borrow();
        let model = status
            .models
            .iter()
            .find(|model| self.is_meant(model, task));
        model.is_some_and(|model| model.state.takes_requests())
    }

    /// Notes how a load of ONNX Runtime went; logs when that differs from the last time.
    pub(super) fn note_runtime(&self, result: Result<&Runtime, &Arc<RuntimeError>>) {
        let state = match result {
            Ok(runtime) => RuntimeState::Loaded {
                path: runtime.path().into(),
                build: runtime.build().into(),
            },
            Err(error) => RuntimeState::Missing {
                error: Arc::clone(error),
                remedy: runtime::REMEDY,
            },
        };
        self.shared.send_if_modified(|status| {
            if status.runtime.to_string() == state.to_string() {
                return false;
            }
            match &state {
                RuntimeState::Missing { .. } => tracing::error!(state = %state, "ONNX Runtime"),
                _ => tracing::info!(state = %state, "ONNX Runtime"),
            }
            status.runtime = state;
            true
        });
    }

    /// Notes who could run models.
    pub(super) fn note_providers(&self, providers: Vec<Found>) {
        self.shared.send_if_modified(|status| {
            let is_new = *status.providers != *providers;
            if is_new {
                status.providers = providers.into();
            }
            is_new
        });
    }

    /// Notes a model's state; logs when that differs from the last one.
    pub(super) fn note_model(&self, task: Task, state: ModelState) {
        self.shared.send_if_modified(|status| {
            let mut models = status.models.iter_mut();
            let Some(model) = models.find(|model| self.is_meant(model, task)) else {
                return false;
            };
            if model.state.to_string() == state.to_string() {
                return false;
            }
            let (name, from) = (&model.name, &model.state);
            match &state {
                ModelState::Missing { .. } | ModelState::Disabled { .. } => {
                    tracing::error!(model = %name, %task, %from, to = %state, "model");
                }
                ModelState::Loading { .. } => {
                    tracing::debug!(model = %name, %task, %from, to = %state, "model")
                }
                ModelState::Ready { choice, .. } if choice.is_fallback() => {
                    tracing::warn!(model = %name, %task, %from, to = %state, "model on another provider than the one wanted first");
                }
                _ => tracing::info!(model = %name, %task, %from, to = %state, "model"),
            }
            if let ModelState::Ready { choice, .. } = &state
                && choice.is_fallback()
                && choice.placement.candidate.is_cpu()
            {
                status.fallbacks += 1;
            }
            model.state = state;
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_is_noted_again_is_no_change() {
        let board = StatusBoard::new(vec![ModelStatus {
            name: "a-model".into(),
            task: Task::Chat,
            state: ModelState::Stopped,
        }]);
        let mut status = board.subscribe();
        let missing = || ModelState::Missing {
            looked: vec!["/nowhere/model.toml".into()],
            remedy: "fetch it",
        };
        board.note_model(Task::Chat, missing());
        assert!(status.has_changed().unwrap());
        assert_eq!(
            status
                .borrow_and_update()
                .model(Task::Chat)
                .unwrap()
                .state
                .to_string(),
            "missing (looked for /nowhere/model.toml); fetch it"
        );
        board.note_model(Task::Chat, missing());
        board.note_model(Task::Vad, missing());
        assert!(
            !status.has_changed().unwrap(),
            "said once, and never of a model that is not configured"
        );
    }
}
