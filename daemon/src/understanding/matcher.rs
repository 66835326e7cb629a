//! Which operations a clause may mean, and how well each fits.
//!
//! The score is the similarity of the nearest phrase plus what the words say for certain: a verb of
//! the operation's kind, the name of the affordance, a value that fits. Words also exclude: an
//! operation is no candidate if the clause has a verb of another kind ("lock" never unlocks),
//! or a value that the operation has no place for.

use std::collections::BTreeSet;

use crate::things::description::ThingId;

use super::catalogue::Catalogue;
use super::clause::Clause;
use super::evidence::{is_near, name_said, verb_said};
use super::phrases::{Offer, Target, is_text};
use super::slots::{Filled, changed, fill, whole_input};
use super::wording::Verb;
use super::{Call, Operation, Refusal, StateSnapshot};

/// What certain evidence is worth beside a similarity of -1 to 1. Chosen so that a verb outweighs any
/// difference between the similarities of antonyms, which embeddings place within 0.2 of each other.
const VERB_WEIGHT: f32 = 0.3;
/// A verb that means another kind first; see [`VERB_WEIGHT`].
const NEAR_VERB_WEIGHT: f32 = 0.2;
/// See [`VERB_WEIGHT`].
const NAME_WEIGHT: f32 = 0.25;
/// See [`VERB_WEIGHT`].
const VALUE_WEIGHT: f32 = 0.15;

/// An operation that the clause may mean.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub thing: ThingId,
    pub offer: usize,
    pub outcome: Outcome,
    pub similarity: f32,
    pub phrase: Option<String>,
    /// The clause has a verb of its kind, or its own name.
    pub verb_said: bool,
    /// 0 to 1: the affordance is named.
    pub name_said: f32,
    pub score: f32,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    Call(Call),
    Missing(usize),
    Refused(Refusal),
}

impl Candidate {
    pub(super) fn call(&self) -> Option<&Call> {
        match &self.outcome {
            Outcome::Call(call) => Some(call),
            _ => None,
        }
    }

    /// The verb, or a value that fits, was said.
    pub(super) fn is_said(&self, catalogue: &Catalogue) -> bool {
        let takes_value = offer(catalogue, self).is_some_and(Offer::takes_value);
        self.verb_said || takes_value && !matches!(self.outcome, Outcome::Missing(_))
    }
}

/// The offer of a candidate.
pub(super) fn offer<'a>(catalogue: &'a Catalogue, candidate: &Candidate) -> Option<&'a Offer> {
    catalogue
        .things
        .get(&candidate.thing)?
        .offers
        .offers
        .get(candidate.offer)
}

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Change,
    Reading,
}

/// All candidates among `scope`, the best first.
pub(super) fn candidates(
    catalogue: &Catalogue,
    clause: &Clause,
    vector: Option<&Vec<f32>>,
    scope: &BTreeSet<ThingId>,
    wanted: Wanted,
    state: &dyn StateSnapshot,
) -> Vec<Candidate> {
    let mut found = Vec::new();
    for thing in scope {
        let Some(entry) = catalogue.things.get(thing) else {
            continue;
        };
        let nearest = nearest(entry, vector);
        for (index, offer) in entry.offers.offers.iter().enumerate() {
            if offer.is_read() != (wanted == Wanted::Reading) {
                continue;
            }
            let verb_said = verb_said(offer, clause, entry.offers.offers.as_slice(), catalogue);
            // "what is it set to" asks for what was set, not for what is measured.
            let asked_setting = wanted == Wanted::Reading
                && clause.verbs.contains(&Verb::Set)
                && clause.dangling
                && is_set(offer, &entry.offers.offers);
            let name_said = name_said(offer, clause, catalogue);
            let name_said = if asked_setting {
                name_said.max(0.6)
            } else {
                name_said
            };
            let outcome = match wanted {
                Wanted::Reading => clause
                    .numbers
                    .is_empty()
                    .then(|| call(thing, offer, None).map_or(Outcome::Missing(0), Outcome::Call)),
                Wanted::Change => {
                    change(catalogue, clause, thing, offer, verb_said, name_said, state)
                }
            };
            let Some(outcome) = outcome else { continue };
            let (similarity, phrase) = nearest
                .get(index)
                .and_then(|best| *best)
                .map_or((0.0, None), |(similarity, phrase)| {
                    (similarity, Some(phrase.to_owned()))
                });
            let valued = offer.takes_value() && matches!(outcome, Outcome::Call(_));
            let verb = match (verb_said, is_near(offer, clause)) {
                (false, _) => 0.0,
                (true, true) => NEAR_VERB_WEIGHT,
                (true, false) => VERB_WEIGHT,
            };
            let score = similarity
                + verb
                + NAME_WEIGHT * name_said
                + VALUE_WEIGHT * f32::from(u8::from(valued));
            found.push(Candidate {
                thing: thing.clone(),
                offer: index,
                outcome,
                similarity,
                phrase,
                verb_said,
                name_said,
                score,
            });
        }
    }
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    found
}

/// Whether a person gives this property its value, by writing it or by an action.
fn is_set(offer: &Offer, siblings: &[Offer]) -> bool {
    offer.is_setting
        || siblings
            .iter()
            .any(|other| other.takes_value() && other.sets == offer.sets)
}

type Nearest<'a> = Vec<Option<(f32, &'a str)>>;

