//! Forms of the W3C WoT MQTT binding (`mqv:`), and the ecosystems that describe their devices over MQTT.
//!
//! `href` is `mqtt://BROKER/TOPIC`: BROKER is the name of a configured broker. `observeproperty` and `subscribeevent` subscribe to the topic;
//! `writeproperty` and `invokeaction` publish to it; `readproperty` publishes to it where the form has `mqv:controlPacket` `publish` (it asks
//! the device, with the payload of `edge:value`), and otherwise subscribes. Of the binding's other terms `mqv:retain` is read; everything
//! goes at QoS 1. What a payload means is said by the terms in [`payload`].
//!
//! A thing says by `edge:availability`, a list of forms whose values are true (there) and false (away), when it can be reached;
//! `edge:assumed` is what counts before the first message. Which of them count is said by `edge:availabilityMode`: `all` (where nothing is
//! said), `any`, or `latest`.
//!
//! [`zigbee2mqtt`], [`tasmota`] and [`home_assistant`] write such descriptions from what their ecosystems publish; [`device`] is the pure
//! machine that serves one Thing.
//!
//! Read first: the binding (<https://w3c.github.io/wot-binding-templates/bindings/protocols/mqtt/>).

pub mod device;
pub mod home_assistant;
pub mod payload;
pub mod tasmota;
pub mod template;
pub mod zigbee2mqtt;

mod td;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::form::{self, Affordance, Class, Form, FormError, FormFault, Operation};
use super::{BindError, Described};
use crate::things::description::{DataSchema, DataType};
use payload::Codec;

/// Scheme of the forms that this binding serves.
pub const SCHEME: &str = "mqtt";
/// The longest topic in bytes; the protocol's own limit is 65,535.
const TOPIC_BYTES_MAX: usize = 512;

/// Where values come from.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Topic, without wildcards.
    pub topic: String,
    /// What a payload means.
    pub codec: Codec,
}

/// Where values go.
#[derive(Debug, Clone, PartialEq)]
pub struct Sink {
    /// Topic, without wildcards.
    pub topic: String,
    /// Whether the broker keeps it.
    pub retain: bool,
    /// How a payload is made.
    pub codec: Codec,
    /// `edge:value`: what is sent where the caller gives no value.
    pub constant: Option<Value>,
}

/// How a property is reached.
#[derive(Debug, Clone, PartialEq)]
pub struct PropertyBinding {
    /// Where it is reported; several topics may.
    pub sources: Vec<Source>,
    /// How the device is asked to report it.
    pub ask: Option<Sink>,
    /// How it is written.
    pub write: Option<Sink>,
}

/// How an action is carried out.
#[derive(Debug, Clone, PartialEq)]
pub struct ActionBinding {
    /// Where its call is published.
    pub sink: Sink,
    /// The one member of an input object, whose value is what is sent.
    pub member: Option<String>,
    /// The property whose report answers it.
    pub sets: Option<String>,
}

/// A topic that says whether the thing is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Availability {
    /// Where it is said: true or false.
    pub source: Source,
    /// What counts before it is.
    pub assumed: bool,
}

/// Which of several topics count (`edge:availabilityMode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AvailabilityMode {
    /// It is there when all say so.
    All,
    /// It is there when one says so.
    Any,
    /// It is what the latest message said.
    Latest,
}

/// A Thing behind a broker.
#[derive(Debug, Clone)]
pub struct MqttThing {
    /// What it is.
    pub described: Described,
    /// The configured broker.
    pub broker: String,
    /// Its properties, by name.
    pub properties: BTreeMap<String, PropertyBinding>,
    /// Its actions, by name.
    pub actions: BTreeMap<String, ActionBinding>,
    /// Its events, by name.
    pub events: BTreeMap<String, Vec<Source>>,
    /// What says whether it is there; nothing at all: it always is.
    pub availability: Vec<Availability>,
    /// Which of them count.
    pub availability_mode: AvailabilityMode,
}

