//! The things that can be talked about, and the two steps from a sentence to a [`Resolution`].

use std::collections::BTreeMap;

use crate::things::description::{ThingDescription, ThingId};
use crate::things::schema::{SchemaError, ThingSchemas};

use super::clause::{self, Clause};
use super::lexicon::Lexicon;
use super::numbers::recognise_numbers;
use super::phrases::{Offers, Phrase};
use super::speech::{self, Act, Piece};
use super::text::{Token, tokenise};
use super::wording::Wording;
use super::{Call, Focus, Resolution, StateSnapshot};

/// The most clauses of a sentence that are acted on; what a person says in one breath.
pub const CLAUSES_MAX: usize = 8;

/// Everything that sentences are matched against. Owned by one task.
#[derive(Debug)]
pub struct Catalogue {
    pub(super) wording: Wording,
    pub(super) things: BTreeMap<ThingId, Entry>,
    pub(super) lexicon: Lexicon,
}

/// One thing with the vectors of its phrases.
#[derive(Debug)]
pub(super) struct Entry {
    pub description: ThingDescription,
    pub schemas: ThingSchemas,
    pub offers: Offers,
    pub phrases: Vec<(Phrase, Vec<f32>)>,
}

/// A sentence with its clauses taken apart, waiting for their vectors.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub(super) clauses: Vec<PreparedClause>,
    /// The pieces as they were said, for answers to our questions.
    pub(super) pieces: Vec<Vec<Token>>,
    texts: Vec<String>,
}

#[derive(Debug, Clone)]
pub(super) struct PreparedClause {
    pub clause: Clause,
    pub continues: bool,
    /// Which of the texts it is compared by.
    pub text: usize,
    /// Its text with the pronoun as it was said, where that may refer to nothing.
    pub literal: Option<usize>,
}

impl Prepared {
    /// The texts to embed: one for each clause, and a second where "it" may refer to nothing.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }
}

/// See [`Catalogue::nearest`].
#[derive(Debug, Clone)]
pub struct Nearest {
    /// What it stands for; a value that it needs is left out or null.
    pub call: Option<Call>,
    /// Its text.
    pub phrase: String,
    /// Cosine similarity, -1 to 1.
    pub similarity: f32,
}

/// A thing that cannot be taken into the catalogue.
#[derive(Debug, thiserror::Error)]
pub enum InsertError {
    /// The description's schemas do not compile. The device is to blame.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// Not one vector for each phrase. Our own mistake.
    #[error("{phrases} phrases came with {vectors} vectors")]
    VectorCount {
        /// How many phrases were given.
        phrases: usize,
        /// How many vectors were given.
        vectors: usize,
    },
}

impl Catalogue {
    /// An empty catalogue.
    pub fn new(wording: Wording) -> Self {
        Self {
            lexicon: Lexicon::new([].iter(), &wording),
            things: BTreeMap::new(),
            wording,
        }
    }

    /// The wording that it was made with.
    pub fn wording(&self) -> &Wording {
        &self.wording
    }

    /// The descriptions of the things in it.
    pub fn descriptions(&self) -> impl Iterator<Item = &ThingDescription> {
        self.things.values().map(|entry| &entry.description)
    }

    /// The description of one thing.
    pub fn description(&self, thing: &ThingId) -> Option<&ThingDescription> {
        self.things.get(thing).map(|entry| &entry.description)
    }

    /// The texts that stand for what this thing offers; embed them and give them to [`Self::insert`].
    pub fn phrases_for(&self, description: &ThingDescription) -> Vec<Phrase> {
        Offers::new(description, &self.wording).phrases(&self.wording)
    }

    /// Takes a thing in, or takes its new description. `vectors` are the unit-length embeddings
    /// of the phrases, in their order.
    ///
    /// # Errors
    /// [`InsertError`]; the catalogue is then as it was.
    pub fn insert(
        &mut self,
        description: &ThingDescription,
        phrases: Vec<Phrase>,
        vectors: Vec<Vec<f32>>,
    ) -> Result<(), InsertError> {
        if phrases.len() != vectors.len() {
            return Err(InsertError::VectorCount {
                phrases: phrases.len(),
                vectors: vectors.len(),
            });
        }
        let entry = Entry {
            schemas: ThingSchemas::compile(description)?,
            offers: Offers::new(description, &self.wording),
            phrases: phrases.into_iter().zip(vectors).collect(),
            description: description.clone(),
        };
        self.things.insert(description.id.clone(), entry);
        self.rebuild();
        Ok(())
    }

