//! From clauses to a [`Resolution`]: what is meant, in the light of what was said before.
//!
//! A sentence is done whole or not at all: if one clause must be asked about, what was clear waits with
<<<<<<< HEAD
//! the question; if one is refused, nothing is done. Thresholds apply by how much the words
//! say for certain ([`super::wording::Thresholds`]); the more they say, the less the
//! embedding has to.

use std::collections::BTreeSet;

use crate::things::description::ThingId;

use super::catalogue::{Catalogue, Prepared};
use super::clause::{Act, Clause, Reference};
use super::matcher::{Candidate, Outcome, Wanted, call, candidates, check, is_near, offer};
use super::pending;
use super::reply::{self, say};
use super::slots::wrong_word;
use super::wording::Verb;
use super::{
    Call, Explanation, Focus, Operation, Pending, PendingKind, Refusal, Resolution, StateSnapshot,
    Understanding,
};

/// Candidates whose things are named alike differ by less than this in similarity for no reason but
/// the sound of their titles. Chosen above every such difference in the tuning part.
const NAMED_ALIKE: f32 = 0.15;
/// A question lists at most so many candidates; beyond, we ask which thing is meant.
const OPTIONS_MAX: usize = 6;
/// How many things "it" may stand for.
const FOCUS_MAX: usize = 8;

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
    fn plain(verdict: Verdict, reason: &'static str) -> Self {
        Self {
            verdict,
            reason,
            similarity: 0.0,
            margin: 0.0,
            phrase: None,
        }
    }

    fn of(verdict: Verdict, reason: &'static str, best: &Candidate, margin: f32) -> Self {
        Self {
            verdict,
            reason,
            similarity: best.similarity,
            margin,
            phrase: best.phrase.clone(),
        }
    }
}

=======
//! the question; if one is refused, nothing is done.

use crate::things::description::{ThingDescription, ThingId};

use super::catalogue::{Catalogue, Prepared, PreparedClause};
use super::clause::Clause;
use super::decide::{Context, Decided, Previous, Verdict};
use super::pending;
use super::reply::{self, say};
use super::speech::Act;
use super::wording::{Verb, Wording};
use super::{
    Call, Explanation, Focus, Operation, Pending, PendingKind, Resolution, StateSnapshot,
    Understanding,
};

/// How many things "it" may stand for.
const FOCUS_MAX: usize = 8;

>>>>>>> understanding
/// See [`Catalogue::resolve`].
pub(super) fn resolve(
    catalogue: &Catalogue,
    prepared: &Prepared,
    vectors: &[Vec<f32>],
    focus: &Focus,
    state: &dyn StateSnapshot,
) -> Resolution {
    if let Some(pending) = &focus.pending
        && let Some(resolution) = pending::answer(catalogue, prepared, focus, pending)
    {
        return resolution;
    }
    let mut context = Context {
        catalogue,
        focus: Focus {
            pending: None,
            ..focus.clone()
        },
        previous: Previous::Earlier,
        state,
    };
    let mut decided = Vec::with_capacity(prepared.clauses.len());
    let mut aside = false;
    for (index, part) in prepared.clauses.iter().enumerate() {
        let vector = vectors.get(index);
<<<<<<< HEAD
=======
        let shared = shared_value(
            &part.clause,
            prepared.clauses.get(index + 1),
            &catalogue.wording,
        );
        let clause = shared.as_ref().unwrap_or(&part.clause);
>>>>>>> understanding
        aside = aside && part.continues || matches!(part.clause.act, Act::Aside(_));
        let outcome = if aside {
            let reason = match part.clause.act {
                Act::Aside(reason) => reason,
                _ => "goes on with what was no command",
            };
            Decided::plain(Verdict::Nothing, reason)
        } else {
<<<<<<< HEAD
            context.decide(&part.clause, vector)
=======
            context.decide(clause, vector)
>>>>>>> understanding
        };
        context.remember(&part.clause, &outcome.verdict, aside);
        decided.push(outcome);
    }
    let texts = prepared.texts().iter();
    let explanations = texts.zip(&decided).map(|(text, decided)| Explanation {
        clause: text.clone(),
        phrase: decided.phrase.clone(),
        similarity: decided.similarity,
        margin: decided.margin,
        reason: decided.reason.to_owned(),
    });
    let explanations = explanations.collect();
    let verdicts = decided.into_iter().map(|decided| decided.verdict).collect();
    conclude(catalogue, context.focus, verdicts, explanations)
}

