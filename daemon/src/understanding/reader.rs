//! Gives each word of a clause its part: names first, then verbs, then what is left.
//!
//! The result is a [`Clause`], whose parts tell what each is.

use std::collections::BTreeSet;

use crate::things::description::ThingId;

use super::clause::{Clause, Mention, Reference, Unknown};
use super::lexicon::Lexicon;
use super::speech::{Act, is_particle};
use super::text::{Token, TokenKind};
use super::wording::{PhraseList, Verb, Wording, Words};

/// Gives each token its part; `used` marks those that are explained.
pub(super) struct Reader<'a> {
    pub(super) tokens: Vec<Token>,
    pub(super) used: Vec<bool>,
    name_starts: BTreeSet<usize>,
    pub(super) first_verb: Option<usize>,
    lexicon: &'a Lexicon,
    pub(super) wording: &'a Wording,
}

impl<'a> Reader<'a> {
    pub(super) fn new(tokens: Vec<Token>, lexicon: &'a Lexicon, wording: &'a Wording) -> Self {
        Self {
            used: vec![false; tokens.len()],
            name_starts: BTreeSet::new(),
            first_verb: None,
            tokens,
            lexicon,
            wording,
        }
    }

    pub(super) fn read(mut self, act: Act, corrected: bool) -> Clause {
        let reference = self.reference();
        let impersonal = reference == Some(Reference::It)
            && self
                .tokens
                .iter()
                .any(|token| self.wording.references.impersonal.has(&token.text));
        let mention = self.mention();
        let (mut verbs, mut exact) = self.verbs();
        let particles = self.particles();
        if !particles.is_empty() {
            // "turn" of "turn it on" only carries the particle.
            verbs.remove(&Verb::Set);
            exact.remove(&Verb::Set);
        }
        verbs.extend(&particles);
        exact.extend(&particles);
        let change = self.change(&verbs);
        let numbers = self.numbers(&verbs);
        let also =
            (0..self.tokens.len()).any(|at| self.prefix(&self.wording.references.also, at) > 0);
        let last = self.tokens.last().map_or("", |token| token.text.as_str());
        Clause {
            dangling: self.wording.grammar.value_prepositions.has(last)
                && !self.used.last().copied().unwrap_or(false),
            quotes: self.quotes(),
            unknown: self.unknown(),
            tokens: self.tokens,
            act,
            mention,
            reference,
            impersonal,
            verbs,
            exact,
            numbers,
            change,
            also,
            corrected,
        }
    }

    pub(super) fn prefix(&self, list: &PhraseList, at: usize) -> usize {
        list.prefix_len(&self.tokens[at..])
    }

    pub(super) fn claim(&mut self, at: usize, len: usize) {
        self.used[at..at + len].fill(true);
    }

    pub(super) fn find(&mut self, list: &PhraseList) -> bool {
        for at in 0..self.tokens.len() {
            let len = self.prefix(list, at);
            if len > 0 && !self.used[at..at + len].contains(&true) {
                self.claim(at, len);
                return true;
            }
        }
        false
    }

    fn reference(&mut self) -> Option<Reference> {
        let references = &self.wording.references;
        if self.find(&references.other) {
            return Some(Reference::Other);
        }
        // "both lights" names what "both" refers to; "that lamp" is a name, not a reference.
        if !self.precedes_noun(&references.both) && self.find(&references.both) {
            return Some(Reference::Both);
        }
        if !self.precedes_noun(&references.pronouns) && self.find(&references.pronouns) {
            return Some(Reference::It);
        }
        None
    }

    /// Whether one of the list stands before a noun, as a determiner does.
    fn precedes_noun(&self, list: &PhraseList) -> bool {
        (0..self.tokens.len()).any(|at| {
            let len = self.prefix(list, at);
            let mut next = at + len;
            next += usize::from(len > 0 && self.determiner(next));
            let determines =
                self.determiner(at) || self.prefix(&self.wording.references.all, at) > 0;
            len > 0 && determines && next < self.tokens.len() && self.noun_at(next)
        })
    }

    fn determiner(&self, at: usize) -> bool {
        self.tokens
            .get(at)
            .is_some_and(|token| self.wording.grammar.determiners.has(&token.text))
    }

    fn noun_at(&self, at: usize) -> bool {
        let token = &self.tokens[at];
        self.lexicon.name_at(&self.tokens[at..]).is_some()
            || self.lexicon.is_affordance_word(&token.text)
                && !is_particle(&token.text, self.wording)
            || token.is_word() && !self.is_explained(at)
    }

