//! The owner of the sensors that broadcast: each becomes a Thing by its advertisements, and is never connected to.
//!
//! What a sensor has is known by what it has sent, so its description grows, and it is attached anew each time. A read is answered
//! by what it sent last. A sensor with a key is believed only by it, and only once: [`super::counter`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use autoglm_drivers::ble::address::parse_uuid;
use autoglm_drivers::ble::{Advertisement, DeviceAddress, RadioStatus};
use autoglm_drivers::port::{Answer, Command, PortError};
use autoglm_protocol::{Fault, FaultCode, Reply, Request, RequestFailure};
use serde_json::Value;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{StreamExt as _, StreamMap};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::super::roster::{Berth, Complaints};
use super::super::{Board, SourceStatus, until};
use super::counter::Counter;
use super::presence::Presence;
use super::{SOURCE, deafness, selects};
use crate::config::foreign::{Admission, BleConfig, SensorConfig};
use crate::store::{StoreError, StoreHandle};
use crate::things::binding::bthome::{BindKey, Heard, Receiver};
use crate::things::binding::{BindError, Described};
use crate::things::registry::Registry;
use crate::things::value;

/// BTHome's service.
const BTHOME: &str = "fcd2";
/// Sensors that nobody listed; further ones are left out, since an address costs nothing to make up.
const UNLISTED_MAX: usize = 64;

/// The owner task's state.
#[derive(Debug)]
pub(super) struct Owner {
    config: BleConfig,
    sensors: BTreeMap<DeviceAddress, Sensor>,
    commands: StreamMap<DeviceAddress, ReceiverStream<Command>>,
    registry: Registry,
    store: StoreHandle,
    board: Board,
    complaints: Complaints,
    is_deaf: bool,
}

#[derive(Debug)]
struct Sensor {
    config: SensorConfig,
    receiver: Receiver,
    name: Option<String>,
    presence: Presence,
    values: BTreeMap<String, Value>,
    /// Where it encrypts.
    counter: Option<Counter>,
    is_counter_known: bool,
    /// As it is described now; `None` until it was heard.
    berth: Option<Berth>,
    is_attached: bool,
}

impl Owner {
    pub(super) fn new(
        config: BleConfig,
        registry: Registry,
        store: StoreHandle,
        board: Board,
    ) -> Self {
        Self {
            config,
            sensors: BTreeMap::new(),
            commands: StreamMap::new(),
            registry,
            store,
            board,
            complaints: Complaints::default(),
            is_deaf: false,
        }
    }

    /// Owns the sensors until cancelled.
    #[tracing::instrument(name = "bthome", skip_all)]
    pub(super) async fn run(
        mut self,
        mut advertisements: broadcast::Receiver<Advertisement>,
        mut radio: watch::Receiver<RadioStatus>,
        mut forgotten: mpsc::Receiver<DeviceAddress>,
        cancel: CancellationToken,
    ) {
        for (address, config) in self.config.sensors.clone() {
            self.admit(address, config);
        }
        loop {
            let deafness = deafness(&self.config.adapter, &radio.borrow_and_update());
            if deafness.is_some() && !self.is_deaf {
                self.lose_all().await;
            }
            self.is_deaf = deafness.is_some();
            self.publish(deafness);
            let due = self.sensors.values().filter_map(Sensor::due).min();
            // Every branch is cancel-safe: receivers lose nothing when dropped.
            tokio::select! {
                () = cancel.cancelled() => return self.lose_all().await,
                heard = advertisements.recv() => match heard {
                    Ok(heard) => {
                        let is_ours = selects(&self.config.adapter, &heard.adapter, &radio.borrow());
                        if is_ours {
                            self.on_advertisement(heard).await;
                        }
                    }
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        tracing::debug!(missed, "advertisements missed; they come again");
                    }
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                changed = radio.changed() => if changed.is_err() { return },
                Some(sensor) = forgotten.recv() => self.on_forgotten(sensor).await,
                Some((sensor, command)) = self.commands.next(), if !self.commands.is_empty() => {
                    self.on_command(sensor, command);
                }
                () = until(due) => self.on_silence().await,
            }
        }
    }

