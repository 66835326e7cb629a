//! How a connection ends, what is kept of it, and what is told.

use alloc::boxed::Box;

use crate::Instant;
use crate::wire::CloseReason;

use super::super::established::Established;
use super::super::session::Suspended;
use super::super::timers::{Timer, TimerTable};
use super::super::{LinkKind, LostReason};
use super::{Connection, ConnectionEvent, Framing, State};

impl Connection {
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
    pub(super) fn lose(&mut self, now: Instant, reason: LostReason) {
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
    pub(super) fn forget_suspended(&mut self) {
        if let Some(suspended) = self.suspended.take() {
            let reason = suspended.reason;
            self.events.push_back(ConnectionEvent::Lost { reason });
        }
    }

    /// Listens to nobody for a while, and says nothing: two ends that do not trust each other must not argue at line speed.
    pub(super) fn turn_deaf(&mut self, now: Instant) {
        let until = now + self.config.hello_interval_max;
        self.deaf_until = Some(until);
        self.hello_wanted = false;
        self.timers.set(Timer::Hello, until);
    }
}
