//! The connection's states, and the one place where they change.

mod inbound;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use crate::Instant;
use crate::frame::{DatagramGate, FrameStats, StreamDecoder, encode_stream};
use crate::message::Message;
use crate::secure::{EphemeralSource, Security};
use crate::segment::{Buffers, Channel, MESSAGE_OVERHEAD_BYTES, MessageToken, OutgoingQueues};
use crate::wire::{
    Close, CloseReason, Hello, Identity, Kind, Role, Token, VersionRange, WINDOW_MAX,
};

use super::established::{Credit, Established, Received, Turn};
use super::peers::KnownPeers;
use super::receiver::AckDebt;
use super::session::{Resumption, Suspended};
use super::timers::{Timer, TimerTable};
use super::{Config, Delivery, LinkKind, LostReason, PeerInfo, SendError, Standing, Stats};

/// What a connection tells its owner.
#[derive(Debug)]
pub(crate) enum ConnectionEvent {
    Established {
        peer: PeerInfo,
    },
    Message(Vec<u8>),
    /// The first segment of the message was handed out.
    Started(MessageToken),
    /// The peer has the whole message.
    Delivered(MessageToken),
    Incompatible {
        theirs: VersionRange,
    },
    Lost {
        reason: LostReason,
    },
}

#[derive(Debug)]
enum State {
    /// Hello is sent again and again; `heard` is the peer that answered last.
    Seeking {
        heard: Option<Identity>,
        interval: Duration,
        hellos_sent: u32,
        hello_sent_at: Instant,
    },
    Established(Box<Established>),
    /// For good.
    Closed,
}

#[derive(Debug)]
enum Framing {
    Stream(StreamDecoder),
    Datagram(DatagramGate),
}

impl Framing {
    fn new(config: &Config, link: LinkKind) -> Self {
        match link.is_stream() {
            true => Self::Stream(StreamDecoder::new(config.stream_mtu)),
            false => Self::Datagram(DatagramGate::new(config.mtu(link))),
        }
    }
}

/// The machine below [`Host`](crate::Host) and [`Device`](crate::Device).
#[derive(Debug)]
pub(crate) struct Connection {
    config: Config,
    link: LinkKind,
    role: Role,
    identity: Identity,
    framing: Framing,
    /// What was counted on earlier links.
    frame_stats_before: FrameStats,
    state: State,
    security: Security,
    ephemerals: EphemeralSource,
    /// Until then nobody is listened to: the last peer was not authentic.
    deaf_until: Option<Instant>,
    suspended: Option<Box<Suspended>>,
    peers: KnownPeers,
    hello_wanted: bool,
    close_wanted: Option<Close>,
    timers: TimerTable,
    events: VecDeque<ConnectionEvent>,
    /// The packet that is being framed; kept for its memory.
    scratch: Vec<u8>,
    /// Empty between packets; kept for its memory.
    received: Received,
    pub(crate) buffers: Buffers,
    backlog_bytes: usize,
    pub(crate) stats: Stats,
}

