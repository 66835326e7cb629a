//! What a chat model's key-value cache holds: the floats that its graph has, or bytes (the crate `autoglm_edge_attention`).
//!
//! The bundle stays what it is: on any other provider it is run as it came, and what cannot be exchanged is said; the cache then holds floats.

use std::collections::BTreeMap;

use autoglm_edge_attention::{is_cache, row};

use super::super::manifest::{ChatGraph, Dimension, TensorFacts};

/// What `model.toml` would say of the graph's inputs or outputs once its cache holds bytes.
pub(super) fn facts(
    declared: &BTreeMap<String, TensorFacts>,
    graph: &ChatGraph,
) -> BTreeMap<String, TensorFacts> {
    let mut facts = declared.clone();
    for (_, facts) in facts.iter_mut().filter(|(name, _)| is_cache(name)) {
        facts.element_type = "u8".to_owned();
        if let Some(last) = facts.shape.last_mut() {
            *last = Dimension::Fixed(row::bytes(graph.head_dim) as u64);
        }
    }
    facts
}
