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
        error::{InferenceError, LoadError, ReloadError, chain},
        jobs::Queue,
        providers::Choice,
        recheck::Recheck,
        runtime::{self, Runtime, RuntimeError},
        search::{Fingerprint, locate},
        status::{LoadStage, ModelState},
    },
    Asked, Event, Model, Slot,
    life::{self, Order, Purpose, Report},
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

    /// The bundle that is to serve, and where it is: the smaller one if it is wished and fit.
    fn locate(&mut self, instead: Option<&Arc<str>>) -> Result<(Arc<str>, PathBuf), Vec<PathBuf>> {
        let Some(smaller) = instead else {
            self.forget_unfit();
            return self.locate_own();
        };
        let found = locate(smaller, &self.slot.model_dirs);
        let looks = found.as_deref().ok().map(Fingerprint::of);
        match (&self.unfit, found) {
            (Some((unfit, _)), _) if *unfit == looks => self.locate_own(),
            (_, Ok(dir)) => Ok((Arc::clone(smaller), dir)),
            (_, Err(looked)) => {
                let error = LoadError::Absent {
                    name: smaller.to_string(),
                    looked,
                };
                self.set_unfit(None, Arc::new(error));
                self.locate_own()
            }
        }
    }

    /// The smaller bundle is not wished any more.
    fn forget_unfit(&mut self) {
        let Some((_, error)) = self.unfit.take() else {
            return;
        };
        if let Some(serving) = &mut self.serving
            && let ModelState::Ready { unused, .. } = &mut serving.state
            && unused
                .as_ref()
                .is_some_and(|shown| Arc::ptr_eq(shown, &error))
        {
            *unused = None;
            self.slot.board.note_model(M::TASK, serving.state.clone());
        }
    }

    fn locate_own(&self) -> Result<(Arc<str>, PathBuf), Vec<PathBuf>> {
        let dir = locate(&self.slot.name, &self.slot.model_dirs)?;
        Ok((Arc::clone(&self.slot.name), dir))
    }

    /// The smaller bundle does not serve, and who serves says why.
    fn set_unfit(&mut self, looks: Option<Fingerprint>, error: Arc<LoadError>) {
        tracing::warn!(model = %self.slot.name, task = %M::TASK, error = %chain(error.as_ref()), "the smaller bundle cannot be used; the one configured goes on");
        self.unfit = Some((looks, Arc::clone(&error)));
        if let Some(serving) = &mut self.serving
            && let ModelState::Ready { unused, .. } = &mut serving.state
        {
            *unused = Some(error);
            self.slot.board.note_model(M::TASK, serving.state.clone());
        }
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

    /// What a thread of ours says of its model.
    fn note(&mut self, id: u64, report: Report) {
        if !matches!(report, Report::Serving { .. })
            && let Some(thread) = self.threads.remove(&id)
        {
            // It has nothing left to do but return.
            let _ = thread.join();
        }
        let is_loading = self.loading.as_ref().is_some_and(|one| one.id == id);
        let loading = if is_loading {
            self.loading.take()
        } else {
            None
        };
        match (report, loading) {
            (
                Report::Serving {
                    choice,
                    load_time,
                    running,
                },
                Some(Loading { seen, .. }),
            ) => {
                let unfit = self.unfit.as_ref().map(|(_, error)| Arc::clone(error));
                if self.serving.is_some() {
                    tracing::info!(model = %self.slot.name, task = %M::TASK, bundle = %running.bundle, threads = running.threads, "the changed model serves; the old one ends what it has begun");
                }
                let state = ModelState::Ready {
                    load_time,
                    choice: Arc::clone(&choice),
                    running,
                    unused: unfit,
                };
                self.slot.board.note_model(M::TASK, state.clone());
                self.serving = Some(Serving {
                    id,
                    seen,
                    state,
                    choice,
                });
                self.vacancy = None;
                self.refused = None;
                for asked in self.asked.drain(..) {
                    let _ = asked.send(Ok(()));
                }
            }
            (Report::Unchanged, Some(Loading { seen, .. })) => {
                if let Some(serving) = &mut self.serving {
                    serving.seen = seen;
                }
            }
            (Report::NoRoom, Some(_)) => {
                tracing::info!(model = %self.slot.name, task = %M::TASK, "no room for two: the old model ends what it has begun, then the changed one is loaded");
                self.leave(Vacancy::Swap);
            }
            (Report::Refused(error), Some(Loading { seen, .. })) => {
                // It was there before, and others have its room now: the next request tries again.
                let is_crowded = matches!(*error, LoadError::Memory { .. })
                    && self.slot.budget.is_shared(self.queue.as_ref());
                if self.serving.is_none() && is_crowded {
                    self.answer(|| ReloadError::Load(Arc::clone(&error)));
                    self.vacancy = Some(Vacancy::Unloaded);
                    let why = chain(error.as_ref()).into();
                    let state = ModelState::Unloaded { why };
                    self.without(state);
                } else {
                    self.refuse(seen, error);
                }
            }
            (Report::Panicked(message), loading) => {
                let error = Arc::new(LoadError::Panicked { message });
                let is_serving = self.serving.as_ref().is_some_and(|one| one.id == id);
                match loading {
                    Some(Loading { seen, .. }) if self.serving.is_some() => {
                        self.refuse(seen, error)
                    }
                    None if !is_serving => {
                        tracing::error!(model = %self.slot.name, task = %M::TASK, %error, "the old model broke down under what it had begun");
                    }
                    // A fresh one is loaded after a pause.
                    _ => {
                        self.serving = None;
                        self.vacancy = None;
                        self.rests_until = Some(Instant::now() + self.breakdowns.next_pause());
                        self.answer(|| ReloadError::Load(Arc::clone(&error)));
                        let state = ModelState::Disabled { error };
                        self.slot.board.note_model(M::TASK, state);
                    }
                }
            }
            (Report::Ended, _) if self.serving.as_ref().is_some_and(|one| one.id == id) => {
                self.serving = None;
            }
            _ => {}
        }
        self.recheck.reset();
    }

    /// It cannot be used. Who serves goes on.
    fn refuse(&mut self, seen: Seen, error: Arc<LoadError>) {
        if seen.bundle != self.slot.name {
            // The next look is for the one configured.
            self.answer(|| ReloadError::Load(Arc::clone(&error)));
            self.set_unfit(Some(seen.files), error);
            return;
        }
        self.refused = Some(seen);
        self.answer(|| ReloadError::Load(Arc::clone(&error)));
        match &mut self.serving {
            Some(serving) => {
                if let ModelState::Ready { unused, .. } = &mut serving.state {
                    *unused = Some(Arc::clone(&error));
                }
                tracing::warn!(model = %self.slot.name, task = %M::TASK, error = %chain(error.as_ref()), "the changed model cannot be used; the old one goes on");
                self.slot.board.note_model(M::TASK, serving.state.clone());
            }
            None => {
                self.vacancy = None;
                self.without(ModelState::Disabled { error });
            }
        }
    }

    /// Nobody serves, and nobody will soon: who waits is told.
    fn without(&self, state: ModelState) {
        self.slot.board.note_model(M::TASK, state.clone());
        for job in self.queue.take_waiting() {
            let error = InferenceError::NotReady {
                task: M::TASK,
                state: state.clone(),
            };
            M::refuse(job, error);
        }
    }

    /// Who serves answers what it has begun, and takes nothing more.
    fn leave(&mut self, vacancy: Vacancy) {
        if let Some(serving) = self.serving.take() {
            self.vacancy = Some(vacancy);
            let state = match vacancy {
                Vacancy::Swap => ModelState::Reloading {
                    since: Instant::now(),
                    stage: LoadStage::Drain,
                },
                Vacancy::Unloaded => ModelState::Unloaded {
                    why: "it was idle, and another model needed the room".into(),
                },
            };
            // Said before, so that no request finds it neither here nor there.
            self.slot.board.note_model(M::TASK, state);
            self.queue.vacate();
            tracing::debug!(model = %self.slot.name, id = serving.id, ?vacancy, "leaves");
        }
    }

    fn unload(&mut self) {
        if self.loading.is_none() && !self.queue.has_waiting() {
            self.leave(Vacancy::Unloaded);
        }
    }

    fn answer(&mut self, error: impl Fn() -> ReloadError) {
        for asked in self.asked.drain(..) {
            let _ = asked.send(Err(error()));
        }
    }

    fn load_runtime(&self) -> Result<Runtime, Arc<RuntimeError>> {
        let result = Runtime::load(self.slot.runtime_path.as_deref()).map_err(Arc::new);
        self.slot.board.note_runtime(result.as_ref());
        result
    }
}
