//! Tensors as they go over the bus ([`Tensor`]), and as JSON lists their elements. Pure.

use serde_json::Value as Json;

use super::client::Tensor;
use crate::inference::arrays::{Array, BytesError, Values};

/// From JSON elements, without lists in lists. `None` for a type that is not known, a number that the type does not hold, and another number of elements
/// than the extents say.
#[must_use]
pub fn from_json(element_type: &str, extents: &[usize], elements: &[Json]) -> Option<Tensor> {
    Array::from_json(element_type, extents.to_vec(), elements).map(|array| tensor(&array))
}

/// The elements, as JSON.
///
/// # Errors
/// [`BytesError`]
pub fn to_json((element_type, _, content): &Tensor) -> Result<Vec<Json>, BytesError> {
    let values = Values::from_le_bytes(element_type, content)?;
    let shape = vec![values.len()];
    Ok(Array { shape, values }.to_json())
}

/// As the engine takes it; `Err` says what is wrong.
pub(super) fn array((element_type, extents, content): Tensor) -> Result<Array, String> {
    let values =
        Values::from_le_bytes(&element_type, &content).map_err(|error| error.to_string())?;
    let shape: Option<Vec<usize>> = extents
        .iter()
        .map(|&extent| usize::try_from(extent).ok())
        .collect();
    shape
        .filter(|shape| Array::elements_of(shape) == Some(values.len()))
        .map(|shape| Array { shape, values })
        .ok_or_else(|| {
            let bytes = content.len();
            format!("{bytes} bytes of {element_type} are not of the shape {extents:?}")
        })
}

pub(super) fn tensor(array: &Array) -> Tensor {
    let extents = array.shape.iter().map(|&extent| extent as u64).collect();
    let element_type = array.values.element_type().to_owned();
    (element_type, extents, array.values.to_le_bytes())
}
