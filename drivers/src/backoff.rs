//! Jittered exponential back-off, as a pure function of the attempt and a random number.
//!
//! "Full jitter" after the AWS Architecture Blog, "Exponential Backoff And Jitter" (2015): the wait is
//! uniform in `[min, min(max, min * 2^attempt)]`, so that a thousand boxes whose broker restarts do
//! not come back in step. The lower bound is `min` and not zero: a link that fails at once would
//! otherwise spin.
//!
//! This module never sleeps and never reads a clock.

use std::time::Duration;

/// Limits of a back-off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Shortest wait; also the wait before the first retry.
    pub min: Duration,
    /// Longest wait.
    pub max: Duration,
    /// After this long in good health the attempts start again from zero.
    pub healthy_after: Duration,
}

impl Backoff {
    /// The wait before attempt number `attempt` (0 for the first retry), given `random` in `[0, 1)`.
    #[must_use]
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        let ceiling = self
            .min
            .saturating_mul(2u32.saturating_pow(attempt.min(31)))
            .clamp(self.min, self.max.max(self.min));
        self.min + (ceiling - self.min).mul_f64(random.clamp(0.0, 1.0))
    }

    /// The attempt number to go on from after a connection that lasted `lived`.
    #[must_use]
    pub fn attempt_after(&self, attempt: u32, lived: Duration) -> u32 {
        if lived >= self.healthy_after {
            0
        } else {
            attempt.saturating_add(1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff {
        min: Duration::from_millis(100),
        max: Duration::from_secs(10),
        healthy_after: Duration::from_secs(60),
    };

    #[test]
    fn delay_stays_within_its_bounds_for_every_attempt() {
        for attempt in [0, 1, 5, 31, 32, u32::MAX] {
            for random in [0.0, 0.5, 0.999] {
                let delay = BACKOFF.delay(attempt, random);
                assert!(
                    delay >= BACKOFF.min && delay <= BACKOFF.max,
                    "{attempt} {random}: {delay:?}"
                );
            }
        }
    }

    #[test]
    fn delay_grows_until_the_maximum() {
        assert_eq!(BACKOFF.delay(0, 0.999), BACKOFF.min);
        assert!(BACKOFF.delay(3, 0.999) > BACKOFF.delay(2, 0.999));
        assert_eq!(BACKOFF.delay(60, 1.0), BACKOFF.max);
    }

    #[test]
    fn a_healthy_connection_resets_the_attempts() {
        assert_eq!(BACKOFF.attempt_after(7, Duration::from_secs(61)), 0);
        assert_eq!(BACKOFF.attempt_after(7, Duration::from_secs(1)), 8);
    }
}
