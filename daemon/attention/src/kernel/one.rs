//! The queries of one token: what each token of an answer costs. Bounded by reading the cache; nothing but a block of values is widened.

use pulp::Simd;

use super::{LANES, Scratch, add_up, divide, scales, widen};
use crate::{row, softmax};

/// Values that are widened at a time, which then lie in the first cache.
const BLOCK: usize = 64;

/// Attention of one token's queries to all of the caches; `[group, dim]` into `out`.
#[inline(always)]
pub(super) fn attend<S: Simd, const DIM: usize>(
    simd: S,
    scratch: &mut Scratch,
    keys: &[u8],
    values: &[u8],
    out: &mut [f32],
) {
    let stride = row::bytes(DIM);
    let count = keys.len() / stride;
    let group = scratch.queries.scales.len();
    scratch.weights.resize(group * count, 0.0);
    scales::<DIM>(values, &mut scratch.value_scales);
    let mut sums = [0.0f32; LANES];
    out.fill(0.0);
    // The cache is read once for as many queries as there are lanes; models have 1 to 8 in a group.
    for (first, out) in out.chunks_mut(LANES * DIM).enumerate() {
        let first = first * LANES;
        let weights = &mut scratch.weights[first * count..][..out.len() / DIM * count];
        for (member, weights) in weights.chunks_exact_mut(count).enumerate() {
            let query = &scratch.queries.wholes[(first + member) * DIM..][..DIM];
            score::<DIM>(query, scratch.queries.scales[first + member], keys, weights);
            sums[member] = softmax::row(simd, weights);
            for (weight, scale) in weights.iter_mut().zip(&scratch.value_scales) {
                *weight *= scale;
            }
        }
        scratch.values.resize(BLOCK * DIM, 0.0);
        for (block, values) in values.chunks(BLOCK * stride).enumerate() {
            let wide = &mut scratch.values[..values.len() / stride * DIM];
            widen::<DIM>(values, wide);
            add_block::<S, DIM>(simd, weights, count, block * BLOCK, wide, out);
        }
        divide::<DIM>(out, sums.into_iter());
    }
}

/// A query's scores.
#[inline(always)]
fn score<const DIM: usize>(query: &[i16], query_scale: f32, keys: &[u8], weights: &mut [f32]) {
    let query: &[i16; DIM] = query.try_into().expect("a query has DIM elements");
    for (weight, key) in weights.iter_mut().zip(keys.chunks_exact(row::bytes(DIM))) {
        let key_scale = row::scale(key, DIM);
        // The whole sum is under 2^24 (see `Queries::push`), so nothing wraps. Said this way because the overflow checks of a debug
        // build keep the loop from being vectorised.
        let dot = query.iter().zip(key).fold(0i32, |dot, (query, key)| {
            dot.wrapping_add(i32::from(*query).wrapping_mul(i32::from(*key as i8)))
        });
        *weight = dot as f32 * (query_scale * key_scale);
    }
}

/// Adds a block of values, `weights` being rows of `count` keys of which the block begins at `from`.
#[inline(always)]
fn add_block<S: Simd, const DIM: usize>(
    simd: S,
    weights: &[f32],
    count: usize,
    from: usize,
    wide: &[f32],
    out: &mut [f32],
) {
    let here = wide.len() / DIM;
    let row = |member: usize| &weights[member * count + from..][..here];
    let group = out.len() / DIM;
    let mut member = 0;
    while member < group {
        let out = &mut out[member * DIM..];
        member += match group - member {
            1 => add::<S, DIM, 1>(simd, [row(member)], wide, out),
            2 => add::<S, DIM, 2>(simd, [0, 1].map(|next| row(member + next)), wide, out),
            3 => add::<S, DIM, 3>(simd, [0, 1, 2].map(|next| row(member + next)), wide, out),
            _ => add::<S, DIM, 4>(simd, [0, 1, 2, 3].map(|next| row(member + next)), wide, out),
        };
    }
}

/// Adds values to some queries' results; gives how many.
#[inline(always)]
fn add<S: Simd, const DIM: usize, const QUERIES: usize>(
    simd: S,
    weights: [&[f32]; QUERIES],
    wide: &[f32],
    out: &mut [f32],
) -> usize {
    match LANES / S::F32_LANES {
        1 | 2 => add_by::<S, DIM, QUERIES, 2>(simd, weights, wide, out),
        4 => add_by::<S, DIM, QUERIES, 4>(simd, weights, wide, out),
        _ => add_by::<S, DIM, QUERIES, LANES>(simd, weights, wide, out),
    }
    QUERIES
}

#[inline(always)]
fn add_by<S: Simd, const DIM: usize, const QUERIES: usize, const VECTORS: usize>(
    simd: S,
    weights: [&[f32]; QUERIES],
    wide: &[f32],
    out: &mut [f32],
) {
    let span = VECTORS * S::F32_LANES;
    for start in (0..DIM).step_by(span) {
        let mut sums: [[S::f32s; VECTORS]; QUERIES] = std::array::from_fn(|query| {
            let out = S::as_simd_f32s(&out[query * DIM + start..][..span]).0;
            std::array::from_fn(|vector| out[vector])
        });
        let terms = wide.chunks_exact(DIM).enumerate().map(|(key, value)| {
            let value = S::as_simd_f32s(&value[start..start + span]).0;
            (
                weights.map(|weights| weights[key]),
                std::array::from_fn(|vector| value[vector]),
            )
        });
        add_up(simd, &mut sums, terms);
        for (query, sums) in sums.iter().enumerate() {
            let out = S::as_mut_simd_f32s(&mut out[query * DIM + start..][..span]).0;
            out.copy_from_slice(sums);
        }
    }
}
