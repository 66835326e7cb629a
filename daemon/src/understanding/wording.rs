//! The words of one language: everything that this module knows about English is data.
//!
//! `daemon/wording/en.toml` is built in; an operator may name another file. Lists are written
//! in the form that [`super::text`] makes of a sentence: lower case, contractions expanded.
//! A `*` inside a verb stands for up to [`GAP_TOKENS_MAX`] other words.

use std::collections::BTreeMap;

use serde::Deserialize;

pub use super::phrase_list::{PhraseList, Words, starts_with};

/// How many words may stand in a `*` ("get the ceiling light in here going").
pub const GAP_TOKENS_MAX: usize = 6;

const ENGLISH: &str = include_str!("../../wording/en.toml");

/// The kinds of actions that people have common verbs for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Begin to work, give light.
    TurnOn,
    /// Cease to work.
    TurnOff,
    /// The other of the two.
    Toggle,
    /// Give way.
    Open,
    /// Bar the way.
    Close,
    /// Make fast.
    Lock,
    /// Make loose; usually dangerous.
    Unlock,
    /// Begin a process.
    Start,
    /// End a process.
    Stop,
    /// Interrupt it.
    Pause,
    /// Go on with it.
    Resume,
    /// Play media.
    Play,
    /// Wipe what is shown.
    Clear,
    /// Show a text.
    Show,
    /// Give a value.
    Set,
    /// More of it, or upwards.
    Raise,
    /// Less of it, or downwards.
    Lower,
}

/// How people say one kind of action.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerbWords {
    /// Verbs and verb phrases.
    pub phrases: PhraseList,
    /// Those that mean another kind first, and this one where a thing has no such action
    /// ("start the fan" turns it on).
    #[serde(default)]
    pub near: PhraseList,
    /// Words that mean it where no noun follows ("the lamp *on*").
    #[serde(default)]
    pub particles: PhraseList,
    /// Which of the phrases a generated phrase uses: the first `templates` of the file.
    #[serde(default)]
    pub templates: Vec<String>,
}

/// A measurable quality, whatever thing has it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantity {
    /// What it is called; also found in the names of affordances.
    pub names: PhraseList,
    /// "how ... is it".
    #[serde(default)]
    pub adjectives: PhraseList,
    /// Words for more of it.
    #[serde(default)]
    pub up: PhraseList,
    /// Words for less of it.
    #[serde(default)]
    pub down: PhraseList,
    /// "how ... is it" asks it of the surroundings where the thing in focus does not tell it.
    #[serde(default)]
    pub ambient: bool,
    /// The step of one relative change in base units of its dimension; without it a tenth
    /// of the range.
    pub step: Option<f64>,
}

/// A unit that people say.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unit {
    /// How people write it.
    pub words: PhraseList,
    /// How descriptions write it.
    pub codes: Vec<String>,
    /// What it measures; units of one dimension convert. A loose unit ("degrees") lists
    /// all that it may mean and takes the other's scale.
    pub dimensions: Vec<String>,
    /// How we say it; as the description writes it where this is left out.
    pub spoken: Option<Spoken>,
    /// Base units in one of it: `base = (value + offset) * factor`.
    #[serde(default = "one")]
    pub factor: f64,
    /// See `factor`.
    #[serde(default)]
    pub offset: f64,
}

/// A unit after a number.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spoken {
    /// After 1.
    pub one: String,
    /// After any other number.
    pub other: String,
}

/// What the language model is told before a conversation.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConversationWords {
    /// Who it is and what it must not do.
    pub frame: String,
    /// Which devices there are: `{things}`.
    pub things: String,
}

fn one() -> f64 {
    1.0
}

