//! The owner of one device whose characteristics a description names: connected while it is there, tried again when it is heard.
//!
//! A device is held connected, since that is how it reports. Requests come before polls, one at a time ([`super::exchange`]).
//! Notifications may be lost or come out of order (BlueZ's default of three EATT channels), and nothing in them says so: what a
//! property is in doubt of is read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use autoglm_drivers::backoff::Backoff;
use autoglm_drivers::ble::{BleAddress, BleError, GattClient, Radio};
use autoglm_drivers::port::{Answer, Command, PortError};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{StreamExt as _, StreamMap};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::super::roster::{Berth, Complaints};
use super::super::{Board, SourceStatus, until};
use super::exchange::{Failed, Refusal, carry_out};
use super::{Around, SOURCE};
use crate::things::binding::gatt::{Characteristic, GattThing};

/// How a device is tried again that does not announce itself, or could not be connected: each try takes the radio from the others.
const AGAIN: Backoff = Backoff {
    min: Duration::from_secs(2),
    max: Duration::from_secs(120),
    healthy_after: Duration::from_secs(30),
};

/// A characteristic by its UUIDs: service, then its own.
type Place = (Uuid, Uuid);
type Notifications = StreamMap<Place, ReceiverStream<std::io::Result<Vec<u8>>>>;

/// The owner task's state.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) thing: GattThing,
    address: BleAddress,
    radio: Radio,
    pub(super) berth: Berth,
    board: Board,
    complaints: Complaints,
    /// What was last reported of each property.
    pub(super) values: BTreeMap<String, Value>,
}

impl Owner {
    pub(super) fn new(thing: GattThing, address: BleAddress, around: &Around<'_>) -> Self {
        let berth = Berth::new(SOURCE, thing.described.clone(), around.registry.clone());
        Self {
            thing,
            address,
            radio: around.radio.clone(),
            berth,
            board: around.board.clone(),
            complaints: Complaints::default(),
            values: BTreeMap::new(),
        }
    }

