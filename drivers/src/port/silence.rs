//! Whether the device is still at the other end while somebody waits for its answer. Pure.
//!
//! A line that is broken at the device's end takes bytes and gives none, and no error tells of it. The protocol's keep-alive finds that
//! out after 30 s; whoever waits for an answer is told sooner: a device answers a probe at once, also while it works at a command.

use std::time::Duration;

use autoglm_protocol::Instant;

/// Silence after which the device is asked for a sign of life, and asked again. Chosen so that a command with the usual deadline (10 s)
/// still gets through by another link.
const PROBE_EVERY: Duration = Duration::from_millis(2_500);
/// Probes without an answer after which the link counts as broken, one more interval later: 7.5 s in all. A device that only was
/// busy for so long loses nothing: its link is opened again, and the connection is kept meanwhile.
const PROBES: u32 = 2;

/// What is to be done about silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing yet.
    Wait,
    /// Ask for a sign of life.
    Probe,
    /// Nobody is there.
    Broken,
}

/// The silence of one link.
#[derive(Debug)]
pub(super) struct Silence {
    /// When something came last, or the link was given.
    heard: Instant,
    /// Since when silence is no good sign: somebody waits, or waited when the first probe was sent.
    suspected: Option<Instant>,
    /// Probes since then.
    probes: u32,
}

impl Silence {
    pub(super) fn begin(now: Instant) -> Self {
        Self {
            heard: now,
            suspected: None,
            probes: 0,
        }
    }

    /// Something came.
    pub(super) fn on_heard(&mut self, now: Instant) {
        *self = Self::begin(now);
    }

    /// What is to be done now; `waiting` is since when somebody waits for an answer, if somebody does.
    pub(super) fn judge(&mut self, now: Instant, waiting: Option<Instant>) -> Verdict {
        // Whoever waited may have given up; a probe that was sent still wants its answer.
        if self.probes == 0 {
            self.suspected = waiting.map(|waiting| self.heard.max(waiting));
        }
        match self.deadline() {
            Some(deadline) if deadline <= now && self.probes == PROBES => Verdict::Broken,
            Some(deadline) if deadline <= now => {
                self.probes += 1;
                Verdict::Probe
            }
            _ => Verdict::Wait,
        }
    }

    /// When to judge again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.suspected
            .map(|since| since + PROBE_EVERY * (self.probes + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    /// What is done, and when, from `asked` on; the wait ends at `given_up`.
    fn history(silence: &mut Silence, asked: u64, given_up: u64) -> Vec<(u64, Verdict)> {
        let mut done = vec![(0, silence.judge(at(asked), Some(at(asked))))];
        while let Some(deadline) = silence.deadline() {
            let waiting = Some(at(asked)).filter(|_| deadline < at(given_up));
            let after = deadline.saturating_duration_since(at(asked));
            done.push((after.as_millis() as u64, silence.judge(deadline, waiting)));
            if done.len() > 9 || matches!(done.last(), Some((_, Verdict::Broken))) {
                break;
            }
        }
        done
    }

    #[test]
    fn a_device_that_is_silent_while_somebody_waits_is_given_up_after_two_probes() {
        let expected = [
            (0, Verdict::Wait),
            (2_500, Verdict::Probe),
            (5_000, Verdict::Probe),
            (7_500, Verdict::Broken),
        ];
        let mut silence = Silence::begin(at(100_000));
        assert_eq!(history(&mut silence, 200_000, u64::MAX / 2_000), expected);
        // Whoever asked gave up after the first probe: it is known all the same.
        let mut silence = Silence::begin(at(100_000));
        assert_eq!(history(&mut silence, 200_000, 203_000), expected);
    }

    #[test]
    fn a_sign_of_life_begins_the_count_anew() {
        let mut silence = Silence::begin(at(0));
        assert_eq!(silence.judge(at(2_500), Some(at(0))), Verdict::Probe);
        silence.on_heard(at(2_600));
        assert_eq!(silence.judge(at(5_000), Some(at(0))), Verdict::Wait);
        assert_eq!(silence.deadline(), Some(at(5_100)));
    }

    #[test]
    fn silence_is_no_fault_while_nobody_waits() {
        let mut silence = Silence::begin(at(0));
        assert_eq!(silence.judge(at(1_000_000), None), Verdict::Wait);
        assert_eq!(silence.deadline(), None);
        // Who asked has the answer before the first probe was due.
        assert_eq!(
            silence.judge(at(1_000_001), Some(at(1_000_001))),
            Verdict::Wait
        );
        assert_eq!(silence.judge(at(1_002_000), None), Verdict::Wait);
        assert_eq!(silence.deadline(), None);
    }
}
