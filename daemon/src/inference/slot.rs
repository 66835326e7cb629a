//! One configured model and the thread that owns it: look for it, load it, serve it, and say at every moment where it stands.
//!
//! The thread is the supervisor of its model. It never gives up: what is missing is looked for again with growing pauses
//! ([`recheck`](super::recheck)), what is broken is tried again when its files change. It ends when the engine is stopped.
//!
//! | channel | from, to | capacity | when full |
//! | --- | --- | --- | --- |
//! | jobs | handles -> model thread | `QUEUE` | refused at once with `Overloaded` |
//! | wake | handles -> model thread | 1 | dropped: one look is enough |

use std::{
    any::Any,
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Instant,
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    bundle::Bundle,
    chat::SnapshotConfig,
    error::{InferenceError, LoadError},
    interrupts::Interrupts,
    manifest::Task,
    memory,
    providers::{Providers, desk::Memory},
    recheck::Recheck,
    runtime::{self, Runtime, RuntimeError},
    search::{Fingerprint, locate},
    status::{LoadStage, ModelState, StatusBoard},
    vocabulary,
};

/// Jobs that may wait for one model. Chosen because a sentence takes some 5 ms to embed and a chat answer about a second: a
/// longer queue would only hold requests whose callers have given up.
pub(super) const QUEUE: usize = 32;

/// What a person can do about a missing bundle.
const BUNDLE_REMEDY: &str =
    "run `make models`, or set inference.model_dirs to where the bundles are";

/// A model of one kind: how it is loaded and how it serves.
pub(super) trait Model: Sized {
    /// One request.
    type Job: Send + 'static;
    /// The task that its bundle must have.
    const TASK: Task;

    /// Loads graph and tokenizer, and runs the probe.
    fn load(
        bundle: &Bundle,
        runtime: &Runtime,
        setup: &Setup,
        on_stage: &dyn Fn(LoadStage),
    ) -> Result<Self, LoadError>;

    /// Serves jobs until the channel closes. Once `stop` is cancelled, jobs are answered with `Stopping`.
    fn serve(self, jobs: &mut mpsc::Receiver<Self::Job>, stop: &CancellationToken);
}

/// What the configuration says about running models.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) threads: NonZeroUsize,
    /// Bound on the chat context in tokens, which bounds the key-value cache.
    pub(super) context_tokens: usize,
    /// Conversations answered at a time.
    pub(super) chat_sessions: NonZeroUsize,
    /// Where long runs enter themselves, to be ended when the engine stops.
    pub(super) interrupts: Interrupts,
    /// Where conversations' caches are kept.
    pub(super) snapshots: Option<SnapshotConfig>,
}

/// Everything that a model's thread needs to know.
pub(super) struct Slot {
    pub(super) name: Arc<str>,
    pub(super) runtime_path: Option<PathBuf>,
    pub(super) model_dirs: Vec<PathBuf>,
    pub(super) setup: Setup,
    pub(super) providers: Arc<Providers>,
    pub(super) board: StatusBoard,
    pub(super) stop: CancellationToken,
    pub(super) wake: Receiver<()>,
}

/// What a bundle, and what could run it, looked like when the bundle was refused.
type Refused = (Fingerprint, Fingerprint, u64);

enum Attempt<M> {
    Serving(M),
    Waiting,
}

impl Slot {
    /// The thread's whole life.
    pub(super) fn run<M: Model>(self, mut jobs: mpsc::Receiver<M::Job>) {
        let mut pauses = Recheck::default();
        loop {
            match catch_unwind(AssertUnwindSafe(|| self.supervise::<M>(&mut jobs))) {
                Ok(()) => break,
                Err(panic) => {
                    let error = Arc::new(LoadError::Panicked {
                        message: panic_message(&*panic),
                    });
                    self.board
                        .note_model(M::TASK, ModelState::Disabled { error });
                }
            }
            // The model went with the panic; a fresh one is loaded after a pause.
            if let Err(RecvTimeoutError::Disconnected) = self.wake.recv_timeout(pauses.next_pause())
            {
                break;
            }
        }
        self.board.note_model(M::TASK, ModelState::Stopped);
    }

    fn supervise<M: Model>(&self, jobs: &mut mpsc::Receiver<M::Job>) {
        let mut recheck = Recheck::default();
        let mut refused = None;
        while !self.stop.is_cancelled() {
            match self.attempt::<M>(&mut refused) {
                Attempt::Serving(model) => return model.serve(jobs, &self.stop),
                Attempt::Waiting => match self.wake.recv_timeout(recheck.next_pause()) {
                    Ok(()) => recheck.reset(),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                },
            }
        }
    }

