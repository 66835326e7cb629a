//! What a clause says is to be done: verbs, particles, a change, numbers.

use std::collections::BTreeSet;

use super::clause::{Change, Number};
use super::reader::Reader;
use super::text::TokenKind;
use super::wording::{GAP_TOKENS_MAX, Verb};

impl Reader<'_> {
    /// The kinds that are meant at all, and those meant first.
    pub(super) fn verbs(&mut self) -> (BTreeSet<Verb>, BTreeSet<Verb>) {
        let mut found: Vec<(Vec<usize>, Verb, bool)> = Vec::new();
        for (verb, words) in &self.wording.verbs {
            for (list, exact) in [(&words.phrases, true), (&words.near, false)] {
                let placed = list.iter().filter_map(|phrase| self.place(phrase));
                found.extend(placed.map(|places| (places, *verb, exact)));
            }
        }
        found.sort_by_key(|(places, ..)| (std::cmp::Reverse(places.len()), places[0]));
        let mut taken: Vec<Vec<usize>> = Vec::new();
        let (mut verbs, mut exacts) = (BTreeSet::new(), BTreeSet::new());
        for (places, verb, exact) in found {
            let same = taken.contains(&places);
            if !same && places.iter().any(|at| self.used[*at]) {
                continue;
            }
            if !same {
                places.iter().for_each(|at| self.used[*at] = true);
                let first = places[0];
                self.first_verb = Some(self.first_verb.map_or(first, |known| known.min(first)));
                taken.push(places);
            }
            verbs.insert(verb);
            if exact {
                exacts.insert(verb);
            }
        }
        (verbs, exacts)
    }

    /// Where the words of a verb phrase stand, the leftmost.
    fn place(&self, phrase: &[String]) -> Option<Vec<usize>> {
        'start: for start in 0..self.tokens.len() {
            let mut places = Vec::with_capacity(phrase.len());
            let mut at = start;
            let mut gap = 0;
            for word in phrase {
                if word == "*" {
                    gap = GAP_TOKENS_MAX;
                    continue;
                }
                let Some(next) = (at..self.tokens.len().min(at + gap + 1))
                    .find(|i| self.tokens[*i].text == *word && !self.used[*i])
                else {
                    continue 'start;
                };
                places.push(next);
                at = next + 1;
                gap = 0;
            }
            return Some(places);
        }
        None
    }

    /// "on" and "off" that stand as adverbs, not before a noun.
    pub(super) fn particles(&mut self) -> BTreeSet<Verb> {
        let mut found = BTreeSet::new();
        for at in 0..self.tokens.len() {
            let ends = at + 1 == self.tokens.len()
                || self.prefix(&self.wording.grammar.after_particle, at + 1) > 0;
            if self.used[at] || !ends {
                continue;
            }
            for (verb, words) in &self.wording.verbs {
                if words.particles.has(&self.tokens[at].text) {
                    found.insert(*verb);
                    self.used[at] = true;
                }
            }
        }
        found
    }

    pub(super) fn change(&mut self, verbs: &BTreeSet<Verb>) -> Option<Change> {
        let references = &self.wording.references;
        let steps = if self.find(&references.slightly) {
            0.5
        } else if self.find(&references.much) {
            2.0
        } else {
            1.0
        };
        for (key, quantity) in &self.wording.quantities {
            for (list, sign) in [(&quantity.up, 1.0), (&quantity.down, -1.0)] {
                for at in 0..self.tokens.len() {
                    let len = self.prefix(list, at);
                    if len > 0 {
                        self.claim(at, len);
                        return Some(Change {
                            sign,
                            quantity: Some(key.clone()),
                            steps,
                            by_degrees: true,
                        });
                    }
                }
            }
        }
        let by_degrees = steps != 1.0;
        let has = |verb| verbs.contains(&verb);
        let up = has(Verb::Raise) || by_degrees && has(Verb::Open);
        let down = has(Verb::Lower) || by_degrees && has(Verb::Close);
        if up == down {
            return None;
        }
        Some(Change {
            sign: if up { 1.0 } else { -1.0 },
            quantity: None,
            steps,
            by_degrees,
        })
    }

    pub(super) fn numbers(&mut self, verbs: &BTreeSet<Verb>) -> Vec<Number> {
        let grammar = &self.wording.grammar;
        let moves = (verbs.contains(&Verb::Raise) || verbs.contains(&Verb::Lower))
            && !verbs.contains(&Verb::Set);
        let mut numbers = Vec::new();
        for at in 0..self.tokens.len() {
            let TokenKind::Number { amount, unit, said } = &self.tokens[at].kind else {
                continue;
            };
            let before = at
                .checked_sub(1)
                .map_or("", |i| self.tokens[i].text.as_str());
            let compared = at + 1 < self.tokens.len()
                && self.wording.quantities.values().any(|quantity| {
                    self.prefix(&quantity.up, at + 1) + self.prefix(&quantity.down, at + 1) > 0
                });
            numbers.push(Number {
                amount: *amount,
                unit: unit.clone(),
                said: said.clone(),
                is_change: grammar.change_prepositions.has(before)
                    || compared
                    || moves && at > 0 && !grammar.value_prepositions.has(before),
            });
            self.used[at] = true;
        }
        numbers
    }
}
