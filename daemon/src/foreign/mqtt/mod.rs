//! The owner of one broker: what it tells of devices becomes Things, their reports go up, their requests go down.
//!
//! Each Thing is served by the pure machine of `things::binding::mqtt::device`; this task carries what it says to the broker, the registry and
//! whoever asked. It listens to the discovery topics that are configured and to the topics of its Things, no others. While the broker
//! is away its Things are, too: a command for which nobody waits any more must not leave when it returns.

mod discovery;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use autoglm_drivers::backoff::Backoff;
use autoglm_drivers::mqtt::{
    self, BrokerState, Client, ClientConfig, Incoming, Publication, PublishError, PublishOptions,
};
use autoglm_drivers::port::{Answer, Command, PortError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{StreamExt as _, StreamMap};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::roster::{Berth, Complaints};
use super::{Board, SourceStatus, until};
use crate::config::foreign::MqttConfig;
use crate::things::binding::mqtt::device::{Device, Output, Token, Unpublished};
use crate::things::binding::mqtt::home_assistant::{Discovery, Group};
use crate::things::binding::mqtt::{MqttThing, tasmota, zigbee2mqtt};
use crate::things::registry::Registry;

/// Messages on their way up: what the broker keeps of all topics comes at once. Some hundred bytes each.
const UP_CAPACITY: usize = 4096;
/// Devices of one broker.
const DEVICES_MAX: usize = 1024;
/// Discovery messages of one device come one after the other; its Thing is made when none came for so long, so that it is not described anew
/// for each. Chosen above the pause between retained messages and below what a person notices.
const GATHER: Duration = Duration::from_millis(300);
/// As every connection to a broker.
const RECONNECT: Backoff = Backoff {
    min: Duration::from_millis(500),
    max: Duration::from_secs(30),
    healthy_after: Duration::from_secs(60),
};

/// Who described a Thing, and so may change or remove it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    File,
    Zigbee2Mqtt,
    Tasmota(String),
    HomeAssistant(Group),
}

/// The owner task's state.
#[derive(Debug)]
pub(super) struct Owner {
    config: MqttConfig,
    client: Client,
    incoming: mpsc::Receiver<Incoming>,
    broker: watch::Receiver<BrokerState>,
    is_connected: bool,
    slots: BTreeMap<String, Slot>,
    /// Which Things listen to a topic.
    by_topic: BTreeMap<String, BTreeSet<String>>,
    commands: StreamMap<String, ReceiverStream<Command>>,
    asked: BTreeMap<(String, Token), Asked>,
    next_token: Token,
    publishing: JoinSet<(String, Token, Result<(), PublishError>)>,
    tasmota: BTreeMap<String, Tasmota>,
    home_assistant: Discovery,
    /// Groups whose discovery changed, to be made when it is quiet.
    gathering: BTreeSet<Origin>,
    gathered: Option<Instant>,
    registry: Registry,
    complaints: Complaints,
    board: Board,
}

#[derive(Debug)]
struct Slot {
    device: Device,
    berth: Berth,
    origin: Origin,
    is_attached: bool,
}

#[derive(Debug)]
struct Asked {
    at: Instant,
    published: Option<Duration>,
    reply: oneshot::Sender<Result<Answer, PortError>>,
}

#[derive(Debug, Default)]
struct Tasmota {
    config: Option<tasmota::Config>,
    sensors: Option<Vec<u8>>,
}

impl Owner {
    /// Connects to the broker, in the background.
    pub(super) fn connect(
        config: MqttConfig,
        box_id: &str,
        things: Vec<MqttThing>,
        registry: Registry,
        board: Board,
        tracker: &TaskTracker,
        cancel: &CancellationToken,
    ) -> Self {
        let mut subscriptions = Vec::new();
        if let Some(base) = &config.zigbee2mqtt {
            subscriptions.push(zigbee2mqtt::list_topic(base));
        }
        if let Some(prefix) = &config.tasmota {
            subscriptions.push(format!("{prefix}/+/config"));
            subscriptions.push(format!("{prefix}/+/sensors"));
        }
        if let Some(prefix) = &config.home_assistant {
            subscriptions.push(format!("{prefix}/+/+/config"));
            subscriptions.push(format!("{prefix}/+/+/+/config"));
        }
        let client_config = ClientConfig {
            broker: config.broker.clone(),
            client_id: format!("autoglm-edge-{box_id}-{}", config.name),
            subscriptions,
            birth: None,
            will: None,
            // What devices told while we were away is told again by what the broker retains; a backlog would be stale.
            session_expiry: Duration::ZERO,
            backoff: RECONNECT,
        };
        let (client, incoming) =
            mqtt::spawn_with_queue(client_config, UP_CAPACITY, tracker, cancel.clone());
        let mut owner = Self {
            broker: client.state(),
            client,
            incoming,
            config,
            is_connected: false,
            slots: BTreeMap::new(),
            by_topic: BTreeMap::new(),
            commands: StreamMap::new(),
            asked: BTreeMap::new(),
            next_token: 0,
            publishing: JoinSet::new(),
            tasmota: BTreeMap::new(),
            home_assistant: Discovery::default(),
            gathering: BTreeSet::new(),
            gathered: None,
            registry,
            complaints: Complaints::default(),
            board,
        };
        for thing in things {
            owner.take(thing, Origin::File);
        }
        owner
    }

