//! A host that tells the time on each connection and after each step of its clock, and what its device makes of it.

use autoglm_protocol::TimeSample;

use super::world::{DEVICE, HOST, World};

/// Unix time less the host's own clock, in microseconds.
const UNIX_AHEAD: u64 = 1_800_000_000_000_000;

#[derive(Debug, Default)]
pub(crate) struct Timekeeping {
    is_due: bool,
    is_answered: bool,
    /// What the host's clock was ahead of the true time since the last answer was heard, in microseconds: the next answer was given
    /// after that.
    ahead: Vec<u64>,
    pub(crate) samples: u64,
}

impl Timekeeping {
    pub(crate) fn on_connected(&mut self) {
        self.is_due = true;
    }

    pub(crate) fn is_done(&self) -> bool {
        !self.is_due && self.is_answered
    }

    pub(crate) fn turn(&mut self, world: &mut World) {
        let clock = world.clock(HOST);
        let ahead = clock.as_micros() - world.now.as_micros();
        if self.ahead.last().is_some_and(|last| *last != ahead) {
            self.is_due = true;
        }
        if self.ahead.last() != Some(&ahead) {
            self.ahead.push(ahead);
        }
        let unix_micros = clock.as_micros() + UNIX_AHEAD;
        if self.is_due && world.host.time_sync(clock, unix_micros).is_ok() {
            (self.is_due, self.is_answered) = (false, false);
        }
    }

    /// The device has heard the answer now.
    pub(crate) fn on_sample(&mut self, world: &World, sample: TimeSample) {
        assert_eq!(sample.at, world.clock(DEVICE));
        let now = world.now.as_micros();
        let truths = self.ahead.iter().map(|ahead| now + ahead + UNIX_AHEAD);
        let errors: Vec<_> = truths
            .map(|truth| sample.unix_micros.abs_diff(truth))
            .collect();
        assert!(
            errors
                .iter()
                .any(|error| *error <= sample.uncertainty_micros),
            "wrong by {errors:?}: {sample:?}"
        );
        self.ahead.drain(..self.ahead.len() - 1);
        self.is_answered = true;
        self.samples += 1;
    }
}
