//! Answers to a question that we asked: yes, no, which one, or the value.
//!
//! What is no answer is an ordinary sentence, and the question is dropped.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::things::description::ThingId;

use super::catalogue::{Catalogue, Entry, Prepared};
use super::clause::{Clause, is_only};
use super::dialogue::proceed;
use super::matcher::{call, check};
use super::phrases::{Offer, Target, words};
use super::reply;
use super::slots::{Filled, fill, value_is_named, whole_input};
use super::wording::Verb;
use super::{Call, Explanation, Focus, Operation, Pending, PendingKind, Resolution, Understanding};

/// What the sentence answers; `None` if it does not.
pub(super) fn answer(
    catalogue: &Catalogue,
    prepared: &Prepared,
    focus: &Focus,
    pending: &Pending,
) -> Option<Resolution> {
    let answers = &catalogue.wording.answers;
    let pieces = &prepared.pieces;
    let all = |list| !pieces.is_empty() && pieces.iter().all(|piece| is_only(piece, list));
    if all(&answers.no) {
        let focus = Focus {
            pending: None,
            ..focus.clone()
        };
        return Some(Resolution {
            understanding: Understanding::Cancelled,
            focus,
            explanations: vec![explanation("takes the question back")],
        });
    }
    if all(&answers.yes) && pending.candidates.len() == 1 && pending.kind != PendingKind::Value
        || all(&answers.yes) && pending.kind == PendingKind::Confirm
    {
        return Some(execute(
            catalogue,
            focus,
            pending,
            pending.candidates.clone(),
            Vec::new(),
        ));
    }
    let [part] = prepared.clauses.as_slice() else {
        return None;
    };
    match pending.kind {
        PendingKind::Confirm => None,
        PendingKind::Value => value(catalogue, focus, pending, &part.clause),
        PendingKind::Choose => {
            let chosen = choose(catalogue, pending, &part.clause)?;
            Some(execute(catalogue, focus, pending, Vec::new(), chosen))
        }
    }
}

/// Goes on with what was answered: asks what is left to ask, or does it with what waited. A yes allows
/// what is dangerous; what was only chosen is asked about if it is.
fn execute(
    catalogue: &Catalogue,
    focus: &Focus,
    pending: &Pending,
    allowed: Vec<Call>,
    chosen: Vec<Call>,
) -> Resolution {
    let explanations = vec![explanation("answers the question")];
    let calls = || pending.ready.iter().chain(&allowed).chain(&chosen);
    // Things may have changed or gone since the question.
    if let Some(error) = calls().find_map(|call| check(catalogue, call).err()) {
        let message = reply::refusal(&error, &catalogue.wording);
        return Resolution {
            understanding: Understanding::Refuse { error, message },
            focus: Focus {
                pending: None,
                ..focus.clone()
            },
            explanations,
        };
    }
    let mut things: Vec<ThingId> = Vec::new();
    for call in calls() {
        if !things.contains(&call.thing) {
            things.push(call.thing.clone());
        }
    }
    let focus = Focus {
        things,
        calls: calls().cloned().collect(),
        pending: None,
    };
    let mut ready = pending.ready.clone();
    ready.extend(allowed);
    proceed(
        catalogue,
        focus,
        ready,
        chosen,
        pending.next.clone(),
        explanations,
    )
}

fn explanation(reason: &str) -> Explanation {
    Explanation {
        clause: String::new(),
        phrase: None,
        similarity: 0.0,
        margin: 0.0,
        reason: reason.to_owned(),
    }
}

/// The call of an offer whose value is still to come, for [`PendingKind::Value`].
pub(super) fn template(thing: &ThingId, offer: &Offer) -> Option<Call> {
    let value = matches!(offer.target, Target::Write(_)).then_some(Value::Null);
    call(thing, offer, value)
}

/// The input of an offer whose verb alone says it.
pub(super) fn fixed_input(offer: &Offer) -> Option<Value> {
    let slot = offer.slots.first()?;
    Some(whole_input(slot, offer.fixed.clone()?))
}

