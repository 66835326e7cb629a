//! What happens on a device's connection, and what the supervisor makes of it.

use std::sync::Arc;
use std::time::Instant;

use autoglm_drivers::port::{LinkControl, LinkEnd, LinkIndex, PortEvent};
use autoglm_protocol::LostReason;
use autoglm_protocol::wire::CloseReason;

use super::{Supervisor, with_sources};
use crate::link::introduction::{Described, IntroductionError, describe, observe};
use crate::link::protection::remedy;
use crate::things::registry::Attachment;
use crate::things::value;

impl Supervisor {
    pub(super) async fn on_event(&mut self, control: &LinkControl, event: PortEvent) {
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
                tracing::info!(link = %self.id(link), "device connected again: its connection goes on");
                self.policy.on_carrying(link, now);
                self.resume(link).await;
            }
            PortEvent::Lost { link, reason } => self.on_lost(control, link, reason).await,
            PortEvent::LinkLost { link, end } => {
                let cause = match &end {
                    LinkEnd::Closed | LinkEnd::Silent => end.to_string(),
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

    pub(super) async fn on_introduced(
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
            schemas: Arc::clone(&described.schemas),
            port: port.clone(),
            boot_id: peer.boot_id,
        };
        self.is_attached = self.around.registry.attach(attachment).await;
        self.observing = Some(Box::pin(observe(port, description)));
        // Beside everything else: a store that is busy or away must not keep a device from being served.
        let memory = self.around.memory.clone();
        let device = self.name.clone();
        self.keeping = Some(Box::pin(
            async move { memory.keep(device, described).await },
        ));
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
}
