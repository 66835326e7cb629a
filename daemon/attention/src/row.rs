//! How the cache holds a head's key or value of one token: bytes with one scale.
//!
//! A row is `dim` signed bytes and then the scale, an `f32` in the machine's order; an element is its byte times the scale. The scale is
//! the row's largest magnitude over 127, so an element is off by half a scale at most. (llama.cpp's `q8_0` has a scale of 16 bits for
//! every 32 elements; a head's 64 or 128 elements share theirs well, and the row stays whole.)

use pulp::Simd;

/// Bytes of the scale.
const SCALE_BYTES: usize = 4;

/// Largest magnitude of a byte. -128 is not used, so that a row and its negation are equally exact.
pub(crate) const BYTE_MAX: f32 = 127.0;

/// Bytes of a row of `dim` elements.
pub const fn bytes(dim: usize) -> usize {
    dim + SCALE_BYTES
}

/// Writes `values` as a row. What is not a number becomes 0.
#[inline(always)]
pub(crate) fn write<S: Simd>(simd: S, values: &[f32], row: &mut [u8]) {
    let scale = largest(simd, values) / BYTE_MAX;
    let (elements, tail) = row.split_at_mut(values.len());
    for (element, whole) in elements.iter_mut().zip(wholes(values, scale)) {
        *element = whole as i8 as u8;
    }
    tail.copy_from_slice(&scale.to_ne_bytes());
}

/// The scale of a row of `dim` elements.
#[inline(always)]
pub(crate) fn scale(row: &[u8], dim: usize) -> f32 {
    f32::from_ne_bytes([row[dim], row[dim + 1], row[dim + 2], row[dim + 3]])
}

/// The values in units of `scale`, as the nearest whole numbers; all 0 if the scale is.
#[inline(always)]
pub(crate) fn wholes(values: &[f32], scale: f32) -> impl Iterator<Item = f32> {
    /// Adding and taking away `1.5 * 2^23` rounds to the nearest whole number, as long as it is below 2^22.
    const ROUND: f32 = 12_582_912.0;
    let inverse = if scale > 0.0 { scale.recip() } else { 0.0 };
    values
        .iter()
        .map(move |value| (value * inverse + ROUND) - ROUND)
}

/// The largest finite magnitude.
#[inline(always)]
pub(crate) fn largest<S: Simd>(simd: S, values: &[f32]) -> f32 {
    let (body, tail) = S::as_simd_f32s(values);
    let largest = body.iter().fold(simd.splat_f32s(0.0), |largest, &value| {
        simd.max_f32s(largest, simd.abs_f32s(value))
    });
    let largest = tail
        .iter()
        .fold(simd.reduce_max_f32s(largest), |largest, value| {
            largest.max(value.abs())
        });
    if largest.is_finite() {
        return largest;
    }
    values
        .iter()
        .filter(|value| value.is_finite())
        .fold(0.0, |largest, value| largest.max(value.abs()))
}
