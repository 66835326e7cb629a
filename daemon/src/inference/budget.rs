//! What all models together may take of the memory, who has it, and who gives it back when another needs it.
//!
//! Numbers are the estimates of [`memory`](super::memory), so the limit is a rule for who is loaded beside whom and no promise to the byte.
//! Only models that are idle are asked to leave: background ones first, of those the one whose last request is the oldest. A model
//! in use is never sent away; who finds no room then stays away, and its request is refused.

use std::{
    collections::BTreeMap,
    fmt,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc::SyncSender},
    time::{Duration, Instant},
};

use super::{
    bundle::Bundle,
    class::Class,
    error::LoadError,
    memory::{estimate, room, smallest_total},
    slot::Event,
};

/// Share of the machine's memory, or of the control group's, that models may take unless told otherwise: 3 of 4. The rest is for the daemon and
/// what the estimate does not know.
const SHARE: (u64, u64) = (3, 4);

/// How long is waited for models that were asked to leave. They are idle, so they leave within milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// How much memory models may take, and when one counts as idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLimits {
    /// Bytes of all models together, by estimate; `None`: three quarters of what the machine or a control group has.
    pub bytes_max: Option<u64>,
    /// A model may be unloaded for another when it had no request for so long.
    pub idle_after: Duration,
}

impl Default for MemoryLimits {
    fn default() -> Self {
        Self {
            bytes_max: None,
            // Longer than somebody who talks needs for the next sentence.
            idle_after: Duration::from_secs(60),
        }
    }
}

/// When a model was last asked something.
pub(super) trait Usage: fmt::Debug + Send + Sync {
    /// The last request, and its class.
    fn last(&self) -> Option<(Instant, Class)>;
    /// Whether requests wait.
    fn is_wanted(&self) -> bool;
}

/// The account.
#[derive(Debug)]
pub(super) struct Budget {
    limit: u64,
    idle_after: Duration,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    leases: BTreeMap<u64, Lease>,
    next: u64,
}

#[derive(Debug)]
struct Lease {
    bytes: u64,
    since: Instant,
    usage: Arc<dyn Usage>,
    events: SyncSender<Event>,
}

/// Memory that one model has, until dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: Arc<Budget>,
    id: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.lock().leases.remove(&self.id);
        self.budget.freed.notify_all();
    }
}

impl State {
    fn taken(&self) -> u64 {
        self.leases.values().map(|lease| lease.bytes).sum()
    }
}

