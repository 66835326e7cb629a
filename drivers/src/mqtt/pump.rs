//! The owner task of the broker connection.
//!
//! Holds the window of unacknowledged publications; a connection is a loop over four sources: the event
//! loop's events, acknowledgements to hand on, publications, and cancellation. See [`super::client`].

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use rumqttc::NetworkOptions;
use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnectProperties, LastWill, LastWillProperties, Packet, PubAckReason, Publish,
    PublishProperties,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::client::{Order, RECEIVE_MAXIMUM, Receipt};
use super::types::{BrokerState, ClientConfig, Incoming, Publication, PublishError};

/// Unacknowledged publications at the broker. Well below rumqttc's own limit, where its collision handling starts.
const WINDOW: usize = 8;
/// rumqttc's request channel: the window, the acknowledgements ([`RECEIVE_MAXIMUM`]) and the subscription fit.
const REQUESTS: usize = 64;
/// MQTT 5 maximum packet size (§3.1.2.11.4): the broker drops larger ones instead of sending them. Without it rumqttc has a limit of
/// its own, ends the connection at a larger packet, and meets the same packet again after every reconnection.
const PACKET_BYTES_MAX: u32 = 256 * 1024;
/// A half-open connection is noticed after one and a half of these (MQTT 5 §3.1.2.10).
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Topic filters in one SUBSCRIBE packet. Chosen to stay far below the packet sizes that brokers take.
const FILTERS_AT_ONCE: usize = 32;
/// Time for the broker to take our clean disconnect.
const GOODBYE: Duration = Duration::from_millis(500);

struct Pending {
    publication: Publication,
    /// None for our own birth message and for packets, which nobody waits for: they end with the connection.
    receipt: Option<Receipt>,
    progress: Progress,
    until: Option<Instant>,
}

/// How far a publication has come on the present connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Unsent,
    Queued,
    Identified(u16),
}

pub(super) struct Pump {
    config: ClientConfig,
    out: mpsc::Receiver<Order>,
    packets: mpsc::Receiver<Publication>,
    up: mpsc::Sender<Incoming>,
    state: watch::Sender<BrokerState>,
    wanted: watch::Receiver<BTreeSet<String>>,
    window: VecDeque<Pending>,
    dropped: u64,
}

/// Why one connection ended.
enum Ended {
    Cancelled,
    Failed { cause: String, lived: Duration },
}

impl Pump {
    pub(super) fn new(
        config: ClientConfig,
        out: mpsc::Receiver<Order>,
        packets: mpsc::Receiver<Publication>,
        up: mpsc::Sender<Incoming>,
        state: watch::Sender<BrokerState>,
        wanted: watch::Receiver<BTreeSet<String>>,
    ) -> Self {
        Self {
            config,
            out,
            packets,
            up,
            state,
            wanted,
            window: VecDeque::new(),
            dropped: 0,
        }
    }

    pub(super) async fn run(mut self, cancel: CancellationToken) {
        let mut attempt = 0;
        loop {
            match self.connection(&cancel).await {
                Ended::Cancelled => return,
                Ended::Failed { cause, lived } => {
                    attempt = self.config.backoff.attempt_after(attempt, lived);
                    let wait = self
                        .config
                        .backoff
                        .delay(attempt.saturating_sub(1), rand::random());
                    self.lost(attempt, cause, wait);
                    while self.packets.try_recv().is_ok() {}
                    tokio::select! {
                        () = cancel.cancelled() => return,
                        () = tokio::time::sleep(wait) => {}
                    }
                }
            }
        }
    }

    /// Reports a lost connection: once as a warning, its repetitions at debug level.
    fn lost(&self, attempt: u32, cause: String, wait: Duration) {
        let broker = &self.config.broker;
        let wait_ms = wait.as_millis() as u64;
        if matches!(*self.state.borrow(), BrokerState::Waiting { cause: ref known, .. } if *known == cause)
        {
            tracing::debug!(%broker, attempt, wait_ms, %cause, "broker still away");
        } else {
            tracing::warn!(%broker, attempt, wait_ms, %cause, "broker away; it is tried again until it answers");
        }
        self.state
            .send_replace(BrokerState::Waiting { attempt, cause });
    }

    fn options(&self) -> MqttOptions {
        let config = &self.config;
        let mut options =
            MqttOptions::new(&config.client_id, &config.broker.host, config.broker.port);
        let mut network = NetworkOptions::new();
        // A reply follows the acknowledgement of its command at once: Nagle's algorithm would hold it back until the broker's
        // system acknowledges that one, about 40 ms on Linux.
        network.set_tcp_nodelay(true);
        options
            .set_network_options(network)
            .set_clean_start(config.session_expiry.is_zero())
            .set_keep_alive(KEEP_ALIVE)
            .set_connection_timeout(5)
            .set_manual_acks(true)
            .set_connect_properties(ConnectProperties {
                session_expiry_interval: Some(
                    u32::try_from(config.session_expiry.as_secs()).unwrap_or(u32::MAX),
                ),
                receive_maximum: Some(RECEIVE_MAXIMUM),
                max_packet_size: Some(PACKET_BYTES_MAX),
                ..ConnectProperties::new()
            });
        if let Some(will) = &config.will {
            let delay = u32::try_from(will.delay.as_secs()).unwrap_or(u32::MAX);
            let properties = LastWillProperties {
                delay_interval: Some(delay),
                payload_format_indicator: None,
                message_expiry_interval: None,
                content_type: None,
                response_topic: None,
                correlation_data: None,
                user_properties: Vec::new(),
            };
            options.set_last_will(LastWill::new(
                &will.topic,
                will.payload.clone(),
                QoS::AtLeastOnce,
                true,
                Some(properties),
            ));
        }
        options
    }

