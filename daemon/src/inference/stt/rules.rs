//! Which token may come next, and which one does. Pure: probabilities come in, randomness too.
//!
//! The model writes times between its words, as tokens: a segment is a time, words, a time. What may follow what is as its authors decode it
//! (Radford et al. 2022, section 4.5, and the timestamp rules of their published decoder): the first token is a time within the first second; after the
//! time of a beginning come words; after that of an end comes the end, or the beginning of the next segment; times never go back, and a segment is not
//! empty; and where all times together are likelier than the likeliest word, a time comes.

use std::ops::RangeInclusive;

use rand::Rng;

use super::super::manifest::WhisperGraph;

/// The first segment of a window begins within its first second, after the authors' decoder.
const FIRST_TIME_MAX_S: u32 = 1;

/// What the model's tokens mean.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    /// All ids that are words and may be chosen.
    words: Vec<u32>,
    pub(super) end: u32,
    pub(super) first_time: u32,
    /// Times from the first one on that a window may begin with.
    first_times: u32,
}

/// A token that was chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Chosen {
    pub(super) id: u32,
    /// Its natural logarithm, among the tokens that could have come.
    pub(super) log_probability: f64,
}

/// What may come next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Allowed {
    words: bool,
    end: bool,
    /// Empty where no time may come.
    times: RangeInclusive<u32>,
}

impl Rules {
    pub(super) fn of(graph: &WhisperGraph) -> Self {
        let tokens = &graph.tokens;
        // What is between the end and the first time is no word: languages, tasks and other marks.
        let words = (0..tokens.end).filter(|id| !tokens.suppressed.contains(id));
        let per_second = graph.sample_rate_hz as usize / tokens.timestamp_samples;
        Self {
            words: words.collect(),
            end: tokens.end,
            first_time: tokens.first_timestamp,
            first_times: u32::try_from(per_second).unwrap_or(u32::MAX) * FIRST_TIME_MAX_S,
        }
    }

    pub(super) fn is_time(&self, id: u32) -> bool {
        id >= self.first_time
    }

    /// What may follow `chosen` in a window whose end is the time `last_time`.
    pub(super) fn after(&self, chosen: &[u32], last_time: u32) -> Allowed {
        let none = RangeInclusive::new(1, 0);
        let time_before = chosen.iter().rev().copied().find(|id| self.is_time(*id));
        match (chosen, time_before) {
            ([], _) | (_, None) => Allowed {
                words: false,
                end: false,
                times: self.first_time..=last_time.min(self.first_time + self.first_times),
            },
            ([.., one, time], _) if self.is_time(*time) && !self.is_time(*one) => Allowed {
                words: false,
                end: true,
                times: *time..=last_time,
            },
            ([.., time], _) if self.is_time(*time) => Allowed {
                words: true,
                end: true,
                times: none,
            },
            (_, Some(before)) => Allowed {
                words: true,
                end: true,
                times: before + 1..=last_time,
            },
        }
    }

    /// Chooses the likeliest token, or with a `temperature` above 0 one by its probability. `None` where nothing that may come has a probability.
    pub(super) fn choose(
        &self,
        logits: &[f32],
        allowed: &Allowed,
        temperature: f32,
        random: &mut impl Rng,
    ) -> Option<Chosen> {
        let words = if allowed.words { &self.words[..] } else { &[] };
        let end = if allowed.end { &[self.end][..] } else { &[] };
        let times: Vec<u32> = allowed.times.clone().collect();
        let best_text = likelier(best(logits, words), best(logits, end));
        let best_time = best(logits, &times);
        let likeliest = likelier(best_text, best_time)?;
        let top = likeliest.logit;
        let time_mass = mass(logits, &times, top);
        // Together they are likelier than the likeliest word, so one of them it is.
        let is_time = best_time.is_some()
            && best_text.is_none_or(|text| time_mass > f64::from(text.logit - top).exp());
        let (pools, all) = match is_time {
            true => ([&times[..], &[], &[]], time_mass),
            false => {
                let text_mass = mass(logits, words, top) + mass(logits, end, top);
                ([words, end, &times], text_mass + time_mass)
            }
        };
        let chosen = match (temperature > 0.0, is_time) {
            (true, _) => sample(logits, pools, top, temperature, random)?,
            (false, true) => best_time?,
            (false, false) => likeliest,
        };
        Some(Chosen {
            id: chosen.id,
            log_probability: f64::from(chosen.logit - top) - all.ln(),
        })
    }
}

/// The probability of one id among all.
pub(super) fn probability(logits: &[f32], id: u32) -> f32 {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let all: f64 = logits
        .iter()
        .map(|logit| f64::from(logit - top).exp())
        .sum();
    logits
        .get(id as usize)
        .map_or(0.0, |logit| (f64::from(logit - top).exp() / all) as f32)
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    id: u32,
    logit: f32,
}

/// The logit of an id; a NaN, and what a graph rules out by an infinity, is none.
fn logit(logits: &[f32], id: u32) -> Option<f32> {
    logits.get(id as usize).copied().filter(|it| it.is_finite())
}

// Plain loops: all of them run over the whole vocabulary, for each token.

fn best(logits: &[f32], ids: &[u32]) -> Option<Candidate> {
    let mut best: Option<Candidate> = None;
    for &id in ids {
        if let Some(logit) = logit(logits, id)
            && best.is_none_or(|best| logit > best.logit)
        {
            best = Some(Candidate { id, logit });
        }
    }
    best
}

fn likelier(one: Option<Candidate>, other: Option<Candidate>) -> Option<Candidate> {
    match (one, other) {
        (Some(one), Some(other)) if other.logit > one.logit => Some(other),
        (one, other) => one.or(other),
    }
}

/// The sum of their probabilities, where `top` has 1.
fn mass(logits: &[f32], ids: &[u32], top: f32) -> f64 {
    let mut sum = 0.0;
    for &id in ids {
        if let Some(logit) = logit(logits, id) {
            sum += f64::from((logit - top).exp());
        }
    }
    sum
}

fn sample(
    logits: &[f32],
    pools: [&[u32]; 3],
    top: f32,
    temperature: f32,
    random: &mut impl Rng,
) -> Option<Candidate> {
    let weights = || {
        let ids = pools.into_iter().flatten().copied();
        let candidates = ids.filter_map(|id| {
            Some(Candidate {
                id,
                logit: logit(logits, id)?,
            })
        });
        candidates.map(|one| (one, f64::from((one.logit - top) / temperature).exp()))
    };
    let all: f64 = weights().map(|(_, weight)| weight).sum();
    let mut left = random.random::<f64>() * all;
    let mut last = None;
    for (one, weight) in weights() {
        left -= weight;
        last = Some(one);
        if left <= 0.0 {
            break;
        }
    }
    last
}
