//! The connection's states, and the one place where they change.

mod ending;
mod inbound;
mod outbound;
mod sending;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use crate::Instant;
use crate::frame::{DatagramGate, FrameStats, StreamDecoder};
use crate::secure::{EphemeralSource, Security};
use crate::segment::{Buffers, MESSAGE_OVERHEAD_BYTES, MessageToken};
use crate::wire::{Close, Identity, Role, VersionRange, WINDOW_MAX};

use super::established::{Established, Received};
use super::peers::KnownPeers;
use super::receiver::AckDebt;
use super::session::Suspended;
use super::timers::{Timer, TimerTable};
use super::{Config, Delivery, LinkKind, LostReason, PeerInfo, Standing, Stats};

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
        first_hello_at: Instant,
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

    /// Asks the peer for a sign of life, if there is a connection; one more packet will come out of `poll_transmit`.
    pub(crate) fn probe(&mut self) {
        if let State::Established(established) = &mut self.state {
            established.probe();
        }
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
}

impl State {
    fn seeking(config: &Config) -> Self {
        Self::Seeking {
            heard: None,
            interval: config.hello_interval_min,
            hellos_sent: 0,
            first_hello_at: Instant::ZERO,
        }
    }
}