<<<<<<< HEAD
=======
/// "set the desk lamp and the ceiling light to 40 percent": a setting without a value takes that of
/// the noun that goes on.
fn shared_value(
    clause: &Clause,
    next: Option<&PreparedClause>,
    wording: &Wording,
) -> Option<Clause> {
    let next = next.filter(|next| next.continues && next.clause.act == Act::Command)?;
    let lacks =
        clause.verbs.contains(&Verb::Set) && clause.numbers.is_empty() && clause.unknown.is_empty();
    let gives = next.clause.verbs.is_empty() && !next.clause.mention.things.is_empty();
    // "set the fan to medium and the lamp to 10": the first has its own.
    let to = &wording.grammar.value_prepositions;
    let complete = clause.tokens.iter().any(|token| to.has(&token.text));
    if !(lacks && gives) || complete || clause.act != Act::Command {
        return None;
    }
    let mut clause = clause.clone();
    clause.numbers.clone_from(&next.clause.numbers);
    clause.tokens.extend(next.clause.tokens.iter().cloned());
    Some(clause)
}

>>>>>>> understanding
/// Puts the clauses' verdicts together.
fn conclude(
    catalogue: &Catalogue,
    mut focus: Focus,
    verdicts: Vec<Verdict>,
    explanations: Vec<Explanation>,
) -> Resolution {
    let mut calls: Vec<Call> = Vec::new();
    let mut asked = None;
    let mut refused = None;
    for verdict in verdicts {
        match verdict {
            Verdict::Calls(more) => calls.extend(more),
            Verdict::Ask {
                kind,
                candidates,
                question,
            } if asked.is_none() => {
                asked = Some((kind, candidates, question));
            }
            Verdict::Refuse(refusal) if refused.is_none() => refused = Some(refusal),
            _ => {}
        }
    }
    let understanding = if let Some(error) = refused {
        let message = reply::refusal(&error, &catalogue.wording);
        Understanding::Refuse { error, message }
    } else if let Some((kind, candidates, question)) = asked {
        focus.pending = Some(Pending {
            ready: calls,
            candidates: candidates.clone(),
            kind,
        });
        Understanding::Ask {
            question,
            candidates,
        }
    } else if calls.is_empty() {
        Understanding::Conversation
    } else {
        return confirmed_or_asked(catalogue, focus, calls, explanations);
    };
    Resolution {
        understanding,
        focus,
        explanations,
    }
}

/// Calls that need a person's yes are asked about; all others are done.
pub(super) fn confirmed_or_asked(
    catalogue: &Catalogue,
    mut focus: Focus,
    calls: Vec<Call>,
    explanations: Vec<Explanation>,
) -> Resolution {
    let (dangerous, ready): (Vec<Call>, Vec<Call>) = calls
        .into_iter()
        .partition(|call| needs_yes(catalogue, call));
    let understanding = if dangerous.is_empty() {
        focus.calls.clone_from(&ready);
        Understanding::Calls(ready)
    } else {
        let commands = commands_words(catalogue, &dangerous, "and");
        focus.pending = Some(Pending {
            ready,
            candidates: dangerous.clone(),
            kind: PendingKind::Confirm,
        });
        Understanding::Ask {
            question: say(
                &catalogue.wording,
                "ask_confirm",
                &[("commands", &commands)],
            ),
            candidates: dangerous,
        }
    };
    Resolution {
        understanding,
        focus,
        explanations,
    }
}

