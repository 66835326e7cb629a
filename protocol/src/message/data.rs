//! The value of a message, where it lies: nothing is copied to send one, and texts and bytes are not copied to read one.

use alloc::borrow::Cow;
use core::fmt;

use minicbor::data::Type;
use minicbor::decode::Error as DecodeError;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};

use super::Value;
use crate::segment::Buffers;

/// A [`Value`] on its way. Two are equal when they stand for the same value.
#[derive(Clone)]
pub enum Data<'a> {
    /// One that somebody has.
    Value(Cow<'a, Value>),
    /// UTF-8 text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
}

impl Data<'_> {
    /// Whether the value keeps the bounds that a peer's decoder checks (depth, items, no name twice in a map).
    #[must_use]
    pub fn is_encodable(&self) -> bool {
        match self {
            Self::Value(value) => value.is_encodable(),
            Self::Text(_) | Self::Bytes(_) => true,
        }
    }

    /// The value itself.
    #[must_use]
    pub fn into_value(self) -> Value {
        match self {
            Self::Value(value) => value.into_owned(),
            Self::Text(text) => Value::Text(text.into()),
            Self::Bytes(bytes) => Value::Bytes(bytes.into()),
        }
    }

    /// The value itself, its text or bytes in a buffer that was used before.
    pub(crate) fn into_value_in(self, buffers: &mut Buffers) -> Value {
        match self {
            Self::Text(text) => Value::Text(buffers.text(text)),
            Self::Bytes(bytes) => Value::Bytes(buffers.copy(bytes)),
            Self::Value(value) => value.into_owned(),
        }
    }
}

impl fmt::Debug for Data<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.clone().into_value().fmt(f)
    }
}

impl PartialEq for Data<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.clone().into_value() == other.clone().into_value()
    }
}

impl From<Value> for Data<'_> {
    fn from(value: Value) -> Self {
        Self::Value(Cow::Owned(value))
    }
}

impl<'a> From<&'a Value> for Data<'a> {
    fn from(value: &'a Value) -> Self {
        Self::Value(Cow::Borrowed(value))
    }
}

impl From<i64> for Data<'_> {
    fn from(number: i64) -> Self {
        Value::Int(number).into()
    }
}

impl From<f64> for Data<'_> {
    fn from(number: f64) -> Self {
        Value::Float(number).into()
    }
}

impl From<bool> for Data<'_> {
    fn from(truth: bool) -> Self {
        Value::Bool(truth).into()
    }
}

impl<'a> From<&'a str> for Data<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a [u8]> for Data<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes)
    }
}

impl<C> Encode<C> for Data<'_> {
    fn encode<W: Write>(
        &self,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        match self {
            Self::Value(value) => value.encode(e, ctx),
            Self::Text(text) => e.str(text)?.ok(),
            Self::Bytes(bytes) => e.bytes(bytes)?.ok(),
        }
    }

    // A field that is Null is left out of its message.
    fn is_nil(&self) -> bool {
        matches!(self, Self::Value(value) if matches!(value.as_ref(), Value::Null))
    }
}

impl<'a, 'b: 'a, C> Decode<'b, C> for Data<'a> {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, DecodeError> {
        Ok(match d.datatype()? {
            Type::String => Self::Text(d.str()?),
            Type::Bytes => Self::Bytes(d.bytes()?),
            _ => Self::from(Value::decode(d, ctx)?),
        })
    }

    fn nil() -> Option<Self> {
        Some(Self::from(Value::Null))
    }
}

/// What held a value goes back to the buffers.
pub(crate) fn give_back(value: Value, buffers: &mut Buffers) {
    match value {
        Value::Text(text) => buffers.give_text(text),
        Value::Bytes(bytes) => buffers.give(bytes),
        Value::Array(values) => values
            .into_iter()
            .for_each(|value| give_back(value, buffers)),
        Value::Map(entries) => entries.into_iter().for_each(|(name, value)| {
            buffers.give_text(name);
            give_back(value, buffers);
        }),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {}
    }
}
