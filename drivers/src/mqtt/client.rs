//! The MQTT client: a handle, and the task that keeps a connection to the broker.
//!
//! What rumqttc 0.25.1 gets wrong and how this stays clear of it:
//! - after an error its event loop carries over state that can loop for ever (`collision`, #1056, #1014) and
//!   drops queued publishes when the broker lost our session: so **every connection gets a fresh event
//!   loop**, and what the broker has not acknowledged is kept here and sent again;
//! - `poll()` reconnects at once: a failed connection ends here, and the next one waits by [`Backoff`];
//! - topic aliases break after a reconnect (#972): none are used.
//!
//! The event loop's `poll` future is never dropped half way: its own task polls it, the owner task reads a channel.
//!
//! [`Backoff`]: crate::backoff::Backoff

use std::collections::BTreeSet;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::pump::Pump;
use super::types::{BrokerState, ClientConfig, Incoming, Publication, PublishError};

/// Publications waiting for the owner task. Full: [`PublishError::Busy`] at once, because whoever
/// publishes can decide better than a queue what to do while the broker is away.
const OUT_CAPACITY: usize = 64;
/// Packets of device links waiting for the owner task. Full: the links wait, and so do the connections above. Few, since what
/// waits here is late, and what waits above can still be put into order of urgency.
const PACKETS_CAPACITY: usize = 4;
/// Messages on their way up. The broker sends at most [`RECEIVE_MAXIMUM`] unacknowledged ones, so QoS 1 never
/// meets a full queue; a QoS 0 flood is dropped and counted.
const UP_CAPACITY: usize = 64;
/// MQTT 5 receive maximum: the broker's limit on unacknowledged messages to us, hence our back-pressure.
pub(super) const RECEIVE_MAXIMUM: u16 = 16;

pub(super) type Receipt = oneshot::Sender<Result<(), PublishError>>;

/// A publication on its way to the owner task.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) publication: Publication,
    /// Not to be sent, and not to be sent again, after this moment.
    pub(super) until: Option<Instant>,
    pub(super) receipt: Receipt,
}

/// Handle to the broker connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    out: mpsc::Sender<Order>,
    packets: mpsc::Sender<Publication>,
    state: watch::Receiver<BrokerState>,
    wanted: watch::Sender<BTreeSet<String>>,
}

impl Client {
    /// Publishes at QoS 1 and returns once the broker has acknowledged, across reconnections.
    ///
    /// Dropping the future gives up the receipt, not the message.
    ///
    /// # Errors
    /// [`PublishError::Busy`] when the queue is full, [`PublishError::Stopped`] after shut-down.
    pub async fn publish(&self, publication: Publication) -> Result<(), PublishError> {
        self.order(publication, None).await
    }

    /// As [`Client::publish`], but the message never leaves after `until`: what nobody waits for any more must not be done later, when the
    /// broker returns.
    ///
    /// # Errors
    /// As [`Client::publish`], and [`PublishError::Expired`].
    pub async fn publish_until(
        &self,
        publication: Publication,
        until: Instant,
    ) -> Result<(), PublishError> {
        self.order(publication, Some(until)).await
    }

    async fn order(
        &self,
        publication: Publication,
        until: Option<Instant>,
    ) -> Result<(), PublishError> {
        let (receipt, acknowledged) = oneshot::channel();
        let order = Order {
            publication,
            until,
            receipt,
        };
        self.out.try_send(order).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => PublishError::Busy,
            mpsc::error::TrySendError::Closed(_) => PublishError::Stopped,
        })?;
        acknowledged.await.unwrap_or(Err(PublishError::Stopped))
    }

    /// Which topic filters are subscribed to beside those of the configuration, from now on and after every connection. The broker then
    /// sends what it keeps of the new ones. One that it refuses is logged and left out.
    pub fn want(&self, filters: BTreeSet<String>) {
        self.wanted.send_if_modified(|wanted| {
            let is_new = *wanted != filters;
            *wanted = filters;
            is_new
        });
    }

    /// Hands over a packet to be published at QoS 1 on the present connection to the broker: it is forgotten with that
    /// connection, since a packet that comes late is worth nothing. Waits for room; false after shut-down.
    ///
    /// Dropping the future hands over nothing.
    pub async fn send_packet(&self, packet: Publication) -> bool {
        self.packets.send(packet).await.is_ok()
    }

    /// The state of the connection, as a snapshot to watch.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<BrokerState> {
        self.state.clone()
    }
}

/// Starts the owner task on `tracker`; it ends when `cancel` is, after a clean disconnect.
#[must_use]
pub fn spawn(
    config: ClientConfig,
    tracker: &TaskTracker,
    cancel: CancellationToken,
) -> (Client, mpsc::Receiver<Incoming>) {
    spawn_with_queue(config, UP_CAPACITY, tracker, cancel)
}

/// As [`spawn`], with another capacity for messages on their way up: what the broker keeps of many topics comes all at once, at QoS 0.
#[must_use]
pub fn spawn_with_queue(
    config: ClientConfig,
    up_capacity: usize,
    tracker: &TaskTracker,
    cancel: CancellationToken,
) -> (Client, mpsc::Receiver<Incoming>) {
    let (out, out_queue) = mpsc::channel(OUT_CAPACITY);
    let (up, up_queue) = mpsc::channel(up_capacity);
    let (state, watched) = watch::channel(BrokerState::Starting);
    let (wanted, filters) = watch::channel(BTreeSet::new());
    let (packets, packet_queue) = mpsc::channel(PACKETS_CAPACITY);
    tracker.spawn(Pump::new(config, out_queue, packet_queue, up, state, filters).run(cancel));
    (
        Client {
            out,
            packets,
            state: watched,
            wanted,
        },
        up_queue,
    )
}
