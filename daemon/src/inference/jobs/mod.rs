//! The way from the handles to a model's thread: one bounded queue for each [`Class`], the most urgent request first.
//!
//! A request counts as waiting until its [`Place`] is dropped, which is when the model really begins with it, so that a model that takes
//! several in advance does not make its queue longer by that. [`Jobs`] is the end that a model serves; another model may take it
//! over ([`Queue::serve`]), and the first one's end is then as if closed. Nothing here knows what a job is.
//!
//! | channel | from, to | capacity | when full |
//! | --- | --- | --- | --- |
//! | jobs | handles -> model | [`Class::places`], for each class | refused at once with `Overloaded`; the later parts of a piece of work wait |

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc::SyncSender},
    time::Instant,
};

use tokio::sync::Notify;

use super::{budget::Usage, class::Class, slot::Event};

/// The queues of one model. They outlive the models that serve them.
#[derive(Debug)]
pub(super) struct Queue<J> {
    state: Mutex<State<J>>,
    /// There is work, or a place of what was taken in advance.
    work: Condvar,
    /// There is room in a queue.
    room: Notify,
    /// Who is woken when there is work and nobody serves.
    supervisor: SyncSender<Event>,
}

#[derive(Debug)]
struct State<J> {
    waiting: [VecDeque<Entry<J>>; Class::ALL.len()],
    /// Taken in advance, and not begun.
    taken: [usize; Class::ALL.len()],
    next_number: u64,
    /// Whose end is the one that is served.
    server: u64,
    is_served: bool,
    /// The last that came, and its class.
    last: Option<(Instant, Class)>,
    /// Background work is left where it is.
    background_rests: bool,
    is_closed: bool,
}

#[derive(Debug)]
struct Entry<J> {
    number: u64,
    since: Instant,
    job: J,
}

/// Why a job was not taken.
#[derive(Debug)]
pub(super) enum NotTaken<J> {
    /// All places of its class are taken.
    Full,
    /// Nobody will serve any more. The job comes back.
    Closed(J),
}

/// One job with what the queue knows of it.
pub(super) struct Taken<J> {
    /// Grows with the time of arrival.
    pub(super) number: u64,
    pub(super) class: Class,
    /// When it arrived.
    pub(super) since: Instant,
    pub(super) job: J,
    /// Dropped when it begins.
    pub(super) place: Place<J>,
}

/// A place in the queue of a class, until dropped.
pub(super) struct Place<J> {
    queue: Arc<Queue<J>>,
    class: Class,
}

impl<J> Drop for Place<J> {
    fn drop(&mut self) {
        self.queue.lock().taken[self.class as usize] -= 1;
        self.queue.work.notify_all();
        self.queue.room.notify_waiters();
    }
}

