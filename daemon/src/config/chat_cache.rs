//! What a conversation's key-value cache holds.

use serde::{Deserialize, Serialize};

/// What a chat model's key-value cache holds, where it can be chosen: on the CPU provider, for a graph with a cache of 32-bit floats that is
/// written in place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChatCache {
    /// Bytes with a scale for each head and token: about a quarter of the memory, and sooner read.
    #[default]
    Bytes,
    /// What the graph has.
    Floats,
}