/// How numbers are said.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Numbers {
    /// Zero to ninety.
    pub words: BTreeMap<String, f64>,
    /// "hundred", "thousand".
    pub multipliers: BTreeMap<String, f64>,
    /// "half", "quarter", singular and plural.
    pub fractions: BTreeMap<String, f64>,
    /// Between hundreds and tens, and before a fraction.
    pub and: String,
    /// Before decimals.
    pub point: String,
    /// Before a negative number.
    pub minus: PhraseList,
    /// A number word that is also a pronoun ("the other one").
    pub pronoun: String,
    /// Words after which the pronoun is a number after all.
    pub before_pronoun: PhraseList,
    /// The largest value of a schema.
    pub largest: PhraseList,
    /// The smallest.
    pub smallest: PhraseList,
}

/// Words by the part they play in a sentence.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grammar {
    /// Whole tokens to replace ("don't" = "do not").
    pub contractions: BTreeMap<String, String>,
    /// Endings to drop from a token.
    pub possessives: Vec<String>,
    /// Dropped wherever they stand.
    pub fillers: PhraseList,
    /// Dropped from the start of a clause.
    pub polite: PhraseList,
    /// As `polite`, and the verb follows in its `gerund` form.
    pub polite_gerund: PhraseList,
    /// As `polite`, and the wanted state follows ("I want the lamp off").
    pub wish: PhraseList,
    /// Endings of a gerund, and what the stem may have lost.
    pub gerund: Vec<String>,
    /// Endings of a past form or participle.
    pub past: Vec<String>,
    /// What a stem may have lost before an ending.
    pub stem_restores: Vec<String>,
    /// Plural endings of nouns.
    pub plural: Vec<String>,
    /// Between clauses, besides punctuation.
    pub conjunctions: PhraseList,
    /// "the", "my".
    pub determiners: PhraseList,
    /// "a", "any": speaks of no thing in particular.
    pub indefinite: PhraseList,
    /// A clause that starts with one tells something.
    pub subjects: PhraseList,
    /// Forms of "be", and auxiliaries: inside a clause they make it a statement.
    pub copulas: PhraseList,
    /// Make a clause say what not to do.
    pub negations: PhraseList,
    /// Start a question about state.
    pub questions: PhraseList,
    /// Start a request to be told state; dropped.
    pub requests: PhraseList,
    /// Start a question or request that is never about state.
    pub conversation: PhraseList,
    /// Make a command one for later or under a condition.
    pub deferred: PhraseList,
    /// Before a number with a unit of time they mean later.
    pub deferred_before: PhraseList,
    /// May follow a particle.
    pub after_particle: PhraseList,
    /// Before a place or a value.
    pub prepositions: PhraseList,
    /// Before the value of a setting.
    pub value_prepositions: PhraseList,
    /// Before the size of a change.
    pub change_prepositions: PhraseList,
    /// Words without a thing or an action in them.
    pub stop: PhraseList,
    /// Adjectives before a noun that single nothing out.
    pub harmless: PhraseList,
    /// Words never taken for a typing error.
    pub never_correct: PhraseList,
}

/// What refers to things without naming them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct References {
    /// "it", "that one".
    pub pronouns: PhraseList,
    /// Those of them that may refer to nothing at all ("how warm is it").
    pub impersonal: PhraseList,
    /// "the other one".
    pub other: PhraseList,
    /// "both".
    pub both: PhraseList,
    /// "all", before a noun.
    pub all: PhraseList,
    /// "everything", without a noun.
    pub everything: PhraseList,
    /// "except".
    pub except: PhraseList,
    /// "too", "also": the last command, on this thing.
    pub also: PhraseList,
    /// "first", "second": of what was just offered.
    pub ordinals: Vec<String>,
    /// "a bit": half of a step.
    pub slightly: PhraseList,
    /// "a lot": two steps.
    pub much: PhraseList,
}

/// Answers to a question of ours.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answers {
    /// Yes.
    pub yes: PhraseList,
    /// No, never mind.
    pub no: PhraseList,
}

