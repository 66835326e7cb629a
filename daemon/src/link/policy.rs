//! When a link is opened and how long it rests: a pure machine.
//!
//! ```text
//! Disconnected -> Connecting -> Connected
//!                     |  ^          |
//!                     v  |          v
//!                  Reconnecting <---+        Failed: only a new configuration helps
//! ```
//!
//! `now` and randomness are arguments; the [supervisor](super::supervisor) sleeps.

use std::time::{Duration, Instant};

use autoglm_drivers::backoff::Backoff;

/// The state of a link, as observers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// Not started.
    Disconnected,
    /// Being opened, or waiting for the device's side of the handshake.
    Connecting {
        /// Tries so far without success.
        attempt: u32,
    },
    /// A device answers on it.
    Connected {
        /// Since when.
        since: Instant,
    },
    /// Resting before the next try.
    Reconnecting {
        /// Tries so far without success.
        attempt: u32,
        /// When the next one is.
        retry_at: Instant,
        /// What ended the last.
        cause: String,
    },
}

impl LinkState {
    /// The state's name on the bus and in logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Connecting { .. } => "connecting",
            Self::Connected { .. } => "connected",
            Self::Reconnecting { .. } => "reconnecting",
        }
    }

    /// Why it is not connected, if something went wrong.
    #[must_use]
    pub fn cause(&self) -> Option<&str> {
        match self {
            Self::Reconnecting { cause, .. } => Some(cause),
            _ => None,
        }
    }
}

/// The policy of one link.
#[derive(Debug)]
pub struct Policy {
    backoff: Backoff,
    attempt: u32,
    state: LinkState,
}

impl Policy {
    /// A link that was never tried.
    #[must_use]
    pub fn new(backoff: Backoff) -> Self {
        Self {
            backoff,
            attempt: 0,
            state: LinkState::Disconnected,
        }
    }

    /// The present state.
    #[must_use]
    pub fn state(&self) -> &LinkState {
        &self.state
    }

    /// It is being opened.
    pub fn on_connecting(&mut self) {
        self.state = LinkState::Connecting {
            attempt: self.attempt,
        };
    }

    /// A device answered.
    pub fn on_connected(&mut self, now: Instant) {
        self.state = LinkState::Connected { since: now };
    }

    /// It could not be opened, nobody answered, or the connection broke. Returns how long to rest.
    pub fn on_lost(&mut self, now: Instant, cause: String, random: f64) -> Duration {
        let lived = match self.state {
            LinkState::Connected { since } => now.saturating_duration_since(since),
            _ => Duration::ZERO,
        };
        let rest = self.backoff.delay(
            if lived >= self.backoff.healthy_after {
                0
            } else {
                self.attempt
            },
            random,
        );
        self.attempt = self.backoff.attempt_after(self.attempt, lived);
        self.state = LinkState::Reconnecting {
            attempt: self.attempt,
            retry_at: now + rest,
            cause,
        };
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff {
        min: Duration::from_millis(100),
        max: Duration::from_secs(2),
        healthy_after: Duration::from_secs(30),
    };

    #[test]
    fn rests_grow_while_a_link_stays_away_and_start_small_after_health() {
        let mut policy = Policy::new(BACKOFF);
        let start = Instant::now();
        let mut rests = Vec::new();
        for _ in 0..6 {
            policy.on_connecting();
            rests.push(policy.on_lost(start, "no such port".into(), 0.99));
        }
        assert!(rests.windows(2).all(|pair| pair[0] <= pair[1]), "{rests:?}");
        assert!(
            rests[5] <= BACKOFF.max && rests[5] > BACKOFF.min * 10,
            "{rests:?}"
        );
        policy.on_connected(start);
        assert_eq!(
            policy.on_lost(start + Duration::from_secs(31), "unplugged".into(), 0.99),
            BACKOFF.min
        );
    }

    #[test]
    fn a_link_that_breaks_at_once_keeps_its_rests() {
        let mut policy = Policy::new(BACKOFF);
        let start = Instant::now();
        for _ in 0..5 {
            policy.on_lost(start, "noise".into(), 0.5);
        }
        policy.on_connected(start);
        let rest = policy.on_lost(start + Duration::from_secs(1), "noise".into(), 0.5);
        assert!(rest > BACKOFF.min * 5, "{rest:?}");
        assert_eq!(policy.state().name(), "reconnecting");
        assert_eq!(policy.state().cause(), Some("noise"));
    }
}
