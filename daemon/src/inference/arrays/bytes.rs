//! Elements as bytes, little-endian, as they go over D-Bus.

use half::f16;
use thiserror::Error;

use super::Values;

/// Why bytes are not elements.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BytesError {
    /// No such type.
    #[error(
        "the element type {0:?} is not known (known: f32, f64, f16, i64, i32, i16, i8, u8, bool)"
    )]
    Type(String),
    /// Not a whole number of elements.
    #[error(
        "{bytes} bytes are not a whole number of {element_type}, of {element_bytes} bytes each"
    )]
    Length {
        /// How many there are.
        bytes: usize,
        /// What they should be.
        element_type: String,
        /// Bytes of one.
        element_bytes: usize,
    },
    /// A truth value that is none.
    #[error("a bool must be 0 or 1, not {0}")]
    Bool(u8),
}

impl Values {
    /// From bytes.
    ///
    /// # Errors
    /// [`BytesError`]
    pub fn from_le_bytes(element_type: &str, bytes: &[u8]) -> Result<Self, BytesError> {
        let Some(element_bytes) = Self::element_bytes(element_type) else {
            return Err(BytesError::Type(element_type.to_owned()));
        };
        if !bytes.len().is_multiple_of(element_bytes) {
            return Err(BytesError::Length {
                bytes: bytes.len(),
                element_type: element_type.to_owned(),
                element_bytes,
            });
        }
        Ok(match element_type {
            "f32" => Self::F32(all(bytes, f32::from_le_bytes)),
            "f64" => Self::F64(all(bytes, f64::from_le_bytes)),
            "f16" => Self::F16(all(bytes, f16::from_le_bytes)),
            "i64" => Self::I64(all(bytes, i64::from_le_bytes)),
            "i32" => Self::I32(all(bytes, i32::from_le_bytes)),
            "i16" => Self::I16(all(bytes, i16::from_le_bytes)),
            "i8" => Self::I8(all(bytes, i8::from_le_bytes)),
            "u8" => Self::U8(bytes.to_vec()),
            _ => {
                if let Some(&other) = bytes.iter().find(|&&byte| byte > 1) {
                    return Err(BytesError::Bool(other));
                }
                Self::Bool(bytes.iter().map(|&byte| byte == 1).collect())
            }
        })
    }

    /// As bytes.
    pub fn to_le_bytes(&self) -> Vec<u8> {
        match self {
            Self::F32(values) => values.iter().flat_map(|it| it.to_le_bytes()).collect(),
            Self::F64(values) => values.iter().flat_map(|it| it.to_le_bytes()).collect(),
            Self::F16(values) => values.iter().flat_map(|it| it.to_le_bytes()).collect(),
            Self::I64(values) => values.iter().flat_map(|it| it.to_le_bytes()).collect(),
            Self::I32(values) => values.iter().flat_map(|it| it.to_le_bytes()).collect(),
            Self::I16(values) => values.iter().flat_map(|it| it.to_le_bytes()).collect(),
            Self::I8(values) => values.iter().flat_map(|it| it.to_le_bytes()).collect(),
            Self::U8(values) => values.clone(),
            Self::Bool(values) => values.iter().map(|&it| u8::from(it)).collect(),
        }
    }
}

/// What does not fill an element at the end was refused before.
fn all<const BYTES: usize, T>(bytes: &[u8], one: impl Fn([u8; BYTES]) -> T) -> Vec<T> {
    let (whole, _) = bytes.as_chunks::<BYTES>();
    whole.iter().map(|element| one(*element)).collect()
}
