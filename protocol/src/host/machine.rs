//! The host machine as its driver sees it: bytes and time in, requests in, events out. What comes in is read in `inbound`.

use alloc::vec::Vec;
use core::borrow::Borrow;
use core::time::Duration;

use crate::connection::PeerInfo;
use crate::endpoint::Endpoint;
use crate::message::Message;
use crate::segment::MessageToken;
use crate::time_sync::TimeServer;
use crate::transfer::Transfers;
use crate::wire::{Identity, Role};
use crate::{Config, Instant, LinkKind, Security, SendError, Standing, Stats};

use super::open::{Expects, Open, OpenRequests, compose};
use super::{DeliveryState, HostEvent, Reply, Request, RequestError, RequestFailure, RequestId};

/// One host on one link. See the [crate] for the calling contract, the [module](super) for asking again.
#[derive(Debug)]
pub struct Host {
    pub(super) endpoint: Endpoint<HostEvent>,
    pub(super) presence: Presence,
    /// Bounded by `requests_max`.
    pub(super) open: OpenRequests,
    pub(super) time: TimeServer,
}

/// How much of the device is known.
#[derive(Debug)]
pub(super) enum Presence {
    Absent,
    /// Connected, but not announced; what it sent already is held behind the announcement.
    Unannounced(PeerInfo),
    Announced,
}

impl Host {
    /// A host that begins to seek a device at once.
    ///
    /// `boot_id` names this start of the program, drawn at random; `epoch` grows with each machine that it builds for
    /// the same link. The pair must never be used twice.
    #[must_use]
    pub fn new(config: Config, link: LinkKind, boot_id: u32, epoch: u32) -> Self {
        Self::with_security(config, link, boot_id, epoch, Security::None)
    }

    /// As [`Host::new`], with `security`.
    #[must_use]
    pub fn with_security(
        config: Config,
        link: LinkKind,
        boot_id: u32,
        epoch: u32,
        security: Security,
    ) -> Self {
        let identity = Identity { boot_id, epoch };
        Self {
            endpoint: Endpoint::new(config, link, Role::Host, identity, security),
            presence: Presence::Absent,
            open: OpenRequests::default(),
            time: TimeServer::default(),
        }
    }

    /// Takes bytes in any portions (stream), or exactly one packet (datagram).
    pub fn handle_input(&mut self, now: Instant, bytes: &[u8]) {
        self.endpoint.handle_input(now, bytes);
        self.advance(now);
    }

