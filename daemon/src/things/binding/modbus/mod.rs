//! Forms of the W3C WoT Modbus binding (`modv:`) as operations on tables of coils and registers.
//!
//! `href` is `modbus+rtu://BUS/UNIT/ADDRESS?quantity=N` or `modbus+tcp://…`: BUS is the name of a configured bus, UNIT 1 to 247. Which of
//! the two stands there says nothing: the configuration knows where the bus is. Addresses count from 1 unless `modv:zeroBasedAddressing` is true, as the binding has it. Of the
//! vocabulary we read `modv:entity`, `modv:function`, `modv:unitID`, `modv:address`, `modv:quantity`, `modv:type`,
//! `modv:mostSignificantByte`, `modv:mostSignificantWord`, `modv:pollingTime` and `modv:timeout` (milliseconds); of ours `edge:scale`,
//! `edge:offset`, `edge:bitOffset`, `edge:bitCount`, and `edge:value`, the constant that an action writes.
//!
//! Pure: [`ModbusThing`] says what to read and write and what the answers mean, [`batch`] joins adjacent reads. One Thing is one unit on one bus,
//! because a unit is what goes away and comes back.
//!
//! Read first: the binding (<https://w3c.github.io/wot-binding-templates/bindings/protocols/modbus/>), then MODBUS
//! Application Protocol V1.1b3 §6 for the functions and their limits.

mod batch;
mod point;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

pub use batch::{Batch, batches};
pub use point::{Data, Point, PointError, WriteFunction};

use super::form::{self, Affordance, Class, Form, FormError, FormFault, Operation};
use super::{BindError, Described};
use crate::things::description::{DataSchema, DataType};

/// Schemes of the forms that this binding serves.
pub const SCHEMES: [&str; 2] = ["modbus+rtu", "modbus+tcp"];
/// The most coils or discrete inputs in one read (MODBUS Application Protocol V1.1b3 §6.1).
pub const READ_BITS_MAX: u16 = 2000;
/// The most registers in one read (§6.3).
pub const READ_WORDS_MAX: u16 = 125;
/// The most coils in one write (§6.11).
pub const WRITE_BITS_MAX: u16 = 1968;
/// The most registers in one write (§6.12).
pub const WRITE_WORDS_MAX: u16 = 123;

/// The four tables of a unit (§4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// `Coil`: bits, read and written.
    Coils,
    /// `DiscreteInput`: bits, read only.
    DiscreteInputs,
    /// `InputRegister`: words, read only.
    InputRegisters,
    /// `HoldingRegister`: words, read and written.
    HoldingRegisters,
}

impl Table {
    /// Whether it holds bits, not words.
    #[must_use]
    pub fn is_bits(self) -> bool {
        matches!(self, Self::Coils | Self::DiscreteInputs)
    }
}

/// A run of entries in one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    /// Which table.
    pub table: Table,
    /// The first entry, counted from zero, as on the wire.
    pub address: u16,
    /// How many, at least one.
    pub count: u16,
}

/// How a property is reached.
#[derive(Debug, Clone, PartialEq)]
pub struct PropertyBinding {
    /// How it is read, unless it is write-only.
    pub read: Option<Point>,
    /// How it is written, unless it is read-only.
    pub write: Option<Point>,
    /// How often it is read by itself; None: only when asked. Zero length: as the bus is configured.
    pub poll: Option<Duration>,
}

/// How an action is carried out.
#[derive(Debug, Clone, PartialEq)]
pub struct ActionBinding {
    /// What it writes.
    pub write: Point,
    /// The value that it writes.
    pub value: ActionValue,
}

/// Where the value that an action writes comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum ActionValue {
    /// `edge:value`.
    Constant(Value),
    /// The input itself.
    Input,
    /// The input's one member.
    Member(String),
}

