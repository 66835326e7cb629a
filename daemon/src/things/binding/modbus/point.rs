//! One block of a unit's tables and the JSON value that stands in it.

use std::time::Duration;

use serde_json::Value;

use super::{Block, READ_BITS_MAX, READ_WORDS_MAX, Table, WRITE_BITS_MAX, WRITE_WORDS_MAX};
use crate::things::binding::form::{Form, FormError, FormFault};
use crate::things::binding::scalar::{DecodeError, EncodeError, Kind, Layout};
use crate::things::description::{DataSchema, DataType};

/// What a unit's answer holds, or what is written to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// Coils or discrete inputs.
    Bits(Vec<bool>),
    /// Registers.
    Words(Vec<u16>),
}

/// Which of the two write functions is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteFunction {
    /// 5 or 6: one entry.
    Single,
    /// 15 or 16: any number.
    Multiple,
}

/// A block and its meaning.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Where.
    pub block: Block,
    /// With which function it is written.
    pub function: WriteFunction,
    /// How long the unit may take; None: as the bus is configured.
    pub timeout: Option<Duration>,
    layout: Layout,
    shape: Shape,
}

/// What the schema asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Truth,
    Truths,
    Scalar,
}

/// A unit's data that does not fit its description, or a value that does not fit the unit.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PointError {
    /// The answer has other entries than were asked for.
    #[error("the answer has another length or kind than was asked for")]
    Shape,
    /// The data are no value.
    #[error("the registers hold {0}")]
    Decode(#[from] DecodeError),
    /// The value cannot be stored.
    #[error("{0}")]
    Encode(#[from] EncodeError),
}

impl Point {
    #[expect(
        clippy::too_many_arguments,
        reason = "one call, and each is a member of the form"
    )]
    pub(super) fn new(
        form: &Form,
        schema: &DataSchema,
        table: Table,
        address: u16,
        quantity: Option<u16>,
        function: Option<WriteFunction>,
        is_write: bool,
        timeout: Option<Duration>,
    ) -> Result<Self, FormError> {
        let mut layout = Layout::from_form(form, "modv:type", Layout::plain(Kind::U16))?;
        let has_type = form.term("modv:type").is_some();
        let shape = match schema.data_type {
            Some(DataType::Boolean) => Shape::Truth,
            Some(DataType::Array) if table.is_bits() => Shape::Truths,
            _ => Shape::Scalar,
        };
        let count = if table.is_bits() {
            let count = quantity.unwrap_or(1);
            match shape {
                Shape::Truth if count == 1 => {}
                Shape::Truths => {}
                _ => {
                    let fault = FormFault::Contradiction(
                        "coils and discrete inputs are a boolean, or an array of them",
                    );
                    return Err(form.error("modv:entity", fault));
                }
            }
            count
        } else {
            words(form, &mut layout, quantity, has_type)?
        };
        let limit = match (table.is_bits(), is_write) {
            (true, false) => READ_BITS_MAX,
            (true, true) => WRITE_BITS_MAX,
            (false, false) => READ_WORDS_MAX,
            (false, true) => WRITE_WORDS_MAX,
        };
        if count > limit || usize::from(address) + usize::from(count) > 65_536 {
            let (found, max) = (i64::from(count), i64::from(limit));
            return Err(form.error("modv:quantity", FormFault::Range { found, min: 1, max }));
        }
        if function == Some(WriteFunction::Single) && count > 1 {
            let fault = FormFault::Contradiction("a single write cannot carry several entries");
            return Err(form.error("modv:function", fault));
        }
        let default = if count == 1 {
            WriteFunction::Single
        } else {
            WriteFunction::Multiple
        };
        Ok(Self {
            block: Block {
                table,
                address,
                count,
            },
            function: function.unwrap_or(default),
            timeout,
            layout,
            shape,
        })
    }

    /// Whether writing needs to know what stands there now: a bit field shares its register.
    #[must_use]
    pub fn needs_before(&self) -> bool {
        self.layout.bits.is_some()
    }

    /// The value of the unit's answer.
    ///
    /// # Errors
    /// [`PointError`]; the unit is to blame.
    pub fn decode(&self, data: &Data) -> Result<Value, PointError> {
        match (data, self.shape) {
            (Data::Bits(bits), Shape::Truth) => bits
                .first()
                .map(|bit| Value::Bool(*bit))
                .ok_or(PointError::Shape),
            (Data::Bits(bits), Shape::Truths) if bits.len() >= usize::from(self.block.count) => {
                let bits = bits.iter().take(usize::from(self.block.count));
                Ok(Value::Array(bits.map(|bit| Value::Bool(*bit)).collect()))
            }
            (Data::Words(words), shape) if words.len() == usize::from(self.block.count) => {
                Ok(self.layout.decode(&bytes(words), shape == Shape::Truth)?)
            }
            _ => Err(PointError::Shape),
        }
    }

    /// What to write for a value. `before` is what stands there now, where [`Self::needs_before`] says so.
    ///
    /// # Errors
    /// [`PointError::Encode`]: nothing is clamped or cut.
    pub fn encode(&self, value: &Value, before: Option<&Data>) -> Result<Data, PointError> {
        let length = usize::from(self.block.count);
        match (self.block.table.is_bits(), value) {
            (true, Value::Bool(bit)) if length == 1 => Ok(Data::Bits(vec![*bit])),
            (true, Value::Array(values)) if values.len() == length => {
                let bits: Option<Vec<bool>> = values.iter().map(Value::as_bool).collect();
                Ok(Data::Bits(bits.ok_or(EncodeError::Type)?))
            }
            (true, _) => Err(EncodeError::Type.into()),
            (false, value) => {
                let before = match before {
                    Some(Data::Words(words)) => Some(bytes(words)),
                    _ => None,
                };
                let bytes = self.layout.encode(value, length * 2, before.as_deref())?;
                let pairs = bytes.chunks_exact(2);
                Ok(Data::Words(
                    pairs
                        .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
                        .collect(),
                ))
            }
        }
    }

    /// Whether a value can be written at all.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn check(&self, value: &Value) -> Result<(), PointError> {
        self.encode(value, None).map(|_| ())
    }
}

/// How many registers a value takes: by its type, or by the quantity where the type leaves it open.
fn words(
    form: &Form,
    layout: &mut Layout,
    quantity: Option<u16>,
    has_type: bool,
) -> Result<u16, FormError> {
    match (layout.kind.width(), quantity) {
        (Some(1), _) => {
            let fault = FormFault::Contradiction(
                "a register has two bytes: take a short type with edge:bitOffset and edge:bitCount",
            );
            Err(form.error("modv:type", fault))
        }
        (Some(_), Some(quantity)) if quantity > 1 && !has_type => {
            Err(form.error("modv:type", FormFault::Missing))
        }
        (Some(width), quantity) => {
            let count = (width / 2) as u16;
            match quantity {
                Some(quantity) if quantity != count => {
                    let fault = FormFault::Contradiction(
                        "does not fit the type's width of two bytes a register",
                    );
                    Err(form.error("modv:quantity", fault))
                }
                _ => Ok(count),
            }
        }
        (None, Some(quantity)) => Ok(quantity),
        (None, None) => Err(form.error("modv:quantity", FormFault::Missing)),
    }
}

fn bytes(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}