    /// Says that the time of [`Host::poll_timeout`] has come; harmless at any time.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.endpoint.handle_timeout(now);
        self.advance(now);
        let overdue = |open: &Open| open.deadline <= now;
        while let Some(id) = self
            .open
            .iter()
            .find(|(_, open)| overdue(open))
            .map(|&(id, _)| id)
        {
            self.on_deadline(now, id);
        }
    }

    /// Appends one frame (stream) or one packet (datagram) to `out`; false if there is nothing to send.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        self.send_waiting(now);
        let has_sent = self.endpoint.poll_transmit(now, out);
        self.advance(now);
        has_sent
    }

    /// The next event, or `None`.
    pub fn poll_event(&mut self) -> Option<HostEvent> {
        self.endpoint.poll_event()
    }

    /// When to call [`Host::handle_timeout`]; ask anew after every call.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let deadline = self.open.values().map(|open| open.deadline).min();
        self.endpoint
            .poll_timeout()
            .into_iter()
            .chain(deadline)
            .min()
    }

    /// Takes back what an event was made of, for the next ones. A driver that does so with every event keeps the machine from
    /// allocating anything in a steady state; it need not.
    pub fn recycle(&mut self, event: HostEvent) {
        event.give_back(self.endpoint.buffers());
    }

    /// Asks the device; exactly one [`HostEvent::Reply`] will follow, within `deadline`.
    ///
    /// # Errors
    /// Nothing was sent and no event will follow.
    pub fn request(
        &mut self,
        now: Instant,
        id: RequestId,
        request: impl Borrow<Request>,
        deadline: Duration,
    ) -> Result<(), RequestError> {
        self.ask(now, id, request.borrow(), deadline)
    }

    fn ask(
        &mut self,
        now: Instant,
        id: RequestId,
        request: &Request,
        deadline: Duration,
    ) -> Result<(), RequestError> {
        if !matches!(self.presence, Presence::Announced) {
            return Err(RequestError::NotConnected);
        }
        if self.open.contains_key(&id) {
            return Err(RequestError::DuplicateId(id));
        }
        if self.open.len() >= self.endpoint.config().requests_max {
            return Err(RequestError::Busy);
        }
        let (message, expects) = compose(id, request, deadline, self.endpoint.config());
        self.endpoint
            .send_named(now, &message, Some(MessageToken(id.0)))
            .map_err(refusal)?;
        let open = Open {
            deadline: now + deadline,
            delivery: DeliveryState::NotSent,
            expects,
            follow_up: None,
        };
        self.open.insert(id, open);
        Ok(())
    }

    /// No longer wants a request. If no byte of it was sent it ends as [`RequestFailure::Cancelled`]; otherwise the
    /// device is told, and its answer still comes.
    pub fn cancel(&mut self, now: Instant, id: RequestId) {
        let Some(open) = self.open.get_mut(&id) else {
            return;
        };
        if self.endpoint.withdraw(MessageToken(id.0))
            || matches!(open.expects, Expects::Description(_))
        {
            self.finish(id, Err(RequestFailure::Cancelled));
            return;
        }
        open.follow_up = Some(Message::Cancel { id: id.0 });
        self.send_waiting(now);
    }

    /// Tells the device the time, in microseconds since 1970-01-01T00:00:00Z, and answers when it asks for it more exactly.
    ///
    /// To be called on each connection, after each step of the host's clock, and every
    /// [`TIME_SYNC_INTERVAL`](crate::TIME_SYNC_INTERVAL).
    ///
    /// # Errors
    /// Not connected, or no room.
    pub fn time_sync(&mut self, now: Instant, unix_micros: u64) -> Result<(), SendError> {
        self.time.set(now, unix_micros);
        self.endpoint.send(now, &Message::TimeSync { unix_micros })
    }

    /// Asks the device for a sign of life now, before the keep-alive does: it answers at once, whatever it works at. Nothing happens
    /// without a connection, and what to make of silence is the caller's to say.
    pub fn probe(&mut self) {
        self.endpoint.probe();
    }

    /// What is carried in both directions that is too large for a message.
    pub fn transfers(&mut self) -> Transfers<'_> {
        self.endpoint.transfers()
    }

    /// Goes on to another link, as the driver has closed the old one: what is sent and received from now on is of the new.
    ///
    /// With [`Config::resume_window`] at both ends the connection goes on there as if nothing had happened; otherwise it is
    /// lost as [`LostReason::LinkChanged`](crate::LostReason::LinkChanged) and made anew. The same link may be given, as when it was
    /// opened again.
    pub fn change_link(&mut self, now: Instant, link: LinkKind) {
        self.endpoint.change_link(now, link);
        self.advance(now);
    }

    /// Ends the connection for good: open requests are answered, `poll_transmit` gives a last Close, and the machine
    /// stays silent.
    pub fn close(&mut self, now: Instant) {
        self.endpoint.close();
        self.advance(now);
    }

    /// Where the connection stands now. A device whose description was not announced yet may count as connected.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.endpoint.standing()
    }

    /// The counters so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.endpoint.stats()
    }

    fn on_deadline(&mut self, now: Instant, id: RequestId) {
        let Some(open) = self.open.get(&id) else {
            return;
        };
        let delivered = open.delivery;
        if !self.endpoint.withdraw(MessageToken(id.0)) && matches!(open.expects, Expects::Done) {
            // Best effort: the device knows the deadline too.
            let _ = self.endpoint.send(now, &Message::Cancel { id: id.0 });
        }
        self.finish(id, Err(RequestFailure::DeadlineExceeded { delivered }));
    }

    pub(super) fn finish(&mut self, id: RequestId, result: Result<Reply, RequestFailure>) {
        if self.open.remove(&id).is_some() {
            self.endpoint
                .events
                .push(HostEvent::Reply { id, result }, 0);
        }
    }

    /// Queues what waits for room, as far as there is room.
    pub(super) fn send_waiting(&mut self, now: Instant) {
        if let Some((asked, received, sent)) = self.time.reply(now) {
            let reply = Message::TimeReply {
                asked,
                received,
                sent,
            };
            if self.endpoint.send(now, &reply).is_ok() {
                self.time.forget_request();
            }
        }
        self.endpoint.transfers().send_replies(now);
        for open in self.open.values_mut() {
            let Some(message) = &open.follow_up else {
                continue;
            };
            if self.endpoint.send(now, message).is_err() {
                return;
            }
            open.follow_up = None;
        }
    }
}

fn refusal(error: SendError) -> RequestError {
    match error {
        SendError::NotConnected => RequestError::NotConnected,
        SendError::QueueFull => RequestError::Busy,
        SendError::TooLarge { size, limit } => RequestError::TooLarge { size, limit },
        SendError::OutOfBounds => RequestError::OutOfBounds,
    }
}
