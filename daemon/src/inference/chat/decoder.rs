//! The decoder graph with its key-value cache bound in place: the same buffers are past and present, nothing is copied per token.
//!
//! The cache remembers which tokens it holds ([`Decoder::tokens`]); taking tokens back ([`Decoder::truncate`]) only forgets them,
//! the next ones are written over. Rows: one sequence. Layout `gqa-in-place` ([`ChatGraph`]).
//!
//! ONNX Runtime's 4-bit kernels compute a single row a little differently from several rows (up to 0.7 in a logit was measured),
//! while all numbers of rows from two up agree bit for bit. So a prompt is always fed in pieces of at least two
//! tokens, and how it was cut does not change the answer.

use std::ops::Range;

use ort::{
    memory::Allocator,
    session::{IoBinding, Session},
    value::Tensor,
};

use super::super::{
    error::{InferenceError, LoadError},
    manifest::ChatGraph,
};

/// Prompt tokens per run. Cancellation is seen between runs, and 64 tokens take some 0.2 s on one core.
pub(super) const CHUNK: usize = 64;

/// Most bytes that a key-value cache may take. Chosen as half of the memory of a 4 GB box.
const CACHE_BYTES_MAX: u128 = 2 << 30;

/// One model's graph, its cache, and the tokens in it.
pub(super) struct Decoder {
    session: Session,
    graph: ChatGraph,
    capacity: usize,
    /// `[1, kv_heads, capacity, head_dim]` f32; keys and values alternate, layer by layer.
    cache: Vec<Tensor<f32>>,
    /// What the cache holds: `tokens.len() <= capacity`.
    tokens: Vec<u32>,
    one: Feed,
    chunk: Feed,
    logits: Vec<f32>,
}

/// The bindings for runs of one number of rows. Tensors are bound once and written before each run.
struct Feed {
    binding: IoBinding,
    ids: Tensor<i64>,
    last_index: Tensor<i32>,
    total: Tensor<i32>,
    row: Tensor<i64>,
    logits: Tensor<f32>,
    rows: usize,
}

impl Decoder {
    /// Allocates a cache for `context_tokens`, at most as long as the model was made for.
    pub(super) fn new(
        session: Session,
        graph: &ChatGraph,
        context_tokens: usize,
    ) -> Result<Self, LoadError> {
        let capacity = context_tokens.min(graph.context_tokens);
        let elements = [graph.layers * 2, graph.kv_heads, capacity, graph.head_dim];
        let bytes = elements
            .into_iter()
            .fold(4u128, |bytes, count| bytes.saturating_mul(count as u128));
        if bytes > CACHE_BYTES_MAX {
            return Err(LoadError::CacheTooLarge {
                tokens: capacity,
                bytes,
                limit: CACHE_BYTES_MAX,
            });
        }
        let build = || -> ort::Result<(Vec<Tensor<f32>>, Feed, Feed)> {
            let allocator = Allocator::default();
            let mut cache = Vec::with_capacity(graph.layers * 2);
            for _ in 0..graph.layers * 2 {
                let mut tensor =
                    Tensor::<f32>::new(&allocator, [1, graph.kv_heads, capacity, graph.head_dim])?;
                tensor.extract_tensor_mut().1.fill(0.0);
                cache.push(tensor);
            }
            let one = Feed::new(&session, graph, &mut cache, 1)?;
            let chunk = Feed::new(&session, graph, &mut cache, CHUNK)?;
            Ok((cache, one, chunk))
        };
        let (cache, one, chunk) = build().map_err(|source| LoadError::Graph {
            path: graph.file.clone().into(),
            source,
        })?;
        Ok(Self {
            session,
            graph: graph.clone(),
            capacity,
            cache,
            tokens: Vec::new(),
            one,
            chunk,
            logits: Vec::new(),
        })
    }

    /// How many tokens fit.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// What the cache holds.
    pub(super) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The logits after the last token that was fed, one per token id.
    pub(super) fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// Forgets all tokens but the first `keep`.
    pub(super) fn truncate(&mut self, keep: usize) {
        self.tokens.truncate(keep);
    }

