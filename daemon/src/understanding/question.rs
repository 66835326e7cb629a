//! What a question asks: a reading, something to ask back, a refusal, or conversation.
//!
//! What a thing here tells never goes to the language model, which would invent the value.

use super::clause::Clause;
use super::decide::{Context, Decided, Verdict, margin, rivals};
use super::dialogue::commands_words;
use super::evidence::{is_asked, speaks_of};
use super::matcher::{Candidate, Wanted, offer};
use super::reply::say;
use super::speech::is_particle;
use super::{Call, PendingKind, Refusal};

/// A question about the surroundings has at most so many words that we do not know ("outside", "in
/// New York"); one with more tells a story.
const STRANGERS_MAX: usize = 2;

impl Context<'_> {
    pub(super) fn question(
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
}
