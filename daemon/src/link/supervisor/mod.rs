//! One task per device: keeps its port, opens the links that the policy chooses, and introduces the device.
//!
//! The shell around [`Policy`]: it opens, waits, and tells the policy what happened. A link that breaks takes nothing with it: the
//! port keeps the connection for the configured time, and only if that passes is the Thing detached. [`events`] is what it makes of what
//! happens on the connection.

mod events;

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use autoglm_drivers::backoff::Backoff;
use autoglm_drivers::link::{Link, LinkError, Opener};
use autoglm_drivers::port::{LinkControl, LinkIndex, Port, PortEvent, port};
use autoglm_protocol::{Config as ProtocolConfig, PeerInfo};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::DeviceConfig;
use crate::link::adapters::Adapters;
use crate::link::board::{LinkBoard, LinkSnapshot, Quality};
use crate::link::introduction::{Described, IntroductionError, Known};
use crate::link::memory::Memory;
use crate::link::policy::{Policy, Step};
use crate::link::protection::{privacy, security};
use crate::link::state::LinkState;
use crate::link::tally::Tally;
use crate::things::registry::{DeviceName, Registry};

/// Port events on their way up. Full: the port waits, and so does the device.
const EVENTS: usize = 64;
/// Announcements of links; one for each is enough, and a lost one only means a rest to its end.
const ANNOUNCEMENTS: usize = 8;
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
    /// What devices said of themselves, over restarts.
    pub memory: Memory,
}

type Opening = Pin<Box<dyn Future<Output = (LinkIndex, Result<Link, LinkError>)> + Send>>;
type Introducing = Pin<Box<dyn Future<Output = Result<Described, IntroductionError>> + Send>>;
type Keeping = Pin<Box<dyn Future<Output = ()> + Send>>;
type Observing = Pin<Box<dyn Future<Output = Vec<(String, serde_json::Value)>> + Send>>;

/// Supervises one device.
pub struct Supervisor {
    name: DeviceName,
    config: DeviceConfig,
    around: Surroundings,
    policy: Policy,
    known: Known,
    tally: Tally,
    /// The connection that is, or is kept.
    connection: Option<(PeerInfo, Port)>,
    is_attached: bool,
    opening: Option<Opening>,
    introducing: Option<Introducing>,
    observing: Option<Observing>,
    keeping: Option<Keeping>,
}

impl Supervisor {
    /// A supervisor for a device.
    #[must_use]
    pub fn new(config: DeviceConfig, around: Surroundings) -> Self {
        let classes = config.links.iter().map(|link| link.address.class());
        Self {
            name: DeviceName(config.name.clone()),
            policy: Policy::new(classes, around.backoff),
            tally: Tally::new(config.links.len()),
            config,
            around,
            known: Known::default(),
            connection: None,
            is_attached: false,
            opening: None,
            introducing: None,
            observing: None,
            keeping: None,
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
                () = pending_or(&mut self.keeping) => self.keeping = None,
                values = pending_or(&mut self.observing) => {
                    self.observing = None;
                    for (property, value) in values {
                        self.around.registry.property_changed(self.name.clone(), property, value).await;
                    }
                }
                Some(index) = announced.recv() => self.policy.on_announced(index, Instant::now()),
                Ok(()) = quality.changed() => {
                    let counted = *quality.borrow_and_update();
                    if let Some((link, measured)) = self.tally.on_counted(counted, Instant::now()) {
                        self.policy.on_measured(link, measured);
                    }
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
                tracing::debug!(link = %self.id(index), "link open");
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

    fn id(&self, index: LinkIndex) -> &str {
        &self.config.links[index.0].id.0
    }

    fn publish(&mut self) {
        let qualities = self.tally.shown(Instant::now());
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
                quality: qualities[index],
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
