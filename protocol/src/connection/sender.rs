//! The sending half of delivery: window, selective repeat, loss detection.
//!
//! Packets are numbered once and repeated under their number until acknowledged. A packet counts as lost when enough
//! packets that were sent after it have arrived (RFC 8985's idea with the packet threshold of RFC 9002 §6.1.1), or when
//! nothing at all is acknowledged for one RTO (RFC 6298 §5).

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use crate::Instant;
use crate::segment::{Channel, MessageToken, OutgoingQueues, Segment};
use crate::wire::AckBody;

use super::rtt::RttEstimator;
use super::timers::{Timer, TimerTable};
use super::{Config, LinkKind};

/// How often one packet is sent before the link counts as unable to carry it. Chosen because at 30 % loss each way a
/// packet fails this often once in 10^5 connections' lifetimes, while a packet too large for the real MTU fails always.
const TRANSMISSIONS_MAX: u32 = 20;

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
    /// The number of its latest transmission, over all packets.
    transmission: u64,
    transmissions: u32,
}

/// An acknowledgement of what was never sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadAck;

/// A packet was sent [`TRANSMISSIONS_MAX`] times in vain.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct GaveUp;

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
    latest_arrived: Option<u64>,
    reorder_threshold: u64,
}

impl Sender {
    pub(crate) fn new(
        config: &Config,
        link: LinkKind,
        first_seq: u16,
        payload_max: usize,
        window: u8,
    ) -> Self {
        Self {
            queues: OutgoingQueues::new(config.send_queue_bytes),
            rtt: RttEstimator::new(config),
            in_flight: VecDeque::new(),
            next_seq: first_seq,
            payload_max,
            window,
            credit: window,
            next_transmission: 0,
            latest_arrived: None,
            reorder_threshold: match link {
                // A stream cannot reorder: one later arrival proves the loss.
                LinkKind::Stream => 1,
                // RFC 9002 §6.1.1: kPacketThreshold.
                LinkKind::Datagram { .. } => 3,
            },
        }
    }

