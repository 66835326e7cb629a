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
use std::pin::Pin;
use std::task::{Context, Poll};

use rumqttc::v5::mqttbytes::valid_filter;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::pump::{Ends, Pump};
use super::types::{
    BrokerState, ClientConfig, Incoming, Publication, PublishError, PublishOptions,
};

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

pub(super) type ReceiptSender = oneshot::Sender<Result<(), PublishError>>;

/// What reaches the owner task.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) publication: Publication,
    pub(super) options: PublishOptions,
    pub(super) receipt: ReceiptSender,
}

/// Resolves when the broker has acknowledged, or when it is certain that it never will. Dropping it gives up the receipt, not the
/// message.
#[derive(Debug)]
pub struct Receipt(oneshot::Receiver<Result<(), PublishError>>);

impl Future for Receipt {
    type Output = Result<(), PublishError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map(|received| received.unwrap_or(Err(PublishError::Stopped)))
    }
}

/// Handle to the broker connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    out: mpsc::Sender<Submission>,
    packets: mpsc::Sender<Publication>,
    state: watch::Receiver<BrokerState>,
    fresh_sessions: watch::Receiver<u64>,
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
        self.submit(publication, PublishOptions::default())?.await
    }

    /// Hands over a publication at QoS 1 and returns at once; the receipt resolves once the broker has acknowledged, across
    /// reconnections. Publications leave in the order in which they were handed over.
    ///
    /// # Errors
    /// [`PublishError::Busy`] when the queue is full, [`PublishError::Stopped`] after shut-down, [`PublishError::InvalidTopic`].
    pub fn submit(
        &self,
        publication: Publication,
        options: PublishOptions,
    ) -> Result<Receipt, PublishError> {
        if !is_topic_name(&publication.topic) {
            return Err(PublishError::InvalidTopic);
        }
        let (receipt, acknowledged) = oneshot::channel();
        self.out
            .try_send(Submission {
                publication,
                options,
                receipt,
            })
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => PublishError::Busy,
                mpsc::error::TrySendError::Closed(_) => PublishError::Stopped,
            })?;
        Ok(Receipt(acknowledged))
    }

    /// Counts the times that the broker knew nothing of us: subscriptions were made again, and what it kept retained may be gone.
    #[must_use]
    pub fn fresh_sessions(&self) -> watch::Receiver<u64> {
        self.fresh_sessions.clone()
    }

    /// Which topic filters are subscribed to beside those of the configuration, from now on and after every connection. The broker then
    /// sends what it keeps of the new ones. What is no topic filter, and what the broker refuses, is logged and left out.
    pub fn want(&self, mut filters: BTreeSet<String>) {
        filters.retain(|filter| {
            let is_good = valid_filter(filter);
            if !is_good {
                tracing::warn!(filter, "not a topic filter; nothing is subscribed to by it");
            }
            is_good
        });
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
    let (packets, packet_queue) = mpsc::channel(PACKETS_CAPACITY);
    let (up, up_queue) = mpsc::channel(up_capacity);
    let (state, watched) = watch::channel(BrokerState::Starting);
    let (fresh, fresh_sessions) = watch::channel(0);
    let (wanted, filters) = watch::channel(BTreeSet::new());
    let ends = Ends {
        out: out_queue,
        packets: packet_queue,
        wanted: filters,
        up,
        state,
        fresh_sessions: fresh,
    };
    tracker.spawn(Pump::new(config, ends).run(cancel));
    (
        Client {
            out,
            packets,
            state: watched,
            fresh_sessions,
            wanted,
        },
        up_queue,
    )
}

/// Whether it can be published to (MQTT 5 §4.7). One that cannot would stay at the head of every queue for ever.
fn is_topic_name(topic: &str) -> bool {
    !topic.is_empty() && topic.len() <= usize::from(u16::MAX) && !topic.contains(['+', '#', '\0'])
}
