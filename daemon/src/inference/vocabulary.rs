//! Whether tokenizer and graph belong together: an id that the graph has no row for would fail in the middle of somebody's sentence, or
//! stand for another word.

use tokenizers::Tokenizer;

use super::{bundle::Bundle, error::LoadError, manifest::Graph};

/// Refuses a chat or speech-to-text bundle whose tokenizer makes ids that the graph does not have. (Embedding graphs do not say how many they have; theirs
/// fail in ONNX Runtime, as [`InferenceError::Run`](super::error::InferenceError::Run).)
///
/// # Errors
/// [`LoadError::Vocabulary`], [`LoadError::Tokenizer`].
pub(super) fn check(bundle: &Bundle) -> Result<(), LoadError> {
    let manifest = bundle.manifest();
    let Some(facts) = &manifest.tokenizer else {
        return Ok(());
    };
    let (tensor, limit) = match &manifest.graph {
        Graph::Chat(graph) => ("logits", graph.vocab_size),
        Graph::Whisper(graph) => ("logits", graph.vocab_size),
        _ => return Ok(()),
    };
    let path = bundle.path(&facts.file);
    let tokenizer = match Tokenizer::from_file(&path) {
        Ok(tokenizer) => tokenizer,
        Err(source) => return Err(LoadError::Tokenizer { path, source }),
    };
    let vocabulary = tokenizer.get_vocab(true);
    let highest = vocabulary.values().chain(&facts.end_of_turn).max();
    match highest {
        Some(&highest) if highest as usize >= limit => Err(LoadError::Vocabulary {
            path,
            highest,
            tensor,
            limit,
        }),
        _ => Ok(()),
    }
}
