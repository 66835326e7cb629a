//! The threads of all models: how they are started, and what ends them.

use std::{
    fmt,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex,
        mpsc::{self, SyncSender},
    },
    thread,
};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{
    InferenceConfig,
    adapt::{self, Wish},
    budget::Budget,
    chat,
    error::LoadError,
    interrupts::Interrupts,
    jobs::Queue,
    manifest::Task,
    providers::Providers,
    slot::{self, Event, Model, Setup, Slot},
    status::{ModelState, StatusBoard},
};

#[derive(Debug)]
pub(super) struct ModelThread {
    pub(super) name: Arc<str>,
    /// Resolves, with an error, when the thread has ended.
    pub(super) ended: oneshot::Receiver<()>,
    pub(super) join: thread::JoinHandle<()>,
}

/// While it lives, the models' threads wait for work; dropping it stops them.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) queues: Vec<Arc<dyn Close>>,
    pub(super) wakes: Vec<(Arc<str>, SyncSender<Event>)>,
    pub(super) interrupts: Interrupts,
    pub(super) stop: CancellationToken,
    /// Its end ends the thread that looks for strain.
    pub(super) _watched: Option<mpsc::Sender<()>>,
}

impl Drop for Owner {
    /// Ends the runs that are under way. The token is cancelled first, so that a thread whose run is ended knows why.
    fn drop(&mut self) {
        self.stop.cancel();
        self.interrupts.terminate_all();
        self.queues.iter().for_each(|queue| queue.close());
        for (_, wake) in &self.wakes {
            // Full means that it is awake, and will see.
            let _ = wake.try_send(Event::Wake);
        }
    }
}

/// The queue of a model, of whatever kind.
pub(super) trait Close: fmt::Debug + Send + Sync {
    fn close(&self);
    fn rest_background(&self, rests: bool);
}

impl<J: fmt::Debug + Send> Close for Queue<J> {
    fn close(&self) {
        Self::close(self);
    }

    fn rest_background(&self, rests: bool) {
        Self::rest_background(self, rests);
    }
}

/// Starts the thread that looks for strain. Without it models serve as well, so that it cannot be started is said and no more.
pub(super) fn watch_over(watch: adapt::watch::Watch) -> Option<(ModelThread, mpsc::Sender<()>)> {
    let (ended_guard, ended) = oneshot::channel::<()>();
    let (watched, stop) = mpsc::channel();
    let spawned = thread::Builder::new()
        .name("watch-strain".to_owned())
        .spawn(move || {
            watch.run(&stop);
            drop(ended_guard);
        });
    match spawned {
        Ok(join) => {
            let name = "strain".into();
            Some((ModelThread { name, ended, join }, watched))
        }
        Err(error) => {
            tracing::error!(%error, "nobody looks for strain");
            None
        }
    }
}

/// Collects what the threads leave behind while they are started.
pub(super) struct Launch<'a> {
    pub(super) config: &'a InferenceConfig,
    pub(super) interrupts: &'a Interrupts,
    pub(super) providers: &'a Arc<Providers>,
    pub(super) board: StatusBoard,
    pub(super) budget: Arc<Budget>,
    pub(super) stop: &'a CancellationToken,
    pub(super) wakes: Vec<(Arc<str>, SyncSender<Event>)>,
    pub(super) model_threads: Vec<ModelThread>,
    pub(super) queues: Vec<Arc<dyn Close>>,
    /// Of these, the ones whose background work rests under strain: not what a new device needs to be understood.
    pub(super) resting: Vec<Arc<dyn Close>>,
    /// That each model has when nothing is short.
    pub(super) threads: NonZeroUsize,
    /// How the chat model is to run.
    pub(super) wishes: adapt::Wishes,
    pub(super) pulse: Arc<chat::Pulse>,
    pub(super) snapshots: Option<Arc<chat::Snapshots>>,
}

impl Launch<'_> {
    pub(super) fn spawn<M: Model + 'static>(&mut self, name: &str) -> Arc<Queue<M::Job>> {
        let (wake, events) = slot::events();
        let queue = Queue::new(wake.clone());
        let served = Arc::clone(&queue);
        let (ended_guard, ended) = oneshot::channel::<()>();
        let name: Arc<str> = name.into();
        let slot = Slot {
            name: Arc::clone(&name),
            runtime_path: self.config.runtime_path.clone(),
            model_dirs: self.config.model_dirs.clone(),
            setup: Setup {
                threads: self.threads,
                context_tokens: self.config.context_tokens,
                chat_sessions: self.config.chat_sessions,
                chat_cache: self.config.chat_cache,
                interrupts: self.interrupts.clone(),
                snapshots: self.snapshots.clone(),
                pulse: Arc::clone(&self.pulse),
                espeak_ng: self.config.espeak_ng.clone(),
            },
            providers: Arc::clone(self.providers),
            budget: Arc::clone(&self.budget),
            board: self.board.clone(),
            stop: self.stop.clone(),
            events: wake.clone(),
            wishes: match M::TASK {
                Task::Chat => Arc::clone(&self.wishes),
                // As it is configured, always.
                _ => Arc::new(Mutex::new(Wish {
                    threads: self.threads,
                    instead: None,
                })),
            },
        };
        let spawned = thread::Builder::new()
            .name(format!("watch-{}", M::TASK))
            .spawn(move || {
                slot.run::<M>(&served, &events);
                drop(ended_guard);
            });
        match spawned {
            Ok(join) => {
                self.wakes.push((Arc::clone(&name), wake));
                self.model_threads.push(ModelThread { name, ended, join });
            }
            Err(source) => {
                let error = Arc::new(LoadError::Thread { source });
                self.board
                    .note_model(M::TASK, ModelState::Disabled { error });
                queue.abandon();
            }
        }
        if matches!(M::TASK, Task::Chat | Task::Generic) {
            self.resting.push(Arc::<Queue<M::Job>>::clone(&queue));
        }
        self.queues.push(Arc::<Queue<M::Job>>::clone(&queue));
        queue
    }
}
