//! From logits to the next token: pure, and deterministic for a seed.
//!
//! The order is penalties, then what is [allowed](super::constrain), then temperature, min-p, top-k and top-p, each on what the one
//! before left. [`Sampler::next`] chooses and remembers nothing; [`Sampler::accept`] tells what became part of the answer, so that
//! guessed and forced tokens count like chosen ones.

use std::collections::HashMap;

use llguidance::toktrie::SimpleVob;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::super::error::InferenceError;

#[cfg(test)]
mod tests;

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
        /// Only those at least this fraction as likely as the likeliest; 0 is all (Nguyen et al. 2024, arXiv:2407.01082). 0 <= p <= 1.
        min_p: f32,
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
    /// Is taken from a token's logit once for each time that the answer holds it (OpenAI's API). 0 leaves it alone. -2 to 2.
    pub frequency_penalty: f32,
    /// Is taken from the logits of all tokens that the answer holds (OpenAI's API). 0 leaves them alone. -2 to 2.
    pub presence_penalty: f32,
}

impl Default for Sampling {
    /// Greedy, without penalties.
    fn default() -> Self {
        Self {
            choice: Choice::Greedy,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
        }
    }
}

impl Sampling {
    /// Checks the ranges that the fields state.
    ///
    /// # Errors
    /// [`InferenceError::OutOfRange`] naming the field.
    pub fn check(&self) -> Result<(), InferenceError> {
        let require = |holds: bool, what, actual: f32, allowed: &str| {
            if holds {
                return Ok(());
            }
            Err(InferenceError::OutOfRange {
                what,
                actual: actual.to_string(),
                allowed: allowed.into(),
            })
        };
        let Self {
            choice,
            repetition_penalty: repetition,
            frequency_penalty: frequency,
            presence_penalty: presence,
        } = *self;
        require(
            (0.5..=2.0).contains(&repetition),
            "repetition_penalty",
            repetition,
            "0.5 to 2",
        )?;
        for (what, penalty) in [
            ("frequency_penalty", frequency),
            ("presence_penalty", presence),
        ] {
            require((-2.0..=2.0).contains(&penalty), what, penalty, "-2 to 2")?;
        }
        let Choice::Random {
            temperature,
            top_p,
            min_p,
            ..
        } = choice
        else {
            return Ok(());
        };
        let above = |value: f32, most| value > 0.0 && value <= most;
        require(
            above(temperature, 5.0),
            "temperature",
            temperature,
            "more than 0, up to 5",
        )?;
        require(above(top_p, 1.0), "top_p", top_p, "more than 0, up to 1")?;
        require((0.0..=1.0).contains(&min_p), "min_p", min_p, "0 to 1")
    }

    fn penalises(&self) -> bool {
        self.repetition_penalty != 1.0
            || self.frequency_penalty != 0.0
            || self.presence_penalty != 0.0
    }
}

/// Draws the tokens of one answer.
#[derive(Debug)]
pub(super) struct Sampler {
    sampling: Sampling,
    rng: StdRng,
    /// What prompt and answer hold, and how often the answer does.
    said: HashMap<u32, u32>,
    penalised: Vec<f32>,
    candidates: Vec<(u32, f32)>,
}

impl Sampler {
    /// `prompt` is what counts as said already, for the repetition penalty alone.
    pub(super) fn new(sampling: Sampling, prompt: &[u32]) -> Self {
        let seed = if let Choice::Random { seed, .. } = sampling.choice {
            seed
        } else {
            0
        };
        let said = if sampling.penalises() {
            prompt.iter().map(|&id| (id, 0)).collect()
        } else {
            HashMap::new()
        };
        Self {
            sampling,
            rng: StdRng::seed_from_u64(seed),
            said,
            penalised: Vec::new(),
            candidates: Vec::new(),
        }
    }

    /// The next token, given one logit per token id, among the `allowed` ones. `None` when none of those has a logit that is a
    /// number, which only a broken model or a broken form can bring about.
    pub(super) fn next(&mut self, logits: &[f32], allowed: Option<&SimpleVob>) -> Option<u32> {
        let logits = if self.sampling.penalises() {
            penalise(&mut self.penalised, logits, &self.said, &self.sampling);
            &self.penalised
        } else {
            logits
        };
        let (likeliest, highest) = match allowed {
            None => argmax(logits),
            Some(allowed) => argmax_of(logits, allowed),
        }?;
        let Choice::Random {
            temperature,
            top_k,
            top_p,
            min_p,
            ..
        } = self.sampling.choice
        else {
            return Some(likeliest);
        };
        // What lies further below the top has less than e^-30 of its probability; leaving it out spares sorting the whole vocabulary.
        let floor = highest - temperature * (-min_p.ln()).min(30.0);
        self.candidates.clear();
        self.candidates
            .extend((0u32..).zip(logits.iter().copied()).filter(|&(id, logit)| {
                logit >= floor && allowed.is_none_or(|allowed| is_allowed(allowed, id))
            }));
        self.candidates
            .sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        if top_k > 0 {
            self.candidates.truncate(top_k);
        }
        let drawn = draw(
            &mut self.candidates,
            highest,
            temperature,
            top_p,
            &mut self.rng,
        );
        Some(drawn.unwrap_or(likeliest))
    }

    /// These tokens are part of the answer now.
    pub(super) fn accept(&mut self, ids: &[u32]) {
        if self.sampling.penalises() {
            for &id in ids {
                *self.said.entry(id).or_default() += 1;
            }
        }
    }
}

fn penalise(into: &mut Vec<f32>, logits: &[f32], said: &HashMap<u32, u32>, how: &Sampling) {
    into.clear();
    into.extend_from_slice(logits);
    for (&id, &times) in said {
        let Some(logit) = into.get_mut(id as usize) else {
            continue;
        };
        if *logit > 0.0 {
            *logit /= how.repetition_penalty;
        } else {
            *logit *= how.repetition_penalty;
        }
        if times > 0 {
            *logit -= how.presence_penalty + how.frequency_penalty * times as f32;
        }
    }
}

/// The first of the highest; NaN is never the highest.
fn argmax(logits: &[f32]) -> Option<(u32, f32)> {
    // Sixteen highest side by side, and the index in a second pass: the compiler makes vector instructions of it.
    let mut lanes = [f32::NEG_INFINITY; 16];
    let chunks = logits.chunks_exact(lanes.len());
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &logit) in lanes.iter_mut().zip(chunk) {
            *lane = if logit > *lane { logit } else { *lane };
        }
    }
    let highest = lanes
        .iter()
        .chain(rest)
        .copied()
        .fold(f32::NEG_INFINITY, f32::max);
    let at = logits.iter().position(|&logit| logit == highest)?;
    Some((u32::try_from(at).ok()?, highest))
}

/// The same among the allowed ones, which are often few.
fn argmax_of(logits: &[f32], allowed: &SimpleVob) -> Option<(u32, f32)> {
    let mut best = None;
    for id in allowed.iter() {
        let logit = *logits.get(id as usize).unwrap_or(&f32::NAN);
        if !logit.is_nan() && best.is_none_or(|(_, highest)| logit > highest) {
            best = Some((id, logit));
        }
    }
    best
}

/// The mask may be shorter than the vocabulary.
fn is_allowed(allowed: &SimpleVob, id: u32) -> bool {
    (id as usize) < allowed.len() && allowed.is_allowed(id)
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
