//! Tells the fleet what Things report: takes reports from the registry and puts them into the outbox.
//!
//! The registry waits for this task, and so do the devices: it waits for nothing but the disk. What finds no room or no store is
//! refused and counted, never waited for. When the broker has lost what it kept of us (a session that begins anew), all
//! values are put again.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::topic::Topics;
use crate::config::{OutboxConfig, Telemetry};
use crate::store::outbox::{Lane, Message, Outbox, OutboxError, PUT_MAX};
use crate::things::registry::{Presence, Registry, Report};

/// Reports waiting for the next commit. Full: the registry waits, and so the devices.
pub const REPORTS: usize = 128;

/// The reporter, not yet running.
#[derive(Debug)]
pub struct Reporter {
    topics: Topics,
    config: OutboxConfig,
    outbox: Outbox,
    reports: mpsc::Receiver<Report>,
    registry: Registry,
    fresh_sessions: watch::Receiver<u64>,
}

impl Reporter {
    pub(super) fn new(
        topics: Topics,
        config: OutboxConfig,
        outbox: Outbox,
        reports: mpsc::Receiver<Report>,
        registry: Registry,
        fresh_sessions: watch::Receiver<u64>,
    ) -> Self {
        Self {
            topics,
            config,
            outbox,
            reports,
            registry,
            fresh_sessions,
        }
    }

    /// Reports until cancelled; what the registry had handed over by then is still put.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut reports = Vec::with_capacity(PUT_MAX);
        loop {
            tokio::select! {
                biased;
                count = self.reports.recv_many(&mut reports, PUT_MAX) => {
                    if count == 0 {
                        return;
                    }
                }
                () = cancel.cancelled() => {
                    self.reports.close();
                    continue;
                }
                Ok(()) = self.fresh_sessions.changed() => reports = self.everything(),
            }
            // Not awaited beside anything else: dropped half way, a put would leave its places unknown.
            let messages: Vec<Message> = reports
                .drain(..)
                .filter_map(|report| self.message(report))
                .collect();
            for some in messages.chunks(PUT_MAX) {
                self.put(some).await;
            }
        }
    }

    async fn put(&self, messages: &[Message]) {
        match self.outbox.put(messages).await {
            Ok(taken) if taken.refused > 0 => {
                tracing::warn!(
                    count = taken.refused,
                    "the outbox is full; reports are refused"
                );
            }
            Ok(_) => {}
            Err(OutboxError::TooLarge { .. }) if messages.len() > 1 => {
                // One of them is too large: the others must not suffer for it.
                for message in messages {
                    Box::pin(self.put(std::slice::from_ref(message))).await;
                }
            }
            Err(error) => {
                for message in messages {
                    self.outbox.count_refused(message.lane, 1);
                }
                tracing::warn!(count = messages.len(), %error, "reports to the fleet are lost");
            }
        }
    }

    /// All that is known of all Things, for a broker that knows nothing of it.
    fn everything(&self) -> Vec<Report> {
        let things = self.registry.things();
        let mut reports = Vec::new();
        for (id, thing) in things.iter() {
            reports.push(Report::Presence {
                thing: id.clone(),
                title: thing.description.title.clone(),
                is_online: matches!(thing.presence, Presence::Online { .. }),
            });
            reports.extend(thing.values.iter().map(|(property, value)| Report::Value {
                thing: id.clone(),
                property: property.clone(),
                value: value.clone(),
            }));
        }
        reports
    }

    fn message(&self, report: Report) -> Option<Message> {
        let id = uuid::Uuid::now_v7().to_string();
        let at = jiff::Timestamp::now().to_string();
        let (lane, topic, payload) = match report {
            Report::Event(event) => {
                let topic = self.topics.event(event.thing.as_str(), &event.name);
                let payload = json!({"id": id, "at": at, "thing": event.thing.as_str(), "event": event.name, "data": event.data});
                (Lane::Events, topic, payload)
            }
            Report::Value { .. } | Report::Presence { .. }
                if self.config.telemetry == Telemetry::Off =>
            {
                return None;
            }
            Report::Value {
                thing,
                property,
                value,
            } => {
                let topic = self.topics.property(thing.as_str(), &property);
                let payload = json!({"id": id, "at": at, "thing": thing.as_str(), "property": property, "value": value});
                (Lane::Telemetry, topic, payload)
            }
            Report::Presence {
                thing,
                title,
                is_online,
            } => {
                let topic = self.topics.thing(thing.as_str());
                let state = if is_online { "online" } else { "offline" };
                let payload = json!({"id": id, "at": at, "thing": thing.as_str(), "title": title, "state": state});
                (Lane::Telemetry, topic, payload)
            }
        };
        Some(self.addressed(lane, id, topic, payload))
    }

    fn addressed(&self, lane: Lane, id: String, topic: String, payload: Value) -> Message {
        let is_state = lane == Lane::Telemetry;
        let is_latest_only = is_state && self.config.telemetry == Telemetry::Latest;
        Message {
            lane,
            id,
            topic,
            payload,
            // State is kept by the broker for whoever comes later; an event is not told twice.
            retain: is_state,
            correlation: None,
            lifetime: lifetime(lane, is_latest_only, &self.config),
            is_latest_only,
        }
    }
}

/// How long a message is worth something. The latest value is true until the next one, so it has no end.
fn lifetime(lane: Lane, is_latest_only: bool, config: &OutboxConfig) -> Option<Duration> {
    match lane {
        _ if is_latest_only => None,
        Lane::Results => Some(config.results.lifetime),
        Lane::Events => Some(config.events.lifetime),
        Lane::Telemetry => Some(config.telemetry_class.lifetime),
    }
}
