//! What Prometheus is told: every number of the status that grows, shrinks or says that something is well.
//!
//! Names follow Prometheus' rules: base units, `_total` for what only grows (the encoder adds it), a label instead of a name for each case. A
//! family with a label for a state has the value 1 for the state that is. Counters begin at 0 with each start of the daemon.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

use crate::{
    inference::{
        error::LoadError,
        providers::candidate,
        status::{ModelState, ModelStatus},
    },
    link::state::LinkState,
    status::{FleetStatus, StatusSource, model_state},
    store::outbox::Lane,
    things::registry::Presence,
};

/// Reads the snapshots when it is asked.
#[derive(Debug)]
pub(super) struct Snapshots(pub(super) StatusSource);

impl Collector for Snapshots {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for family in families(&self.0) {
            family.encode(&mut encoder)?;
        }
        Ok(())
    }
}

type Labels = Vec<(&'static str, String)>;

struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    samples: Vec<(Labels, f64)>,
}

impl Family {
    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        if self.samples.is_empty() {
            return Ok(());
        }
        let mut family = encoder.encode_descriptor(self.name, self.help, None, self.kind)?;
        if let [(labels, value)] = self.samples.as_slice()
            && labels.is_empty()
        {
            return self.encode_value(*value, family);
        }
        for (labels, value) in &self.samples {
            self.encode_value(*value, family.encode_family(labels)?)?;
        }
        Ok(())
    }

    fn encode_value(
        &self,
        value: f64,
        encoder: prometheus_client::encoding::MetricEncoder<'_>,
    ) -> Result<(), fmt::Error> {
        match self.kind {
            MetricType::Counter => ConstCounter::new(value).encode(encoder),
            _ => ConstGauge::new(value).encode(encoder),
        }
    }
}

fn gauge(name: &'static str, help: &'static str, samples: Vec<(Labels, f64)>) -> Family {
    Family {
        name,
        help,
        kind: MetricType::Gauge,
        samples,
    }
}

fn counter(name: &'static str, help: &'static str, samples: Vec<(Labels, f64)>) -> Family {
    Family {
        kind: MetricType::Counter,
        ..gauge(name, help, samples)
    }
}

/// A sample for each case of what has these labels.
fn cases<const N: usize>(
    of: &Labels,
    label: &'static str,
    cases: [(&str, u64); N],
) -> [(Labels, f64); N] {
    cases.map(|(case, count)| {
        let labels = [of.as_slice(), &[(label, case.to_owned())]].concat();
        (labels, count as f64)
    })
}

