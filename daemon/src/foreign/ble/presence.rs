//! Whether a sensor that only broadcasts is still there: pure, by how often it has spoken so far.

use std::time::{Duration, Instant};

/// Silence after which a sensor is away that has not yet shown how often it speaks. Most speak every minute, some every ten.
const UNKNOWN: Duration = Duration::from_secs(3600);
/// Pauses that show how often it speaks.
const PAUSES: u32 = 5;
/// So many of its longest pauses in a row are silence: radios lose advertisements.
const MISSED: u32 = 3;
/// The least silence: people walk in between.
const LEAST: Duration = Duration::from_secs(300);
/// The most.
const MOST: Duration = Duration::from_secs(6 * 3600);
/// The same for one that sends when something happens: a door may stay closed for a day.
const TRIGGERED: Duration = Duration::from_secs(48 * 3600);

/// One sensor's.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Presence {
    heard_at: Option<Instant>,
    longest: Duration,
    pauses: u32,
}

impl Presence {
    /// It was heard.
    pub(super) fn on_heard(&mut self, now: Instant) {
        if let Some(before) = self.heard_at.replace(now) {
            self.longest = self.longest.max(now.saturating_duration_since(before));
            self.pauses = self.pauses.saturating_add(1);
        }
    }

    /// It is away, and what it does when it is back may be something else.
    pub(super) fn on_away(&mut self) {
        *self = Self::default();
    }

    /// When it counts as away, if nothing is heard of it before; `None` while it is.
    pub(super) fn due(&self, is_triggered: bool) -> Option<Instant> {
        let patience = match (is_triggered, self.pauses < PAUSES) {
            (true, _) => TRIGGERED,
            (false, true) => UNKNOWN,
            (false, false) => (self.longest * MISSED).clamp(LEAST, MOST),
        };
        Some(self.heard_at? + patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sensor_is_away_after_three_of_its_own_pauses() {
        let (mut presence, start) = (Presence::default(), Instant::now());
        assert_eq!(presence.due(false), None);
        let minutes = |count: u64| start + Duration::from_secs(60 * count);
        presence.on_heard(minutes(0));
        assert_eq!(presence.due(false), Some(minutes(60)));
        for heard in [3, 6, 10, 13, 16] {
            presence.on_heard(minutes(heard));
        }
        assert_eq!(presence.due(false), Some(minutes(16 + 12)));
        presence.on_away();
        assert_eq!(presence.due(false), None);
    }

    #[test]
    fn a_sensor_that_speaks_every_second_may_be_silent_for_minutes() {
        let (mut presence, start) = (Presence::default(), Instant::now());
        for second in 0..10 {
            presence.on_heard(start + Duration::from_secs(second));
        }
        let last = start + Duration::from_secs(9);
        assert_eq!(presence.due(false), Some(last + LEAST));
        assert_eq!(presence.due(true), Some(last + TRIGGERED));
    }
}