    fn publish(&self, deafness: Option<&'static str>) {
        let status = SourceStatus {
            kind: "bthome",
            address: format!("ble://{}", self.config.adapter),
            state: if deafness.is_some() {
                "waiting"
            } else {
                "connected"
            },
            detail: deafness.unwrap_or_default().to_owned(),
            things: self.sensors.len(),
            online: self
                .sensors
                .values()
                .filter(|sensor| sensor.is_attached)
                .count(),
            errors: self.complaints.count(),
        };
        self.board.publish(SOURCE, status);
    }

    /// Makes room for a sensor. One whose key cannot be read is left out: it must not be believed without.
    fn admit(&mut self, address: DeviceAddress, config: SensorConfig) {
        let key = match config
            .key
            .as_ref()
            .map(|source| (source.load_text(), source))
        {
            None => None,
            Some((Ok(text), source)) => match BindKey::parse(&text) {
                Ok(key) => Some(key),
                Err(error) => {
                    tracing::error!(sensor = %address, key = %source, %error, "the sensor is left out");
                    return;
                }
            },
            Some((Err(error), _)) => {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(sensor = %address, %error, source, "the sensor is left out");
                return;
            }
        };
        let counter = key
            .is_some()
            .then(|| Counter::new(address, self.store.clone()));
        let sensor = Sensor {
            receiver: Receiver::new(address.into(), key),
            name: None,
            presence: Presence::default(),
            values: BTreeMap::new(),
            is_counter_known: counter.is_none(),
            counter,
            berth: None,
            is_attached: false,
            config,
        };
        self.sensors.insert(address, sensor);
    }

    async fn on_advertisement(&mut self, heard: Advertisement) {
        let Some(data) = heard.service_data.get(&service()) else {
            return;
        };
        let address = heard.device;
        if !self.sensors.contains_key(&address) {
            // One that is listed and not here was left out.
            let is_listed = self.config.sensors.contains_key(&address);
            if self.config.admission != Admission::All || is_listed {
                return;
            }
            let unlisted = self.sensors.len().saturating_sub(self.config.sensors.len());
            if unlisted >= UNLISTED_MAX {
                let most = format!("more than {UNLISTED_MAX} sensors that are not listed");
                return self.complaints.say("BTHome", &most);
            }
            self.admit(address, SensorConfig::default());
        }
        let Some(sensor) = self.sensors.get_mut(&address) else {
            return;
        };
        if let Err(error) = sensor.learn_counter().await {
            return self.complaints.say(&sensor.about(address), &error);
        }
        if heard.name.is_some() {
            sensor.name = heard.name;
        }
        let news = match sensor.receiver.handle_service_data(data) {
            Ok(news) => news,
            Err(error) => return self.complaints.say(&sensor.about(address), &error),
        };
        if let Some(object) = news.unknown_object {
            let what = format!(
                "an object 0x{object:02x} that is not known; what follows it cannot be read"
            );
            self.complaints.say(&sensor.about(address), &what);
        }
        // Heard again proves presence only of one that anybody could imitate anyhow.
        if news.is_repeated && sensor.counter.is_some() {
            return;
        }
        let now = Instant::now();
        sensor.presence.on_heard(now);
        if let Err(error) = sensor.keep_counter(now, !news.events.is_empty()).await {
            // An event that could be played back after a restart is not passed on.
            return self.complaints.say(&sensor.about(address), &error);
        }
        self.report(address, news).await;
    }

    async fn report(&mut self, address: DeviceAddress, news: Heard) {
        let Some(sensor) = self.sensors.get_mut(&address) else {
            return;
        };
        if news.is_described_anew || !sensor.is_attached {
            let berth = match sensor.describe(self.registry.clone()) {
                Ok(berth) => berth,
                Err(error) => return self.complaints.say(&sensor.about(address), &error),
            };
            if !sensor.is_attached {
                tracing::info!(sensor = %address, title = sensor.title(), "sensor there");
            }
            let commands = berth.attach().await;
            self.commands.insert(address, ReceiverStream::new(commands));
            sensor.is_attached = true;
            for (property, value) in &sensor.values {
                berth.report(property.clone(), value.clone()).await;
            }
            sensor.berth = Some(berth);
        }
        let Some(berth) = &sensor.berth else {
            return;
        };
        for (property, value) in news.values {
            sensor.values.insert(property.clone(), value.clone());
            berth.report(property, value).await;
        }
        for (name, data) in news.events {
            berth.event(name, data).await;
        }
    }

