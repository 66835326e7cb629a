//! One task per device: keeps its port, opens the links that the policy chooses, and introduces the device.
//!
//! The shell around [`Policy`]: it opens, waits, and tells the policy what happened. A link that breaks takes nothing with it: the
//! port keeps the connection for the configured time, and only if that passes is the Thing detached.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use autoglm_drivers::backoff::Backoff;
use autoglm_drivers::link::{Link, LinkAddress, LinkError, Opener};
use autoglm_drivers::mqtt::Broker;
use autoglm_drivers::port::{LinkControl, LinkEnd, LinkIndex, LinkQuality, Port, PortEvent, port};
use autoglm_protocol::wire::CloseReason;
use autoglm_protocol::{Config as ProtocolConfig, LostReason, PeerInfo, Standing};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::board::{LinkBoard, LinkSnapshot, Quality};
use super::introduction::{Described, IntroductionError, Known, describe, observe};
use super::policy::{Policy, Step, opening_at_once};
use super::protection::{privacy, remedy, security};
use super::quality::Measured;
use super::state::LinkState;
use crate::config::DeviceConfig;
use crate::things::registry::{Attachment, DeviceName, Registry};
use crate::things::value;

/// Port events on their way up. Full: the port waits, and so does the device.
const EVENTS: usize = 64;
/// Announcements of links; one for each is enough, and a lost one only means a rest to its end.
const ANNOUNCEMENTS: usize = 8;
/// How often the quality of links is shown anew while nothing else changes: it costs a copy of the board.
const QUALITY_SHOWN: Duration = Duration::from_secs(3);
/// How often a key that could not be read is looked for again.
const KEY_AGAIN: Duration = Duration::from_secs(5);

/// What all supervisors share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Opens links.
    pub opener: Opener,
    /// Limits how many links of an adapter are opened at a time.
    pub adapters: Adapters,
    /// Rests of links.
    pub backoff: Backoff,
    /// Where Things go.
    pub registry: Registry,
    /// Where links are shown.
    pub board: LinkBoard,
}

/// How many links may be opened at a time, by what they have in common. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Adapters(Arc<Mutex<BTreeMap<Broker, Arc<Semaphore>>>>);

impl Adapters {
    /// Opens a link when its adapter has room for it.
    async fn open(self, opener: Opener, address: LinkAddress) -> Result<Link, LinkError> {
        let limit = self.limit(&address);
        let _permit = match &limit {
            Some(limit) => limit.acquire().await.ok(),
            None => None,
        };
        opener.open(&address).await
    }

    fn limit(&self, address: &LinkAddress) -> Option<Arc<Semaphore>> {
        let at_once = opening_at_once(address.class())?;
        match address {
            LinkAddress::Serial { .. } => None,
            LinkAddress::Mqtt { broker, .. } => {
                let mut limits = self.0.lock().unwrap_or_else(|broken| broken.into_inner());
                let limit = limits.entry(broker.clone());
                Some(Arc::clone(
                    limit.or_insert_with(|| Arc::new(Semaphore::new(at_once))),
                ))
            }
        }
    }
}

type Opening = Pin<Box<dyn Future<Output = (LinkIndex, Result<Link, LinkError>)> + Send>>;
type Introducing = Pin<Box<dyn Future<Output = Result<Described, IntroductionError>> + Send>>;
type Observing = Pin<Box<dyn Future<Output = Vec<(String, serde_json::Value)>> + Send>>;

/// Supervises one device.
pub struct Supervisor {
    name: DeviceName,
    config: DeviceConfig,
    around: Surroundings,
    policy: Policy,
    known: Known,
    qualities: Vec<Quality>,
    /// What the board shows of them, and since when.
    shown: (Vec<Quality>, Option<Instant>),
    /// What was counted on the link below when it was last looked at.
    counted: LinkQuality,
    /// The connection that is, or is kept.
    connection: Option<(PeerInfo, Port)>,
    is_attached: bool,
    opening: Option<Opening>,
    introducing: Option<Introducing>,
    observing: Option<Observing>,
}

impl Supervisor {
    /// A supervisor for a device.
    #[must_use]
    pub fn new(config: DeviceConfig, around: Surroundings) -> Self {
        let classes = config.links.iter().map(|link| link.address.class());
        Self {
            name: DeviceName(config.name.clone()),
            policy: Policy::new(classes, around.backoff),
            qualities: vec![Quality::default(); config.links.len()],
            shown: (vec![Quality::default(); config.links.len()], None),
            config,
            around,
            known: Known::default(),
            counted: LinkQuality::default(),
            connection: None,
            is_attached: false,
            opening: None,
            introducing: None,
            observing: None,
        }
    }

