//! The sending half of delivery: window, selective repeat, loss detection.
//!
//! Packets are numbered once and repeated under their number until acknowledged. A packet counts as lost when what was sent
//! after it has arrived (see [`LossDetector`]), or when nothing at all is acknowledged for one RTO (RFC 6298 §5).

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use crate::Instant;
use crate::segment::{Buffers, Channel, MessageToken, OutgoingQueues, Segment};
use crate::wire::{AckBody, DATA_HEADER_BYTES};

use super::loss::{LossDetector, Transmission, Verdict};
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

    /// Takes the cumulative acknowledgement of any packet, and the body of those that have one. Appends the tokens of
    /// messages that have now arrived whole to `delivered`.
    pub(crate) fn on_ack(
        &mut self,
        now: Instant,
        ack: u16,
        body: Option<AckBody>,
        delivered: &mut Vec<MessageToken>,
        timers: &mut TimerTable,
        buffers: &mut Buffers,
    ) -> Result<(), BadAck> {
        self.was_heard = true;
        let acked = ack.wrapping_sub(self.first_unacked());
        if acked >= 0x8000 {
            // Overtaken by a later acknowledgement: it says nothing new.
            return Ok(());
        }
        // One past the last packet that the acknowledgement covers, counted from the oldest in flight.
        let covered = match body {
            Some(body) if body.received != 0 => {
                usize::from(acked) + 65 - body.received.leading_zeros() as usize
            }
            _ => usize::from(acked),
        };
        if covered > self.in_flight.len() {
            return Err(BadAck);
        }
        if self.delivery == Delivery::Trusting {
            self.on_trusted_ack(now, acked, body, delivered, timers, buffers);
            return Ok(());
        }
        let was_full = self.flying() >= self.pace.packets();
        let mut round_trip: Option<Sample> = None;
        let mut arrivals = 0;
        for _ in 0..acked {
            let Some(packet) = self.in_flight.pop_front() else {
                break;
            };
            if packet.fate != Fate::Arrived {
                arrivals += 1;
                self.note_arrival(&packet, now, &mut round_trip);
            }
            if packet.segment.end && !packet.segment.is_internal {
                self.queues.on_arrived(packet.segment.channel, buffers);
                delivered.extend(packet.segment.token);
            }
            buffers.give(packet.segment.payload);
        }
        if let Some(body) = body {
            self.credit = body.credit;
            let mut in_flight = core::mem::take(&mut self.in_flight);
            let beyond = in_flight.iter_mut().skip(1).zip(0..64);
            let arrived = beyond.filter(|(_, bit)| body.received >> bit & 1 == 1);
            for (packet, _) in arrived.filter(|(packet, _)| packet.fate != Fate::Arrived) {
                packet.fate = Fate::Arrived;
                arrivals += 1;
                self.note_arrival(packet, now, &mut round_trip);
            }
            self.in_flight = in_flight;
        }
        if let Some(sample) = round_trip {
            self.rtt.on_sample(sample.round_trip, sample.bytes);
        }
        if arrivals > 0 {
            if was_full {
                let (smoothed, least) = (self.rtt.smoothed().unwrap_or_default(), self.rtt.least());
                self.pace.on_arrivals(arrivals, smoothed, least);
            }
            self.mark_lost(now, timers);
            // RFC 6298 §5.2 and §5.3.
            match self.largest_in_flight() {
                Some(bytes) => timers.set(Timer::Retransmit, now + self.rtt.rto(bytes)),
                None => timers.clear(Timer::Retransmit),
            }
        }
        Ok(())
    }

    /// On a link that loses nothing an acknowledgement says that memory may be freed, and no more.
    fn on_trusted_ack(
        &mut self,
        now: Instant,
        acked: u16,
        body: Option<AckBody>,
        delivered: &mut Vec<MessageToken>,
        timers: &mut TimerTable,
        buffers: &mut Buffers,
    ) {
        for packet in self.in_flight.drain(..usize::from(acked)) {
            if packet.segment.end && !packet.segment.is_internal {
                self.queues.on_arrived(packet.segment.channel, buffers);
                delivered.extend(packet.segment.token);
            }
        }
        self.credit = body.map_or(self.credit, |body| body.credit);
        match self.in_flight.is_empty() {
            true => timers.clear(Timer::Retransmit),
            false if acked > 0 => timers.set(Timer::Retransmit, now + self.check_after),
            false => {}
        }
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

    /// Notes that a packet in flight arrived; `best` becomes the shortest round trip of those that are one.
    fn note_arrival(&mut self, packet: &InFlight, now: Instant, best: &mut Option<Sample>) {
        let arrived = packet.transmission();
        // What was on its way during a time-out waited for a repeat of something else to be acknowledged: no round trip.
        if !arrived.is_repeat && self.timed_out_at.is_none_or(|at| at < arrived.sent_at) {
            let round_trip = now.saturating_duration_since(arrived.sent_at);
            if best
                .as_ref()
                .is_none_or(|best| round_trip < best.round_trip)
            {
                *best = Some(Sample {
                    round_trip,
                    bytes: packet.bytes(),
                });
            }
        }
        self.losses.on_arrival(now, arrived, self.rtt.least());
    }

    /// Marks what has to be repeated, and sets the time of what will have to be, if it does not arrive before.
    pub(crate) fn mark_lost(&mut self, now: Instant, timers: &mut TimerTable) {
        let (least, smoothed) = (self.rtt.least(), self.rtt.smoothed().unwrap_or_default());
        let mut next: Option<Instant> = None;
        for packet in &mut self.in_flight {
            if packet.fate != Fate::Flying {
                continue;
            }
            match self
                .losses
                .judge(now, packet.transmission(), least, smoothed)
            {
                Verdict::Flying => {}
                Verdict::Lost => {
                    packet.fate = Fate::Lost;
                    packet.losses += 1;
                }
                Verdict::LostAt(at) => next = Some(next.map_or(at, |next| next.min(at))),
            }
        }
        match next {
            Some(at) => timers.set(Timer::Reorder, at),
            None => timers.clear(Timer::Reorder),
        }
    }

    /// Nothing was acknowledged for one RTO: the oldest packet is sent again (RFC 6298 §5.4 to §5.6).
    pub(crate) fn on_retransmit_timeout(
        &mut self,
        now: Instant,
        timers: &mut TimerTable,
    ) -> Result<(), GaveUp> {
        let Some(oldest) = self
            .in_flight
            .iter_mut()
            .find(|packet| packet.fate != Fate::Arrived)
        else {
            return Ok(());
        };
        oldest.losses += u32::from(core::mem::take(&mut self.was_heard));
        if oldest.losses >= LOSSES_MAX {
            return Err(GaveUp);
        }
        oldest.fate = Fate::Lost;
        self.timed_out_at = Some(now);
        self.rtt.back_off();
        self.pace.on_timeout();
        let bytes = self.largest_in_flight().unwrap_or_default();
        timers.set(Timer::Retransmit, now + self.rtt.rto(bytes));
        Ok(())
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
