//! The thread that watches over one configured model: looks for it, has it loaded, and swaps it when its bundle, or what it should run on, changes.
//!
//! It never computes: each model lives on a thread of its own ([`life`]). So a changed bundle is loaded, proved and warmed up beside
//! the one that serves, takes the queue over in one step, and the old one answers what it has begun to the end. Where there is no room for
//! both, the new one is checked as far as that goes without loading it, the old one answers what it has begun, and requests wait in the
//! queue until the new one is there. A changed bundle that cannot be used changes nothing but the status.
//!
//! How the model is to run may change as well ([`adapt`](super::super::adapt)): with other threads, which only a new session of ONNX Runtime can have, or a
//! smaller bundle in its place. Both are swapped in the same way. A smaller bundle that is missing or cannot be used is said so, and
//! the one configured goes on.
//!
//! It never gives up: what is missing is looked for again with growing pauses ([`recheck`](super::super::recheck)), what is broken is tried
//! again when its files change. It ends when the engine is stopped and its models have ended.
//!
//! Here is what it looks for and starts; [`outcome`] is what becomes of that, [`smaller`] the smaller bundle.

mod outcome;
mod smaller;

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::{Instant, SystemTime},
};

use super::{
    super::{
        error::{LoadError, ReloadError},
        jobs::Queue,
        providers::Choice,
        recheck::Recheck,
        runtime::{self, Runtime, RuntimeError},
        search::Fingerprint,
        status::ModelState,
    },
    Asked, Event, Model, Slot,
    life::{self, Order, Purpose},
};

/// What a person can do about a missing bundle.
const BUNDLE_REMEDY: &str =
    "run `make models`, or set inference.model_dirs to where the bundles are";

/// What a bundle, and what could run it, looked like when it was last tried.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    bundle: Arc<str>,
    /// Where it runs on the CPU; elsewhere they are not ours to choose.
    threads: NonZeroUsize,
    files: Fingerprint,
    libraries: Fingerprint,
    surroundings: Option<(u64, SystemTime)>,
    round: u64,
}

impl Seen {
    /// Whether it would be the same model, if on the same provider.
    fn is_same(&self, other: &Self) -> bool {
        (&self.bundle, self.threads, &self.files) == (&other.bundle, other.threads, &other.files)
    }
}

struct Serving {
    id: u64,
    seen: Seen,
    state: ModelState,
    choice: Arc<Choice>,
}

struct Loading {
    id: u64,
    seen: Seen,
}

/// Why nobody serves although a model is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Vacancy {
    /// The old one leaves so that the new one fits.
    Swap,
    /// It made room for another model, or there was no room for it; the next request brings it back.
    Unloaded,
}

pub(super) struct Supervisor<M: Model> {
    slot: Arc<Slot>,
    queue: Arc<Queue<M::Job>>,
    serving: Option<Serving>,
    loading: Option<Loading>,
    vacancy: Option<Vacancy>,
    refused: Option<Seen>,
    /// Why the smaller bundle does not serve although it is wished, and what it looked like then.
    unfit: Option<(Option<Fingerprint>, Arc<LoadError>)>,
    threads: BTreeMap<u64, JoinHandle<()>>,
    next_id: u64,
    /// Who asked for it to be loaded anew, and waits.
    asked: Vec<Asked>,
    recheck: Recheck,
    /// Pauses after models that broke down, and until when.
    breakdowns: Recheck,
    rests_until: Option<Instant>,
}

