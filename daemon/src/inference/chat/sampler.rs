//! From logits to the next token: pure, and deterministic for a seed.

use std::collections::HashSet;

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::super::error::InferenceError;

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Choice {
    /// The likeliest; the same prompt gives the same answer.
    Greedy,
    /// Drawn at random from the likeliest ones.
    Random {
        /// Divides the logits: below 1 sharper, above 1 flatter. 0 < t <= 5.
        temperature: f32,
        /// Only the k likeliest; 0 is all.
        top_k: usize,
        /// Only as many of the likeliest as make up this probability. 0 < p <= 1.
        top_p: f32,
        /// The same seed draws the same tokens.
        seed: u64,
    },
}

/// How an answer is drawn from the model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// How the next token is chosen.
    pub choice: Choice,
    /// Divides the positive and multiplies the negative logits of tokens that prompt or answer hold already (Keskar et al.
    /// 2019, arXiv:1909.05858, section 4.1). 1 leaves them alone. 0.5 to 2.
    pub repetition_penalty: f32,
}

impl Default for Sampling {
    /// Greedy, without penalty.
    fn default() -> Self {
        Self {
            choice: Choice::Greedy,
            repetition_penalty: 1.0,
        }
    }
}

impl Sampling {
    /// Checks the ranges that the fields state.
    ///
    /// # Errors
    /// [`InferenceError::OutOfRange`] naming the field.
    pub fn check(&self) -> Result<(), InferenceError> {
        let refuse = |what, actual: f32, allowed: &str| {
            Err(InferenceError::OutOfRange {
                what,
                actual: actual.to_string(),
                allowed: allowed.into(),
            })
        };
        if !(0.5..=2.0).contains(&self.repetition_penalty) {
            return refuse("repetition_penalty", self.repetition_penalty, "0.5 to 2");
        }
        if let Choice::Random {
            temperature, top_p, ..
        } = self.choice
        {
            if !(temperature > 0.0 && temperature <= 5.0) {
                return refuse("temperature", temperature, "more than 0, up to 5");
            }
            if !(top_p > 0.0 && top_p <= 1.0) {
                return refuse("top_p", top_p, "more than 0, up to 1");
            }
        }
        Ok(())
    }
}

/// Draws the tokens of one answer.
#[derive(Debug)]
pub(super) struct Sampler {
    sampling: Sampling,
    rng: StdRng,
    seen: HashSet<u32>,
    penalised: Vec<f32>,
    candidates: Vec<(u32, f32)>,
}

impl Sampler {
    /// `prompt` is what counts as said already.
    pub(super) fn new(sampling: Sampling, prompt: &[u32]) -> Self {
        let seed = if let Choice::Random { seed, .. } = sampling.choice {
            seed
        } else {
            0
        };
        Self {
            sampling,
            rng: StdRng::seed_from_u64(seed),
            seen: prompt.iter().copied().collect(),
            penalised: Vec::new(),
            candidates: Vec::new(),
        }
    }

    /// The next token, given one logit per token id.
    pub(super) fn next(&mut self, logits: &[f32]) -> u32 {
        let penalty = self.sampling.repetition_penalty;
        let logits = if penalty == 1.0 {
            logits
        } else {
            self.penalised.clear();
            self.penalised.extend_from_slice(logits);
            for &id in &self.seen {
                if let Some(logit) = self.penalised.get_mut(id as usize) {
                    *logit = if *logit > 0.0 {
                        *logit / penalty
                    } else {
                        *logit * penalty
                    };
                }
            }
            &self.penalised
        };
        let (likeliest, highest) = argmax(logits);
        let id = match self.sampling.choice {
            Choice::Greedy => likeliest,
            Choice::Random {
                temperature,
                top_k,
                top_p,
                ..
            } => {
                // What lies further below the top has less than e^-30 of its probability; leaving it out spares sorting the
                // whole vocabulary.
                let floor = highest - 30.0 * temperature;
                self.candidates.clear();
                self.candidates.extend(
                    (0u32..)
                        .zip(logits.iter().copied())
                        .filter(|(_, logit)| *logit >= floor),
                );
                self.candidates
                    .sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
                if top_k > 0 {
                    self.candidates.truncate(top_k);
                }
                draw(
                    &mut self.candidates,
                    highest,
                    temperature,
                    top_p,
                    &mut self.rng,
                )
                .unwrap_or(likeliest)
            }
        };
        self.seen.insert(id);
        id
    }
}

