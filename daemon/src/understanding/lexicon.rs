//! Every word that means something here: the language's and those of the things that are connected.
//!
//! Rebuilt when a thing comes or goes; used to find names in a sentence and to tell typing
//! errors from words that we do not know.

use std::collections::BTreeSet;

use crate::things::description::ThingId;

use super::phrases::{Offers, choice_words};
use super::text::Token;
use super::wording::{Wording, Words, starts_with};

/// Shorter words are not corrected: too many words are one letter apart.
const CORRECTED_CHARS_MIN: usize = 3;

#[derive(Debug, Default)]
pub(super) struct Lexicon {
    names: Vec<Entry>,
    locations: Vec<(Words, ThingId)>,
    /// Words in the names of affordances and of the values of enumerations.
    affordances: BTreeSet<String>,
    known: BTreeSet<String>,
    targets: BTreeSet<String>,
}

#[derive(Debug)]
struct Entry {
    words: Words,
    thing: ThingId,
    is_kind: bool,
    is_plural: bool,
}

/// Names that start at one place of a sentence, all of the same words.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Named {
    pub things: BTreeSet<ThingId>,
    pub len: usize,
    pub is_kind: bool,
    pub is_plural: bool,
}

impl Lexicon {
    pub(super) fn new<'a>(
        things: impl Iterator<Item = &'a Offers> + Clone,
        wording: &Wording,
    ) -> Self {
        let mut lexicon = Self::default();
        for thing in things {
            lexicon.add(thing);
        }
        let never = &wording.grammar.never_correct;
        let own: BTreeSet<String> = lexicon.words();
        lexicon.known = wording.vocabulary();
        lexicon.targets = lexicon
            .known
            .iter()
            .filter(|word| !never.has(word))
            .chain(&own)
            .cloned()
            .collect();
        lexicon.known.extend(own);
        lexicon
    }

    fn add(&mut self, thing: &Offers) {
        for name in &thing.names {
            self.names.push(Entry {
                words: name.words.clone(),
                thing: thing.id.clone(),
                is_kind: name.is_kind,
                is_plural: name.is_plural,
            });
        }
        if let Some(location) = &thing.location {
            self.locations.push((location.clone(), thing.id.clone()));
        }
        for offer in &thing.offers {
            let slots = offer.slots.iter();
            let choices = slots.flat_map(|slot| slot.schema.choices.iter().flat_map(choice_words));
            let said = offer.names.iter().chain(&offer.own).cloned().chain(choices);
            self.affordances.extend(said.flatten());
        }
    }

    fn words(&self) -> BTreeSet<String> {
        let names = self.names.iter().flat_map(|entry| &entry.words);
        let locations = self.locations.iter().flat_map(|(words, _)| words);
        names
            .chain(locations)
            .chain(&self.affordances)
            .cloned()
            .collect()
    }

    /// The longest name at the start of `tokens`.
    pub(super) fn name_at(&self, tokens: &[Token]) -> Option<Named> {
        let fits = |entry: &&Entry| starts_with(tokens, &entry.words);
        let len = self
            .names
            .iter()
            .filter(fits)
            .map(|entry| entry.words.len())
            .max()?;
        let longest = || {
            self.names
                .iter()
                .filter(fits)
                .filter(|entry| entry.words.len() == len)
        };
        Some(Named {
            things: longest().map(|entry| entry.thing.clone()).collect(),
            len,
            is_kind: longest().all(|entry| entry.is_kind),
            is_plural: longest().all(|entry| entry.is_plural),
        })
    }

    /// The things at the location whose name starts `tokens`, and its length.
    pub(super) fn location_at(&self, tokens: &[Token]) -> Option<(BTreeSet<ThingId>, usize)> {
        let fits = |(words, _): &&(Words, ThingId)| starts_with(tokens, words);
        let len = self
            .locations
            .iter()
            .filter(fits)
            .map(|(words, _)| words.len())
            .max()?;
        let things = self
            .locations
            .iter()
            .filter(fits)
            .filter(|(words, _)| words.len() == len);
        Some((things.map(|(_, thing)| thing.clone()).collect(), len))
    }

    /// Whether an affordance or one of its values is called so.
    pub(super) fn is_affordance_word(&self, word: &str) -> bool {
        self.affordances.contains(word)
    }

    /// The word that was meant, if `word` is none and exactly one is a slip of the finger
    /// away: two letters swapped, one missing or one too many. A wrong letter is not
    /// corrected, because it usually makes another word ("look", "lock").
    pub(super) fn correction(&self, word: &str, wording: &Wording) -> Option<&str> {
        let length = word.chars().count();
        if length < CORRECTED_CHARS_MIN || !word.chars().all(char::is_alphabetic) {
            return None;
        }
        if self.known.contains(word)
            || stems(word, wording)
                .iter()
                .any(|stem| self.known.contains(stem))
        {
            return None;
        }
        let mut meant = self.targets.iter().filter(|target| is_slip(word, target));
        match (meant.next(), meant.next()) {
            (Some(only), None) => Some(only),
            _ => None,
        }
    }
}

fn is_slip(word: &str, target: &str) -> bool {
    let sorted = |text: &str| {
        let mut chars: Vec<char> = text.chars().collect();
        chars.sort_unstable();
        chars
    };
    let (length, wanted) = (word.chars().count(), target.chars().count());
    if wanted < CORRECTED_CHARS_MIN || length.abs_diff(wanted) > 1 {
        return false;
    }
    let kept_first = word.chars().next() == target.chars().next();
    let swapped = length == wanted && sorted(word) == sorted(target);
    (swapped || kept_first && length != wanted) && strsim::osa_distance(word, target) == 1
}

/// What a word may be a form of: without its plural, gerund or past ending.
pub(super) fn stems(word: &str, wording: &Wording) -> Vec<String> {
    let grammar = &wording.grammar;
    let endings = grammar
        .plural
        .iter()
        .chain(&grammar.gerund)
        .chain(&grammar.past);
    let mut stems = Vec::new();
    for ending in endings {
        stems.extend(stems_without(word, ending, wording));
    }
    stems
}

/// As [`stems`], for one ending: "switching" -> "switch", "switche"; "stopped" -> "stop".
pub(super) fn stems_without(word: &str, ending: &str, wording: &Wording) -> Vec<String> {
    let Some(stem) = word
        .strip_suffix(ending)
        .filter(|stem| stem.chars().count() >= 2)
    else {
        return Vec::new();
    };
    let restores = wording.grammar.stem_restores.iter();
    let mut stems: Vec<String> = restores.map(|restore| format!("{stem}{restore}")).collect();
    let mut chars = stem.chars().rev();
    if let (Some(last), Some(before)) = (chars.next(), chars.next())
        && last == before
    {
        stems.push(stem[..stem.len() - last.len_utf8()].to_owned());
    }
    stems
}
