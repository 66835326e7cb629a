//! What the connection sends: Close and Hello before all else, then what the established connection has.

use alloc::vec::Vec;

use crate::Instant;
use crate::frame::encode_stream;
use crate::wire::{Close, CloseReason, Hello, Identity, Kind, Token, VersionRange};

use super::super::established::{Credit, Turn};
use super::super::session::Resumption;
use super::super::timers::Timer;
use super::{Connection, ConnectionEvent, Framing, State};

impl Connection {
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
                first_hello_at,
            } => {
                self.timers.set(Timer::Hello, now + *interval);
                *interval = (*interval * 2).min(self.config.hello_interval_max);
                if *hellos_sent == 0 {
                    *first_hello_at = now;
                }
                *hellos_sent += 1;
                (false, *heard)
            }
        };
        self.hello(established, heard).encode(out);
    }

    pub(super) fn hello(&self, established: bool, heard: Option<Identity>) -> Hello {
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

    pub(super) fn close_packet(&self, reason: CloseReason, to: Identity) -> Close {
        Close {
            reason,
            versions: VersionRange::OURS,
            from: self.identity.token(),
            to: to.token(),
        }
    }
}