fn truth(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

fn families(status: &StatusSource) -> Vec<Family> {
    let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
    let mut all = vec![
        gauge("build", "The daemon's version.", vec![(version, 1.0)]),
        gauge(
            "store_ready",
            "Whether the store takes records.",
            vec![(Vec::new(), truth(status.is_store_ready()))],
        ),
    ];
    all.extend(models(status));
    all.extend(chat(status));
    all.extend(links(status));
    all.push(things(status));
    all.extend(status.fleet.iter().flat_map(fleet));
    all
}

fn models(status: &StatusSource) -> Vec<Family> {
    let inference = status.inference.status().borrow().clone();
    let named = |model: &ModelStatus| {
        vec![
            ("model", model.name.to_string()),
            ("task", model.task.to_string()),
        ]
    };
    let with = |model: &ModelStatus, more: Labels| [named(model), more].concat();
    let (mut states, mut serving, mut load, mut threads) = (vec![], vec![], vec![], vec![]);
    let (mut nodes, mut ratio, mut refused) = (vec![], vec![], vec![]);
    for model in &inference.models {
        let state = vec![("state", model_state(&model.state).to_owned())];
        states.push((with(model, state), 1.0));
        let tried = match &model.state {
            ModelState::Ready {
                load_time,
                choice,
                running,
                ..
            } => {
                let candidate = &choice.placement.candidate;
                let where_it_runs = vec![
                    ("bundle", running.bundle.to_string()),
                    ("provider", candidate::short(&candidate.provider).to_owned()),
                    ("device", candidate.kind.as_str().to_owned()),
                    ("fallback", choice.is_fallback().to_string()),
                ];
                serving.push((with(model, where_it_runs), 1.0));
                load.push((named(model), load_time.as_secs_f64()));
                threads.push((named(model), running.threads.get() as f64));
                if let Some(measured) = &choice.measured {
                    let (placed, left) = (measured.nodes_placed, measured.nodes_left);
                    let on = [("provider", placed.into()), ("cpu", left.into())];
                    nodes.extend(cases(&named(model), "on", on));
                    ratio.push((named(model), measured.time_ratio()));
                }
                choice.refused.as_slice()
            }
            ModelState::Disabled { error } => match error.as_ref() {
                LoadError::NoProvider { tried, .. } => tried.as_slice(),
                _ => &[],
            },
            _ => &[],
        };
        refused.extend(tried.iter().map(|tried| {
            let who = vec![
                ("provider", tried.who.clone()),
                ("verdict", tried.verdict.name().to_owned()),
            ];
            (with(model, who), 1.0)
        }));
    }
    vec![
        gauge("model_state", "The state that a model is in.", states),
        gauge(
            "model_serving",
            "Which bundle serves, and on what.",
            serving,
        ),
        gauge("model_load_seconds", "How long loading took.", load),
        gauge("model_threads", "Threads inside an operator.", threads),
        gauge(
            "model_nodes",
            "Nodes of the graph that the provider and the CPU beside it ran in the proof.",
            nodes,
        ),
        gauge(
            "model_provider_time_ratio",
            "The probe's time on the provider, as a part of that on the CPU.",
            ratio,
        ),
        gauge(
            "model_provider_refused",
            "Who was wanted for a model and is no good.",
            refused,
        ),
        counter(
            "provider_fallbacks",
            "Times that a model came to run on the CPU although another provider was wanted.",
            vec![(Vec::new(), inference.fallbacks as f64)],
        ),
    ]
}

fn chat(status: &StatusSource) -> Vec<Family> {
    let counted = status.inference.chat().counters();
    let answers = [
        ("answered", counted.answered),
        ("cancelled", counted.cancelled),
        ("failed", counted.failed),
        ("refused", counted.refused),
    ];
    let tokens = [
        ("prompt", counted.prompt_tokens),
        ("drawn", counted.drawn_tokens),
        ("guessed", counted.drafted_tokens),
        ("guessed_right", counted.taken_tokens),
    ];
    let upstream = status.dispatcher.status();
    let asked = upstream.iter().flat_map(|engine| {
        let bundle = vec![("bundle", engine.bundle.to_string())];
        let outcomes = [
            ("answered", engine.answered),
            ("failed", engine.failed),
            ("withdrawn", engine.withdrawn),
        ];
        cases(&bundle, "outcome", outcomes)
    });
    let (level, _) = status.strain();
    vec![
        counter(
            "chat_answers",
            "Requests to the chat model.",
            cases(&Labels::new(), "outcome", answers).into(),
        ),
        counter(
            "chat_tokens",
            "Tokens that were computed.",
            cases(&Labels::new(), "kind", tokens).into(),
        ),
        counter(
            "chat_parked",
            "Times that an answer made room for a more urgent one.",
            vec![(Vec::new(), counted.parked as f64)],
        ),
        counter(
            "upstream_answers",
            "Conversations that an engine elsewhere was asked for.",
            asked.collect(),
        ),
        gauge(
            "strain",
            "How hard the box has it.",
            vec![(vec![("level", level.name().to_owned())], 1.0)],
        ),
    ]
}

fn links(status: &StatusSource) -> Vec<Family> {
    let (mut connected, mut bytes, mut rtt, mut loss) = (vec![], vec![], vec![], vec![]);
    for link in status.links.borrow().values() {
        let named = vec![("link", link.id.0.clone()), ("device", link.device.clone())];
        let is_connected = matches!(link.state, LinkState::Connected { .. });
        connected.push((named.clone(), truth(is_connected)));
        let (sent, received) = (link.quality.bytes_sent, link.quality.bytes_received);
        let ways = [("sent", sent), ("received", received)];
        bytes.extend(cases(&named, "direction", ways));
        rtt.extend(
            link.quality
                .rtt
                .map(|rtt| (named.clone(), rtt.as_secs_f64())),
        );
        loss.extend(link.quality.loss.map(|loss| (named.clone(), loss)));
    }
    vec![
        gauge("link_connected", "Whether a link is connected.", connected),
        counter("link_bytes", "Bytes over a link.", bytes),
        gauge("link_rtt_seconds", "The smoothed round-trip time.", rtt),
        gauge(
            "link_repeated_ratio",
            "The share of packets that had to be sent again.",
            loss,
        ),
    ]
}

fn things(status: &StatusSource) -> Family {
    let things = status.registry.things();
    let is_online = |presence: &Presence| matches!(presence, Presence::Online { .. });
    let online = things
        .values()
        .filter(|thing| is_online(&thing.presence))
        .count();
    let of = |state: &str, count: usize| (vec![("state", state.to_owned())], count as f64);
    gauge(
        "things",
        "Things that are known, and of them those that can be reached now and those whose commands are understood.",
        vec![
            of("known", things.len()),
            of("online", online),
            of("understood", *status.understood.borrow()),
        ],
    )
}

fn fleet(fleet: &FleetStatus) -> Vec<Family> {
    use autoglm_drivers::mqtt::BrokerState;
    let is_connected = matches!(*fleet.broker.borrow(), BrokerState::Connected);
    let (mut waiting, mut done) = (vec![], vec![]);
    for (lane, stats) in Lane::ALL.into_iter().zip(*fleet.outbox.borrow()) {
        let named = vec![("lane", lane.name().to_owned())];
        waiting.push((named.clone(), stats.waiting as f64));
        let outcomes = [
            ("delivered", stats.delivered),
            ("coalesced", stats.coalesced),
            ("expired", stats.expired),
            ("dropped", stats.dropped),
            ("refused", stats.refused),
            ("undeliverable", stats.undeliverable),
        ];
        done.extend(cases(&named, "outcome", outcomes));
    }
    vec![
        gauge(
            "fleet_connected",
            "Whether the fleet's broker is connected.",
            vec![(Vec::new(), truth(is_connected))],
        ),
        gauge(
            "outbox_waiting",
            "Messages that wait for the broker.",
            waiting,
        ),
        counter("outbox_messages", "What became of messages.", done),
    ]
}
