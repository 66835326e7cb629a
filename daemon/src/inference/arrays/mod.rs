//! Tensors outside of ONNX Runtime: element type, shape and content, by name. Every type that `model.toml` can name and that holds numbers.

use std::collections::BTreeMap;

use half::f16;
use ort::{
    session::SessionInputValue,
    value::{DynValue, Tensor, TensorElementType, ValueType},
};
use serde_json::Value as Json;

pub use self::bytes::BytesError;

mod bytes;

/// A tensor's content, in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// `f32`
    F32(Vec<f32>),
    /// `f64`
    F64(Vec<f64>),
    /// `f16`
    F16(Vec<f16>),
    /// `i64`
    I64(Vec<i64>),
    /// `i32`
    I32(Vec<i32>),
    /// `i16`
    I16(Vec<i16>),
    /// `i8`
    I8(Vec<i8>),
    /// `u8`
    U8(Vec<u8>),
    /// `bool`
    Bool(Vec<bool>),
}

/// A tensor. `values` holds as many elements as `shape` says; a scalar has no dimensions and one element.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Its elements.
    pub values: Values,
}

/// Tensors by name.
pub type Arrays = BTreeMap<String, Array>;

/// Does the same with the elements of every type.
macro_rules! each {
    ($values:expr, $elements:ident => $result:expr) => {
        match $values {
            Values::F32($elements) => $result,
            Values::F64($elements) => $result,
            Values::F16($elements) => $result,
            Values::I64($elements) => $result,
            Values::I32($elements) => $result,
            Values::I16($elements) => $result,
            Values::I8($elements) => $result,
            Values::U8($elements) => $result,
            Values::Bool($elements) => $result,
        }
    };
}

/// Makes the same of the elements of every type.
macro_rules! map_each {
    ($values:expr, $elements:ident => $result:expr) => {
        match $values {
            Values::F32($elements) => Values::F32($result),
            Values::F64($elements) => Values::F64($result),
            Values::F16($elements) => Values::F16($result),
            Values::I64($elements) => Values::I64($result),
            Values::I32($elements) => Values::I32($result),
            Values::I16($elements) => Values::I16($result),
            Values::I8($elements) => Values::I8($result),
            Values::U8($elements) => Values::U8($result),
            Values::Bool($elements) => Values::Bool($result),
        }
    };
}

impl Values {
    /// Number of elements.
    pub fn len(&self) -> usize {
        each!(self, elements => elements.len())
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The type's name in `model.toml`.
    pub fn element_type(&self) -> &'static str {
        match self {
            Self::F32(_) => "f32",
            Self::F64(_) => "f64",
            Self::F16(_) => "f16",
            Self::I64(_) => "i64",
            Self::I32(_) => "i32",
            Self::I16(_) => "i16",
            Self::I8(_) => "i8",
            Self::U8(_) => "u8",
            Self::Bool(_) => "bool",
        }
    }

    /// Bytes of one element of a type, for the types that are known here.
    pub fn element_bytes(element_type: &str) -> Option<usize> {
        Some(match element_type {
            "f64" | "i64" => 8,
            "f32" | "i32" => 4,
            "f16" | "i16" => 2,
            "i8" | "u8" | "bool" => 1,
            _ => return None,
        })
    }
}

impl Array {
    pub(super) fn f32(shape: impl Into<Vec<usize>>, values: Vec<f32>) -> Self {
        Self {
            shape: shape.into(),
            values: Values::F32(values),
        }
    }

    pub(super) fn i64(shape: impl Into<Vec<usize>>, values: Vec<i64>) -> Self {
        Self {
            shape: shape.into(),
            values: Values::I64(values),
        }
    }

    pub(super) fn i8(shape: impl Into<Vec<usize>>, values: Vec<i8>) -> Self {
        Self {
            shape: shape.into(),
            values: Values::I8(values),
        }
    }

    pub(super) fn i32(shape: impl Into<Vec<usize>>, values: Vec<i32>) -> Self {
        Self {
            shape: shape.into(),
            values: Values::I32(values),
        }
    }

    /// Elements that the shape asks for; `None` if there are more than a machine can count.
    pub fn elements_of(shape: &[usize]) -> Option<usize> {
        shape
            .iter()
            .try_fold(1usize, |all, &extent| all.checked_mul(extent))
    }

    /// From a JSON list of numbers (or truth values), as probes have it. `None` for another type, another number of elements, or a number that the
    /// type does not hold.
    pub fn from_json(element_type: &str, shape: Vec<usize>, list: &[Json]) -> Option<Self> {
        fn all<T>(list: &[Json], one: impl Fn(&Json) -> Option<T>) -> Option<Vec<T>> {
            list.iter().map(one).collect()
        }
        let float = |json: &Json| json.as_f64();
        let values = match element_type {
            "f32" => Values::F32(all(list, |it| float(it).map(|it| it as f32))?),
            "f64" => Values::F64(all(list, float)?),
            "f16" => Values::F16(all(list, |it| float(it).map(f16::from_f64))?),
            "i64" => Values::I64(all(list, Json::as_i64)?),
            "i32" => Values::I32(all(list, |it| it.as_i64()?.try_into().ok())?),
            "i16" => Values::I16(all(list, |it| it.as_i64()?.try_into().ok())?),
            "i8" => Values::I8(all(list, |it| it.as_i64()?.try_into().ok())?),
            "u8" => Values::U8(all(list, |it| it.as_i64()?.try_into().ok())?),
            "bool" => Values::Bool(all(list, Json::as_bool)?),
            _ => return None,
        };
        let is_whole = Self::elements_of(&shape) == Some(values.len());
        is_whole.then_some(Self { shape, values })
    }

