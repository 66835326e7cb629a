//! Inference: quantised models in ONNX Runtime, each on its own thread, behind typed handles.
//!
//! [`Inference::start`] returns at once; ONNX Runtime and the models load in the background, and what is missing or broken
//! is said in the [status](InferenceStatus), keeps the rest working and recovers by itself. Nothing here knows of devices,
//! sessions or doors, and nothing here blocks the async runtime: the handles await, the models' threads compute.
//!
//! Read in this order: [`manifest`] and [`bundle`] (what a model is on disk), [`runtime`] (ONNX Runtime), [`status`],
//! `slot` (a model's thread), then the engines ([`embedder`]). [`probe`] is the proof that a loaded model
//! computes the right thing.

use std::{
    num::NonZeroUsize,
    path::PathBuf,
    sync::{
        Arc, Weak,
        mpsc::{SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::{
    embedder::{EmbedJob, Embedder, EmbedderHandle},
    error::InferenceError,
    manifest::Task,
    slot::{Door, Model, QUEUE, Setup, Slot},
    status::{InferenceStatus, ModelState, ModelStatus, StatusBoard},
};

pub mod bundle;
pub mod embedder;
pub mod error;
pub mod manifest;
pub mod probe;
mod recheck;
pub mod runtime;
mod session;
mod slot;
pub mod status;

/// What to run, and from where.
#[derive(Debug, Clone)]
pub struct InferenceConfig {
    /// ONNX Runtime's library, absolute; `None` looks in [`runtime::standard_places`].
    pub runtime_path: Option<PathBuf>,
    /// Directories that hold bundles, searched in order.
    pub model_dirs: Vec<PathBuf>,
    /// Name of the embedding bundle.
    pub embedding: String,
    /// Threads inside an operator, for each model.
    pub threads: NonZeroUsize,
}

/// The running engine. Dropping it stops everything without waiting; [`stop`](Self::stop) waits.
#[derive(Debug)]
pub struct Inference {
    owner: Arc<Owner>,
    handle: InferenceHandle,
    threads: Vec<(Arc<str>, oneshot::Receiver<()>)>,
}

/// The strong ends. While they live, the models' threads wait for work; dropping them stops the threads.
#[derive(Debug)]
struct Owner {
    _embedder: mpsc::Sender<EmbedJob>,
    wakes: Vec<SyncSender<()>>,
    _stop: DropGuard,
}

/// A cheap, clonable way to everything the engine does. It does not keep the engine alive.
#[derive(Debug, Clone)]
pub struct InferenceHandle {
    embedder: EmbedderHandle,
    board: StatusBoard,
    owner: Weak<Owner>,
}

impl Inference {
    /// Starts one thread per model and returns at once.
    pub fn start(config: InferenceConfig) -> Self {
        let stop = CancellationToken::new();
        let models = [(Task::Embedding, &config.embedding)];
        let board = StatusBoard::new(
            models
                .into_iter()
                .map(|(task, name)| ModelStatus {
                    name: name.as_str().into(),
                    task,
                    state: ModelState::Loading {
                        since: Instant::now(),
                        stage: status::LoadStage::Verify,
                    },
                })
                .collect(),
        );
        let mut launch = Launch {
            config: &config,
            board: &board,
            stop: &stop,
            wakes: Vec::new(),
            threads: Vec::new(),
        };
        let embedder = launch.spawn::<Embedder>(&config.embedding);
        let Launch { wakes, threads, .. } = launch;
        let owner = Arc::new(Owner {
            wakes,
            _embedder: embedder.clone(),
            _stop: stop.drop_guard(),
        });
        let handle = InferenceHandle {
            embedder: EmbedderHandle::new(Door::new(Task::Embedding, &embedder, &board)),
            board,
            owner: Arc::downgrade(&owner),
        };
        Self {
            owner,
            handle,
            threads,
        }
    }

    /// A handle to hand out.
    pub fn handle(&self) -> InferenceHandle {
        self.handle.clone()
    }

    /// Stops taking requests, ends a running answer at its next token, and waits up to `grace` for the threads.
    ///
    /// # Errors
    /// The names of the models whose threads had not ended in time (a graph that is being loaded cannot be interrupted);
    /// they end by themselves when they come to it.
    pub async fn stop(self, grace: Duration) -> Result<(), Vec<Arc<str>>> {
        let Self { owner, threads, .. } = self;
        drop(owner);
        let deadline = tokio::time::Instant::now() + grace;
        let mut stragglers = Vec::new();
        for (name, ended) in threads {
            // The sender is dropped unsent when the thread ends, so an error is the end, too.
            if tokio::time::timeout_at(deadline, ended).await.is_err() {
                stragglers.push(name);
            }
        }
        if stragglers.is_empty() {
            Ok(())
        } else {
            Err(stragglers)
        }
    }
}

impl InferenceHandle {
    /// The embedding model.
    pub fn embedder(&self) -> &EmbedderHandle {
        &self.embedder
    }

    /// Where everything stands, now and at every change.
    pub fn status(&self) -> watch::Receiver<InferenceStatus> {
        self.board.subscribe()
    }

    /// Looks for what is missing now, instead of after the next pause.
    pub fn recheck(&self) {
        if let Some(owner) = self.owner.upgrade() {
            for wake in &owner.wakes {
                // Full means that a look is already due.
                let _ = wake.try_send(());
            }
        }
    }

    /// Waits until the model for `task` serves, at most for `patience`. Cancel safe.
    ///
    /// # Errors
    /// [`InferenceError::WaitTimedOut`] with the state at the end; at once [`InferenceError::NotReady`] for a disabled model,
    /// and [`InferenceError::Stopping`].
    pub async fn wait_ready(&self, task: Task, patience: Duration) -> Result<(), InferenceError> {
        let begun = Instant::now();
        let mut status = self.board.subscribe();
        let settled = status.wait_for(|status| {
            status.model(task).is_none_or(|model| {
                matches!(
                    model.state,
                    ModelState::Ready { .. } | ModelState::Disabled { .. } | ModelState::Stopped
                )
            })
        });
        let waited = timeout(patience, settled).await.map(drop);
        match self.board.state_of(task) {
            ModelState::Ready { .. } => Ok(()),
            ModelState::Stopped => Err(InferenceError::Stopping),
            state if waited.is_ok() => Err(InferenceError::NotReady { task, state }),
            state => Err(InferenceError::timed_out(task, begun.elapsed(), state)),
        }
    }
}

/// Collects what the threads leave behind while they are started.
struct Launch<'a> {
    config: &'a InferenceConfig,
    board: &'a StatusBoard,
    stop: &'a CancellationToken,
    wakes: Vec<SyncSender<()>>,
    threads: Vec<(Arc<str>, oneshot::Receiver<()>)>,
}

impl Launch<'_> {
    fn spawn<M: Model + 'static>(&mut self, name: &str) -> mpsc::Sender<M::Job> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (wake, woken) = sync_channel(1);
        let (ended_guard, ended) = oneshot::channel::<()>();
        let name: Arc<str> = name.into();
        let slot = Slot {
            name: Arc::clone(&name),
            runtime_path: self.config.runtime_path.clone(),
            model_dirs: self.config.model_dirs.clone(),
            setup: Setup {
                threads: self.config.threads,
            },
            board: self.board.clone(),
            stop: self.stop.clone(),
            wake: woken,
        };
        let spawned = thread::Builder::new()
            .name(format!("model-{}", M::TASK))
            .spawn(move || {
                slot.run::<M>(queue);
                drop(ended_guard);
            });
        if let Err(source) = spawned {
            let error = Arc::new(error::LoadError::Thread { source });
            self.board
                .note_model(M::TASK, ModelState::Disabled { error });
        }
        self.wakes.push(wake);
        self.threads.push((name, ended));
        jobs
    }
}
