//! The thread that looks, decides and has it done. It owns the [`Machine`]; others read its [`Adaptation`].

use std::{
    num::NonZeroUsize,
    sync::{
        Arc, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender},
    },
    time::Instant,
};

use tokio::sync::watch;

use super::{
    super::{Close, chat::ChatHandle, slot::Event, threads::Threads},
    AdaptConfig, Adaptation, Level, Wishes,
    demand::Demand,
    machine::Machine,
    plan::Wish,
    sensors::Sensors,
};

/// What it looks at and acts on.
pub(in super::super) struct Watch {
    pub(in super::super) config: AdaptConfig,
    pub(in super::super) threads: Threads,
    pub(in super::super) chat: ChatHandle,
    /// What the chat model's supervisor is told, and how it is woken.
    pub(in super::super) wishes: Wishes,
    pub(in super::super) wake: SyncSender<Event>,
    /// The queues whose background work rests under strain.
    pub(in super::super) resting: Vec<Arc<dyn Close>>,
    pub(in super::super) board: Arc<watch::Sender<Adaptation>>,
}

/// How it stands before anybody has looked, and for ever where nobody looks.
pub(in super::super) fn at_rest(threads: Threads, is_on: bool) -> Adaptation {
    let lent = threads.lent();
    Adaptation {
        is_on,
        level: Level::Normal,
        since: Instant::now(),
        reason: String::new(),
        changes: 0,
        inputs: Vec::new(),
        absent: Vec::new(),
        threads_asked: threads.asked,
        threads_lent: lent,
        wish: Wish {
            threads: threads.granted(lent),
            instead: None,
        },
        background_rests: false,
    }
}

impl Watch {
    /// The thread's whole life: until the other end of `stop` is dropped.
    pub(in super::super) fn run(self, stop: &Receiver<()>) {
        let sensors = Sensors::new(self.config.root.clone(), self.config.limits);
        let mut machine = Machine::new(self.config.timing, Instant::now());
        let mut demand = Demand::default();
        while stop.recv_timeout(self.config.period) == Err(RecvTimeoutError::Timeout) {
            self.look(&sensors, &mut machine, &mut demand);
        }
    }

    fn look(&self, sensors: &Sensors, machine: &mut Machine, demand: &mut Demand) {
        let mut sampled = sensors.sample();
        let now = Instant::now();
        let (refused, slower) = (self.chat.counters().refused, self.chat.slower(now));
        sampled.readings.extend(demand.readings(
            now,
            refused,
            slower,
            self.config.limits.slower_times,
        ));
        let change = machine.observe(now, &sampled.readings);
        let level = machine.level();
        let mut next = self.board.borrow().clone();
        let before = next.clone();
        next.inputs = sampled.readings.into_iter().map(|it| it.words).collect();
        next.absent = sampled.absent;
        next.threads_lent = self.threads.lent();
        let full: NonZeroUsize = self.threads.granted(next.threads_lent);
        next.wish = Wish::at(level, machine.causes(), full, &self.config.measures);
        next.background_rests = level == Level::Strained;
        if let Some(change) = &change {
            next.level = level;
            next.since = machine.since();
            next.reason.clone_from(&change.reason);
            next.changes += u64::from(change.from != change.to);
        }
        self.tell(&before, &next, change.is_some());
        let (wish, rests) = (next.wish.clone(), next.background_rests);
        let is_news = next.is_news(&before);
        // Said before it is done, so that whoever sees it done finds the reason.
        self.board.send_if_modified(|board| {
            *board = next;
            is_news
        });
        if wish != before.wish {
            *self.wishes.lock().unwrap_or_else(PoisonError::into_inner) = wish;
            // Full means that it is awake.
            let _ = self.wake.try_send(Event::Wake);
        }
        if rests != before.background_rests {
            self.resting
                .iter()
                .for_each(|queue| queue.rest_background(rests));
        }
    }

    fn tell(&self, before: &Adaptation, next: &Adaptation, is_change: bool) {
        if next.threads_lent != before.threads_lent {
            tracing::info!(
                from = before.threads_lent,
                to = next.threads_lent,
                "this process may run on another number of processors"
            );
        }
        if !is_change {
            return;
        }
        let (from, to, reason) = (before.level, next.level, &next.reason);
        let (threads, instead) = (next.wish.threads, next.wish.instead.as_deref());
        let background_rests = next.background_rests;
        if to > from {
            tracing::warn!(%from, %to, reason, chat_threads = threads, chat_instead = instead, background_rests, "the box is under strain");
        } else {
            tracing::info!(%from, %to, reason, chat_threads = threads, chat_instead = instead, background_rests, "strain on the box has changed");
        }
    }
}
