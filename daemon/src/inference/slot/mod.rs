//! One configured model: what there is to know about it, and the handles' way to it.
//!
//! [`supervisor`] is the thread that watches over it, [`life`] the thread of each model that is loaded for it.
//!
//! | channel | from, to | capacity | when full |
//! | --- | --- | --- | --- |
//! | jobs | handles -> model thread | see [`jobs`](super::jobs) | refused at once with `Overloaded` |
//! | events | handles, queue -> supervisor | [`EVENTS`] | dropped: it is awake, and looks after each event |
//! | | model threads -> supervisor | the same | they wait: it never waits for them |

use std::{
    fmt,
    num::NonZeroUsize,
    path::PathBuf,
    sync::{
        Arc, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Instant, SystemTime},
};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use self::{life::Report, supervisor::Supervisor};
use super::{
    adapt::{Wish, Wishes},
    budget::Budget,
    bundle::Bundle,
    chat::{ChatCache, Pulse, Snapshots},
    class::Class,
    error::{InferenceError, LoadError, ReloadError, Wait},
    interrupts::Interrupts,
    jobs::{Jobs, NotTaken, Queue},
    manifest::Task,
    providers::Providers,
    runtime::Runtime,
    status::{LoadStage, ModelState, StatusBoard},
};

mod life;
mod supervisor;

/// Events that may wait for a supervisor: a few threads' last words, and who asks.
const EVENTS: usize = 16;

/// Told when the model that was asked for serves, or why it does not.
pub(super) type Asked = oneshot::Sender<Result<(), ReloadError>>;

/// What a supervisor is told.
#[derive(Debug)]
pub(super) enum Event {
    /// Look now.
    Wake,
    /// Load it anew, whether or not something changed.
    Reload(Asked),
    /// Another model needs the room, if this one is idle.
    MakeRoom,
    /// What became of one of its models.
    Of(u64, Report),
}

/// The events of one supervisor.
pub(super) fn events() -> (SyncSender<Event>, Receiver<Event>) {
    sync_channel(EVENTS)
}

/// A model of one kind: how it is loaded and how it serves.
pub(super) trait Model: Sized {
    /// One request.
    type Job: fmt::Debug + Send + 'static;
    /// The task that its bundle must have.
    const TASK: Task;

    /// Loads graph and tokenizer, and runs the probe.
    fn load(
        bundle: &Bundle,
        runtime: &Runtime,
        setup: &Setup,
        on_stage: &dyn Fn(LoadStage),
    ) -> Result<Self, LoadError>;

    /// Serves jobs until no more come. Once `stop` is cancelled, jobs are answered with `Stopping`.
    fn serve(self, jobs: &Jobs<Self::Job>, stop: &CancellationToken);

    /// Tells whoever asked that nobody will serve. By default by dropping the job, where that closes the channel of the answer.
    fn refuse(job: Self::Job, error: InferenceError) {
        drop((job, error));
    }

    /// What else it needs on this box, as seen from outside: where that changes, a model that could not be used is tried again. By
    /// default nothing.
    fn surroundings(setup: &Setup) -> Option<(u64, SystemTime)> {
        let _ = setup;
        None
    }
}

/// What the configuration says about running models.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    /// Threads inside an operator, when nothing is short.
    pub(super) threads: NonZeroUsize,
    /// Bound on the chat context in tokens, which bounds the key-value cache.
    pub(super) context_tokens: usize,
    /// Conversations answered at a time.
    pub(super) chat_sessions: NonZeroUsize,
    /// What the chat model's key-value cache holds, where there is a choice.
    pub(super) chat_cache: ChatCache,
    /// Where long runs enter themselves, to be ended when the engine stops.
    pub(super) interrupts: Interrupts,
    /// The program that makes phonemes.
    pub(super) espeak_ng: PathBuf,
    /// Where conversations' caches are kept.
    pub(super) snapshots: Option<Arc<Snapshots>>,
    /// Where the chat model notes how long its tokens take.
    pub(super) pulse: Arc<Pulse>,
}

/// Everything that the threads of one model need to know.
pub(super) struct Slot {
    pub(super) name: Arc<str>,
    pub(super) runtime_path: Option<PathBuf>,
    pub(super) model_dirs: Vec<PathBuf>,
    pub(super) setup: Setup,
    pub(super) providers: Arc<Providers>,
    pub(super) budget: Arc<Budget>,
    pub(super) board: StatusBoard,
    pub(super) stop: CancellationToken,
    /// To its own supervisor.
    pub(super) events: SyncSender<Event>,
    /// How it is to run now.
    pub(super) wishes: Wishes,
}

impl Slot {
    fn wish(&self) -> Wish {
        let wish = self.wishes.lock();
        wish.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The life of the supervisor's thread.
    pub(super) fn run<M: Model + 'static>(
        self,
        queue: &Arc<Queue<M::Job>>,
        events: &Receiver<Event>,
    ) {
        Supervisor::<M>::new(self, Arc::clone(queue)).run(events);
    }
}

/// A handle's way to a model's thread. It does not keep the engine alive: who stops that closes the queue.
#[derive(Debug)]
pub(super) struct Door<J> {
    task: Task,
    queue: Arc<Queue<J>>,
    board: StatusBoard,
}

// Derived, it would ask for `J: Clone`.
impl<J> Clone for Door<J> {
    fn clone(&self) -> Self {
        Self {
            task: self.task,
            queue: Arc::clone(&self.queue),
            board: self.board.clone(),
        }
    }
}

impl<J> Door<J> {
    pub(super) fn new(task: Task, queue: &Arc<Queue<J>>, board: &StatusBoard) -> Self {
        Self {
            task,
            queue: Arc::clone(queue),
            board: board.clone(),
        }
    }

    /// Hands a job over, or refuses it at once.
    pub(super) fn try_submit(&self, class: Class, job: J) -> Result<(), InferenceError> {
        self.check()?;
        self.queue
            .try_push(class, job, Instant::now())
            .map_err(|refused| match refused {
                NotTaken::Full => self.overloaded(class),
                NotTaken::Closed(_) => self.not_ready(),
            })
    }

    /// Hands a job over as soon as there is room: for the later parts of a long piece of work whose first part was accepted.
    pub(super) async fn submit(&self, class: Class, job: J) -> Result<(), InferenceError> {
        self.check()?;
        match self.queue.push(class, job).await {
            true => Ok(()),
            false => Err(self.not_ready()),
        }
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

    fn overloaded(&self, class: Class) -> InferenceError {
        InferenceError::Overloaded {
            task: self.task,
            class,
            queued: self.queue.queued(class),
            capacity: class.places(),
            wait: Wait::Unknown,
        }
    }

    fn check(&self) -> Result<(), InferenceError> {
        match self.board.takes_requests(self.task) {
            true => Ok(()),
            false => Err(self.not_ready()),
        }
    }
}