    fn on_command(&mut self, address: DeviceAddress, command: Command) {
        let Some(sensor) = self.sensors.get(&address) else {
            return;
        };
        let answer = sensor.answer(&command.request).map(|reply| Answer {
            reply,
            written_after: Duration::ZERO,
            answered_after: Duration::ZERO,
        });
        // Whoever asked may have given up waiting.
        let _ = command
            .reply
            .send(answer.map_err(|fault| PortError::Failed(RequestFailure::Fault(fault))));
    }

    async fn on_forgotten(&mut self, address: DeviceAddress) {
        let Some(sensor) = self.sensors.get_mut(&address) else {
            return;
        };
        if let Some(counter) = &mut sensor.counter {
            match counter.forget().await {
                Ok(()) => {
                    sensor.receiver.forget_counter();
                    sensor.is_counter_known = true;
                    tracing::info!(sensor = %address, "its counter may start over");
                }
                Err(error) => self.complaints.say(&sensor.about(address), &error),
            }
        }
    }

    /// Those that were silent for too long are away.
    async fn on_silence(&mut self) {
        let now = Instant::now();
        let silent: Vec<_> = self
            .sensors
            .iter()
            .filter(|(_, sensor)| sensor.due().is_some_and(|due| due <= now))
            .map(|(address, _)| *address)
            .collect();
        for address in silent {
            tracing::warn!(sensor = %address, "sensor away: nothing was heard of it for long");
            self.lose(address).await;
        }
    }

    async fn lose(&mut self, address: DeviceAddress) {
        self.commands.remove(&address);
        let Some(sensor) = self.sensors.get_mut(&address) else {
            return;
        };
        sensor.presence.on_away();
        // What it said before is no longer how things are.
        sensor.values.clear();
        if std::mem::take(&mut sensor.is_attached)
            && let Some(berth) = &sensor.berth
        {
            berth.detach().await;
        }
    }

    async fn lose_all(&mut self) {
        let all: Vec<_> = self.sensors.keys().copied().collect();
        for address in all {
            self.lose(address).await;
        }
    }
}

impl Sensor {
    fn due(&self) -> Option<Instant> {
        self.presence.due(self.receiver.is_triggered())
    }

    fn title(&self) -> Option<&str> {
        self.config.title.as_deref().or(self.name.as_deref())
    }

    fn about(&self, address: DeviceAddress) -> String {
        match self.title() {
            Some(title) => format!("{title} ({address})"),
            None => address.to_string(),
        }
    }

    fn describe(&self, registry: Registry) -> Result<Berth, BindError> {
        let document = self.receiver.description(self.title());
        Ok(Berth::new(
            SOURCE,
            Described::from_value(document)?,
            registry,
        ))
    }

    /// Where it left off before a restart. Until that is known nothing of it is believed: it might be a recording.
    async fn learn_counter(&mut self) -> Result<(), StoreError> {
        if let Some(counter) = self.counter.as_ref().filter(|_| !self.is_counter_known) {
            if let Some(last) = counter.load().await? {
                self.receiver.resume(last);
            }
            self.is_counter_known = true;
        }
        Ok(())
    }

    async fn keep_counter(&mut self, now: Instant, has_events: bool) -> Result<(), StoreError> {
        match (&mut self.counter, self.receiver.counter()) {
            (Some(kept), Some(counter)) if has_events || kept.is_due(now) => {
                kept.keep(now, counter).await
            }
            _ => Ok(()),
        }
    }

    /// It cannot be asked, only heard.
    fn answer(&self, request: &Request) -> Result<Reply, Fault> {
        let refuse = |code, words: &str| Err(Fault::new(code, words));
        match request {
            Request::Read { property } | Request::Observe { property } => {
                match self.values.get(property) {
                    Some(value) => Ok(Reply::Value(value::to_wire(value).unwrap_or_default())),
                    None => refuse(FaultCode::NotReady, "the sensor has not sent it yet"),
                }
            }
            Request::Write { .. } => refuse(
                FaultCode::ReadOnly,
                "a sensor that broadcasts takes nothing",
            ),
            Request::Invoke { action, .. } => refuse(FaultCode::UnknownAffordance, action),
            Request::Unobserve { .. } => Ok(Reply::Done(autoglm_protocol::Value::Null)),
            Request::Describe => refuse(
                FaultCode::Unsupported,
                "a foreign device does not describe itself",
            ),
        }
    }
}

fn service() -> Uuid {
    parse_uuid(BTHOME).expect("four hexadecimal digits are a UUID")
}
