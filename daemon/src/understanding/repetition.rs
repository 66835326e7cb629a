//! Clauses that leave out the verb: "the fan too", "and the other one", "... and the ceiling light".

use std::collections::BTreeSet;

use crate::things::description::ThingId;

use super::clause::{Clause, Reference};
use super::decide::{Context, Decided, Previous, Verdict, rivals};
use super::matcher::{Wanted, call, check};
use super::pending;
use super::phrases::Offer;
use super::wording::Verb;
use super::{Call, Operation};

impl Context<'_> {
    /// "the fan too", "and the other one", "... and the ceiling light": the command before,
    /// on other things.
    pub(super) fn repetition(
        &self,
        clause: &Clause,
        scope: &BTreeSet<ThingId>,
        named: bool,
    ) -> Option<Decided> {
        let bare = clause.verbs.is_empty()
            && clause.numbers.is_empty()
            && clause.quotes.is_empty()
            && clause.change.is_none()
            && clause.unknown.is_empty();
        let last = match &self.previous {
            Previous::Clause(calls) => calls.first(),
            Previous::Earlier if clause.also || clause.reference == Some(Reference::Other) => {
                self.focus.calls.first()
            }
            _ => None,
        }?;
        if !bare || !named || clause.mention.things.is_empty() && clause.reference.is_none() {
            return None;
        }
        let calls: Vec<Call> = scope
            .iter()
            .filter_map(|thing| self.transfer(last, thing))
            .collect();
        let ambiguous = scope.len() > 1 && !clause.mention.is_group && clause.reference.is_none();
        let verdict = match calls.as_slice() {
            [] => return None,
            [_, _, ..] if ambiguous => self.choose(calls),
            _ => Verdict::Calls(calls),
        };
        Some(Decided::plain(verdict, "repeats the command before"))
    }

    /// "turn off the lamp and the fan", where the fan is a part of a thing: the verb before,
    /// on the part.
    pub(super) fn carried_verb(
        &self,
        clause: &Clause,
        vector: Option<&Vec<f32>>,
        scope: &BTreeSet<ThingId>,
    ) -> Option<Decided> {
        let Previous::Clause(calls) = &self.previous else {
            return None;
        };
        let last = calls.first()?;
        let from = self.catalogue.things.get(&last.thing)?;
        let Operation::Invoke { input: None, .. } = &last.operation else {
            return None;
        };
        let is_last = |offer: &&Offer| call(&last.thing, offer, None).as_ref() == Some(last);
        let verbs = from.offers.offers.iter().find(is_last)?.verbs.clone();
        let carried = Clause {
            exact: verbs.clone(),
            verbs,
            ..clause.clone()
        };
        let mut found = self.find(&carried, vector, scope, Wanted::Change);
        found.retain(|candidate| candidate.verb_said && candidate.name_said > 0.5);
        let best = found.first()?;
        let rivals = rivals(&found, self.catalogue.wording.thresholds.margin, true);
        Some(self.call_or_ask(best, &rivals, &found))
    }

    /// The same call on another thing, if that offers the like.
    fn transfer(&self, last: &Call, thing: &ThingId) -> Option<Call> {
        let from = self.catalogue.things.get(&last.thing)?;
        let input = match &last.operation {
            Operation::Invoke { input, .. } => input.clone(),
            Operation::Write { value, .. } => Some(value.clone()),
            Operation::Read { .. } => None,
        };
        let same = |offer: &&Offer| {
            let fixed = offer.fixed.is_some();
            call(&last.thing, offer, input.clone()).as_ref() == Some(last)
                && (!fixed || pending::fixed_input(offer) == input)
        };
        let verbs: BTreeSet<Verb> = from
            .offers
            .offers
            .iter()
            .filter(same)
            .flat_map(|offer| offer.verbs.clone())
            .collect();
        let names: Vec<_> = from
            .offers
            .offers
            .iter()
            .filter(same)
            .flat_map(|offer| offer.names.clone())
            .collect();
        let to = self.catalogue.things.get(thing)?;
        let reads = matches!(last.operation, Operation::Read { .. });
        to.offers.offers.iter().find_map(|offer| {
            let alike = if offer.is_read() {
                reads && offer.names.iter().any(|name| names.contains(name))
            } else {
                !reads && offer.verbs.intersection(&verbs).next().is_some()
            };
            let input = if offer.fixed.is_some() {
                pending::fixed_input(offer)
            } else {
                offer.takes_value().then(|| input.clone()).flatten()
            };
            let call = call(thing, offer, input).filter(|_| alike)?;
            check(self.catalogue, &call).is_ok().then_some(call)
        })
    }
}