    /// Takes a thing out. Whether it was in.
    pub fn remove(&mut self, thing: &ThingId) -> bool {
        let was_in = self.things.remove(thing).is_some();
        self.rebuild();
        was_in
    }

    fn rebuild(&mut self) {
        let things = self.things.values().map(|entry| &entry.offers);
        self.lexicon = Lexicon::new(things, &self.wording);
    }

    /// The phrase that is nearest to a vector, whatever the words say. For debugging, and the
    /// peer that [`Self::resolve`] is measured against.
    pub fn nearest(&self, vector: &[f32]) -> Option<Nearest> {
        let phrases = self.things.values().flat_map(|entry| {
            let scored = |(phrase, embedded): &(Phrase, Vec<f32>)| Nearest {
                call: entry.offers.offers.get(phrase.operation).and_then(|offer| {
                    let fixed = super::pending::fixed_input(offer);
                    match fixed {
                        Some(input) => super::matcher::call(&entry.offers.id, offer, Some(input)),
                        None => super::pending::template(&entry.offers.id, offer),
                    }
                }),
                phrase: phrase.text.clone(),
                similarity: super::matcher::dot(vector, embedded),
            };
            entry.phrases.iter().map(scored)
        });
        phrases.max_by(|a, b| a.similarity.total_cmp(&b.similarity))
    }

    /// Takes a sentence apart. Any text is allowed; what is beyond
    /// 2000 bytes or [`CLAUSES_MAX`] clauses is not looked at.
    pub fn prepare(&self, utterance: &str, focus: &Focus) -> Prepared {
        let mut corrections = 0;
        let words: Vec<Token> = tokenise(utterance, &self.wording)
            .into_iter()
            .map(|token| self.correct(token, &mut corrections))
            .collect();
        let tokens = recognise_numbers(words, &self.wording);
        let pieces = speech::split(&tokens, &self.wording);
        let mut clauses = Vec::new();
        let mut texts = Vec::new();
        let mut referent = focus.things.first().cloned();
        for Piece { tokens, continues } in pieces.iter().take(CLAUSES_MAX) {
            let Some(clause) = Clause::read(tokens, &self.lexicon, &self.wording, corrections > 0)
            else {
                continue;
            };
            let title = referent
                .as_ref()
                .and_then(|thing| self.things.get(thing))
                .map(|entry| entry.offers.title.as_str());
            let text = texts.len();
            texts.push(clause::text(&clause, &self.wording, title));
            let literal = (clause.act == Act::Question && clause.impersonal && title.is_some())
                .then(|| {
                    texts.push(clause::text(&clause, &self.wording, None));
                    text + 1
                });
            if let Some(thing) = clause.mention.things.first() {
                referent = Some(thing.clone());
            }
            clauses.push(PreparedClause {
                clause,
                continues: *continues,
                text,
                literal,
            });
        }
        Prepared {
            clauses,
            pieces: pieces.into_iter().map(|piece| piece.tokens).collect(),
            texts,
        }
    }

    fn correct(&self, mut token: Token, corrections: &mut usize) -> Token {
        if token.is_word()
            && let Some(meant) = self.lexicon.correction(&token.text, &self.wording)
        {
            token.text = meant.to_owned();
            *corrections += 1;
        }
        token
    }

    /// What the sentence comes to. `vectors` are the unit-length embeddings of
    /// [`Prepared::texts`], in their order; a missing one counts as unlike everything.
    pub fn resolve(
        &self,
        prepared: &Prepared,
        vectors: &[Vec<f32>],
        focus: &Focus,
        state: &dyn StateSnapshot,
    ) -> Resolution {
        super::dialogue::resolve(self, prepared, vectors, focus, state)
    }
}