/// A Thing on a Modbus bus.
#[derive(Debug, Clone)]
pub struct ModbusThing {
    /// What it is.
    pub described: Described,
    /// The configured bus that reaches it.
    pub bus: String,
    /// Its unit, 1 to 247.
    pub unit: u8,
    /// Its properties, by name.
    pub properties: BTreeMap<String, PropertyBinding>,
    /// Its actions, by name.
    pub actions: BTreeMap<String, ActionBinding>,
}

impl ModbusThing {
    /// Binds a description whose forms are Modbus forms.
    ///
    /// # Errors
    /// [`BindError::Form`] names the path of the first form that cannot be served, or of what lacks one.
    pub fn bind(described: Described) -> Result<Self, BindError> {
        let description = described.description.clone();
        let mut place: Option<(String, u8)> = None;
        let (mut properties, mut actions) = (BTreeMap::new(), BTreeMap::new());
        for affordance in form::affordances(&description)? {
            for form in &affordance.forms {
                let found = place_of(form)?;
                let known = place.get_or_insert_with(|| found.clone());
                if *known != found {
                    let fault = FormFault::Contradiction(
                        "all forms of one thing must name the same bus and unit",
                    );
                    return Err(form.error("href", fault).into());
                }
            }
            match affordance.class {
                Class::Property => {
                    properties.insert(affordance.name.to_owned(), property(&affordance)?);
                }
                Class::Action => {
                    actions.insert(affordance.name.to_owned(), action(&affordance)?);
                }
                Class::Event => {
                    let fault = FormFault::Contradiction(
                        "Modbus has no events: observe a property instead",
                    );
                    return Err(FormError {
                        path: affordance.path(),
                        fault,
                    }
                    .into());
                }
            }
        }
        let (bus, unit) = place.ok_or_else(|| FormError {
            path: "forms".into(),
            fault: FormFault::Missing,
        })?;
        Ok(Self {
            described,
            bus,
            unit,
            properties,
            actions,
        })
    }
}

fn property(affordance: &Affordance<'_>) -> Result<PropertyBinding, FormError> {
    let Some(schema) = affordance.schema else {
        return Err(missing(affordance));
    };
    let read = (!schema.write_only)
        .then(|| {
            affordance
                .form(Operation::Read)
                .ok_or_else(|| missing(affordance))
        })
        .transpose()?;
    let write = (!schema.read_only)
        .then(|| {
            affordance
                .form(Operation::Write)
                .ok_or_else(|| missing(affordance))
        })
        .transpose()?;
    let observed = affordance.form(Operation::Observe);
    let poll = match observed.or(read) {
        Some(form) => form
            .integer("modv:pollingTime", 10, 86_400_000)?
            .map(|ms| Duration::from_millis(ms as u64)),
        None => None,
    };
    Ok(PropertyBinding {
        read: read
            .map(|form| point(form, schema, Access::Read))
            .transpose()?,
        write: write
            .map(|form| point(form, schema, Access::Write))
            .transpose()?,
        poll: match (observed, poll) {
            (None, None) => None,
            (_, poll) => Some(poll.unwrap_or_default()),
        },
    })
}

fn action(affordance: &Affordance<'_>) -> Result<ActionBinding, FormError> {
    let form = affordance
        .form(Operation::Invoke)
        .ok_or_else(|| missing(affordance))?;
    let (value, schema) = match (form.term("edge:value"), affordance.schema) {
        (Some(constant), None) => (
            ActionValue::Constant(constant.clone()),
            constant_schema(constant),
        ),
        (None, Some(schema)) if schema.data_type == Some(DataType::Object) => {
            let mut members = schema.members.iter();
            match (members.next(), members.next()) {
                (Some((name, member)), None) => (ActionValue::Member(name.clone()), member.clone()),
                _ => {
                    let fault = FormFault::Contradiction(
                        "an input with several members does not fit one block of registers",
                    );
                    return Err(FormError {
                        path: format!("{}.input", affordance.path()),
                        fault,
                    });
                }
            }
        }
        (None, Some(schema)) => (ActionValue::Input, schema.clone()),
        (None, None) => return Err(form.error("edge:value", FormFault::Missing)),
        (Some(_), Some(_)) => {
            let fault =
                FormFault::Contradiction("an action with an input writes that, not a constant");
            return Err(form.error("edge:value", fault));
        }
    };
    let write = point(form, &schema, Access::Write)?;
    if let ActionValue::Constant(constant) = &value {
        write.check(constant).map_err(|_| {
            let found = constant.to_string();
            form.error(
                "edge:value",
                FormFault::Value {
                    found,
                    allowed: "a value that the block can hold",
                },
            )
        })?;
    }
    Ok(ActionBinding { write, value })
}

