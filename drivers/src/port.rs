//! A *port* pumps one protocol connection (host role) over one link.
//!
//! It is the only place where the two roads meet: bytes come up from the link through the protocol
//! machine to the [`PortEvent`] queue, requests come down from [`Port::request`] through the machine to the
//! link. The task owns the machine; its loop is one `select!` over link bytes, down queue, up queue, the machine's
//! deadline and cancellation, and it drains the machine fully after each.
//!
//! - **Up waits**: while the up queue is full the port reads nothing more from the link, so back-pressure
//!   reaches the device.
//! - **Down never waits**: a full down queue is [`PortError::Busy`] to the caller at once.
//!
//! It never reopens a link: when the connection is over it returns why, and the supervisor decides.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use autoglm_protocol::wire::VersionRange;
use autoglm_protocol::{
    Config, DeliveryState, Host, HostEvent, Instant, LinkKind, LogLevel, LostReason, PeerInfo,
    Reply, Request, RequestError, RequestFailure, RequestId, Value,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::link::ByteStream;

/// Requests waiting for the port's next turn; the machine has its own bound on those in flight.
const DOWN_CAPACITY: usize = 16;
/// Events that the port holds while the up queue is full, before it stops reading the link.
const HELD_MAX: usize = 32;
/// Bytes read from a link in one turn: some 20 ms of a 921,600 baud line.
const READ_BYTES: usize = 2048;
/// Bytes handed to the link ahead of it. More would only age in the tty's queue, before more urgent ones.
const WRITE_AHEAD_BYTES: usize = 4096;
/// How long a clean close may take to leave.
const GOODBYE: Duration = Duration::from_millis(200);

/// The answer to a request, and when what happened, counted from [`Port::request`].
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The device's own reply.
    pub reply: Reply,
    /// The request's last byte was handed to the link.
    pub written_after: Duration,
    /// The device's reply was complete.
    pub answered_after: Duration,
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PortError {
    /// Too many requests wait for this device.
    #[error("too many requests wait for this device")]
    Busy,
    /// The connection is down, or was not there yet; the request never left.
    #[error("the device is not connected")]
    NotConnected,
    /// The request cannot be sent as it is.
    #[error("the request cannot be sent: {0}")]
    Refused(RequestError),
    /// The device or its connection failed it.
    #[error("{0}")]
    Failed(RequestFailure),
}

/// What a device tells without being asked.
#[derive(Debug, Clone, PartialEq)]
pub enum PortEvent {
    /// The handshake is complete.
    Connected(PeerInfo),
    /// An observed property has a new value.
    PropertyChanged {
        /// Property name in the description.
        property: String,
        /// New value.
        value: Value,
    },
    /// The device emitted an event.
    Event {
        /// Event name in the description.
        name: String,
        /// Its data.
        data: Value,
    },
    /// A line of the device's log.
    Log {
        /// Its level.
        level: LogLevel,
        /// Its text.
        text: String,
    },
}

/// Why a port ended.
#[derive(Debug, thiserror::Error)]
pub enum PortEnd {
    /// We were told to stop.
    #[error("closed by us")]
    Cancelled,
    /// The link gave no more bytes: unplugged, or the other side is gone.
    #[error("the link is gone (end of file)")]
    LinkClosed,
    /// The link failed.
    #[error("the link failed")]
    Link(#[source] std::io::Error),
    /// The protocol connection is over.
    #[error("the connection ended: {0}")]
    Connection(LostReason),
    /// The device speaks no version of the protocol that we speak.
    #[error("the device speaks protocol {theirs:?}, we do not: update its firmware or this daemon")]
    Incompatible {
        /// What it speaks.
        theirs: VersionRange,
    },
}

/// A request as whoever serves a [`Port`] takes it: a [`PortTask`], or the binding of a device that does not speak our protocol.
#[derive(Debug)]
pub struct Command {
    /// The request's identity.
    pub id: RequestId,
    /// What is asked.
    pub request: Request,
    /// How long the device may take, counted from [`Port::request`].
    pub deadline: Duration,
    /// Where the answer goes. Dropped without one, the caller hears [`PortError::NotConnected`]: only right when nothing left.
    pub reply: oneshot::Sender<Result<Answer, PortError>>,
}

/// Makes a handle whose requests the caller serves by itself. When the receiver is dropped the port is closed.
#[must_use]
pub fn requests() -> (Port, mpsc::Receiver<Command>) {
    let (down, commands) = mpsc::channel(DOWN_CAPACITY);
    (Port { down }, commands)
}

/// Handle to a running port. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Port {
    down: mpsc::Sender<Command>,
}

impl Port {
    /// Whether the port has ended: every request would be [`PortError::NotConnected`].
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.down.is_closed()
    }

    /// Sends a request and waits for the device's answer. Dropping the future cancels nothing on the device.
    ///
    /// `id` is the request's identity for at-most-once execution: give the same one when the same request is asked again.
    ///
    /// # Errors
    /// [`PortError`]; only [`PortError::Failed`] may have reached the device.
    pub async fn request(
        &self,
        id: RequestId,
        request: Request,
        deadline: Duration,
    ) -> Result<Answer, PortError> {
        let (reply, answer) = oneshot::channel();
        self.down
            .try_send(Command {
                id,
                request,
                deadline,
                reply,
            })
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => PortError::Busy,
                mpsc::error::TrySendError::Closed(_) => PortError::NotConnected,
            })?;
        answer.await.unwrap_or(Err(PortError::NotConnected))
    }
}

