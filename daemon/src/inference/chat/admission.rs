//! Whether a request that must begin soon can: an estimate from what is in flight and how long answers took lately.
//!
//! Shared between the handles, which ask and take tickets, and the model's thread, which reports. Nothing here looks at a
//! clock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

/// Weight of the latest answer in the running mean, as a divisor: 1/4 follows a change within a few answers, and one
/// long story does not shut the door.
const NEWEST: u64 = 4;

/// How busy the model is. The counters are only estimates for each other, so relaxed ordering is enough.
#[derive(Debug, Default)]
pub(super) struct Load {
    in_flight: AtomicUsize,
    mean_us: AtomicU64,
}

/// Counts as in flight until dropped.
#[derive(Debug)]
pub(super) struct Ticket(Arc<Load>);

impl Load {
    /// How long a new request would wait: everything in flight at the mean time. Zero before the first answer: nothing is
    /// refused on a guess.
    pub(super) fn estimated_wait(&self) -> Duration {
        let in_flight = self.in_flight.load(Ordering::Relaxed) as u64;
        Duration::from_micros(
            self.mean_us
                .load(Ordering::Relaxed)
                .saturating_mul(in_flight),
        )
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn enter(self: &Arc<Self>) -> Ticket {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Ticket(Arc::clone(self))
    }

    /// One answer took `took` of the model's time. Called by the one model thread.
    pub(super) fn report(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let mean = self.mean_us.load(Ordering::Relaxed);
        let next = if mean == 0 {
            took
        } else {
            mean - mean / NEWEST + took / NEWEST
        };
        self.mean_us.store(next, Ordering::Relaxed);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_grows_with_what_is_in_flight_and_falls_when_it_is_done() {
        let load = Arc::new(Load::default());
        let first = load.enter();
        assert_eq!(
            load.estimated_wait(),
            Duration::ZERO,
            "nothing is refused on a guess"
        );
        load.report(Duration::from_millis(200));
        let second = load.enter();
        assert_eq!(load.estimated_wait(), Duration::from_millis(400));
        drop((first, second));
        assert_eq!(load.estimated_wait(), Duration::ZERO);
    }

    #[test]
    fn the_mean_follows_a_change_within_a_few_answers() {
        let load = Arc::new(Load::default());
        let _ticket = load.enter();
        load.report(Duration::from_millis(100));
        (0..8).for_each(|_| load.report(Duration::from_millis(500)));
        let wait = load.estimated_wait();
        assert!(
            wait > Duration::from_millis(440) && wait <= Duration::from_millis(500),
            "{wait:?}"
        );
    }
}
