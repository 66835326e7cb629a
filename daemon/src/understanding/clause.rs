//! One clause of a sentence: what kind of speech it is, and which part each word plays.
//!
//! Only words are looked at here, never similarity. What tells something, asks whether to do
//! something, forbids or is for later is no command, whatever verbs are in it.

use std::collections::BTreeSet;

use crate::things::description::ThingId;

use super::lexicon::Lexicon;
use super::reader::Reader;
use super::speech::{Act, act, strip_opening, without};
use super::text::{Amount, Token, TokenKind};
use super::wording::{PhraseList, Verb, Wording};

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
