//! What a speaker does with a clause: command, ask, tell, forbid, put off.
//!
//! Decided by the words at its start and a few inside; what is not clearly a command is none.

use super::lexicon::{Lexicon, stems_without};
use super::text::{Token, TokenKind};
use super::wording::{PhraseList, Wording};

/// What the speaker does with a clause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Wants something done.
    Command,
    /// Wants to know a state.
    Question,
    /// Tells, forbids, muses, greets: not ours.
    Aside(&'static str),
    /// Wants something done, but not now.
    Deferred,
}

/// A clause before it is read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Piece {
    pub tokens: Vec<Token>,
    /// Joined to the clause before by "and" alone, so that what that one says of itself
    /// ("do not ...") goes on here.
    pub continues: bool,
}

/// Splits a sentence at punctuation and conjunctions.
pub(super) fn split(tokens: &[Token], wording: &Wording) -> Vec<Piece> {
    let has_group = |clause: &[Token]| {
        let references = &wording.references;
        let groups = |token: &Token| {
            references.everything.has(&token.text) || references.all.has(&token.text)
        };
        clause.iter().any(groups)
    };
    let mut pieces: Vec<Piece> = Vec::new();
    let mut current = Vec::new();
    let mut continues = false;
    let mut at = 0;
    while at < tokens.len() {
        let excepts =
            wording.references.except.prefix_len(&tokens[at..]) > 0 && has_group(&current);
        let stops = tokens[at].kind == TokenKind::Break;
        let joins = wording.grammar.conjunctions.prefix_len(&tokens[at..]);
        if stops || joins > 0 && !excepts {
            if !current.is_empty() {
                let tokens = std::mem::take(&mut current);
                pieces.push(Piece { tokens, continues });
                continues = true;
            }
            continues &= !stops && !wording.references.except.has(&tokens[at].text);
            at += joins.max(1);
        } else {
            current.push(tokens[at].clone());
            at += 1;
        }
    }
    if !current.is_empty() {
        pieces.push(Piece {
            tokens: current,
            continues,
        });
    }
    pieces
}

/// How the start of a clause was taken off.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Opening {
    wishes: bool,
    gerund: bool,
    requests: bool,
}

pub(super) fn without(tokens: &[Token], list: &PhraseList) -> Vec<Token> {
    let mut kept = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        match list.prefix_len(&tokens[at..]) {
            0 => {
                kept.push(tokens[at].clone());
                at += 1;
            }
            skip => at += skip,
        }
    }
    kept
}

/// Takes politeness off the start. The second value: what follows is conversation.
pub(super) fn strip_opening(tokens: &mut Vec<Token>, wording: &Wording) -> (Opening, bool) {
    let grammar = &wording.grammar;
    let mut opening = Opening::default();
    loop {
        let prefix = |list: &PhraseList| list.prefix_len(tokens);
        let lengths = [
            prefix(&grammar.polite),
            prefix(&grammar.polite_gerund),
            prefix(&grammar.wish),
            prefix(&grammar.requests),
        ];
        let longest = lengths.into_iter().max().unwrap_or(0);
        if prefix(&grammar.conversation) >= longest.max(1) || prefix(&grammar.negations) > longest {
            return (opening, true);
        }
        if longest == 0 {
            return (opening, false);
        }
        opening.gerund |= lengths[1] == longest;
        opening.wishes |= lengths[2] == longest;
        opening.requests |= lengths[3] == longest;
        tokens.drain(..longest);
    }
}

pub(super) fn act(
    tokens: &mut Vec<Token>,
    opening: Opening,
    lexicon: &Lexicon,
    wording: &Wording,
) -> Act {
    let grammar = &wording.grammar;
    let anywhere = |tokens: &[Token], list: &PhraseList| {
        (0..tokens.len()).any(|at| list.prefix_len(&tokens[at..]) > 0)
    };
    if anywhere(tokens, &grammar.negations) {
        return Act::Aside("says what not to do");
    }
    if opening.requests || grammar.questions.prefix_len(tokens) > 0 {
        return Act::Question;
    }
    if grammar.subjects.prefix_len(tokens) > 0 {
        return Act::Aside("tells something");
    }
    if is_deferred(tokens, wording) {
        return Act::Deferred;
    }
    if opening.wishes {
        *tokens = without(tokens, &grammar.copulas);
        for token in tokens.iter_mut() {
            restore(token, &grammar.past, wording);
        }
    } else if anywhere(tokens, &grammar.copulas) {
        return Act::Aside("states something");
    } else if tokens
        .iter()
        .any(|token| verb_stem(token, &grammar.past, wording).is_some())
    {
        return Act::Aside("reports something");
    }
    let starts_with_name = lexicon.name_at(tokens).is_some();
    if let Some(first) = tokens.first_mut().filter(|_| !starts_with_name) {
        if opening.gerund {
            restore(first, &grammar.gerund, wording);
        } else if verb_stem(first, &grammar.gerund, wording).is_some() {
            return Act::Aside("speaks about doing");
        }
    }
    Act::Command
}

fn is_deferred(tokens: &[Token], wording: &Wording) -> bool {
    let grammar = &wording.grammar;
    (0..tokens.len()).any(|at| {
        let later = match &tokens[at].kind {
            TokenKind::Number {
                unit: Some(unit), ..
            } => wording
                .units
                .get(unit)
                .is_some_and(|unit| unit.dimensions.iter().any(|dimension| dimension == "time")),
            _ => false,
        };
        let before = at > 0 && grammar.deferred_before.has(&tokens[at - 1].text);
        later && before || grammar.deferred.prefix_len(&tokens[at..]) > 0
    })
}

/// The verb that this word is a form of with one of these endings.
fn verb_stem(token: &Token, endings: &[String], wording: &Wording) -> Option<String> {
    let begins = |stem: &String| {
        let mut phrases = wording.verbs.values().flat_map(|verb| verb.phrases.iter());
        phrases.any(|phrase| phrase[0] == *stem)
    };
    endings
        .iter()
        .flat_map(|ending| stems_without(&token.text, ending, wording))
        .find(begins)
}

fn restore(token: &mut Token, endings: &[String], wording: &Wording) {
    let is_particle = wording
        .verbs
        .values()
        .any(|verb| verb.particles.has(&token.text));
    if token.is_word()
        && !is_particle
        && let Some(stem) = verb_stem(token, endings, wording)
    {
        token.text = stem;
    }
}

pub(super) fn is_particle(word: &str, wording: &Wording) -> bool {
    wording.verbs.values().any(|verb| verb.particles.has(word))
}
