//! How everything stands: one snapshot out of everybody's own, never asking an owner.

use std::collections::BTreeMap;
use std::sync::Arc;

use autoglm_drivers::mqtt::BrokerState;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::foreign::{SourceStatus, Sources};
use crate::inference::InferenceHandle;
use crate::inference::adapt::{Absent, Adaptation, Level};
use crate::inference::error::LoadError;
use crate::inference::examine::Examined;
use crate::inference::examine::known::Known;
use crate::inference::providers::outcome::Compiled;
use crate::inference::providers::{Candidate, Choice, Found, Measured, Tried, candidate};
use crate::inference::status::{ModelState, ModelStatus};
use crate::inference::upstream::{Dispatcher, UpstreamStatus};
use crate::link::board::{LinkSnapshot, Links};
use crate::store::outbox::{Lane, OutboxStats};
use crate::store::{Origin, StoreHandle, StoreHealth};
use crate::things::registry::{Presence, Registry};

/// Where the parts of the snapshot come from. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StatusSource {
    box_id: Arc<str>,
    store: StoreHandle,
    pub(crate) inference: InferenceHandle,
    pub(crate) links: Links,
    pub(crate) registry: Registry,
    pub(crate) understood: watch::Receiver<usize>,
    pub(crate) fleet: Option<FleetStatus>,
    foreign: Sources,
    pub(crate) dispatcher: Dispatcher,
}

/// How the fleet's side stands.
#[derive(Debug, Clone)]
pub struct FleetStatus {
    /// The broker's connection.
    pub broker: watch::Receiver<BrokerState>,
    /// What waits for it.
    pub outbox: watch::Receiver<OutboxStats>,
}

impl StatusSource {
    /// Collects the sources.
    #[must_use]
    #[expect(
        clippy::too_many_arguments,
        reason = "one call, and each is another owner's snapshot"
    )]
    pub fn new(
        box_id: &str,
        store: StoreHandle,
        inference: InferenceHandle,
        links: Links,
        registry: Registry,
        understood: watch::Receiver<usize>,
        fleet: Option<FleetStatus>,
        foreign: Sources,
        dispatcher: Dispatcher,
    ) -> Self {
        Self {
            box_id: box_id.into(),
            store,
            inference,
            links,
            registry,
            understood,
            fleet,
            foreign,
            dispatcher,
        }
    }

    /// The box's name.
    #[must_use]
    pub fn box_id(&self) -> &str {
        &self.box_id
    }

    /// Whether the store takes records.
    #[must_use]
    pub fn is_store_ready(&self) -> bool {
        matches!(self.store.health(), StoreHealth::Ready { .. })
    }

    /// How hard the box has it, and why it came to that.
    #[must_use]
    pub fn strain(&self) -> (Level, String) {
        let adaptation = self.inference.adaptation();
        let adaptation = adaptation.borrow();
        (adaptation.level, adaptation.reason.clone())
    }

    /// Everything, as one JSON object.
    #[must_use]
    pub fn snapshot(&self) -> Value {
        let inference = self.inference.status().borrow().clone();
        let models: Vec<Value> = inference.models.iter().map(self::model).collect();
        let links: BTreeMap<String, Value> = self
            .links
            .borrow()
            .values()
            .map(|link| (link.id.0.clone(), self::link(link)))
            .collect();
        let things = self.registry.things();
        let online = things
            .values()
            .filter(|thing| matches!(thing.presence, Presence::Online { .. }))
            .count();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "box": *self.box_id,
            "store": store(&self.store.health()),
            "runtime": inference.runtime.to_string(),
            "models": models,
            "providers": inference.providers.iter().flat_map(self::providers).collect::<Vec<Value>>(),
            "fallbacks": inference.fallbacks,
            "adapt": adaptation(&self.inference.adaptation().borrow()),
            "model_dirs": self.inference.model_dirs(),
            "upstreams": self.dispatcher.status().iter().map(upstream).collect::<Vec<Value>>(),
            "links": links,
            "things": {"known": things.len(), "online": online, "understood": *self.understood.borrow()},
            "fleet": self.fleet.as_ref().map_or_else(|| json!({"state": "off"}), fleet),
            "foreign": self.foreign(),
        })
    }

    /// Buses and brokers of foreign devices, by name.
    fn foreign(&self) -> BTreeMap<String, Value> {
        let sources = self.foreign.borrow();
        let source = |(name, source): (&String, &SourceStatus)| {
            let told = json!({"kind": source.kind, "address": source.address, "state": source.state, "detail": source.detail,
                "things": source.things, "online": source.online, "errors": source.errors});
            (name.clone(), told)
        };
        sources.iter().map(source).collect()
    }

    /// One line for systemd, with what is missing.
    #[must_use]
    pub fn line(&self) -> String {
        let inference = self.inference.status();
        let inference = inference.borrow();
        let ready = inference
            .models
            .iter()
            .filter(|model| model.state.is_ready())
            .count();
        let things = self.registry.things();
        let online = things
            .values()
            .filter(|thing| matches!(thing.presence, Presence::Online { .. }))
            .count();
        let mut line = format!(
            "{online} of {} things online, {ready} of {} models ready",
            things.len(),
            inference.models.len()
        );
        if let StoreHealth::Unavailable { cause } = self.store.health() {
            line.push_str(&format!("; store unavailable: {cause}"));
        }
        if let Some(BrokerState::Waiting { cause, .. }) = self
            .fleet
            .as_ref()
            .map(|fleet| fleet.broker.borrow().clone())
        {
            line.push_str(&format!("; broker away: {cause}"));
        }
        line
    }
}

