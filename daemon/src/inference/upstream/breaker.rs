//! Whether an engine elsewhere is asked at all: a circuit breaker. Pure: time and randomness are arguments.
//!
//! ```text
//! closed ── failures in a row, or one that says so ──► open until … ── time is up ──► half-open: one request tries
//!    ▲                                                    ▲                              │            │
//!    └─────────────────────────── its first word ─────────┼──────────────────────────────┘            │
//!                                                         └──────────────── it fails ─────────────────┘
//! ```
//! After the trial's first word the engine is on probation: the next failure opens the breaker again, with a longer rest. Only an answer
//! that came to its end takes both back. What a request says that began before the breaker last opened counts for nothing.

use std::time::{Duration, Instant};

use autoglm_drivers::backoff::Backoff;

/// The breaker of one engine.
#[derive(Debug, Clone)]
pub struct Breaker {
    failures_max: u32,
    rest: Backoff,
    state: State,
    /// How often it has opened since an answer last came to its end: the exponent of the rest.
    opened: u32,
    /// Grows when it opens; tells late news from new.
    epoch: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen,
}

/// Where a breaker stands, for observers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// Requests go through.
    Closed,
    /// None does until then; afterwards one tries.
    Open {
        /// When the next may try.
        until: Instant,
    },
    /// One is trying.
    HalfOpen,
}

/// A request that was let through. It tells what becomes of it by [`Breaker`]'s methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    epoch: u64,
    is_trial: bool,
}

/// How bad a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// It may be this once.
    Perhaps,
    /// The next request would fare the same: leave it alone at once, and at least for so long.
    Certain {
        /// What the engine itself asked for; zero when it asked for nothing.
        at_least: Duration,
    },
}