/// The first of the highest; NaN is never the highest.
fn argmax(logits: &[f32]) -> (u32, f32) {
    (0u32..)
        .zip(logits.iter().copied())
        .fold((0, f32::NEG_INFINITY), |best, this| {
            if this.1 > best.1 { this } else { best }
        })
}

/// Draws from `candidates`, sorted from the likeliest down; turns their logits into weights.
fn draw(
    candidates: &mut [(u32, f32)],
    highest: f32,
    temperature: f32,
    top_p: f32,
    rng: &mut StdRng,
) -> Option<u32> {
    for (_, logit) in candidates.iter_mut() {
        *logit = ((*logit - highest) / temperature).exp();
    }
    let total: f32 = candidates.iter().map(|(_, weight)| weight).sum();
    let mut kept = 0.0;
    let count = candidates.iter().take_while(|(_, weight)| {
        let wanted = kept < top_p * total;
        kept += weight;
        wanted
    });
    let kept_candidates = &candidates[..count.count()];
    let kept: f32 = kept_candidates.iter().map(|(_, weight)| weight).sum();
    let mut point = rng.random::<f32>() * kept;
    for (id, weight) in kept_candidates {
        point -= weight;
        if point < 0.0 {
            return Some(*id);
        }
    }
    // Rounding may leave the point a hair beyond the last one.
    kept_candidates.last().map(|(id, _)| *id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(top_k: usize, top_p: f32, seed: u64) -> Sampling {
        Sampling {
            choice: Choice::Random {
                temperature: 1.0,
                top_k,
                top_p,
                seed,
            },
            repetition_penalty: 1.0,
        }
    }

    #[test]
    fn greedy_takes_the_first_of_the_highest_and_never_a_nan() {
        let mut sampler = Sampler::new(Sampling::default(), &[]);
        assert_eq!(sampler.next(&[0.0, 3.0, f32::NAN, 3.0]), 1);
        assert_eq!(sampler.next(&[f32::NAN; 3]), 0);
    }

    #[test]
    fn the_same_seed_draws_the_same_tokens() {
        let logits: Vec<f32> = (0..100).map(|index| (index as f32 * 0.37).sin()).collect();
        let draw = |seed| {
            let mut sampler = Sampler::new(random(0, 1.0, seed), &[]);
            (0..50).map(|_| sampler.next(&logits)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let mut sampler = Sampler::new(random(0, 1.0, 1), &[]);
        // Odds of 1 : 3.
        let logits = [0.0, 3f32.ln()];
        let ones = (0..20_000).filter(|_| sampler.next(&logits) == 1).count();
        // 15,000 expected, standard deviation 61.
        assert!((14_700..15_300).contains(&ones), "{ones}");
    }

    #[test]
    fn top_k_and_top_p_exclude_the_unlikely() {
        let logits = [1.0, 0.9, 0.8, -5.0];
        let mut by_k = Sampler::new(random(2, 1.0, 3), &[]);
        let mut by_p = Sampler::new(random(0, 0.5, 3), &[]);
        for _ in 0..500 {
            assert!(by_k.next(&logits) < 2);
            // 0.37 + 0.33 of the probability: the third is not needed to reach a half.
            assert!(by_p.next(&logits) < 2);
        }
    }

    #[test]
    fn the_penalty_turns_away_from_what_was_said() {
        let sampling = Sampling {
            choice: Choice::Greedy,
            repetition_penalty: 1.5,
        };
        assert_eq!(Sampler::new(sampling, &[1]).next(&[2.0, 2.5, -1.0]), 0);
        let mut sampler = Sampler::new(sampling, &[]);
        assert_eq!(sampler.next(&[2.0, 2.5, -1.0]), 1);
        assert_eq!(
            sampler.next(&[2.0, 2.5, -1.0]),
            0,
            "what was drawn counts as said"
        );
    }

    #[test]
    fn values_out_of_range_are_named() {
        for (sampling, field) in [
            (
                Sampling {
                    repetition_penalty: f32::NAN,
                    ..Sampling::default()
                },
                "repetition_penalty",
            ),
            (random(0, 0.0, 0), "top_p"),
            (
                Sampling {
                    choice: Choice::Random {
                        temperature: 0.0,
                        top_k: 0,
                        top_p: 1.0,
                        seed: 0,
                    },
                    ..Sampling::default()
                },
                "temperature",
            ),
        ] {
            let error = sampling.check().unwrap_err();
            assert!(
                matches!(error, InferenceError::OutOfRange { what, .. } if what == field),
                "{error}"
            );
        }
        random(40, 0.9, 0).check().unwrap();
    }
}
