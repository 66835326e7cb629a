//! What one clause means: calls, a question, a refusal or nothing.
//!
//! Thresholds apply by how much the words say for certain ([`super::wording::Thresholds`]); the
//! more they say, the less the embedding has to.

use std::collections::BTreeSet;

use crate::things::description::ThingId;

use super::catalogue::{Catalogue, Entry};
use super::clause::{Clause, Reference};
use super::dialogue::commands_words;
use super::matcher::{Candidate, Outcome, Wanted, candidates, is_asked, is_near, offer, speaks_of};
use super::pending;
use super::reply::say;
use super::slots::wrong_word;
use super::speech::{Act, is_particle};
use super::{Call, Focus, PendingKind, Refusal, StateSnapshot};

/// Candidates whose things are named alike differ by less than this in similarity for no reason but
/// the sound of their titles. Chosen above every such difference in the tuning part.
const NAMED_ALIKE: f32 = 0.15;
/// A question lists at most so many candidates; beyond, we ask which thing is meant.
const OPTIONS_MAX: usize = 6;
/// A question about the surroundings has at most so many words that we do not know ("outside", "in
/// New York"); one with more tells a story.
const STRANGERS_MAX: usize = 2;
/// What one clause came to.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    Calls(Vec<Call>),
    Ask {
        kind: PendingKind,
        candidates: Vec<Call>,
        question: String,
    },
    Refuse(Refusal),
    /// Not for us.
    Nothing,
}

/// A verdict and why.
pub(super) struct Decided {
    pub verdict: Verdict,
    pub reason: &'static str,
    pub similarity: f32,
    pub margin: f32,
    pub phrase: Option<String>,
}

impl Decided {
    pub(super) fn plain(verdict: Verdict, reason: &'static str) -> Self {
        Self {
            verdict,
            reason,
            similarity: 0.0,
            margin: 0.0,
            phrase: None,
        }
    }

    pub(super) fn of(
        verdict: Verdict,
        reason: &'static str,
        best: &Candidate,
        margin: f32,
    ) -> Self {
        Self {
            verdict,
            reason,
            similarity: best.similarity,
            margin,
            phrase: best.phrase.clone(),
        }
    }
}

/// Which command a clause without a verb repeats.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Previous {
    /// The one of the sentence before, if it says "too".
    Earlier,
    /// The one of the clause before.
    Clause(Vec<Call>),
    /// None: the clause before was no command.
    Nothing,
}

pub(super) struct Context<'a> {
    pub catalogue: &'a Catalogue,
    pub focus: Focus,
    pub previous: Previous,
    pub state: &'a dyn StateSnapshot,
}