    /// Keeps the device connected until cancelled.
    #[tracing::instrument(name = "device", skip_all, fields(name = %self.name))]
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut told = String::new();
        let security = loop {
            match security(&self.config.protection) {
                Ok(security) => break security,
                Err(error) => {
                    let cause = with_sources(&error);
                    if cause != told {
                        tracing::error!(%cause, "the device is left alone: its key cannot be used");
                        self.publish_unusable(&cause);
                        told = cause;
                    }
                }
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(KEY_AGAIN) => {}
            }
        };
        let protocol = ProtocolConfig {
            resume_window: self.config.resume,
            ..ProtocolConfig::default()
        };
        let (up, events) = mpsc::channel(EVENTS);
        let (control, task) = port(up);
        let tasks = TaskTracker::new();
        // The port outlives our loop by its goodbye, and the watchers end with us.
        let ours = CancellationToken::new();
        tasks.spawn(task.run(protocol, security, rand::random(), ours.clone()));
        let (announce, announced) = mpsc::channel(ANNOUNCEMENTS);
        for (index, link) in self.config.links.iter().enumerate() {
            let (announce, ours) = (announce.clone(), ours.clone());
            let mut announcements = self.around.opener.announcements(&link.address);
            tasks.spawn(ours.run_until_cancelled_owned(async move {
                loop {
                    announcements.next().await;
                    if announce.send(LinkIndex(index)).await.is_err() {
                        return;
                    }
                }
            }));
        }
        self.supervise(&control, events, announced, &cancel).await;
        ours.cancel();
        tasks.close();
        tasks.wait().await;
    }

    async fn supervise(
        &mut self,
        control: &LinkControl,
        mut events: mpsc::Receiver<PortEvent>,
        mut announced: mpsc::Receiver<LinkIndex>,
        cancel: &CancellationToken,
    ) {
        let mut quality = control.quality();
        loop {
            let until = match self.policy.step(Instant::now()) {
                Step::Open(index) => {
                    self.open(index);
                    continue;
                }
                Step::GiveUp(index) => {
                    self.leave(control, index, "no device answers".to_owned())
                        .await;
                    continue;
                }
                Step::Wait(until) => until,
            };
            self.publish();
            tokio::select! {
                () = cancel.cancelled() => return,
                event = events.recv() => match event {
                    Some(event) => self.on_event(control, event).await,
                    // The port ends only when we do.
                    None => return,
                },
                (index, opened) = pending_or(&mut self.opening) => {
                    self.opening = None;
                    self.on_opening(control, index, opened).await;
                }
                introduced = pending_or(&mut self.introducing) => {
                    self.introducing = None;
                    self.on_introduced(control, introduced).await;
                }
                values = pending_or(&mut self.observing) => {
                    self.observing = None;
                    for (property, value) in values {
                        self.around.registry.property_changed(self.name.clone(), property, value).await;
                    }
                }
                Some(index) = announced.recv() => self.policy.on_announced(index, Instant::now()),
                Ok(()) = quality.changed() => {
                    let now = *quality.borrow_and_update();
                    self.on_quality(now);
                }
                () = sleep_until(until) => {}
            }
        }
    }

    fn open(&mut self, index: LinkIndex) {
        let address = self.config.links[index.0].address.clone();
        let open = self
            .around
            .adapters
            .clone()
            .open(self.around.opener.clone(), address);
        self.opening = Some(Box::pin(async move { (index, open.await) }));
    }

    async fn on_opening(
        &mut self,
        control: &LinkControl,
        index: LinkIndex,
        opened: Result<Link, LinkError>,
    ) {
        let now = Instant::now();
        match opened {
            Ok(link) => {
                if let Some(before) = self.policy.carrying() {
                    let (from, to) = (self.id(before), self.id(index));
                    tracing::info!(%from, %to, "trying a better link");
                }
                self.policy.on_opened(index, now);
                control.use_link(index, link).await;
            }
            Err(error) => self.lost(index, with_sources(&error), |policy, cause, random| {
                policy.on_open_failed(index, now, cause, random);
            }),
        }
    }

    /// Takes the link from below the connection, which is kept.
    async fn leave(&mut self, control: &LinkControl, index: LinkIndex, cause: String) {
        if self.policy.below() != Some(index) {
            // Another was put there meanwhile.
            return;
        }
        control.leave_link().await;
        let now = Instant::now();
        self.lost(index, cause, |policy, cause, random| {
            policy.on_broken(index, now, cause, random);
        });
    }

    /// Tells the policy of a failed link, and says it in the log once for each cause.
    fn lost(
        &mut self,
        index: LinkIndex,
        cause: String,
        tell: impl FnOnce(&mut Policy, String, f64),
    ) {
        let is_news = self.policy.state(index).cause() != Some(cause.as_str());
        tell(&mut self.policy, cause.clone(), rand::random());
        let link = self.id(index);
        // The same trouble again is no news: an absent port would otherwise fill the log.
        match is_news {
            true => {
                tracing::warn!(%link, %cause, "link lost; it is tried again until it returns");
            }
            false => tracing::debug!(%link, %cause, "link still lost"),
        }
    }

    async fn on_event(&mut self, control: &LinkControl, event: PortEvent) {
        let now = Instant::now();
        match event {
            PortEvent::Connected { peer, port } => {
                if let Some(link) = self.policy.below() {
                    self.policy.on_carrying(link, now);
                }
                self.introducing = Some(Box::pin(describe(port.clone(), peer, self.known.clone())));
                self.observing = None;
                self.connection = Some((peer, port));
            }
            PortEvent::Interrupted { link } => {
                self.interrupt().await;
                if let Some(link) = link {
                    self.policy.on_restarted(link, now);
                }
            }
            PortEvent::Resumed { link } => {
                tracing::info!(link = %self.id(link), "connection goes on");
                self.policy.on_carrying(link, now);
                self.resume(link).await;
            }
            PortEvent::Lost { link, reason } => self.on_lost(control, link, reason).await,
            PortEvent::LinkLost { link, end } => {
                let cause = match &end {
                    LinkEnd::Closed => end.to_string(),
                    LinkEnd::Failed(_) => with_sources(&end),
                };
                self.lost(link, cause, |policy, cause, random| {
                    policy.on_broken(link, now, cause, random);
                });
            }
            PortEvent::Incompatible { link, theirs } => {
                let cause = format!(
                    "the device speaks protocol {theirs}, we do not: update its firmware or this daemon"
                );
                if let Some(link) = link {
                    self.leave(control, link, cause).await;
                }
            }
            PortEvent::PropertyChanged { property, value } => {
                let value = value::to_json(value);
                self.around
                    .registry
                    .property_changed(self.name.clone(), property, value)
                    .await;
            }
            PortEvent::Event { name, data } => {
                tracing::info!(event = %name, "device event");
                self.around
                    .registry
                    .event(self.name.clone(), name, value::to_json(data))
                    .await;
            }
            PortEvent::Log { level, text } => tracing::debug!(?level, %text, "device log"),
        }
    }

    /// The connection is over, or was refused.
    async fn on_lost(
        &mut self,
        control: &LinkControl,
        link: Option<LinkIndex>,
        reason: LostReason,
    ) {
        self.connection = None;
        (self.introducing, self.observing) = (None, None);
        if std::mem::take(&mut self.is_attached) {
            tracing::warn!(%reason, "connection lost");
            self.around.registry.detach(self.name.clone()).await;
        }
        let Some(link) = link else {
            return;
        };
        let now = Instant::now();
        match reason {
            LostReason::Unauthenticated
            | LostReason::ClosedByPeer(CloseReason::Unauthenticated) => {
                if self.policy.below() != Some(link) {
                    return;
                }
                control.leave_link().await;
                let cause = format!(
                    "{} is not authentic: {}",
                    self.name,
                    remedy(&self.config.protection)
                );
                let opens = self
                    .policy
                    .on_refused(link, now, cause.clone(), rand::random());
                let link = self.id(link);
                match opens {
                    true => {
                        tracing::error!(%link, %cause, "refused again; it is left alone for long")
                    }
                    false => tracing::warn!(%link, %cause, "refused"),
                }
            }
            // It began anew, or said goodbye, on a link that works.
            LostReason::PeerRestarted
            | LostReason::ClosedByPeer(CloseReason::Goodbye)
            | LostReason::LinkChanged => self.policy.on_restarted(link, now),
            reason => self.leave(control, link, reason.to_string()).await,
        }
    }

    async fn on_introduced(
        &mut self,
        control: &LinkControl,
        introduced: Result<Described, IntroductionError>,
    ) {
        let Some((peer, port)) = self.connection.clone() else {
            return;
        };
        let described = match introduced {
            Ok(described) => described,
            Err(error) => {
                if let Some(link) = self.policy.below() {
                    self.leave(control, link, with_sources(&error)).await;
                }
                return;
            }
        };
        let Some(link) = self.policy.below() else {
            // It broke meanwhile; the connection, if it goes on, is introduced then.
            return;
        };
        let description = Arc::clone(&described.description);
        tracing::info!(thing = %description.id, title = %description.title, link = %self.id(link), "device connected");
        let attachment = Attachment {
            device: self.name.clone(),
            link: self.config.links[link.0].id.clone(),
            description: Arc::clone(&description),
            schemas: described.schemas,
            port: port.clone(),
            boot_id: peer.boot_id,
        };
        self.is_attached = self.around.registry.attach(attachment).await;
        self.observing = Some(Box::pin(observe(port, description)));
    }

    async fn interrupt(&mut self) {
        if self.is_attached {
            self.around.registry.interrupt(self.name.clone()).await;
        }
    }

    async fn resume(&mut self, link: LinkIndex) {
        let id = self.config.links[link.0].id.clone();
        if self.is_attached {
            self.around.registry.resume(self.name.clone(), id).await;
        } else if let (None, Some((peer, port))) = (&self.introducing, &self.connection) {
            let known = self.known.clone();
            self.introducing = Some(Box::pin(describe(port.clone(), *peer, known)));
        }
    }

    fn on_quality(&mut self, now: LinkQuality) {
        let before = std::mem::replace(&mut self.counted, now);
        let Some(link) = now.link else {
            return;
        };
        // The counts begin anew with each use of a link.
        let more = |now: u64, counted: u64| match before.link == Some(link) && now >= counted {
            true => now - counted,
            false => now,
        };
        let quality = &mut self.qualities[link.0];
        quality.bytes_sent += more(now.bytes_sent, before.bytes_sent);
        quality.bytes_received += more(now.bytes_received, before.bytes_received);
        quality.loss = now.loss().or(quality.loss);
        let (Some(rtt), Standing::Connected) = (now.rtt, now.standing) else {
            return;
        };
        quality.rtt = Some(rtt);
        let measured = Measured {
            rtt,
            loss: now.loss().unwrap_or_default(),
            at: Instant::now(),
        };
        self.policy.on_measured(link, measured);
    }

    fn id(&self, index: LinkIndex) -> &str {
        &self.config.links[index.0].id.0
    }

    fn publish(&mut self) {
        let now = Instant::now();
        let is_old = |shown: Instant| now.saturating_duration_since(shown) >= QUALITY_SHOWN;
        if self.shown.1.is_none_or(is_old) {
            self.shown = (self.qualities.clone(), Some(now));
        }
        let privacy = privacy(&self.config.protection);
        let links = self.config.links.iter().enumerate();
        self.around.board.publish(links.map(|(index, link)| {
            let state = match self.policy.state(LinkIndex(index)) {
                // Connected is who can be commanded.
                LinkState::Connected { .. } if !self.is_attached => {
                    LinkState::Connecting { attempt: 0 }
                }
                state => state,
            };
            LinkSnapshot {
                id: link.id.clone(),
                device: self.config.name.clone(),
                address: link.address.clone(),
                state,
                privacy,
                quality: self.shown.0[index],
            }
        }));
    }

    fn publish_unusable(&self, cause: &str) {
        let retry_at = Instant::now() + KEY_AGAIN;
        self.around
            .board
            .publish(self.config.links.iter().map(|link| LinkSnapshot {
                id: link.id.clone(),
                device: self.config.name.clone(),
                address: link.address.clone(),
                state: LinkState::Refused {
                    refusals: 0,
                    retry_at,
                    cause: cause.to_owned(),
                },
                privacy: privacy(&self.config.protection),
                quality: Quality::default(),
            }));
    }
}

/// The future's output, or nothing ever where there is none.
async fn pending_or<T>(future: &mut Option<Pin<Box<dyn Future<Output = T> + Send>>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until.into()).await,
        None => std::future::pending().await,
    }
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
