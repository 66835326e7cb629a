//! What came of a model that was loaded or that served: who serves now, who goes on, and what those who wait are told.

use std::{sync::Arc, time::Instant};

use super::{
    super::{
        super::{
            error::{InferenceError, LoadError, ReloadError, chain},
            status::{LoadStage, ModelState},
        },
        Model,
        life::Report,
    },
    Loading, Seen, Serving, Supervisor, Vacancy,
};

impl<M: Model> Supervisor<M> {
    /// What a thread of ours says of its model.
    pub(super) fn note(&mut self, id: u64, report: Report) {
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
    pub(super) fn refuse(&mut self, seen: Seen, error: Arc<LoadError>) {
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
    pub(super) fn without(&self, state: ModelState) {
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

    pub(super) fn unload(&mut self) {
        if self.loading.is_none() && !self.queue.has_waiting() {
            self.leave(Vacancy::Unloaded);
        }
    }

    pub(super) fn answer(&mut self, error: impl Fn() -> ReloadError) {
        for asked in self.asked.drain(..) {
            let _ = asked.send(Err(error()));
        }
    }
}
