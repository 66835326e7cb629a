//! Devices at a broker: each has `up` (from the device), `down` (to it) and `presence` below a topic of its own, and all of one
//! broker share one connection.
//!
//! A hub owns the broker's connection and hands packets to the links that are open. A link lasts as long as that connection: what
//! the broker had not taken is forgotten with it, and the protocol above sends it again. QoS 1 may deliver twice; the protocol's
//! sequence numbers decide, and nothing here does. `presence` is retained, `online` or `offline`, and the broker itself says
//! `offline` for a device that vanishes (its last will).
//!
//! A queue that is full loses the packet, counted, instead of holding up the other devices; an obedient peer does not fill
//! it, since it holds more than the protocol's window.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client::{self, Client};
use super::types::{Broker, BrokerState, ClientConfig, Incoming, Publication, Will};
use crate::backoff::Backoff;
use crate::link::{Delivery, PacketLink};

/// The most bytes of a packet. MQTT would take 256 MiB; 8 KiB delay a command by 7 ms on an uplink of 10 Mbit/s, and cost
/// less than 2 % of overhead.
const MTU_BYTES: usize = 8 * 1024;
/// Packets on their way to a link's port: the protocol's greatest window (64), and its acknowledgements.
const INCOMING: usize = 128;
/// Packets on their way to the broker, by link.
const OUTGOING: usize = 2;
/// Links that wait to be attached.
const ATTACHING: usize = 16;
/// How long the broker waits before it says that a device has vanished. Short: the retained word only saves us a vain try.
const WILL_DELAY: Duration = Duration::from_secs(1);

const UP: &str = "up";
const DOWN: &str = "down";
const PRESENCE: &str = "presence";
const ONLINE: &[u8] = b"online";
const OFFLINE: &[u8] = b"offline";

/// Which end of the links we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The box: reads `up` and `presence`, writes `down`.
    Box,
    /// A device: reads `down`, writes `up` and `presence`. A broker connection serves one device then.
    Device,
}

/// Why a device cannot be reached by its broker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// The broker is away.
    #[error("{broker}: the broker is away: {cause}")]
    BrokerAway {
        /// The broker.
        broker: Broker,
        /// What went wrong last.
        cause: String,
    },
    /// The device told the broker that it leaves, or the broker lost it.
    #[error(
        "{broker}/{topic}: the device is not at the broker (its retained presence says offline)"
    )]
    Offline {
        /// The broker.
        broker: Broker,
        /// The device's topic.
        topic: String,
    },
    /// The address was not among those that the hubs were made for.
    #[error("{broker}/{topic}: not served")]
    Unknown {
        /// The broker.
        broker: Broker,
        /// The device's topic.
        topic: String,
    },
}

struct Attach {
    topic: String,
    reply: oneshot::Sender<Result<PacketLink, AttachError>>,
}

#[derive(Debug)]
struct Handle {
    attach: mpsc::Sender<Attach>,
    spoke: BTreeMap<String, Arc<Notify>>,
}

/// The brokers by which devices are reached. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Brokers(Arc<BTreeMap<Broker, Handle>>);

impl Brokers {
    /// Starts a hub for each broker that the places name, and serves these topics. `name` tells our connections from those of
    /// other boxes (or devices).
    #[must_use]
    pub fn spawn(
        places: impl IntoIterator<Item = (Broker, String)>,
        end: End,
        name: &str,
        backoff: Backoff,
        tracker: &TaskTracker,
        cancel: &CancellationToken,
    ) -> Self {
        let mut topics: BTreeMap<Broker, Vec<String>> = BTreeMap::new();
        for (broker, topic) in places {
            topics.entry(broker).or_default().push(topic);
        }
        let handles = topics.into_iter().map(|(broker, topics)| {
            let config = config(&broker, &topics, end, name, backoff);
            let (client, incoming) = client::spawn(config, tracker, cancel.clone());
            let routes: BTreeMap<String, Route> = topics
                .into_iter()
                .map(|topic| (topic, Route::default()))
                .collect();
            let spoke = routes
                .iter()
                .map(|(topic, route)| (topic.clone(), Arc::clone(&route.spoke)))
                .collect();
            let (attach, attaching) = mpsc::channel(ATTACHING);
            let hub = Hub {
                broker: broker.clone(),
                end,
                client,
                routes,
                tracker: tracker.clone(),
            };
            tracker.spawn(hub.run(incoming, attaching, cancel.clone()));
            (broker, Handle { attach, spoke })
        });
        Self(Arc::new(handles.collect()))
    }

    /// Opens the link of a device. The link that was open for it before ends.
    ///
    /// # Errors
    /// [`AttachError`]
    pub async fn attach(&self, broker: &Broker, topic: &str) -> Result<PacketLink, AttachError> {
        let unknown = || AttachError::Unknown {
            broker: broker.clone(),
            topic: topic.to_owned(),
        };
        let handle = self.0.get(broker).ok_or_else(unknown)?;
        let (reply, attached) = oneshot::channel();
        let topic = topic.to_owned();
        let asked = handle.attach.send(Attach { topic, reply }).await;
        asked.map_err(|_| unknown())?;
        attached.await.unwrap_or_else(|_| Err(unknown()))
    }

    /// Notified when a device whose link is not open speaks, or its presence says that it is there.
    #[must_use]
    pub fn announcements(&self, broker: &Broker, topic: &str) -> Option<Arc<Notify>> {
        self.0.get(broker)?.spoke.get(topic).map(Arc::clone)
    }
}