impl Context<'_> {
    /// `literal` is the vector of the clause with its pronoun unresolved.
    pub(super) fn decide(
        &self,
        clause: &Clause,
        vector: Option<&Vec<f32>>,
        literal: Option<&Vec<f32>>,
    ) -> Decided {
        match clause.act {
            Act::Aside(reason) => Decided::plain(Verdict::Nothing, reason),
            Act::Deferred => Decided::plain(Verdict::Refuse(Refusal::Deferred), "for later"),
            Act::Question => self.question(clause, vector, literal),
            Act::Command => self.command(clause, vector),
        }
    }

    /// The things that a clause is about, and whether it says so.
    fn scope(&self, clause: &Clause) -> (BTreeSet<ThingId>, bool) {
        let everything = || {
            self.catalogue
                .things
                .keys()
                .cloned()
                .collect::<BTreeSet<_>>()
        };
        let mention = &clause.mention;
        let mut things = match clause.reference {
            _ if mention.everything && mention.things.is_empty() => everything(),
            _ if !mention.things.is_empty() => mention.things.clone(),
            Some(Reference::It | Reference::Both) => self.focus.things.iter().cloned().collect(),
            Some(Reference::Other) => self.others(),
            None => BTreeSet::new(),
        };
        things.retain(|thing| !mention.except.contains(thing));
        if things.is_empty() {
            return (everything(), false);
        }
        let named = !mention.everything || !mention.things.is_empty();
        (things, named)
    }

    /// The things of the same kind as the one in focus, without it.
    fn others(&self) -> BTreeSet<ThingId> {
        let Some(entry) = self
            .focus
            .things
            .first()
            .and_then(|id| self.catalogue.things.get(id))
        else {
            return BTreeSet::new();
        };
        let alike = |other: &&Entry| {
            !self.focus.things.contains(&other.offers.id)
                && other
                    .offers
                    .kinds
                    .iter()
                    .any(|kind| entry.offers.kinds.contains(kind))
        };
        let others = self.catalogue.things.values().filter(alike);
        others.map(|entry| entry.offers.id.clone()).collect()
    }

    fn question(
        &self,
        clause: &Clause,
        vector: Option<&Vec<f32>>,
        literal: Option<&Vec<f32>>,
    ) -> Decided {
        let thresholds = &self.catalogue.wording.thresholds;
        if clause.mention.indefinite {
            return Decided::plain(Verdict::Nothing, "asks about such things in general");
        }
        let (mut scope, mut named) = self.scope(clause);
        let mut found = self.find(clause, vector, &scope, Wanted::Reading);
        // "how warm is it": "it" is nothing that was spoken of.
        let is_said = |found: &[Candidate]| found.iter().any(|best| best.name_said > 0.0);
        let strayed = named && clause.mention.things.is_empty() && !is_said(&found);
        if strayed {
            (scope, named) = (self.catalogue.things.keys().cloned().collect(), false);
            found = self.find(clause, literal.or(vector), &scope, Wanted::Reading);
        }
        if let Some(decided) = self.not_told(clause, &found) {
            return decided;
        }
        let nothing = |reason, found: &[Candidate]| {
            self.told_elsewhere(clause, vector)
                .unwrap_or_else(|| match found.first() {
                    Some(best) => Decided::of(Verdict::Nothing, reason, best, 0.0),
                    None => Decided::plain(Verdict::Nothing, reason),
                })
        };
        let Some(best) = found.first() else {
            return nothing("nothing can be read", &found);
        };
        let strangers = clause.unknown.len();
        if strangers > 1 || strangers == 1 && (!named || best.name_said == 0.0) {
            return nothing("speaks of what is unknown here", &found);
        }
        if best.similarity < thresholds.question || !named && best.name_said == 0.0 {
            return nothing("is like no question about a thing", &found);
        }
        let rivals = rivals(
            &found,
            thresholds.margin,
            named && !clause.mention.by_location,
        );
        if strayed && rivals.is_empty() && !self.may_stray(clause, best) {
            return self.ask_one(best, &found, "asks it of what does not tell it");
        }
        self.call_or_ask(best, &rivals, &found)
    }

    /// A quantity is asked of a thing by name, and that does not tell it: another reading of the same
    /// thing would be no answer.
    fn not_told(&self, clause: &Clause, found: &[Candidate]) -> Option<Decided> {
        let wording = &self.catalogue.wording;
        let by_name = !clause.mention.things.is_empty() && !clause.mention.by_location;
        let tells = found.iter().any(|candidate| candidate.name_said > 0.0);
        // "is the door open" may be answered by its lock.
        let is_state = |key: &String| {
            clause.tokens.iter().any(|token| {
                is_particle(&token.text, wording)
                    && wording.quantities[key].adjectives.has(&token.text)
            })
        };
        let asked = wording
            .quantities
            .keys()
            .any(|key| speaks_of(clause, key, wording) && !is_state(key));
        if !by_name || tells || !asked || !clause.unknown.is_empty() {
            return None;
        }
        let thing = self.catalogue.things.get(clause.mention.things.first()?)?;
        let refusal = Refusal::NotTold {
            thing: thing.offers.title.clone(),
        };
        Some(Decided::plain(
            Verdict::Refuse(refusal),
            "does not tell that",
        ))
    }

    /// Whether what is asked is told by some thing here, though this question is not surely about it. It
    /// must not reach the language model, which would invent a measurement.
    fn told_elsewhere(&self, clause: &Clause, vector: Option<&Vec<f32>>) -> Option<Decided> {
        let wording = &self.catalogue.wording;
        // "how hot is lava" is knowledge; "how warm is it in the cellar" is a measurement.
        let located = clause.unknown.iter().all(|unknown| unknown.is_place);
        let ambient = clause.unknown.len() <= STRANGERS_MAX
            && wording
                .quantities
                .keys()
                .any(|key| self.is_ambient(clause, key));
        if !located && !ambient {
            return None;
        }
        let everything = self.catalogue.things.keys().cloned().collect();
        let mut found = self.find(clause, vector, &everything, Wanted::Reading);
        found.retain(|candidate| {
            offer(self.catalogue, candidate).is_some_and(|offer| is_asked(offer, clause, wording))
        });
        let best = found.first()?;
        let most = found
            .iter()
            .map(|other| other.name_said)
            .fold(0.0, f32::max);
        let calls: Vec<Call> = found
            .iter()
            .filter(|other| other.name_said >= most)
            .filter_map(|other| other.call().cloned())
            .collect();
        let reason = "some thing here tells it";
        if clause.unknown.is_empty() && calls.len() > 1 {
            return Some(Decided::of(
                self.choose(calls),
                reason,
                best,
                margin(&found),
            ));
        }
        if clause.unknown.is_empty() {
            return Some(self.ask_one(best, &found, reason));
        }
        let words: Vec<&str> = clause
            .unknown
            .iter()
            .map(|unknown| unknown.word.as_str())
            .collect();
        let commands = commands_words(self.catalogue, &calls, "or");
        let places = [("name", words.join(" ")), ("commands", commands)];
        let places = places
            .each_ref()
            .map(|(place, value)| (*place, value.as_str()));
        let verdict = Verdict::Ask {
            kind: PendingKind::Choose,
            candidates: calls,
            question: say(wording, "ask_instead", &places),
        };
        Some(Decided::of(verdict, reason, best, margin(&found)))
    }

    /// Whether a question that points at one thing may be answered by another: the air is as warm
    /// as the thermometer says, but a door is not as open as the blinds.
    fn may_stray(&self, clause: &Clause, best: &Candidate) -> bool {
        let ambient = |key: &String| self.is_ambient(clause, key);
        offer(self.catalogue, best).is_some_and(|offer| offer.quantities.iter().any(ambient))
    }

    /// "how warm is it": asks this quantity of the surroundings.
    fn is_ambient(&self, clause: &Clause, key: &String) -> bool {
        let wording = &self.catalogue.wording;
        clause.impersonal
            && speaks_of(clause, key, wording)
            && wording
                .quantities
                .get(key)
                .is_some_and(|quantity| quantity.ambient)
    }

    pub(super) fn find(
        &self,
        clause: &Clause,
        vector: Option<&Vec<f32>>,
        scope: &BTreeSet<ThingId>,
        wanted: Wanted,
    ) -> Vec<Candidate> {
        candidates(self.catalogue, clause, vector, scope, wanted, self.state)
    }

    fn command(&self, clause: &Clause, vector: Option<&Vec<f32>>) -> Decided {
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

    /// Does the best candidate, unless others are as good.
    pub(super) fn call_or_ask(
        &self,
        best: &Candidate,
        rivals: &[&Candidate],
        found: &[Candidate],
    ) -> Decided {
        let margin = margin(found);
        let wording = &self.catalogue.wording;
        if !rivals.is_empty() {
            let mut options: Vec<Call> = Vec::new();
            for candidate in std::iter::once(&best).chain(rivals) {
                if let Some(call) = candidate.call().filter(|call| !options.contains(call)) {
                    options.push(call.clone());
                }
            }
            if options.len() > 1 {
                return Decided::of(self.choose(options), "as like as another", best, margin);
            }
        }
        let verdict = match &best.outcome {
            Outcome::Call(call) => Verdict::Calls(vec![call.clone()]),
            Outcome::Refused(refusal) => Verdict::Refuse(refusal.clone()),
            Outcome::Missing(slot) => {
                let entry = &self.catalogue.things[&best.thing];
                let offer = &entry.offers.offers[best.offer];
                let Some(slot) = offer.slots.get(*slot) else {
                    return Decided::plain(Verdict::Nothing, "needs a value that nothing gives");
                };
                let allowed = super::values::allowed_words(&slot.schema, wording);
                let places = [
                    ("name", slot.title.to_lowercase()),
                    ("thing", entry.offers.title.to_lowercase()),
                    ("allowed", allowed),
                ];
                let places = places
                    .each_ref()
                    .map(|(place, value)| (*place, value.as_str()));
                Verdict::Ask {
                    kind: PendingKind::Value,
                    candidates: pending::template(&best.thing, offer).into_iter().collect(),
                    question: say(wording, "ask_value", &places),
                }
            }
        };
        Decided::of(verdict, "the best match", best, margin)
    }

    pub(super) fn choose(&self, options: Vec<Call>) -> Verdict {
        let wording = &self.catalogue.wording;
        let question = if options.len() > OPTIONS_MAX {
            say(wording, "ask_which_thing", &[])
        } else {
            let commands = commands_words(self.catalogue, &options, "or");
            say(wording, "ask_choose", &[("commands", &commands)])
        };
        Verdict::Ask {
            kind: PendingKind::Choose,
            candidates: options,
            question,
        }
    }

    /// Asks whether the best was meant; a yes does it.
    fn ask_one(&self, best: &Candidate, found: &[Candidate], reason: &'static str) -> Decided {
        let verdict = match &best.outcome {
            Outcome::Call(call) => {
                let calls = vec![call.clone()];
                let commands = commands_words(self.catalogue, &calls, "or");
                Verdict::Ask {
                    kind: PendingKind::Confirm,
                    candidates: calls,
                    question: say(
                        &self.catalogue.wording,
                        "ask_one",
                        &[("commands", &commands)],
                    ),
                }
            }
            Outcome::Refused(refusal) => Verdict::Refuse(refusal.clone()),
            Outcome::Missing(_) => {
                let thing = self.catalogue.things[&best.thing]
                    .offers
                    .title
                    .to_lowercase();
                Verdict::Ask {
                    kind: PendingKind::Choose,
                    candidates: Vec::new(),
                    question: say(&self.catalogue.wording, "ask_unclear", &[("thing", &thing)]),
                }
            }
        };
        Decided::of(verdict, reason, best, margin(found))
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

/// How far the best is ahead of the next different call.
fn margin(found: &[Candidate]) -> f32 {
    let Some(best) = found.first() else {
        return 0.0;
    };
    let next = found.iter().find(|other| other.outcome != best.outcome);
    next.map_or(best.score, |next| best.score - next.score)
}

/// Candidates that are as good as the best by all that the words say.
pub(super) fn rivals(found: &[Candidate], margin: f32, alike: bool) -> Vec<&Candidate> {
    let Some(best) = found.first() else {
        return Vec::new();
    };
    let near = |other: &&Candidate| {
        let evidence = (best.verb_said, best.name_said) == (other.verb_said, other.name_said);
        let within = if other.thing == best.thing {
            margin
        } else if evidence || alike {
            NAMED_ALIKE
        } else {
            margin
        };
        other.outcome != best.outcome
            && other.call().is_some()
            && (best.score - other.score < within
                || evidence
                    && best.verb_said
                    && other.call().is_some()
                    && other.thing != best.thing)
    };
    found.iter().skip(1).filter(near).collect()
}

impl Candidate {
    /// The clause says the action's own name, which is as good as naming the thing.
    fn verb_said_by_own(&self, catalogue: &Catalogue) -> bool {
        self.verb_said && offer(catalogue, self).is_some_and(|offer| !offer.own.is_empty())
    }
}
