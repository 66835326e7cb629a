//! The exchange from which a device learns the time, and how far that may be wrong.
//!
//! The host prompts (TimeSync), the device asks, the host answers: the four timestamps of RFC 5905 §8. All that is assumed is
//! that no message arrives before it was sent, so the bound holds however unequal the two ways are, through repeats and
//! resumptions too: those only widen it. Stamps are taken when a message is queued or read, which widens it by that wait.
//!
//! The device's clock is monotonic and never set; unix time is an offset to it. A clock that stepped during the exchange makes
//! the bound wide, or impossible, and then the exchange is dropped; after a step the next exchange tells the new offset.

use core::time::Duration;

use crate::Instant;

/// How often a host's driver had better call [`Host::time_sync`](crate::Host::time_sync), besides once on each connection: every
/// 64 s (RFC 5905 §7.2, MINPOLL 6 in its usual setting), in which a crystal of 100 ppm drifts by 6.4 ms, as far as a slow link leaves open anyway.
pub const TIME_SYNC_INTERVAL: Duration = Duration::from_secs(64);

/// What one exchange told a device. For some `e` of at most `uncertainty_micros`, the host's clock showed `unix_micros + e` at `at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeSample {
    /// When the answer came, on the device's own clock.
    pub at: Instant,
    /// The time then, in microseconds since 1970-01-01T00:00:00Z.
    pub unix_micros: u64,
    /// How far that may be wrong to either side, in microseconds: half the round trip, less what the host took, and 1 for the stamps'
    /// resolution. What either clock drifts is not in it.
    pub uncertainty_micros: u64,
}

impl TimeSample {
    /// The time at `instant`, in microseconds since 1970-01-01T00:00:00Z, as far as the device's clock keeps its pace.
    #[must_use]
    pub fn unix_micros_at(&self, instant: Instant) -> u64 {
        let (at, instant) = (self.at.as_micros(), instant.as_micros());
        let unix = self.unix_micros.saturating_add(instant.saturating_sub(at));
        unix.saturating_sub(at.saturating_sub(instant))
    }

    /// Of an exchange: asked at `asked` and answered at `answered` on the device's clock, which the host's clock saw come at
    /// `received` and left at `sent`. `None` if the clocks contradict each other: one was set meanwhile.
    fn new(asked: Instant, received: u64, sent: u64, answered: Instant) -> Option<Self> {
        // The answer came after it was sent, and the request was asked before it came.
        let earliest = sent;
        let latest = received.checked_add((answered - asked).as_micros().try_into().ok()?)?;
        let width = latest.checked_sub(earliest)?;
        Some(Self {
            at: answered,
            unix_micros: earliest + width / 2,
            uncertainty_micros: width.div_ceil(2) + 1,
        })
    }
}

/// The host's half.
#[derive(Debug, Default)]
pub(crate) struct TimeServer {
    /// The unix time that its driver told last, and when.
    told: Option<(Instant, u64)>,
    /// A request that waits for its answer: what stands in it, and when it came.
    asked: Option<(u64, Instant)>,
}

impl TimeServer {
    /// The driver tells the time.
    pub(crate) fn set(&mut self, now: Instant, unix_micros: u64) {
        self.told = Some((now, unix_micros));
    }

    /// The device asks; the latest request is the one that counts.
    pub(crate) fn on_request(&mut self, now: Instant, asked: u64) {
        self.asked = Some((asked, now));
    }

    /// The answer that is due, if any: `asked`, `received`, `sent`.
    pub(crate) fn reply(&self, now: Instant) -> Option<(u64, u64, u64)> {
        let ((told_at, unix_micros), (asked, came)) = (self.told?, self.asked?);
        let elapsed = |since: Instant| (now - since).as_micros() as u64;
        let sent = unix_micros.saturating_add(elapsed(told_at));
        // Both of one reading, so that a clock that is set between them changes neither's distance.
        let received = sent.saturating_sub(elapsed(came));
        Some((asked, received, sent))
    }

    /// The answer is on its way, or nobody waits for it any more.
    pub(crate) fn forget_request(&mut self) {
        self.asked = None;
    }
}

/// The device's half.
#[derive(Debug, Default)]
pub(crate) struct TimeClient {
    state: ClientState,
}

#[derive(Debug, Default, PartialEq)]
enum ClientState {
    #[default]
    Idle,
    /// Prompted; the request waits for room.
    Prompted,
    /// Asked then; the answer names it.
    Asked(Instant),
}

impl TimeClient {
    /// The host prompts; what was asked before is asked anew.
    pub(crate) fn on_prompt(&mut self) {
        self.state = ClientState::Prompted;
    }

    pub(crate) fn is_prompted(&self) -> bool {
        self.state == ClientState::Prompted
    }

    /// The request is on its way.
    pub(crate) fn on_asked(&mut self, now: Instant) {
        self.state = ClientState::Asked(now);
    }

    /// `None` for an answer to another request, or one that makes no sense.
    pub(crate) fn on_reply(
        &mut self,
        now: Instant,
        asked: u64,
        received: u64,
        sent: u64,
    ) -> Option<TimeSample> {
        let ClientState::Asked(at) = self.state else {
            return None;
        };
        if at.as_micros() != asked || received > sent {
            return None;
        }
        self.state = ClientState::Idle;
        TimeSample::new(at, received, sent, now)
    }

    pub(crate) fn on_lost(&mut self) {
        self.state = ClientState::Idle;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Instant {
        Instant::from_micros(micros)
    }

    #[test]
    fn the_sample_is_the_middle_of_what_is_possible() {
        // 100 µs of round trip, of which the host took 40.
        let sample = TimeSample::new(at(1_000), 5_000, 5_040, at(1_100)).expect("possible");
        assert_eq!((sample.unix_micros, sample.uncertainty_micros), (5_070, 31));
    }

    #[test]
    fn clocks_that_contradict_each_other_give_nothing() {
        let host_took_longer_than_the_round_trip = TimeSample::new(at(0), 0, 101, at(100));
        assert_eq!(host_took_longer_than_the_round_trip, None);
        assert_eq!(TimeSample::new(at(0), u64::MAX, u64::MAX, at(1)), None);
    }

    #[test]
    fn an_answer_counts_once_and_only_for_the_latest_request() {
        let mut client = TimeClient::default();
        assert_eq!(client.on_reply(at(9), 0, 1, 1), None, "nothing was asked");
        client.on_prompt();
        client.on_asked(at(10));
        client.on_prompt();
        assert_eq!(client.on_reply(at(11), 10, 1, 1), None, "asked anew");
        client.on_asked(at(12));
        assert_eq!(client.on_reply(at(13), 10, 1, 1), None, "the earlier one");
        assert_eq!(
            client.on_reply(at(13), 12, 2, 1),
            None,
            "sent before it came"
        );
        assert!(client.on_reply(at(13), 12, 1, 1).is_some());
        assert_eq!(client.on_reply(at(13), 12, 1, 1), None, "answered already");
    }
}
