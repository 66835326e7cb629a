//! The machine that serves one Thing behind a broker: messages and requests in, publications, reports and answers out.
//!
//! MQTT devices do not answer; they report. So a write or an action that sets a property is answered by the device's next report of
//! that property: at once when it is the value that was asked for, else with what the device says after [`SETTLE`] (a lamp that fades reports
//! what it passes through). Where a device reports nothing that the request could change, the broker's acknowledgement is all
//! there is, and the answer carries no value. A property that is only reported by itself is read from its last report.
//!
//! [`request`] is what becomes of a request. Pure: time is an argument. Contract: one input, then drain [`Device::poll_output`], then wait until [`Device::poll_timeout`].

mod request;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use autoglm_drivers::port::PortError;
use autoglm_protocol::{DeliveryState, Fault, FaultCode, Reply, RequestFailure};
use serde_json::Value;

use super::payload::PayloadError;
use super::{AvailabilityMode, MqttThing};
use crate::things::value;

/// How long a device may report other values than the one asked for before its last one is the answer. Chosen because lamps fade within
/// a second or two.
pub const SETTLE: Duration = Duration::from_secs(2);
/// Requests in progress with one device.
const WAITING_MAX: usize = 16;

/// A request's name within one device.
pub type Token = u64;

/// What the machine wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// To be published at QoS 1; whether it was is told by [`Device::handle_published`].
    Publish {
        /// For this request.
        token: Token,
        /// Where.
        topic: String,
        /// What.
        payload: Vec<u8>,
        /// Whether the broker keeps it.
        retain: bool,
        /// It must not leave after this moment: nobody waits for it any more.
        until: Instant,
    },
    /// A property was reported.
    Value {
        /// Its name.
        property: String,
        /// What was reported.
        value: Value,
    },
    /// An event was emitted.
    Event {
        /// Its name.
        name: String,
        /// Its data.
        data: Value,
    },
    /// A request is over.
    Answer {
        /// Which.
        token: Token,
        /// How it ended.
        result: Result<Reply, PortError>,
    },
}

/// Why a publication did not reach the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unpublished {
    /// The queue to the broker is full.
    Busy,
    /// The broker refused it.
    Refused(&'static str),
    /// The connection is being shut down.
    Stopped,
}

#[derive(Debug)]
struct Waiting {
    token: Token,
    deadline: Instant,
    /// The broker has it.
    is_published: bool,
    /// What answers it: None is the broker's acknowledgement.
    awaits: Option<Awaited>,
    is_read: bool,
}

#[derive(Debug)]
struct Awaited {
    property: String,
    /// None for reads: any report answers.
    expected: Option<Value>,
    /// The last report that was not what was expected, and since when there are any.
    other: Option<(Value, Instant)>,
}

/// One Thing's state.
#[derive(Debug)]
pub struct Device {
    thing: Arc<MqttThing>,
    available: Vec<bool>,
    /// What the latest message about its availability said.
    latest: bool,
    values: BTreeMap<String, Value>,
    waiting: Vec<Waiting>,
    out: VecDeque<Output>,
}

impl Device {
    /// A device of which nothing was heard yet.
    #[must_use]
    pub fn new(thing: Arc<MqttThing>) -> Self {
        Self {
            available: thing
                .availability
                .iter()
                .map(|availability| availability.assumed)
                .collect(),
            latest: thing
                .availability
                .first()
                .is_none_or(|availability| availability.assumed),
            thing,
            values: BTreeMap::new(),
            waiting: Vec::new(),
            out: VecDeque::new(),
        }
    }

    /// What it serves.
    #[must_use]
    pub fn thing(&self) -> &Arc<MqttThing> {
        &self.thing
    }

    /// Whether it is there, by what was said of it.
    #[must_use]
    pub fn is_available(&self) -> bool {
        match self.thing.availability_mode {
            AvailabilityMode::All => self.available.iter().all(|available| *available),
            AvailabilityMode::Any => self.available.is_empty() || self.available.contains(&true),
            AvailabilityMode::Latest => self.latest,
        }
    }

    /// What was last reported of each property.
    #[must_use]
    pub fn values(&self) -> &BTreeMap<String, Value> {
        &self.values
    }

    /// A message came in. Each error is a source that could not read it; others may have.
    pub fn handle_message(
        &mut self,
        now: Instant,
        topic: &str,
        payload: &[u8],
    ) -> Vec<PayloadError> {
        let thing = Arc::clone(&self.thing);
        let mut errors = Vec::new();
        let mut take = |decoded: Result<Option<Value>, PayloadError>| match decoded {
            Ok(value) => value,
            Err(error) => {
                errors.push(error);
                None
            }
        };
        for (availability, here) in thing.availability.iter().zip(&mut self.available) {
            if availability.source.topic == topic
                && let Some(Value::Bool(truth)) = take(availability.source.codec.decode(payload))
            {
                *here = truth;
                self.latest = truth;
            }
        }
        let mut reports = Vec::new();
        for (name, property) in &thing.properties {
            for source in property
                .sources
                .iter()
                .filter(|source| source.topic == topic)
            {
                if let Some(value) = take(source.codec.decode(payload)) {
                    reports.push((name.clone(), value));
                }
            }
        }
        for (name, sources) in &thing.events {
            for source in sources.iter().filter(|source| source.topic == topic) {
                if let Some(data) = take(source.codec.decode(payload)) {
                    // Buttons report an empty action after each press.
                    if data != Value::String(String::new()) {
                        self.out.push_back(Output::Event {
                            name: name.clone(),
                            data,
                        });
                    }
                }
            }
        }
        for (property, value) in reports {
            self.on_report(now, property, value);
        }
        errors
    }