    /// Owns the broker until cancelled.
    #[tracing::instrument(name = "foreign_mqtt", skip_all, fields(name = %self.config.name))]
    pub(super) async fn run(mut self, cancel: CancellationToken) {
        for slot in self.slots.values() {
            slot.berth.introduce().await;
        }
        self.listen();
        self.on_broker().await;
        loop {
            self.publish_status();
            let due = self
                .slots
                .values()
                .filter_map(|slot| slot.device.poll_timeout())
                .chain(self.gathered)
                .min();
            tokio::select! {
                () = cancel.cancelled() => break,
                changed = self.broker.changed() => match changed {
                    Ok(()) => self.on_broker().await,
                    Err(_) => break,
                },
                Some(message) = self.incoming.recv() => {
                    let (topic, payload) = (message.topic().to_owned(), message.payload().to_vec());
                    // A report is worth nothing once a newer one exists, so nothing is gained by having it delivered again.
                    message.acknowledge().await;
                    self.on_message(&topic, &payload).await;
                }
                Some((id, command)) = self.commands.next(), if !self.commands.is_empty() => self.on_command(&id, command).await,
                Some(Ok((id, token, result))) = self.publishing.join_next(), if !self.publishing.is_empty() => {
                    self.on_published(&id, token, result).await;
                }
                () = until(due) => self.on_due().await,
            }
        }
        self.lose_all().await;
    }

    fn publish_status(&self) {
        let (state, detail) = match &*self.broker.borrow() {
            BrokerState::Starting => ("starting", String::new()),
            BrokerState::Connected => ("connected", String::new()),
            BrokerState::Waiting { cause, .. } => ("waiting", cause.clone()),
        };
        let status = SourceStatus {
            kind: "mqtt",
            address: self.config.broker.to_string(),
            state,
            detail,
            things: self.slots.len(),
            online: self.slots.values().filter(|slot| slot.is_attached).count(),
            errors: self.complaints.count(),
        };
        self.board.publish(&self.config.name, status);
    }

    async fn on_broker(&mut self) {
        let is_connected = *self.broker.borrow_and_update() == BrokerState::Connected;
        if is_connected == self.is_connected {
            return;
        }
        self.is_connected = is_connected;
        if is_connected {
            let ids: Vec<String> = self.slots.keys().cloned().collect();
            for id in ids {
                self.settle(&id).await;
            }
        } else {
            self.lose_all().await;
        }
    }

    async fn on_message(&mut self, topic: &str, payload: &[u8]) {
        if self.on_discovery(topic, payload).await {
            return;
        }
        let now = Instant::now();
        for id in self.by_topic.get(topic).cloned().unwrap_or_default() {
            if let Some(slot) = self.slots.get_mut(&id) {
                for error in slot.device.handle_message(now, topic, payload) {
                    self.complaints.say(topic, &error);
                }
            }
            self.settle(&id).await;
        }
    }