fn value(
    catalogue: &Catalogue,
    focus: &Focus,
    pending: &Pending,
    clause: &Clause,
) -> Option<Resolution> {
    let waiting = pending.candidates.first()?;
    let entry = catalogue.things.get(&waiting.thing)?;
    let other_thing =
        !clause.mention.things.is_empty() && !clause.mention.things.contains(&waiting.thing);
    let other_verb = clause.verbs.iter().any(|verb| *verb != Verb::Set);
    if other_thing || other_verb {
        return None;
    }
    let is_waiting = |offer: &&Offer| {
        offer.fixed.is_none() && template(&waiting.thing, offer).as_ref() == Some(waiting)
    };
    let offer = entry.offers.offers.iter().find(is_waiting)?;
    match fill(offer, clause, &entry.offers.title, &catalogue.wording) {
        Filled::Value(Some(input)) => {
            let chosen = call(&waiting.thing, offer, Some(input))?;
            Some(execute(catalogue, focus, pending, Vec::new(), vec![chosen]))
        }
        _ => None,
    }
}

/// The candidates that the answer names: by thing, place, value, number in the list, or all.
fn choose(catalogue: &Catalogue, pending: &Pending, clause: &Clause) -> Option<Vec<Call>> {
    let references = &catalogue.wording.references;
    let said: Vec<String> = clause
        .tokens
        .iter()
        .map(|token| token.text.clone())
        .collect();
    let candidates = &pending.candidates;
    let things: BTreeSet<&ThingId> = candidates.iter().map(|call| &call.thing).collect();
    let all = clause.is_only(&references.both)
        || clause.is_only(&references.everything)
        || clause.is_only(&references.all);
    if all && things.len() == candidates.len() {
        return Some(candidates.clone());
    }
    let same_action = clause.verbs.is_empty() || clause.verbs == [Verb::Set].into();
    if !same_action
        || !clause.numbers.is_empty()
        || !clause.unknown.is_empty() && clause.tokens.len() > 6
    {
        return None;
    }
    if let Some(at) = references
        .ordinals
        .iter()
        .position(|ordinal| said.contains(ordinal))
    {
        return candidates.get(at).map(|call| vec![call.clone()]);
    }
    let scores: Vec<usize> = candidates
        .iter()
        .map(|call| {
            catalogue
                .things
                .get(&call.thing)
                .map_or(0, |entry| fit(entry, call, &said, catalogue))
        })
        .collect();
    let best = *scores.iter().max()?;
    let mut winners = scores
        .iter()
        .zip(candidates)
        .filter(|(score, _)| **score == best);
    match (best, winners.next(), winners.next()) {
        (1.., Some((_, winner)), None) => Some(vec![winner.clone()]),
        _ => None,
    }
}

