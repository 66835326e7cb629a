//! What the bytes of a register block or a characteristic mean: type, byte and word order, scale, offset, bit field.
//!
//! Pure and total: every byte sequence of the right length decodes, every JSON value encodes or is refused with its reason. Numbers
//! are carried as `f64`, so 64-bit integers beyond 2^53 are refused at both ends rather than rounded.

use serde_json::{Number, Value};

use super::form::{Form, FormError, FormFault};

/// The largest whole number that an `f64` holds exactly: 2^53.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
/// The longest text or byte string, in bytes: what one Modbus read can carry (125 registers).
pub const TEXT_BYTES_MAX: usize = 250;

/// How a value is stored. The names are XML Schema's, as `modv:type` uses them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `xsd:byte`, one byte.
    I8,
    /// `xsd:unsignedByte`, one byte.
    U8,
    /// `xsd:short`, two bytes.
    I16,
    /// `xsd:unsignedShort`, two bytes.
    U16,
    /// `xsd:int`, four bytes.
    I32,
    /// `xsd:unsignedInt`, four bytes.
    U32,
    /// `xsd:long`, eight bytes.
    I64,
    /// `xsd:unsignedLong`, eight bytes.
    U64,
    /// `xsd:float`, IEEE 754 single precision.
    F32,
    /// `xsd:double`, IEEE 754 double precision.
    F64,
    /// `xsd:string`, UTF-8, padded with zero bytes.
    Text,
    /// `xsd:hexBinary`: bytes, as base16 text.
    Bytes,
}

impl Kind {
    /// The kind that a name stands for.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name.strip_prefix("xsd:").unwrap_or(name) {
            "byte" => Self::I8,
            "unsignedByte" => Self::U8,
            "short" => Self::I16,
            "unsignedShort" => Self::U16,
            "int" => Self::I32,
            "unsignedInt" => Self::U32,
            "long" => Self::I64,
            "unsignedLong" => Self::U64,
            "float" => Self::F32,
            "double" => Self::F64,
            "string" => Self::Text,
            "hexBinary" => Self::Bytes,
            _ => return None,
        })
    }

    /// Its width in bytes; none for texts, whose length the form gives.
    #[must_use]
    pub fn width(self) -> Option<usize> {
        match self {
            Self::I8 | Self::U8 => Some(1),
            Self::I16 | Self::U16 => Some(2),
            Self::I32 | Self::U32 | Self::F32 => Some(4),
            Self::I64 | Self::U64 | Self::F64 => Some(8),
            Self::Text | Self::Bytes => None,
        }
    }

    fn is_whole(self) -> bool {
        !matches!(self, Self::F32 | Self::F64 | Self::Text | Self::Bytes)
    }
}

/// A group of bits within a whole number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BitField {
    /// The lowest bit, counted from the least significant one as 0.
    pub first: u32,
    /// How many bits, at least one.
    pub count: u32,
}

impl BitField {
    /// The bits that it covers.
    #[must_use]
    pub fn mask(self) -> u64 {
        let ones = if self.count >= 64 {
            u64::MAX
        } else {
            (1 << self.count) - 1
        };
        ones.checked_shl(self.first).unwrap_or(0)
    }
}

/// How a value is stored, scaled and ordered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Layout {
    /// Type.
    pub kind: Kind,
    /// Whether each pair of bytes has its significant one first (`modv:mostSignificantByte`).
    pub big_bytes: bool,
    /// Whether the significant pair comes first (`modv:mostSignificantWord`).
    pub big_words: bool,
    /// The value is what is stored times this (`edge:scale`), not zero.
    pub scale: f64,
    /// … plus this (`edge:offset`).
    pub offset: f64,
    /// Only these bits of it (`edge:bitOffset`, `edge:bitCount`).
    pub bits: Option<BitField>,
}

/// A JSON value that cannot be stored. Whoever asked is to blame, or the description that let it pass.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EncodeError {
    /// The value has another JSON type.
    #[error("a value of another type than the device stores")]
    Type,
    /// The number, unscaled, does not fit.
    #[error("{0} is out of the device's range")]
    Range(f64),
    /// The text is too long.
    #[error("{bytes} bytes are more than the device's {limit}")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// What fits.
        limit: usize,
    },
}

/// Bytes that are no value. The device is to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Too few or too many bytes.
    #[error("{found} bytes, where the value has {expected}")]
    Length {
        /// How many came.
        found: usize,
        /// How many belong there.
        expected: usize,
    },
    /// Not a number, infinite, or beyond what JSON readers keep exactly.
    #[error("a number that cannot be told exactly")]
    Number,
    /// Not UTF-8.
    #[error("a text that is not UTF-8")]
    Text,
}

impl Layout {
    /// A layout without scale or bits, most significant byte first, as Modbus has it.
    #[must_use]
    pub fn plain(kind: Kind) -> Self {
        Self {
            kind,
            big_bytes: true,
            big_words: true,
            scale: 1.0,
            offset: 0.0,
            bits: None,
        }
    }

