//! Softmax of scores, without the last division: in an order of additions that depends on nothing but how many keys a query sees.

use pulp::Simd;

use crate::kernel::LANES;

/// A sum is kept in this many parts: part `i` has the keys `i, i + PARTS, ...`, one after the other.
const PARTS: usize = 16;

/// One query's scores. Turns them into `exp(score - largest)` in place and gives their sum.
#[inline(always)]
pub(crate) fn row<S: Simd>(simd: S, scores: &mut [f32]) -> f32 {
    let (body, tail) = S::as_simd_f32s(scores);
    let largest = body
        .iter()
        .fold(simd.splat_f32s(f32::NEG_INFINITY), |largest, &score| {
            simd.max_f32s(largest, score)
        });
    let largest = tail
        .iter()
        .copied()
        .fold(simd.reduce_max_f32s(largest), f32::max);
    for score in scores.iter_mut() {
        *score = exp_of_nonpositive(*score - largest);
    }
    let mut parts = [0.0f32; PARTS];
    for scores in scores.chunks(PARTS) {
        if scores.len() < PARTS {
            for (part, score) in parts.iter_mut().zip(scores) {
                *part += score;
            }
            break;
        }
        let parts = S::as_mut_simd_f32s(&mut parts).0;
        for (part, &score) in parts.iter_mut().zip(S::as_simd_f32s(scores).0) {
            *part = simd.add_f32s(*part, score);
        }
    }
    parts.into_iter().sum()
}

/// A panel `[keys, LANES]` of [`LANES`] queries' scores, as [`row`]; the query of lane `i` sees the first `limits[i]` keys, and what it does
/// not see becomes 0. Lanes that have no limit hold no query.
#[inline(always)]
pub(crate) fn panel<S: Simd>(simd: S, scores: &mut [f32], limits: &[usize]) -> [f32; LANES] {
    let all_see = limits.iter().copied().min().unwrap_or(0);
    for (key, scores) in scores.chunks_exact_mut(LANES).enumerate().skip(all_see) {
        for (score, limit) in scores.iter_mut().zip(limits) {
            if key >= *limit {
                *score = f32::NEG_INFINITY;
            }
        }
    }
    let mut largest = [f32::NEG_INFINITY; LANES];
    for scores in scores.chunks_exact(LANES) {
        let largest = S::as_mut_simd_f32s(&mut largest).0;
        for (largest, &score) in largest.iter_mut().zip(S::as_simd_f32s(scores).0) {
            *largest = simd.max_f32s(*largest, score);
        }
    }
    for scores in scores.chunks_exact_mut(LANES) {
        for (score, largest) in scores.iter_mut().zip(&largest) {
            *score = exp_of_nonpositive(*score - largest);
        }
    }
    let mut parts = [[0.0f32; LANES]; PARTS];
    for scores in scores.chunks(PARTS * LANES) {
        for (parts, scores) in parts.iter_mut().zip(scores.chunks_exact(LANES)) {
            let parts = S::as_mut_simd_f32s(parts).0;
            for (part, &score) in parts.iter_mut().zip(S::as_simd_f32s(scores).0) {
                *part = simd.add_f32s(*part, score);
            }
        }
    }
    std::array::from_fn(|lane| parts.iter().map(|part| part[lane]).sum())
}

/// `e^x` for `x <= 0`, within 2 units in the last place; 0 below -87, where `f32` has no normal number left.
///
/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`, and a polynomial of degree 6 for `e^r`, with the constants of Cephes' `expf` (Moshier, 1989). The
/// standard library's is a call for each element; this becomes part of the caller's loop.
#[inline(always)]
fn exp_of_nonpositive(x: f32) -> f32 {
    /// `ln 2` in two parts, the first of which times a small whole number is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    /// Adding `1.5 * 2^23` leaves the nearest whole number in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    const LEAST: f32 = -87.0;
    let is_below = x < LEAST;
    let x = if is_below { LEAST } else { x };
    let rounded = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, x));
    let mut p = 1.987_569_2e-4f32;
    p = p.mul_add(r, 1.398_199_9e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_5e-1);
    p = p.mul_add(r, 0.5);
    let near_1 = (r * r).mul_add(p, r) + 1.0;
    // `n` becomes an exponent, and what is above it in the sum is shifted out.
    let power = f32::from_bits((rounded.to_bits() << 23).wrapping_add(127 << 23));
    if is_below { 0.0 } else { near_1 * power }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_within_two_units_in_the_last_place() {
        for step in 0..870_000 {
            let x = step as f32 * -1e-4;
            let (ours, exact) = (f64::from(exp_of_nonpositive(x)), f64::from(x).exp());
            let unit = f64::from(f32::EPSILON) * exact;
            assert!(
                (ours - exact).abs() <= 2.0 * unit,
                "{x}: {ours} for {exact}"
            );
        }
        for x in [-87.1, -1e9, f32::NEG_INFINITY] {
            assert_eq!(exp_of_nonpositive(x), 0.0, "{x}");
        }
    }
}
