//! A *port* is the host's end of one device's connection. It lives as long as the device is configured; links come and go
//! below it.
//!
//! It is the only place where the two roads meet: bytes come up from the link through the protocol machine to the
//! [`PortEvent`] queue, requests come down from [`Port::request`] through the machine to the link.
//!
//! - **Up waits**: while the up queue is full the port reads nothing more from the link, so back-pressure reaches the device.
//! - **Down never waits**: a full down queue is [`PortError::Busy`] to the caller at once.
//!
//! When a link breaks, or the supervisor gives another, the connection is kept for
//! [`Config::resume_window`](autoglm_protocol::Config::resume_window): requests and observers survive, and whoever asked learns of the
//! break only if it lasts longer. A port never opens a link; [`LinkControl`] is how its supervisor gives and takes them.
//!
//! [`mod@task`] is the loop, [`pipe`] the link as the loop uses it, [`silence`] the suspicion that nobody is there, [`carry`] what is too
//! large for a request.

pub mod carry;
pub mod pipe;
mod silence;
pub mod task;

use std::sync::Arc;
use std::time::Duration;

use autoglm_protocol::transfer::Offer;
use autoglm_protocol::wire::VersionRange;
use autoglm_protocol::{
    LogLevel, LostReason, PeerInfo, Reply, Request, RequestError, RequestFailure, RequestId,
    Standing, Value,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::carry::Parcel;
use crate::link::Link;

pub use carry::CarryError;
pub use task::PortTask;

/// Requests waiting for the port's next turn; the machine has its own bound on those in flight.
const DOWN_CAPACITY: usize = 16;
/// What is to be carried waits for the port's next turn; the protocol carries one at a time.
const PARCELS_CAPACITY: usize = 1;
/// Links on their way to the port: the supervisor gives one and hears what became of it before it gives the next.
const LINKS_CAPACITY: usize = 4;

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
    /// The connection is over, or was not there yet; the request never left.
    #[error("the device is not connected")]
    NotConnected,
    /// The request cannot be sent as it is.
    #[error("the request cannot be sent: {0}")]
    Refused(RequestError),
    /// The device or its connection failed it.
    #[error("{0}")]
    Failed(RequestFailure),
}

/// Which of a device's links, by its place in the supervisor's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkIndex(pub usize);

/// What happens on a device's connection, in order.
#[derive(Debug)]
pub enum PortEvent {
    /// A connection was made: the device described itself by its hash, and takes requests by this port.
    Connected {
        /// The device, as it presents itself.
        peer: PeerInfo,
        /// The way to it, for as long as this connection.
        port: Port,
    },
    /// The connection was interrupted and is kept. `link` is still below when the device is silent on it.
    Interrupted {
        /// The link that is below, if one is.
        link: Option<LinkIndex>,
    },
    /// The interrupted connection goes on, over this link, with nothing lost and nothing doubled.
    Resumed {
        /// The link that carries it.
        link: LinkIndex,
    },
    /// The connection is over; who waited for an answer was told. A device that is not authentic is told of in this way
    /// too, although no connection to it was.
    Lost {
        /// The link that is below, if one is.
        link: Option<LinkIndex>,
        /// Why.
        reason: LostReason,
    },
    /// The link broke and is no longer below.
    LinkLost {
        /// Which.
        link: LinkIndex,
        /// Why.
        end: LinkEnd,
    },
    /// The device speaks no version of the protocol that we speak.
    Incompatible {
        /// The link on which it was heard.
        link: Option<LinkIndex>,
        /// What it speaks.
        theirs: VersionRange,
    },
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

/// Why a link is no longer below a port.
#[derive(Debug, thiserror::Error)]
pub enum LinkEnd {
    /// It gave no more bytes: unplugged, or the other side is gone.
    #[error("the link is gone (end of file)")]
    Closed,
    /// The device answers neither a request nor probes: the line is broken at its end, or it is off.
    #[error("the device does not answer, not even to probes")]
    Silent,
    /// It failed.
    #[error("the link failed")]
    Failed(#[source] std::io::Error),
}

/// How the link that is below does, since it was given.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LinkQuality {
    /// Which link; `None` while none is below.
    pub link: Option<LinkIndex>,
    /// Where the connection stands.
    pub standing: Standing,
    /// The smoothed round-trip time (RFC 6298), once known.
    pub rtt: Option<Duration>,
    /// Data packets sent, repetitions included.
    pub packets: u64,
    /// Data packets sent again.
    pub repeated: u64,
    /// Bytes handed to the link.
    pub bytes_sent: u64,
    /// Bytes taken from it.
    pub bytes_received: u64,
}

impl LinkQuality {
    /// The share of data packets that had to be sent again, 0 to 1; `None` while too few were sent to say.
    #[must_use]
    pub fn loss(&self) -> Option<f64> {
        /// Below this a single repetition would look like a bad line.
        const PACKETS_MIN: u64 = 20;
        (self.packets >= PACKETS_MIN).then(|| self.repeated as f64 / self.packets as f64)
    }
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
    /// Which connection it is meant for.
    connection: CancellationToken,
}

/// Makes a handle whose requests the caller serves by itself, and which carries nothing large ([`CarryError::Unsupported`]). When the receiver is dropped the port is closed.
#[must_use]
pub fn requests() -> (Port, mpsc::Receiver<Command>) {
    let (down, commands) = mpsc::channel(DOWN_CAPACITY);
    let connection = CancellationToken::new();
    let port = Port {
        down,
        parcels: None,
        connection,
    };
    (port, commands)
}

/// The way to a device, for as long as one connection to it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Port {
    down: mpsc::Sender<Command>,
    /// None where the device does not speak our protocol.
    parcels: Option<mpsc::Sender<Parcel>>,
    /// Cancelled when the connection is over.
    connection: CancellationToken,
}