impl Budget {
    pub(super) fn new(limits: MemoryLimits) -> Arc<Self> {
        let default = || {
            let total = smallest_total(Path::new("/proc"), Path::new("/sys/fs/cgroup"));
            total.map_or(u64::MAX, |total| total / SHARE.1 * SHARE.0)
        };
        Arc::new(Self {
            limit: limits.bytes_max.unwrap_or_else(default),
            idle_after: limits.idle_after,
            state: Mutex::default(),
            freed: Condvar::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what a bundle needs, by estimate. `usage` says when its model was asked last, `events` is where to ask it to leave.
    ///
    /// # Errors
    /// [`LoadError::Memory`].
    pub(super) fn reserve(
        self: &Arc<Self>,
        bundle: &Bundle,
        context_tokens: usize,
        usage: Arc<dyn Usage>,
        events: &SyncSender<Event>,
    ) -> Result<Reservation, LoadError> {
        let bytes = estimate(bundle, context_tokens);
        let mut state = self.lock();
        let left = self.limit.saturating_sub(state.taken());
        if bytes > left {
            return Err(LoadError::Memory {
                path: bundle.path(bundle.manifest().graph.file()),
                needed_mib: bytes.div_ceil(1 << 20),
                available_mib: left >> 20,
                limit: format!("{} MiB for all models together", self.limit >> 20),
            });
        }
        let id = state.next;
        state.next += 1;
        let lease = Lease {
            bytes,
            since: Instant::now(),
            usage,
            events: events.clone(),
        };
        state.leases.insert(id, lease);
        drop(state);
        Ok(Reservation {
            budget: Arc::clone(self),
            id,
        })
    }

    /// Asks idle models to leave until a bundle fits, and waits for that a while. Whether it helped is for
    /// [`reserve`](Self::reserve) to say.
    pub(super) fn make_room(&self, bundle: &Bundle, context_tokens: usize, own: &dyn Usage) {
        let bytes = estimate(bundle, context_tokens);
        let missing = |state: &State| {
            let by_limit = (state.taken().saturating_add(bytes)).saturating_sub(self.limit);
            let left = room().map_or(u64::MAX, |room| room.bytes);
            by_limit.max(bytes.saturating_sub(left))
        };
        let now = Instant::now();
        let state = self.lock();
        let idle = state.leases.iter().filter_map(|(&id, lease)| {
            let (last, class) = lease
                .usage
                .last()
                .unwrap_or((lease.since, Class::Background));
            let idle_for = now.saturating_duration_since(last.max(lease.since));
            let may_leave = !is_same(lease.usage.as_ref(), own)
                && !lease.usage.is_wanted()
                && idle_for >= self.idle_after;
            may_leave.then_some(Idle {
                id,
                bytes: lease.bytes,
                class,
                idle_for,
            })
        });
        let leaving = leaving(idle.collect(), missing(&state));
        for id in &leaving {
            if let Some(lease) = state.leases.get(id) {
                let _ = lease.events.try_send(Event::MakeRoom);
            }
        }
        let are_there = |state: &mut State| leaving.iter().any(|id| state.leases.contains_key(id));
        drop(self.freed.wait_timeout_while(state, PATIENCE, are_there));
    }

    /// Whether others have memory, too.
    pub(super) fn is_shared(&self, own: &dyn Usage) -> bool {
        let state = self.lock();
        state
            .leases
            .values()
            .any(|lease| !is_same(lease.usage.as_ref(), own))
    }
}

fn is_same(one: &dyn Usage, other: &dyn Usage) -> bool {
    std::ptr::addr_eq(one, other)
}

/// A model that may leave.
#[derive(Debug, Clone, Copy)]
struct Idle {
    id: u64,
    bytes: u64,
    /// Of its last request.
    class: Class,
    idle_for: Duration,
}

/// Who leaves so that `missing` bytes become free: as few as their order allows, and nobody if all of them together are too little.
fn leaving(mut idle: Vec<Idle>, missing: u64) -> Vec<u64> {
    idle.sort_by_key(|one| (std::cmp::Reverse((one.class, one.idle_for)), one.id));
    let mut freed = 0u64;
    let mut leaving = Vec::new();
    for one in idle {
        if freed >= missing {
            break;
        }
        freed = freed.saturating_add(one.bytes);
        leaving.push(one.id);
    }
    if freed < missing { Vec::new() } else { leaving }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(id: u64, bytes: u64, class: Class, seconds: u64) -> Idle {
        Idle {
            id,
            bytes,
            class,
            idle_for: Duration::from_secs(seconds),
        }
    }

    #[test]
    fn background_leaves_first_then_the_one_that_was_used_longest_ago() {
        let all = vec![
            idle(1, 10, Class::Local, 500),
            idle(2, 10, Class::Background, 90),
            idle(3, 10, Class::Background, 100),
            idle(4, 10, Class::Voice, 9000),
        ];
        assert_eq!(leaving(all.clone(), 5), [3]);
        assert_eq!(leaving(all.clone(), 15), [3, 2]);
        assert_eq!(leaving(all.clone(), 40), [3, 2, 1, 4]);
        assert_eq!(leaving(all.clone(), 41), [0u64; 0], "nobody leaves in vain");
        assert_eq!(leaving(all, 0), [0u64; 0]);
    }
}
