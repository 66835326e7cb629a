//! What one clause means: calls, a question, a refusal or nothing.
//!
//! Thresholds apply by how much the words say for certain ([`super::wording::Thresholds`]); the
//! more they say, the less the embedding has to.

use std::collections::BTreeSet;

use crate::things::description::ThingId;

use super::catalogue::{Catalogue, Entry};
use super::clause::{Clause, Reference};
use super::dialogue::commands_words;
use super::matcher::{Candidate, Outcome, Wanted, candidates};
use super::pending;
use super::reply::say;
use super::speech::Act;
use super::{Call, Focus, PendingKind, Refusal, StateSnapshot};

/// Candidates whose things are named alike differ by less than this in similarity for no reason but
/// the sound of their titles. Chosen above every such difference in the tuning part.
const NAMED_ALIKE: f32 = 0.15;
/// A question lists at most so many candidates; beyond, we ask which thing is meant.
const OPTIONS_MAX: usize = 6;
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
    pub(super) fn scope(&self, clause: &Clause) -> (BTreeSet<ThingId>, bool) {
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

    pub(super) fn find(
        &self,
        clause: &Clause,
        vector: Option<&Vec<f32>>,
        scope: &BTreeSet<ThingId>,
        wanted: Wanted,
    ) -> Vec<Candidate> {
        candidates(self.catalogue, clause, vector, scope, wanted, self.state)
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
    pub(super) fn ask_one(
        &self,
        best: &Candidate,
        found: &[Candidate],
        reason: &'static str,
    ) -> Decided {
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
}

/// How far the best is ahead of the next different call.
pub(super) fn margin(found: &[Candidate]) -> f32 {
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