    /// Reads the terms that Modbus and GATT forms share; `layout` holds what stands where a form says nothing.
    ///
    /// # Errors
    /// [`FormError`] names the term.
    pub fn from_form(
        form: &Form,
        type_term: &'static str,
        layout: Self,
    ) -> Result<Self, FormError> {
        let mut layout = layout;
        if let Some(name) = form.text(type_term)? {
            let unknown = || {
                let found = name.to_owned();
                let allowed =
                    "an XML Schema type from xsd:byte to xsd:double, xsd:string or xsd:hexBinary";
                form.error(type_term, FormFault::Value { found, allowed })
            };
            layout.kind = Kind::from_name(name).ok_or_else(unknown)?;
        }
        layout.big_bytes = form
            .flag("modv:mostSignificantByte")?
            .unwrap_or(layout.big_bytes);
        layout.big_words = form
            .flag("modv:mostSignificantWord")?
            .unwrap_or(layout.big_words);
        layout.scale = form.number("edge:scale")?.unwrap_or(layout.scale);
        layout.offset = form.number("edge:offset")?.unwrap_or(layout.offset);
        if layout.scale == 0.0 {
            let fault = FormFault::Contradiction("a scale of zero loses every value");
            return Err(form.error("edge:scale", fault));
        }
        let width = layout.kind.width().unwrap_or(0) as i64 * 8;
        let is_numeric = layout.kind.is_whole();
        let first = form.integer("edge:bitOffset", 0, 63)?;
        let count = form.integer("edge:bitCount", 1, 64)?;
        if first.is_some() || count.is_some() {
            let (first, count) = (first.unwrap_or(0), count.unwrap_or(1));
            if !is_numeric || first + count > width {
                let fault = FormFault::Contradiction(
                    "the bits do not lie within a whole number of that type",
                );
                return Err(form.error("edge:bitOffset", fault));
            }
            layout.bits = Some(BitField {
                first: first as u32,
                count: count as u32,
            });
        }
        if (layout.scale != 1.0 || layout.offset != 0.0) && layout.kind.width().is_none() {
            let fault = FormFault::Contradiction("a text cannot be scaled");
            return Err(form.error("edge:scale", fault));
        }
        Ok(layout)
    }

    /// The JSON value of stored bytes; `truth` asks for a boolean (anything but zero is true).
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(&self, bytes: &[u8], truth: bool) -> Result<Value, DecodeError> {
        if let Some(expected) = self.kind.width()
            && bytes.len() != expected
        {
            return Err(DecodeError::Length {
                found: bytes.len(),
                expected,
            });
        }
        let ordered = self.reorder(bytes);
        match self.kind {
            Kind::Text => {
                let end = ordered
                    .iter()
                    .rposition(|byte| *byte != 0)
                    .map_or(0, |at| at + 1);
                let text = ordered.get(..end).unwrap_or_default();
                let text = std::str::from_utf8(text).map_err(|_| DecodeError::Text)?;
                return Ok(Value::String(text.to_owned()));
            }
            Kind::Bytes => {
                return Ok(Value::String(hex::encode(ordered)));
            }
            Kind::F32 => return self.float(f64::from(f32::from_be_bytes(array(&ordered))), truth),
            Kind::F64 => return self.float(f64::from_be_bytes(array(&ordered)), truth),
            _ => {}
        }
        let raw = ordered
            .iter()
            .fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        let stored = match self.bits {
            Some(bits) => ((raw & bits.mask()) >> bits.first) as f64,
            None => match self.kind {
                Kind::I8 => f64::from(raw as u8 as i8),
                Kind::I16 => f64::from(raw as u16 as i16),
                Kind::I32 => f64::from(raw as u32 as i32),
                Kind::I64 => raw as i64 as f64,
                _ => raw as f64,
            },
        };
        if stored.abs() > EXACT_MAX {
            return Err(DecodeError::Number);
        }
        if truth {
            return Ok(Value::Bool(stored != 0.0));
        }
        number(scaled(stored, self.scale, self.offset)).ok_or(DecodeError::Number)
    }

    /// A float is rounded to the seven digits that single precision has, so that 21.7 is not told as 21.700000762939453.
    fn float(&self, stored: f64, truth: bool) -> Result<Value, DecodeError> {
        let stored = if self.kind == Kind::F32 {
            format!("{stored:.6e}").parse().unwrap_or(stored)
        } else {
            stored
        };
        if truth && stored.is_finite() {
            return Ok(Value::Bool(stored != 0.0));
        }
        number(scaled(stored, self.scale, self.offset)).ok_or(DecodeError::Number)
    }

