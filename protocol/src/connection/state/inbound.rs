//! What each packet that comes in does to the connection's state.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use crate::Instant;
use crate::secure::Handshake;
use crate::segment::ReassemblyError;
use crate::wire::{
    Close, CloseReason, HELLO_OFFER, Hello, Kind, Role, Token, VersionRange, WireError,
};

use super::super::established::{Established, Refusal, Turn};
use super::super::key::ConnectionKey;
use super::super::protection::Protection;
use super::super::session::Suspended;
use super::super::timers::{Timer, TimerTable};
use super::super::{LostReason, PeerInfo};
use super::{Connection, ConnectionEvent, State};

impl Connection {
    pub(super) fn on_packet(&mut self, now: Instant, packet: &[u8]) {
        if matches!(self.state, State::Closed) {
            return;
        }
        let outcome = match Kind::of(packet) {
            Ok(Kind::Hello) => Hello::decode(packet).map(|hello| self.on_hello(now, &hello)),
            Ok(Kind::Close) => Close::decode(packet).map(|close| self.on_close(now, &close)),
            Ok(_) => self.on_connected_packet(now, packet),
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => {}
            Err(WireError::UnknownVersion(_)) => self.stats.unknown_version += 1,
            Err(WireError::UnknownKind(_)) => self.stats.unknown_kind += 1,
            Err(WireError::ReservedFlags(_)) => self.stats.reserved_flags += 1,
            Err(WireError::TooShort { .. } | WireError::OutOfRange { .. }) => {
                self.stats.malformed += 1
            }
        }
    }

    fn on_connected_packet(&mut self, now: Instant, packet: &[u8]) -> Result<(), WireError> {
        let is_overrun = self.is_overrun();
        let State::Established(established) = &mut self.state else {
            self.stats.stale += 1;
            return Ok(());
        };
        let mut turn = Turn {
            now,
            config: &self.config,
            timers: &mut self.timers,
            stats: &mut self.stats,
            buffers: &mut self.buffers,
        };
        let received = &mut self.received;
        let taken = established.on_packet(packet, || is_overrun, received, &mut turn);
        if taken.is_err() {
            received.clear();
        }
        match taken {
            Ok(()) => {
                if established.is_settled() {
                    self.timers.clear(Timer::Handshake);
                }
                if core::mem::take(&mut received.is_opened) {
                    let peer = established.peer;
                    if established.on_protected() {
                        self.events.push_back(ConnectionEvent::Established { peer });
                    }
                }
                self.stats.messages_received += received.messages.len() as u64;
                self.events
                    .extend(received.delivered.drain(..).map(ConnectionEvent::Delivered));
                self.events
                    .extend(received.messages.drain(..).map(ConnectionEvent::Message));
            }
            Err(Refusal::Stale) => self.stats.stale += 1,
            Err(Refusal::Malformed(error)) => return Err(error),
            Err(Refusal::Violation(error)) => self.lose(now, LostReason::Violation(error)),
            Err(Refusal::NotResumed) => {
                let error = ReassemblyError::OutOfPlace;
                self.lose(now, LostReason::Violation(error));
            }
            Err(Refusal::Forged) => self.lose(now, LostReason::Unauthenticated),
        }
        Ok(())
    }

    fn on_hello(&mut self, now: Instant, hello: &Hello) {
        if hello.role == self.role {
            self.stats.own_role += 1;
            return;
        }
        if self.deaf_until.is_some_and(|until| now < until) {
            return;
        }
        if self.peers.is_stale(hello.identity) {
            self.stats.stale += 1;
            return;
        }
        if self.is_overrun() {
            // A driver that fetches no events gets no new ones either.
            self.stats.overrun += 1;
            return;
        }
        if let State::Established(established) = &self.state {
            if established.peer_identity == hello.identity {
                // It has not heard that we have heard it.
                self.hello_wanted |= !hello.established;
                return;
            }
            self.peers.retire(established.peer_identity);
            self.lose(now, LostReason::PeerRestarted);
        }
        let Some(version) = VersionRange::OURS.common(hello.versions) else {
            self.on_incompatible(hello.identity.token(), hello.versions);
            self.close_wanted =
                Some(self.close_packet(CloseReason::IncompatibleVersion, hello.identity));
            return;
        };
        if hello.features != self.security.features() {
            self.close_wanted =
                Some(self.close_packet(CloseReason::Unauthenticated, hello.identity));
            self.turn_deaf(now);
            let reason = LostReason::Unauthenticated;
            self.events.push_back(ConnectionEvent::Lost { reason });
            return;
        }
        self.peers.on_heard(hello.identity);
        let State::Seeking {
            heard,
            interval,
            hellos_sent,
            first_hello_at,
        } = &mut self.state
        else {
            return;
        };
        *heard = Some(hello.identity);
        if hello.heard != self.identity.token() {
            *interval = self.config.hello_interval_min;
            self.hello_wanted = true;
            return;
        }
        let since_first = now.saturating_duration_since(*first_hello_at);
        let answers_one = *hellos_sent == 1;
        self.establish(now, hello, version, (since_first, answers_one));
    }