    fn mention(&mut self) -> Mention {
        let mut mention = Mention::default();
        let mut located: Option<BTreeSet<ThingId>> = None;
        let mut excepting = false;
        let mut at = 0;
        while at < self.tokens.len() {
            let everything = self.prefix(&self.wording.references.everything, at);
            if everything > 0 {
                mention.everything = true;
                self.claim(at, everything);
                at += everything;
                continue;
            }
            if (mention.everything || mention.is_group)
                && self.prefix(&self.wording.references.except, at) > 0
            {
                let len = self.prefix(&self.wording.references.except, at);
                excepting = true;
                self.claim(at, len);
                at += len;
                continue;
            }
            let named = self.lexicon.name_at(&self.tokens[at..]);
            let place = self.lexicon.location_at(&self.tokens[at..]);
            let place_len = place.as_ref().map_or(0, |(_, len)| *len);
            match (named, place) {
                (Some(named), _) if named.len >= place_len && !self.is_verb_here(at, named.len) => {
                    self.claim(at, named.len);
                    self.name_starts.insert(at);
                    let len = named.len;
                    if excepting {
                        mention.except.extend(named.things);
                    } else {
                        mention.is_group |= named.is_kind && named.is_plural || self.all_before(at);
                        mention.indefinite |= self.indefinite_before(at);
                        merge(&mut mention.things, named.things);
                    }
                    at += len;
                }
                (_, Some((things, len))) => {
                    self.claim(at, len);
                    self.name_starts.insert(at);
                    located = Some(things);
                    at += len;
                }
                _ => at += 1,
            }
        }
        if let Some(place) = located {
            let both: BTreeSet<ThingId> = mention.things.intersection(&place).cloned().collect();
            if mention.things.is_empty() {
                mention.by_location = true;
                mention.things = place;
            } else if both.is_empty() {
                mention.elsewhere = true;
            } else {
                mention.things = both;
            }
        }
        mention
    }

    /// A clause starts with its verb, also where a thing is called like one ("lock the door").
    fn is_verb_here(&self, at: usize, len: usize) -> bool {
        let starts = |phrase: &Words| phrase[0] == self.tokens[at].text;
        at == 0
            && len == 1
            && self.tokens.len() > 1
            && self
                .wording
                .verbs
                .values()
                .any(|verb| verb.phrases.iter().any(starts))
    }

    fn all_before(&self, at: usize) -> bool {
        let all = &self.wording.references.all;
        (0..at).any(|start| start + self.prefix(all, start) == at)
            || at > 0
                && self.determiner(at - 1)
                && (0..at - 1).any(|start| start + self.prefix(all, start) == at - 1)
    }

    fn indefinite_before(&self, at: usize) -> bool {
        at > 0
            && self
                .wording
                .grammar
                .indefinite
                .has(&self.tokens[at - 1].text)
    }

    fn quotes(&self) -> Vec<String> {
        let quote = |token: &Token| match &token.kind {
            TokenKind::Quote(text) => Some(text.clone()),
            _ => None,
        };
        self.tokens.iter().filter_map(quote).collect()
    }

    fn is_explained(&self, at: usize) -> bool {
        let word = &self.tokens[at].text;
        let grammar = &self.wording.grammar;
        let numbers = &self.wording.numbers;
        let lists = [
            &grammar.stop,
            &grammar.determiners,
            &grammar.indefinite,
            &grammar.prepositions,
            &grammar.copulas,
            &grammar.questions,
            &grammar.harmless,
            &numbers.largest,
            &numbers.smallest,
            &self.wording.references.all,
        ];
        self.used[at]
            || !self.tokens[at].is_word()
            || lists.iter().any(|list| list.has(word))
            || self.wording.references.ordinals.contains(word)
            || self.lexicon.is_affordance_word(word)
            || self
                .wording
                .quantities
                .values()
                .any(|quantity| quantity.names.has(word) || quantity.adjectives.has(word))
            || stems_of(word, self.wording)
                .iter()
                .any(|stem| self.lexicon.is_affordance_word(stem))
    }

    /// A word between "the" and a name says which one, whatever else it may mean
    /// ("the back door").
    fn singles_out(&self, at: usize) -> bool {
        at > 0
            && self.determiner(at - 1)
            && self.name_starts.contains(&(at + 1))
            && !self.used[at]
            && self.tokens[at].is_word()
            && !self.wording.grammar.harmless.has(&self.tokens[at].text)
    }

    fn unknown(&self) -> Vec<Unknown> {
        let grammar = &self.wording.grammar;
        (0..self.tokens.len())
            .filter(|at| !self.is_explained(*at) || self.singles_out(*at))
            .map(|at| {
                let mut before = at;
                while before > 0 && (self.determiner(before - 1) || !self.is_explained(before - 1))
                {
                    before -= 1;
                }
                Unknown {
                    word: self.tokens[at].text.clone(),
                    modifies: self.name_starts.contains(&(at + 1)),
                    is_subject: self.first_verb.is_some_and(|verb| at < verb),
                    is_place: before > 0 && grammar.prepositions.has(&self.tokens[before - 1].text),
                }
            })
            .collect()
    }
}

fn stems_of(word: &str, wording: &Wording) -> Vec<String> {
    super::lexicon::stems(word, wording)
}

/// Two names in one clause narrow each other ("the light ... the desk lamp") or add up.
fn merge(things: &mut BTreeSet<ThingId>, named: BTreeSet<ThingId>) {
    let both: BTreeSet<ThingId> = things.intersection(&named).cloned().collect();
    if things.is_empty() || both.is_empty() {
        things.extend(named);
    } else {
        *things = both;
    }
}
