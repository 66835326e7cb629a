//! The values that properties, actions and events carry.
//!
//! A value is the part of CBOR (RFC 8949) that JSON can say, plus byte strings; on the wire it uses definite lengths
//! only. Decoding is bounded in depth and in the number of items, so that a few bytes never become a large tree.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use minicbor::data::Type;
use minicbor::decode::Error as DecodeError;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};

/// How deep arrays and maps may nest; chosen because Thing Descriptions in the field stay below 5, and because each
/// level costs stack on a microcontroller.
pub const VALUE_DEPTH_MAX: usize = 16;

/// How many items (scalars, arrays, maps, at all levels) one value may have; at 32 bytes an item this bounds the memory
/// of a decoded value to some 128 KiB besides its texts.
pub const VALUE_ITEMS_MAX: usize = 4096;

/// A property's value, an action's input or output, an event's data.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    /// Nothing: an action without input, a result without output.
    #[default]
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number with a fraction (or NaN, or infinite); always sent with 64 bits, accepted with 16, 32 or 64.
    Float(f64),
    /// UTF-8 text.
    Text(String),
    /// Bytes, which JSON cannot say.
    Bytes(Vec<u8>),
    /// Values in order.
    Array(Vec<Value>),
    /// Named values in the sender's order; no name appears twice.
    Map(Vec<(String, Value)>),
}

impl Value {
    /// Whether the value keeps the bounds that a peer's decoder checks (depth, items, no name twice in a map).
    #[must_use]
    pub fn is_encodable(&self) -> bool {
        let mut items = 0;
        self.fits(0, &mut items)
    }

    fn fits(&self, depth: usize, items: &mut usize) -> bool {
        *items += 1;
        if *items > VALUE_ITEMS_MAX {
            return false;
        }
        match self {
            Self::Array(values) => {
                depth < VALUE_DEPTH_MAX && values.iter().all(|value| value.fits(depth + 1, items))
            }
            Self::Map(entries) => {
                let mut names = Names::default();
                depth < VALUE_DEPTH_MAX
                    && entries
                        .iter()
                        .all(|(name, value)| names.insert(name) && value.fits(depth + 1, items))
            }
            _ => true,
        }
    }
}

macro_rules! value_from {
    ($($from:ty => |$value:ident| $into:expr),* $(,)?) => {$(
        impl From<$from> for Value {
            fn from($value: $from) -> Self {
                $into
            }
        }
    )*};
}
value_from! {
    bool => |value| Self::Bool(value),
    i64 => |value| Self::Int(value),
    f64 => |value| Self::Float(value),
    String => |value| Self::Text(value),
    &str => |value| Self::Text(value.into()),
    Vec<Value> => |value| Self::Array(value),
}

impl<C> Encode<C> for Value {
    fn encode<W: Write>(
        &self,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        match self {
            Self::Null => e.null()?,
            Self::Bool(value) => e.bool(*value)?,
            Self::Int(value) => e.i64(*value)?,
            Self::Float(value) => e.f64(*value)?,
            Self::Text(value) => e.str(value)?,
            Self::Bytes(value) => e.bytes(value)?,
            Self::Array(values) => {
                e.array(values.len() as u64)?;
                for value in values {
                    value.encode(e, ctx)?;
                }
                e
            }
            Self::Map(entries) => {
                e.map(entries.len() as u64)?;
                for (name, value) in entries {
                    e.str(name)?;
                    value.encode(e, ctx)?;
                }
                e
            }
        };
        Ok(())
    }

    // A field that is Null is left out of its message.
    fn is_nil(&self) -> bool {
        matches!(self, Self::Null)
    }
}

impl<'b, C> Decode<'b, C> for Value {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
        let mut items_left = VALUE_ITEMS_MAX;
        decode_value(d, VALUE_DEPTH_MAX, &mut items_left)
    }

    fn nil() -> Option<Self> {
        Some(Self::Null)
    }
}

fn decode_value(
    d: &mut Decoder<'_>,
    depth_left: usize,
    items_left: &mut usize,
) -> Result<Value, DecodeError> {
    *items_left = items_left
        .checked_sub(1)
        .ok_or_else(|| DecodeError::message("value has too many items").at(d.position()))?;
    let kind = d.datatype()?;
    Ok(match kind {
        Type::Null => {
            d.null()?;
            Value::Null
        }
        Type::Bool => Value::Bool(d.bool()?),
        Type::F16 => Value::Float(f64::from(d.f16()?)),
        Type::F32 => Value::Float(f64::from(d.f32()?)),
        Type::F64 => Value::Float(d.f64()?),
        Type::String => Value::Text(d.str()?.into()),
        Type::Bytes => Value::Bytes(d.bytes()?.into()),
        Type::Array => {
            let (len, depth_left) = (d.array()?, inner_depth(d, depth_left)?);
            // Grown item by item: each item read proves that the announced length is not invented.
            let mut values = Vec::new();
            for _ in 0..definite(d, len)? {
                values.push(decode_value(d, depth_left, items_left)?);
            }
            Value::Array(values)
        }
        Type::Map => {
            let (len, depth_left) = (d.map()?, inner_depth(d, depth_left)?);
            let mut entries = Vec::new();
            let mut names = Names::default();
            for _ in 0..definite(d, len)? {
                let name = d.str()?;
                if !names.insert(name) {
                    return Err(
                        DecodeError::message("a name appears twice in a map").at(d.position())
                    );
                }
                entries.push((name.into(), decode_value(d, depth_left, items_left)?));
            }
            Value::Map(entries)
        }
        // Whole numbers in all their lengths; one beyond 64 signed bits is an error.
        Type::U8
        | Type::U16
        | Type::U32
        | Type::U64
        | Type::I8
        | Type::I16
        | Type::I32
        | Type::I64
        | Type::Int => Value::Int(d.i64()?),
        other => return Err(DecodeError::type_mismatch(other).at(d.position())),
    })
}

/// How many names are compared one by one; a set costs more than that, and memory.
const NAMES_COMPARED: usize = 16;

/// The names of a map so far.
#[derive(Default)]
struct Names<'a> {
    first: [&'a str; NAMES_COMPARED],
    count: usize,
    rest: BTreeSet<&'a str>,
}

impl<'a> Names<'a> {
    /// False if it was there.
    fn insert(&mut self, name: &'a str) -> bool {
        let used = self.count.min(NAMES_COMPARED);
        if self.first[..used].contains(&name) {
            return false;
        }
        match self.first.get_mut(self.count) {
            Some(place) => *place = name,
            None => return self.rest.insert(name),
        }
        self.count += 1;
        true
    }
}

fn inner_depth(d: &Decoder<'_>, depth_left: usize) -> Result<usize, DecodeError> {
    depth_left
        .checked_sub(1)
        .ok_or_else(|| DecodeError::message("value nests too deep").at(d.position()))
}

fn definite(d: &Decoder<'_>, len: Option<u64>) -> Result<u64, DecodeError> {
    len.ok_or_else(|| DecodeError::message("indefinite lengths are not used").at(d.position()))
}
