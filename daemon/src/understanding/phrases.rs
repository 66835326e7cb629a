//! What a Thing Description offers, as operations with the phrases that stand for them.
//!
//! Generated from the description alone: titles, aliases, location, the verbs of the kind of
//! action (from `@type`, else from the title or name, else from the shape of the input), the
//! values of enumerations, and `#` for a number or a text. No thing is known by name here.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::things::description::{Choice, DataSchema, DataType, ThingDescription, ThingId};

use super::derive::{add_action, add_property, add_switches, names, push_new};
use super::wording::{Verb, Wording, Words};

/// The most phrases of one thing; embedding one takes some 3 ms on a slow core, so that a thing is
/// ready in about a second. What comes later in the description is then matched by words only.
pub const PHRASES_MAX: usize = 400;
/// How many names of a thing its phrases use.
const NAMES_IN_PHRASES: usize = 3;

/// A text to embed when a thing connects.
#[derive(Debug, Clone, PartialEq)]
pub struct Phrase {
    /// The text.
    pub text: String,
    /// Which of the thing's operations it stands for.
    pub(super) operation: usize,
}

/// A way to say which thing is meant.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Name {
    pub words: Words,
    /// A kind ("light") may name several things at once.
    pub is_kind: bool,
    pub is_plural: bool,
}

/// What a call does, without its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Target {
    Action(String),
    Read(String),
    Write(String),
}

/// A value that an operation needs.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    /// The member of an object; `None` where the value is the whole input.
    pub member: Option<String>,
    pub title: String,
    pub schema: DataSchema,
    pub required: bool,
}

/// One thing that can be done with a thing.
#[derive(Debug, Clone)]
pub(super) struct Offer {
    pub target: Target,
    pub title: String,
    pub verbs: BTreeSet<Verb>,
    /// Titles that tell what no common verb tells ("return to dock").
    pub own: Vec<Words>,
    /// What the affordance is called ("fan speed", "fan").
    pub names: Vec<Words>,
    pub quantities: BTreeSet<String>,
    pub slots: Vec<Slot>,
    /// The value where the verb alone says it ("turn off" a fan speed).
    pub fixed: Option<Value>,
    pub sets: Option<String>,
    /// Something that a person sets, as against what is measured.
    pub is_setting: bool,
}

impl Offer {
    pub(super) fn is_read(&self) -> bool {
        matches!(self.target, Target::Read(_))
    }

    pub(super) fn takes_value(&self) -> bool {
        self.fixed.is_none() && !self.slots.is_empty()
    }
}

/// A thing as understanding sees it.
#[derive(Debug, Clone)]
pub(super) struct Offers {
    pub id: ThingId,
    pub title: String,
    pub names: Vec<Name>,
    pub location: Option<Words>,
    pub kinds: Vec<Words>,
    pub offers: Vec<Offer>,
}

/// `fan_speed`, `fanSpeed`, `Fan speed` -> `fan speed`.
pub(super) fn words(text: &str) -> Words {
    let mut spaced = String::with_capacity(text.len() + 4);
    let mut before_lower = false;
    for c in text.chars() {
        if c.is_uppercase() && before_lower {
            spaced.push(' ');
        }
        before_lower = c.is_lowercase();
        if c.is_alphanumeric() || c == '/' || c == '°' || c == '%' {
            spaced.extend(c.to_lowercase());
        } else if c != '\'' {
            spaced.push(' ');
        }
    }
    spaced.split_whitespace().map(str::to_owned).collect()
}

/// Whether `needle` stands in `hay` as a run.
pub(super) fn contains(hay: &[String], needle: &[String]) -> bool {
    !needle.is_empty() && hay.windows(needle.len()).any(|window| window == needle)
}

impl Offers {
    pub(super) fn new(description: &ThingDescription, wording: &Wording) -> Self {
        let mut offers = Vec::new();
        for (name, action) in &description.actions {
            add_action(&mut offers, description, name, action, wording);
        }
        for (name, property) in &description.properties {
            add_property(&mut offers, name, property, wording);
        }
        add_switches(&mut offers, wording);
        Self {
            id: description.id.clone(),
            title: description.title.clone(),
            names: names(description, wording),
            location: description.location.as_deref().map(words),
            kinds: description.kinds.iter().map(|kind| words(kind)).collect(),
            offers,
        }
    }

    /// The texts to embed.
    pub(super) fn phrases(&self, wording: &Wording) -> Vec<Phrase> {
        let mut names: Vec<String> = Vec::new();
        for name in self.names.iter().filter(|name| !name.is_plural) {
            let name = name.words.join(" ");
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names.truncate(NAMES_IN_PHRASES);
        let mut phrases = Vec::new();
        for (operation, offer) in self.offers.iter().enumerate() {
            let mut texts = BTreeSet::new();
            for name in &names {
                super::templates::offer_texts(offer, name, wording, &mut texts);
            }
            phrases.extend(texts.into_iter().map(|text| Phrase { text, operation }));
        }
        phrases.truncate(PHRASES_MAX);
        phrases
    }
}

/// What people say for a value of an enumeration.
pub(super) fn choice_words(choice: &Choice) -> Vec<Words> {
    let mut said: Vec<Words> = choice.title.iter().map(|title| words(title)).collect();
    said.extend(choice.aliases.iter().map(|alias| words(alias)));
    if let Value::String(text) = &choice.value {
        push_new(&mut said, words(text));
    }
    said
}

pub(super) fn is_text(schema: &DataSchema) -> bool {
    schema.data_type == Some(DataType::String) && schema.choices.is_empty()
}

pub(super) fn is_number(schema: &DataSchema) -> bool {
    matches!(schema.data_type, Some(DataType::Integer | DataType::Number))
}

/// Verbs that undo each other.
pub(super) const OPPOSITES: &[(Verb, Verb)] = &[
    (Verb::TurnOn, Verb::TurnOff),
    (Verb::Open, Verb::Close),
    (Verb::Unlock, Verb::Lock),
    (Verb::Start, Verb::Stop),
    (Verb::Play, Verb::Pause),
];
