//! What becomes of a request: what is published for it, and which report answers it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use autoglm_drivers::port::PortError;
use autoglm_protocol::{Fault, FaultCode, Reply, Request, RequestFailure};
use serde_json::Value;

use super::{Awaited, Device, Output, Token, WAITING_MAX, Waiting, reply_value};
use crate::things::binding::mqtt::Sink;
use crate::things::binding::mqtt::payload::PayloadError;
use crate::things::value;

impl Device {
    /// A request came in.
    pub fn handle_request(
        &mut self,
        now: Instant,
        token: Token,
        request: Request,
        deadline: Duration,
    ) {
        let refuse = |code, message: &str| {
            Err(PortError::Failed(RequestFailure::Fault(Fault::new(
                code, message,
            ))))
        };
        if self.waiting.len() >= WAITING_MAX {
            return self.answer(token, Err(PortError::Busy));
        }
        let thing = Arc::clone(&self.thing);
        let until = now + deadline;
        let (sink, value, awaits, is_read) = match request {
            Request::Read { property } | Request::Observe { property } => {
                let Some(binding) = thing.properties.get(&property) else {
                    return self.answer(token, refuse(FaultCode::UnknownAffordance, &property));
                };
                let Some(ask) = &binding.ask else {
                    let last = self.values.get(&property).cloned();
                    let unheard =
                        format!("it has not reported {property} yet, and cannot be asked");
                    let reply = last.map_or_else(
                        || refuse(FaultCode::NotReady, &unheard),
                        |value| reply_value(&value),
                    );
                    return self.answer(token, reply);
                };
                (
                    ask,
                    None,
                    Some(Awaited {
                        property,
                        expected: None,
                        other: None,
                    }),
                    true,
                )
            }
            Request::Write { property, value } => {
                let Some(binding) = thing.properties.get(&property) else {
                    return self.answer(token, refuse(FaultCode::UnknownAffordance, &property));
                };
                let Some(write) = &binding.write else {
                    return self.answer(token, refuse(FaultCode::ReadOnly, &property));
                };
                let value = value::to_json(value);
                let awaits = (!binding.sources.is_empty()).then(|| Awaited {
                    property,
                    expected: Some(value.clone()),
                    other: None,
                });
                (write, Some(value), awaits, false)
            }
            Request::Invoke { action, input } => {
                let Some(binding) = thing.actions.get(&action) else {
                    return self.answer(token, refuse(FaultCode::UnknownAffordance, &action));
                };
                let input = value::to_json(input);
                let input = match &binding.member {
                    Some(member) => input.get(member).cloned().unwrap_or(Value::Null),
                    None => input,
                };
                let expected = Some(input.clone()).filter(|_| binding.sink.constant.is_none());
                let reported = binding.sets.as_ref().filter(|sets| {
                    thing
                        .properties
                        .get(*sets)
                        .is_some_and(|property| !property.sources.is_empty())
                });
                let awaits = reported.map(|property| Awaited {
                    property: property.clone(),
                    expected,
                    other: None,
                });
                (&binding.sink, Some(input), awaits, false)
            }
            Request::Unobserve { .. } => {
                return self.answer(token, Ok(Reply::Done(autoglm_protocol::Value::Null)));
            }
            Request::Describe => {
                return self.answer(
                    token,
                    refuse(
                        FaultCode::Unsupported,
                        "a foreign device does not describe itself",
                    ),
                );
            }
        };
        match payload(sink, value.as_ref()) {
            Err(error) => self.answer(token, refuse(FaultCode::OutOfRange, &error.to_string())),
            Ok(payload) => {
                let (topic, retain) = (sink.topic.clone(), sink.retain);
                self.waiting.push(Waiting {
                    token,
                    deadline: until,
                    is_published: false,
                    awaits,
                    is_read,
                });
                self.out.push_back(Output::Publish {
                    token,
                    topic,
                    payload,
                    retain,
                    until,
                });
            }
        }
    }
}

fn payload(sink: &Sink, value: Option<&Value>) -> Result<Vec<u8>, PayloadError> {
    match (&sink.constant, value) {
        (Some(constant), _) => sink.codec.encode(constant),
        (None, value) => sink.codec.encode(value.unwrap_or(&Value::Null)),
    }
}
