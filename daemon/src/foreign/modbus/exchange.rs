//! One request to one unit: which reads and writes it takes, what is repeated after silence, and what its answer means.

use std::time::Duration;

use autoglm_drivers::modbus::{Answer as BusAnswer, BusError, OpenBus, ReadFunction, Write};
use autoglm_protocol::{Fault, FaultCode, Reply, Request};
use serde_json::Value;

use super::Unit;
use crate::config::foreign::ModbusConfig;
use crate::things::binding::modbus::{
    ActionValue, Block, Data, Point, PointError, Table, WriteFunction,
};
use crate::things::value;

/// Why a request to a unit has no answer.
#[derive(Debug)]
pub(super) enum AskError {
    Bus(BusError),
    Point(PointError),
}

impl From<BusError> for AskError {
    fn from(error: BusError) -> Self {
        Self::Bus(error)
    }
}

impl From<PointError> for AskError {
    fn from(error: PointError) -> Self {
        Self::Point(error)
    }
}

/// Why a request was not carried out.
pub(super) enum Refusal {
    Fault(Fault),
    Ask(AskError),
}

impl<E: Into<AskError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Ask(error.into())
    }
}

/// Carries out one request of whoever asked.
pub(super) async fn carry_out(
    bus: &mut OpenBus,
    config: &ModbusConfig,
    unit: &Unit,
    request: Request,
    deadline: Duration,
) -> Result<Reply, Refusal> {
    let refuse = |code, name: &str| Refusal::Fault(Fault::new(code, name));
    // What the router gives up waiting for must not hold the line much longer.
    let within = |timeout: Option<Duration>| Some(timeout.unwrap_or(config.timeout).min(deadline));
    match request {
        Request::Read { property } | Request::Observe { property } => {
            let binding = unit
                .thing
                .properties
                .get(&property)
                .ok_or_else(|| refuse(FaultCode::UnknownAffordance, &property))?;
            let point = binding
                .read
                .as_ref()
                .ok_or_else(|| refuse(FaultCode::WriteOnly, &property))?;
            let data = read(
                bus,
                config,
                unit.thing.unit,
                point.block,
                within(point.timeout),
            )
            .await?;
            let value = point.decode(&data)?;
            unit.berth.report(property, value.clone()).await;
            Ok(Reply::Value(wire(&value)))
        }
        Request::Write { property, value } => {
            let binding = unit
                .thing
                .properties
                .get(&property)
                .ok_or_else(|| refuse(FaultCode::UnknownAffordance, &property))?;
            let point = binding
                .write
                .as_ref()
                .ok_or_else(|| refuse(FaultCode::ReadOnly, &property))?;
            write(
                bus,
                config,
                unit,
                point,
                &value::to_json(value),
                Repeat::Harmless,
                deadline,
            )
            .await?;
            let Some(back) = &binding.read else {
                return Ok(Reply::Done(autoglm_protocol::Value::Null));
            };
            // The unit has acknowledged the write; what it now holds is its own answer, whatever was asked for.
            match read(
                bus,
                config,
                unit.thing.unit,
                back.block,
                within(back.timeout),
            )
            .await
            {
                Ok(data) => {
                    let value = back.decode(&data)?;
                    unit.berth.report(property, value.clone()).await;
                    Ok(Reply::Done(wire(&value)))
                }
                Err(error) if error.is_line() => Err(error.into()),
                Err(error) => {
                    tracing::debug!(%error, "written and acknowledged, but not read back");
                    Ok(Reply::Done(autoglm_protocol::Value::Null))
                }
            }
        }
        Request::Invoke { action, input } => {
            let binding = unit
                .thing
                .actions
                .get(&action)
                .ok_or_else(|| refuse(FaultCode::UnknownAffordance, &action))?;
            let input = value::to_json(input);
            let value = match &binding.value {
                ActionValue::Constant(constant) => constant.clone(),
                ActionValue::Input => input,
                ActionValue::Member(member) => input.get(member).cloned().unwrap_or(Value::Null),
            };
            let declared = unit.thing.described.description.actions.get(&action);
            let repeat = if declared.is_some_and(|action| action.idempotent) {
                Repeat::Harmless
            } else {
                Repeat::Harmful
            };
            write(bus, config, unit, &binding.write, &value, repeat, deadline).await?;
            Ok(Reply::Done(autoglm_protocol::Value::Null))
        }
        Request::Unobserve { .. } => Ok(Reply::Done(autoglm_protocol::Value::Null)),
        Request::Describe => Err(refuse(
            FaultCode::Unsupported,
            "a foreign device does not describe itself",
        )),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Repeat {
    Harmless,
    Harmful,
}

async fn write(
    bus: &mut OpenBus,
    config: &ModbusConfig,
    unit: &Unit,
    point: &Point,
    value: &Value,
    repeat: Repeat,
    deadline: Duration,
) -> Result<(), AskError> {
    let timeout = point.timeout.unwrap_or(config.timeout).min(deadline);
    // The bus is ours alone, so only the unit itself can change the register in between.
    let before = match point.needs_before() {
        true => Some(read(bus, config, unit.thing.unit, point.block, Some(timeout)).await?),
        false => None,
    };
    let address = point.block.address;
    let order = match (point.encode(value, before.as_ref())?, point.function) {
        (Data::Bits(bits), WriteFunction::Single) if bits.len() == 1 => {
            Write::Coil(address, bits.first().copied().unwrap_or(false))
        }
        (Data::Bits(bits), _) => Write::Coils(address, bits),
        (Data::Words(words), WriteFunction::Single) if words.len() == 1 => {
            Write::Register(address, words.first().copied().unwrap_or(0))
        }
        (Data::Words(words), _) => Write::Registers(address, words),
    };
    match bus.write(unit.thing.unit, &order, timeout).await {
        Err(error) if error.is_silence() && repeat == Repeat::Harmless => {
            Ok(bus.write(unit.thing.unit, &order, timeout).await?)
        }
        other => Ok(other?),
    }
}

/// Reads a block, once more after silence.
pub(super) async fn read(
    bus: &mut OpenBus,
    config: &ModbusConfig,
    unit: u8,
    block: Block,
    timeout: Option<Duration>,
) -> Result<Data, BusError> {
    let function = match block.table {
        Table::Coils => ReadFunction::Coils,
        Table::DiscreteInputs => ReadFunction::DiscreteInputs,
        Table::HoldingRegisters => ReadFunction::HoldingRegisters,
        Table::InputRegisters => ReadFunction::InputRegisters,
    };
    let timeout = timeout.unwrap_or(config.timeout);
    let answer = match bus
        .read(unit, function, block.address, block.count, timeout)
        .await
    {
        Err(error) if error.is_silence() => {
            bus.read(unit, function, block.address, block.count, timeout)
                .await?
        }
        other => other?,
    };
    Ok(match answer {
        BusAnswer::Bits(bits) => Data::Bits(bits),
        BusAnswer::Words(words) => Data::Words(words),
    })
}

/// The exception codes of MODBUS Application Protocol V1.1b3 §7 in our words.
pub(super) fn exception(code: u8) -> Fault {
    let (fault, words) = match code {
        1 => (FaultCode::Unsupported, "illegal function"),
        2 => (FaultCode::UnknownAffordance, "illegal data address"),
        3 => (FaultCode::OutOfRange, "illegal data value"),
        4 => (FaultCode::Failed, "server device failure"),
        5 => (FaultCode::NotReady, "acknowledged, but it takes long"),
        6 => (FaultCode::Busy, "server device busy"),
        8 => (FaultCode::Failed, "memory parity error"),
        10 => (FaultCode::NotReady, "gateway path unavailable"),
        11 => (
            FaultCode::NotReady,
            "gateway target device failed to respond",
        ),
        _ => (FaultCode::Failed, "unknown exception"),
    };
    Fault::new(fault, format!("Modbus exception {code}: {words}"))
}

/// Numbers out of registers always fit the wire.
fn wire(value: &Value) -> autoglm_protocol::Value {
    value::to_wire(value).unwrap_or_default()
}