impl<M: Model + 'static> Supervisor<M> {
    pub(super) fn new(slot: Slot, queue: Arc<Queue<M::Job>>) -> Self {
        Self {
            slot: Arc::new(slot),
            queue,
            serving: None,
            loading: None,
            vacancy: None,
            refused: None,
            unfit: None,
            threads: BTreeMap::new(),
            next_id: 0,
            asked: Vec::new(),
            recheck: Recheck::default(),
            breakdowns: Recheck::default(),
            rests_until: None,
        }
    }

    /// The thread's whole life.
    pub(super) fn run(mut self, events: &Receiver<Event>) {
        loop {
            let event = if self.slot.stop.is_cancelled() {
                if self.threads.is_empty() {
                    break;
                }
                events.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                self.look();
                events.recv_timeout(self.recheck.next_pause())
            };
            match event {
                Ok(Event::Wake) => self.recheck.reset(),
                Ok(Event::Reload(asked)) => {
                    self.asked.push(asked);
                    self.recheck.reset();
                }
                Ok(Event::MakeRoom) => self.unload(),
                Ok(Event::Of(id, report)) => self.note(id, report),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.slot.board.note_model(M::TASK, ModelState::Stopped);
        self.queue.abandon();
    }

    /// Looks whether there is something to load.
    fn look(&mut self) {
        let rests = self.rests_until.is_some_and(|end| Instant::now() < end);
        if self.loading.is_some() || rests {
            return;
        }
        if self.vacancy.is_some() && !self.threads.is_empty() {
            // The old one is still answering.
            return;
        }
        if self.vacancy == Some(Vacancy::Unloaded)
            && !self.queue.has_waiting()
            && self.asked.is_empty()
        {
            return;
        }
        let wish = self.slot.wish();
        let (bundle, dir) = match self.locate(wish.instead.as_ref()) {
            Ok(found) => found,
            Err(looked) => {
                self.answer(|| ReloadError::Missing {
                    looked: looked.clone(),
                });
                if self.serving.is_none() {
                    self.vacancy = None;
                    self.without(ModelState::Missing {
                        looked,
                        remedy: BUNDLE_REMEDY,
                    });
                }
                return;
            }
        };
        let runtime = match self.load_runtime() {
            Ok(runtime) => runtime,
            Err(error) => {
                self.answer(|| ReloadError::Runtime(Arc::clone(&error)));
                self.without(ModelState::Missing {
                    looked: error.looked(),
                    remedy: runtime::REMEDY,
                });
                return;
            }
        };
        let threads = match &self.serving {
            Some(serving) if !serving.choice.placement.candidate.is_cpu() => serving.seen.threads,
            _ => wish.threads,
        };
        let seen = Seen {
            bundle,
            threads,
            files: Fingerprint::of(&dir),
            libraries: self.slot.providers.dir_fingerprint(),
            surroundings: M::surroundings(&self.slot.setup),
            round: self.slot.providers.round(),
        };
        let is_asked = !self.asked.is_empty();
        let purpose = match (&self.serving, self.vacancy) {
            (Some(serving), _) => {
                let is_known = serving.seen == seen || self.refused.as_ref() == Some(&seen);
                if is_known && !is_asked {
                    return;
                }
                Purpose::Beside {
                    current: Arc::clone(&serving.choice),
                    only_if_moved: serving.seen.is_same(&seen) && !is_asked,
                }
            }
            (None, Some(_)) => Purpose::Awaited,
            (None, None) if self.refused.as_ref() == Some(&seen) && !is_asked => return,
            (None, None) => Purpose::First,
        };
        self.start(dir, runtime, seen, purpose);
    }

    fn start(&mut self, dir: PathBuf, runtime: Runtime, seen: Seen, purpose: Purpose) {
        let id = self.next_id;
        self.next_id += 1;
        let order = Order {
            id,
            threads: seen.threads,
            bundle: Arc::clone(&seen.bundle),
            dir,
            runtime,
            purpose,
        };
        let (slot, queue) = (Arc::clone(&self.slot), Arc::clone(&self.queue));
        let spawned = thread::Builder::new()
            .name(format!("model-{}", M::TASK))
            .spawn(move || life::run::<M>(&slot, &order, &queue));
        match spawned {
            Ok(thread) => {
                self.threads.insert(id, thread);
                self.loading = Some(Loading { id, seen });
            }
            Err(source) => self.refuse(seen, Arc::new(LoadError::Thread { source })),
        }
    }

    fn load_runtime(&self) -> Result<Runtime, Arc<RuntimeError>> {
        let result = Runtime::load(self.slot.runtime_path.as_deref()).map_err(Arc::new);
        self.slot.board.note_runtime(result.as_ref());
        result
    }
}