    /// Appends tokens to the cache. After an error the cache holds what it held before.
    pub(super) fn extend(&mut self, ids: &[u32]) -> Result<(), InferenceError> {
        let past = self.tokens.len();
        if ids.is_empty() || ids.len() > self.capacity - past {
            return Err(InferenceError::OutOfRange {
                what: "tokens to decode",
                actual: ids.len().to_string(),
                allowed: format!("1 to {}", self.capacity - past),
            });
        }
        let mut odd;
        let feed = match ids.len() {
            1 => &mut self.one,
            CHUNK => &mut self.chunk,
            rows => {
                odd = Feed::new(&self.session, &self.graph, &mut self.cache, rows)?;
                &mut odd
            }
        };
        feed.run(&mut self.session, ids, past)?;
        let logits = feed.logits.extract_tensor().1;
        self.logits.clear();
        self.logits.extend_from_slice(logits);
        self.tokens.extend_from_slice(ids);
        Ok(())
    }
}

impl Feed {
    fn new(
        session: &Session,
        graph: &ChatGraph,
        cache: &mut [Tensor<f32>],
        rows: usize,
    ) -> ort::Result<Self> {
        let allocator = Allocator::default();
        let mut binding = session.create_binding()?;
        for (layer, pair) in cache.chunks_exact_mut(2).enumerate() {
            for (tensor, kind) in pair.iter_mut().zip(["key", "value"]) {
                binding.bind_input(format!("past_key_values.{layer}.{kind}"), tensor)?;
                binding.bind_output(format!("present.{layer}.{kind}"), tensor)?;
            }
        }
        let ids = Tensor::new(&allocator, [1, rows])?;
        let last_index = Tensor::new(&allocator, [1usize])?;
        let total = Tensor::new(&allocator, [0usize; 0])?;
        let row = Tensor::new(&allocator, [1usize])?;
        let mut logits = Tensor::new(&allocator, [1, graph.vocab_size])?;
        binding.bind_input("input_ids", &ids)?;
        binding.bind_input("seqlens_k", &last_index)?;
        binding.bind_input("total_sequence_length", &total)?;
        binding.bind_input("logits_pos", &row)?;
        binding.bind_output("logits", &mut logits)?;
        Ok(Self {
            binding,
            ids,
            last_index,
            total,
            row,
            logits,
            rows,
        })
    }

    fn run(&mut self, session: &mut Session, ids: &[u32], past: usize) -> ort::Result<()> {
        debug_assert_eq!(ids.len(), self.rows, "a feed serves one number of rows");
        for (slot, &id) in self.ids.extract_tensor_mut().1.iter_mut().zip(ids) {
            *slot = i64::from(id);
        }
        let total = i32::try_from(past + self.rows)
            .expect("the capacity is at most 2^20, see bundle::COUNT_MAX");
        self.last_index.extract_tensor_mut().1[0] = total - 1;
        self.total.extract_tensor_mut().1[0] = total;
        self.row.extract_tensor_mut().1[0] = self.rows as i64 - 1;
        session.run_binding(&self.binding)?;
        Ok(())
    }
}

/// How many of the first tokens in the cache serve the prompt `ids`. The last two are always computed: the logits come from the
/// last, and a single row would be computed differently.
pub(super) fn reusable(cached: &[u32], ids: &[u32]) -> usize {
    let common = cached.iter().zip(ids).take_while(|(a, b)| a == b).count();
    common.min(ids.len().saturating_sub(2))
}

/// Cuts the positions `from..to` of a prompt into pieces of at most [`CHUNK`] tokens, none of one token unless that is all.
pub(super) fn pieces(from: usize, to: usize) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    let mut at = from;
    while at < to {
        let left = to - at;
        let length = if left == CHUNK + 1 {
            CHUNK - 1
        } else {
            left.min(CHUNK)
        };
        pieces.push(at..at + length);
        at += length;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_prompt_and_none_is_a_single_token() {
        for to in 2..400 {
            let pieces = pieces(0, to);
            let covered: Vec<usize> = pieces.iter().cloned().flatten().collect();
            assert_eq!(covered, (0..to).collect::<Vec<_>>());
            assert!(
                pieces
                    .iter()
                    .all(|piece| (2..=CHUNK).contains(&piece.len())),
                "{to}: {pieces:?}"
            );
        }
        assert_eq!(pieces(5, 6).first(), Some(&(5..6)), "unless that is all");
    }

    #[test]
    fn at_least_two_tokens_of_a_prompt_are_computed() {
        assert_eq!(reusable(&[1, 2, 3, 4, 5], &[1, 2, 3, 4, 5]), 3);
        assert_eq!(reusable(&[1, 2, 3], &[1, 2, 9, 4]), 2);
        assert_eq!(reusable(&[], &[1, 2]), 0);
        assert_eq!(reusable(&[1], &[1]), 0);
    }
}