impl<J> Queue<J> {
    pub(super) fn new(supervisor: SyncSender<Event>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                waiting: Default::default(),
                taken: Default::default(),
                next_number: 0,
                server: 0,
                is_served: false,
                last: None,
                background_rests: false,
                is_closed: false,
            }),
            work: Condvar::new(),
            room: Notify::new(),
            supervisor,
        })
    }

    /// Nothing that can panic is done under the lock.
    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a job in, if there is room for it.
    pub(super) fn try_push(&self, class: Class, job: J, now: Instant) -> Result<(), NotTaken<J>> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(NotTaken::Closed(job));
        }
        if state.queued(class) >= class.places() {
            return Err(NotTaken::Full);
        }
        state.push(class, job, now);
        self.tell(state);
        Ok(())
    }

    /// There is work.
    fn tell(&self, state: MutexGuard<'_, State<J>>) {
        let is_served = state.is_served;
        drop(state);
        self.work.notify_all();
        if !is_served {
            // Full means that it is awake.
            let _ = self.supervisor.try_send(Event::Wake);
        }
    }

    /// Takes a job in as soon as there is room for it; `false` when there never will be.
    pub(super) async fn push(&self, class: Class, job: J) -> bool {
        let mut job = Some(job);
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            // Before the look, so that no place that is freed after it is missed.
            room.as_mut().enable();
            {
                let mut state = self.lock();
                if state.is_closed {
                    return false;
                }
                if state.queued(class) < class.places()
                    && let Some(job) = job.take()
                {
                    state.push(class, job, Instant::now());
                    self.tell(state);
                    return true;
                }
            }
            room.await;
        }
    }

    /// Requests of a class that wait.
    pub(super) fn queued(&self, class: Class) -> usize {
        self.lock().queued(class)
    }

    /// The end to serve. Whoever served until now finds its own end closed.
    pub(super) fn serve(self: &Arc<Self>) -> Jobs<J> {
        let mut state = self.lock();
        state.server += 1;
        state.is_served = true;
        let server = state.server;
        drop(state);
        self.work.notify_all();
        Jobs {
            queue: Arc::clone(self),
            server,
        }
    }

    /// Whoever serves finds its end closed, and nobody serves until somebody takes over.
    pub(super) fn vacate(&self) {
        let mut state = self.lock();
        state.server += 1;
        state.is_served = false;
        drop(state);
        self.work.notify_all();
    }

    /// Whether jobs wait to be taken, and may be.
    pub(super) fn has_waiting(&self) -> bool {
        let state = self.lock();
        let mut classes = Class::ALL.into_iter().zip(&state.waiting);
        classes.any(|(class, waiting)| !waiting.is_empty() && !state.rests(class))
    }

    /// Leaves background work where it is, or takes it up again. It counts as waiting meanwhile: its places may all be taken.
    pub(super) fn rest_background(&self, rests: bool) {
        let mut state = self.lock();
        state.background_rests = rests;
        self.tell(state);
    }

    /// Takes out all that wait, to be refused.
    pub(super) fn take_waiting(&self) -> Vec<J> {
        let waiting = std::mem::take(&mut self.lock().waiting);
        self.room.notify_waiters();
        let all = waiting.into_iter().flatten();
        all.map(|entry| entry.job).collect()
    }

    /// No more jobs; those that wait are still served.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.work.notify_all();
        self.room.notify_waiters();
    }

    /// Nobody will serve what waits: it is dropped, which tells whoever waits for an answer.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        let left = std::mem::take(&mut state.waiting);
        drop(state);
        drop(left);
        self.work.notify_all();
        self.room.notify_waiters();
    }
}

impl<J: fmt::Debug + Send> Usage for Queue<J> {
    fn last(&self) -> Option<(Instant, Class)> {
        self.lock().last
    }

    fn is_wanted(&self) -> bool {
        self.has_waiting()
    }
}

impl<J> State<J> {
    /// Who closes wants the rest answered, if only with an error.
    fn rests(&self, class: Class) -> bool {
        class == Class::Background && self.background_rests && !self.is_closed
    }

    fn queued(&self, class: Class) -> usize {
        self.waiting[class as usize].len() + self.taken[class as usize]
    }

    fn push(&mut self, class: Class, job: J, since: Instant) {
        let number = self.next_number;
        self.next_number += 1;
        self.last = Some((since, class));
        self.waiting[class as usize].push_back(Entry { number, since, job });
    }

    /// Of the oldest of each class that may be taken, the most urgent by now.
    fn best(
        &self,
        now: Instant,
        ahead: usize,
        wants: &impl Fn(&J) -> bool,
    ) -> Option<(Class, usize)> {
        let mut before = 0;
        let mut heads = Vec::with_capacity(Class::ALL.len());
        for class in Class::ALL {
            if self.rests(class) {
                continue;
            }
            before += self.taken[class as usize];
            if before >= ahead {
                break;
            }
            let waiting = self.waiting[class as usize].iter().enumerate();
            heads.extend(
                waiting
                    .into_iter()
                    .find(|(_, entry)| wants(&entry.job))
                    .map(|(at, entry)| {
                        let risen = class.risen(now.saturating_duration_since(entry.since));
                        (risen, entry.number, class, at)
                    }),
            );
        }
        let best = heads.into_iter().min();
        best.map(|(_, _, class, at)| (class, at))
    }
}