fn constant_schema(constant: &Value) -> DataSchema {
    DataSchema::of(Some(match constant {
        Value::Bool(_) => DataType::Boolean,
        Value::String(_) => DataType::String,
        Value::Array(_) => DataType::Array,
        _ => DataType::Number,
    }))
}

fn missing(affordance: &Affordance<'_>) -> FormError {
    let fault = FormFault::Contradiction(
        "no form says how to read, write or invoke it (readOnly and writeOnly say what it cannot)",
    );
    FormError {
        path: format!("{}.forms", affordance.path()),
        fault,
    }
}

/// Bus and unit of a form.
fn place_of(form: &Form) -> Result<(String, u8), FormError> {
    let href = &form.href;
    if !SCHEMES.contains(&href.scheme.as_str()) {
        let (found, allowed) = (
            href.scheme.clone(),
            "modbus+rtu or modbus+tcp, as in the thing's other forms",
        );
        return Err(form.error("href", FormFault::Value { found, allowed }));
    }
    let unit = match form.integer("modv:unitID", 1, 247)? {
        Some(unit) => unit,
        None => {
            let first = href.path.split('/').next().unwrap_or_default();
            first
                .parse()
                .ok()
                .filter(|unit| (1..=247).contains(unit))
                .ok_or_else(|| {
                    let allowed = "modbus+rtu://BUS/UNIT/ADDRESS with a unit from 1 to 247";
                    form.error(
                        "href",
                        FormFault::Value {
                            found: href.to_string(),
                            allowed,
                        },
                    )
                })?
        }
    };
    Ok((href.authority.clone(), unit as u8))
}

#[derive(Clone, Copy, PartialEq)]
enum Access {
    Read,
    Write,
}

/// The block of a form, and what stands in it.
fn point(form: &Form, schema: &DataSchema, access: Access) -> Result<Point, FormError> {
    let (table, function) = table(form, schema, access)?;
    let address = address(form)?;
    let quantity = match form.integer("modv:quantity", 1, i64::from(READ_BITS_MAX))? {
        Some(quantity) => Some(quantity as u16),
        None => form
            .href
            .query
            .iter()
            .find(|(name, _)| name == "quantity")
            .map(|(_, value)| {
                value
                    .parse()
                    .ok()
                    .filter(|quantity| (1..=READ_BITS_MAX).contains(quantity))
                    .ok_or_else(|| {
                        form.error(
                            "href",
                            FormFault::Value {
                                found: value.clone(),
                                allowed: "a quantity from 1 to 2000",
                            },
                        )
                    })
            })
            .transpose()?,
    };
    let timeout = form
        .integer("modv:timeout", 1, 60_000)?
        .map(|ms| Duration::from_millis(ms as u64));
    Point::new(
        form,
        schema,
        table,
        address,
        quantity,
        function,
        access == Access::Write,
        timeout,
    )
}

