//! How many packets may be on their way at once, beside what the peer's window and credit allow.
//!
//! Not congestion control: a line is nobody else's. It keeps a slow line's buffers short, so that a round trip stays one, a
//! repeat is not queued behind a whole window, and a command does not wait behind what a deep buffer has swallowed.
//! It begins low and grows with each arrival (slow start, RFC 5681 §3.1) until round trips show a queue (the idea of HyStart++,
//! RFC 9406); it shrinks when nothing arrives at all. Loss alone changes nothing, for here it is noise and not a full queue.

use core::time::Duration;

/// RFC 5681 §3.1 allows 2 to 4 segments to begin with.
const PACKETS_MIN: u32 = 4;

/// A queue is seen when a round trip takes more than twice the least one and this: twice the usual delay of an
/// acknowledgement, which is no queue.
const QUEUE_ALLOWANCE: Duration = Duration::from_millis(40);

/// Invariant: `PACKETS_MIN <= packets <= packets_max`, or `packets == packets_max` where that is less.
#[derive(Debug)]
pub(crate) struct Pace {
    packets: u32,
    packets_max: u32,
}

impl Pace {
    pub(crate) fn new(window: u8) -> Self {
        let packets_max = u32::from(window);
        Self {
            packets: PACKETS_MIN.min(packets_max),
            packets_max,
        }
    }

    /// How many packets of the least urgent channel may be on their way.
    pub(crate) fn packets(&self) -> usize {
        self.packets as usize
    }

    /// `arrived` packets were acknowledged while as many were on their way as allowed.
    pub(crate) fn on_arrivals(&mut self, arrived: u32, smoothed: Duration, least: Duration) {
        if smoothed <= least * 2 + QUEUE_ALLOWANCE {
            self.packets = (self.packets + arrived).min(self.packets_max);
        }
    }

    /// Nothing arrived for a whole RTO.
    pub(crate) fn on_timeout(&mut self) {
        self.packets = (self.packets / 2).max(PACKETS_MIN.min(self.packets_max));
    }
}
