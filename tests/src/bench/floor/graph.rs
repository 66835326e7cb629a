//! The same graphs in the barest loop over ONNX Runtime. No queue, no thread, no tokenizer, no cancellation; whatever
//! the engine costs above this is the engine's.

use std::path::Path;

use anyhow::Result;
use ort::{
    environment::Environment,
    memory::Allocator,
    session::{Session, builder::GraphOptimizationLevel},
    value::Tensor,
};

const LAYERS: usize = 30;
const KV_HEADS: usize = 3;
const HEAD_DIM: usize = 64;
const VOCABULARY: usize = 49_152;
const DIMENSIONS: usize = 384;

fn session(environment: &Environment, graph: &Path, threads: usize) -> ort::Result<Session> {
    Session::builder(environment)?
        .with_intra_threads(threads)?
        .with_intra_op_spinning(false)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .commit_from_file(graph)
}

/// all-MiniLM-L6-v2: token ids to a mean vector.
#[derive(Debug)]
pub struct Embedder(Session);

impl Embedder {
    /// Loads the graph, with so many threads inside an operator.
    ///
    /// # Errors
    /// ONNX Runtime's.
    pub fn new(environment: &Environment, graph: &Path, threads: usize) -> Result<Self> {
        Ok(Self(session(environment, graph, threads)?))
    }

    /// The mean of the tokens' vectors.
    ///
    /// # Errors
    /// ONNX Runtime's.
    pub fn embed(&mut self, ids: &[i64]) -> Result<Vec<f32>> {
        let shape = [1, ids.len()];
        let outputs = self.0.run(ort::inputs![
            "input_ids" => Tensor::from_array((shape, ids.to_vec()))?,
            "attention_mask" => Tensor::from_array((shape, vec![1i64; ids.len()]))?,
            "token_type_ids" => Tensor::from_array((shape, vec![0i64; ids.len()]))?,
        ])?;
        let states = outputs["last_hidden_state"].try_extract_tensor::<f32>()?.1;
        let mut mean = vec![0f32; DIMENSIONS];
        for token in states.chunks_exact(DIMENSIONS) {
            mean.iter_mut()
                .zip(token)
                .for_each(|(sum, value)| *sum += value);
        }
        Ok(mean)
    }
}

/// SmolLM2-135M: token ids to the likeliest next one, the cache in place.
#[derive(Debug)]
pub struct Decoder {
    session: Session,
    cache: Vec<Tensor<f32>>,
}

impl Decoder {
    /// Loads the graph, with so many threads inside an operator and a cache for so many tokens.
    ///
    /// # Errors
    /// ONNX Runtime's.
    pub fn new(
        environment: &Environment,
        graph: &Path,
        threads: usize,
        capacity: usize,
    ) -> Result<Self> {
        let cache = (0..2 * LAYERS)
            .map(|_| Tensor::<f32>::new(&Allocator::default(), [1, KV_HEADS, capacity, HEAD_DIM]))
            .collect::<ort::Result<Vec<_>>>()?;
        Ok(Self {
            session: session(environment, graph, threads)?,
            cache,
        })
    }

    /// Feeds `ids` after `past` tokens in one run; the likeliest next token.
    ///
    /// # Errors
    /// ONNX Runtime's.
    pub fn feed(&mut self, ids: &[i64], past: usize) -> Result<i64> {
        let mut step = self.step(ids.len())?;
        step(ids, past)
    }

    /// Draws `count` tokens one by one, the first one fed being `token`; the last one drawn.
    ///
    /// # Errors
    /// ONNX Runtime's.
    pub fn decode(&mut self, token: i64, past: usize, count: usize) -> Result<i64> {
        let mut step = self.step(1)?;
        (past..past + count).try_fold(token, |token, past| step(&[token], past))
    }

    fn step(&mut self, rows: usize) -> Result<impl FnMut(&[i64], usize) -> Result<i64>> {
        let allocator = Allocator::default();
        let mut binding = self.session.create_binding()?;
        for (layer, pair) in self.cache.chunks_exact_mut(2).enumerate() {
            for (tensor, kind) in pair.iter_mut().zip(["key", "value"]) {
                binding.bind_input(format!("past_key_values.{layer}.{kind}"), tensor)?;
                binding.bind_output(format!("present.{layer}.{kind}"), tensor)?;
            }
        }
        let mut input = Tensor::<i64>::new(&allocator, [1, rows])?;
        let mut last = Tensor::<i32>::new(&allocator, [1usize])?;
        let mut total = Tensor::<i32>::new(&allocator, [0usize; 0])?;
        let mut row = Tensor::<i64>::new(&allocator, [1usize])?;
        let mut logits = Tensor::<f32>::new(&allocator, [1, VOCABULARY])?;
        binding.bind_input("input_ids", &input)?;
        binding.bind_input("seqlens_k", &last)?;
        binding.bind_input("total_sequence_length", &total)?;
        binding.bind_input("logits_pos", &row)?;
        binding.bind_output("logits", &mut logits)?;
        let session = &mut self.session;
        Ok(move |ids: &[i64], past: usize| {
            input.extract_tensor_mut().1.copy_from_slice(ids);
            last.extract_tensor_mut().1[0] = i32::try_from(past + rows)? - 1;
            total.extract_tensor_mut().1[0] = i32::try_from(past + rows)?;
            row.extract_tensor_mut().1[0] = rows as i64 - 1;
            session.run_binding(&binding)?;
            let logits = logits.extract_tensor().1;
            let highest =
                (0i64..)
                    .zip(logits)
                    .fold((0, f32::NEG_INFINITY), |best, (id, &logit)| {
                        if logit > best.1 { (id, logit) } else { best }
                    });
            Ok(highest.0)
        })
    }
}
