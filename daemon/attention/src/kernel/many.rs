//! The queries of several tokens: a prompt, or drafts. Bounded by the multiplications; so keys and values are widened once for all, and
//! queries are taken in panels of [`LANES`], each of which is a lane in every sum.

use pulp::Simd;

use super::{LANES, Scratch, add_up, divide, scales, widen};
use crate::{row, softmax};

/// Attention of several tokens' queries; `[tokens * group, dim]` into `out`. `first` is how many keys the first token sees, each further one
/// one more, and how many queries a token has.
#[inline(always)]
pub(super) fn attend<S: Simd, const DIM: usize>(
    simd: S,
    scratch: &mut Scratch,
    first: (usize, usize),
    keys: &[u8],
    values: &[u8],
    out: &mut [f32],
) {
    let (seen, group) = first;
    let count = keys.len() / row::bytes(DIM);
    scratch.keys.resize(count * DIM, 0.0);
    widen::<DIM>(keys, &mut scratch.keys);
    scales::<DIM>(keys, &mut scratch.key_scales);
    scratch.values.resize(count * DIM, 0.0);
    widen::<DIM>(values, &mut scratch.values);
    scales::<DIM>(values, &mut scratch.value_scales);
    scratch.weights.resize(count * LANES, 0.0);
    scratch.panel.resize(DIM * LANES, 0.0);
    let queries = scratch.queries.wholes.chunks(LANES * DIM);
    let query_scales = scratch.queries.scales.chunks(LANES);
    for (panel, ((queries, query_scales), out)) in queries
        .zip(query_scales)
        .zip(out.chunks_mut(LANES * DIM))
        .enumerate()
    {
        let mut lane_scales = [0.0; LANES];
        lane_scales[..query_scales.len()].copy_from_slice(query_scales);
        let limits: [usize; LANES] =
            std::array::from_fn(|lane| seen + (panel * LANES + lane) / group);
        let limits = &limits[..query_scales.len()];
        let count = limits[limits.len() - 1];
        let weights = &mut scratch.weights[..count * LANES];

        side_by_side::<DIM>(queries, &mut scratch.panel);
        score::<S, DIM>(simd, &scratch.keys[..count * DIM], &scratch.panel, weights);
        scale(simd, weights, &lane_scales, &scratch.key_scales);
        let sums = softmax::panel(simd, weights, limits);
        scale(simd, weights, &[1.0; LANES], &scratch.value_scales);
        add_panel::<S, DIM>(simd, weights, &scratch.values[..count * DIM], out);
        divide::<DIM>(out, sums.into_iter());
    }
}

/// Writes queries element by element, as many as there are; the other lanes become 0.
#[inline(always)]
fn side_by_side<const DIM: usize>(queries: &[i16], panel: &mut [f32]) {
    panel.fill(0.0);
    for (lane, query) in queries.chunks_exact(DIM).enumerate() {
        for (panel, element) in panel.chunks_exact_mut(LANES).zip(query) {
            panel[lane] = f32::from(*element);
        }
    }
}

/// `weights[key][lane] *= lanes[lane] * keys[key]`.
#[inline(always)]
fn scale<S: Simd>(simd: S, weights: &mut [f32], lanes: &[f32; LANES], keys: &[f32]) {
    let lanes = S::as_simd_f32s(lanes).0;
    for (weights, &key) in weights.chunks_exact_mut(LANES).zip(keys) {
        let key = simd.splat_f32s(key);
        for (weight, &lane) in S::as_mut_simd_f32s(weights).0.iter_mut().zip(lanes) {
            *weight = simd.mul_f32s(*weight, simd.mul_f32s(lane, key));
        }
    }
}

/// The products of all keys with a panel of queries, `[keys, LANES]`.
#[inline(always)]
fn score<S: Simd, const DIM: usize>(simd: S, keys: &[f32], panel: &[f32], weights: &mut [f32]) {
    // As many sums at a time as keep the multipliers busy, and find room in the registers.
    match LANES / S::F32_LANES {
        1 => score_by::<S, DIM, 8, 1>(simd, keys, panel, weights),
        2 => score_by::<S, DIM, 4, 2>(simd, keys, panel, weights),
        4 => score_by::<S, DIM, 4, 4>(simd, keys, panel, weights),
        _ => score_by::<S, DIM, 1, LANES>(simd, keys, panel, weights),
    }
}