impl MqttThing {
    /// Binds a description whose forms are MQTT forms.
    ///
    /// # Errors
    /// [`BindError::Form`] names the path of the first form that cannot be served, or of what lacks one.
    pub fn bind(described: Described) -> Result<Self, BindError> {
        let description = described.description.clone();
        let (mut properties, mut actions, mut events) =
            (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut broker: Option<String> = None;
        let mut same_broker = |form: &Form| {
            let known = broker.get_or_insert_with(|| form.href.authority.clone());
            if *known == form.href.authority {
                return Ok(());
            }
            let fault =
                FormFault::Contradiction("all forms of one thing must name the same broker");
            Err(form.error("href", fault))
        };
        for affordance in form::affordances(&description)? {
            affordance.forms.iter().try_for_each(&mut same_broker)?;
            let name = affordance.name.to_owned();
            match affordance.class {
                Class::Property => {
                    properties.insert(name, property(&affordance)?);
                }
                Class::Action => {
                    let sets = description
                        .actions
                        .get(&name)
                        .and_then(|action| action.sets.clone());
                    actions.insert(name, action(&affordance, sets)?);
                }
                Class::Event => {
                    let sources = sources(&affordance, |operations| {
                        operations.contains(&Operation::Subscribe)
                    })?;
                    if sources.is_empty() {
                        return Err(missing(&affordance).into());
                    }
                    events.insert(name, sources);
                }
            }
        }
        let availability = availability(&description.document)?;
        let availability_mode = match description
            .document
            .get("edge:availabilityMode")
            .map(Value::as_str)
        {
            None | Some(Some("all")) => AvailabilityMode::All,
            Some(Some("any")) => AvailabilityMode::Any,
            Some(Some("latest")) => AvailabilityMode::Latest,
            Some(other) => {
                let found = other.unwrap_or_default().to_owned();
                let fault = FormFault::Value {
                    found,
                    allowed: "all, any or latest",
                };
                return Err(FormError {
                    path: "edge:availabilityMode".into(),
                    fault,
                }
                .into());
            }
        };
        let broker = broker.ok_or_else(|| FormError {
            path: "forms".into(),
            fault: FormFault::Missing,
        })?;
        Ok(Self {
            described,
            broker,
            properties,
            actions,
            events,
            availability,
            availability_mode,
        })
    }

    /// All topics that it listens to.
    #[must_use]
    pub fn topics(&self) -> BTreeSet<&str> {
        let properties = self
            .properties
            .values()
            .flat_map(|property| &property.sources);
        let events = self.events.values().flatten();
        let availability = self
            .availability
            .iter()
            .map(|availability| &availability.source);
        properties
            .chain(events)
            .chain(availability)
            .map(|source| source.topic.as_str())
            .collect()
    }
}

fn property(affordance: &Affordance<'_>) -> Result<PropertyBinding, FormError> {
    let Some(schema) = affordance.schema else {
        return Err(missing(affordance));
    };
    let asks =
        |form: &Form| form.term("mqv:controlPacket").and_then(Value::as_str) == Some("publish");
    let ask = affordance
        .forms
        .iter()
        .find(|form| form.operations.contains(&Operation::Read) && asks(form));
    let mut listening = Vec::new();
    for form in &affordance.forms {
        let observes = form.operations.contains(&Operation::Observe)
            || (form.operations.contains(&Operation::Read) && !asks(form));
        // One form may name the topic of both directions; then it also listens there.
        if observes && !schema.write_only {
            listening.push(source(form, affordance.schema)?);
        }
    }
    let write = (!schema.read_only)
        .then(|| {
            affordance
                .form(Operation::Write)
                .ok_or_else(|| missing(affordance))
        })
        .transpose()?;
    if !schema.write_only && listening.is_empty() {
        return Err(missing(affordance));
    }
    Ok(PropertyBinding {
        sources: listening,
        ask: ask.map(|form| sink(form, None)).transpose()?,
        write: write
            .map(|form| sink(form, affordance.schema))
            .transpose()?,
    })
}

fn action(affordance: &Affordance<'_>, sets: Option<String>) -> Result<ActionBinding, FormError> {
    let form = affordance
        .form(Operation::Invoke)
        .ok_or_else(|| missing(affordance))?;
    let object = affordance
        .schema
        .filter(|schema| schema.data_type == Some(DataType::Object));
    // An object with one member is a way of naming the value; with several it is the payload.
    let member =
        object.and_then(
            |schema| match schema.members.keys().collect::<Vec<_>>().as_slice() {
                [only] if form.term("edge:wholeInput").is_none() => Some((*only).clone()),
                _ => None,
            },
        );
    let schema = match (&member, object) {
        (Some(member), Some(object)) => object.members.get(member),
        _ => affordance.schema,
    };
    let sink = sink(form, schema)?;
    if affordance.schema.is_none() && sink.constant.is_none() {
        return Err(form.error("edge:value", FormFault::Missing));
    }
    Ok(ActionBinding { sink, member, sets })
}

fn sources(
    affordance: &Affordance<'_>,
    is_meant: impl Fn(&BTreeSet<Operation>) -> bool,
) -> Result<Vec<Source>, FormError> {
    let meant = affordance
        .forms
        .iter()
        .filter(|form| is_meant(&form.operations));
    meant.map(|form| source(form, affordance.schema)).collect()
}

fn source(form: &Form, schema: Option<&DataSchema>) -> Result<Source, FormError> {
    Ok(Source {
        topic: topic(form)?,
        codec: Codec::from_form(form, schema)?,
    })
}

fn sink(form: &Form, schema: Option<&DataSchema>) -> Result<Sink, FormError> {
    Ok(Sink {
        topic: topic(form)?,
        retain: form.flag("mqv:retain")?.unwrap_or(false),
        codec: Codec::from_form(form, schema)?,
        constant: form.term("edge:value").cloned(),
    })
}

fn topic(form: &Form) -> Result<String, FormError> {
    let topic = &form.href.path;
    if form.href.scheme != SCHEME {
        let (found, allowed) = (
            form.href.scheme.clone(),
            "mqtt, as in the thing's other forms",
        );
        return Err(form.error("href", FormFault::Value { found, allowed }));
    }
    let is_good =
        !topic.is_empty() && topic.len() <= TOPIC_BYTES_MAX && !topic.contains(['+', '#', '\0']);
    if is_good {
        Ok(topic.clone())
    } else {
        let allowed = "mqtt://BROKER/TOPIC, a topic without wildcards";
        Err(form.error(
            "href",
            FormFault::Value {
                found: form.href.to_string(),
                allowed,
            },
        ))
    }
}

fn availability(document: &Value) -> Result<Vec<Availability>, FormError> {
    let truth = DataSchema::of(Some(DataType::Boolean));
    form::thing_forms(document, "edge:availability")?
        .iter()
        .map(|form| {
            Ok(Availability {
                source: source(form, Some(&truth))?,
                assumed: form.flag("edge:assumed")?.unwrap_or(false),
            })
        })
        .collect()
}

fn missing(affordance: &Affordance<'_>) -> FormError {
    let fault = FormFault::Contradiction(
        "no form says how to observe, write, invoke or subscribe to it (readOnly and writeOnly say what it cannot)",
    );
    FormError {
        path: format!("{}.forms", affordance.path()),
        fault,
    }
}

#[cfg(test)]
mod tests;
