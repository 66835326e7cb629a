//! What a broker tells of devices, gathered until it is quiet, becomes Things that are taken, described anew or removed.

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::Value;

use super::{DEVICES_MAX, GATHER, Origin, Owner};
use crate::things::binding::mqtt::{MqttThing, tasmota, zigbee2mqtt};
use crate::things::binding::{BindError, Described};

impl Owner {
    /// Takes a discovery message. False when it is none.
    pub(super) async fn on_discovery(&mut self, topic: &str, payload: &[u8]) -> bool {
        if let Some(base) = self.config.zigbee2mqtt.clone()
            && topic == zigbee2mqtt::list_topic(&base)
        {
            self.on_zigbee_list(&base, topic, payload).await;
            return true;
        }
        if let Some(rest) = below(self.config.tasmota.as_deref(), topic)
            && let Some((mac, part @ ("config" | "sensors"))) = rest.split_once('/')
        {
            self.on_tasmota(topic, mac, part, payload);
            return true;
        }
        if let Some(prefix) = self.config.home_assistant.clone()
            && below(Some(&prefix), topic).is_some_and(|rest| rest.ends_with("/config"))
        {
            match self.home_assistant.handle_config(&prefix, topic, payload) {
                Ok((changed, refused)) => {
                    refused
                        .iter()
                        .for_each(|error| self.complaints.say(topic, error));
                    self.gather(changed.into_iter().map(Origin::HomeAssistant));
                }
                Err(error) => self.complaints.say(topic, &error),
            }
            return true;
        }
        false
    }

    async fn on_zigbee_list(&mut self, base: &str, topic: &str, payload: &[u8]) {
        let listed = match zigbee2mqtt::descriptions(&self.config.name, base, payload) {
            Ok(listed) => listed,
            Err(error) => return self.complaints.say(topic, &error),
        };
        let mut documents = Vec::new();
        for device in listed {
            match device {
                Ok(document) => documents.push(document),
                Err(skipped) => tracing::debug!(%skipped, "device of Zigbee2MQTT left out"),
            }
        }
        self.replace(topic, Origin::Zigbee2Mqtt, documents).await;
    }

    fn on_tasmota(&mut self, topic: &str, mac: &str, part: &str, payload: &[u8]) {
        if self.tasmota.len() >= DEVICES_MAX && !self.tasmota.contains_key(mac) {
            return self.complaints.say(topic, &"too many devices");
        }
        let known = self.tasmota.entry(mac.to_owned()).or_default();
        match (part, payload.is_empty()) {
            ("config", true) => known.config = None,
            ("config", false) => match tasmota::Config::parse(payload) {
                Ok(config) => known.config = Some(config),
                Err(error) => return self.complaints.say(topic, &error),
            },
            (_, is_empty) => known.sensors = (!is_empty).then(|| payload.to_vec()),
        }
        self.gather([Origin::Tasmota(mac.to_owned())]);
    }

    fn gather(&mut self, origins: impl IntoIterator<Item = Origin>) {
        self.gathering.extend(origins);
        self.gathered = Some(Instant::now() + GATHER);
    }

    /// Makes the Things whose discovery changed, once it is quiet.
    pub(super) async fn make_gathered(&mut self, now: Instant) {
        if self.gathered.is_some_and(|at| at <= now) {
            self.gathered = None;
            for origin in std::mem::take(&mut self.gathering) {
                self.make(origin).await;
            }
        }
    }

    /// Makes the Things of what was gathered.
    async fn make(&mut self, origin: Origin) {
        let (about, documents) = match &origin {
            Origin::Tasmota(mac) => {
                let known = self.tasmota.get(mac);
                let described = known
                    .and_then(|known| Some((known.config.as_ref()?, known.sensors.as_deref())));
                let documents = described.map_or(Ok(Vec::new()), |(config, sensors)| {
                    tasmota::descriptions(&self.config.name, config, sensors)
                });
                let about = format!("tasmota {mac}");
                match documents {
                    Ok(documents) => (about, documents),
                    Err(error) => return self.complaints.say(&about, &error),
                }
            }
            Origin::HomeAssistant(group) => (
                group.clone(),
                self.home_assistant.descriptions(&self.config.name, group),
            ),
            Origin::File | Origin::Zigbee2Mqtt => return,
        };
        self.replace(&about, origin, documents).await;
    }

    /// These documents are now all that an origin describes.
    async fn replace(&mut self, about: &str, origin: Origin, documents: Vec<Value>) {
        let mut named = BTreeSet::new();
        for document in documents {
            match bind(document) {
                Ok(thing) => {
                    let id = thing.described.description.id.to_string();
                    named.insert(id.clone());
                    let known = self.slots.get(&id);
                    if known.is_some_and(|slot| {
                        slot.device.thing().described.description.document
                            == thing.described.description.document
                    }) {
                        continue;
                    }
                    if known.is_some_and(|slot| slot.origin != origin) {
                        self.complaints.say(
                            about,
                            &format!("the thing {id} is described already by something else"),
                        );
                        continue;
                    }
                    self.remove(&id).await;
                    if self.slots.len() >= DEVICES_MAX {
                        self.complaints.say(about, &"too many devices");
                        continue;
                    }
                    self.take(thing, origin.clone());
                    if let Some(slot) = self.slots.get(&id) {
                        slot.berth.introduce().await;
                    }
                    self.settle(&id).await;
                }
                Err(error) => self.complaints.say(about, &error),
            }
        }
        let gone: Vec<String> = self
            .slots
            .iter()
            .filter(|(id, slot)| slot.origin == origin && !named.contains(*id))
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            self.remove(&id).await;
        }
        self.listen();
    }
}

fn bind(document: Value) -> Result<MqttThing, BindError> {
    MqttThing::bind(Described::from_value(document)?)
}

/// What follows a prefix and a slash.
fn below<'a>(prefix: Option<&str>, topic: &'a str) -> Option<&'a str> {
    topic.strip_prefix(prefix?)?.strip_prefix('/')
}
