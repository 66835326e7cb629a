//! Inference: quantised models in ONNX Runtime, each on its own thread, behind typed handles.
//!
//! [`Inference::start`] returns at once; ONNX Runtime and the models load in the background, and what is missing or broken
//! is said in the [status](status::InferenceStatus), keeps the rest working and recovers by itself. Nothing here knows of devices,
//! sessions or doors, and nothing here blocks the async runtime: the handles await, the models' threads compute.
//!
//! Read in this order: [`manifest`] and [`bundle`] (what a model is on disk), [`runtime`] (ONNX Runtime), [`providers`] (what it runs on),
//! [`status`], [`threads`], [`class`] and `jobs` (whose request goes first), `slot` (a model's thread), then the engines [`embedder`], [`chat`],
//! [`vad`], [`stt`], [`tts`] and [`generic`], [`adapt`] (less is done under strain), and [`upstream`] (conversations that are answered elsewhere). [`probe`] is the proof that a loaded model
//! computes the right thing, [`examine`] what a person asks about a bundle.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::handle::InferenceHandle;
use self::{
    adapt::AdaptConfig,
    budget::{Budget, MemoryLimits},
    chat::{Chat, ChatCache, ChatHandle, SnapshotConfig},
    embedder::{Embedder, EmbedderHandle},
    generic::{Generic, GenericHandle},
    interrupts::Interrupts,
    launch::{Close, Launch, ModelThread, Owner, watch_over},
    manifest::Task,
    prover::Prover,
    providers::{Providers, ProvidersConfig},
    slot::Door,
    status::{LoadStage, ModelState, ModelStatus, StatusBoard},
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
mod handle;
mod huge_pages;
mod interrupts;
mod jobs;
mod launch;
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
    /// Longest chat context in tokens; a model's own limit holds, too. The key-value cache of the default model takes 12 kB
    /// per token, 46 kB of floats, as the conversation grows.
    pub context_tokens: usize,
    /// Conversations that are answered at a time.
    pub chat_sessions: NonZeroUsize,
    /// What the chat model's key-value cache holds.
    pub chat_cache: ChatCache,
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
