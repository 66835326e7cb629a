//! Tokens to text as they come, in whole characters.
//!
//! A character may be spread over several tokens, and some vocabularies join a token to the one before it, so tokens cannot
//! be turned into text one by one. The stream decodes from the last safe point and hands out what is new, holding back as long
//! as the end is an incomplete character (which decodes to U+FFFD). All pieces together are exactly what decoding all tokens at
//! once gives, for any tokens whatever; a model that produces nothing but broken bytes is handed out at the end.

use std::sync::Arc;

use tokenizers::Tokenizer;

use super::{super::error::InferenceError, NamedToken, logprobs::TokenLogprob};

/// One answer's text on its way.
pub(super) struct TextStream {
    tokenizer: Arc<Tokenizer>,
    /// The tokens from the last but one safe point on.
    ids: Vec<u32>,
    /// How many of `ids` come before the last safe point; they are decoded along for the joint, and were handed out.
    context: usize,
    /// Length in bytes of what `ids[..context]` decodes to.
    context_bytes: usize,
}

impl TextStream {
    pub(super) fn new(tokenizer: Arc<Tokenizer>) -> Self {
        Self {
            tokenizer,
            ids: Vec::new(),
            context: 0,
            context_bytes: 0,
        }
    }

    /// Takes one token; returns the text that is certain now, perhaps none. Special tokens have no text.
    pub(super) fn push(&mut self, id: u32) -> Result<String, InferenceError> {
        self.ids.push(id);
        let text = self.decode(&self.ids)?;
        if text.len() <= self.context_bytes || text.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        let piece = text
            .get(self.context_bytes..)
            .unwrap_or_default()
            .to_owned();
        self.ids.drain(..self.context);
        self.context = self.ids.len();
        self.context_bytes = self.decode(&self.ids)?.len();
        Ok(piece)
    }

    /// What was held back to the end.
    pub(super) fn finish(&self) -> Result<String, InferenceError> {
        let text = self.decode(&self.ids)?;
        Ok(text
            .get(self.context_bytes..)
            .unwrap_or_default()
            .to_owned())
    }

    /// A token by its own text, for those who want to know how likely it was.
    pub(super) fn name(&self, token: TokenLogprob) -> Result<NamedToken, InferenceError> {
        let text = self
            .tokenizer
            .decode(&[token.id], false)
            .map_err(|source| InferenceError::Tokenize { source })?;
        Ok(NamedToken {
            id: token.id,
            text,
            logprob: token.logprob,
        })
    }

    fn decode(&self, ids: &[u32]) -> Result<String, InferenceError> {
        self.tokenizer
            .decode(ids, true)
            .map_err(|source| InferenceError::Tokenize { source })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::byte_tokenizer::byte_tokenizer, *};

    fn stream(tokenizer: &Arc<Tokenizer>, ids: &[u32]) -> Vec<String> {
        let mut stream = TextStream::new(Arc::clone(tokenizer));
        let mut pieces: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
        pieces.push(stream.finish().unwrap());
        pieces
    }

    proptest! {
        #[test]
        fn any_text_cut_into_single_bytes_comes_out_whole(text in "\\PC{0,40}") {
            let tokenizer = Arc::new(byte_tokenizer());
            let ids = tokenizer.encode_fast(text.as_str(), false).unwrap().get_ids().to_vec();
            prop_assert_eq!(ids.len(), text.len());
            let pieces = stream(&tokenizer, &ids);
            prop_assert_eq!(pieces.concat(), text.clone());
            // Nothing is held back longer than its character lasts.
            if !text.contains(char::REPLACEMENT_CHARACTER) {
                prop_assert_eq!(pieces.iter().filter(|piece| !piece.is_empty()).count(), text.chars().count());
            }
        }

        #[test]
        fn any_tokens_give_what_decoding_them_at_once_gives(ids in prop::collection::vec(0u32..256, 0..80)) {
            let tokenizer = Arc::new(byte_tokenizer());
            prop_assert_eq!(stream(&tokenizer, &ids).concat(), tokenizer.decode(&ids, true).unwrap());
        }
    }
}