    fn establish(
        &mut self,
        now: Instant,
        hello: &Hello,
        version: u8,
        (since_first, answers_one): (Duration, bool),
    ) {
        let peer = PeerInfo {
            boot_id: hello.identity.boot_id,
            epoch: hello.identity.epoch,
            version,
            mtu: hello.mtu.min(self.config.mtu(self.link)),
            max_message: (1 << hello.max_message_log2) - self.security.seal_bytes(),
            description_hash: None,
        };
        let key = ConnectionKey::new(self.role, self.identity, hello.identity);
        self.timers = TimerTable::default();
        let mut established = Established::new(
            now,
            &self.config,
            self.link,
            key,
            peer,
            hello,
            &mut self.timers,
        );
        match answers_one {
            true => established.sender.rtt.on_sample(since_first, Hello::BYTES),
            // Karn's rule: to which of our Hellos this is the answer is not known, but none is older than the first.
            false => established.sender.rtt.on_bound(since_first, Hello::BYTES),
        }
        let prologue = self.prologue(hello);
        let handshake = Handshake::new(&self.security, self.role, &mut self.ephemerals, &prologue);
        if let Some(mut handshake) = handshake {
            if self.role == Role::Host {
                // Writing the first message cannot fail: nothing of the other end is in it yet.
                handshake
                    .write()
                    .into_iter()
                    .for_each(|message| established.queue_handshake(message));
            }
            established.protection = Protection::Expecting(Box::new(handshake));
            let patience = self.config.keep_alive * self.config.keep_alive_missed_max;
            self.timers.set(Timer::Handshake, now + patience);
        }
        let is_resumable =
            |suspended: &Suspended| hello.resume && suspended.peer.boot_id == peer.boot_id;
        match self.suspended.take() {
            Some(suspended) if is_resumable(&suspended) => {
                established.resume(*suspended);
                let patience = self.config.keep_alive * self.config.keep_alive_missed_max;
                self.timers.set(Timer::Handshake, now + patience);
                self.stats.resumptions += 1;
            }
            other => {
                let reason = other.map(|suspended| suspended.reason);
                let event = reason.map(|reason| ConnectionEvent::Lost { reason });
                self.events.extend(event);
                self.stats.connections += 1;
            }
        }
        let is_news = established.protection.is_open() && established.on_protected();
        self.state = State::Established(Box::new(established));
        self.hello_wanted = !hello.established;
        if is_news {
            self.events.push_back(ConnectionEvent::Established { peer });
        }
    }

    /// What both ends must have seen alike: all that the two Hellos offer, the host's first.
    fn prologue(&self, theirs: &Hello) -> Vec<u8> {
        let mut encoded = [Vec::new(), Vec::new()];
        let ours = self.hello(false, None);
        let (host, device) = match self.role {
            Role::Host => (&ours, theirs),
            Role::Device => (theirs, &ours),
        };
        host.encode(&mut encoded[0]);
        device.encode(&mut encoded[1]);
        let mut prologue = b"autoglm-edge 1".to_vec();
        for hello in &encoded {
            prologue.extend_from_slice(&hello[HELLO_OFFER]);
        }
        prologue
    }

    fn on_close(&mut self, now: Instant, close: &Close) {
        if close.to != self.identity.token() {
            self.stats.stale += 1;
            return;
        }
        if let State::Established(established) = &self.state {
            if established.peer_identity.token() != close.from {
                self.stats.stale += 1;
                return;
            }
            self.peers.retire(established.peer_identity);
            self.lose(now, LostReason::ClosedByPeer(close.reason));
        }
        if close.reason == CloseReason::Unauthenticated {
            self.turn_deaf(now);
        }
        if close.reason == CloseReason::IncompatibleVersion
            && VersionRange::OURS.common(close.versions).is_none()
        {
            self.on_incompatible(close.from, close.versions);
        }
    }

    /// Tells the owner once per peer, and asks less often from now on.
    fn on_incompatible(&mut self, peer: Token, theirs: VersionRange) {
        if self.peers.on_incompatible(peer) {
            self.events
                .push_back(ConnectionEvent::Incompatible { theirs });
        }
        if let State::Seeking { interval, .. } = &mut self.state {
            *interval = self.config.hello_interval_max;
        }
    }
}