    /// The elements as JSON numbers or truth values. JSON has no infinities and no NaN: those become null.
    pub fn to_json(&self) -> Vec<Json> {
        match &self.values {
            // The nearest f64 of an f32 reads back as the same f32.
            Values::F32(values) => values.iter().map(|&it| Json::from(it)).collect(),
            Values::F64(values) => values.iter().map(|&it| Json::from(it)).collect(),
            Values::F16(values) => values.iter().map(|it| Json::from(it.to_f32())).collect(),
            Values::I64(values) => values.iter().map(|&it| Json::from(it)).collect(),
            Values::I32(values) => values.iter().map(|&it| Json::from(it)).collect(),
            Values::I16(values) => values.iter().map(|&it| Json::from(it)).collect(),
            Values::I8(values) => values.iter().map(|&it| Json::from(it)).collect(),
            Values::U8(values) => values.iter().map(|&it| Json::from(it)).collect(),
            Values::Bool(values) => values.iter().map(|&it| Json::from(it)).collect(),
        }
    }

    /// As ONNX Runtime takes it.
    pub(super) fn value(&self) -> ort::Result<SessionInputValue<'static>> {
        let shape = self.shape.as_slice();
        each!(&self.values, elements => Ok(Tensor::from_array((shape, elements.clone()))?.into()))
    }

    /// What ONNX Runtime gave; `None` for an element type that is not known here.
    pub(super) fn of(value: &DynValue) -> ort::Result<Option<Self>> {
        let ValueType::Tensor { ty, .. } = value.dtype() else {
            return Ok(None);
        };
        macro_rules! take {
            ($kind:ident, $element:ty) => {{
                let (shape, values) = value.try_extract_tensor::<$element>()?;
                let extents = shape.iter();
                Self {
                    shape: extents
                        .map(|&extent| usize::try_from(extent).unwrap_or(0))
                        .collect(),
                    values: Values::$kind(values.to_vec()),
                }
            }};
        }
        Ok(Some(match ty {
            TensorElementType::Float32 => take!(F32, f32),
            TensorElementType::Float64 => take!(F64, f64),
            TensorElementType::Float16 => take!(F16, f16),
            TensorElementType::Int64 => take!(I64, i64),
            TensorElementType::Int32 => take!(I32, i32),
            TensorElementType::Int16 => take!(I16, i16),
            TensorElementType::Int8 => take!(I8, i8),
            TensorElementType::Uint8 => take!(U8, u8),
            TensorElementType::Bool => take!(Bool, bool),
            _ => return Ok(None),
        }))
    }

    /// The elements as numbers.
    pub(super) fn numbers(&self) -> Vec<f64> {
        match &self.values {
            Values::F32(values) => values.iter().map(|&value| f64::from(value)).collect(),
            Values::F64(values) => values.clone(),
            Values::F16(values) => values.iter().map(|value| value.to_f64()).collect(),
            Values::I64(values) => values.iter().map(|&value| value as f64).collect(),
            Values::I32(values) => values.iter().map(|&value| f64::from(value)).collect(),
            Values::I16(values) => values.iter().map(|&value| f64::from(value)).collect(),
            Values::I8(values) => values.iter().map(|&value| f64::from(value)).collect(),
            Values::U8(values) => values.iter().map(|&value| f64::from(value)).collect(),
            Values::Bool(values) => values
                .iter()
                .map(|&value| f64::from(u8::from(value)))
                .collect(),
        }
    }

    /// The same type and shape with nothing in it.
    pub(super) fn zeros(&self) -> Self {
        let values = map_each!(&self.values, elements => vec![Default::default(); elements.len()]);
        Self {
            shape: self.shape.clone(),
            values,
        }
    }

    /// Puts `more` behind along the first axis; false, and nothing done, where types or other dimensions differ.
    pub(super) fn append(&mut self, more: &Self) -> bool {
        let is_alike =
            self.shape.len() == more.shape.len() && self.shape.get(1..) == more.shape.get(1..);
        if !is_alike || self.shape.is_empty() {
            return false;
        }
        let is_done = match (&mut self.values, &more.values) {
            (Values::F32(all), Values::F32(more)) => extend(all, more),
            (Values::F64(all), Values::F64(more)) => extend(all, more),
            (Values::F16(all), Values::F16(more)) => extend(all, more),
            (Values::I64(all), Values::I64(more)) => extend(all, more),
            (Values::I32(all), Values::I32(more)) => extend(all, more),
            (Values::I16(all), Values::I16(more)) => extend(all, more),
            (Values::I8(all), Values::I8(more)) => extend(all, more),
            (Values::U8(all), Values::U8(more)) => extend(all, more),
            (Values::Bool(all), Values::Bool(more)) => extend(all, more),
            _ => false,
        };
        if is_done {
            self.shape[0] += more.shape[0];
        }
        is_done
    }

    /// The rows `from..from + count` of the first axis; `None` where there are not so many.
    pub(super) fn rows(&self, from: usize, count: usize) -> Option<Self> {
        let (&all, rest) = self.shape.split_first()?;
        let row = Self::elements_of(rest)?;
        if from.checked_add(count)? > all {
            return None;
        }
        let range = from * row..(from + count) * row;
        let values = map_each!(&self.values, elements => elements.get(range)?.to_vec());
        let shape = std::iter::once(count).chain(rest.iter().copied()).collect();
        Some(Self { shape, values })
    }
}

fn extend<T: Copy>(all: &mut Vec<T>, more: &[T]) -> bool {
    all.extend_from_slice(more);
    true
}

#[cfg(test)]
mod tests;
