//! Protobuf messages as lists of their fields, so that some can be exchanged and all others stay to the byte.
//!
//! Generated code would have to know every field of every version of ONNX, or drop what it does not know; the crate that keeps unknown
//! ones (`onnx-protobuf`) needs a version of its runtime that overflows the stack on nested input (RUSTSEC-2024-0437). Nothing here
//! recurses: whoever wants what is inside a field parses that.

use prost::{
    bytes::Buf,
    encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint},
};

/// The bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no protobuf message")]
pub struct Malformed;

/// A message's fields in their order.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Fields(pub(super) Vec<(u32, Value)>);

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    /// Text, bytes, packed numbers, or a message.
    Bytes(Vec<u8>),
}

impl Fields {
    /// # Errors
    /// [`Malformed`], also for the groups of the first protobuf, which ONNX has none of.
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let (number, wire) = decode_key(&mut bytes).map_err(|_| Malformed)?;
            let value = match wire {
                WireType::Varint => {
                    Value::Varint(decode_varint(&mut bytes).map_err(|_| Malformed)?)
                }
                WireType::SixtyFourBit => {
                    Value::Fixed64(bytes.try_get_u64_le().map_err(|_| Malformed)?)
                }
                WireType::ThirtyTwoBit => {
                    Value::Fixed32(bytes.try_get_u32_le().map_err(|_| Malformed)?)
                }
                WireType::LengthDelimited => {
                    let length = decode_varint(&mut bytes).map_err(|_| Malformed)?;
                    let length = usize::try_from(length).map_err(|_| Malformed)?;
                    let (value, rest) = bytes.split_at_checked(length).ok_or(Malformed)?;
                    bytes = rest;
                    Value::Bytes(value.to_vec())
                }
                WireType::StartGroup | WireType::EndGroup => {
                    return Err(Malformed);
                }
            };
            fields.push((number, value));
        }
        Ok(Self(fields))
    }

    pub(super) fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (number, value) in &self.0 {
            match value {
                Value::Varint(value) => {
                    encode_key(*number, WireType::Varint, &mut bytes);
                    encode_varint(*value, &mut bytes);
                }
                Value::Fixed64(value) => {
                    encode_key(*number, WireType::SixtyFourBit, &mut bytes);
                    bytes.extend(value.to_le_bytes());
                }
                Value::Fixed32(value) => {
                    encode_key(*number, WireType::ThirtyTwoBit, &mut bytes);
                    bytes.extend(value.to_le_bytes());
                }
                Value::Bytes(value) => {
                    encode_key(*number, WireType::LengthDelimited, &mut bytes);
                    encode_varint(value.len() as u64, &mut bytes);
                    bytes.extend(value);
                }
            }
        }
        bytes
    }

    /// The values of a field.
    pub(super) fn all(&self, number: u32) -> impl Iterator<Item = &Value> {
        let fields = self.0.iter();
        fields.filter_map(move |(at, value)| (*at == number).then_some(value))
    }

    /// A text; empty if there is none.
    pub(super) fn text(&self, number: u32) -> String {
        match self.all(number).last() {
            Some(Value::Bytes(text)) => String::from_utf8_lossy(text).into_owned(),
            _ => String::new(),
        }
    }

    /// A whole number; 0 if there is none.
    pub(super) fn whole(&self, number: u32) -> i64 {
        match self.all(number).last() {
            // As protobuf writes an `int64`.
            Some(Value::Varint(value)) => value.cast_signed(),
            _ => 0,
        }
    }

    /// Puts one value in place of all that a field has.
    pub(super) fn set(&mut self, number: u32, value: Value) {
        self.0.retain(|(at, _)| *at != number);
        self.0.push((number, value));
    }

    /// Changes a message inside this one; `None` if it is not there once, or the change gives that.
    pub(super) fn inside<T>(
        &mut self,
        number: u32,
        change: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<T> {
        let mut found = self.0.iter_mut().filter(|(at, _)| *at == number);
        let (Some((_, Value::Bytes(bytes))), None) = (found.next(), found.next()) else {
            return None;
        };
        let mut message = Self::parse(bytes).ok()?;
        let result = change(&mut message)?;
        *bytes = message.write();
        Some(result)
    }
}
