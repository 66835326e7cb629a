//! What the words of a clause say for certain about an operation: its verb, its name, its quantity.

use super::catalogue::Catalogue;
use super::clause::Clause;
use super::lexicon::stems;
use super::phrases::{Offer, contains};
use super::text::Token;
use super::wording::{Verb, Wording, Words};

/// Whether the clause has a verb of this operation's kind, or its own name.
pub(super) fn verb_said(
    offer: &Offer,
    clause: &Clause,
    siblings: &[Offer],
    catalogue: &Catalogue,
) -> bool {
    if offer
        .own
        .iter()
        .any(|own| says_own(own, &clause.tokens, catalogue))
    {
        return true;
    }
    if offer.verbs.intersection(&clause.verbs).next().is_some() {
        return true;
    }
    // What opens and closes is raised and lowered, unless it can be moved by degrees too.
    let moves = |verb| offer.verbs.contains(&verb) && clause.change.is_some();
    let opens = siblings
        .iter()
        .any(|offer| offer.verbs.contains(&Verb::Open));
    opens
        && (clause.verbs.contains(&Verb::Raise) && moves(Verb::Open)
            || clause.verbs.contains(&Verb::Lower) && moves(Verb::Close))
}

/// Whether the clause's verbs mean something else first.
pub(super) fn is_near(offer: &Offer, clause: &Clause) -> bool {
    let second = offer.verbs.intersection(&clause.verbs).next().is_some();
    second && offer.verbs.intersection(&clause.exact).next().is_none()
}

/// All words of an action's own name, in any form, in this order.
fn says_own(own: &[String], tokens: &[Token], catalogue: &Catalogue) -> bool {
    let wording = &catalogue.wording;
    let mut rest = tokens.iter();
    own.iter()
        .filter(|word| !wording.grammar.stop.has(word) || own.len() == 1)
        .all(|word| {
            rest.any(|token| token.text == *word || stems(&token.text, wording).contains(word))
        })
}

fn said_words(clause: &Clause) -> Words {
    clause
        .tokens
        .iter()
        .map(|token| token.text.clone())
        .collect()
}

/// How surely the clause names the affordance, 0 to 1.
pub(super) fn name_said(offer: &Offer, clause: &Clause, catalogue: &Catalogue) -> f32 {
    let said = said_words(clause);
    let longest = offer
        .names
        .iter()
        .filter(|name| contains(&said, name))
        .map(Vec::len)
        .max();
    if let Some(words) = longest {
        return if words > 1 { 1.0 } else { 0.9 };
    }
    let speaks_of = |key: &String| speaks_of(clause, key, &catalogue.wording);
    match offer.quantities.iter().any(speaks_of) {
        true if offer.is_setting && offer.is_read() => 0.4,
        true => 0.6,
        false => 0.0,
    }
}

/// Whether the clause speaks of what this reading tells, by more than a word that any sentence has
/// ("on").
pub(super) fn is_asked(offer: &Offer, clause: &Clause, wording: &Wording) -> bool {
    let said = said_words(clause);
    let telling = |name: &&Words| name.iter().any(|word| !wording.grammar.stop.has(word));
    offer
        .names
        .iter()
        .filter(telling)
        .any(|name| contains(&said, name))
        || offer
            .quantities
            .iter()
            .any(|key| speaks_of(clause, key, wording))
}

/// Whether the clause has a word for this quantity.
pub(super) fn speaks_of(clause: &Clause, key: &String, wording: &Wording) -> bool {
    let named = |quantity: &super::wording::Quantity| {
        (0..clause.tokens.len()).any(|at| {
            let rest = &clause.tokens[at..];
            quantity.names.prefix_len(rest) + quantity.adjectives.prefix_len(rest) > 0
        })
    };
    let changes = clause
        .change
        .as_ref()
        .and_then(|change| change.quantity.as_ref());
    changes == Some(key) || wording.quantities.get(key).is_some_and(named)
}
