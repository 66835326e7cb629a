use proptest::prelude::*;

use super::*;

/// A sequence with everything that a model would give for it.
#[derive(Debug, Clone)]
struct Sequence {
    dim: usize,
    group: usize,
    tokens: usize,
    /// `[tokens, group + 2, dim]`: queries, key, value.
    packed: Vec<f32>,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Sequence {
    fn width(&self) -> usize {
        (self.group + 2) * self.dim
    }

    /// Feeds the sequence in pieces; gives the attention of all tokens and both caches.
    fn feed(&self, pieces: &[usize]) -> (Vec<f32>, Vec<u8>, Vec<u8>) {
        let bytes = self.tokens * row::bytes(self.dim);
        let (mut key_cache, mut value_cache) = (vec![0; bytes], vec![0; bytes]);
        let (mut out, mut past) = (Vec::new(), 0);
        let mut scratch = Scratch::default();
        for &tokens in pieces {
            let rows = |head: usize| Rows {
                values: &self.packed[past * self.width()..],
                first: head * self.dim,
                step: self.width(),
            };
            let mut piece = vec![f32::NAN; tokens * self.group * self.dim];
            let step = Step {
                dim: self.dim,
                group: self.group,
                tokens,
                past,
                score_scale: (self.dim as f32).powf(-0.5),
                rotary: Some(Rotary {
                    cos: &self.cos,
                    sin: &self.sin,
                }),
                queries: rows(0),
                keys: rows(self.group),
                values: rows(self.group + 1),
                key_cache: &mut key_cache,
                value_cache: &mut value_cache,
                out: &mut piece,
            };
            attend(&mut scratch, step).unwrap();
            out.extend(piece);
            past += tokens;
        }
        assert_eq!(past, self.tokens);
        (out, key_cache, value_cache)
    }

    /// The formula, in doubles and without a cache.
    fn exact(&self) -> Vec<f64> {
        let half = self.dim / 2;
        let turned = |token: usize, head: usize| -> Vec<f64> {
            let row = &self.packed[token * self.width() + head * self.dim..][..self.dim];
            let row: Vec<f64> = row.iter().map(|value| f64::from(*value)).collect();
            let table = |table: &[f32], at: usize| f64::from(table[token * half + at]);
            (0..self.dim)
                .map(|at| match at < half {
                    true => row[at] * table(&self.cos, at) - row[at + half] * table(&self.sin, at),
                    false => {
                        row[at] * table(&self.cos, at - half)
                            + row[at - half] * table(&self.sin, at - half)
                    }
                })
                .collect()
        };
        let mut out = Vec::new();
        for token in 0..self.tokens {
            for head in 0..self.group {
                let query = turned(token, head);
                let scores: Vec<f64> = (0..=token)
                    .map(|key| {
                        let key = turned(key, self.group);
                        query.iter().zip(key).map(|(q, k)| q * k).sum::<f64>()
                            / (self.dim as f64).sqrt()
                    })
                    .collect();
                let largest = scores.iter().copied().fold(f64::MIN, f64::max);
                let weights: Vec<f64> =
                    scores.iter().map(|score| (score - largest).exp()).collect();
                let sum: f64 = weights.iter().sum();
                out.extend((0..self.dim).map(|at| {
                    let at = (self.group + 1) * self.dim + at;
                    let value = |key: usize| f64::from(self.packed[key * self.width() + at]);
                    (0..=token)
                        .map(|key| weights[key] * value(key))
                        .sum::<f64>()
                        / sum
                }));
            }
        }
        out
    }
}

fn sequence() -> impl Strategy<Value = Sequence> {
    (0..DIMS.len(), 1..10usize, 1..90usize).prop_flat_map(|(dim, group, tokens)| {
        let dim = DIMS[dim];
        let packed = prop::collection::vec(-3.0f32..3.0, tokens * (group + 2) * dim);
        packed.prop_map(move |packed| {
            let angles = (0..tokens).flat_map(|token| {
                (0..dim / 2)
                    .map(move |at| token as f32 * 10_000f32.powf(-(2.0 * at as f32) / dim as f32))
            });
            Sequence {
                dim,
                group,
                tokens,
                packed,
                cos: angles.clone().map(f32::cos).collect(),
                sin: angles.map(f32::sin).collect(),
            }
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn attention_is_the_formula_within_the_bytes_roundings(sequence in sequence()) {
        let (ours, _, _) = sequence.feed(&[sequence.tokens]);
        for (at, (ours, exact)) in ours.iter().zip(sequence.exact()).enumerate() {
            // A value is off by 3 / 254; scores are off by some hundredths at these magnitudes, and move weights as much.
            prop_assert!((f64::from(*ours) - exact).abs() < 0.12, "element {at}: {ours} for {exact}");
        }
    }

    #[test]
    fn the_bits_are_the_same_however_a_sequence_is_cut(
        sequence in sequence(),
        cuts in prop::collection::vec(1..20usize, 90),
    ) {
        let mut left = sequence.tokens;
        let pieces: Vec<usize> = cuts
            .into_iter()
            .map_while(|cut| {
                let piece = cut.min(left);
                left -= piece;
                (piece > 0).then_some(piece)
            })
            .collect();
        let bits = |fed: (Vec<f32>, Vec<u8>, Vec<u8>)| {
            (fed.0.into_iter().map(f32::to_bits).collect::<Vec<_>>(), fed.1, fed.2)
        };
        let whole = bits(sequence.feed(&[sequence.tokens]));
        prop_assert_eq!(&bits(sequence.feed(&pieces)), &whole, "in {:?}", pieces);
        prop_assert_eq!(&bits(sequence.feed(&vec![1; sequence.tokens])), &whole, "one by one");
    }
}

#[test]
fn lengths_that_do_not_fit_are_said_and_nothing_is_written() {
    let numbers = [1.0f32; 64 * 5];
    let rows = Rows {
        values: &numbers,
        first: 0,
        step: 64,
    };
    let run = |dim: usize, group: usize, tokens: usize, past: usize, cached: usize| {
        let mut caches = [vec![7u8; cached], vec![7u8; cached]];
        let mut out = vec![0.0; tokens * group * dim];
        let [key_cache, value_cache] = &mut caches;
        let result = attend(
            &mut Scratch::default(),
            Step {
                dim,
                group,
                tokens,
                past,
                score_scale: 1.0,
                rotary: None,
                queries: rows,
                keys: rows,
                values: rows,
                key_cache,
                value_cache,
                out: &mut out,
            },
        );
        if result.is_err() {
            assert!(caches.iter().flatten().all(|byte| *byte == 7));
        }
        result
    };
    let one = row::bytes(64);
    assert_eq!(run(64, 1, 1, 0, one), Ok(()));
    assert_eq!(run(63, 1, 1, 0, one), Err(Misfit("a head")));
    assert_eq!(run(64, 0, 1, 0, one), Err(Misfit("the group")));
    assert_eq!(run(64, 1, 0, 0, one), Err(Misfit("the tokens")));
    assert_eq!(run(64, 1, 6, 0, one * 6), Err(Misfit("the queries")));
    assert_eq!(run(64, 1, 1, 1, one), Err(Misfit("the cache of keys")));
}

#[test]
fn what_is_no_number_spoils_no_other_token() {
    let mut sequence = Sequence {
        dim: 32,
        group: 1,
        tokens: 3,
        packed: (0..3 * 96).map(|at| (at % 7) as f32 - 3.0).collect(),
        cos: vec![1.0; 48],
        sin: vec![0.0; 48],
    };
    sequence.packed[96..192].fill(f32::NAN);
    sequence.packed[97] = f32::INFINITY;
    let (out, _, _) = sequence.feed(&[3]);
    assert!(
        out[..32]
            .iter()
            .chain(&out[64..])
            .all(|value| value.is_finite()),
        "{out:?}"
    );
}