fn config(
    broker: &Broker,
    topics: &[String],
    end: End,
    name: &str,
    backoff: Backoff,
) -> ClientConfig {
    let presence = |payload: &[u8]| Publication {
        topic: topics
            .first()
            .map(|topic| format!("{topic}/{PRESENCE}"))
            .unwrap_or_default(),
        payload: payload.to_vec(),
        retain: true,
        correlation: None,
    };
    let read: &[&str] = match end {
        End::Box => &[UP, PRESENCE],
        End::Device => &[DOWN],
    };
    let (birth, will) = match end {
        End::Box => (None, None),
        End::Device => {
            let will = presence(OFFLINE);
            let will = Will {
                topic: will.topic,
                payload: will.payload,
                delay: WILL_DELAY,
            };
            (Some(presence(ONLINE)), Some(will))
        }
    };
    ClientConfig {
        broker: broker.clone(),
        client_id: match end {
            End::Box => format!("autoglm-box-{name}-devices"),
            End::Device => format!("autoglm-device-{name}"),
        },
        subscriptions: topics
            .iter()
            .flat_map(|topic| read.iter().map(move |part| format!("{topic}/{part}")))
            .collect(),
        birth,
        will,
        // Packets that waited for us would be of a connection that is over.
        session_expiry: Duration::ZERO,
        backoff,
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Presence {
    /// No retained word: firmware may leave it out, so it is tried.
    #[default]
    Unknown,
    Online,
    Offline,
}

#[derive(Debug, Default)]
struct Route {
    spoke: Arc<Notify>,
    presence: Presence,
    open: Option<mpsc::Sender<io::Result<Vec<u8>>>>,
    dropped: u64,
}

struct Hub {
    broker: Broker,
    end: End,
    client: Client,
    routes: BTreeMap<String, Route>,
    tracker: TaskTracker,
}

impl Hub {
    async fn run(
        mut self,
        mut incoming: mpsc::Receiver<Incoming>,
        mut attaching: mpsc::Receiver<Attach>,
        cancel: CancellationToken,
    ) {
        let mut state = self.client.state();
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                changed = state.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = state.borrow_and_update().clone();
                    self.on_broker(&now);
                }
                Some(attach) = attaching.recv() => {
                    let now = state.borrow().clone();
                    let _ = attach.reply.send(self.attach(attach.topic, &now, &cancel));
                }
                Some(message) = incoming.recv() => {
                    self.on_message(&message);
                    message.acknowledge().await;
                }
            }
        }
    }

    /// Every link lasts as long as the broker's connection.
    fn on_broker(&mut self, now: &BrokerState) {
        let BrokerState::Waiting { cause, .. } = now else {
            for route in self.routes.values() {
                route.spoke.notify_one();
            }
            return;
        };
        for route in self.routes.values_mut() {
            route.presence = Presence::Unknown;
            if let Some(open) = route.open.take() {
                let why = format!("the broker is away: {cause}");
                let _ = open.try_send(Err(io::Error::other(why)));
            }
        }
    }

    fn attach(
        &mut self,
        topic: String,
        now: &BrokerState,
        cancel: &CancellationToken,
    ) -> Result<PacketLink, AttachError> {
        let broker = self.broker.clone();
        let cause = match now {
            BrokerState::Connected => None,
            BrokerState::Starting => Some("not connected yet".to_owned()),
            BrokerState::Waiting { cause, .. } => Some(cause.clone()),
        };
        if let Some(cause) = cause {
            return Err(AttachError::BrokerAway { broker, cause });
        }
        let Some(route) = self.routes.get_mut(&topic) else {
            return Err(AttachError::Unknown { broker, topic });
        };
        if route.presence == Presence::Offline {
            return Err(AttachError::Offline { broker, topic });
        }
        let (up, from_device) = mpsc::channel(INCOMING);
        let (to_device, down) = mpsc::channel(OUTGOING);
        route.open = Some(up);
        let part = match self.end {
            End::Box => DOWN,
            End::Device => UP,
        };
        let (client, topic) = (self.client.clone(), format!("{topic}/{part}"));
        self.tracker
            .spawn(forward(down, client, topic, cancel.clone()));
        Ok(PacketLink {
            mtu_bytes: MTU_BYTES,
            delivery: Delivery::AtLeastOnce,
            outgoing: to_device,
            incoming: from_device,
        })
    }

    fn on_message(&mut self, message: &Incoming) {
        let Some((topic, part)) = message.topic().rsplit_once('/') else {
            return;
        };
        let Some(route) = self.routes.get_mut(topic) else {
            return;
        };
        if part == PRESENCE {
            route.presence = match message.payload() {
                OFFLINE => Presence::Offline,
                _ => Presence::Online,
            };
            if route.presence == Presence::Online {
                route.spoke.notify_one();
            }
            return;
        }
        // A retained packet would be of a connection that is over.
        if message.is_retained() || message.payload().len() > MTU_BYTES {
            return;
        }
        let sent = match &route.open {
            Some(open) => open.try_send(Ok(message.payload().to_vec())),
            None => return route.spoke.notify_one(),
        };
        match sent {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                route.dropped += 1;
                tracing::debug!(
                    topic,
                    dropped = route.dropped,
                    "packet dropped: the port is slow"
                );
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {
                route.open = None;
                route.spoke.notify_one();
            }
        }
    }
}

/// Hands a link's packets to the broker's connection, until the link is dropped.
async fn forward(
    mut packets: mpsc::Receiver<Vec<u8>>,
    client: Client,
    topic: String,
    cancel: CancellationToken,
) {
    while let Some(Some(payload)) = cancel.run_until_cancelled(packets.recv()).await {
        let packet = Publication {
            topic: topic.clone(),
            payload,
            ..Publication::default()
        };
        if !client.send_packet(packet).await {
            return;
        }
    }
}
