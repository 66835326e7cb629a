//! How long a token takes, held against the best of its like: pure, time is passed in.
//!
//! Runs are compared with runs of as many rows over caches about as long, since both make a run longer by themselves. What is left says how the processors
//! are: shared with others, hot, or saving power. A fresh model begins with a fresh best.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Weight of the latest run, as a divisor.
const NEWEST: f64 = 8.0;

/// Runs of a kind before it says anything.
const RUNS_MIN: u32 = 16;

/// What is older says nothing of now.
const FRESH: Duration = Duration::from_secs(30);

/// Rows, and the length of the longest cache in powers of two: at most some hundred kinds.
type Like = (usize, u32);

/// Shared by the model's thread, which notes, and whoever wants to know.
#[derive(Debug, Default)]
pub(in super::super) struct Pulse(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    kinds: BTreeMap<Like, Pace>,
    last: Option<(Instant, f64)>,
}

#[derive(Debug, Clone, Copy)]
struct Pace {
    runs: u32,
    seconds: f64,
    best: f64,
}

impl Pulse {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another model runs from now on.
    pub(super) fn begin(&self) {
        *self.lock() = State::default();
    }

    /// One token for each of `rows`, whose longest cache holds `held`, took so long.
    pub(super) fn note(&self, rows: usize, held: usize, took: Duration, now: Instant) {
        let like = (rows, held.max(1).ilog2());
        let mut state = self.lock();
        let pace = state.kinds.entry(like).or_insert(Pace {
            runs: 0,
            seconds: took.as_secs_f64(),
            best: f64::INFINITY,
        });
        pace.runs = pace.runs.saturating_add(1);
        pace.seconds += (took.as_secs_f64() - pace.seconds) / NEWEST;
        if pace.runs < RUNS_MIN {
            return;
        }
        pace.best = pace.best.min(pace.seconds);
        let slower = pace.seconds / pace.best.max(f64::MIN_POSITIVE);
        state.last = Some((now, slower));
    }

    /// How many times as long as at its best a token takes now; `None` where too little was measured lately.
    pub(in super::super) fn slower(&self, now: Instant) -> Option<f64> {
        let (at, slower) = self.lock().last?;
        (now.saturating_duration_since(at) <= FRESH).then_some(slower)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_held_against_their_like_and_what_is_old_says_nothing() {
        let pulse = Pulse::default();
        let now = Instant::now();
        let note = |rows, held, millis, times| {
            for _ in 0..times {
                pulse.note(rows, held, Duration::from_millis(millis), now);
            }
        };
        note(1, 100, 10, 15);
        assert_eq!(pulse.slower(now), None, "too few");
        note(1, 100, 10, 1);
        assert_eq!(pulse.slower(now), Some(1.0));
        note(8, 1000, 80, 20);
        assert_eq!(pulse.slower(now), Some(1.0), "more rows are no slowness");
        note(1, 100, 30, 40);
        let slower = pulse.slower(now).unwrap();
        assert!((2.9..=3.0).contains(&slower), "{slower}");
        assert_eq!(pulse.slower(now + Duration::from_secs(31)), None);
        pulse.begin();
        assert_eq!(pulse.slower(now), None);
    }
}
