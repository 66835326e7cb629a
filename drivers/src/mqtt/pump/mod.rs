//! The owner task of the broker connection.
//!
//! Holds the [window](Window) of unacknowledged publications; a connection is a loop over the event
//! loop's events, acknowledgements to hand on, publications, wanted topics, and cancellation. See [`super::client`].

mod poll;
mod window;

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnAck, Packet, Publish, SubAck};
use rumqttc::v5::{AsyncClient, Event};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::poll::{AbortOnDrop, poll};
use self::window::{Window, send};
use super::access::Transport;
use super::client::{RECEIVE_MAXIMUM, Submission};
use super::failure::{self, Failure, Kind};
use super::options::{self, Limits};
use super::subscriptions::Subscriptions;
use super::types::{BrokerState, ClientConfig, Incoming, Publication, PublishOptions};

/// rumqttc's request channel: the window, the acknowledgements ([`RECEIVE_MAXIMUM`]) and the subscription fit.
const REQUESTS: usize = 64;
/// Time for the broker to take our clean disconnect.
const GOODBYE: Duration = Duration::from_millis(500);

/// The owner task's ends of the channels to its handle and to the receiver of messages.
pub(super) struct Ends {
    pub(super) out: mpsc::Receiver<Submission>,
    pub(super) packets: mpsc::Receiver<Publication>,
    pub(super) wanted: watch::Receiver<BTreeSet<String>>,
    pub(super) up: mpsc::Sender<Incoming>,
    pub(super) state: watch::Sender<BrokerState>,
    pub(super) fresh_sessions: watch::Sender<u64>,
}

pub(super) struct Pump {
    config: ClientConfig,
    ends: Ends,
    window: Window,
    dropped: u64,
}

/// One connection, from CONNECT on.
struct Connection {
    client: AsyncClient,
    acks: mpsc::Sender<Publish>,
    /// Since CONNACK, and what it said.
    answered: Option<(Instant, Limits)>,
    /// Whether subscriptions and birth are made, so that publications may follow.
    is_ready: bool,
    heard: Instant,
    /// Beside those of the configuration.
    subscriptions: Subscriptions,
}

/// Why one connection ended.
enum Ended {
    Cancelled,
    Failed { failure: Failure, lived: Duration },
}

impl Pump {
    pub(super) fn new(config: ClientConfig, ends: Ends) -> Self {
        Self {
            config,
            ends,
            window: Window::default(),
            dropped: 0,
        }
    }

    pub(super) async fn run(mut self, cancel: CancellationToken) {
        let mut attempt = 0;
        loop {
            match self.connection(&cancel).await {
                Ended::Cancelled => return,
                Ended::Failed { failure, lived } => {
                    attempt = self.config.backoff.attempt_after(attempt, lived);
                    let wait = failure::rest(
                        failure.kind,
                        self.config.backoff,
                        attempt.saturating_sub(1),
                        rand::random(),
                    );
                    self.lost(attempt, failure, wait);
                    while self.ends.packets.try_recv().is_ok() {}
                    tokio::select! {
                        () = cancel.cancelled() => return,
                        () = tokio::time::sleep(wait) => {}
                    }
                }
            }
        }
    }

    /// Reports a lost connection: once as a warning, its repetitions at debug level.
    fn lost(&self, attempt: u32, failure: Failure, wait: Duration) {
        let broker = &self.config.broker;
        let wait_ms = wait.as_millis() as u64;
        let Failure { kind, cause } = failure;
        if matches!(*self.ends.state.borrow(), BrokerState::Waiting { cause: ref known, .. } if *known == cause)
        {
            tracing::debug!(%broker, attempt, wait_ms, %cause, "broker still away");
        } else if kind == Kind::Unwelcome {
            tracing::error!(%broker, attempt, wait_ms, %cause, "broker refuses us; it is tried again, but seldom");
        } else {
            tracing::warn!(%broker, attempt, wait_ms, %cause, "broker away; it is tried again until it answers");
        }
        self.ends
            .state
            .send_replace(BrokerState::Waiting { attempt, cause });
    }

    /// One connection from CONNECT to its end.
    async fn connection(&mut self, cancel: &CancellationToken) -> Ended {
        let options = match options::connect(&self.config, SystemTime::now()) {
            Ok(options) => options,
            Err(error) => {
                return Ended::Failed {
                    failure: error.into(),
                    lived: Duration::ZERO,
                };
            }
        };
        let (client, event_loop) = AsyncClient::new(options, REQUESTS);
        let (events_in, mut events) = mpsc::channel(REQUESTS);
        let poller = AbortOnDrop(tokio::spawn(poll(event_loop, events_in)));
        let (acks_in, mut acks) = mpsc::channel::<Publish>(usize::from(RECEIVE_MAXIMUM));
        self.window.on_connecting();
        let mut connection = Connection {
            client,
            acks: acks_in,
            answered: None,
            is_ready: false,
            heard: Instant::now(),
            subscriptions: Subscriptions::default(),
        };

        let is_tls = matches!(self.config.broker.access.transport, Transport::Tls(_));
        let failure = loop {
            if connection.is_ready {
                let wanted = self.ends.wanted.borrow_and_update();
                connection.subscriptions.follow(&wanted, &connection.client);
            }
            if let (Some((_, limits)), true) = (&connection.answered, connection.is_ready) {
                self.window.send(&connection.client, limits);
            }
            let silent_at = connection
                .answered
                .map(|(_, limits)| connection.heard + limits.silence_max);
            tokio::select! {
                () = cancel.cancelled() => {
                    // What was acknowledged must not come again only because we leave.
                    while let Ok(publish) = acks.try_recv() {
                        let _ = connection.client.try_ack(&publish);
                    }
                    self.take_leave(&connection);
                    let _ = connection.client.try_disconnect();
                    let _ = tokio::time::timeout(GOODBYE, async { while events.recv().await.is_some() {} }).await;
                    drop(poller);
                    return Ended::Cancelled;
                }
                event = events.recv() => match event {
                    Some(Ok(event)) => {
                        if let Err(failure) = self.on_event(event, &mut connection) {
                            break failure;
                        }
                    }
                    Some(Err(error)) if connection.answered.is_none() && is_tls => {
                        break Failure::from(&error).in_handshake(&error);
                    }
                    Some(Err(error)) => break Failure::from(&error),
                    None => break Failure::away("the event loop ended"),
                },
                Some(publish) = acks.recv() => {
                    let _ = connection.client.try_ack(&publish);
                }
                Some(submission) = self.ends.out.recv(), if connection.is_ready && self.window.has_room() => {
                    let Submission { publication, options, receipt } = submission;
                    self.window.push(publication, options, Some(receipt));
                }
                Some(publication) = self.ends.packets.recv(), if connection.is_ready && self.window.has_room() => {
                    self.window.push(publication, PublishOptions::default(), None);
                }
                // Without a handle nothing more can be wanted, and this is out of the game.
                Ok(()) = self.ends.wanted.changed(), if connection.is_ready => {}
                () = sleep_until(silent_at) => break Failure::away("the broker answers no more (keep-alive)"),
            }
        };
        let lived = connection.answered.map(|(since, _)| since.elapsed());
        Ended::Failed {
            failure,
            lived: lived.unwrap_or_default(),
        }
    }