    /// `refused` holds what things looked like when the bundle was last refused.
    fn attempt<M: Model>(&self, refused: &mut Option<Refused>) -> Attempt<M> {
        let note = |state| self.board.note_model(M::TASK, state);
        let dir = match locate(&self.name, &self.model_dirs) {
            Ok(dir) => dir,
            Err(looked) => {
                note(ModelState::Missing {
                    looked,
                    remedy: BUNDLE_REMEDY,
                });
                return Attempt::Waiting;
            }
        };
        let runtime = match self.load_runtime() {
            Ok(runtime) => runtime,
            Err(error) => {
                note(ModelState::Missing {
                    looked: error.looked(),
                    remedy: runtime::REMEDY,
                });
                return Attempt::Waiting;
            }
        };
        let fingerprint = (
            Fingerprint::of(&dir),
            self.providers.dir_fingerprint(),
            self.providers.round(),
        );
        if refused.as_ref() == Some(&fingerprint) {
            return Attempt::Waiting;
        }
        let since = Instant::now();
        let on_stage = |stage| note(ModelState::Loading { since, stage });
        let load = || {
            on_stage(LoadStage::Verify);
            let bundle = Bundle::open(&dir)?;
            let actual = bundle.manifest().task;
            if actual != M::TASK {
                return Err(LoadError::WrongTask {
                    name: self.name.to_string(),
                    expected: M::TASK,
                    actual,
                });
            }
            // Before anything is read: what does not fit is not even hashed.
            memory::check(&bundle, self.setup.context_tokens)?;
            bundle.verify()?;
            vocabulary::check(&bundle)?;
            on_stage(LoadStage::Provider);
            let threads = self.setup.threads;
            let choice = self
                .providers
                .choose(&bundle, &runtime, threads, Memory::Use)?;
            self.board.note_providers(self.providers.found());
            let runtime = runtime.placed(choice.placement.clone());
            let model = M::load(&bundle, &runtime, &self.setup, &on_stage)?;
            Ok((model, Arc::new(choice)))
        };
        match load() {
            Ok((model, choice)) => {
                note(ModelState::Ready {
                    load_time: since.elapsed(),
                    choice,
                });
                Attempt::Serving(model)
            }
            Err(error) => {
                note(ModelState::Disabled {
                    error: Arc::new(error),
                });
                *refused = Some(fingerprint);
                Attempt::Waiting
            }
        }
    }

    fn load_runtime(&self) -> Result<Runtime, Arc<RuntimeError>> {
        let result = Runtime::load(self.runtime_path.as_deref()).map_err(Arc::new);
        self.board.note_runtime(result.as_ref());
        result
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".into())
}

/// A handle's way to a model's thread. Weak, so that handles that outlive the engine do not keep it alive.
#[derive(Debug)]
pub(super) struct Door<J> {
    task: Task,
    jobs: mpsc::WeakSender<J>,
    board: StatusBoard,
}

// Derived, it would ask for `J: Clone`.
impl<J> Clone for Door<J> {
    fn clone(&self) -> Self {
        Self {
            task: self.task,
            jobs: self.jobs.clone(),
            board: self.board.clone(),
        }
    }
}

impl<J> Door<J> {
    pub(super) fn new(task: Task, jobs: &mpsc::Sender<J>, board: &StatusBoard) -> Self {
        Self {
            task,
            jobs: jobs.downgrade(),
            board: board.clone(),
        }
    }

    /// Hands a job over, or refuses it at once.
    pub(super) fn try_submit(&self, job: J) -> Result<(), InferenceError> {
        let jobs = self.open()?;
        jobs.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => self.overloaded(&jobs),
            mpsc::error::TrySendError::Closed(_) => self.not_ready(),
        })
    }

    /// Hands a job over as soon as there is room: for the later parts of a long piece of work whose first part was accepted.
    pub(super) async fn submit(&self, job: J) -> Result<(), InferenceError> {
        self.open()?.send(job).await.map_err(|_| self.not_ready())
    }

    /// The error for a job whose answer never came.
    pub(super) fn not_ready(&self) -> InferenceError {
        match self.board.state_of(self.task) {
            ModelState::Stopped => InferenceError::Stopping,
            state => InferenceError::NotReady {
                task: self.task,
                state,
            },
        }
    }

    fn overloaded(&self, jobs: &mpsc::Sender<J>) -> InferenceError {
        let capacity = jobs.max_capacity();
        InferenceError::Overloaded {
            task: self.task,
            queued: capacity - jobs.capacity(),
            capacity,
            wait_ms: 0,
        }
    }

    fn open(&self) -> Result<mpsc::Sender<J>, InferenceError> {
        if !self.board.is_ready(self.task) {
            return Err(self.not_ready());
        }
        self.jobs.upgrade().ok_or(InferenceError::Stopping)
    }
}