fn needs_yes(catalogue: &Catalogue, call: &Call) -> bool {
    let description = catalogue.description(&call.thing);
<<<<<<< HEAD
    let confirm = |description: &crate::things::description::ThingDescription| match &call.operation
    {
=======
    let confirm = |description: &ThingDescription| match &call.operation {
>>>>>>> understanding
        Operation::Invoke { action, .. } => description
            .actions
            .get(action)
            .is_some_and(|action| action.confirm),
        Operation::Write { property, .. } => description
            .properties
            .get(property)
            .is_some_and(|property| property.confirm),
        Operation::Read { .. } => false,
    };
    description.is_none_or(confirm)
}

<<<<<<< HEAD
fn commands_words(catalogue: &Catalogue, calls: &[Call], join: &str) -> String {
=======
pub(super) fn commands_words(catalogue: &Catalogue, calls: &[Call], join: &str) -> String {
>>>>>>> understanding
    let words: Vec<String> = calls
        .iter()
        .filter_map(|call| {
            let description = catalogue.description(&call.thing)?;
            Some(reply::call_words(call, description, &catalogue.wording))
        })
        .collect();
    reply::join(&words, &say(&catalogue.wording, join, &[]))
}

<<<<<<< HEAD
/// Which command a clause without a verb repeats.
#[derive(Debug, Clone, PartialEq)]
enum Previous {
    /// The one of the sentence before, if it says "too".
    Earlier,
    /// The one of the clause before.
    Clause(Vec<Call>),
    /// None: the clause before was no command.
    Nothing,
}

struct Context<'a> {
    catalogue: &'a Catalogue,
    focus: Focus,
    previous: Previous,
    state: &'a dyn StateSnapshot,
}

impl Context<'_> {
    fn decide(&self, clause: &Clause, vector: Option<&Vec<f32>>) -> Decided {
        match clause.act {
            Act::Aside(reason) => Decided::plain(Verdict::Nothing, reason),
            Act::Deferred => Decided::plain(Verdict::Refuse(Refusal::Deferred), "for later"),
            Act::Question => self.question(clause, vector),
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
        let alike = |other: &&super::catalogue::Entry| {
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

    fn question(&self, clause: &Clause, vector: Option<&Vec<f32>>) -> Decided {
        let thresholds = &self.catalogue.wording.thresholds;
        if clause.mention.indefinite {
            return Decided::plain(Verdict::Nothing, "asks about such things in general");
        }
        let (mut scope, mut named) = self.scope(clause);
        let mut found = self.find(clause, vector, &scope, Wanted::Reading);
        // "how warm is it": "it" is nothing that was spoken of.
        if named && clause.mention.things.is_empty() && !found.iter().any(|c| c.name_said > 0.0) {
            (scope, named) = (self.catalogue.things.keys().cloned().collect(), false);
            found = self.find(clause, vector, &scope, Wanted::Reading);
        }
        let Some(best) = found.first() else {
            return Decided::plain(Verdict::Nothing, "nothing can be read");
        };
        let strangers = clause.unknown.len();
        if strangers > 1 || strangers == 1 && (!named || best.name_said == 0.0) {
            return Decided::of(
                Verdict::Nothing,
                "speaks of what is unknown here",
                best,
                0.0,
            );
        }
        if best.similarity < thresholds.question || !named && best.name_said == 0.0 {
            return Decided::of(
                Verdict::Nothing,
                "is like no question about a thing",
                best,
                0.0,
            );
        }
        let rivals = rivals(
            &found,
            thresholds.margin,
            named && !clause.mention.by_location,
        );
        self.call_or_ask(best, &rivals, &found)
    }

    fn find(
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
        if says_nothing
            && !found
                .iter()
                .any(|candidate| candidate.is_said(self.catalogue))
        {
            let question = self.question(clause, vector);
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
        if named && (foreign || clause.mention.elsewhere) && !(missing && !foreign) {
            if !said && best.similarity < thresholds.verb_unknown {
                return Decided::of(Verdict::Nothing, "is like no command", best, 0.0);
            }
            return self.ask_one(best, found, "names something that is not here");
        }
        if !named && !clause.unknown.is_empty() && !best.verb_said_by_own(self.catalogue) {
            let like = best.similarity >= thresholds.noun_unknown && best.name_said == 0.0;
            let known = best.name_said > 0.0 && said && best.similarity >= thresholds.verb_unknown;
            if known && !foreign {
                return self.ask_one(best, found, "speaks of something unknown too");
            }
            if like && best.similarity >= thresholds.nothing_named {
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
    fn call_or_ask(&self, best: &Candidate, rivals: &[&Candidate], found: &[Candidate]) -> Decided {
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
                let allowed = reply::allowed_words(&slot.schema, wording);
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

    fn choose(&self, options: Vec<Call>) -> Verdict {
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

    /// "the fan too", "and the other one", "... and the ceiling light": the command before,
    /// on other things.
    fn repetition(
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

    /// The same call on another thing, if that offers the like.
    fn transfer(&self, last: &Call, thing: &ThingId) -> Option<Call> {
        let from = self.catalogue.things.get(&last.thing)?;
        let input = match &last.operation {
            Operation::Invoke { input, .. } => input.clone(),
            Operation::Write { value, .. } => Some(value.clone()),
            Operation::Read { .. } => None,
        };
        let same = |offer: &&super::phrases::Offer| {
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

=======
impl Context<'_> {
>>>>>>> understanding
    /// What the next clause may refer to.
    fn remember(&mut self, clause: &Clause, verdict: &Verdict, aside: bool) {
        let mut things: Vec<ThingId> = Vec::new();
        let calls = match verdict {
            Verdict::Calls(calls) => calls.as_slice(),
            Verdict::Ask { candidates, .. } => candidates.as_slice(),
            _ => &[],
        };
        for call in calls {
            if !things.contains(&call.thing) {
                things.push(call.thing.clone());
            }
        }
        if things.is_empty() && !aside && clause.act == Act::Question && !clause.mention.by_location
        {
            things.extend(clause.mention.things.iter().cloned());
        }
        if !things.is_empty() {
            things.truncate(FOCUS_MAX);
            self.focus.things = things;
        }
        self.previous = match verdict {
            Verdict::Calls(calls) => Previous::Clause(calls.clone()),
            _ => Previous::Nothing,
        };
    }
}
<<<<<<< HEAD

/// How far the best is ahead of the next different call.
fn margin(found: &[Candidate]) -> f32 {
    let Some(best) = found.first() else {
        return 0.0;
    };
    let next = found.iter().find(|other| other.outcome != best.outcome);
    next.map_or(best.score, |next| best.score - next.score)
}

/// Candidates that are as good as the best by all that the words say.
fn rivals(found: &[Candidate], margin: f32, alike: bool) -> Vec<&Candidate> {
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
=======
>>>>>>> understanding