/// Phrases that stand for affordances, with `{thing}`, `{name}`, `{value}` and `{state}`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhraseTemplates {
    /// An action with a verb: `{verb}`, `{thing}`.
    pub action: Vec<String>,
    /// An action that only its title tells: `{title}`, `{thing}`.
    pub titled: Vec<String>,
    /// A number: `{thing}`, `{name}`, `{unit}`; the number itself is `#`.
    pub number: Vec<String>,
    /// One value of an enumeration: `{thing}`, `{name}`, `{value}`.
    pub choice: Vec<String>,
    /// A text: `{thing}`; the text itself is `#`.
    pub text: Vec<String>,
    /// Reading: `{thing}`, `{name}`.
    pub read: Vec<String>,
    /// Reading a quantity with an adjective: `{thing}`, `{adjective}`.
    pub read_adjective: Vec<String>,
    /// Reading a boolean: `{thing}`, `{name}`.
    pub read_boolean: Vec<String>,
}

/// When a similarity is good enough. How each was derived stands in the data file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// Thing and verb are both named: the embedding only has to not disagree.
    pub named: f32,
    /// The thing is named, the verb is not known.
    pub verb_unknown: f32,
    /// No thing is named that is here: from this on we ask whether the nearest is meant.
    pub nothing_named: f32,
    /// A question about a named thing.
    pub question: f32,
    /// By how much the best call must lead another of the same thing, or we ask which.
    pub margin: f32,
    /// By how much it must lead where the embedding alone decides, or we ask whether.
    pub lead: f32,
}

/// All the words of a language.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wording {
    /// BCP 47 tag.
    pub language: String,
    /// See [`Thresholds`].
    pub thresholds: Thresholds,
    /// See [`Grammar`].
    pub grammar: Grammar,
    /// See [`References`].
    pub references: References,
    /// See [`Answers`].
    pub answers: Answers,
    /// See [`Numbers`].
    pub numbers: Numbers,
    /// By kind of action.
    pub verbs: BTreeMap<Verb, VerbWords>,
    /// By our name for it.
    pub quantities: BTreeMap<String, Quantity>,
    /// By our name for it.
    pub units: BTreeMap<String, Unit>,
    /// See [`PhraseTemplates`].
    pub phrases: PhraseTemplates,
    /// See [`ConversationWords`].
    pub conversation: ConversationWords,
    /// Sentences that we say, with `{places}`; [`super::reply`] knows which there must be.
    pub replies: BTreeMap<String, String>,
}

/// A wording file that cannot be used. Whoever wrote it is to blame.
#[derive(Debug, thiserror::Error)]
pub enum WordingError {
    /// Not TOML, or not of this form.
    #[error("wording: {0}")]
    Malformed(#[from] toml::de::Error),
    /// A sentence that must be there is not.
    #[error("wording: replies.{0} is missing")]
    MissingReply(&'static str),
}

impl Wording {
    /// Reads a wording file.
    ///
    /// # Errors
    /// [`WordingError`]
    pub fn parse(text: &str) -> Result<Self, WordingError> {
        let wording: Self = toml::from_str(text)?;
        for name in super::reply::TEMPLATES {
            if !wording.replies.contains_key(*name) {
                return Err(WordingError::MissingReply(name));
            }
        }
        Ok(wording)
    }

    /// The built-in English.
    pub fn english() -> Self {
        Self::parse(ENGLISH).expect("the built-in wording is parsed by a test")
    }

    /// The unit of a description, by its code.
    pub fn unit_by_code(&self, code: &str) -> Option<&Unit> {
        let wanted = code.trim();
        self.units.values().find(|unit| {
            unit.codes
                .iter()
                .any(|code| code.eq_ignore_ascii_case(wanted))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_wording_parses() {
        let wording = Wording::parse(ENGLISH).expect("en.toml");
        assert_eq!(wording.language, "en");
        assert!(wording.verbs.contains_key(&Verb::TurnOn));
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        let text = ENGLISH.replacen("polite =", "polight =", 1);
        assert!(matches!(
            Wording::parse(&text),
            Err(WordingError::Malformed(_))
        ));
    }
}
