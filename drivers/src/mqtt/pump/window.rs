//! The window of publications that the broker has not acknowledged, in the order in which they were given.
//!
//! What an earlier connection left unacknowledged goes first on the next one. A publication leaves the window with the broker's
//! answer, or without one when it is not to be sent at all.

use std::collections::VecDeque;
use std::time::Instant;

use rumqttc::v5::AsyncClient;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{PubAck, PubAckReason, PublishProperties};

use crate::mqtt::client::ReceiptSender;
use crate::mqtt::options::{self, Limits, WINDOW};
use crate::mqtt::types::{Publication, PublishError, PublishOptions};

struct Pending {
    publication: Publication,
    options: PublishOptions,
    /// None for our own birth message and for packets, which nobody waits for: they end with the connection.
    receipt: Option<ReceiptSender>,
    progress: Progress,
}

impl Pending {
    /// Why it is not to be sent at all, if it is not.
    fn refusal(&self, limits: &Limits) -> Option<PublishError> {
        if self
            .options
            .expires
            .is_some_and(|expires| expires <= Instant::now())
        {
            return Some(PublishError::Expired);
        }
        let bytes = options::packet_bytes(&self.publication, &self.options);
        let limit = limits.packet_bytes_max?;
        (bytes > limit).then_some(PublishError::TooLarge { bytes, limit })
    }
}

/// How far a publication has come on the present connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Unsent,
    Queued,
    Identified(u16),
}

/// At most [`WINDOW`] of them, and our birth message.
#[derive(Default)]
pub(super) struct Window(VecDeque<Pending>);

impl Window {
    /// Whether one more may wait.
    pub(super) fn has_room(&self) -> bool {
        self.0.len() < WINDOW
    }

    /// Takes one more, behind all others. Without a receipt nobody waits for it, and it ends with the connection.
    pub(super) fn push(
        &mut self,
        publication: Publication,
        options: PublishOptions,
        receipt: Option<ReceiptSender>,
    ) {
        self.0.push_back(Pending {
            publication,
            options,
            receipt,
            progress: Progress::Unsent,
        });
    }

    /// A connection begins: nothing has been sent on it.
    pub(super) fn on_connecting(&mut self) {
        for pending in &mut self.0 {
            pending.progress = Progress::Unsent;
        }
    }

    /// The connection may be used: what nobody waits for was for an earlier one, and our birth message goes before all others.
    pub(super) fn on_ready(&mut self, birth: Option<Publication>) {
        self.0.retain(|pending| pending.receipt.is_some());
        if let Some(publication) = birth {
            self.0.push_front(Pending {
                publication,
                options: PublishOptions::default(),
                receipt: None,
                progress: Progress::Unsent,
            });
        }
    }

    /// Sends what is unsent, in order, as far as the broker lets us; what an earlier connection left unacknowledged goes first.
    pub(super) fn send(&mut self, client: &AsyncClient, limits: &Limits) {
        let mut at = 0;
        while let Some(pending) = self.0.get_mut(at) {
            if at == limits.window {
                return;
            }
            if pending.progress == Progress::Unsent {
                if let Some(error) = pending.refusal(limits) {
                    let pending = self.0.remove(at);
                    if let Some(receipt) = pending.and_then(|pending| pending.receipt) {
                        let _ = receipt.send(Err(error));
                    }
                    continue;
                }
                if !send(client, &pending.publication, &pending.options) {
                    return;
                }
                pending.progress = Progress::Queued;
            }
            at += 1;
        }
    }

    /// rumqttc has given the next one its packet id. It sends in the order of its queue, so ids arrive in the window's order.
    pub(super) fn on_identified(&mut self, packet_id: u16) {
        if let Some(pending) = self
            .0
            .iter_mut()
            .find(|pending| pending.progress == Progress::Queued)
        {
            pending.progress = Progress::Identified(packet_id);
        }
    }

    /// The broker has taken or refused one.
    pub(super) fn on_acknowledged(&mut self, ack: &PubAck) {
        let at = self
            .0
            .iter()
            .position(|pending| pending.progress == Progress::Identified(ack.pkid));
        let pending = at.and_then(|at| self.0.remove(at));
        let result = match ack.reason {
            PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Ok(()),
            PubAckReason::NotAuthorized => Err(PublishError::Refused("not authorised")),
            PubAckReason::QuotaExceeded => Err(PublishError::Refused("quota exceeded")),
            PubAckReason::PayloadFormatInvalid => Err(PublishError::Refused("payload format")),
            PubAckReason::TopicNameInvalid => Err(PublishError::Refused("topic name")),
            _ => Err(PublishError::Refused("see the broker's log")),
        };
        let Some(pending) = pending else { return };
        match pending.receipt {
            Some(receipt) => {
                let _ = receipt.send(result);
            }
            None => {
                if let Err(error) = result {
                    tracing::warn!(topic = pending.publication.topic, %error, "message not taken, and nobody waits for it");
                }
            }
        }
    }
}

/// Queues a publication with rumqttc; false when its queue is full (it is tried again after the next event).
pub(super) fn send(
    client: &AsyncClient,
    publication: &Publication,
    options: &PublishOptions,
) -> bool {
    let left = options
        .expires
        .map(|expires| expires.saturating_duration_since(Instant::now()));
    let properties = PublishProperties {
        correlation_data: publication.correlation.clone().map(Into::into),
        // Rounded up: 0 would be "at once", and the broker counts whole seconds.
        message_expiry_interval: left
            .map(|left| u32::try_from(left.as_secs() + 1).unwrap_or(u32::MAX)),
        user_properties: options.properties.clone(),
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