    /// One connection from CONNECT to its end.
    async fn connection(&mut self, cancel: &CancellationToken) -> Ended {
        let (client, event_loop) = AsyncClient::new(self.options(), REQUESTS);
        let (events_in, mut events) = mpsc::channel(REQUESTS);
        let poller = AbortOnDrop(tokio::spawn(poll(event_loop, events_in)));
        let (acks_in, mut acks) = mpsc::channel::<Publish>(usize::from(RECEIVE_MAXIMUM));
        for pending in &mut self.window {
            pending.progress = Progress::Unsent;
        }
        let mut connected: Option<Instant> = None;
        // Beside those of the configuration, on this connection.
        let mut subscribed: BTreeSet<String> = BTreeSet::new();
        let mut has_no_client = false;
        let lived =
            |connected: Option<Instant>| connected.map_or(Duration::ZERO, |since| since.elapsed());

        loop {
            let is_ready = *self.state.borrow() == BrokerState::Connected && connected.is_some();
            if is_ready {
                self.subscribe_wanted(&client, &mut subscribed);
                self.drop_expired();
                // What an earlier connection left unacknowledged goes first, in order.
                for pending in self
                    .window
                    .iter_mut()
                    .filter(|pending| pending.progress == Progress::Unsent)
                {
                    if !send(&client, &pending.publication) {
                        break;
                    }
                    pending.progress = Progress::Queued;
                }
            }
            tokio::select! {
                () = cancel.cancelled() => {
                    // What was acknowledged must not come again only because we leave.
                    while let Ok(publish) = acks.try_recv() {
                        let _ = client.try_ack(&publish);
                    }
                    let _ = client.try_disconnect();
                    let _ = tokio::time::timeout(GOODBYE, async { while events.recv().await.is_some() {} }).await;
                    drop(poller);
                    return Ended::Cancelled;
                }
                event = events.recv() => match event {
                    Some(Ok(event)) => {
                        if let Err(cause) = self.on_event(event, &client, &acks_in, &mut connected) {
                            return Ended::Failed { cause, lived: lived(connected) };
                        }
                    }
                    Some(Err(error)) => return Ended::Failed { cause: describe(&error), lived: lived(connected) },
                    None => return Ended::Failed { cause: "the event loop ended".to_owned(), lived: lived(connected) },
                },
                Some(publish) = acks.recv() => {
                    let _ = client.try_ack(&publish);
                }
                Some(order) = self.out.recv(), if is_ready && self.window.len() < WINDOW => {
                    let Order { publication, until, receipt } = order;
                    self.window.push_back(Pending { publication, receipt: Some(receipt), progress: Progress::Unsent, until });
                }
                changed = self.wanted.changed(), if is_ready && !has_no_client => {
                    has_no_client = changed.is_err();
                }
                Some(publication) = self.packets.recv(), if is_ready && self.window.len() < WINDOW => {
                    self.window.push_back(Pending { publication, receipt: None, progress: Progress::Unsent, until: None });
                }
            }
        }
    }