/// The state's name on the bus.
#[must_use]
pub fn model_state(state: &ModelState) -> &'static str {
    match state {
        ModelState::Missing { .. } => "missing",
        ModelState::Loading { .. } => "loading",
        ModelState::Reloading { .. } => "reloading",
        ModelState::Unloaded { .. } => "unloaded",
        ModelState::Ready { .. } => "ready",
        ModelState::Disabled { .. } => "disabled",
        ModelState::Stopped => "stopped",
    }
}

fn model(model: &ModelStatus) -> Value {
    let mut told = json!({"name": *model.name, "task": model.task.to_string(), "state": model_state(&model.state), "detail": model.state.to_string()});
    let refused = match &model.state {
        ModelState::Ready {
            choice, running, ..
        } => {
            told["provider"] = json!(candidate::short(&choice.placement.candidate.provider));
            told["device"] = json!(choice.placement.candidate.kind.as_str());
            told["is_fallback"] = json!(choice.is_fallback());
            told["threads"] = json!(running.threads);
            told["bundle"] = json!(*running.bundle);
            if let Some(measured) = &choice.measured {
                told["measured"] = self::measured(measured);
            }
            choice.refused.as_slice()
        }
        ModelState::Disabled { error } => match error.as_ref() {
            LoadError::NoProvider { tried, .. } => tried.as_slice(),
            _ => &[],
        },
        _ => &[],
    };
    told["refused"] = refused.iter().map(tried).collect();
    told
}

/// How the box stands, and what is done about it.
fn adaptation(told: &Adaptation) -> Value {
    let absent = |one: &Absent| json!({"what": one.what, "why": one.why});
    json!({
        "enabled": told.is_on,
        "level": told.level.name(),
        "reason": told.reason,
        "since_s": told.since.elapsed().as_secs(),
        "changes": told.changes,
        "inputs": told.inputs,
        "absent": told.absent.iter().map(absent).collect::<Vec<Value>>(),
        "threads_asked": told.threads_asked,
        "threads_lent": told.threads_lent,
        "chat_threads": told.wish.threads,
        "chat_instead": told.wish.instead.as_deref(),
        "background_rests": told.background_rests,
    })
}

/// Where a proof that was asked for would have the model run.
#[must_use]
pub fn choice(choice: &Choice) -> Value {
    let mut told = json!({
        "provider": candidate::short(&choice.placement.candidate.provider),
        "device": choice.placement.candidate.kind.as_str(),
        "is_fallback": choice.is_fallback(),
        "refused": choice.refused.iter().map(tried).collect::<Vec<Value>>(),
    });
    if let Some(measured) = &choice.measured {
        told["measured"] = self::measured(measured);
    }
    told
}

/// A bundle on disk, used or not.
#[must_use]
pub fn bundle(bundle: &Known) -> Value {
    let mut told = json!({"name": bundle.name, "dir": bundle.dir, "title": bundle.title, "licence": bundle.licence, "bytes": bundle.bytes});
    if let Some(task) = bundle.task {
        told["task"] = json!(task.as_str());
    }
    if let Some(problem) = &bundle.problem {
        told["problem"] = json!(problem);
    }
    told
}

/// What was found out about a bundle.
#[must_use]
pub fn examined(examined: &Examined) -> Value {
    serde_json::to_value(examined)
        .unwrap_or_else(|error| json!({"name": examined.name, "problem": error.to_string()}))
}

fn tried(tried: &Tried) -> Value {
    let mut told = json!({"who": tried.who, "provider": candidate::short(&tried.provider), "device": tried.device,
        "verdict": tried.verdict.name(), "detail": tried.verdict.to_string(), "is_remembered": tried.is_remembered});
    if let Some(measured) = &tried.measured {
        told["measured"] = self::measured(measured);
    }
    told
}