impl Connection {
    pub(crate) fn new(
        config: Config,
        link: LinkKind,
        role: Role,
        identity: Identity,
        security: Security,
    ) -> Self {
        let config = config.clamped();
        let framing = Framing::new(&config, link);
        Self {
            state: State::seeking(&config),
            buffers: Buffers::new(1 << config.max_message_log2),
            received: Received::default(),
            config,
            link,
            role,
            identity,
            framing,
            frame_stats_before: FrameStats::default(),
            security,
            ephemerals: EphemeralSource::new(),
            deaf_until: None,
            suspended: None,
            peers: KnownPeers::default(),
            hello_wanted: true,
            close_wanted: None,
            timers: TimerTable::default(),
            events: VecDeque::new(),
            scratch: Vec::new(),
            backlog_bytes: 0,
            stats: Stats::default(),
        }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn handle_input(&mut self, now: Instant, mut bytes: &[u8]) {
        loop {
            match &mut self.framing {
                Framing::Datagram(gate) => {
                    if gate.admit(bytes) {
                        self.on_packet(now, bytes);
                    }
                    return;
                }
                Framing::Stream(decoder) => {
                    let Some((packet, rest)) = decoder.next_packet(bytes) else {
                        return;
                    };
                    self.on_packet(now, &packet);
                    bytes = rest;
                    if let Framing::Stream(decoder) = &mut self.framing {
                        decoder.recycle(packet);
                    }
                }
            }
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.timers.expire(Timer::Hello, now) {
            self.hello_wanted = true;
        }
        if self.timers.expire(Timer::Resume, now) {
            self.forget_suspended();
        }
        let State::Established(established) = &mut self.state else {
            return;
        };
        if self.timers.expire(Timer::Ack, now) {
            established.owe_ack(AckDebt::Cumulative);
        }
        if self.timers.expire(Timer::Reorder, now) {
            established.sender.mark_lost(now, &mut self.timers);
        }
        if self.timers.expire(Timer::Persist, now) {
            established.on_persist_timeout(now, &mut self.timers);
        }
        let mut lost = None;
        if self.timers.expire(Timer::Retransmit, now) {
            if established.sender.delivery() == Delivery::Repeating {
                self.stats.timeouts += 1;
            }
            if established
                .on_retransmit_timeout(now, &mut self.timers)
                .is_err()
            {
                lost = Some(LostReason::Undeliverable);
            }
        }
        if self.timers.expire(Timer::KeepAlive, now)
            && established.on_keep_alive_timeout(now, &self.config, &mut self.timers)
        {
            lost = Some(LostReason::Silent);
        }
        if self.timers.expire(Timer::Handshake, now) {
            // Wrong keys are told at once; what does not come is held up by the link, whose faults end nothing that is kept.
            lost = Some(LostReason::Silent);
        }
        if let Some(reason) = lost {
            self.lose(now, reason);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    pub(crate) fn poll_event(&mut self) -> Option<ConnectionEvent> {
        self.events.pop_front()
    }

    pub(crate) fn poll_transmit(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        if matches!(self.framing, Framing::Datagram(_)) {
            return self.poll_packet(now, out).is_some();
        }
        let mut packet = core::mem::take(&mut self.scratch);
        packet.clear();
        let kind = self.poll_packet(now, &mut packet);
        self.scratch = packet;
        let Some(kind) = kind else {
            return false;
        };
        if kind == Kind::Hello {
            // Ends whatever noise or half frame the other end holds, so that the Hello itself is not lost to it.
            out.push(0);
        }
        encode_stream(&self.scratch, out);
        true
    }

    fn poll_packet(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<Kind> {
        let kind = self.put_packet(now, out)?;
        self.stats.packets_sent += 1;
        Some(kind)
    }

    fn put_packet(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<Kind> {
        if let Some(close) = self.close_wanted.take() {
            close.encode(out);
            return Some(Kind::Close);
        }
        if core::mem::take(&mut self.hello_wanted) {
            self.put_hello(now, out);
            return Some(Kind::Hello);
        }
        let credit = match self.backlog_bytes > self.config.receive_backlog_bytes {
            true => Credit::Paused,
            false => Credit::Open,
        };
        let State::Established(established) = &mut self.state else {
            return None;
        };
        let mut turn = Turn {
            now,
            config: &self.config,
            timers: &mut self.timers,
            stats: &mut self.stats,
            buffers: &mut self.buffers,
        };
        let started = established.poll_packet(credit, &mut turn, out)?;
        self.events.extend(started.map(ConnectionEvent::Started));
        Some(Kind::Data)
    }

    fn put_hello(&mut self, now: Instant, out: &mut Vec<u8>) {
        let (established, heard) = match &mut self.state {
            State::Closed => return,
            State::Established(established) => (true, Some(established.peer_identity)),
            State::Seeking {
                heard,
                interval,
                hellos_sent,
                hello_sent_at,
            } => {
                self.timers.set(Timer::Hello, now + *interval);
                *interval = (*interval * 2).min(self.config.hello_interval_max);
                *hellos_sent += 1;
                *hello_sent_at = now;
                (false, *heard)
            }
        };
        self.hello(established, heard).encode(out);
    }

    fn hello(&self, established: bool, heard: Option<Identity>) -> Hello {
        let resume = match (&self.state, &self.suspended) {
            (State::Established(established), _) => established.resumption != Resumption::None,
            (_, Some(suspended)) => {
                heard.is_some_and(|heard| heard.boot_id == suspended.peer.boot_id)
            }
            _ => false,
        };
        Hello {
            role: self.role,
            established,
            resume,
            reliable: self.link.is_reliable(),
            versions: VersionRange::OURS,
            features: self.security.features(),
            identity: self.identity,
            mtu: self.config.mtu(self.link),
            window: self.config.receive_window,
            max_message_log2: self.config.max_message_log2,
            heard: heard.map_or(Token::NOBODY, Identity::token),
        }
    }

    pub(crate) fn standing(&self) -> Standing {
        match (&self.state, &self.suspended) {
            (State::Established(established), _) if established.is_settled() => Standing::Connected,
            (State::Established(established), _) if established.is_open() => Standing::Interrupted,
            (State::Seeking { .. }, Some(_)) => Standing::Interrupted,
            _ => Standing::Absent,
        }
    }

    /// The largest message that can be sent on `channel`, by the peer's limit and our queue, while there is somebody to take it.
    pub(crate) fn message_max(&self, channel: Channel) -> Option<usize> {
        let peers = match (&self.state, &self.suspended) {
            (State::Established(established), _) => established.peer.max_message,
            (_, Some(suspended)) => suspended.peer.max_message,
            _ => return None,
        };
        Some(peers.min(self.queue_max(channel)))
    }

    fn queue_max(&self, channel: Channel) -> usize {
        OutgoingQueues::message_max(self.config.send_queue_bytes, channel)
    }

    /// Encodes and queues a message.
    pub(crate) fn send(
        &mut self,
        now: Instant,
        message: &Message<'_>,
        token: Option<MessageToken>,
    ) -> Result<(), SendError> {
        let mut bytes = self.buffers.take_roomiest();
        message.encode_into(&mut bytes);
        self.send_bytes(now, message.channel(), bytes, token)
    }

    /// Queues an encoded message.
    pub(crate) fn send_bytes(
        &mut self,
        now: Instant,
        channel: Channel,
        message: Vec<u8>,
        token: Option<MessageToken>,
    ) -> Result<(), SendError> {
        let queue_max = self.queue_max(channel);
        let (queues, limit) = match (&mut self.state, &mut self.suspended) {
            (State::Established(established), _) if established.is_open() => {
                (&mut established.sender.queues, established.peer.max_message)
            }
            (State::Seeking { .. }, Some(suspended)) => {
                (&mut suspended.queues, suspended.peer.max_message)
            }
            _ => {
                self.buffers.give(message);
                return Err(SendError::NotConnected);
            }
        };
        let (size, limit) = (message.len(), limit.min(queue_max));
        if size > limit {
            self.buffers.give(message);
            return Err(SendError::TooLarge { size, limit });
        }
        if let Err(message) = queues.push(channel, message, token) {
            self.buffers.give(message);
            return Err(SendError::QueueFull);
        }
        if let State::Established(established) = &self.state {
            established.watch_credit(now, &mut self.timers);
        }
        self.stats.messages_sent += 1;
        Ok(())
    }

    /// Takes a message back if no byte of it was handed out.
    pub(crate) fn withdraw(&mut self, token: MessageToken) -> bool {
        match (&mut self.state, &mut self.suspended) {
            (State::Established(established), _) => established.sender.queues.withdraw(token),
            (_, Some(suspended)) => suspended.queues.withdraw(token),
            _ => false,
        }
    }

    /// Ends the connection for good; one more packet may come out of `poll_transmit`.
    pub(crate) fn close(&mut self) {
        if matches!(self.state, State::Established(_)) {
            self.lose(Instant::ZERO, LostReason::ClosedHere);
        }
        if let Some(suspended) = &mut self.suspended {
            suspended.reason = LostReason::ClosedHere;
            self.forget_suspended();
        }
        self.state = State::Closed;
        self.hello_wanted = false;
        self.timers = TimerTable::default();
    }

    /// How many bytes of messages the owner still holds for its driver.
    pub(crate) fn set_backlog(&mut self, bytes: usize) {
        let limit = self.config.receive_backlog_bytes;
        let crosses = (self.backlog_bytes > limit) != (bytes > limit);
        self.backlog_bytes = bytes;
        if let (true, State::Established(established)) = (crosses, &mut self.state) {
            established.owe_ack(AckDebt::Selective);
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut stats = self.stats;
        stats.frame = self.frame_stats();
        if let State::Established(established) = &self.state {
            stats.smoothed_rtt = established.sender.rtt.smoothed();
        }
        stats
    }

    fn frame_stats(&self) -> FrameStats {
        let now = match &self.framing {
            Framing::Stream(decoder) => decoder.stats(),
            Framing::Datagram(gate) => gate.stats(),
        };
        self.frame_stats_before.plus(now)
    }

    /// Whether the driver's backlog exceeds what an obedient peer can cause: the limit, and one window on top.
    fn is_overrun(&self) -> bool {
        let (window, mtu) = (usize::from(WINDOW_MAX), self.config.mtu(self.link));
        let beyond = match &self.state {
            // What is dropped here is not repeated: what is being put together counts, and what each message costs besides.
            State::Established(established)
                if established.sender.delivery() == Delivery::Trusting =>
            {
                window * (mtu + MESSAGE_OVERHEAD_BYTES) + (4 << self.config.max_message_log2)
            }
            _ => window * mtu,
        };
        self.backlog_bytes > self.config.receive_backlog_bytes + beyond
    }

    fn close_packet(&self, reason: CloseReason, to: Identity) -> Close {
        Close {
            reason,
            versions: VersionRange::OURS,
            from: self.identity.token(),
            to: to.token(),
        }
    }

    /// Goes on to another link; the connection is resumed there, or lost if none is kept.
    pub(crate) fn change_link(&mut self, now: Instant, link: LinkKind) {
        if matches!(self.state, State::Closed) {
            return;
        }
        if let State::Seeking {
            hellos_sent: 1.., ..
        } = self.state
        {
            // A Hello told somebody of the old link's properties.
            self.identity.epoch = self.identity.epoch.wrapping_add(1);
        }
        self.lose(now, LostReason::LinkChanged);
        self.frame_stats_before = self.frame_stats();
        self.link = link;
        self.framing = Framing::new(&self.config, link);
        // Nobody on the other link has heard us.
        self.state = State::seeking(&self.config);
        self.close_wanted = None;
        self.hello_wanted = true;
    }

    /// Ends the established connection and seeks the peer anew. Where it ends on our side, our epoch grows, so that
    /// the peer ends it too and no late packet is taken for a new one. An interrupted connection is kept, if one is to be.
    fn lose(&mut self, now: Instant, reason: LostReason) {
        let state = core::mem::replace(&mut self.state, State::seeking(&self.config));
        let established = match state {
            State::Established(established) => established,
            other => {
                self.state = other;
                return;
            }
        };
        let farewell = match reason {
            LostReason::ClosedHere => Some(CloseReason::Goodbye),
            LostReason::Undeliverable => Some(CloseReason::Undeliverable),
            LostReason::Violation(_) => Some(CloseReason::ProtocolViolation),
            LostReason::Unauthenticated => Some(CloseReason::Unauthenticated),
            LostReason::Silent
            | LostReason::ClosedByPeer(_)
            | LostReason::PeerRestarted
            | LostReason::LinkChanged => None,
        };
        self.close_wanted =
            farewell.map(|reason| self.close_packet(reason, established.peer_identity));
        if matches!(
            reason,
            LostReason::Silent
                | LostReason::Undeliverable
                | LostReason::Violation(_)
                | LostReason::Unauthenticated
                | LostReason::LinkChanged
        ) {
            self.identity.epoch = self.identity.epoch.wrapping_add(1);
        }
        self.timers = TimerTable::default();
        self.hello_wanted = true;
        let is_interruption = matches!(
            reason,
            LostReason::Silent
                | LostReason::PeerRestarted
                | LostReason::LinkChanged
                | LostReason::Undeliverable
                | LostReason::ClosedByPeer(CloseReason::Undeliverable)
        );
        let is_refusal = matches!(
            reason,
            LostReason::Unauthenticated | LostReason::ClosedByPeer(CloseReason::Unauthenticated)
        );
        if is_interruption && established.is_open() && !self.config.resume_window.is_zero() {
            self.suspend(now, *established, reason);
            return;
        }
        if is_refusal {
            self.turn_deaf(now);
        }
        if is_refusal || established.is_open() {
            self.events.push_back(ConnectionEvent::Lost { reason });
        }
    }

    fn suspend(&mut self, now: Instant, established: Established, reason: LostReason) {
        let until = now + self.config.resume_window;
        let mut queues = established.sender.queues;
        queues.rewind();
        self.timers.set(Timer::Resume, until);
        self.suspended = Some(Box::new(Suspended {
            peer: established.peer,
            queues,
            taken: established.taken,
            reason,
        }));
    }

    /// The interrupted connection will not be resumed.
    fn forget_suspended(&mut self) {
        if let Some(suspended) = self.suspended.take() {
            let reason = suspended.reason;
            self.events.push_back(ConnectionEvent::Lost { reason });
        }
    }

    /// Listens to nobody for a while, and says nothing: two ends that do not trust each other must not argue at line speed.
    fn turn_deaf(&mut self, now: Instant) {
        let until = now + self.config.hello_interval_max;
        self.deaf_until = Some(until);
        self.hello_wanted = false;
        self.timers.set(Timer::Hello, until);
    }
}

impl State {
    fn seeking(config: &Config) -> Self {
        Self::Seeking {
            heard: None,
            interval: config.hello_interval_min,
            hellos_sent: 0,
            hello_sent_at: Instant::ZERO,
        }
    }
}