/// For each offer its phrase that is nearest to the clause.
fn nearest<'a>(entry: &'a super::catalogue::Entry, vector: Option<&Vec<f32>>) -> Nearest<'a> {
    let mut best: Nearest<'a> = vec![None; entry.offers.offers.len()];
    let Some(vector) = vector else { return best };
    for (phrase, embedded) in &entry.phrases {
        let similarity = dot(vector, embedded);
        if let Some(slot) = best.get_mut(phrase.operation)
            && slot.is_none_or(|(known, _)| similarity > known)
        {
            *slot = Some((similarity, phrase.text.as_str()));
        }
    }
    best
}

/// The cosine of two unit vectors; 0 where they cannot be compared.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    if a.len() != b.len() {
        return 0.0;
    }
    let sum: f32 = a.iter().zip(b).map(|(x, y)| x * y).sum();
    if sum.is_finite() { sum } else { 0.0 }
}

/// Verbs that may come with a value for any setting.
const VALUE_VERBS: &[Verb] = &[
    Verb::Set,
    Verb::Raise,
    Verb::Lower,
    Verb::TurnOn,
    Verb::Start,
    Verb::Open,
    Verb::Play,
    Verb::Show,
];

fn change(
    catalogue: &Catalogue,
    clause: &Clause,
    thing: &ThingId,
    offer: &Offer,
    verb_said: bool,
    name_said: f32,
    state: &dyn StateSnapshot,
) -> Option<Outcome> {
    let entry = catalogue.things.get(thing)?;
    let title = entry.offers.title.as_str();
    let absolute = clause.numbers.iter().any(|number| !number.is_change);
    if let Some(change) = clause
        .change
        .as_ref()
        .filter(|_| !absolute && offer.takes_value())
    {
        let concerns = match &change.quantity {
            Some(quantity) => offer.quantities.contains(quantity),
            None => !offer.quantities.is_empty(),
        };
        let opens = entry
            .offers
            .offers
            .iter()
            .any(|offer| offer.verbs.contains(&Verb::Open));
        if let ([slot], Some(property)) = (offer.slots.as_slice(), &offer.sets)
            && concerns
            && (!opens || change.by_degrees || !clause.numbers.is_empty())
        {
            let Some(present) = state.value(thing, property) else {
                return Some(Outcome::Refused(Refusal::StateUnknown {
                    thing: title.to_owned(),
                    property: offer.title.clone(),
                }));
            };
            return Some(
                match changed(slot, &present, change, clause, title, &catalogue.wording) {
                    Ok(value) => checked(catalogue, thing, offer, Some(whole_input(slot, value))),
                    Err(refusal) => Outcome::Refused(refusal),
                },
            );
        }
        if !verb_said {
            return None;
        }
    }
    if clause
        .change
        .as_ref()
        .is_some_and(|change| change.by_degrees)
        && !offer.takes_value()
    {
        return None;
    }
    let filled = fill(offer, clause, title, &catalogue.wording);
    let other_verb = !clause.verbs.is_empty() && !verb_said;
    let may_value = clause.verbs.iter().any(|verb| VALUE_VERBS.contains(verb));
    match filled {
        Filled::Unfit => None,
        Filled::Value(input) if offer.takes_value() => {
            (!other_verb || may_value).then(|| checked(catalogue, thing, offer, input))
        }
        Filled::Value(input) => (!other_verb).then(|| checked(catalogue, thing, offer, input)),
        Filled::Refused(refusal) => (!other_verb || may_value).then_some(Outcome::Refused(refusal)),
        Filled::Missing(slot) => {
            let shown = offer.slots.iter().any(|slot| is_text(&slot.schema)) && verb_said;
            let set = clause.verbs.contains(&Verb::Set) || clause.dangling || shown;
            (set && !other_verb || name_said > 0.8 && clause.verbs.contains(&Verb::Set))
                .then_some(Outcome::Missing(slot))
        }
    }
}

/// The call, if the thing's own schemas allow it.
fn checked(
    catalogue: &Catalogue,
    thing: &ThingId,
    offer: &Offer,
    input: Option<serde_json::Value>,
) -> Outcome {
    let Some(call) = call(thing, offer, input) else {
        return Outcome::Missing(0);
    };
    match check(catalogue, &call) {
        Ok(()) => Outcome::Call(call),
        Err(refusal) => Outcome::Refused(refusal),
    }
}

/// Whether the thing's schemas allow this call.
pub(super) fn check(catalogue: &Catalogue, call: &Call) -> Result<(), Refusal> {
    use crate::things::schema::CheckError;
    let not_offered = |thing: String| Refusal::NotOffered { thing };
    let Some(entry) = catalogue.things.get(&call.thing) else {
        return Err(not_offered(call.thing.to_string()));
    };
    let checked = match &call.operation {
        Operation::Invoke { action, input } => entry.schemas.check_input(action, input.as_ref()),
        Operation::Read { property } => entry.schemas.check_read(property),
        Operation::Write { property, value } => entry.schemas.check_write(property, value),
    };
    checked.map_err(|error| match error {
        CheckError::Value(error) => Refusal::Value(error),
        CheckError::NoSuchAction { thing, .. }
        | CheckError::NoSuchProperty { thing, .. }
        | CheckError::ReadOnly { thing, .. }
        | CheckError::WriteOnly { thing, .. } => not_offered(thing),
    })
}

/// The call of an offer with this input; `None` if it needs one.
pub(super) fn call(
    thing: &ThingId,
    offer: &Offer,
    input: Option<serde_json::Value>,
) -> Option<Call> {
    let operation = match &offer.target {
        Target::Action(action) => Operation::Invoke {
            action: action.clone(),
            input,
        },
        Target::Read(property) => Operation::Read {
            property: property.clone(),
        },
        Target::Write(property) => Operation::Write {
            property: property.clone(),
            value: input?,
        },
    };
    Some(Call {
        thing: thing.clone(),
        operation,
    })
}