    fn on_event(
        &mut self,
        event: Event,
        client: &AsyncClient,
        acks: &mpsc::Sender<Publish>,
        connected: &mut Option<Instant>,
    ) -> Result<(), String> {
        match event {
            Event::Incoming(Packet::ConnAck(ack)) => {
                *connected = Some(Instant::now());
                tracing::debug!(session_present = ack.session_present, "broker answered");
                // Subscribed anew each time: after session_present=0 nothing else would do it, and otherwise it is harmless.
                let filters = self.config.subscriptions.iter().map(|filter| {
                    rumqttc::v5::mqttbytes::v5::Filter::new(filter.clone(), QoS::AtLeastOnce)
                });
                if self.config.subscriptions.is_empty() {
                    self.on_ready();
                } else if client.try_subscribe_many(filters).is_err() {
                    return Err("the subscription could not be queued".to_owned());
                }
            }
            Event::Incoming(Packet::SubAck(ack)) => {
                use rumqttc::v5::mqttbytes::v5::SubscribeReasonCode::Success;
                // The first is for the configuration's filters, without which the connection is of no use.
                if *self.state.borrow() == BrokerState::Connected {
                    let refused = ack
                        .return_codes
                        .iter()
                        .filter(|code| !matches!(code, Success(_)));
                    let count = refused.count();
                    if count > 0 {
                        tracing::warn!(broker = %self.config.broker, count, "the broker refused subscriptions; nothing comes from those topics");
                    }
                    return Ok(());
                }
                if let Some(refused) = ack
                    .return_codes
                    .iter()
                    .find(|code| !matches!(code, Success(_)))
                {
                    return Err(format!("the broker refused a subscription: {refused:?}"));
                }
                self.on_ready();
            }
            Event::Incoming(Packet::Publish(publish)) => {
                let incoming = Incoming {
                    publish,
                    acks: acks.clone(),
                };
                if self.up.try_send(incoming).is_err() {
                    self.dropped += 1;
                    tracing::warn!(
                        dropped = self.dropped,
                        "messages from the broker dropped: they come faster than they are handled"
                    );
                }
            }
            Event::Incoming(Packet::PubAck(ack)) => {
                let at = self
                    .window
                    .iter()
                    .position(|pending| pending.progress == Progress::Identified(ack.pkid));
                let receipt = at
                    .and_then(|at| self.window.remove(at))
                    .and_then(|pending| pending.receipt);
                if let Some(receipt) = receipt {
                    let _ = receipt.send(match ack.reason {
                        PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Ok(()),
                        PubAckReason::NotAuthorized => Err(PublishError::Refused("not authorised")),
                        PubAckReason::QuotaExceeded => Err(PublishError::Refused("quota exceeded")),
                        _ => Err(PublishError::Refused("see the broker's log")),
                    });
                }
            }
            Event::Incoming(Packet::Disconnect(disconnect)) => {
                return Err(format!(
                    "the broker closed the connection: {:?}",
                    disconnect.reason_code
                ));
            }
            Event::Outgoing(Outgoing::Publish(packet_id)) if packet_id != 0 => {
                // rumqttc sends in the order of its queue, so ids arrive in the window's order.
                if let Some(pending) = self
                    .window
                    .iter_mut()
                    .find(|pending| pending.progress == Progress::Queued)
                {
                    pending.progress = Progress::Identified(packet_id);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Brings the broker's idea of what we want up to date; what does not fit into rumqttc's queue follows at the next turn.
    fn subscribe_wanted(&mut self, client: &AsyncClient, subscribed: &mut BTreeSet<String>) {
        let wanted = self.wanted.borrow_and_update().clone();
        let new: Vec<String> = wanted.difference(subscribed).cloned().collect();
        for some in new.chunks(FILTERS_AT_ONCE) {
            let filters = some.iter().map(|filter| {
                rumqttc::v5::mqttbytes::v5::Filter::new(filter.clone(), QoS::AtLeastOnce)
            });
            if client.try_subscribe_many(filters).is_err() {
                return;
            }
            subscribed.extend(some.iter().cloned());
        }
        let old: Vec<String> = subscribed.difference(&wanted).cloned().collect();
        for filter in old {
            if client.try_unsubscribe(filter.as_str()).is_err() {
                return;
            }
            subscribed.remove(&filter);
        }
    }

    /// What nobody waits for any more is not sent.
    fn drop_expired(&mut self) {
        let now = Instant::now();
        let mut kept = VecDeque::with_capacity(self.window.len());
        for mut pending in self.window.drain(..) {
            let is_over = pending.progress == Progress::Unsent
                && pending.until.is_some_and(|until| until <= now);
            match pending.receipt.take_if(|_| is_over) {
                Some(receipt) => {
                    let _ = receipt.send(Err(PublishError::Expired));
                }
                None => kept.push_back(pending),
            }
        }
        self.window = kept;
    }

    /// Connected and subscribed: says so to the broker and to our observers.
    fn on_ready(&mut self) {
        self.window.retain(|pending| pending.receipt.is_some());
        if let Some(publication) = self.config.birth.clone() {
            self.window.push_front(Pending {
                publication,
                receipt: None,
                progress: Progress::Unsent,
                until: None,
            });
        }
        tracing::info!(broker = %self.config.broker, "broker connected");
        self.state.send_replace(BrokerState::Connected);
    }
}

/// Ends the polling task with the connection that it belongs to.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn poll(mut event_loop: EventLoop, events: mpsc::Sender<Result<Event, ConnectionError>>) {
    loop {
        let event = event_loop.poll().await;
        let is_over = event.is_err();
        if events.send(event).await.is_err() || is_over {
            return;
        }
    }
}

/// Queues a publication with rumqttc; false when its queue is full (it is tried again after the next event).
fn send(client: &AsyncClient, publication: &Publication) -> bool {
    let properties = PublishProperties {
        correlation_data: publication.correlation.clone().map(Into::into),
        ..PublishProperties::default()
    };
    client
        .try_publish_with_properties(
            publication.topic.as_str(),
            QoS::AtLeastOnce,
            publication.retain,
            publication.payload.clone(),
            properties,
        )
        .is_ok()
}

/// The cause in words that lead to a remedy, without rumqttc's layers.
fn describe(error: &ConnectionError) -> String {
    match error {
        ConnectionError::Io(error) => error.to_string(),
        ConnectionError::Timeout(_) => "no answer in time".to_owned(),
        ConnectionError::ConnectionRefused(code) => format!("refused: {code:?}"),
        other => other.to_string(),
    }
}
