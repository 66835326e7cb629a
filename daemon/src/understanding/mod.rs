//! From words to calls on Things, without asking a language model.
//!
//! Pure: no model, no clock, no I/O. The shell embeds the texts that this module asks for
//! and passes the vectors in:
//!
//! 1. when a thing connects: [`catalogue::Catalogue::phrases_for`], embed the texts, `insert` them;
//! 2. for a sentence: [`catalogue::Catalogue::prepare`], embed its texts, `resolve`;
//! 3. run the calls (or ask, refuse, converse as told) and keep the new [`Focus`] with the session.
//!
//! It never guesses: what is ambiguous asks back, a value that the thing does not take is
//! refused, and what is no command is conversation. A call whose arguments violate the
//! thing's schema cannot come out.

pub mod catalogue;
pub mod phrases;
pub mod reply;
pub mod wording;

mod clause;
mod command;
mod decide;
mod derive;
mod dialogue;
mod evidence;
mod lexicon;
mod matcher;
mod numbers;
mod pending;
mod phrase_list;
mod predicate;
mod question;
mod reader;
mod repetition;
mod slots;
mod speech;
mod templates;
mod text;
mod values;
mod vocabulary;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::things::description::ThingId;
use crate::things::schema::ValueError;

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// On which thing.
    pub thing: ThingId,
    /// What.
    pub operation: Operation,
}

/// What to do on a thing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Invoke an action.
    Invoke {
        /// The action's name.
        action: String,
        /// Its input, valid under the action's schema; `None` where it takes none.
        input: Option<Value>,
    },
    /// Read a property.
    Read {
        /// The property's name.
        property: String,
    },
    /// Write a property.
    Write {
        /// The property's name.
        property: String,
        /// The value, valid under the property's schema.
        value: Value,
    },
}

/// What a sentence came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Understanding {
    /// Do these, in this order.
    Calls(Vec<Call>),
    /// Ask the person; the answer is understood with the [`Focus`] of this [`Resolution`].
    Ask {
        /// What to ask, ready to show.
        question: String,
        /// What it could have meant; empty where something else is missing (a number).
        candidates: Vec<Call>,
    },
    /// It is a command, but one that must not or cannot be carried out.
    Refuse {
        /// Why, as a type.
        error: Refusal,
        /// Why, ready to show.
        message: String,
    },
    /// The person took an open question back ("no", "cancel"): nothing is done.
    Cancelled,
    /// No command: an answer is the language model's business.
    Conversation,
}

/// Why a command is not carried out.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Nothing here is called that.
    #[error("no thing is called {name:?}")]
    UnknownThing {
        /// The person's words for it.
        name: String,
    },
    /// The thing is known but has no such action or property.
    #[error("{thing} cannot do that")]
    NotOffered {
        /// The thing's title.
        thing: String,
    },
    /// The thing is known but does not tell what was asked of it.
    #[error("{thing} does not tell that")]
    NotTold {
        /// The thing's title.
        thing: String,
    },
    /// The value is not allowed.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// A number with a unit that the thing cannot take.
    #[error("{thing} takes {expected}, not {actual}")]
    WrongUnit {
        /// The thing's title.
        thing: String,
        /// The unit it takes, as the description writes it.
        expected: String,
        /// The person's unit.
        actual: String,
    },
    /// "brighter" at full brightness.
    #[error("{thing} is at its limit {limit}")]
    AtLimit {
        /// The thing's title.
        thing: String,
        /// The limit with its unit.
        limit: String,
    },
    /// "brighter" where the device has not told its present value.
    #[error("the present {property} of {thing} is not known")]
    StateUnknown {
        /// The thing's title.
        thing: String,
        /// The property's title.
        property: String,
    },
    /// For later or under a condition ("in ten minutes"): nothing here waits.
    #[error("commands for later are not offered")]
    Deferred,
}

/// How one clause was decided, for `--json` and debugging.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// The clause as it was compared.
    pub clause: String,
    /// The generated phrase that was nearest among those of the chosen call.
    pub phrase: Option<String>,
    /// Cosine similarity with it, -1 to 1.
    pub similarity: f32,
    /// Score above the best call that differs.
    pub margin: f32,
    /// Why it was decided so.
    pub reason: String,
}

/// What a sentence came to, why, and what the next sentence may refer to.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolution {
    /// What to do.
    pub understanding: Understanding,
    /// Replaces the session's focus.
    pub focus: Focus,
    /// One for each clause.
    pub explanations: Vec<Explanation>,
}

/// What "it" and "the other one" refer to, and the question that is open. Kept with the
/// session; its JSON form is stored there.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Focus {
    /// The things that were last spoken of, the latest first.
    pub things: Vec<ThingId>,
    /// The calls that were last understood, for "the fan too" and "a bit more".
    pub calls: Vec<Call>,
    /// The question that the person has not answered yet.
    pub pending: Option<Pending>,
}

/// An open question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pending {
    /// Calls of the same sentence that are clear and allowed; done together with the answer.
    pub ready: Vec<Call>,
    /// What the answer chooses from.
    pub candidates: Vec<Call>,
    /// How it is answered.
    pub kind: PendingKind,
    /// What the same sentence leaves to be asked after this.
    #[serde(default)]
    pub next: Vec<Question>,
}

/// Something to ask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// In words, ready to show.
    pub question: String,
    /// What the answer chooses from.
    pub candidates: Vec<Call>,
    /// How it is answered.
    pub kind: PendingKind,
}

/// How a question is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PendingKind {
    /// Yes or no: do all candidates, or nothing.
    Confirm,
    /// One of the candidates, by name.
    Choose,
    /// A value for the only candidate, whose input is left out.
    Value,
}

/// The last known values of properties, which relative commands ("brighter") start from.
pub trait StateSnapshot {
    /// The value that the device last reported; `None` if it has not.
    fn value(&self, thing: &ThingId, property: &str) -> Option<Value>;
}

impl<F: Fn(&ThingId, &str) -> Option<Value>> StateSnapshot for F {
    fn value(&self, thing: &ThingId, property: &str) -> Option<Value> {
        self(thing, property)
    }
}
