//! What is done about a scan that hears nobody: it may be a quiet place, or a scan that fell silent (btleplug #332, controllers
//! whose firmware hangs). Each rescue is harmless in a quiet place; the one that is not, switching the adapter off and on, is
//! done late, seldom, and never while a device is connected.

use std::time::{Duration, Instant};

/// A scan that heard nobody for so long is started anew, which costs a third of a second. Chosen because most places have some
/// device that advertises within it.
const SILENCE: Duration = Duration::from_secs(20);
/// The pause between rescues after the first ones brought nothing.
const LONG_SILENCE: Duration = Duration::from_secs(300);
/// Rescues before the pauses become long; the last of them takes a new event stream.
const QUICK: u32 = 3;
/// Rescues before the adapter is switched off and on.
const PATIENCE: u32 = 5;
/// The least time between two switchings.
const CYCLE_AGAIN: Duration = Duration::from_secs(3600);

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rescue {
    /// Stop the scan; it is started again.
    Restart,
    /// The same, with a new event stream.
    ListenAnew,
    /// Switch the adapter off and on.
    PowerCycle,
}

/// Watches over one adapter's scan.
#[derive(Debug, Default)]
pub(super) struct Watchdog {
    due: Option<Instant>,
    rescues: u32,
    cycled_at: Option<Instant>,
}

impl Watchdog {
    /// A device was heard.
    pub(super) fn on_heard(&mut self, now: Instant) {
        self.rescues = 0;
        self.due = self.due.map(|_| now + SILENCE);
    }

    /// The scan runs.
    pub(super) fn on_scan(&mut self, now: Instant) {
        let patience = if self.rescues <= QUICK {
            SILENCE
        } else {
            LONG_SILENCE
        };
        self.due = Some(now + patience);
    }

    /// The scan does not run.
    pub(super) fn on_rest(&mut self) {
        self.due = None;
    }

    /// When it has been silent for too long.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Chooses the next rescue.
    pub(super) fn rescue(&mut self, now: Instant, is_idle: bool) -> Rescue {
        self.due = None;
        self.rescues = self.rescues.saturating_add(1);
        let may_cycle = is_idle
            && self
                .cycled_at
                .is_none_or(|at| now.saturating_duration_since(at) >= CYCLE_AGAIN);
        match self.rescues {
            QUICK => Rescue::ListenAnew,
            rescues if rescues >= PATIENCE && may_cycle => {
                self.cycled_at = Some(now);
                Rescue::PowerCycle
            }
            _ => Rescue::Restart,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silence(watchdog: &mut Watchdog, now: &mut Instant, is_idle: bool) -> Rescue {
        watchdog.on_scan(*now);
        *now = watchdog.due().unwrap();
        watchdog.rescue(*now, is_idle)
    }

    #[test]
    fn rescues_escalate_and_the_adapter_is_switched_at_most_hourly() {
        let (mut watchdog, mut now) = (Watchdog::default(), Instant::now());
        let start = now;
        let first: Vec<_> = (0..5)
            .map(|_| silence(&mut watchdog, &mut now, true))
            .collect();
        use Rescue::{ListenAnew, PowerCycle, Restart};
        assert_eq!(first, [Restart, Restart, ListenAnew, Restart, PowerCycle]);
        let switched = now;
        while silence(&mut watchdog, &mut now, true) != PowerCycle {
            assert!(now - start < Duration::from_secs(3 * 3600));
        }
        assert!(now - switched >= CYCLE_AGAIN);
    }

    #[test]
    fn the_adapter_is_never_switched_while_a_device_is_connected() {
        let (mut watchdog, mut now) = (Watchdog::default(), Instant::now());
        for _ in 0..100 {
            assert_ne!(silence(&mut watchdog, &mut now, false), Rescue::PowerCycle);
        }
    }

    #[test]
    fn whoever_is_heard_resets_everything() {
        let (mut watchdog, mut now) = (Watchdog::default(), Instant::now());
        for _ in 0..4 {
            silence(&mut watchdog, &mut now, true);
        }
        watchdog.on_scan(now);
        watchdog.on_heard(now);
        assert_eq!(watchdog.due(), Some(now + SILENCE));
        assert_eq!(silence(&mut watchdog, &mut now, true), Rescue::Restart);
    }
}
