//! The sending half of delivery: window, selective repeat, loss detection.
//!
//! Packets are numbered once and repeated under their number until acknowledged. A packet counts as lost when what was sent
//! after it has arrived (see [`LossDetector`]), or when nothing at all is acknowledged for one RTO (RFC 6298 §5).

mod arrivals;

use alloc::collections::VecDeque;
use core::time::Duration;

use crate::Instant;
use crate::segment::{Buffers, Channel, OutgoingQueues, Segment};
use crate::wire::DATA_HEADER_BYTES;

use super::loss::{LossDetector, Transmission};
use super::pace::Pace;
use super::protection::Protection;
use super::receiver::kept_free;
use super::rtt::RttEstimator;
use super::timers::{Timer, TimerTable};
use super::{Config, Delivery, LinkKind};

/// How often one packet may get lost while others get through, before the link counts as unable to carry it. Chosen because at
/// 30 % loss each way a packet fails this often once in 10^5 connections' lifetimes, while a packet too large for the real MTU
/// fails always. While nothing at all is heard, nothing is counted: silence has its own limit.
const LOSSES_MAX: u32 = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Flying,
    Lost,
    /// Arrived out of order; kept until the cumulative acknowledgement passes it.
    Arrived,
}

#[derive(Debug)]
struct InFlight {
    segment: Segment,
    fate: Fate,
    sent_at: Instant,
    /// Of its latest transmission, over all packets.
    number: u64,
    transmissions: u32,
    /// How often it got lost while the peer was heard.
    losses: u32,
}

impl InFlight {
    fn bytes(&self) -> usize {
        DATA_HEADER_BYTES + self.segment.payload.len()
    }

    fn transmission(&self) -> Transmission {
        Transmission {
            number: self.number,
            sent_at: self.sent_at,
            is_repeat: self.transmissions > 1,
        }
    }
}

/// An acknowledgement of what was never sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadAck;

/// A packet was lost [`LOSSES_MAX`] times while others got through.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct GaveUp;

/// A round trip, and the size of the packet that made it.
#[derive(Debug)]
struct Sample {
    round_trip: Duration,
    bytes: usize,
}

/// A Data packet to be sent now.
#[derive(Debug)]
pub(crate) struct Departure<'a> {
    pub(crate) seq: u16,
    pub(crate) segment: &'a Segment,
    pub(crate) is_repeat: bool,
}

/// Invariants: `in_flight` holds the packets `first_unacked .. next_seq` in order, at most `window` of them.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) queues: OutgoingQueues,
    pub(crate) rtt: RttEstimator,
    in_flight: VecDeque<InFlight>,
    next_seq: u16,
    payload_max: usize,
    window: u8,
    credit: u8,
    next_transmission: u64,
    losses: LossDetector,
    pace: Pace,
    delivery: Delivery,
    /// How long a link that loses nothing may take until it is asked whether it really did not.
    check_after: Duration,
    /// Something was heard since the last time-out.
    was_heard: bool,
    timed_out_at: Option<Instant>,
}

impl Sender {
    pub(crate) fn new(
        config: &Config,
        (link, delivery): (LinkKind, Delivery),
        first_seq: u16,
        payload_max: usize,
        window: u8,
    ) -> Self {
        Self {
            queues: match config.resume_window.is_zero() {
                true => OutgoingQueues::new(config.send_queue_bytes),
                false => OutgoingQueues::new(config.send_queue_bytes).keeping(),
            },
            rtt: RttEstimator::new(config),
            in_flight: VecDeque::new(),
            next_seq: first_seq,
            payload_max,
            window,
            credit: window,
            next_transmission: 0,
            losses: LossDetector::new(link),
            pace: Pace::new(window),
            delivery,
            check_after: config.keep_alive,
            was_heard: true,
            timed_out_at: None,
        }
    }