/// How many words of the answer speak of this candidate.
fn fit(entry: &Entry, call: &Call, said: &[String], catalogue: &Catalogue) -> usize {
    let mut known: BTreeSet<String> = entry
        .offers
        .names
        .iter()
        .flat_map(|name| name.words.clone())
        .collect();
    known.extend(entry.offers.location.iter().flatten().cloned());
    let action = match &call.operation {
        Operation::Invoke { action, .. } => action,
        Operation::Read { property } | Operation::Write { property, .. } => property,
    };
    known.extend(words(action));
    let stop = &catalogue.wording.grammar.stop;
    let named = said
        .iter()
        .filter(|word| known.contains(*word) && !stop.has(word))
        .count();
    let is_call = |offer: &&Offer| match (&offer.target, &call.operation) {
        (Target::Action(a), Operation::Invoke { action, .. }) => a == action,
        (Target::Write(a), Operation::Write { property, .. }) => a == property,
        _ => false,
    };
    let input = match &call.operation {
        Operation::Invoke { input, .. } => input.as_ref(),
        Operation::Write { value, .. } => Some(value),
        Operation::Read { .. } => None,
    };
    let offer = entry.offers.offers.iter().find(is_call);
    let valued = offer.zip(input).is_some_and(|(offer, input)| {
        offer.slots.iter().any(|slot| {
            let value = match &slot.member {
                Some(member) => input.get(member),
                None => Some(input),
            };
            value.is_some_and(|value| value_is_named(value, &slot.schema, said))
        })
    });
    named + 2 * usize::from(valued)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::things::description::ThingDescription;
    use crate::understanding::Question;
    use crate::understanding::wording::Wording;

    const DOOR: &str = r#"{
        "@context": "https://www.w3.org/2022/wot/td/v1.1",
        "id": "urn:door",
        "title": "Door",
        "security": "none",
        "securityDefinitions": {"none": {"scheme": "nosec"}},
        "actions": {"unlock": {"title": "Unlock", "edge:confirm": true,
            "forms": [{"href": "actions/unlock", "op": "invokeaction"}]},
            "lock": {"title": "Lock", "forms": [{"href": "actions/lock", "op": "invokeaction"}]}}
    }"#;

    fn catalogue() -> Catalogue {
        let mut catalogue = Catalogue::new(Wording::english());
        let door = ThingDescription::from_json(DOOR).expect("a description");
        let phrases = catalogue.phrases_for(&door);
        let vectors = vec![vec![1.0, 0.0]; phrases.len()];
        catalogue
            .insert(&door, phrases, vectors)
            .expect("one vector each");
        catalogue
    }

    fn call(catalogue: &Catalogue, action: &str) -> Call {
        let door = catalogue.descriptions().next().expect("the door");
        Call {
            thing: door.id.clone(),
            operation: Operation::Invoke {
                action: action.to_owned(),
                input: None,
            },
        }
    }

    fn say(catalogue: &Catalogue, text: &str, focus: &Focus) -> Resolution {
        let prepared = catalogue.prepare(text, focus);
        let vectors = vec![vec![0.0, 1.0]; prepared.texts().len()];
        catalogue.resolve(&prepared, &vectors, focus, &|_: &ThingId, _: &str| None)
    }

    fn asked(candidates: Vec<Call>, kind: PendingKind, next: Vec<Question>) -> Focus {
        Focus {
            pending: Some(Pending {
                ready: Vec::new(),
                candidates,
                kind,
                next,
            }),
            ..Focus::default()
        }
    }

    #[test]
    fn a_yes_to_one_question_does_not_answer_the_next() {
        let catalogue = catalogue();
        let (lock, unlock) = (call(&catalogue, "lock"), call(&catalogue, "unlock"));
        let next = Question {
            question: "Shall I unlock?".to_owned(),
            candidates: vec![unlock.clone()],
            kind: PendingKind::Confirm,
        };
        let first = asked(vec![lock.clone()], PendingKind::Confirm, vec![next]);
        let second = say(&catalogue, "yes", &first);
        assert!(
            matches!(&second.understanding, Understanding::Ask { question, .. } if question == "Shall I unlock?")
        );
        let done = say(&catalogue, "yes", &second.focus);
        assert_eq!(done.understanding, Understanding::Calls(vec![lock, unlock]));
    }

    #[test]
    fn what_was_only_chosen_still_needs_its_yes() {
        let catalogue = catalogue();
        let options = vec![call(&catalogue, "lock"), call(&catalogue, "unlock")];
        let chosen = say(
            &catalogue,
            "the second",
            &asked(options, PendingKind::Choose, Vec::new()),
        );
        let pending = chosen.focus.pending.expect("a question is open");
        assert_eq!(pending.kind, PendingKind::Confirm);
        assert_eq!(pending.candidates, [call(&catalogue, "unlock")]);
    }

    #[test]
    fn a_question_of_before_the_next_ones_were_kept_is_still_read() {
        let old = json!({"ready": [], "candidates": [], "kind": "confirm"});
        let pending: Pending = serde_json::from_value(old).expect("the older form");
        assert!(pending.next.is_empty());
    }
}