impl Port {
    /// Whether the connection is over: every request would be [`PortError::NotConnected`].
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.connection.is_cancelled() || self.down.is_closed()
    }

    /// Sends a request and waits for the device's answer, over interruptions of the connection that are shorter than what
    /// is kept. Dropping the future cancels nothing on the device.
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
        let connection = self.connection.clone();
        self.down
            .try_send(Command {
                id,
                request,
                deadline,
                reply,
                connection,
            })
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => PortError::Busy,
                mpsc::error::TrySendError::Closed(_) => PortError::NotConnected,
            })?;
        answer.await.unwrap_or(Err(PortError::NotConnected))
    }

    /// Carries something large to the device, and returns when the device has stored it. It goes on over interruptions of the
    /// connection, and delays a request by a segment at most. Dropping the future gives up the receipt, not the transfer.
    ///
    /// # Errors
    /// [`CarryError`]; after [`CarryError::Interrupted`] the same offer goes on where it stopped.
    pub async fn carry(&self, offer: Offer, content: Arc<[u8]>) -> Result<(), CarryError> {
        let parcels = self.parcels.as_ref().ok_or(CarryError::Unsupported)?;
        let (reply, carried) = oneshot::channel();
        let connection = self.connection.clone();
        let parcel = Parcel {
            offer,
            content,
            reply,
            connection,
        };
        parcels.try_send(parcel).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => CarryError::Busy,
            mpsc::error::TrySendError::Closed(_) => CarryError::NotConnected,
        })?;
        carried.await.unwrap_or(Err(CarryError::Interrupted))
    }
}

#[derive(Debug)]
enum LinkOrder {
    Use(LinkIndex, Link),
    Leave,
}

/// How a supervisor gives links to its port and takes them away.
#[derive(Debug)]
pub struct LinkControl {
    orders: mpsc::Sender<LinkOrder>,
    quality: watch::Receiver<LinkQuality>,
}

impl LinkControl {
    /// Puts a link below the port; the one that was there is closed, without an event. False when the port has ended.
    pub async fn use_link(&self, index: LinkIndex, link: Link) -> bool {
        self.orders.send(LinkOrder::Use(index, link)).await.is_ok()
    }

    /// Takes the link away and closes it, without an event. False when the port has ended.
    pub async fn leave_link(&self) -> bool {
        self.orders.send(LinkOrder::Leave).await.is_ok()
    }

    /// How the link below does, at most once a second and at each change of standing.
    #[must_use]
    pub fn quality(&self) -> watch::Receiver<LinkQuality> {
        self.quality.clone()
    }
}

/// Makes a port for one device: what gives it links, and the task to run. `up` is where events go.
#[must_use]
pub fn port(up: mpsc::Sender<PortEvent>) -> (LinkControl, PortTask) {
    let (down, commands) = mpsc::channel(DOWN_CAPACITY);
    let (parcels, carrying) = mpsc::channel(PARCELS_CAPACITY);
    let (orders, links) = mpsc::channel(LINKS_CAPACITY);
    let (publish, quality) = watch::channel(LinkQuality::default());
    let task = PortTask {
        requests: down,
        down: commands,
        parcels: (parcels, carrying),
        links,
        up,
        quality: Arc::new(publish),
    };
    (LinkControl { orders, quality }, task)
}
