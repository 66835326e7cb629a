//! The sums, compiled for each kind of processor (pulp) and chosen at run time.
//!
//! **The bits depend on nothing but the sequence.** A query is rounded to whole numbers so small that their products with a key's bytes
//! add up to less than 2^24, where floats and integers are both exact in any order (11 bits and a sign at 64 elements: 16 times finer than
//! the keys); a softmax adds in an order of its own; values are added key by key, with fused multiplication. So [`one`] and [`many`] may
//! go about it in different ways and give the same, and the answer to a token is what it would have been among others.

use pulp::{Simd, WithSimd};

use crate::{
    attend::{Rotary, Step},
    row,
};

mod many;
mod one;

/// Queries that are worked on side by side, and the unit of a row's elements: lanes on every processor, however many it has.
pub(crate) const LANES: usize = 16;

/// Memory that is used again from one call to the next.
#[derive(Debug, Default)]
pub struct Scratch {
    queries: Queries,
    /// The key that is being turned.
    turned: Vec<f32>,
    /// One query's row after the other, or panels `[keys, LANES]`.
    weights: Vec<f32>,
    /// Keys, as floats.
    keys: Vec<f32>,
    key_scales: Vec<f32>,
    /// Values, as floats.
    values: Vec<f32>,
    value_scales: Vec<f32>,
    /// `[dim, LANES]`: queries, element by element.
    panel: Vec<f32>,
}

/// Queries as whole numbers.
#[derive(Debug, Default)]
struct Queries {
    /// `[tokens * group, dim]`.
    wholes: Vec<i16>,
    /// What one is worth in a score, for each query.
    scales: Vec<f32>,
}

/// One cached head's step.
pub(crate) struct Head<'a, const DIM: usize> {
    pub(crate) scratch: &'a mut Scratch,
    pub(crate) step: Step<'a>,
}

impl<const DIM: usize> WithSimd for Head<'_, DIM> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { scratch, step } = self;
        let stride = row::bytes(DIM);
        scratch.queries.wholes.clear();
        scratch.queries.scales.clear();
        for token in 0..step.tokens {
            let position = step.past + token;
            let at = position * stride..(position + 1) * stride;
            turn::<DIM>(
                step.keys.of(token, DIM),
                step.rotary,
                position,
                &mut scratch.turned,
            );
            row::write(simd, &scratch.turned, &mut step.key_cache[at.clone()]);
            row::write(simd, step.values.of(token, DIM), &mut step.value_cache[at]);
            let queries = step.queries.of(token, step.group * DIM);
            for query in queries.chunks_exact(DIM) {
                turn::<DIM>(query, step.rotary, position, &mut scratch.turned);
                scratch
                    .queries
                    .push(simd, &scratch.turned, step.score_scale);
            }
        }
        let end = (step.past + step.tokens) * stride;
        let (keys, values) = (&step.key_cache[..end], &step.value_cache[..end]);
        if step.tokens == 1 {
            one::attend::<S, DIM>(simd, scratch, keys, values, step.out);
        } else {
            let first = (step.past + 1, step.group);
            many::attend::<S, DIM>(simd, scratch, first, keys, values, step.out);
        }
    }
}

impl Queries {
    #[inline(always)]
    fn push<S: Simd>(&mut self, simd: S, query: &[f32], score_scale: f32) {
        let limit = ((1 << 24) / (query.len() as i32 * row::BYTE_MAX as i32)).min(i16::MAX.into());
        // A hair below the limit, so that rounding in the division leads nobody beyond it.
        let scale = row::largest(simd, query) / (limit as f32 - 0.5);
        self.wholes
            .extend(row::wholes(query, scale).map(|whole| whole as i16));
        self.scales.push(scale * score_scale);
    }
}

/// Turns a query or key by its position.
#[inline(always)]
fn turn<const DIM: usize>(
    from: &[f32],
    rotary: Option<Rotary<'_>>,
    position: usize,
    to: &mut Vec<f32>,
) {
    to.clear();
    let Some(Rotary { cos, sin }) = rotary else {
        to.extend_from_slice(from);
        return;
    };
    to.resize(DIM, 0.0);
    let half = DIM / 2;
    let cos = &cos[position * half..][..half];
    let sin = &sin[position * half..][..half];
    let (low, high) = from.split_at(half);
    let (to_low, to_high) = to.split_at_mut(half);
    for at in 0..half {
        to_low[at] = low[at] * cos[at] - high[at] * sin[at];
        to_high[at] = high[at] * cos[at] + low[at] * sin[at];
    }
}

/// Rows as floats in units of their scales.
#[inline(always)]
fn widen<const DIM: usize>(rows: &[u8], wide: &mut [f32]) {
    for (row, wide) in rows
        .chunks_exact(row::bytes(DIM))
        .zip(wide.chunks_exact_mut(DIM))
    {
        for (wide, element) in wide.iter_mut().zip(row) {
            *wide = f32::from(*element as i8);
        }
    }
}

/// The rows' scales.
#[inline(always)]
fn scales<const DIM: usize>(rows: &[u8], scales: &mut Vec<f32>) {
    scales.clear();
    let rows = rows.chunks_exact(row::bytes(DIM));
    scales.extend(rows.map(|row| row::scale(row, DIM)));
}

/// `sums[query] += weight(key, query) * value(key)` for some elements of each value, key after key.
#[inline(always)]
fn add_up<S: Simd, const QUERIES: usize, const VECTORS: usize>(
    simd: S,
    sums: &mut [[S::f32s; VECTORS]; QUERIES],
    terms: impl Iterator<Item = ([f32; QUERIES], [S::f32s; VECTORS])>,
) {
    for (weights, value) in terms {
        for (sums, weight) in sums.iter_mut().zip(weights) {
            let weight = simd.splat_f32s(weight);
            for (sum, value) in sums.iter_mut().zip(value) {
                *sum = simd.mul_add_f32s(weight, value, *sum);
            }
        }
    }
}

/// Divides each query's result by the sum of its weights.
#[inline(always)]
fn divide<const DIM: usize>(out: &mut [f32], sums: impl Iterator<Item = f32>) {
    for (out, sum) in out.chunks_exact_mut(DIM).zip(sums) {
        for element in out {
            *element /= sum;
        }
    }
}