    async fn on_due(&mut self) {
        let now = Instant::now();
        self.make_gathered(now).await;
        let due: Vec<String> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.device.poll_timeout().is_some_and(|at| at <= now))
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            if let Some(slot) = self.slots.get_mut(&id) {
                slot.device.handle_timeout(now);
            }
            self.settle(&id).await;
        }
    }

    fn take(&mut self, thing: MqttThing, origin: Origin) {
        let id = thing.described.description.id.to_string();
        let berth = Berth::new(
            &self.config.name,
            thing.described.clone(),
            self.registry.clone(),
        );
        let device = Device::new(Arc::new(thing));
        self.slots.insert(
            id,
            Slot {
                device,
                berth,
                origin,
                is_attached: false,
            },
        );
    }

    async fn remove(&mut self, id: &str) {
        if let Some(slot) = self.slots.get_mut(id) {
            slot.device.handle_lost();
        }
        self.deliver(id).await;
        self.commands.remove(id);
        if let Some(slot) = self.slots.remove(id)
            && slot.is_attached
        {
            slot.berth.detach().await;
        }
    }

    /// Tells the broker which topics are wanted.
    fn listen(&mut self) {
        self.by_topic.clear();
        for (id, slot) in &self.slots {
            for topic in slot.device.thing().topics() {
                self.by_topic
                    .entry(topic.to_owned())
                    .or_default()
                    .insert(id.clone());
            }
        }
        self.client.want(self.by_topic.keys().cloned().collect());
    }

    /// Attaches or detaches a Thing as it now stands, and does what its machine wants.
    async fn settle(&mut self, id: &str) {
        let Some(slot) = self.slots.get_mut(id) else {
            return;
        };
        let is_here = self.is_connected && slot.device.is_available();
        if slot.is_attached && !is_here {
            slot.is_attached = false;
            slot.device.handle_lost();
            self.commands.remove(id);
            slot.berth.detach().await;
        } else if !slot.is_attached && is_here {
            slot.is_attached = true;
            self.commands.insert(
                id.to_owned(),
                ReceiverStream::new(slot.berth.attach().await),
            );
            // What was reported before it counted as there.
            for (property, value) in slot.device.values().clone() {
                slot.berth.report(property, value).await;
            }
        }
        self.deliver(id).await;
    }

    async fn deliver(&mut self, id: &str) {
        while let Some(slot) = self.slots.get_mut(id) {
            let Some(output) = slot.device.poll_output() else {
                return;
            };
            match output {
                Output::Value { property, value } => {
                    if slot.is_attached {
                        slot.berth.report(property, value).await;
                    }
                }
                Output::Event { name, data } => {
                    if slot.is_attached {
                        slot.berth.event(name, data).await;
                    }
                }
                Output::Publish {
                    token,
                    topic,
                    payload,
                    retain,
                    until,
                } => {
                    let (client, id) = (self.client.clone(), id.to_owned());
                    let publication = Publication {
                        topic,
                        payload,
                        retain,
                        ..Publication::default()
                    };
                    let options = PublishOptions {
                        expires: Some(until),
                        ..PublishOptions::default()
                    };
                    self.publishing.spawn(async move {
                        let result = match client.submit(publication, options) {
                            Ok(receipt) => receipt.await,
                            Err(error) => Err(error),
                        };
                        (id, token, result)
                    });
                }
                Output::Answer { token, result } => {
                    if let Some(asked) = self.asked.remove(&(id.to_owned(), token)) {
                        let answered_after = asked.at.elapsed();
                        let answer = result.map(|reply| Answer {
                            reply,
                            written_after: asked.published.unwrap_or(answered_after),
                            answered_after,
                        });
                        // Whoever asked may have given up waiting.
                        let _ = asked.reply.send(answer);
                    }
                }
            }
        }
    }

    async fn on_command(&mut self, id: &str, command: Command) {
        let Some(slot) = self.slots.get_mut(id) else {
            return;
        };
        let now = Instant::now();
        self.next_token += 1;
        let token = self.next_token;
        self.asked.insert(
            (id.to_owned(), token),
            Asked {
                at: now,
                published: None,
                reply: command.reply,
            },
        );
        slot.device
            .handle_request(now, token, command.request, command.deadline);
        self.deliver(id).await;
    }

    async fn on_published(&mut self, id: &str, token: Token, result: Result<(), PublishError>) {
        if let Some(asked) = self.asked.get_mut(&(id.to_owned(), token)) {
            asked.published = Some(asked.at.elapsed());
        }
        let result = result.map_err(|error| match error {
            PublishError::Busy => Unpublished::Busy,
            PublishError::Refused(why) => Unpublished::Refused(why),
            PublishError::TooLarge { .. } => Unpublished::Refused("larger than it takes"),
            PublishError::InvalidTopic => Unpublished::Refused("topic name"),
            PublishError::Stopped | PublishError::Expired => Unpublished::Stopped,
        });
        if let Some(slot) = self.slots.get_mut(id) {
            slot.device.handle_published(token, result);
        }
        self.deliver(id).await;
    }

    async fn lose_all(&mut self) {
        self.is_connected = false;
        let ids: Vec<String> = self.slots.keys().cloned().collect();
        for id in ids {
            self.settle(&id).await;
        }
    }
}