#[inline(always)]
fn score_by<S: Simd, const DIM: usize, const KEYS: usize, const VECTORS: usize>(
    simd: S,
    keys: &[f32],
    panel: &[f32],
    weights: &mut [f32],
) {
    let tiles = keys.chunks_exact(KEYS * DIM);
    let rest = tiles.remainder();
    let mut to = weights.chunks_exact_mut(KEYS * LANES);
    for (keys, weights) in tiles.zip(&mut to) {
        tile::<S, DIM, KEYS, VECTORS>(simd, keys, panel, weights);
    }
    let to = to.into_remainder().chunks_exact_mut(LANES);
    for (key, weights) in rest.chunks_exact(DIM).zip(to) {
        tile::<S, DIM, 1, VECTORS>(simd, key, panel, weights);
    }
}

#[inline(always)]
fn tile<S: Simd, const DIM: usize, const KEYS: usize, const VECTORS: usize>(
    simd: S,
    keys: &[f32],
    panel: &[f32],
    weights: &mut [f32],
) {
    let keys: [&[f32; DIM]; KEYS] = std::array::from_fn(|key| {
        keys[key * DIM..][..DIM]
            .try_into()
            .expect("a key has DIM elements")
    });
    let panel = &S::as_simd_f32s(panel).0[..DIM * VECTORS];
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; KEYS];
    let terms = panel
        .chunks_exact(VECTORS)
        .enumerate()
        .take(DIM)
        .map(|(element, panel)| {
            (
                keys.map(|key| key[element]),
                std::array::from_fn(|vector| panel[vector]),
            )
        });
    add_up(simd, &mut sums, terms);
    let weights = S::as_mut_simd_f32s(weights).0;
    for (weights, sums) in weights.chunks_exact_mut(VECTORS).zip(&sums) {
        weights.copy_from_slice(sums);
    }
}

/// The results of a panel's queries, `[queries, dim]`.
#[inline(always)]
fn add_panel<S: Simd, const DIM: usize>(simd: S, weights: &[f32], values: &[f32], out: &mut [f32]) {
    let queries = out.len() / DIM;
    let mut lane = 0;
    while lane < queries {
        let out = &mut out[lane * DIM..];
        lane += match queries - lane {
            1 => add::<S, DIM, 1>(simd, lane, weights, values, out),
            2 | 3 => add::<S, DIM, 2>(simd, lane, weights, values, out),
            4..8 => add::<S, DIM, 4>(simd, lane, weights, values, out),
            _ => add::<S, DIM, 8>(simd, lane, weights, values, out),
        };
    }
}

/// The results of some lanes; gives how many.
#[inline(always)]
fn add<S: Simd, const DIM: usize, const QUERIES: usize>(
    simd: S,
    lane: usize,
    weights: &[f32],
    values: &[f32],
    out: &mut [f32],
) -> usize {
    match LANES / S::F32_LANES {
        1 => add_by::<S, DIM, QUERIES, 2>(simd, lane, weights, values, out),
        2 => add_by::<S, DIM, QUERIES, 1>(simd, lane, weights, values, out),
        4 => add_by::<S, DIM, QUERIES, 2>(simd, lane, weights, values, out),
        _ => add_by::<S, DIM, QUERIES, LANES>(simd, lane, weights, values, out),
    }
    QUERIES
}

#[inline(always)]
fn add_by<S: Simd, const DIM: usize, const QUERIES: usize, const VECTORS: usize>(
    simd: S,
    lane: usize,
    weights: &[f32],
    values: &[f32],
    out: &mut [f32],
) {
    let span = VECTORS * S::F32_LANES;
    for start in (0..DIM).step_by(span) {
        let mut sums = [[simd.splat_f32s(0.0); VECTORS]; QUERIES];
        let weights = weights.chunks_exact(LANES);
        let terms = weights
            .zip(values.chunks_exact(DIM))
            .map(|(weights, value)| {
                let weights = &weights[lane..lane + QUERIES];
                let value = S::as_simd_f32s(&value[start..start + span]).0;
                (
                    std::array::from_fn(|query| weights[query]),
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
