//! One clause of a sentence: what kind of speech it is, and which part each word plays.
//!
//! Only words are looked at here, never similarity. What tells something, asks whether to do
//! something, forbids or is for later is no command, whatever verbs are in it.

use std::collections::BTreeSet;

use crate::things::description::ThingId;

use super::lexicon::Lexicon;
use super::speech::{Act, act, is_particle, strip_opening, without};
use super::text::{Amount, Token, TokenKind};
use super::wording::{GAP_TOKENS_MAX, PhraseList, Verb, Wording, Words};

/// How a clause points at things without naming them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reference {
    It,
    Other,
    Both,
}

/// The things that a clause names.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Mention {
    /// Named by title, alias or kind; narrowed by a location.
    pub things: BTreeSet<ThingId>,
    /// Only a location was named.
    pub by_location: bool,
    /// All of them are meant ("all lights").
    pub is_group: bool,
    /// Everything that can do it is meant.
    pub everything: bool,
    /// Named after "except".
    pub except: BTreeSet<ThingId>,
    /// The location that was named is not where the named thing is.
    pub elsewhere: bool,
    /// "a lamp", not "the lamp".
    pub indefinite: bool,
}

/// A number in a clause.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Number {
    pub amount: Amount,
    pub unit: Option<String>,
    pub said: String,
    /// The size of a change, not the value ("by 10 percent").
    pub is_change: bool,
}

/// More or less of something.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Change {
    /// 1 or -1.
    pub sign: f64,
    /// "brighter" says what of; "up" does not.
    pub quantity: Option<String>,
    /// Steps: 0.5 for "a bit", 2 for "a lot".
    pub steps: f64,
    /// Its size was said, so that it is no change to the very end.
    pub by_degrees: bool,
}

/// A word that nothing here explains.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Unknown {
    pub word: String,
    /// It stands right before a name, as "kitchen" in "kitchen light".
    pub modifies: bool,
    /// It follows a preposition, as "garage" in "in the garage".
    pub is_place: bool,
    /// It stands before the verb, where a command has nothing but names.
    pub is_subject: bool,
}

/// A clause and its parts.
#[derive(Debug, Clone)]
pub(super) struct Clause {
    pub tokens: Vec<Token>,
    pub act: Act,
    pub mention: Mention,
    pub reference: Option<Reference>,
    /// The reference may be to nothing ("how warm is it").
    pub impersonal: bool,
    /// Kinds that its verbs mean, first or second.
    pub verbs: BTreeSet<Verb>,
    /// Kinds that its verbs mean first.
    pub exact: BTreeSet<Verb>,
    pub numbers: Vec<Number>,
    pub quotes: Vec<String>,
    pub change: Option<Change>,
    /// "too": the command before, on this thing.
    pub also: bool,
    /// It ends where a value should follow ("dim it to").
    pub dangling: bool,
    pub unknown: Vec<Unknown>,
    /// Words were corrected.
    pub corrected: bool,
}

impl Clause {
    /// Reads one clause; `None` if it is only politeness.
    pub(super) fn read(
        tokens: &[Token],
        lexicon: &Lexicon,
        wording: &Wording,
        corrected: bool,
    ) -> Option<Self> {
        let grammar = &wording.grammar;
        let mut tokens = without(tokens, &grammar.fillers);
        let (opening, chat) = strip_opening(&mut tokens, wording);
        if tokens.is_empty() && !chat {
            return None;
        }
        let act = if chat {
            Act::Aside("starts as conversation does")
        } else {
            act(&mut tokens, opening, lexicon, wording)
        };
        Some(Reader::new(tokens, lexicon, wording).read(act, corrected))
    }

    /// Whether the whole clause is in the list.
    pub(super) fn is_only(&self, list: &PhraseList) -> bool {
        is_only(&self.tokens, list)
    }
}

/// Whether these tokens, without breaks, are one phrase of the list.
pub(super) fn is_only(tokens: &[Token], list: &PhraseList) -> bool {
    let words: Vec<&Token> = tokens
        .iter()
        .filter(|token| token.kind != TokenKind::Break)
        .collect();
    !words.is_empty() && list.prefix_len(&words) == words.len()
}

/// Gives each token its part; `used` marks those that are explained.
struct Reader<'a> {
    tokens: Vec<Token>,
    used: Vec<bool>,
    name_starts: BTreeSet<usize>,
    first_verb: Option<usize>,
    lexicon: &'a Lexicon,
    wording: &'a Wording,
}

impl<'a> Reader<'a> {
    fn new(tokens: Vec<Token>, lexicon: &'a Lexicon, wording: &'a Wording) -> Self {
        Self {
            used: vec![false; tokens.len()],
            name_starts: BTreeSet::new(),
            first_verb: None,
            tokens,
            lexicon,
            wording,
        }
    }

    fn read(mut self, act: Act, corrected: bool) -> Clause {
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

    fn prefix(&self, list: &PhraseList, at: usize) -> usize {
        list.prefix_len(&self.tokens[at..])
    }

    fn claim(&mut self, at: usize, len: usize) {
        self.used[at..at + len].fill(true);
    }

    fn find(&mut self, list: &PhraseList) -> bool {
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

    /// The kinds that are meant at all, and those meant first.
    fn verbs(&mut self) -> (BTreeSet<Verb>, BTreeSet<Verb>) {
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
    fn particles(&mut self) -> BTreeSet<Verb> {
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

    fn change(&mut self, verbs: &BTreeSet<Verb>) -> Option<Change> {
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

    fn numbers(&mut self, verbs: &BTreeSet<Verb>) -> Vec<Number> {
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

/// The words of a clause for the embedding model: `#` for values, units by their code, and
/// the name of what "it" refers to.
pub(super) fn text(clause: &Clause, wording: &Wording, referent: Option<&str>) -> String {
    let pronouns = &wording.references.pronouns;
    let mut text = Vec::with_capacity(clause.tokens.len());
    let mut replaced = clause.reference != Some(Reference::It);
    for token in &clause.tokens {
        match &token.kind {
            TokenKind::Number { unit, .. } => {
                let code = unit.as_ref().and_then(|unit| wording.units.get(unit));
                text.push("#".to_owned());
                text.extend(code.and_then(|unit| unit.codes.first()).cloned());
            }
            TokenKind::Quote(_) => text.push("#".to_owned()),
            TokenKind::Break => {}
            TokenKind::Word if !replaced && pronouns.has(&token.text) => {
                replaced = true;
                text.push(referent.map_or_else(|| token.text.clone(), str::to_lowercase));
            }
            TokenKind::Word => text.push(token.text.clone()),
        }
    }
    text.join(" ")
}
