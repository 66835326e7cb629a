//! One request to one device's characteristics: what is read and written for it, and what the device's answer means.
//!
//! A write is answered by what is read back, as far as the description names something to read. It is sent once: a write that was
//! not confirmed may have arrived.

use std::time::{Duration, Instant};

use autoglm_drivers::ble::gatt::WriteMode;
use autoglm_drivers::ble::{BleError, GattClient};
use autoglm_protocol::{DeliveryState, Fault, FaultCode, Reply, Request, RequestFailure};
use serde_json::Value;

use super::device::{Owner, describe, place};
use crate::things::binding::gatt::Characteristic;
use crate::things::binding::scalar::{DecodeError, EncodeError};
use crate::things::value;

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("it has no form for reading")]
    NotReadable,
    #[error("{}", .0.message)]
    Fault(Fault),
    #[error("{}", describe(.0))]
    Radio(#[from] BleError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error("no answer within the time that the caller gave")]
    Late,
}

impl Refusal {
    /// Whether the connection is of no more use: the device left, or answers no more (ATT allows nothing after an answer that did not
    /// come, Core 5.4 Vol 3 Part F §3.3.3). BlueZ may still call it connected.
    pub(super) fn is_end(&self) -> bool {
        matches!(
            self,
            Self::Radio(
                BleError::NotConnected { .. }
                    | BleError::LostMeanwhile { .. }
                    | BleError::TimedOut { .. }
            )
        )
    }
}

/// A request that was not carried out.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) refusal: Refusal,
    /// How far a write may have got.
    delivered: DeliveryState,
}

/// Carries out one request of whoever asked.
pub(super) async fn carry_out(
    owner: &mut Owner,
    client: &GattClient,
    request: Request,
    deadline: Duration,
) -> Result<Reply, Failed> {
    let is_write = matches!(request, Request::Write { .. } | Request::Invoke { .. });
    // Set as soon as the first byte of a write may have left.
    let mut delivered = DeliveryState::NotSent;
    let until = Instant::now() + deadline;
    let worked = work(owner, client, request, until, &mut delivered);
    let result = match tokio::time::timeout(deadline, worked).await {
        Ok(result) => result,
        Err(_) => Err(Refusal::Late),
    };
    if !is_write {
        delivered = DeliveryState::NotSent;
    }
    result.map_err(|refusal| Failed { refusal, delivered })
}

impl Failed {
    /// As whoever asked is told.
    pub(super) fn into_failure(self) -> RequestFailure {
        failure(&self.refusal, self.delivered)
    }
}

fn failure(refusal: &Refusal, delivered: DeliveryState) -> RequestFailure {
    let fault = |code| RequestFailure::Fault(Fault::new(code, refusal.to_string()));
    match refusal {
        Refusal::Fault(fault) => RequestFailure::Fault(fault.clone()),
        Refusal::NotReadable => fault(FaultCode::WriteOnly),
        Refusal::Encode(_) => fault(FaultCode::OutOfRange),
        Refusal::Late | Refusal::Radio(BleError::TimedOut { .. }) => {
            RequestFailure::DeadlineExceeded { delivered }
        }
        // With words, where nothing can have been done.
        Refusal::Radio(BleError::LostMeanwhile { .. }) if delivered == DeliveryState::NotSent => {
            fault(FaultCode::Failed)
        }
        Refusal::Radio(BleError::NotConnected { .. } | BleError::LostMeanwhile { .. }) => {
            RequestFailure::ConnectionLost { delivered }
        }
        Refusal::Radio(BleError::Authentication { .. }) => fault(FaultCode::Denied),
        Refusal::Radio(_) | Refusal::Decode(_) => fault(FaultCode::Failed),
    }
}

async fn work(
    owner: &mut Owner,
    client: &GattClient,
    request: Request,
    until: Instant,
    delivered: &mut DeliveryState,
) -> Result<Reply, Refusal> {
    let refuse = |code, words: &str| Err(Refusal::Fault(Fault::new(code, words)));
    match request {
        Request::Read { property } | Request::Observe { property } => {
            let Some(binding) = owner.thing.properties.get(&property) else {
                return refuse(FaultCode::UnknownAffordance, &property);
            };
            if binding.read.is_some() {
                return Ok(Reply::Value(wire(&owner.read(client, &property).await?)));
            }
            match (&binding.notify, owner.values.get(&property)) {
                (None, _) => refuse(FaultCode::WriteOnly, &property),
                (Some(_), None) => {
                    refuse(FaultCode::NotReady, "the device has not reported it yet")
                }
                (Some(_), Some(value)) => Ok(Reply::Value(wire(value))),
            }
        }
        Request::Write { property, value } => {
            let Some(binding) = owner.thing.properties.get(&property) else {
                return refuse(FaultCode::UnknownAffordance, &property);
            };
            let Some(target) = binding.write.clone() else {
                return refuse(FaultCode::ReadOnly, &property);
            };
            let can_read = binding.read.is_some();
            write(client, &target, &value::to_json(value), delivered).await?;
            if !can_read {
                return Ok(Reply::Done(autoglm_protocol::Value::Null));
            }
            // It was confirmed; what the device now holds is its own answer. That this cannot be read makes it no failure.
            let rest = until.saturating_duration_since(Instant::now());
            match tokio::time::timeout(rest / 2, owner.read(client, &property)).await {
                Ok(Ok(value)) => Ok(Reply::Done(wire(&value))),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "written, but not read back");
                    Ok(Reply::Done(autoglm_protocol::Value::Null))
                }
                Err(_) => Ok(Reply::Done(autoglm_protocol::Value::Null)),
            }
        }
        Request::Invoke { action, input } => {
            let Some(binding) = owner.thing.actions.get(&action) else {
                return refuse(FaultCode::UnknownAffordance, &action);
            };
            let input = value::to_json(input);
            let given = match &binding.member {
                Some(member) => input.get(member).cloned().unwrap_or(Value::Null),
                None => input,
            };
            let value = match (given, &binding.constant) {
                (Value::Null, Some(constant)) => constant.clone(),
                (given, _) => given,
            };
            let target = binding.write.clone();
            write(client, &target, &value, delivered).await?;
            Ok(Reply::Done(autoglm_protocol::Value::Null))
        }
        Request::Unobserve { .. } => Ok(Reply::Done(autoglm_protocol::Value::Null)),
        Request::Describe => refuse(
            FaultCode::Unsupported,
            "a foreign device does not describe itself",
        ),
    }
}

async fn write(
    client: &GattClient,
    target: &Characteristic,
    value: &Value,
    delivered: &mut DeliveryState,
) -> Result<(), Refusal> {
    let (service, own) = place(target);
    // Whoever else writes it is not known: the other bits are those of a moment ago.
    let before = match target.needs_before() {
        true => Some(client.read(service, own).await?),
        false => None,
    };
    let bytes = target.encode(value, before.as_deref())?;
    let mode = match target.with_response {
        true => WriteMode::WithResponse,
        false => WriteMode::WithoutResponse,
    };
    *delivered = DeliveryState::Sent;
    Ok(client.write(service, own, &bytes, mode).await?)
}

/// Numbers out of characteristics always fit the wire.
fn wire(value: &Value) -> autoglm_protocol::Value {
    value::to_wire(value).unwrap_or_default()
}
