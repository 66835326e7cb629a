//! One task per link: open, run the port, introduce the device, wait for the end, rest, again.
//!
//! A failure of the link ends the port and comes here; what to do next is [`Policy`]'s decision. The
//! task reads a device's description once per content (by its hash) and observes its observable properties.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use autoglm_drivers::link::{LinkAddress, LinkId};
use autoglm_drivers::port::{Identity, Port, PortEnd, PortError, PortEvent, port};
use autoglm_protocol::{Config as ProtocolConfig, PeerInfo, Reply, Request, RequestId};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::policy::{LinkState, Policy};
use crate::config::LinkConfig;
use crate::things::description::{DescriptionError, ThingDescription};
use crate::things::registry::{Attachment, Registry};
use crate::things::schema::{SchemaError, ThingSchemas};
use crate::things::value;

/// Port events on their way up. Full: the port waits, and so does the device.
const EVENTS: usize = 64;
/// Time that a device has to answer the handshake and describe itself, a slow line included.
const INTRODUCTION: Duration = Duration::from_secs(10);

/// What observers see of a link.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkSnapshot {
    /// Its name.
    pub id: LinkId,
    /// Where it leads.
    pub address: LinkAddress,
    /// Its state.
    pub state: LinkState,
}

/// All links, to watch.
pub type Links = watch::Receiver<Arc<BTreeMap<LinkId, LinkSnapshot>>>;

/// Where supervisors publish their links' states.
#[derive(Debug, Clone)]
pub struct LinkBoard(watch::Sender<Arc<BTreeMap<LinkId, LinkSnapshot>>>);

impl LinkBoard {
    /// An empty board.
    #[must_use]
    pub fn new() -> Self {
        Self(watch::channel(Arc::default()).0)
    }

    /// The board, to watch.
    #[must_use]
    pub fn subscribe(&self) -> Links {
        self.0.subscribe()
    }

    fn publish(&self, snapshot: LinkSnapshot) {
        self.0.send_modify(|links| {
            Arc::make_mut(links).insert(snapshot.id.clone(), snapshot);
        });
    }
}

impl Default for LinkBoard {
    fn default() -> Self {
        Self::new()
    }
}

/// Waits until each of `count` links was tried once: its device is known, or it is known why not.
pub async fn all_tried(mut links: Links, count: usize) {
    let is_tried = |link: &LinkSnapshot| {
        matches!(
            link.state,
            LinkState::Connected { .. } | LinkState::Reconnecting { .. }
        )
    };
    // An error means that nobody supervises links any more: then nothing more is to be waited for.
    let _ = links
        .wait_for(|links| links.values().filter(|link| is_tried(link)).count() >= count)
        .await;
}

