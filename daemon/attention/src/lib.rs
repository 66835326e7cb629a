//! Attention over a key-value cache of bytes: a quarter of the memory that floats take, and of what a token of an answer has to read.
//!
//! [`remake`] takes a chat graph as it lies on disk and exchanges its attention (ONNX Runtime's GroupQueryAttention, over a cache of floats)
//! for an operator of this crate, which runs on the CPU provider alone. A graph is exchanged as a whole, or left alone and told why
//! ([`Unsuited`]); weights stay where they are.
//!
//! ```text
//! graph      the exchange, on the graph's protobuf form       bytes in, bytes out
//! operator   what ONNX Runtime calls: a batch, its threads    tensors in, tensors out
//! attend     one cached head of one sequence                  slices in, slices out
//! kernel     the sums, for each kind of processor; softmax
//! row        what the cache holds of a token
//! ```
//!
//! [`attend()`] is grouped-query attention (arXiv:2305.13245), causal, `softmax(q k^T * scale) v`: it turns the new keys by their positions,
//! writes them and the values into the cache as [`row`]s, and computes what the queries of that head's group see. It knows nothing of graphs,
//! threads or batches.
//!
//! **The bits depend on nothing but the sequence**: not on how many tokens come at once, not on the processor. See `kernel`.

#![forbid(unsafe_code)]

pub use self::{
    attend::{DIMS, Misfit, Rotary, Rows, Step, attend},
    graph::{Malformed, Remade, Unsuited, is_cache, remake},
    kernel::Scratch,
};

mod attend;
mod graph;
mod kernel;
mod operator;
pub mod row;
mod softmax;

#[cfg(test)]
mod tests;
