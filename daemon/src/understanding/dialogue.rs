//! From clauses to a [`Resolution`]: what is meant, in the light of what was said before.
//!
//! A sentence is done whole or not at all: if one clause must be asked about, what was clear waits with
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
    Call, Explanation, Focus, Operation, Pending, PendingKind, Question, Resolution, StateSnapshot,
    Understanding,
};

/// How many things "it" may stand for.
const FOCUS_MAX: usize = 8;

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
        let vector = vectors.get(part.text);
        let literal = part.literal.and_then(|literal| vectors.get(literal));
        let shared = shared_value(
            &part.clause,
            prepared.clauses.get(index + 1),
            &catalogue.wording,
        );
        let clause = shared.as_ref().unwrap_or(&part.clause);
        aside = aside && part.continues || matches!(part.clause.act, Act::Aside(_));
        let outcome = if aside {
            let reason = match part.clause.act {
                Act::Aside(reason) => reason,
                _ => "goes on with what was no command",
            };
            Decided::plain(Verdict::Nothing, reason)
        } else {
            context.decide(clause, vector, literal)
        };
        context.remember(&part.clause, &outcome.verdict, aside);
        decided.push(outcome);
    }
    let parts = prepared.clauses.iter();
    let explanations = parts.zip(&decided).map(|(part, decided)| Explanation {
        clause: prepared.texts()[part.text].clone(),
        phrase: decided.phrase.clone(),
        similarity: decided.similarity,
        margin: decided.margin,
        reason: decided.reason.to_owned(),
    });
    let explanations = explanations.collect();
    let verdicts = decided.into_iter().map(|decided| decided.verdict).collect();
    conclude(catalogue, context.focus, verdicts, explanations)
}

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

/// Puts the clauses' verdicts together: all refusals are said, all questions asked in turn.
fn conclude(
    catalogue: &Catalogue,
    focus: Focus,
    verdicts: Vec<Verdict>,
    explanations: Vec<Explanation>,
) -> Resolution {
    let mut calls: Vec<Call> = Vec::new();
    let mut questions = Vec::new();
    let mut refusals = Vec::new();
    for verdict in verdicts {
        match verdict {
            Verdict::Calls(more) => calls.extend(more),
            Verdict::Ask {
                kind,
                candidates,
                question,
            } => questions.push(Question {
                question,
                candidates,
                kind,
            }),
            Verdict::Refuse(refusal) if !refusals.contains(&refusal) => refusals.push(refusal),
            Verdict::Refuse(_) | Verdict::Nothing => {}
        }
    }
    let messages: Vec<String> = refusals
        .iter()
        .map(|error| reply::refusal(error, &catalogue.wording))
        .collect();
    let understanding = match refusals.into_iter().next() {
        Some(error) => Understanding::Refuse {
            error,
            message: messages.join(" "),
        },
        None if calls.is_empty() && questions.is_empty() => Understanding::Conversation,
        None => {
            return proceed(catalogue, focus, Vec::new(), calls, questions, explanations);
        }
    };
    Resolution {
        understanding,
        focus,
        explanations,
    }
}

/// Asks the first question that is left, or does everything. `ready` calls are allowed; of `calls`
/// those that need a person's yes become a question of their own.
pub(super) fn proceed(
    catalogue: &Catalogue,
    mut focus: Focus,
    mut ready: Vec<Call>,
    calls: Vec<Call>,
    mut questions: Vec<Question>,
    explanations: Vec<Explanation>,
) -> Resolution {
    let (dangerous, harmless): (Vec<Call>, Vec<Call>) = calls
        .into_iter()
        .partition(|call| needs_yes(catalogue, call));
    ready.extend(harmless);
    if !dangerous.is_empty() {
        let commands = commands_words(catalogue, &dangerous, "and");
        let places = [("commands", commands.as_str())];
        questions.push(Question {
            question: say(&catalogue.wording, "ask_confirm", &places),
            candidates: dangerous,
            kind: PendingKind::Confirm,
        });
    }
    let understanding = if questions.is_empty() {
        focus.calls.clone_from(&ready);
        Understanding::Calls(ready)
    } else {
        let first = questions.remove(0);
        focus.pending = Some(Pending {
            ready,
            candidates: first.candidates.clone(),
            kind: first.kind,
            next: questions,
        });
        Understanding::Ask {
            question: first.question,
            candidates: first.candidates,
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
    let confirm = |description: &ThingDescription| match &call.operation {
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

pub(super) fn commands_words(catalogue: &Catalogue, calls: &[Call], join: &str) -> String {
    let words: Vec<String> = calls
        .iter()
        .filter_map(|call| {
            let description = catalogue.description(&call.thing)?;
            Some(reply::call_words(call, description, &catalogue.wording))
        })
        .collect();
    super::values::join(&words, &say(&catalogue.wording, join, &[]))
}

impl Context<'_> {
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
