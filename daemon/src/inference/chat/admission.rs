//! Whether a request that must begin soon can: an estimate from what is in flight and how long answers took lately.
//!
//! Shared between the handles, which ask and take tickets, and the model's thread, which reports. Nothing here looks at a
//! clock.

use std::{
    num::NonZeroUsize,
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
#[derive(Debug)]
pub(super) struct Load {
    /// Answers that are under way at a time.
    lanes: NonZeroUsize,
    in_flight: AtomicUsize,
    mean_us: AtomicU64,
}

/// Counts as in flight until dropped.
#[derive(Debug)]
pub(super) struct Ticket(Arc<Load>);

impl Load {
    pub(super) fn new(lanes: NonZeroUsize) -> Self {
        Self {
            lanes,
            in_flight: AtomicUsize::new(0),
            mean_us: AtomicU64::new(0),
        }
    }

    /// How long a new request would wait: until enough of those in flight have ended, at the mean time and side by side. Zero while a
    /// lane is free, and before the first answer: nothing is refused on a guess.
    pub(super) fn estimated_wait(&self) -> Duration {
        let lanes = self.lanes.get();
        let ahead = (self.in_flight.load(Ordering::Relaxed) + 1).saturating_sub(lanes) as u64;
        let mean_us = self.mean_us.load(Ordering::Relaxed);
        Duration::from_micros(mean_us.saturating_mul(ahead) / lanes as u64)
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
        let load = Arc::new(Load::new(NonZeroUsize::MIN));
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
    fn nobody_waits_while_a_lane_is_free() {
        let load = Arc::new(Load::new(NonZeroUsize::new(4).unwrap()));
        load.report(Duration::from_millis(400));
        let tickets: Vec<Ticket> = (0..3).map(|_| load.enter()).collect();
        assert_eq!(load.estimated_wait(), Duration::ZERO);
        let fourth = load.enter();
        assert_eq!(load.estimated_wait(), Duration::from_millis(100));
        drop((tickets, fourth));
    }

    #[test]
    fn the_mean_follows_a_change_within_a_few_answers() {
        let load = Arc::new(Load::new(NonZeroUsize::MIN));
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
