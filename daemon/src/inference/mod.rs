//! Inference: quantised models in ONNX Runtime, each on its own thread, behind typed handles.
//!
//! [`Inference::start`] returns at once; ONNX Runtime and the models load in the background, and what is missing or broken
//! is said in the [status](InferenceStatus), keeps the rest working and recovers by itself. Nothing here knows of devices,
//! sessions or doors, and nothing here blocks the async runtime: the handles await, the models' threads compute.
//!
//! Read in this order: [`manifest`] and [`bundle`] (what a model is on disk), [`runtime`] (ONNX Runtime), [`providers`] (what it runs on),
//! [`status`], [`threads`], [`class`] and `jobs` (whose request goes first), `slot` (a model's thread), then the engines [`embedder`], [`chat`],
//! [`vad`], [`stt`], [`tts`] and [`generic`], [`adapt`] (less is done under strain), and [`upstream`] (conversations that are answered elsewhere). [`probe`] is the proof that a loaded model
//! computes the right thing, [`examine`] what a person asks about a bundle.

use std::{
    collections::BTreeMap,
    fmt,
    num::NonZeroUsize,
    path::PathBuf,
    sync::{
        Arc, Mutex, Weak,
        mpsc::{self, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use self::{
    adapt::{AdaptConfig, Adaptation, Wish},
    budget::{Budget, MemoryLimits},
    chat::{Chat, ChatHandle, SnapshotConfig},
    embedder::{Embedder, EmbedderHandle},
    error::{InferenceError, LoadError, ProveError, ReloadError},
    examine::{Depth, Examined, Known},
    generic::{Generic, GenericHandle},
    interrupts::Interrupts,
    jobs::Queue,
    manifest::Task,
    prover::Prover,
    providers::{Choice, Providers, ProvidersConfig},
    slot::{Door, Event, Model, Setup, Slot},
    status::{InferenceStatus, LoadStage, ModelState, ModelStatus, StatusBoard},
    stt::{Stt, SttHandle},
    threads::Threads,
    tts::{Tts, TtsHandle},
    vad::{Vad, VadHandle},
};

pub mod adapt;
mod admission;
pub mod arrays;
pub mod budget;
pub mod bundle;
pub mod chat;
pub mod class;
pub mod embedder;
pub mod error;
pub mod examine;
pub mod generic;
mod interrupts;
mod jobs;
pub mod manifest;
mod memory;
pub mod probe;
mod prover;
pub mod providers;
mod recheck;
pub mod runtime;
pub mod search;
mod session;
mod slot;
pub mod status;
pub mod stt;
pub mod threads;
pub mod tts;
pub mod upstream;
pub mod vad;
mod vocabulary;

/// What to run, and from where.
#[derive(Debug, Clone)]
pub struct InferenceConfig {
    /// ONNX Runtime's library, absolute; `None` looks in [`runtime::standard_places`].
    pub runtime_path: Option<PathBuf>,
    /// Directories that hold bundles, searched in order; see [`search::standard_dirs`].
    pub model_dirs: Vec<PathBuf>,
    /// Name of the embedding bundle.
    pub embedding: String,
    /// Name of the chat bundle.
    pub chat: String,
    /// Name of the voice activity bundle.
    pub vad: String,
    /// Name of the speech-to-text bundle; `None` has no thread.
    pub stt: Option<String>,
    /// Name of the bundle that speaks; `None` has no thread.
    pub tts: Option<String>,
    /// The program that makes phonemes of text, absolute; see [`config::ESPEAK_NG`](crate::config::ESPEAK_NG).
    pub espeak_ng: PathBuf,
    /// Names of the bundles that take and give plain tensors; each has a thread of its own.
    pub generic: Vec<String>,
    /// Longest chat context in tokens; a model's own limit holds, too. The key-value cache of the default model takes 46 kB
    /// per token, as the conversation grows.
    pub context_tokens: usize,
    /// Conversations that are answered at a time.
    pub chat_sessions: NonZeroUsize,
    /// Threads inside an operator, for each model.
    pub threads: Threads,
    /// Where conversations' caches outlive the process; `None` keeps them in memory alone.
    pub snapshots: Option<SnapshotConfig>,
    /// What models run on.
    pub providers: ProvidersConfig,
    /// How much memory they may take together.
    pub memory: MemoryLimits,
    /// What is done under strain; `None` for nothing.
    pub adapt: Option<AdaptConfig>,
}

/// The running engine. [`stop`](Self::stop) ends it with a grace period. Dropping it ends it, too, and blocks until the threads
/// have gone, a second at most: a process that ends while a thread is inside ONNX Runtime crashes in the library's destructors.
#[derive(Debug)]
pub struct Inference {
    owner: Option<Arc<Owner>>,
    handle: InferenceHandle,
    threads: Vec<ModelThread>,
}

#[derive(Debug)]
struct ModelThread {
    name: Arc<str>,
    /// Resolves, with an error, when the thread has ended.
    ended: oneshot::Receiver<()>,
    join: thread::JoinHandle<()>,
}

/// While it lives, the models' threads wait for work; dropping it stops them.
#[derive(Debug)]
struct Owner {
    queues: Vec<Arc<dyn Close>>,
    wakes: Vec<(Arc<str>, SyncSender<Event>)>,
    interrupts: Interrupts,
    stop: CancellationToken,
    /// Its end ends the thread that looks for strain.
    _watched: Option<mpsc::Sender<()>>,
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
trait Close: fmt::Debug + Send + Sync {
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

/// A cheap, clonable way to everything the engine does. It does not keep the engine alive.
#[derive(Debug, Clone)]
pub struct InferenceHandle {
    embedder: EmbedderHandle,
    chat: ChatHandle,
    vad: VadHandle,
    stt: Option<SttHandle>,
    tts: Option<TtsHandle>,
    generic: Arc<BTreeMap<String, GenericHandle>>,
    board: StatusBoard,
    adaptation: watch::Receiver<Adaptation>,
    prover: Prover,
    owner: Weak<Owner>,
}

impl Inference {
    /// Starts one thread per model and returns at once.
    pub fn start(config: InferenceConfig) -> Self {
        let stop = CancellationToken::new();
        let providers = Arc::new(Providers::new(config.providers.clone(), stop.clone()));
        let models = [
            (Task::Embedding, &config.embedding),
            (Task::Chat, &config.chat),
            (Task::Vad, &config.vad),
        ];
        let stt = config.stt.iter().map(|name| (Task::Stt, name));
        let tts = config.tts.iter().map(|name| (Task::Tts, name));
        let generic = config.generic.iter().map(|name| (Task::Generic, name));
        let board = StatusBoard::new(
            models
                .into_iter()
                .chain(stt)
                .chain(tts)
                .chain(generic)
                .map(|(task, name)| ModelStatus {
                    name: name.as_str().into(),
                    task,
                    state: ModelState::Loading {
                        since: Instant::now(),
                        stage: LoadStage::Find,
                    },
                })
                .collect(),
        );
        let interrupts = Interrupts::default();
        let rest = adapt::watch::at_rest(config.threads, config.adapt.is_some());
        if let Some(asked) = rest.threads_asked
            && asked > rest.threads_lent
        {
            tracing::warn!(%asked, lent = %rest.threads_lent, "more threads are configured than processors are lent to this process; models get what is lent");
        }
        let wishes = Arc::new(Mutex::new(rest.wish.clone()));
        let mut launch = Launch {
            threads: rest.wish.threads,
            wishes: Arc::clone(&wishes),
            config: &config,
            interrupts: &interrupts,
            providers: &providers,
            board: board.clone(),
            budget: Budget::new(config.memory),
            stop: &stop,
            wakes: Vec::new(),
            model_threads: Vec::new(),
            queues: Vec::new(),
            resting: Vec::new(),
            pulse: Arc::default(),
            snapshots: config
                .snapshots
                .clone()
                .map(chat::Snapshots::new)
                .map(Arc::new),
        };
        let embedder = launch.spawn::<Embedder>(&config.embedding);
        let chat = launch.spawn::<Chat>(&config.chat);
        let vad = launch.spawn::<Vad>(&config.vad);
        let stt = config.stt.as_ref().map(|name| launch.spawn::<Stt>(name));
        let tts = config.tts.as_ref().map(|name| launch.spawn::<Tts>(name));
        let mut generic = BTreeMap::new();
        for name in &config.generic {
            launch.board = board.of(name);
            let jobs = launch.spawn::<Generic>(name);
            let door = Door::new(Task::Generic, &jobs, &launch.board);
            generic.insert(name.clone(), GenericHandle::new(door));
        }
        let Launch {
            wakes,
            model_threads: mut threads,
            queues,
            resting,
            pulse,
            ..
        } = launch;
        let embedder_handle = EmbedderHandle::new(Door::new(Task::Embedding, &embedder, &board));
        let chat_handle = ChatHandle::new(
            Door::new(Task::Chat, &chat, &board),
            config.chat_sessions,
            pulse,
        );
        let vad_handle = VadHandle::new(Door::new(Task::Vad, &vad, &board));
        let prover_threads = rest.wish.threads;
        let (told, adaptation) = watch::channel(rest);
        let chat_wake = wakes.iter().find(|(name, _)| **name == *config.chat);
        let watched = config.adapt.zip(chat_wake).and_then(|(adapt, (_, wake))| {
            watch_over(adapt::watch::Watch {
                config: adapt,
                threads: config.threads,
                chat: chat_handle.clone(),
                wishes,
                wake: wake.clone(),
                resting,
                board: Arc::new(told),
            })
        });
        let watched = watched.map(|(thread, watched)| {
            threads.push(thread);
            watched
        });
        let stt_handle = stt.map(|jobs| SttHandle::new(Door::new(Task::Stt, &jobs, &board)));
        let tts_handle = tts.map(|jobs| TtsHandle::new(Door::new(Task::Tts, &jobs, &board)));
        let owner = Arc::new(Owner {
            queues,
            wakes,
            interrupts,
            stop,
            _watched: watched,
        });
        let handle = InferenceHandle {
            embedder: embedder_handle,
            chat: chat_handle,
            vad: vad_handle,
            stt: stt_handle,
            tts: tts_handle,
            generic: Arc::new(generic),
            board,
            adaptation,
            prover: Prover {
                providers,
                runtime_path: config.runtime_path,
                model_dirs: config.model_dirs,
                threads: prover_threads,
                context_tokens: config.context_tokens,
                espeak_ng: config.espeak_ng,
            },
            owner: Arc::downgrade(&owner),
        };
        Self {
            owner: Some(owner),
            handle,
            threads,
        }
    }

    /// A handle to hand out.
    pub fn handle(&self) -> InferenceHandle {
        self.handle.clone()
    }

    /// Stops taking requests, ends running answers at once, and waits up to `grace` for the threads.
    ///
    /// # Errors
    /// The names of the models whose threads had not ended in time (a graph that is being loaded cannot be interrupted);
    /// they end by themselves when they come to it.
    pub async fn stop(mut self, grace: Duration) -> Result<(), Vec<Arc<str>>> {
        self.owner = None;
        let deadline = tokio::time::Instant::now() + grace;
        let mut stragglers = Vec::new();
        for ModelThread { name, ended, join } in self.threads.drain(..) {
            if tokio::time::timeout_at(deadline, ended).await.is_err() {
                stragglers.push(name);
            } else {
                // It has nothing left to do but return, and `Slot::run` caught any panic.
                let _ = join.join();
            }
        }
        if stragglers.is_empty() {
            Ok(())
        } else {
            Err(stragglers)
        }
    }
}

impl Drop for Inference {
    fn drop(&mut self) {
        self.owner = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join.join();
        }
    }
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
        let listed = tokio::task::spawn_blocking(move || examine::list(&dirs)).await;
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

/// Starts the thread that looks for strain. Without it models serve as well, so that it cannot be started is said and no more.
fn watch_over(watch: adapt::watch::Watch) -> Option<(ModelThread, mpsc::Sender<()>)> {
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
struct Launch<'a> {
    config: &'a InferenceConfig,
    interrupts: &'a Interrupts,
    providers: &'a Arc<Providers>,
    board: StatusBoard,
    budget: Arc<Budget>,
    stop: &'a CancellationToken,
    wakes: Vec<(Arc<str>, SyncSender<Event>)>,
    model_threads: Vec<ModelThread>,
    queues: Vec<Arc<dyn Close>>,
    /// Of these, the ones whose background work rests under strain: not what a new device needs to be understood.
    resting: Vec<Arc<dyn Close>>,
    /// That each model has when nothing is short.
    threads: NonZeroUsize,
    /// How the chat model is to run.
    wishes: adapt::Wishes,
    pulse: Arc<chat::Pulse>,
    snapshots: Option<Arc<chat::Snapshots>>,
}

impl Launch<'_> {
    fn spawn<M: Model + 'static>(&mut self, name: &str) -> Arc<Queue<M::Job>> {
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