    /// The next packet that may be sent: the most urgent channel first, on each channel repeats before news.
    pub(crate) fn poll(&mut self, now: Instant, timers: &mut TimerTable) -> Option<Departure<'_>> {
        let (index, is_repeat) = Channel::ALL.iter().find_map(|&channel| {
            let lost =
                |packet: &InFlight| packet.fate == Fate::Lost && packet.segment.channel == channel;
            match self.in_flight.iter().position(lost) {
                Some(index) => Some((index, true)),
                None => self.admit(now, channel).map(|index| (index, false)),
            }
        })?;
        let transmission = self.next_transmission;
        self.next_transmission += 1;
        timers.set_if_idle(Timer::Retransmit, now + self.rtt.rto());
        let seq = self.first_unacked().wrapping_add(index as u16);
        let packet = &mut self.in_flight[index];
        packet.fate = Fate::Flying;
        packet.sent_at = now;
        packet.transmission = transmission;
        packet.transmissions += 1;
        Some(Departure {
            seq,
            segment: &packet.segment,
            is_repeat,
        })
    }

    /// Takes the next segment of `channel` into flight if the window allows; gives its index.
    fn admit(&mut self, now: Instant, channel: Channel) -> Option<usize> {
        if self.in_flight.len() >= self.window_for(channel) {
            return None;
        }
        let segment = self.queues.pop_segment(channel, self.payload_max)?;
        self.in_flight.push_back(InFlight {
            segment,
            fate: Fate::Flying,
            sent_at: now,
            transmission: 0,
            transmissions: 0,
        });
        self.next_seq = self.next_seq.wrapping_add(1);
        Some(self.in_flight.len() - 1)
    }

    /// Less urgent channels leave slots free, so that a full window of bulk data does not hold up a command.
    fn window_for(&self, channel: Channel) -> usize {
        let kept_free = (self.window / 8).max(1) * channel as u8;
        usize::from(self.window.saturating_sub(kept_free).min(self.credit))
    }

    /// Takes the cumulative acknowledgement of any packet, and the body of those that have one. Appends the tokens of
    /// messages that have now arrived whole to `delivered`.
    pub(crate) fn on_ack(
        &mut self,
        now: Instant,
        ack: u16,
        body: Option<AckBody>,
        timers: &mut TimerTable,
        delivered: &mut Vec<MessageToken>,
    ) -> Result<(), BadAck> {
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
        let mut round_trip = None;
        let mut is_progress = false;
        for _ in 0..acked {
            let Some(packet) = self.in_flight.pop_front() else {
                break;
            };
            if packet.fate != Fate::Arrived {
                is_progress = true;
                self.note_arrival(Arrival::of(&packet), now, &mut round_trip);
            }
            if packet.segment.end {
                delivered.extend(packet.segment.token);
            }
        }
        if let Some(body) = body {
            self.credit = body.credit;
            for index in (1..self.in_flight.len().min(65))
                .filter(|index| body.received >> (index - 1) & 1 == 1)
            {
                if self.in_flight[index].fate != Fate::Arrived {
                    is_progress = true;
                    self.note_arrival_at(index, now, &mut round_trip);
                }
            }
        }
        if let Some(round_trip) = round_trip {
            self.rtt.on_sample(round_trip);
        }
        if is_progress {
            self.mark_lost();
            // RFC 6298 §5.2 and §5.3.
            match self
                .in_flight
                .iter()
                .any(|packet| packet.fate != Fate::Arrived)
            {
                true => timers.set(Timer::Retransmit, now + self.rtt.rto()),
                false => timers.clear(Timer::Retransmit),
            }
        }
        Ok(())
    }

    fn note_arrival_at(&mut self, index: usize, now: Instant, round_trip: &mut Option<Duration>) {
        self.in_flight[index].fate = Fate::Arrived;
        let arrival = Arrival::of(&self.in_flight[index]);
        self.note_arrival(arrival, now, round_trip);
    }

    fn note_arrival(&mut self, arrival: Arrival, now: Instant, round_trip: &mut Option<Duration>) {
        let elapsed = now.saturating_duration_since(arrival.sent_at);
        if arrival.was_sent_once {
            *round_trip = Some(round_trip.map_or(elapsed, |least| least.min(elapsed)));
        } else if elapsed < self.rtt.least() {
            // RFC 8985 §6.2 step 2: so soon after a repeat it is the original that arrived; it proves nothing.
            return;
        }
        self.latest_arrived = self.latest_arrived.max(Some(arrival.transmission));
    }

    fn mark_lost(&mut self) {
        let Some(latest) = self.latest_arrived else {
            return;
        };
        for packet in &mut self.in_flight {
            if packet.fate == Fate::Flying && packet.transmission + self.reorder_threshold <= latest
            {
                packet.fate = Fate::Lost;
            }
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
        if oldest.transmissions >= TRANSMISSIONS_MAX {
            return Err(GaveUp);
        }
        oldest.fate = Fate::Lost;
        self.rtt.back_off();
        timers.set(Timer::Retransmit, now + self.rtt.rto());
        Ok(())
    }

    /// Whether messages wait, nothing is in flight, and only the peer's missing credit holds them up.
    pub(crate) fn is_starved(&self) -> bool {
        self.credit == 0 && self.in_flight.is_empty() && !self.queues.is_empty()
    }

    fn first_unacked(&self) -> u16 {
        self.next_seq.wrapping_sub(self.in_flight.len() as u16)
    }
}

#[derive(Debug, Clone, Copy)]
struct Arrival {
    transmission: u64,
    sent_at: Instant,
    was_sent_once: bool,
}

impl Arrival {
    fn of(packet: &InFlight) -> Self {
        Self {
            transmission: packet.transmission,
            sent_at: packet.sent_at,
            was_sent_once: packet.transmissions == 1,
        }
    }
}