    /// Owns the device until cancelled.
    #[tracing::instrument(name = "gatt", skip_all, fields(device = %self.address.target))]
    pub(super) async fn run(mut self, cancel: CancellationToken) {
        self.berth.introduce().await;
        self.publish("starting", String::new());
        let wanted: Arc<[Place]> = self
            .thing
            .characteristics()
            .into_iter()
            .map(|(service, own)| (Uuid::from_u128(service), Uuid::from_u128(own)))
            .collect();
        // Kept: as long as it is, the adapters listen for the device.
        let appears = self.radio.announcements(&self.address);
        let (mut attempt, mut known) = (0, String::new());
        while !cancel.is_cancelled() {
            let began = Instant::now();
            let connecting = self.radio.connect(&self.address, Arc::clone(&wanted));
            let cause = match cancel.run_until_cancelled(connecting).await {
                None => return,
                Some(Err(error)) => describe(&error),
                Some(Ok(client)) => {
                    known.clear();
                    let served = cancel.run_until_cancelled(self.serve(&client)).await;
                    self.values.clear();
                    self.berth.detach().await;
                    match served {
                        None => return,
                        Some(cause) => cause,
                    }
                }
            };
            attempt = AGAIN.attempt_after(attempt, began.elapsed());
            let rest = AGAIN.delay(attempt.saturating_sub(1), rand::random());
            if known != cause {
                tracing::warn!(%cause, "device away; it is connected when it is heard");
                known.clone_from(&cause);
            }
            self.publish("waiting", cause);
            tokio::select! {
                () = cancel.cancelled() => return,
                () = appears.notified() => {}
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    fn publish(&self, state: &'static str, detail: String) {
        let status = SourceStatus {
            kind: "gatt",
            address: self.address.to_string(),
            state,
            detail,
            things: 1,
            online: usize::from(state == "connected"),
            errors: self.complaints.count(),
        };
        let name = format!("{SOURCE}/{}", self.address.target);
        self.board.publish(&name, status);
    }

    /// Serves until the device is lost; says why.
    async fn serve(&mut self, client: &GattClient) -> String {
        let mut notifications = match self.subscribe(client).await {
            Ok(notifications) => notifications,
            Err(error) => return describe(&error),
        };
        let mut commands = self.berth.attach().await;
        tracing::info!(thing = %self.thing.described.description.id, "device there");
        let readable = |(name, property): (&String, &_)| {
            let _: &crate::things::binding::gatt::PropertyBinding = property;
            property.read.as_ref().map(|_| name.clone())
        };
        let names: Vec<String> = self.thing.properties.iter().filter_map(readable).collect();
        // All once, so that everybody knows how things stand; later those that are to be polled.
        let now = Instant::now();
        let mut due: BTreeMap<String, Instant> =
            names.into_iter().map(|name| (name, now)).collect();
        loop {
            self.publish("connected", String::new());
            let next = due.iter().map(|(name, at)| (*at, name.clone())).min();
            tokio::select! {
                biased;
                () = client.lost() => return "it is out of reach, or disconnected".to_owned(),
                command = commands.recv() => match command {
                    Some(command) => if let Some(cause) = self.on_command(client, command).await {
                        return cause;
                    },
                    None => return "its place in the registry is gone".to_owned(),
                },
                Some((place, notified)) = notifications.next(), if !notifications.is_empty() => {
                    if let Ok(bytes) = notified {
                        self.on_notification(place, &bytes).await;
                    }
                }
                () = until(next.as_ref().map(|(at, _)| *at)) => if let Some((_, name)) = next {
                    if let Err(error) = self.read(client, &name).await {
                        self.complaints.say(&self.about(&name), &error);
                        if error.is_end() {
                            return error.to_string();
                        }
                    }
                    match self.thing.properties.get(&name).and_then(|property| property.poll) {
                        Some(poll) => due.insert(name, Instant::now() + poll),
                        None => due.remove(&name),
                    };
                }
            }
        }
    }

    fn about(&self, name: &str) -> String {
        format!("{}: {name}", self.thing.described.description.title)
    }

    async fn subscribe(&self, client: &GattClient) -> Result<Notifications, BleError> {
        let reports = self.thing.properties.values();
        let reports = reports.filter_map(|property| property.notify.as_ref());
        let places: BTreeSet<Place> = reports
            .chain(self.thing.events.values())
            .map(place)
            .collect();
        let mut all = StreamMap::new();
        for (service, own) in places {
            let notifications: mpsc::Receiver<_> = client.notifications(service, own).await?;
            all.insert((service, own), ReceiverStream::new(notifications));
        }
        Ok(all)
    }

    async fn on_notification(&mut self, from: Place, bytes: &[u8]) {
        let is_meant = |characteristic: &Characteristic| place(characteristic) == from;
        let (mut reports, mut events) = (Vec::new(), Vec::new());
        for (name, property) in &self.thing.properties {
            if let Some(notify) = property.notify.as_ref().filter(|notify| is_meant(notify)) {
                reports.push((name.clone(), notify.decode(bytes)));
            }
        }
        for (name, event) in &self.thing.events {
            if is_meant(event) {
                events.push((name.clone(), event.decode(bytes)));
            }
        }
        for (name, value) in reports {
            match value {
                Ok(value) => self.report(name, value).await,
                Err(error) => self.complaints.say(&self.about(&name), &error),
            }
        }
        for (name, data) in events {
            match data {
                Ok(data) => self.berth.event(name, data).await,
                Err(error) => self.complaints.say(&self.about(&name), &error),
            }
        }
    }

    pub(super) async fn report(&mut self, name: String, value: Value) {
        self.values.insert(name.clone(), value.clone());
        self.berth.report(name, value).await;
    }

    /// Reads a property and reports it.
    pub(super) async fn read(&mut self, client: &GattClient, name: &str) -> Result<Value, Refusal> {
        let property = self.thing.properties.get(name);
        let Some(read) = property.and_then(|property| property.read.as_ref()) else {
            return Err(Refusal::NotReadable);
        };
        let (service, own) = place(read);
        let value = read.decode(&client.read(service, own).await?)?;
        self.report(name.to_owned(), value.clone()).await;
        Ok(value)
    }

    /// Says why, when the device turned out to be gone.
    async fn on_command(&mut self, client: &GattClient, command: Command) -> Option<String> {
        let began = Instant::now();
        let (request, deadline) = (command.request, command.deadline);
        let result = carry_out(self, client, request, deadline).await;
        let took = began.elapsed();
        let end = match &result {
            Err(Failed { refusal, .. }) if refusal.is_end() => Some(refusal.to_string()),
            _ => None,
        };
        let result = result.map_err(|failed| PortError::Failed(failed.into_failure()));
        // Whoever asked may have given up waiting; the device acted all the same.
        let _ = command.reply.send(result.map(|reply| Answer {
            reply,
            written_after: Duration::ZERO,
            answered_after: took,
        }));
        end
    }
}

/// A characteristic's UUIDs.
pub(super) fn place(characteristic: &Characteristic) -> Place {
    let Characteristic { service, uuid, .. } = characteristic;
    (Uuid::from_u128(*service), Uuid::from_u128(*uuid))
}

/// An error with its causes, for a status line.
pub(super) fn describe(error: &BleError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text
}
