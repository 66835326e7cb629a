//! The next packet of an established connection, the most urgent first.

use alloc::vec::Vec;

use crate::segment::MessageToken;
use crate::wire::{Flags, Header, Kind};

use super::super::receiver::AckDebt;
use super::super::sender::Departure;
use super::super::timers::TimerTable;
use super::{Credit, Established, Turn};

impl Established {
    /// Appends the next packet, if there is one; gives the token of a message whose first segment it carries.
    pub(crate) fn poll_packet(
        &mut self,
        credit: Credit,
        turn: &mut Turn<'_>,
        out: &mut Vec<u8>,
    ) -> Option<Option<MessageToken>> {
        let (now, timers) = (turn.now, &mut *turn.timers);
        let credit = match credit {
            Credit::Open => self.window,
            Credit::Paused => 0,
        };
        if let Some(seq) = self.pong_for.take() {
            self.put_ack(Kind::Pong, seq, credit, timers, out);
            return Some(None);
        }
        if self.receiver.debt() == AckDebt::Selective {
            self.put_ack(Kind::Ack, 0, credit, timers, out);
            return Some(None);
        }
        if let Some(Departure {
            seq,
            segment,
            is_repeat,
        }) = self
            .sender
            .poll(now, &mut self.protection, timers, turn.buffers)
        {
            let ack = self.receiver.ride(timers);
            let flags = Flags {
                start: segment.start,
                end: segment.end,
                channel: segment.channel,
            };
            Header {
                kind: Kind::Data,
                flags,
                tag: self.key.tag_out,
                seq,
                ack,
            }
            .encode(out);
            out.push(segment.channel_seq);
            out.extend_from_slice(&segment.payload);
            let started = segment.token.filter(|_| segment.start);
            self.sender.on_written(turn.buffers);
            if is_repeat {
                turn.stats.retransmissions += 1;
                return Some(None);
            }
            turn.stats.segments_sent += 1;
            return Some(started);
        }
        if self.receiver.debt() == AckDebt::Cumulative {
            self.put_ack(Kind::Ack, 0, credit, timers, out);
            return Some(None);
        }
        if core::mem::take(&mut self.ping_wanted) {
            self.ping_seq = self.ping_seq.wrapping_add(1);
            self.ping_sent_at = Some(now);
            self.ping_end = self.sender.next_seq();
            turn.stats.pings_sent += 1;
            let ack = self.receiver.ride(timers);
            Header {
                kind: Kind::Ping,
                flags: Flags::NONE,
                tag: self.key.tag_out,
                seq: self.ping_seq,
                ack,
            }
            .encode(out);
            return Some(None);
        }
        self.watch_credit(now, timers);
        None
    }

    fn put_ack(
        &mut self,
        kind: Kind,
        seq: u16,
        credit: u8,
        timers: &mut TimerTable,
        out: &mut Vec<u8>,
    ) {
        let (ack, body) = self.receiver.acknowledge(credit, timers);
        Header {
            kind,
            flags: Flags::NONE,
            tag: self.key.tag_out,
            seq,
            ack,
        }
        .encode(out);
        body.encode(out);
    }
}
