//! What a command asks: calls, something to ask back, a refusal, or nothing of ours.

use std::collections::BTreeSet;

use crate::things::description::ThingId;

use super::Refusal;
use super::catalogue::Catalogue;
use super::clause::{Clause, Reference};
use super::decide::{Context, Decided, Verdict, margin, rivals};
use super::evidence::is_near;
use super::matcher::{Candidate, Outcome, Wanted, offer};
use super::slots::wrong_word;

impl Context<'_> {
    pub(super) fn command(&self, clause: &Clause, vector: Option<&Vec<f32>>) -> Decided {
        let (mut scope, mut named) = self.scope(clause);
        if let Some(decided) = self.repetition(clause, &scope, named) {
            return decided;
        }
        let mut found = self.find(clause, vector, &scope, Wanted::Change);
        // "make it 24 degrees": "it" need not be what was spoken of.
        if found.is_empty() && named && clause.mention.things.is_empty() {
            (scope, named) = (self.catalogue.things.keys().cloned().collect(), false);
            found = self.find(clause, vector, &scope, Wanted::Change);
        }
        let says_nothing = clause.verbs.is_empty()
            && clause.numbers.is_empty()
            && clause.quotes.is_empty()
            && clause.change.is_none();
        if says_nothing && let Some(decided) = self.carried_verb(clause, vector, &scope) {
            return decided;
        }
        if says_nothing
            && !found
                .iter()
                .any(|candidate| candidate.is_said(self.catalogue))
        {
            let question = self.question(clause, vector, None);
            let named_property = self
                .find(clause, vector, &scope, Wanted::Reading)
                .first()
                .is_some_and(|best| best.name_said > 0.5);
            if named_property && question.verdict != Verdict::Nothing {
                return question;
            }
        }
        if clause.mention.indefinite && !clause.unknown.is_empty() {
            return Decided::plain(Verdict::Nothing, "speaks of such things in general");
        }
        if clause.mention.is_group
            || clause.mention.everything
            || clause.reference == Some(Reference::Both)
        {
            return self.group(clause, &scope, &found);
        }
        if clause.reference == Some(Reference::It)
            && named
            && scope.len() > 1
            && clause.mention.things.is_empty()
        {
            return self.group(clause, &scope, &found);
        }
        let Some(best) = found.first() else {
            return self.no_candidate(clause, named, &scope);
        };
        if !named {
            // What was spoken of last is meant before anything else that fits as well.
            let in_focus = |candidate: &&Candidate| self.focus.things.contains(&candidate.thing);
            let alike = |candidate: &&Candidate| {
                (candidate.verb_said, candidate.name_said) == (best.verb_said, best.name_said)
            };
            let focused: Vec<Candidate> = found
                .iter()
                .filter(in_focus)
                .filter(alike)
                .cloned()
                .collect();
            if let Some(best) = focused.first() {
                return self.judge(clause, best, &focused, named);
            }
        }
        self.judge(clause, best, &found, named)
    }

    fn no_candidate(&self, clause: &Clause, named: bool, scope: &BTreeSet<ThingId>) -> Decided {
        let asks_something = !clause.verbs.is_empty() || !clause.numbers.is_empty();
        if !asks_something {
            return Decided::plain(Verdict::Nothing, "names no action");
        }
        let title = scope
            .first()
            .and_then(|thing| self.catalogue.things.get(thing));
        match title.filter(|_| named) {
            Some(entry) => {
                let thing = entry.offers.title.clone();
                Decided::plain(
                    Verdict::Refuse(Refusal::NotOffered { thing }),
                    "not offered",
                )
            }
            None => self.unknown_thing(clause),
        }
    }

    fn unknown_thing(&self, clause: &Clause) -> Decided {
        let words: Vec<&str> = clause
            .unknown
            .iter()
            .map(|unknown| unknown.word.as_str())
            .collect();
        let is_command = !clause.verbs.is_empty();
        if !is_command || words.is_empty() {
            return Decided::plain(Verdict::Nothing, "names no thing");
        }
        let name = words.join(" ");
        Decided::plain(
            Verdict::Refuse(Refusal::UnknownThing { name }),
            "no such thing",
        )
    }

    fn judge(
        &self,
        clause: &Clause,
        best: &Candidate,
        found: &[Candidate],
        named: bool,
    ) -> Decided {
        let thresholds = &self.catalogue.wording.thresholds;
        let said = best.is_said(self.catalogue);
        let missing = matches!(best.outcome, Outcome::Missing(_));
        let foreign = clause
            .unknown
            .iter()
            .any(|unknown| unknown.modifies || unknown.is_place && !missing);
        if named && clause.unknown.iter().any(|unknown| unknown.is_subject) {
            return self.ask_one(best, found, "someone else is to do it");
        }
        if named && (foreign || clause.mention.elsewhere && !missing) {
            if !said && best.similarity < thresholds.verb_unknown {
                return Decided::of(Verdict::Nothing, "is like no command", best, 0.0);
            }
            return self.ask_one(best, found, "names something that is not here");
        }
        if !named && !clause.unknown.is_empty() && !best.verb_said_by_own(self.catalogue) {
            let like = best.similarity >= thresholds.nothing_named && best.name_said == 0.0;
            let known = best.name_said > 0.0 && said && best.similarity >= thresholds.verb_unknown;
            if known && !foreign {
                return self.ask_one(best, found, "speaks of something unknown too");
            }
            if like {
                return self.ask_one(best, found, "may mean a thing by another name");
            }
            return self.unknown_thing(clause);
        }
        let threshold = match (named, said) {
            (_, true) => thresholds.named,
            (true, false) => thresholds.verb_unknown,
            (false, false) => thresholds.nothing_named,
        };
        if best.similarity < threshold {
            return Decided::of(Verdict::Nothing, "is like no command", best, 0.0);
        }
        if !said && margin(found) < thresholds.lead {
            return self.ask_one(best, found, "has a verb that is not known");
        }
        if let (Outcome::Missing(slot), Some(unknown)) = (&best.outcome, clause.unknown.first())
            && let Some(offer) = offer(self.catalogue, best)
            && let Some(slot) = offer.slots.get(*slot)
        {
            let title = &self.catalogue.things[&best.thing].offers.title;
            let refusal = wrong_word(slot, title, &offer.title, &unknown.word);
            return Decided::of(Verdict::Refuse(refusal), "no such value", best, 0.0);
        }
        let alike = named && clause.mention.except.is_empty();
        let rivals = rivals(found, thresholds.margin, alike);
        if clause.corrected && rivals.is_empty() && best.similarity < thresholds.verb_unknown {
            return self.ask_one(best, found, "was understood only after corrections");
        }
        if matches!(best.outcome, Outcome::Refused(Refusal::AtLimit { .. }))
            && let Some(other) = rivals.first()
        {
            return self.ask_one(other, found, "another thing is at its limit");
        }
        self.call_or_ask(best, &rivals, found)
    }

    /// The best call of each thing; things that cannot do it are passed over.
    fn group(&self, clause: &Clause, scope: &BTreeSet<ThingId>, found: &[Candidate]) -> Decided {
        let near = |candidate: &Candidate| {
            offer(self.catalogue, candidate).is_some_and(|offer| is_near(offer, clause))
        };
        let any_exact = found
            .iter()
            .any(|candidate| candidate.verb_said && !near(candidate));
        let mut calls = Vec::new();
        let mut refused = None;
        for thing in scope {
            let of_thing = |candidate: &&Candidate| {
                candidate.thing == *thing
                    && candidate.is_said(self.catalogue)
                    && !(any_exact && near(candidate))
            };
            match found
                .iter()
                .find(of_thing)
                .map(|candidate| &candidate.outcome)
            {
                Some(Outcome::Call(call)) => calls.push(call.clone()),
                Some(Outcome::Refused(refusal)) => refused = refused.or(Some(refusal.clone())),
                _ => {}
            }
        }
        let verdict = match refused {
            Some(refusal) if calls.is_empty() => Verdict::Refuse(refusal),
            _ if calls.is_empty() => Verdict::Nothing,
            _ => Verdict::Calls(calls),
        };
        match found.first() {
            Some(best) => Decided::of(verdict, "all that can do it", best, 0.0),
            None => Decided::plain(verdict, "nothing can do it"),
        }
    }
}

impl Candidate {
    /// The clause says the action's own name, which is as good as naming the thing.
    fn verb_said_by_own(&self, catalogue: &Catalogue) -> bool {
        self.verb_said && offer(catalogue, self).is_some_and(|offer| !offer.own.is_empty())
    }
}
