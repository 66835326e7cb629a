//! The second graph: tokens, one after the other, to the logits of the next, over a cache that is bound in place.
//!
//! One token per run, the first ones too: activations are quantised with one scale for all tokens of a run, so what comes out would depend on how they were
//! cut. It runs on the CPU whatever the first graph runs on: a token is some milliseconds of reading weights, and its cache would have to travel.

use std::sync::Arc;

use ort::{
    memory::Allocator,
    session::{IoBinding, NoSelectedOutputs, RunOptions, Session},
    value::Tensor,
};

use super::{super::manifest::WhisperGraph, hearing::Heard};

/// What every run is given, so that it can be ended from another thread.
pub(super) type Interruptible = Arc<RunOptions<NoSelectedOutputs>>;

/// The decoder.
pub(super) struct Decoder {
    session: Session,
    layers: usize,
    heads: usize,
    head_dim: usize,
    pub(super) context_tokens: usize,
    vocab_size: usize,
    interruptible: Interruptible,
}

/// Keys and values of the tokens of one window, `[1, heads, context, head_dim]` for each layer, keys and values in turn. Serves one window after the
/// other: what an earlier one wrote behind the present length is not looked at.
pub(super) struct Cache(Vec<Tensor<f32>>);

/// One window being read.
pub(super) struct Reading {
    binding: IoBinding,
    id: Tensor<i64>,
    position: Tensor<i64>,
    last_index: Tensor<i32>,
    total: Tensor<i32>,
    logits: Tensor<f32>,
    tokens: usize,
}

impl Decoder {
    pub(super) fn new(
        session: Session,
        graph: &WhisperGraph,
        interruptible: Interruptible,
    ) -> Self {
        Self {
            session,
            layers: graph.layers,
            heads: graph.heads,
            head_dim: graph.head_dim,
            context_tokens: graph.context_tokens,
            vocab_size: graph.vocab_size,
            interruptible,
        }
    }

    /// Room for all tokens that the model was made for.
    pub(super) fn cache(&self) -> ort::Result<Cache> {
        let shape = [1, self.heads, self.context_tokens, self.head_dim];
        let tensors = (0..self.layers * 2).map(|_| Tensor::new(&Allocator::default(), shape));
        tensors.collect::<ort::Result<_>>().map(Cache)
    }

    /// Begins to read what was heard. `cache` must not be used for another reading until this one is dropped; the borrow cannot say so, since ONNX
    /// Runtime keeps the tensors by itself.
    pub(super) fn begin(&self, heard: &Heard, cache: &mut Cache) -> ort::Result<Reading> {
        let allocator = Allocator::default();
        let mut binding = self.session.create_binding()?;
        for (index, tensor) in cache.0.iter_mut().enumerate() {
            let (layer, kind) = (index / 2, ["key", "value"][index % 2]);
            binding.bind_input(format!("past_key_values.{layer}.{kind}"), tensor)?;
            binding.bind_output(format!("present.{layer}.{kind}"), tensor)?;
        }
        for (name, tensor) in &heard.0 {
            binding.bind_input(name, tensor)?;
        }
        let id = Tensor::new(&allocator, [1usize, 1])?;
        let position = Tensor::new(&allocator, [1usize, 1])?;
        let last_index = Tensor::new(&allocator, [1usize])?;
        let total = Tensor::new(&allocator, [0usize; 0])?;
        let mut wanted = Tensor::<i64>::new(&allocator, [1usize])?;
        wanted.extract_tensor_mut().1[0] = 0;
        let mut logits = Tensor::new(&allocator, [1, self.vocab_size])?;
        binding.bind_input("input_ids", &id)?;
        binding.bind_input("position_ids", &position)?;
        binding.bind_input("seqlens_k", &last_index)?;
        binding.bind_input("total_sequence_length", &total)?;
        binding.bind_input("logits_pos", &wanted)?;
        binding.bind_output("logits", &mut logits)?;
        Ok(Reading {
            binding,
            id,
            position,
            last_index,
            total,
            logits,
            tokens: 0,
        })
    }

    /// Feeds one more token, and gives the logits after it.
    pub(super) fn feed<'r>(&mut self, reading: &'r mut Reading, id: u32) -> ort::Result<&'r [f32]> {
        let past = reading.tokens;
        if past >= self.context_tokens {
            return Err(ort::Error::new("a token for a cache that is full"));
        }
        let short = |count: usize| {
            i32::try_from(count).expect("the context is at most 2^20, see bundle::COUNT_MAX")
        };
        reading.id.extract_tensor_mut().1[0] = i64::from(id);
        reading.position.extract_tensor_mut().1[0] = past as i64;
        reading.last_index.extract_tensor_mut().1[0] = short(past);
        reading.total.extract_tensor_mut().1[0] = short(past + 1);
        self.session
            .run_binding_with_options(&reading.binding, &self.interruptible)?;
        reading.tokens += 1;
        Ok(reading.logits.extract_tensor().1)
    }
}
