//! One model's life on a thread of its own: loaded and proved, served, dropped. What becomes of it is told to the
//! [`supervisor`](super::supervisor), which decides whether there is to be another.

use std::{
    any::Any,
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    super::{
        budget::Reservation,
        bundle::Bundle,
        error::LoadError,
        huge_pages,
        jobs::Queue,
        memory,
        providers::{Choice, desk::Memory},
        runtime::Runtime,
        status::{LoadStage, ModelState, Running},
        vocabulary,
    },
    Event, Model, Setup, Slot,
};

/// What is to be loaded, and why.
pub(super) struct Order {
    pub(super) id: u64,
    /// Threads inside an operator, if it comes to run on the CPU.
    pub(super) threads: NonZeroUsize,
    /// The bundle's name, and where it is.
    pub(super) bundle: Arc<str>,
    pub(super) dir: PathBuf,
    pub(super) runtime: Runtime,
    pub(super) purpose: Purpose,
}

/// Why a model is loaded.
#[derive(Debug, Clone)]
pub(super) enum Purpose {
    /// None serves, and none will be missed meanwhile.
    First,
    /// None serves now, and requests wait for this one.
    Awaited,
    /// Another serves meanwhile, and so placed.
    Beside {
        current: Arc<Choice>,
        /// Its files have not changed, and nobody asked for it: it is worth while only if it comes to run elsewhere.
        only_if_moved: bool,
    },
}

/// What became of a model. All but `Serving` are the last word of its thread.
#[derive(Debug)]
pub(in super::super) enum Report {
    /// It has taken the requests over.
    Serving {
        choice: Arc<Choice>,
        load_time: Duration,
        running: Running,
    },
    /// It would be no other than the one that serves.
    Unchanged,
    /// It is sound, and there is no room for it beside the one that serves.
    NoRoom,
    /// It cannot be used.
    Refused(Arc<LoadError>),
    /// It served to its end.
    Ended,
    /// A bug, with its message.
    Panicked(String),
}

enum NotLoaded {
    Unchanged,
    NoRoom,
    Refused(Arc<LoadError>),
}

impl From<LoadError> for NotLoaded {
    fn from(error: LoadError) -> Self {
        Self::Refused(Arc::new(error))
    }
}

/// The thread's whole life.
pub(super) fn run<M: Model>(slot: &Slot, order: &Order, queue: &Arc<Queue<M::Job>>) {
    let report = |report| {
        // The supervisor reads until all its threads have ended.
        let _ = slot.events.send(Event::Of(order.id, report));
    };
    let lived = catch_unwind(AssertUnwindSafe(|| {
        let since = Instant::now();
        match load::<M>(slot, order, since, queue) {
            Ok((model, choice, running, _held)) => {
                let jobs = queue.serve();
                report(Report::Serving {
                    choice,
                    load_time: since.elapsed(),
                    running,
                });
                model.serve(&jobs, &slot.stop);
                Report::Ended
            }
            Err(NotLoaded::Unchanged) => Report::Unchanged,
            Err(NotLoaded::NoRoom) => Report::NoRoom,
            Err(NotLoaded::Refused(error)) => Report::Refused(error),
        }
    }));
    report(lived.unwrap_or_else(|panic| Report::Panicked(panic_message(&*panic))));
}

fn load<M: Model>(
    slot: &Slot,
    order: &Order,
    since: Instant,
    queue: &Arc<Queue<M::Job>>,
) -> Result<(M, Arc<Choice>, Running, Reservation), NotLoaded> {
    let on_stage = |stage| match order.purpose {
        Purpose::First => slot
            .board
            .note_model(M::TASK, ModelState::Loading { since, stage }),
        Purpose::Awaited => slot
            .board
            .note_model(M::TASK, ModelState::Reloading { since, stage }),
        Purpose::Beside { .. } => {
            tracing::debug!(model = %slot.name, task = %M::TASK, %stage, "loading beside the one that serves");
        }
    };
    on_stage(LoadStage::Verify);
    let bundle = Bundle::open(&order.dir).map_err(LoadError::from)?;
    let actual = bundle.manifest().task;
    if actual != M::TASK {
        return Err(NotLoaded::from(LoadError::WrongTask {
            name: slot.name.to_string(),
            expected: M::TASK,
            actual,
        }));
    }
    let context_tokens = slot.setup.context_tokens;
    let reserve = || {
        memory::check(&bundle, context_tokens)?;
        let usage = Arc::clone(queue);
        slot.budget
            .reserve(&bundle, context_tokens, usage, &slot.events)
    };
    let choose = || {
        bundle.verify().map_err(LoadError::from)?;
        vocabulary::check(&bundle)?;
        on_stage(LoadStage::Provider);
        // Always with as many: a proof is of a number of threads, and is not worth another because the box is under strain.
        let threads = slot.setup.threads;
        let choice = slot
            .providers
            .choose(&bundle, &order.runtime, threads, Memory::Use)?;
        slot.board.note_providers(slot.providers.found());
        Ok::<_, LoadError>(choice)
    };
    let (choice, held) = match &order.purpose {
        // Before anything is read: what does not fit is not even hashed.
        Purpose::First => {
            let held = reserve()?;
            (choose()?, held)
        }
        Purpose::Awaited => {
            let held = reserve().or_else(|error| {
                slot.budget
                    .make_room(&bundle, context_tokens, queue.as_ref());
                reserve().map_err(|_| error)
            })?;
            (choose()?, held)
        }
        // Only for one that is sound the other gives up its memory.
        Purpose::Beside {
            current,
            only_if_moved,
        } => {
            let choice = choose()?;
            if *only_if_moved && choice.placement == current.placement {
                return Err(NotLoaded::Unchanged);
            }
            let held = reserve().map_err(|_| NotLoaded::NoRoom)?;
            (choice, held)
        }
    };
    let runtime = order.runtime.placed(choice.placement.clone());
    let setup = Setup {
        threads: match choice.placement.candidate.is_cpu() {
            true => order.threads,
            false => slot.setup.threads,
        },
        ..slot.setup.clone()
    };
    let model = M::load(&bundle, &runtime, &setup, &on_stage)?;
    huge_pages::gather_later(&order.bundle);
    let running = Running {
        bundle: Arc::clone(&order.bundle),
        is_instead: order.bundle != slot.name,
        threads: setup.threads,
    };
    Ok((model, Arc::new(choice), running, held))
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".into())
}