/// Identity of one connection attempt, chosen by the supervisor.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    /// This run of the daemon.
    pub boot_id: u32,
    /// Counts the connections of this run.
    pub epoch: u32,
}

/// A port that is not yet running; [`PortTask::run`] is its life.
#[derive(Debug)]
pub struct PortTask {
    down: mpsc::Receiver<Command>,
    up: mpsc::Sender<PortEvent>,
}

/// Makes a port: the handle, and the task to run. `up` is where events go.
#[must_use]
pub fn port(up: mpsc::Sender<PortEvent>) -> (Port, PortTask) {
    let (port, down) = requests();
    (port, PortTask { down, up })
}

struct InFlight {
    asked: Instant,
    written: Option<Instant>,
    reply: oneshot::Sender<Result<Answer, PortError>>,
}

impl PortTask {
    /// Pumps until the connection is over, and says why. Whoever still waits for an answer then gets a typed error.
    pub async fn run(
        mut self,
        link: Box<dyn ByteStream>,
        config: Config,
        identity: Identity,
        cancel: CancellationToken,
    ) -> PortEnd {
        let mut in_flight = BTreeMap::new();
        let end = self
            .pump(link, config, identity, cancel, &mut in_flight)
            .await;
        for request in in_flight.into_values() {
            // The link broke under the machine, which had no chance to say how far the request got.
            let delivered = if request.written.is_some() {
                DeliveryState::Sent
            } else {
                DeliveryState::NotSent
            };
            let _ = request
                .reply
                .send(Err(PortError::Failed(RequestFailure::ConnectionLost {
                    delivered,
                })));
        }
        end
    }

