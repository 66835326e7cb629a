//! A tokenizer for tests: one token per byte, in the byte-level alphabet of GPT-2 and its kin. The worst case for text, since every
//! character beyond ASCII is split.

use tokenizers::{Tokenizer, decoders::byte_level::ByteLevel};

/// The token that ends an answer.
pub(super) const END: u32 = 256;

/// Tokens 0 to 255 are the letters of the alphabet in their order, not the bytes in theirs.
pub(super) fn byte_tokenizer() -> Tokenizer {
    let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    alphabet.sort_unstable();
    let vocab: serde_json::Map<_, _> = (0..)
        .zip(&alphabet)
        .map(|(id, letter): (u32, _)| (letter.to_string(), id.into()))
        .collect();
    let byte_level = serde_json::json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false
    });
    let file = serde_json::json!({
        "version": "1.0", "normalizer": null, "post_processor": null,
        "added_tokens": [{
            "id": END, "content": "<end>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true
        }],
        "pre_tokenizer": byte_level, "decoder": byte_level,
        "model": { "type": "BPE", "vocab": vocab, "merges": [] },
    });
    Tokenizer::from_bytes(file.to_string()).expect("a tokenizer that is written here")
}