    /// The next packet that may be sent: the most urgent channel first, on each channel repeats before news.
    pub(crate) fn poll(
        &mut self,
        now: Instant,
        protection: &mut Protection,
        timers: &mut TimerTable,
        buffers: &mut Buffers,
    ) -> Option<Departure<'_>> {
        let (index, is_repeat) = Channel::ALL.iter().find_map(|&channel| {
            let lost =
                |packet: &InFlight| packet.fate == Fate::Lost && packet.segment.channel == channel;
            match self.in_flight.iter().position(lost) {
                Some(index) => Some((index, true)),
                None => self
                    .admit(now, channel, protection, buffers)
                    .map(|index| (index, false)),
            }
        })?;
        let number = self.next_transmission;
        self.next_transmission += 1;
        let bytes = self.in_flight[index].bytes();
        timers.set_if_idle(Timer::Retransmit, now + self.patience(bytes));
        let seq = self.first_unacked().wrapping_add(index as u16);
        let packet = &mut self.in_flight[index];
        packet.fate = Fate::Flying;
        packet.sent_at = now;
        packet.number = number;
        packet.transmissions += 1;
        Some(Departure {
            seq,
            segment: &packet.segment,
            is_repeat,
        })
    }

    /// Takes the next segment of `channel` into flight if the window allows; gives its index.
    fn admit(
        &mut self,
        now: Instant,
        channel: Channel,
        protection: &mut Protection,
        buffers: &mut Buffers,
    ) -> Option<usize> {
        if self.in_flight.len() >= self.window_for(channel) || !self.is_paced(channel) {
            return None;
        }
        if protection.is_sealed() {
            self.queues.seal_next(channel, buffers, |message| {
                protection.seal(channel, message)
            });
        }
        let segment = self
            .queues
            .pop_segment(channel, self.payload_max, buffers)?;
        self.in_flight.push_back(InFlight {
            segment,
            fate: Fate::Flying,
            sent_at: now,
            number: 0,
            transmissions: 0,
            losses: 0,
        });
        self.next_seq = self.next_seq.wrapping_add(1);
        Some(self.in_flight.len() - 1)
    }

    /// Less urgent channels leave slots free, so that a full window of bulk data does not hold up a command.
    fn window_for(&self, channel: Channel) -> usize {
        let kept_free = kept_free(self.window) * channel as u8;
        usize::from(self.window.saturating_sub(kept_free).min(self.credit))
    }

    /// Whether one more packet may be on its way; a repeat always may, for the line has lost what it replaces. Each more urgent channel may have one more than the next.
    fn is_paced(&self, channel: Channel) -> bool {
        if self.delivery == Delivery::Trusting {
            // Acknowledgements come too seldom to pace by.
            return true;
        }
        let urgency = Channel::Bulk as usize - channel as usize;
        self.flying() < self.pace.packets() + urgency
    }

    /// The size of the largest packet that has not arrived.
    fn largest_in_flight(&self) -> Option<usize> {
        let waiting = self
            .in_flight
            .iter()
            .filter(|packet| packet.fate != Fate::Arrived);
        waiting.map(InFlight::bytes).max()
    }

    fn flying(&self) -> usize {
        let is_flying = |packet: &&InFlight| packet.fate == Fate::Flying;
        self.in_flight.iter().filter(is_flying).count()
    }

    /// A packet was written; what it held is not needed again where nothing is repeated.
    pub(crate) fn on_written(&mut self, buffers: &mut Buffers) {
        if self.delivery == Delivery::Trusting
            && let Some(packet) = self.in_flight.back_mut()
        {
            buffers.give(core::mem::take(&mut packet.segment.payload));
        }
    }

    /// How long a packet of `bytes` may take until it is repeated, or asked for.
    fn patience(&self, bytes: usize) -> Duration {
        match self.delivery {
            Delivery::Repeating => self.rtt.rto(bytes),
            Delivery::Trusting => self.check_after,
        }
    }

    pub(crate) fn delivery(&self) -> Delivery {
        self.delivery
    }

    /// The number of the next packet.
    pub(crate) fn next_seq(&self) -> u16 {
        self.next_seq
    }

    /// The first packet before `end` that has not arrived.
    pub(crate) fn missing_before(&self, end: u16) -> Option<u16> {
        let first = self.first_unacked();
        let is_before = (1..0x8000).contains(&end.wrapping_sub(first));
        is_before.then_some(first)
    }

    /// Whether messages wait, nothing is in flight, and only the peer's missing credit holds them up.
    pub(crate) fn is_starved(&self) -> bool {
        self.credit == 0 && self.in_flight.is_empty() && !self.queues.is_empty()
    }

    /// Whether everything that was taken has arrived.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.queues.is_empty()
    }

    pub(crate) fn first_unacked(&self) -> u16 {
        self.next_seq.wrapping_sub(self.in_flight.len() as u16)
    }
}
