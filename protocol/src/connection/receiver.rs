//! The receiving half of delivery: what has arrived, what is a duplicate, what is owed an acknowledgement.

use alloc::vec::Vec;
use core::time::Duration;

use crate::Instant;
use crate::segment::{ArrivedSegment, Buffers, Channel, Reassembly, ReassemblyError};
use crate::wire::AckBody;

use super::timers::{Timer, TimerTable};
use super::{Config, Delivery};

/// How long an acknowledgement may wait on a link that loses nothing, where it only tells that memory may be freed: the most
/// that RFC 9293 §3.8.6.3 allows.
const TRUSTING_ACK_DELAY: Duration = Duration::from_millis(500);

/// What a Data packet turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    New,
    Duplicate,
    OutOfWindow,
}

/// The acknowledgement that is owed, in rising urgency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum AckDebt {
    None,
    /// May wait for the timer.
    Delayed,
    /// Now; may ride on a Data packet.
    Cumulative,
    /// Now, and in a packet of its own: there is a gap, a duplicate or a new credit to tell of.
    Selective,
}

/// Invariant: bit `i` of `received` says that packet `next_seq + 1 + i` has arrived; `next_seq` itself has not.
#[derive(Debug)]
pub(crate) struct Receiver {
    next_seq: u16,
    received: u64,
    window: u8,
    channels: [Reassembly; 4],
    debt: AckDebt,
    unacknowledged: u8,
    /// How many packets may wait for an acknowledgement.
    unacknowledged_max: u8,
    delivery: Delivery,
}

impl Receiver {
    pub(crate) fn new(config: &Config, first_seq: u16, delivery: Delivery) -> Self {
        let message_bytes_max = 1 << config.max_message_log2;
        Self {
            next_seq: first_seq,
            received: 0,
            window: config.receive_window,
            channels: core::array::from_fn(|_| Reassembly::new(message_bytes_max)),
            debt: AckDebt::None,
            unacknowledged: 0,
            unacknowledged_max: match delivery {
                // RFC 9293 §3.8.6.3: at least every second segment.
                Delivery::Repeating => 2,
                // Half of what the least urgent channel may have on its way, so that it need not wait.
                Delivery::Trusting => (bulk_window(config.receive_window) / 2).max(1),
            },
            delivery,
        }
    }

    /// Takes the segment of a Data packet; appends the messages that it completes to `messages`.
    pub(crate) fn on_segment(
        &mut self,
        seq: u16,
        channel: Channel,
        segment: &ArrivedSegment<'_>,
        messages: &mut Vec<Vec<u8>>,
        buffers: &mut Buffers,
    ) -> Result<Arrival, ReassemblyError> {
        let ahead = seq.wrapping_sub(self.next_seq);
        if self.delivery == Delivery::Trusting && ahead != 0 {
            let expected = self.next_seq;
            return Err(ReassemblyError::Gap { expected, seq });
        }
        let arrival = match ahead {
            0x8000.. => Arrival::Duplicate,
            ahead if ahead >= u16::from(self.window) => Arrival::OutOfWindow,
            0 => Arrival::New,
            ahead if self.received >> (ahead - 1) & 1 == 1 => Arrival::Duplicate,
            _ => Arrival::New,
        };
        if arrival != Arrival::New {
            // The peer's view is old; tell it ours.
            self.owe(AckDebt::Selective);
            return Ok(arrival);
        }
        let had_gap = self.received != 0;
        self.note(ahead);
        self.unacknowledged = self.unacknowledged.saturating_add(1);
        self.owe(if had_gap || self.received != 0 {
            AckDebt::Selective
        } else if self.unacknowledged >= self.unacknowledged_max {
            AckDebt::Cumulative
        } else {
            AckDebt::Delayed
        });
        self.channels[channel as usize].on_segment(segment, messages, buffers)?;
        Ok(Arrival::New)
    }

    fn note(&mut self, ahead: u16) {
        if ahead > 0 {
            self.received |= 1 << (ahead - 1);
            return;
        }
        loop {
            self.next_seq = self.next_seq.wrapping_add(1);
            let next_has_arrived = self.received & 1 == 1;
            self.received >>= 1;
            if !next_has_arrived {
                return;
            }
        }
    }

    pub(crate) fn owe(&mut self, debt: AckDebt) {
        self.debt = self.debt.max(debt);
    }

    pub(crate) fn debt(&self) -> AckDebt {
        self.debt
    }

    /// Starts the timer of a delayed acknowledgement.
    pub(crate) fn arm(&self, now: Instant, config: &Config, timers: &mut TimerTable) {
        if self.debt == AckDebt::Delayed {
            let delay = match self.delivery {
                Delivery::Repeating => config.ack_delay,
                Delivery::Trusting => TRUSTING_ACK_DELAY.max(config.ack_delay),
            };
            timers.set_if_idle(Timer::Ack, now + delay);
        }
    }

    /// The next packet waited for, as every header carries it; pays the debt that a Data packet can pay.
    pub(crate) fn ride(&mut self, timers: &mut TimerTable) -> u16 {
        if self.debt <= AckDebt::Cumulative {
            self.pay(timers);
        }
        self.next_seq
    }

    /// The acknowledgement of an Ack or Pong; pays every debt.
    pub(crate) fn acknowledge(&mut self, credit: u8, timers: &mut TimerTable) -> (u16, AckBody) {
        self.pay(timers);
        (
            self.next_seq,
            AckBody {
                credit,
                received: self.received,
            },
        )
    }

    fn pay(&mut self, timers: &mut TimerTable) {
        self.debt = AckDebt::None;
        self.unacknowledged = 0;
        timers.clear(Timer::Ack);
    }
}

/// How many packets of the least urgent channel a window has room for; each more urgent one is kept some more.
pub(crate) const fn bulk_window(window: u8) -> u8 {
    window.saturating_sub(kept_free(window) * Channel::Bulk as u8)
}

/// The places that each channel leaves to the next more urgent one.
pub(crate) const fn kept_free(window: u8) -> u8 {
    match window / 8 {
        0 => 1,
        places => places,
    }
}