    fn on_report(&mut self, now: Instant, property: String, reported: Value) {
        self.values.insert(property.clone(), reported.clone());
        self.out.push_back(Output::Value {
            property: property.clone(),
            value: reported.clone(),
        });
        let mut answered = Vec::new();
        for waiting in &mut self.waiting {
            let Some(awaited) = waiting
                .awaits
                .as_mut()
                .filter(|awaited| awaited.property == property)
            else {
                continue;
            };
            let is_it = awaited
                .expected
                .as_ref()
                .is_none_or(|expected| is_close(expected, &reported));
            if is_it {
                answered.push(waiting.token);
            } else {
                let since = awaited.other.take().map_or(now, |(_, since)| since);
                awaited.other = Some((reported.clone(), since));
            }
        }
        for token in answered {
            self.finish(token, Some(reported.clone()));
        }
    }

    /// The broker has a request's publication, or never will.
    pub fn handle_published(&mut self, token: Token, result: Result<(), Unpublished>) {
        let Some(waiting) = self
            .waiting
            .iter_mut()
            .find(|waiting| waiting.token == token)
        else {
            return;
        };
        match result {
            Ok(()) => {
                waiting.is_published = true;
                if waiting.awaits.is_none() {
                    self.finish(token, None);
                }
            }
            Err(reason) => {
                let error = match reason {
                    Unpublished::Busy => PortError::Busy,
                    Unpublished::Refused(why) => {
                        let fault = Fault::new(
                            FaultCode::Denied,
                            format!("the broker refused the message: {why}"),
                        );
                        PortError::Failed(RequestFailure::Fault(fault))
                    }
                    Unpublished::Stopped => PortError::Failed(RequestFailure::ConnectionLost {
                        delivered: DeliveryState::NotSent,
                    }),
                };
                self.waiting.retain(|waiting| waiting.token != token);
                self.answer(token, Err(error));
            }
        }
    }

    /// A deadline may have passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let settled: Vec<(Token, Value)> = self
            .waiting
            .iter()
            .filter_map(|waiting| {
                let (value, since) = waiting.awaits.as_ref()?.other.as_ref()?;
                (now >= (*since + SETTLE).min(waiting.deadline))
                    .then(|| (waiting.token, value.clone()))
            })
            .collect();
        for (token, value) in settled {
            self.finish(token, Some(value));
        }
        let late: Vec<(Token, DeliveryState)> = self
            .waiting
            .iter()
            .filter(|waiting| now >= waiting.deadline)
            // What the broker has, the device may have; what it has not yet, it may still get.
            .map(|waiting| (waiting.token, DeliveryState::Sent))
            .collect();
        for (token, delivered) in late {
            self.waiting.retain(|waiting| waiting.token != token);
            self.answer(
                token,
                Err(PortError::Failed(RequestFailure::DeadlineExceeded {
                    delivered,
                })),
            );
        }
    }

    /// The way to the device is gone: whoever waits is told, as far as it is known what became of the request.
    pub fn handle_lost(&mut self) {
        for waiting in std::mem::take(&mut self.waiting) {
            // A read that was never answered changed nothing, so it may be asked again.
            let delivered = if waiting.is_read {
                DeliveryState::NotSent
            } else {
                DeliveryState::Sent
            };
            self.answer(
                waiting.token,
                Err(PortError::Failed(RequestFailure::ConnectionLost {
                    delivered,
                })),
            );
        }
    }

    /// When [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = |waiting: &Waiting| {
            let settled = waiting
                .awaits
                .as_ref()
                .and_then(|awaited| awaited.other.as_ref());
            settled.map_or(waiting.deadline, |(_, since)| {
                (*since + SETTLE).min(waiting.deadline)
            })
        };
        self.waiting.iter().map(due).min()
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    fn finish(&mut self, token: Token, reported: Option<Value>) {
        let Some(at) = self
            .waiting
            .iter()
            .position(|waiting| waiting.token == token)
        else {
            return;
        };
        let waiting = self.waiting.swap_remove(at);
        let reply = match (waiting.is_read, reported) {
            (true, Some(value)) => reply_value(&value),
            (false, Some(value)) => reply_value(&value).map(|reply| match reply {
                Reply::Value(value) => Reply::Done(value),
                other => other,
            }),
            (_, None) => Ok(Reply::Done(autoglm_protocol::Value::Null)),
        };
        self.answer(token, reply);
    }

    fn answer(&mut self, token: Token, result: Result<Reply, PortError>) {
        self.out.push_back(Output::Answer { token, result });
    }
}

fn reply_value(value: &Value) -> Result<Reply, PortError> {
    // Only whole numbers beyond 64 bits cannot be carried, and no report holds them.
    value::to_wire(value)
        .map(Reply::Value)
        .map_err(|_| PortError::Failed(RequestFailure::BadReply))
}

/// Whether a report is what was asked for, apart from the device's own rounding.
fn is_close(expected: &Value, reported: &Value) -> bool {
    match (expected, reported) {
        (Value::Number(expected), Value::Number(reported)) => {
            let (expected, reported) = (
                expected.as_f64().unwrap_or(f64::NAN),
                reported.as_f64().unwrap_or(f64::NAN),
            );
            (expected - reported).abs() <= 1e-6 * expected.abs().max(1.0)
        }
        (Value::Object(expected), Value::Object(reported)) => expected
            .iter()
            .all(|(name, value)| reported.get(name).is_some_and(|now| is_close(value, now))),
        _ => expected == reported,
    }
}