    /// The bytes of a JSON value. With a bit field, `before` are the bytes that now stand there, whose other bits stay.
    ///
    /// # Errors
    /// [`EncodeError`]: nothing is clamped or cut.
    pub fn encode(
        &self,
        value: &Value,
        length: usize,
        before: Option<&[u8]>,
    ) -> Result<Vec<u8>, EncodeError> {
        let width = self.kind.width().unwrap_or(length);
        match (self.kind, value) {
            (Kind::Text, Value::String(text)) => {
                return padded(text.as_bytes(), width).map(|bytes| self.reorder(&bytes));
            }
            (Kind::Bytes, Value::String(text)) => {
                let bytes = hex::decode(text).map_err(|_| EncodeError::Type)?;
                return padded(&bytes, width).map(|bytes| self.reorder(&bytes));
            }
            (Kind::Text | Kind::Bytes, _) => return Err(EncodeError::Type),
            _ => {}
        }
        let wanted = match value {
            Value::Bool(truth) => f64::from(u8::from(*truth)),
            Value::Number(number) => {
                let number = number.as_f64().ok_or(EncodeError::Type)?;
                (number - self.offset) / self.scale
            }
            _ => return Err(EncodeError::Type),
        };
        if !wanted.is_finite() {
            return Err(EncodeError::Range(wanted));
        }
        match self.kind {
            Kind::F32 if (wanted as f32).is_finite() => {
                return Ok(self.reorder(&(wanted as f32).to_be_bytes()));
            }
            Kind::F64 => return Ok(self.reorder(&wanted.to_be_bytes())),
            Kind::F32 => return Err(EncodeError::Range(wanted)),
            _ => {}
        }
        let whole = wanted.round();
        let (min, max) = self.range();
        if whole < min || whole > max {
            return Err(EncodeError::Range(whole));
        }
        // In range, so the casts keep the value; a negative one keeps its two's complement.
        let raw = if whole < 0.0 {
            whole as i64 as u64
        } else {
            whole as u64
        };
        let raw = match self.bits {
            None => raw,
            Some(bits) => {
                let kept = before.map_or(0, |bytes| {
                    self.reorder(bytes)
                        .iter()
                        .fold(0u64, |sum, byte| sum << 8 | u64::from(*byte))
                });
                (kept & !bits.mask()) | (raw << bits.first)
            }
        };
        let bytes = raw.to_be_bytes();
        Ok(self.reorder(bytes.get(8 - width..).unwrap_or_default()))
    }

    /// What the stored whole number may be, within what JSON keeps exactly.
    fn range(&self) -> (f64, f64) {
        if let Some(bits) = self.bits {
            return (0.0, (bits.mask() >> bits.first) as f64);
        }
        match self.kind {
            Kind::I8 => (f64::from(i8::MIN), f64::from(i8::MAX)),
            Kind::U8 => (0.0, f64::from(u8::MAX)),
            Kind::I16 => (f64::from(i16::MIN), f64::from(i16::MAX)),
            Kind::U16 => (0.0, f64::from(u16::MAX)),
            Kind::I32 => (f64::from(i32::MIN), f64::from(i32::MAX)),
            Kind::U32 => (0.0, f64::from(u32::MAX)),
            Kind::I64 => (-EXACT_MAX, EXACT_MAX),
            _ => (0.0, EXACT_MAX),
        }
    }

    /// Between the device's order and most significant first; its own inverse.
    fn reorder(&self, bytes: &[u8]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        if !self.big_bytes {
            for pair in out.chunks_mut(2) {
                pair.reverse();
            }
        }
        if !self.big_words && self.kind.width().is_some_and(|width| width > 2) {
            let mut words: Vec<&[u8]> = out.chunks(2).collect();
            words.reverse();
            out = words.concat();
        }
        out
    }
}

/// `stored * scale + offset` without the noise of a decimal scale: 217 at 0.1 is 21.7, not 21.700000000000003.
#[must_use]
pub fn scaled(stored: f64, scale: f64, offset: f64) -> f64 {
    let result = stored * scale + offset;
    if (scale == 1.0 && offset == 0.0) || !result.is_finite() {
        return result;
    }
    // Twelve significant digits are far more than any sensor has, and hide the rounding of a decimal scale.
    format!("{result:.11e}").parse().unwrap_or(result)
}

/// A number as JSON, whole where it is whole. None when it is not finite.
#[must_use]
pub fn number(value: f64) -> Option<Value> {
    if value.fract() == 0.0 && value.abs() <= EXACT_MAX {
        return Some(Value::from(value as i64));
    }
    Number::from_f64(value).map(Value::Number)
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    for (to, from) in out.iter_mut().zip(bytes) {
        *to = *from;
    }
    out
}

fn padded(bytes: &[u8], width: usize) -> Result<Vec<u8>, EncodeError> {
    if bytes.len() > width {
        return Err(EncodeError::TooLong {
            bytes: bytes.len(),
            limit: width,
        });
    }
    let mut out = bytes.to_vec();
    out.resize(width, 0);
    Ok(out)
}

#[cfg(test)]
mod tests;
