//! The way to everything that the engine does.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};

use super::{
    adapt::Adaptation,
    chat::ChatHandle,
    embedder::EmbedderHandle,
    error::{InferenceError, ProveError, ReloadError},
    examine::{
        Depth, Examined,
        known::{self, Known},
    },
    generic::GenericHandle,
    launch::Owner,
    manifest::Task,
    prover::Prover,
    providers::Choice,
    slot::Event,
    status::{InferenceStatus, ModelState, StatusBoard},
    stt::SttHandle,
    tts::TtsHandle,
    vad::VadHandle,
};

/// A cheap, clonable way to everything the engine does. It does not keep the engine alive.
#[derive(Debug, Clone)]
pub struct InferenceHandle {
    pub(super) embedder: EmbedderHandle,
    pub(super) chat: ChatHandle,
    pub(super) vad: VadHandle,
    pub(super) stt: Option<SttHandle>,
    pub(super) tts: Option<TtsHandle>,
    pub(super) generic: Arc<BTreeMap<String, GenericHandle>>,
    pub(super) board: StatusBoard,
    pub(super) adaptation: watch::Receiver<Adaptation>,
    pub(super) prover: Prover,
    pub(super) owner: Weak<Owner>,
}

impl InferenceHandle {
    /// The embedding model.
    pub fn embedder(&self) -> &EmbedderHandle {
        &self.embedder
    }

    /// The chat model.
    pub fn chat(&self) -> &ChatHandle {
        &self.chat
    }

    /// The voice activity model.
    pub fn vad(&self) -> &VadHandle {
        &self.vad
    }

    /// The speech-to-text model, if the configuration names one.
    pub fn stt(&self) -> Option<&SttHandle> {
        self.stt.as_ref()
    }

    /// The voice, if one is configured.
    pub fn tts(&self) -> Option<&TtsHandle> {
        self.tts.as_ref()
    }

    /// The model of plain tensors of this name, if the configuration names it.
    pub fn generic(&self, name: &str) -> Option<&GenericHandle> {
        self.generic.get(name)
    }

    /// Where everything stands, now and at every change.
    pub fn status(&self) -> watch::Receiver<InferenceStatus> {
        self.board.subscribe()
    }

    /// How the box stands, and what is done about it. Who waits for changes is woken for those of the level, of what is done and of what cannot be
    /// measured; values that sway are found by who looks.
    pub fn adaptation(&self) -> watch::Receiver<Adaptation> {
        self.adaptation.clone()
    }

    /// Looks for what is missing now, instead of after the next pause.
    pub fn recheck(&self) {
        if let Some(owner) = self.owner.upgrade() {
            for (_, wake) in &owner.wakes {
                // Full means that a look is already due.
                let _ = wake.try_send(Event::Wake);
            }
        }
    }

    /// Loads the models of that name, or all, anew from what is on disk now, and returns when they serve. Requests that are under way are
    /// answered by the old ones to their end, new ones by the new ones. Cancel safe: the models are loaded all the same.
    ///
    /// # Errors
    /// [`ReloadError`], of the first that failed; what served goes on serving.
    pub async fn reload(&self, name: Option<&str>) -> Result<Vec<Arc<str>>, ReloadError> {
        let Some(owner) = self.owner.upgrade() else {
            return Err(ReloadError::Stopped);
        };
        let mut waits = Vec::new();
        for (model, wake) in &owner.wakes {
            if name.is_none_or(|name| **model == *name) {
                let (asked, told) = oneshot::channel();
                wake.try_send(Event::Reload(asked))
                    .map_err(|_| ReloadError::Busy)?;
                waits.push((Arc::clone(model), told));
            }
        }
        drop(owner);
        if let (Some(name), true) = (name, waits.is_empty()) {
            return Err(ReloadError::Unknown { name: name.into() });
        }
        let mut loaded = Vec::with_capacity(waits.len());
        for (model, told) in waits {
            told.await.unwrap_or(Err(ReloadError::Stopped))?;
            loaded.push(model);
        }
        Ok(loaded)
    }

    /// Tries again all providers that the configuration wants for the bundle `name`, forgetting what was measured, and returns on
    /// which it would run. A model that was disabled for its providers is looked at again; one that serves elsewhere is loaded anew and
    /// moves. Takes as long as the trials.
    ///
    /// # Errors
    /// [`ProveError`]: no such bundle, no ONNX Runtime, or why the bundle cannot run.
    pub async fn prove(&self, name: &str) -> Result<Choice, ProveError> {
        let (prover, name) = (self.prover.clone(), name.to_owned());
        let choice = tokio::task::spawn_blocking(move || prover.prove(&name)).await;
        self.board.note_providers(self.prover.providers.found());
        self.recheck();
        choice.unwrap_or(Err(ProveError::Stopped))
    }

    /// All bundles in the configured directories. Looks at directories, and reads no large file.
    pub async fn bundles(&self) -> Vec<Known> {
        let dirs = self.prover.model_dirs.clone();
        let listed = tokio::task::spawn_blocking(move || known::list(&dirs)).await;
        listed.unwrap_or_default()
    }

    /// Looks into the bundle `name` in a process of its own, on the provider that it would run on: digests, loading, probe, and its
    /// speed if that is asked for. Takes seconds; the model that serves goes on beside it.
    ///
    /// # Errors
    /// [`ProveError`]: no such bundle, no ONNX Runtime, or what is wrong with the bundle.
    pub async fn examine(&self, name: &str, depth: Depth) -> Result<Examined, ProveError> {
        let (prover, name) = (self.prover.clone(), name.to_owned());
        let examined = tokio::task::spawn_blocking(move || prover.examine(&name, depth)).await;
        examined.unwrap_or(Err(ProveError::Stopped))
    }

    /// The directories that bundles are looked for in, in order.
    pub fn model_dirs(&self) -> &[PathBuf] {
        &self.prover.model_dirs
    }

    /// Waits until the model for `task` takes requests, at most for `patience`. Cancel safe.
    ///
    /// # Errors
    /// [`InferenceError::WaitTimedOut`] with the state at the end; at once [`InferenceError::NotReady`] for a disabled model,
    /// and [`InferenceError::Stopping`].
    pub async fn wait_ready(&self, task: Task, patience: Duration) -> Result<(), InferenceError> {
        let begun = Instant::now();
        let mut status = self.board.subscribe();
        let settled = status.wait_for(|status| {
            status.model(task).is_none_or(|model| {
                model.state.takes_requests()
                    || matches!(
                        model.state,
                        ModelState::Disabled { .. } | ModelState::Stopped
                    )
            })
        });
        let waited = timeout(patience, settled).await.map(drop);
        match self.board.state_of(task) {
            state if state.takes_requests() => Ok(()),
            ModelState::Stopped => Err(InferenceError::Stopping),
            state if waited.is_ok() => Err(InferenceError::NotReady { task, state }),
            state => Err(InferenceError::timed_out(task, begun.elapsed(), state)),
        }
    }
}
