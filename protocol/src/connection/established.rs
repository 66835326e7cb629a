//! The data of a connection while it is established, and its packets in and out.

mod outbound;

use alloc::vec::Vec;

use crate::Instant;
use crate::segment::{ArrivedSegment, Buffers, Channel, MessageToken, ReassemblyError};
use crate::wire::{
    AckBody, DATA_HEADER_BYTES, Flags, HEADER_BYTES, Header, Hello, Identity, Kind, SegmentHeader,
    WireError,
};

use super::key::ConnectionKey;
use super::protection::{Opened, Protection};
use super::receiver::{AckDebt, Arrival, Receiver};
use super::sender::{GaveUp, Sender};
use super::session::{Resumption, Suspended, Taken};
use super::timers::{Timer, TimerTable};
use super::{Config, Delivery, LinkKind, PeerInfo, Stats};

/// What the connection lends to its parts for the time of a packet.
pub(crate) struct Turn<'a> {
    pub(crate) now: Instant,
    pub(crate) config: &'a Config,
    pub(crate) timers: &'a mut TimerTable,
    pub(crate) stats: &'a mut Stats,
    pub(crate) buffers: &'a mut Buffers,
}

/// What came of packets, until the connection's owner has fetched it.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) messages: Vec<Vec<u8>>,
    pub(crate) delivered: Vec<MessageToken>,
    /// The handshake is over; the owner is to be told of the connection.
    pub(crate) is_opened: bool,
}

impl Received {
    /// Forgets what came of a packet that ended the connection.
    pub(crate) fn clear(&mut self) {
        self.messages.clear();
        self.delivered.clear();
        self.is_opened = false;
    }
}

/// Why a packet was not taken.
#[derive(Debug)]
pub(crate) enum Refusal {
    Stale,
    Malformed(WireError),
    Violation(ReassemblyError),
    Forged,
    /// It does not go on where it said it would.
    NotResumed,
}

#[derive(Debug)]
pub(crate) struct Established {
    pub(crate) peer: PeerInfo,
    pub(crate) peer_identity: Identity,
    pub(crate) sender: Sender,
    pub(crate) protection: Protection,
    pub(crate) resumption: Resumption,
    pub(crate) taken: Taken,
    key: ConnectionKey,
    receiver: Receiver,
    window: u8,
    silent_intervals: u32,
    pong_for: Option<u16>,
    ping_wanted: bool,
    ping_seq: u16,
    ping_sent_at: Option<Instant>,
    /// The number of the first packet that the last ping does not ask for.
    ping_end: u16,
}

impl Established {
    pub(crate) fn new(
        now: Instant,
        config: &Config,
        link: LinkKind,
        key: ConnectionKey,
        peer: PeerInfo,
        hello: &Hello,
        timers: &mut TimerTable,
    ) -> Self {
        timers.set(Timer::KeepAlive, now + config.keep_alive);
        let delivery = match link.is_reliable() && hello.reliable {
            true => Delivery::Trusting,
            false => Delivery::Repeating,
        };
        Self {
            peer,
            peer_identity: hello.identity,
            sender: Sender::new(
                config,
                (link, delivery),
                key.first_seq,
                peer.mtu - DATA_HEADER_BYTES,
                hello.window,
            ),
            protection: Protection::Clear,
            resumption: Resumption::None,
            taken: Taken {
                session: key.session,
                counts: [0; 4],
            },
            key,
            receiver: Receiver::new(config, key.first_seq, delivery),
            window: config.receive_window,
            silent_intervals: 0,
            pong_for: None,
            ping_wanted: false,
            ping_seq: 0,
            ping_sent_at: None,
            ping_end: key.first_seq,
        }
    }

    /// Takes any packet but Hello and Close; puts what came of it into `received`.
    pub(crate) fn on_packet(
        &mut self,
        packet: &[u8],
        is_overrun: impl FnOnce() -> bool,
        received: &mut Received,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        let now = turn.now;
        let (header, body) = Header::decode(packet).map_err(Refusal::Malformed)?;
        if header.tag != self.key.tag_in {
            return Err(Refusal::Stale);
        }
        let ack_body = match header.kind {
            Kind::Ack | Kind::Pong => Some(AckBody::decode(body).map_err(Refusal::Malformed)?),
            _ => None,
        };
        self.silent_intervals = 0;
        turn.timers
            .set(Timer::KeepAlive, now + turn.config.keep_alive);
        let (delivered, timers) = (&mut received.delivered, &mut *turn.timers);
        let is_good =
            self.sender
                .on_ack(now, header.ack, ack_body, delivered, timers, turn.buffers);
        if is_good.is_err() {
            turn.stats.bad_ack += 1;
        }
        if matches!(self.protection, Protection::Answering(_)) && self.sender.is_idle() {
            self.protection.on_answered();
            received.is_opened = true;
        }
        match header.kind {
            Kind::Data if is_overrun() => turn.stats.overrun += 1,
            Kind::Data => self.on_data(&header, body, received, turn)?,
            Kind::Ping => self.pong_for = Some(header.seq),
            Kind::Pong if header.seq == self.ping_seq => {
                self.check_arrival()?;
                // Once packets are measured, a ping, being shorter than they, says less.
                if let Some(sent_at) = self.ping_sent_at.take()
                    && self.sender.rtt.smoothed().is_none()
                {
                    let round_trip = now.saturating_duration_since(sent_at);
                    self.sender.rtt.on_sample(round_trip, HEADER_BYTES);
                }
            }
            _ => {}
        }
        self.watch_credit(now, turn.timers);
        Ok(())
    }