impl Breaker {
    /// A closed one. `failures_max` is at least 1; of `rest` the shortest and the longest time count.
    #[must_use]
    pub fn new(failures_max: u32, rest: Backoff) -> Self {
        Self {
            failures_max: failures_max.max(1),
            rest,
            state: State::Closed { failures: 0 },
            opened: 0,
            epoch: 0,
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn position(&self) -> Position {
        match self.state {
            State::Closed { .. } => Position::Closed,
            State::Open { until } => Position::Open { until },
            State::HalfOpen => Position::HalfOpen,
        }
    }

    /// Lets a request through, or says for how long none is (zero while one is trying).
    ///
    /// # Errors
    /// The time until the next may try.
    pub fn admit(&mut self, now: Instant) -> Result<Pass, Duration> {
        let is_trial = match self.state {
            State::Closed { .. } => false,
            State::Open { until } if now >= until => {
                self.state = State::HalfOpen;
                true
            }
            State::Open { until } => return Err(until - now),
            State::HalfOpen => return Err(Duration::ZERO),
        };
        Ok(Pass {
            epoch: self.epoch,
            is_trial,
        })
    }

    /// The first word came.
    pub fn began(&mut self, pass: &mut Pass) {
        if pass.epoch == self.epoch && std::mem::take(&mut pass.is_trial) {
            self.state = State::Closed {
                failures: self.failures_max - 1,
            };
        }
    }

    /// The answer came to its end.
    pub fn ended(&mut self, mut pass: Pass) {
        self.began(&mut pass);
        if pass.epoch == self.epoch {
            self.state = State::Closed { failures: 0 };
            self.opened = 0;
        }
    }

    /// Nobody wants the answer any more, or the request was at fault: nothing was learned about the engine.
    pub fn withdrew(&mut self, pass: Pass, now: Instant) {
        if pass.epoch == self.epoch && pass.is_trial {
            // The next may try at once.
            self.state = State::Open { until: now };
        }
    }

    /// The engine failed. `random` in `[0, 1)`.
    pub fn failed(&mut self, pass: Pass, severity: Severity, now: Instant, random: f64) {
        if pass.epoch != self.epoch {
            return;
        }
        let at_least = match (self.state, severity) {
            (State::Closed { failures }, Severity::Perhaps) if failures + 1 < self.failures_max => {
                self.state = State::Closed {
                    failures: failures + 1,
                };
                return;
            }
            (_, Severity::Perhaps) => Duration::ZERO,
            (_, Severity::Certain { at_least }) => at_least,
        };
        // From 1, since the wait of attempt 0 has no jitter: boxes whose engine restarts must not come back in step.
        let rest = self.rest.delay(self.opened.saturating_add(1), random);
        self.opened = self.opened.saturating_add(1);
        self.epoch += 1;
        self.state = State::Open {
            until: now + rest.max(at_least),
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REST: Backoff = Backoff {
        min: Duration::from_millis(100),
        max: Duration::from_secs(10),
        healthy_after: Duration::ZERO,
    };

    fn open(breaker: &mut Breaker, now: Instant) -> Instant {
        let pass = breaker.admit(now).unwrap();
        let certain = Severity::Certain {
            at_least: Duration::ZERO,
        };
        breaker.failed(pass, certain, now, 0.5);
        match breaker.position() {
            Position::Open { until } => until,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn failures_in_a_row_open_it_and_an_answer_between_them_does_not() {
        let now = Instant::now();
        let mut breaker = Breaker::new(3, REST);
        for turn in 0..8 {
            let pass = breaker.admit(now).unwrap();
            match turn % 3 {
                2 => breaker.ended(pass),
                _ => breaker.failed(pass, Severity::Perhaps, now, 0.0),
            }
        }
        assert_eq!(breaker.position(), Position::Closed, "never three in a row");
        let pass = breaker.admit(now).unwrap();
        breaker.failed(pass, Severity::Perhaps, now, 0.0);
        assert!(matches!(breaker.position(), Position::Open { .. }));
    }

    #[test]
    fn one_tries_and_until_its_first_word_the_others_wait() {
        let mut breaker = Breaker::new(3, REST);
        let until = open(&mut breaker, Instant::now());
        assert!(breaker.admit(until - Duration::from_millis(1)).is_err());
        let mut trial = breaker.admit(until).unwrap();
        assert_eq!(breaker.admit(until), Err(Duration::ZERO));
        breaker.began(&mut trial);
        assert!(breaker.admit(until).is_ok());
        // On probation: one failure is enough, and the rest is longer.
        breaker.failed(trial, Severity::Perhaps, until, 0.5);
        let Position::Open { until: next } = breaker.position() else {
            panic!("it broke off")
        };
        assert!(next - until > REST.delay(1, 0.5));
    }

    #[test]
    fn the_engine_s_own_wish_is_honoured_beyond_our_longest_rest() {
        let now = Instant::now();
        let mut breaker = Breaker::new(3, REST);
        let pass = breaker.admit(now).unwrap();
        let wish = Duration::from_secs(3600);
        breaker.failed(pass, Severity::Certain { at_least: wish }, now, 0.0);
        assert_eq!(breaker.position(), Position::Open { until: now + wish });
    }

    #[test]
    fn late_news_counts_for_nothing() {
        let now = Instant::now();
        let mut breaker = Breaker::new(3, REST);
        let (good, bad) = (breaker.admit(now).unwrap(), breaker.admit(now).unwrap());
        let until = open(&mut breaker, now);
        breaker.ended(good);
        breaker.failed(bad, Severity::Perhaps, now, 0.9);
        assert_eq!(breaker.position(), Position::Open { until });
    }

    #[test]
    fn a_trial_that_nobody_wants_makes_room_for_the_next() {
        let mut breaker = Breaker::new(3, REST);
        let until = open(&mut breaker, Instant::now());
        let trial = breaker.admit(until).unwrap();
        breaker.withdrew(trial, until);
        assert!(breaker.admit(until).is_ok());
    }

    #[derive(Debug, Clone)]
    enum Move {
        Ask,
        Begin(usize),
        End(usize),
        Withdraw(usize),
        Fail(usize, bool, f64),
        Wait(u64),
    }

    fn moves() -> impl Strategy<Value = Vec<Move>> {
        let which = 0..8_usize;
        let one = prop_oneof![
            3 => Just(Move::Ask),
            1 => which.clone().prop_map(Move::Begin),
            1 => which.clone().prop_map(Move::End),
            1 => which.clone().prop_map(Move::Withdraw),
            3 => (which, any::<bool>(), 0.0..1.0_f64).prop_map(|(at, certain, random)| Move::Fail(at, certain, random)),
            2 => (0..20_000_u64).prop_map(Move::Wait),
        ];
        prop::collection::vec(one, 0..200)
    }

    proptest! {
        /// Whatever happens in whatever order: while it is open nobody passes before the time and after it exactly one does; it never stays
        /// open longer than the longest rest; and with everybody gone it lets a request through again.
        #[test]
        fn it_always_comes_back_and_never_lets_two_try(moves in moves(), failures_max in 1..5_u32) {
            let mut now = Instant::now();
            let mut breaker = Breaker::new(failures_max, REST);
            let mut passes: Vec<Pass> = Vec::new();
            for step in moves {
                let before = breaker.position();
                match step {
                    Move::Ask => match (before, breaker.admit(now)) {
                        (Position::Closed, result) => passes.push(result.unwrap()),
                        (Position::Open { until }, Ok(pass)) => {
                            prop_assert!(now >= until && pass.is_trial);
                            passes.push(pass);
                        }
                        (Position::Open { until }, Err(rest)) => prop_assert_eq!(now + rest, until),
                        (Position::HalfOpen, result) => prop_assert!(result.is_err()),
                    },
                    Move::Begin(at) => if let Some(pass) = passes.get_mut(at) { breaker.began(pass) },
                    Move::End(at) => if at < passes.len() { breaker.ended(passes.remove(at)) },
                    Move::Withdraw(at) => if at < passes.len() { breaker.withdrew(passes.remove(at), now) },
                    Move::Fail(at, certain, random) => if at < passes.len() {
                        let severity = match certain {
                            true => Severity::Certain { at_least: Duration::ZERO },
                            false => Severity::Perhaps,
                        };
                        breaker.failed(passes.remove(at), severity, now, random);
                    },
                    Move::Wait(millis) => now += Duration::from_millis(millis),
                }
                let trying = passes.iter().filter(|pass| pass.is_trial && pass.epoch == breaker.epoch).count();
                prop_assert!(trying <= 1);
                prop_assert_eq!(trying == 1, breaker.position() == Position::HalfOpen);
                if let Position::Open { until } = breaker.position() {
                    prop_assert!(until <= now + REST.max);
                }
            }
            for pass in passes {
                breaker.withdrew(pass, now);
            }
            prop_assert!(breaker.admit(now + REST.max).is_ok());
        }
    }
}