    /// Says ourselves what the broker would say if we vanished. It leaves before the disconnect on the same connection, so the broker
    /// has it; nobody waits for more.
    fn take_leave(&self, connection: &Connection) {
        let Some(will) = self.config.will.as_ref().filter(|_| connection.is_ready) else {
            return;
        };
        let last_word = Publication {
            topic: will.topic.clone(),
            payload: will.payload.clone(),
            retain: true,
            correlation: None,
        };
        if !send(&connection.client, &last_word, &PublishOptions::default()) {
            tracing::debug!(
                topic = will.topic,
                "left without a word: too much was on its way"
            );
        }
    }

    fn on_event(&mut self, event: Event, connection: &mut Connection) -> Result<(), Failure> {
        if matches!(event, Event::Incoming(_)) {
            connection.heard = Instant::now();
        }
        match event {
            Event::Incoming(Packet::ConnAck(ack)) => self.on_connected(&ack, connection),
            Event::Incoming(Packet::SubAck(ack)) => self.on_subscribed(&ack, connection),
            Event::Incoming(Packet::Publish(publish)) => {
                let incoming = Incoming {
                    publish,
                    acks: connection.acks.clone(),
                };
                if self.ends.up.try_send(incoming).is_err() {
                    self.dropped += 1;
                    tracing::warn!(
                        dropped = self.dropped,
                        "messages from the broker dropped: they come faster than they are handled"
                    );
                }
                Ok(())
            }
            Event::Incoming(Packet::PubAck(ack)) => {
                self.window.on_acknowledged(&ack);
                Ok(())
            }
            Event::Outgoing(Outgoing::Publish(packet_id)) if packet_id != 0 => {
                self.window.on_identified(packet_id);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn on_connected(&mut self, ack: &ConnAck, connection: &mut Connection) -> Result<(), Failure> {
        let properties = ack.properties.as_ref();
        if let Some(failure) = properties.and_then(failure::unsuitable) {
            return Err(failure);
        }
        let limits = Limits::of(&self.config, properties);
        tracing::debug!(
            session_present = ack.session_present,
            ?limits,
            "broker answered"
        );
        connection.answered = Some((Instant::now(), limits));
        if !ack.session_present {
            self.ends.fresh_sessions.send_modify(|count| *count += 1);
        }
        // Subscribed anew each time: after session_present=0 nothing else would do it, and otherwise it is harmless.
        let filters = self.config.subscriptions.iter().map(|filter| {
            rumqttc::v5::mqttbytes::v5::Filter::new(filter.clone(), QoS::AtLeastOnce)
        });
        if self.config.subscriptions.is_empty() {
            self.on_ready(connection);
        } else if connection.client.try_subscribe_many(filters).is_err() {
            return Err(Failure::unwelcome("a subscription is no topic filter"));
        }
        Ok(())
    }

    fn on_subscribed(&mut self, ack: &SubAck, connection: &mut Connection) -> Result<(), Failure> {
        use rumqttc::v5::mqttbytes::v5::SubscribeReasonCode::Success;
        // The first is for the configuration's filters, without which the connection is of no use.
        if connection.is_ready {
            for filter in connection.subscriptions.on_answer(&ack.return_codes) {
                tracing::warn!(broker = %self.config.broker, filter, "the broker refuses a subscription; nothing comes from there");
            }
            return Ok(());
        }
        let refused = self
            .config
            .subscriptions
            .iter()
            .zip(&ack.return_codes)
            .find(|(_, code)| !matches!(code, Success(QoS::AtLeastOnce | QoS::ExactlyOnce)));
        if let Some((filter, code)) = refused {
            return Err(Failure::unwelcome(format!(
                "the broker refuses the subscription to {filter}: {code:?}; allow it there"
            )));
        }
        self.on_ready(connection);
        Ok(())
    }

    /// Connected and subscribed: says so to the broker and to our observers.
    fn on_ready(&mut self, connection: &mut Connection) {
        self.window.on_ready(self.config.birth.clone());
        connection.is_ready = true;
        tracing::info!(broker = %self.config.broker, "broker connected");
        self.ends.state.send_replace(BrokerState::Connected);
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