    /// Where nothing is repeated, what was sent before a ping has arrived before its answer was sent.
    fn check_arrival(&self) -> Result<(), Refusal> {
        match self.sender.missing_before(self.ping_end) {
            Some(expected) if self.sender.delivery() == Delivery::Trusting => {
                let seq = self.ping_end;
                Err(Refusal::Violation(ReassemblyError::Gap { expected, seq }))
            }
            _ => Ok(()),
        }
    }

    fn on_data(
        &mut self,
        header: &Header,
        body: &[u8],
        received: &mut Received,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        let (segment, payload) = SegmentHeader::decode(body).map_err(Refusal::Malformed)?;
        let Flags {
            start,
            end,
            channel,
        } = header.flags;
        let segment = ArrivedSegment {
            channel_seq: segment.channel_seq,
            start,
            end,
            payload,
        };
        let messages = &mut received.messages;
        let arrival =
            self.receiver
                .on_segment(header.seq, channel, &segment, messages, turn.buffers);
        match arrival.map_err(Refusal::Violation)? {
            Arrival::New => turn.stats.segments_received += 1,
            Arrival::Duplicate => turn.stats.duplicates += 1,
            Arrival::OutOfWindow => turn.stats.out_of_window += 1,
        }
        self.receiver.arm(turn.now, turn.config, turn.timers);
        self.open_messages(channel, received, turn.buffers)
    }

    /// Opens what came on `channel`, and answers a handshake; leaves what is for the owner.
    fn open_messages(
        &mut self,
        channel: Channel,
        received: &mut Received,
        buffers: &mut Buffers,
    ) -> Result<(), Refusal> {
        let mut at = 0;
        while let Some(message) = received.messages.get_mut(at) {
            let opened = self.protection.open(self.key.role, channel, message);
            match opened.map_err(|_| Refusal::Forged)? {
                Opened::Message
                    if channel == Channel::Control && self.resumption == Resumption::Awaited =>
                {
                    let session = self.taken.session;
                    let theirs = Taken::decode(message)
                        .filter(|theirs| theirs.session == session)
                        .ok_or(Refusal::NotResumed)?;
                    let queues = &mut self.sender.queues;
                    queues
                        .resume(theirs.counts, &mut received.delivered, buffers)
                        .map_err(|_| Refusal::NotResumed)?;
                    self.resumption = Resumption::Done;
                }
                Opened::Message => {
                    let taken = &mut self.taken.counts[channel as usize];
                    *taken = taken.wrapping_add(1);
                    at += 1;
                    continue;
                }
                Opened::Handshake(Some(answer)) => self.queue_handshake(answer),
                Opened::Handshake(None) => {
                    received.is_opened = true;
                    // The device waits for nothing else.
                    self.owe_ack(AckDebt::Cumulative);
                }
            }
            buffers.give(received.messages.remove(at));
        }
        Ok(())
    }

    pub(crate) fn queue_handshake(&mut self, message: Vec<u8>) {
        self.sender.queues.push_internal(message);
    }

    /// Goes on where an interrupted connection ended; a handshake that waits already goes before.
    pub(crate) fn resume(&mut self, suspended: Suspended) {
        let handshake = core::mem::replace(&mut self.sender.queues, suspended.queues);
        self.sender.queues.adopt_internal(handshake);
        self.taken = suspended.taken;
        self.resumption = Resumption::Awaited;
    }

    /// Whether the owner may send: it was told of this connection, or of the one that this resumes.
    pub(crate) fn is_open(&self) -> bool {
        self.protection.is_open() || self.resumption != Resumption::None
    }

    /// Whether neither a handshake nor a resumption is under way.
    pub(crate) fn is_settled(&self) -> bool {
        self.protection.is_open() && self.resumption != Resumption::Awaited
    }

    /// The handshake, if there is one, is over: says what was taken, if a connection is resumed. Otherwise the owner is to be told.
    pub(crate) fn on_protected(&mut self) -> bool {
        let is_resumed = self.resumption != Resumption::None;
        if is_resumed {
            self.sender.queues.push_internal(self.taken.encode());
        }
        !is_resumed
    }

    /// Starts or stops asking a peer that gives no credit.
    pub(crate) fn watch_credit(&self, now: Instant, timers: &mut TimerTable) {
        match self.sender.is_starved() {
            true => timers.set_if_idle(Timer::Persist, now + self.sender.rtt.rto(HEADER_BYTES)),
            false => timers.clear(Timer::Persist),
        }
    }

    /// Asks the peer for a sign of life.
    pub(crate) fn probe(&mut self) {
        self.ping_wanted = true;
    }

    pub(crate) fn on_persist_timeout(&mut self, now: Instant, timers: &mut TimerTable) {
        self.ping_wanted = true;
        self.sender.rtt.back_off();
        self.watch_credit(now, timers);
    }

    /// One more silent interval; true if it was one too many.
    pub(crate) fn on_keep_alive_timeout(
        &mut self,
        now: Instant,
        config: &Config,
        timers: &mut TimerTable,
    ) -> bool {
        self.silent_intervals += 1;
        self.ping_wanted = true;
        timers.set(Timer::KeepAlive, now + config.keep_alive);
        self.silent_intervals >= config.keep_alive_missed_max
    }

    pub(crate) fn on_retransmit_timeout(
        &mut self,
        now: Instant,
        timers: &mut TimerTable,
    ) -> Result<(), GaveUp> {
        if self.sender.delivery() == Delivery::Trusting {
            // Nothing has arrived for long, or the last packet is lost: the answer will tell.
            self.ping_wanted = true;
            return Ok(());
        }
        self.sender.on_retransmit_timeout(now, timers)
    }

    pub(crate) fn owe_ack(&mut self, debt: AckDebt) {
        self.receiver.owe(debt);
    }
}

/// Whether the peer may go on sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Credit {
    Open,
    Paused,
}
