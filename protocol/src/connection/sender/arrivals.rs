//! What acknowledgements, and their absence, say of the packets in flight.

use alloc::vec::Vec;

use crate::Instant;
use crate::segment::{Buffers, MessageToken};
use crate::wire::AckBody;

use super::super::Delivery;
use super::super::loss::Verdict;
use super::super::timers::{Timer, TimerTable};
use super::{BadAck, Fate, GaveUp, InFlight, LOSSES_MAX, Sample, Sender};

impl Sender {
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
}
