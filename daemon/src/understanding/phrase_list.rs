//! Lists of word sequences, as the wording file writes them.

use serde::{Deserialize, Deserializer};

/// A word sequence.
pub type Words = Vec<String>;

/// A list of word sequences, written as a list of strings, kept with the longest first.
#[derive(Debug, Clone, Default)]
pub struct PhraseList(Vec<Words>);

impl<'de> Deserialize<'de> for PhraseList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let mut phrases: Vec<Words> = texts
            .iter()
            .map(|text| text.split_whitespace().map(str::to_owned).collect())
            .filter(|words: &Words| !words.is_empty())
            .collect();
        phrases.sort_by_key(|words| std::cmp::Reverse(words.len()));
        Ok(Self(phrases))
    }
}

impl PhraseList {
    /// The sequences, longest first.
    pub fn iter(&self) -> impl Iterator<Item = &Words> {
        self.0.iter()
    }

    /// Whether this single word is in the list.
    pub fn has(&self, word: &str) -> bool {
        self.0
            .iter()
            .any(|words| words.len() == 1 && words[0] == word)
    }

    /// How many words of `text` at its start are in the list; 0 if none.
    pub fn prefix_len<S: AsRef<str>>(&self, text: &[S]) -> usize {
        self.0
            .iter()
            .find(|words| starts_with(text, words))
            .map_or(0, Vec::len)
    }
}

/// Whether `text` starts with `words`.
pub fn starts_with<S: AsRef<str>>(text: &[S], words: &[String]) -> bool {
    text.len() >= words.len() && text.iter().zip(words).all(|(a, b)| a.as_ref() == b)
}