/// Table and, for writing, function: from `modv:function` or else `modv:entity`, as the binding says.
fn table(
    form: &Form,
    schema: &DataSchema,
    access: Access,
) -> Result<(Table, Option<WriteFunction>), FormError> {
    let entity = match form.text("modv:entity")? {
        None => None,
        Some("Coil" | "coil") => Some(Table::Coils),
        Some("DiscreteInput" | "discreteInput") => Some(Table::DiscreteInputs),
        Some("HoldingRegister" | "holdingRegister") => Some(Table::HoldingRegisters),
        Some("InputRegister" | "inputRegister") => Some(Table::InputRegisters),
        Some(other) => {
            let allowed = "Coil, DiscreteInput, HoldingRegister or InputRegister";
            return Err(form.error(
                "modv:entity",
                FormFault::Value {
                    found: other.into(),
                    allowed,
                },
            ));
        }
    };
    let function = match form.term("modv:function") {
        None => None,
        Some(value) => Some(function(form, value)?),
    };
    let (table, write) = match (entity, function) {
        // "When used in conjunction with modv:function, the value of modv:function should be ignored."
        (Some(table), _) => (table, None),
        (None, Some((table, write))) => {
            if write.is_some() != (access == Access::Write) {
                let fault =
                    FormFault::Contradiction("the function does not do what the form is for");
                return Err(form.error("modv:function", fault));
            }
            (table, write)
        }
        // The binding's own default for writes and invocations of truth values.
        (None, None) if schema.data_type == Some(DataType::Boolean) => (Table::Coils, None),
        (None, None) => return Err(form.error("modv:entity", FormFault::Missing)),
    };
    if access == Access::Write && matches!(table, Table::DiscreteInputs | Table::InputRegisters) {
        let fault = FormFault::Contradiction("inputs can only be read");
        return Err(form.error("modv:entity", fault));
    }
    Ok((table, write))
}

fn function(form: &Form, value: &Value) -> Result<(Table, Option<WriteFunction>), FormError> {
    use {Table as T, WriteFunction as W};
    let name = value.as_str().unwrap_or_default();
    let code = value.as_u64().unwrap_or_default();
    Ok(match (name, code) {
        ("readCoil", _) | (_, 1) => (T::Coils, None),
        ("readDiscreteInput", _) | (_, 2) => (T::DiscreteInputs, None),
        ("readHoldingRegisters", _) | (_, 3) => (T::HoldingRegisters, None),
        ("readInputRegisters", _) | (_, 4) => (T::InputRegisters, None),
        ("writeSingleCoil", _) | (_, 5) => (T::Coils, Some(W::Single)),
        ("writeSingleHoldingRegister", _) | (_, 6) => (T::HoldingRegisters, Some(W::Single)),
        ("writeMultipleCoils", _) | (_, 15) => (T::Coils, Some(W::Multiple)),
        ("writeMultipleHoldingRegisters", _) | (_, 16) => (T::HoldingRegisters, Some(W::Multiple)),
        _ => {
            let allowed =
                "a read or write function of the binding, by name or code (1 to 6, 15, 16)";
            let found = value.to_string();
            return Err(form.error("modv:function", FormFault::Value { found, allowed }));
        }
    })
}

/// The first entry, counted from zero.
fn address(form: &Form) -> Result<u16, FormError> {
    let zero_based = form.flag("modv:zeroBasedAddressing")?.unwrap_or(false);
    let (min, max) = if zero_based { (0, 65_535) } else { (1, 65_536) };
    let written = match form.integer("modv:address", min, max)? {
        Some(address) => address,
        None => {
            let second = form
                .href
                .path
                .split('/')
                .nth(1)
                .filter(|part| !part.is_empty());
            let second = second.ok_or_else(|| form.error("modv:address", FormFault::Missing))?;
            let number = second.parse().map_err(|_| {
                let allowed = "modbus+rtu://BUS/UNIT/ADDRESS with a numeric address";
                form.error(
                    "href",
                    FormFault::Value {
                        found: second.into(),
                        allowed,
                    },
                )
            })?;
            if !(min..=max).contains(&number) {
                return Err(form.error(
                    "href",
                    FormFault::Range {
                        found: number,
                        min,
                        max,
                    },
                ));
            }
            number
        }
    };
    Ok((if zero_based { written } else { written - 1 }) as u16)
}

#[cfg(test)]
mod tests;