/// The end of the queues that a model serves.
pub(super) struct Jobs<J> {
    queue: Arc<Queue<J>>,
    server: u64,
}

impl<J> Jobs<J> {
    /// The next job, waited for; `None` when no more will come.
    pub(super) fn blocking_recv(&self) -> Option<J> {
        self.take(usize::MAX, |_| true).map(|taken| taken.job)
    }

    /// The same, with its class.
    pub(super) fn blocking_recv_classed(&self) -> Option<(Class, J)> {
        let taken = self.take(usize::MAX, |_| true)?;
        Some((taken.class, taken.job))
    }

    /// The oldest job of a class, if one waits: what may go along with another of its class.
    pub(super) fn try_recv(&self, class: Class) -> Option<J> {
        let mut state = self.queue.lock();
        if state.server != self.server || state.rests(class) {
            return None;
        }
        let entry = state.waiting[class as usize].pop_front();
        drop(state);
        self.queue.room.notify_waiters();
        entry.map(|entry| entry.job)
    }

    /// The oldest job of the most urgent class above this one, if any waits: what goes before a job that was taken and not begun.
    pub(super) fn try_recv_before(&self, class: Class) -> Option<J> {
        let above = Class::ALL.into_iter().take_while(|other| *other != class);
        above.into_iter().find_map(|class| self.try_recv(class))
    }

    /// The next of the jobs that are wanted, waited for, as long as less than `ahead` of its class or more urgent ones are taken and
    /// not begun; `None` when no more will come.
    pub(super) fn take(&self, ahead: usize, wants: impl Fn(&J) -> bool) -> Option<Taken<J>> {
        let mut state = self.queue.lock();
        loop {
            if state.server != self.server {
                return None;
            }
            if let Some((class, at)) = state.best(Instant::now(), ahead, &wants)
                && let Some(Entry { number, since, job }) = state.waiting[class as usize].remove(at)
            {
                state.taken[class as usize] += 1;
                drop(state);
                let place = Place {
                    queue: Arc::clone(&self.queue),
                    class,
                };
                return Some(Taken {
                    number,
                    class,
                    since,
                    job,
                    place,
                });
            }
            if state.is_closed
                && state
                    .waiting
                    .iter()
                    .flatten()
                    .all(|entry| !wants(&entry.job))
            {
                return None;
            }
            state = self
                .queue
                .work
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Requests of a class that wait.
    pub(super) fn queued(&self, class: Class) -> usize {
        self.queue.queued(class)
    }

    /// Takes out all jobs that wait and for which `is_out` holds.
    pub(super) fn extract(&self, is_out: impl Fn(&J, Instant) -> bool) -> Vec<J> {
        let mut state = self.queue.lock();
        let mut out = Vec::new();
        for waiting in &mut state.waiting {
            if waiting.iter().any(|entry| is_out(&entry.job, entry.since)) {
                for entry in std::mem::take(waiting) {
                    if is_out(&entry.job, entry.since) {
                        out.push(entry.job);
                    } else {
                        waiting.push_back(entry);
                    }
                }
            }
        }
        drop(state);
        if !out.is_empty() {
            self.queue.room.notify_waiters();
        }
        out
    }

    /// Whether background work that was begun is to wait as well.
    pub(super) fn background_rests(&self) -> bool {
        let state = self.queue.lock();
        // Who was replaced ends what it has begun, and goes.
        state.server == self.server && state.rests(Class::Background)
    }

    /// Serves no longer, without anybody else serving yet.
    pub(super) fn resign(&self) {
        let mut state = self.queue.lock();
        if state.server == self.server {
            state.server += 1;
            state.is_served = false;
        }
        drop(state);
        self.queue.work.notify_all();
    }
}

#[cfg(test)]
mod tests;