    async fn pump(
        &mut self,
        link: Box<dyn ByteStream>,
        config: Config,
        identity: Identity,
        cancel: CancellationToken,
        in_flight: &mut BTreeMap<RequestId, InFlight>,
    ) -> PortEnd {
        let (mut reader, mut writer) = tokio::io::split(link);
        let origin = tokio::time::Instant::now();
        let clock = || {
            Instant::from_micros(u64::try_from(origin.elapsed().as_micros()).unwrap_or(u64::MAX))
        };
        let mut host = Host::new(config, LinkKind::Stream, identity.boot_id, identity.epoch);
        let mut held: VecDeque<PortEvent> = VecDeque::new();
        let mut input = [0u8; READ_BYTES];
        let mut output: Vec<u8> = Vec::with_capacity(WRITE_AHEAD_BYTES);

        loop {
            let now = clock();
            while output.len() < WRITE_AHEAD_BYTES && host.poll_transmit(now, &mut output) {}
            while let Some(event) = host.poll_event() {
                match event {
                    HostEvent::Reply { id, result } => {
                        if let Some(asked) = in_flight.remove(&id) {
                            let answer = result.map_err(PortError::Failed).map(|reply| Answer {
                                reply,
                                written_after: asked
                                    .written
                                    .unwrap_or(now)
                                    .saturating_duration_since(asked.asked),
                                answered_after: now.saturating_duration_since(asked.asked),
                            });
                            // The caller may have given up waiting; the device acted all the same.
                            let _ = asked.reply.send(answer);
                        }
                    }
                    HostEvent::Connected { peer } => held.push_back(PortEvent::Connected(peer)),
                    HostEvent::PropertyChanged { property, value } => {
                        held.push_back(PortEvent::PropertyChanged { property, value });
                    }
                    HostEvent::Event { name, data } => {
                        held.push_back(PortEvent::Event { name, data })
                    }
                    HostEvent::Log { level, text } => {
                        held.push_back(PortEvent::Log { level, text })
                    }
                    HostEvent::IncompatibleVersion { theirs } => {
                        return PortEnd::Incompatible { theirs };
                    }
                    HostEvent::Lost { reason } => return PortEnd::Connection(reason),
                    // Progress has no listener yet; the transport's acknowledgement is not an answer.
                    HostEvent::Accepted { .. } | HostEvent::Progress { .. } => {}
                }
            }
            let deadline = host
                .poll_timeout()
                .map(|at| origin + Duration::from_micros(at.as_micros()));

            // Every branch is cancel-safe: read, write, recv and reserve lose nothing when dropped.
            tokio::select! {
                biased;
                () = cancel.cancelled() => {
                    host.close(clock());
                    while host.poll_transmit(clock(), &mut output) {}
                    let _ = tokio::time::timeout(GOODBYE, writer.write_all(&output)).await;
                    return PortEnd::Cancelled;
                }
                read = reader.read(&mut input), if held.len() < HELD_MAX => match read {
                    // tokio-serial reports an unplugged adapter as an endless end of file.
                    Ok(0) => return PortEnd::LinkClosed,
                    Ok(count) => host.handle_input(clock(), &input[..count]),
                    Err(error) => return PortEnd::Link(error),
                },
                wrote = writer.write(&output), if !output.is_empty() => match wrote {
                    Ok(0) => return PortEnd::LinkClosed,
                    Ok(count) => {
                        output.drain(..count);
                        if output.is_empty() {
                            let written = clock();
                            for request in in_flight.values_mut() {
                                request.written.get_or_insert(written);
                            }
                        }
                    }
                    Err(error) => return PortEnd::Link(error),
                },
                permit = self.up.reserve(), if !held.is_empty() => match permit {
                    Ok(permit) => {
                        if let Some(event) = held.pop_front() {
                            permit.send(event);
                        }
                    }
                    Err(_) => return PortEnd::Cancelled,
                },
                Some(command) = self.down.recv() => {
                    let now = clock();
                    match host.request(now, command.id, command.request, command.deadline) {
                        Ok(()) => {
                            in_flight.insert(command.id, InFlight { asked: now, written: None, reply: command.reply });
                        }
                        Err(error) => {
                            let _ = command.reply.send(Err(match error {
                                RequestError::Busy => PortError::Busy,
                                RequestError::NotConnected => PortError::NotConnected,
                                error => PortError::Refused(error),
                            }));
                        }
                    }
                }
                () = sleep_until(deadline) => host.handle_timeout(clock()),
            }
        }
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
