//! The fleet door's task: takes commands from the broker connection and answers them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use autoglm_drivers::backoff::Backoff;
use autoglm_drivers::mqtt::{self, BrokerState, Client, ClientConfig, Incoming, Publication, Will};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::courier::Courier;
use super::message::{self, Request};
use super::reporter::Reporter;
use super::topic::Topics;
use crate::config::FleetConfig;
use crate::router::Principal;
use crate::router::command::{Command, Commands};
use crate::router::outcome::CommandError;
use crate::store::outbox::{Lane, Message, Outbox};
use crate::things::registry::{Registry, Report};

/// Commands in progress at a time, the same as the broker's limit on unacknowledged ones.
const IN_PROGRESS: usize = 16;
/// The broker waits so long before it declares us gone, so that a restart is no outage.
const WILL_DELAY: Duration = Duration::from_secs(15);
/// Full jitter from 1 s to 5 min, after the conventions of large fleets.
const BACKOFF: Backoff = Backoff {
    min: Duration::from_secs(1),
    max: Duration::from_secs(300),
    healthy_after: Duration::from_secs(300),
};

/// The door, not yet open.
#[derive(Debug)]
pub struct FleetDoor {
    incoming: mpsc::Receiver<Incoming>,
    answers: Answers,
}

/// Where answers go. Cheap to clone.
#[derive(Debug, Clone)]
struct Answers {
    client: Client,
    outbox: Outbox,
    topic: String,
    lifetime: Duration,
}

/// What the door needs of the box.
#[derive(Debug)]
pub struct FleetParts {
    /// What waits for the broker.
    pub outbox: Outbox,
    /// What Things report.
    pub reports: mpsc::Receiver<Report>,
    /// The Things.
    pub registry: Registry,
    /// This run of the daemon.
    pub boot_id: u32,
}

impl FleetDoor {
    /// Connects (and keeps connecting) to the fleet's broker, and starts to tell it what waits in the outbox.
    #[must_use]
    pub fn connect(
        config: &FleetConfig,
        box_id: &str,
        parts: FleetParts,
        tracker: &TaskTracker,
        cancel: CancellationToken,
    ) -> Self {
        let topics = Topics::new(&config.topic_root, box_id);
        let presence = |state: &str| {
            json!({"state": state, "boot": parts.boot_id, "version": env!("CARGO_PKG_VERSION")})
                .to_string()
                .into_bytes()
        };
        let (client, incoming) = mqtt::spawn(
            ClientConfig {
                broker: config.broker.clone(),
                client_id: format!("autoglm-edge-{box_id}"),
                subscriptions: vec![topics.command()],
                birth: Some(Publication {
                    topic: topics.presence(),
                    payload: presence("online"),
                    retain: true,
                    correlation: None,
                }),
                will: Some(Will {
                    topic: topics.presence(),
                    payload: presence("offline"),
                    delay: WILL_DELAY,
                }),
                session_expiry: config.session_expiry,
                backoff: BACKOFF,
            },
            tracker,
            cancel.clone(),
        );
        let answers = Answers {
            client: client.clone(),
            outbox: parts.outbox.clone(),
            topic: topics.result(),
            lifetime: config.outbox.results.lifetime,
        };
        let reporter = Reporter::new(
            topics,
            config.outbox,
            parts.outbox.clone(),
            parts.reports,
            parts.registry,
            client.fresh_sessions(),
        );
        tracker.spawn(reporter.run(cancel.clone()));
        tracker.spawn(Courier::new(parts.outbox, client).run(cancel));
        Self { incoming, answers }
    }

    /// The broker connection's state, to watch.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<BrokerState> {
        self.answers.client.state()
    }

    /// Serves until cancelled; commands in progress are tracked by `tracker`.
    pub async fn run(
        mut self,
        commands: Commands,
        tracker: TaskTracker,
        cancel: CancellationToken,
    ) {
        let permits = Arc::new(Semaphore::new(IN_PROGRESS));
        loop {
            // Waits while all places are taken: the broker's receive maximum then holds the rest back.
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                return;
            };
            tokio::select! {
                () = cancel.cancelled() => return,
                incoming = self.incoming.recv() => {
                    let Some(incoming) = incoming else { return };
                    let (commands, answers) = (commands.clone(), self.answers.clone());
                    tracker.spawn(async move {
                        handle(incoming, &commands, answers).await;
                        drop(permit);
                    });
                }
            }
        }
    }
}

async fn handle(incoming: Incoming, commands: &Commands, answers: Answers) {
    let expiry = incoming.expires_in().map(|left| SystemTime::now() + left);
    let mut id = None;
    let (reply, is_final): (Value, bool) =
        match Request::parse(incoming.payload(), incoming.correlation()) {
            Err(error) => {
                tracing::warn!(%error, bytes = incoming.payload().len(), "fleet message refused");
                (message::rejected(&error), true)
            }
            // A retained command would run again for every new session: it says a state, and that is not what commands are.
            Ok(request) if incoming.is_retained() => {
                let error = Err(CommandError::NotTaken {
                    reason: "it is a retained message".to_owned(),
                });
                (message::reply(&request.id, &error), true)
            }
            Ok(request) => {
                id = Some(request.id.clone());
                let command = Command {
                    id: format!("fleet:{}", request.id),
                    principal: Principal::Fleet,
                    call: request.call,
                    deadline: request.deadline,
                    expiry,
                };
                let result = commands.execute(command).await;
                // The store may be back at the next delivery; running ones are answered by who runs them.
                let is_final = !matches!(
                    result,
                    Err(CommandError::Store { .. } | CommandError::Running { .. })
                );
                (message::reply(&request.id, &result), is_final)
            }
        };
    answers.give(incoming, id, reply, is_final).await;
}

impl Answers {
    /// Gives an answer, and acknowledges a command whose final answer cannot be lost any more: it is durable here, or at the broker.
    async fn give(self, incoming: Incoming, id: Option<String>, reply: Value, is_final: bool) {
        let topic = incoming.response_topic().map_or(self.topic, str::to_owned);
        let correlation = incoming.correlation().map(<[u8]>::to_vec);
        if is_final {
            let message = Message {
                lane: Lane::Results,
                // A command that is delivered and answered again has the same answer under the same id.
                id: id.map_or_else(
                    || uuid::Uuid::now_v7().to_string(),
                    |id| format!("result:{id}"),
                ),
                topic: topic.clone(),
                payload: reply.clone(),
                retain: false,
                correlation: correlation.clone(),
                lifetime: Some(self.lifetime),
                is_latest_only: false,
            };
            match self.outbox.put_waiting(message).await {
                Ok(_durable) => return incoming.acknowledge().await,
                // Then the broker keeps the command until it has the answer.
                Err(error) => {
                    tracing::warn!(%error, "fleet reply does not go through the outbox")
                }
            }
        }
        let published = self
            .client
            .publish(Publication {
                topic,
                payload: reply.to_string().into_bytes(),
                retain: false,
                correlation,
            })
            .await;
        match published {
            Ok(()) if is_final => incoming.acknowledge().await,
            Ok(()) => {}
            // Not acknowledged: the broker delivers the command again, and the ledger answers it.
            Err(error) => tracing::warn!(%error, "fleet reply not delivered"),
        }
    }
}
