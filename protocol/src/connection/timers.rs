//! The deadlines of a connection, in one table.

use crate::Instant;

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timer {
    /// Send Hello again.
    Hello,
    /// The oldest packet in flight counts as lost.
    Retransmit,
    /// A packet that others overtook counts as lost.
    Reorder,
    /// An acknowledgement has waited long enough for data to ride on.
    Ack,
    /// The peer has been silent for one more interval.
    KeepAlive,
    /// An interrupted connection was not resumed in time.
    Resume,
    /// The other end has not proved itself in time.
    Handshake,
    /// Ask a peer that takes nothing whether it takes something again.
    Persist,
}

#[derive(Debug, Default)]
pub(crate) struct TimerTable([Option<Instant>; TIMERS]);

const TIMERS: usize = Timer::Persist as usize + 1;

impl TimerTable {
    pub(crate) fn set(&mut self, timer: Timer, at: Instant) {
        self.0[timer as usize] = Some(at);
    }

    pub(crate) fn set_if_idle(&mut self, timer: Timer, at: Instant) {
        self.0[timer as usize].get_or_insert(at);
    }

    pub(crate) fn clear(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    /// Clears the timer and says true if its time has come.
    pub(crate) fn expire(&mut self, timer: Timer, now: Instant) -> bool {
        let due = self.0[timer as usize].is_some_and(|at| at <= now);
        if due {
            self.clear(timer);
        }
        due
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.iter().flatten().min().copied()
    }
}