/// Why a device could not be introduced.
#[derive(Debug, thiserror::Error)]
enum IntroductionError {
    #[error("no device answered within {} s", INTRODUCTION.as_secs())]
    Silent,
    #[error("the device did not describe itself: {0}")]
    Undescribed(#[from] PortError),
    #[error("the device's description is not UTF-8")]
    NotText,
    #[error(transparent)]
    Description(#[from] DescriptionError),
    #[error("the device's description: {0}")]
    Schema(#[from] SchemaError),
    #[error("the registry is gone")]
    Stopping,
}

/// A description that was read and checked.
#[derive(Debug, Clone)]
struct Described {
    description: Arc<ThingDescription>,
    schemas: Arc<ThingSchemas>,
}

/// Supervises one link.
#[derive(Debug)]
pub struct Supervisor {
    id: LinkId,
    address: LinkAddress,
    policy: Policy,
    registry: Registry,
    board: LinkBoard,
    identity: Identity,
    /// Descriptions by hash, so that a device that returns is not asked again.
    known: BTreeMap<[u8; 32], Described>,
    next_request: u64,
}

impl Supervisor {
    /// A supervisor for `link`; `boot_id` is this run's.
    #[must_use]
    pub fn new(
        link: LinkConfig,
        backoff: autoglm_drivers::backoff::Backoff,
        boot_id: u32,
        registry: Registry,
        board: LinkBoard,
    ) -> Self {
        Self {
            id: LinkId(link.name),
            address: link.address,
            policy: Policy::new(backoff),
            registry,
            board,
            identity: Identity { boot_id, epoch: 0 },
            known: BTreeMap::new(),
            next_request: 0,
        }
    }

    /// Keeps the link alive until cancelled.
    #[tracing::instrument(name = "link", skip_all, fields(id = %self.id, address = %self.address))]
    pub async fn run(mut self, cancel: CancellationToken) {
        loop {
            self.policy.on_connecting();
            self.publish();
            let cause = match self.address.open() {
                Ok(stream) => {
                    let end = self.serve(stream, &cancel).await;
                    self.registry.detach(self.id.clone()).await;
                    match end {
                        Ok(PortEnd::Cancelled) => return,
                        Ok(end) => with_sources(&end),
                        Err(error) => error.to_string(),
                    }
                }
                Err(error) => with_sources(&error),
            };
            if cancel.is_cancelled() {
                return;
            }
            let is_new = self.policy.state().cause() != Some(cause.as_str());
            let rest = self.policy.on_lost(Instant::now(), cause, rand::random());
            self.report_lost(is_new, rest);
            self.publish();
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    fn report_lost(&self, is_new: bool, rest: Duration) {
        if let LinkState::Reconnecting { attempt, cause, .. } = self.policy.state() {
            let rest_ms = rest.as_millis() as u64;
            // The same trouble again is no news: an absent port would otherwise fill the log.
            if is_new && *attempt <= 1 {
                tracing::warn!(attempt, rest_ms, %cause, "link lost; it is tried again until it returns");
            } else {
                tracing::debug!(attempt, rest_ms, %cause, "link still lost");
            }
        }
    }

    fn publish(&self) {
        let state = self.policy.state().clone();
        self.board.publish(LinkSnapshot {
            id: self.id.clone(),
            address: self.address.clone(),
            state,
        });
    }

    /// Runs one port to its end.
    async fn serve(
        &mut self,
        stream: Box<dyn autoglm_drivers::link::ByteStream>,
        cancel: &CancellationToken,
    ) -> Result<PortEnd, IntroductionError> {
        self.identity.epoch = self.identity.epoch.wrapping_add(1);
        let (up, mut events) = mpsc::channel(EVENTS);
        let (port, task) = port(up);
        let cancel = cancel.child_token();
        let _ended_with_us = cancel.clone().drop_guard();
        let mut running =
            std::pin::pin!(task.run(stream, ProtocolConfig::default(), self.identity, cancel));

        let introduced = {
            let introduction =
                tokio::time::timeout(INTRODUCTION, self.introduce(&port, &mut events));
            tokio::select! {
                end = &mut running => return Ok(end),
                introduced = introduction => introduced.unwrap_or(Err(IntroductionError::Silent)),
            }
        };
        let observed = introduced?;
        self.policy.on_connected(Instant::now());
        self.publish();
        let subscriber = port.clone();
        let mut observing = std::pin::pin!(observe(subscriber, observed, self.next_request));
        let mut is_observing = true;
        loop {
            tokio::select! {
                end = &mut running => return Ok(end),
                values = &mut observing, if is_observing => {
                    is_observing = false;
                    for (property, value) in values {
                        self.registry.property_changed(self.id.clone(), property, value).await;
                    }
                }
                Some(event) = events.recv() => self.on_event(event).await,
            }
        }
    }

    /// Waits for the handshake, learns the description and attaches the Thing. Returns what to observe.
    async fn introduce(
        &mut self,
        port: &Port,
        events: &mut mpsc::Receiver<PortEvent>,
    ) -> Result<Vec<String>, IntroductionError> {
        let peer = loop {
            match events.recv().await {
                Some(PortEvent::Connected(peer)) => break peer,
                Some(_) => {}
                None => return Err(IntroductionError::Stopping),
            }
        };
        let Described {
            description,
            schemas,
        } = self.description(port, &peer).await?;
        let observed = description
            .properties
            .iter()
            .filter(|(_, property)| property.observable && !property.schema.write_only)
            .map(|(name, _)| name.clone())
            .collect();
        tracing::info!(thing = %description.id, title = %description.title, "device connected");
        let attachment = Attachment {
            link: self.id.clone(),
            description,
            schemas,
            port: port.clone(),
            boot_id: peer.boot_id,
        };
        if self.registry.attach(attachment).await {
            Ok(observed)
        } else {
            Err(IntroductionError::Stopping)
        }
    }

    async fn description(
        &mut self,
        port: &Port,
        peer: &PeerInfo,
    ) -> Result<Described, IntroductionError> {
        if let Some(known) = peer.description_hash.and_then(|hash| self.known.get(&hash)) {
            return Ok(known.clone());
        }
        self.next_request += 1;
        let answer = port
            .request(
                RequestId(self.next_request),
                Request::Describe,
                INTRODUCTION,
            )
            .await?;
        let Reply::Description { hash, document } = answer.reply else {
            return Err(IntroductionError::NotText);
        };
        let text = String::from_utf8(document).map_err(|_| IntroductionError::NotText)?;
        let description = ThingDescription::from_json(&text)?;
        let schemas = Arc::new(ThingSchemas::compile(&description)?);
        let described = Described {
            description: Arc::new(description),
            schemas,
        };
        // One device per link: more than a handful of contents means that it is being reflashed.
        if self.known.len() >= 8 {
            self.known.clear();
        }
        self.known.insert(hash, described.clone());
        Ok(described)
    }

    async fn on_event(&self, event: PortEvent) {
        match event {
            PortEvent::PropertyChanged { property, value } => {
                self.registry
                    .property_changed(self.id.clone(), property, value::to_json(value))
                    .await;
            }
            PortEvent::Event { name, data } => {
                tracing::info!(event = %name, "device event");
                self.registry
                    .event(self.id.clone(), name, value::to_json(data))
                    .await;
            }
            PortEvent::Log { level, text } => tracing::debug!(?level, %text, "device log"),
            PortEvent::Connected(_) => {}
        }
    }
}

/// Asks for each property to be reported, and returns the values as they are now.
async fn observe(
    port: Port,
    properties: Vec<String>,
    first_request: u64,
) -> Vec<(String, serde_json::Value)> {
    let mut values = Vec::new();
    for (at, property) in properties.into_iter().enumerate() {
        let id = RequestId(first_request + 1 + at as u64);
        match port
            .request(
                id,
                Request::Observe {
                    property: property.clone(),
                },
                INTRODUCTION,
            )
            .await
        {
            Ok(answer) => {
                if let Reply::Value(now) = answer.reply {
                    values.push((property, value::to_json(now)));
                }
            }
            Err(error) => tracing::warn!(%property, %error, "property cannot be observed"),
        }
    }
    values
}

/// An error with all its causes on one line.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}