fn measured(measured: &Measured) -> Value {
    json!({
        "nodes_placed": measured.nodes_placed,
        "nodes_left": measured.nodes_left,
        "nodes_moved": measured.moved(),
        "difference": measured.difference.scaled,
        "output": measured.difference.output,
        "cpu_us": measured.cpu_us,
        "provider_us": measured.provider_us,
        "time_ratio": measured.time_ratio(),
        "open_ms": measured.open_ms,
        "compiled": match &measured.compiled {
            Compiled::None => "none".to_owned(),
            Compiled::Kept { bytes, open_ms } => format!("kept, {bytes} bytes, opened in {open_ms} ms"),
            Compiled::ByProvider { bytes } => format!("kept by the provider, {bytes} bytes"),
            Compiled::Unusable { message } => format!("not kept: {message}"),
        },
    })
}

/// An engine elsewhere.
fn upstream(upstream: &UpstreamStatus) -> Value {
    let mut told = json!({"bundle": *upstream.bundle, "policy": upstream.policy, "protocol": upstream.protocol, "url": *upstream.url,
        "model": *upstream.model, "breaker": upstream.breaker, "asked": upstream.asked, "answered": upstream.answered,
        "failed": upstream.failed, "withdrawn": upstream.withdrawn});
    if let Some(rest) = upstream.rest {
        told["rest_ms"] = json!(u64::try_from(rest.as_millis()).unwrap_or(u64::MAX));
    }
    if let Some(cause) = &upstream.cause {
        told["cause"] = json!(cause);
    }
    told
}

/// What one library offers, a line for each device, or why it offers nothing.
fn providers(found: &Found) -> Vec<Value> {
    let library = match &found.library {
        Some(path) => path.display().to_string(),
        None => "built in".to_owned(),
    };
    let device = |candidate: &Candidate| {
        json!({"library": library, "provider": candidate::short(&candidate.provider),
        "device": candidate.kind.as_str(), "vendor": candidate.vendor, "vendor_id": candidate.vendor_id,
        "device_id": candidate.device_id, "facts": candidate.facts})
    };
    match &found.problem {
        Some(problem) => vec![json!({"library": library, "problem": problem})],
        None => found.candidates.iter().map(device).collect(),
    }
}

fn link(link: &LinkSnapshot) -> Value {
    let mut told = json!({
        "device": link.device,
        "address": link.address.to_string(),
        "state": link.state.name(),
        "detail": link.state.cause().unwrap_or_default(),
        "security": link.privacy.name(),
        "bytes_sent": link.quality.bytes_sent,
        "bytes_received": link.quality.bytes_received,
    });
    // What is not known yet is left out.
    if let Some(rtt) = link.quality.rtt {
        told["rtt_us"] = json!(u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX));
    }
    if let Some(loss) = link.quality.loss {
        told["loss"] = json!(loss);
    }
    told
}

fn store(health: &StoreHealth) -> Value {
    match health {
        StoreHealth::Ready { origin } => json!({"state": "ready", "detail": self::origin(origin)}),
        StoreHealth::Unavailable { cause } => json!({"state": "unavailable", "detail": cause}),
    }
}

fn fleet(fleet: &FleetStatus) -> Value {
    let mut value = broker(&fleet.broker.borrow());
    let stats = *fleet.outbox.borrow();
    let lanes: serde_json::Map<String, Value> = Lane::ALL
        .into_iter()
        .zip(stats)
        .map(|(lane, stats)| {
            let counts = json!({
                "waiting": stats.waiting, "bytes": stats.bytes, "delivered": stats.delivered, "coalesced": stats.coalesced,
                "expired": stats.expired, "dropped": stats.dropped, "refused": stats.refused, "undeliverable": stats.undeliverable,
            });
            (lane.name().to_owned(), counts)
        })
        .collect();
    if let Some(members) = value.as_object_mut() {
        members.insert("outbox".to_owned(), Value::Object(lanes));
    }
    value
}

fn broker(state: &BrokerState) -> Value {
    match state {
        BrokerState::Starting => json!({"state": "starting"}),
        BrokerState::Connected => json!({"state": "connected"}),
        BrokerState::Waiting { attempt, cause } => {
            json!({"state": "waiting", "attempt": attempt, "detail": cause})
        }
    }
}

fn origin(origin: &Origin) -> String {
    match origin {
        Origin::Created => "created".to_owned(),
        Origin::Opened => "opened".to_owned(),
        Origin::Rebuilt {
            set_aside,
            cause,
            restored,
        } => {
            let kept = set_aside.as_ref().map_or_else(String::new, |path| {
                format!("; the old one is kept in {}", path.display())
            });
            let records = restored.map_or_else(
                || "nothing".to_owned(),
                |report| format!("{} records", report.records),
            );
            format!("rebuilt from an export with {records}, because {cause}{kept}")
        }
    }
}
