//! Layout `gqa-in-place`, and `optimum` where the graph allows it: the same buffers are past and present, and nothing is copied per token.
//! The two differ in how lengths are told ([`Lengths`]), and in that `optimum` gives logits for all positions, wanted or not.
//!
//! Tensors are bound once per set of rows and written before each run. Several rows run together with one token each, every row with
//! its own length; several tokens go in for one row at a time (the CPU kernel of GroupQueryAttention refuses both at once).
//!
//! **Two kernels.** Over a cache of floats attention is computed by another kernel with one token per row than with several tokens, and the
//! last bits of the sums differ; 8-bit activations turn that into up to 1.8 in a logit (measured on the default model). Measured, too: one
//! token per row gives the same bits whatever other rows run along (1 to 8 rows), and several tokens give the same bits however
//! they are cut (2 to 64). So what an answer is depends on which tokens were fed alone and which with others, and on nothing else: never on
//! what other requests are being served. Prompts are always fed in pieces of two tokens and more. Over a cache of bytes there is no such
//! difference (`autoglm_edge_attention`).

use std::{collections::HashMap, ops::Range};

use ort::{
    memory::Allocator,
    session::{IoBinding, Session},
    value::{DynTensor, Tensor},
};

use super::{
    super::{
        super::{error::LoadError, manifest::ChatGraph},
        batch::{BACKGROUND_CHUNK, CHUNK},
        cache::memory::{CacheMemory, Geometry},
    },
    DecoderGraph, Interruptible, LogitsKind, floats,
};

/// The graph, its caches, and its bindings.
pub(in super::super) struct InPlace {
    // Dropped before the memory that its tensors lie over.
    feeds: HashMap<Shape, Feed>,
    odd: Option<Feed>,
    session: Session,
    memory: CacheMemory,
    interruptible: Interruptible,
    signature: Signature,
    wide: Vec<f32>,
}

/// How the graph is spoken to.
#[derive(Debug, Clone, Copy)]
struct Signature {
    lengths: Lengths,
    /// Whether there is an input `position_ids[B,S]`.
    has_positions: bool,
    logits_kind: LogitsKind,
    vocab_size: usize,
}

/// How the graph is told the rows' lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Lengths {
    /// `seqlens_k`, `total_sequence_length`, and `logits_pos` for the positions whose logits are wanted.
    Counted,
    /// `attention_mask[B, longest]`, with a one for each token of a row.
    Masked,
}

/// What a binding serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    /// The first slot.
    first: usize,
    rows: usize,
    /// Tokens per row.
    tokens: usize,
    /// Positions whose logits come out.
    wanted: usize,
}

struct Feed {
    binding: IoBinding,
    ids: Tensor<i64>,
    lengths: LengthInputs,
    positions: Option<Tensor<i64>>,
    logits: DynTensor,
}

enum LengthInputs {
    Counted {
        last_index: Tensor<i32>,
        total: Tensor<i32>,
        wanted: Tensor<i64>,
    },
    /// The mask grows with every run, and is bound anew.
    Masked,
}

impl InPlace {
    /// Reserves caches of the given geometry.
    pub(in super::super) fn new(
        session: Session,
        graph: &ChatGraph,
        lengths: Lengths,
        geometry: Geometry,
        interruptible: Interruptible,
    ) -> Result<Self, LoadError> {
        let memory = CacheMemory::reserve(geometry).map_err(|source| LoadError::CacheMemory {
            tokens: geometry.capacity,
            slots: geometry.slots,
            source,
        })?;
        let signature = Signature {
            lengths,
            has_positions: session
                .inputs()
                .iter()
                .any(|input| input.name() == "position_ids"),
            logits_kind: LogitsKind::of(&session),
            vocab_size: graph.vocab_size,
        };
        Ok(Self {
            signature,
            feeds: HashMap::new(),
            odd: None,
            session,
            memory,
            interruptible,
            wide: Vec::new(),
        })
    }

    /// `rows` is the past of each row with its tokens, all of one number; `wanted` counts from the end of all tokens.
    fn run(
        &mut self,
        first: usize,
        rows: &[(usize, &[u32])],
        wanted: usize,
    ) -> ort::Result<&[f32]> {
        let tokens = rows[0].1.len();
        let shape = Shape {
            first,
            rows: rows.len(),
            tokens,
            wanted,
        };
        // These come again and again. Others (the end of a prompt, drafts) have as many lengths as there are, and making a binding is
        // small beside the run of several tokens.
        let is_kept = tokens == 1 || ([CHUNK, BACKGROUND_CHUNK].contains(&tokens) && wanted == 1);
        if is_kept && !self.feeds.contains_key(&shape) {
            let feed = Feed::new(&self.session, &mut self.memory, shape, self.signature)?;
            self.feeds.insert(shape, feed);
        }
        let feed = match self.feeds.get_mut(&shape) {
            Some(feed) => feed,
            None => {
                let feed = Feed::new(&self.session, &mut self.memory, shape, self.signature)?;
                self.odd.insert(feed)
            }
        };
        feed.write(rows, wanted)?;
        self.session
            .run_binding_with_options(&feed.binding, &self.interruptible)?;
        floats(
            &feed.logits,
            self.signature.logits_kind,
            wanted * self.signature.vocab_size,
            &mut self.wide,
        )
    }
}

impl DecoderGraph for InPlace {
    fn is_joint(&self) -> bool {
        true
    }

    fn together(&mut self, first: usize, rows: &[(usize, u32)]) -> ort::Result<&[f32]> {
        let capacity = self.memory.geometry().capacity;
        if rows.iter().any(|(past, _)| *past >= capacity) {
            return Err(ort::Error::new("a token for a slot that is full"));
        }
        let rows: Vec<(usize, &[u32])> = rows
            .iter()
            .map(|(past, id)| (*past, std::slice::from_ref(id)))
            .collect();
        self.run(first, &rows, rows.len())
    }

    fn alone(
        &mut self,
        slot: usize,
        past: usize,
        ids: &[u32],
        wanted: usize,
    ) -> ort::Result<&[f32]> {
        let room = self.memory.geometry().capacity.saturating_sub(past);
        if ids.is_empty() || ids.len() > room {
            return Err(ort::Error::new(format!(
                "{} tokens for a slot with room for {room}",
                ids.len()
            )));
        }
        self.run(slot, &[(past, ids)], wanted)
    }

    fn copy(&mut self, from: usize, to: usize, tokens: usize) -> ort::Result<()> {
        self.memory.copy(from, to, tokens);
        Ok(())
    }

    fn swap(&mut self, one: usize, other: usize, tokens: usize) {
        self.memory.swap(one, other, tokens);
    }

    fn release(&mut self, slot: usize) {
        self.memory.release(slot);
    }

    fn export(&self, slot: usize, tokens: Range<usize>) -> ort::Result<Vec<u8>> {
        Ok(self.memory.export(slot, tokens))
    }

    fn import(&mut self, slot: usize, tokens: Range<usize>, bytes: &[u8]) -> ort::Result<bool> {
        Ok(self.memory.import(slot, tokens, bytes))
    }
}

impl Feed {
    fn new(
        session: &Session,
        memory: &mut CacheMemory,
        shape: Shape,
        signature: Signature,
    ) -> ort::Result<Self> {
        let allocator = Allocator::default();
        let mut binding = session.create_binding()?;
        for index in 0..memory.geometry().tensors {
            let mut tensor = memory.tensor(index, shape.first, shape.rows)?;
            let (layer, kind) = (index / 2, ["key", "value"][index % 2]);
            binding.bind_input(format!("past_key_values.{layer}.{kind}"), &tensor)?;
            binding.bind_output(format!("present.{layer}.{kind}"), &mut tensor)?;
        }
        let ids = Tensor::new(&allocator, [shape.rows, shape.tokens])?;
        binding.bind_input("input_ids", &ids)?;
        let positions = signature
            .has_positions
            .then(|| Tensor::new(&allocator, [shape.rows, shape.tokens]))
            .transpose()?;
        if let Some(positions) = &positions {
            binding.bind_input("position_ids", positions)?;
        }
        let (kind, width) = (signature.logits_kind.tensor_type(), signature.vocab_size);
        let (lengths, mut logits) = match signature.lengths {
            Lengths::Counted => {
                let last_index = Tensor::new(&allocator, [shape.rows])?;
                let total = Tensor::new(&allocator, [0usize; 0])?;
                let wanted = Tensor::new(&allocator, [shape.wanted])?;
                binding.bind_input("seqlens_k", &last_index)?;
                binding.bind_input("total_sequence_length", &total)?;
                binding.bind_input("logits_pos", &wanted)?;
                let inputs = LengthInputs::Counted {
                    last_index,
                    total,
                    wanted,
                };
                let logits = DynTensor::new(&allocator, kind, [shape.wanted, width])?;
                (inputs, logits)
            }
            Lengths::Masked => {
                let all = [shape.rows, shape.tokens, width];
                let logits = DynTensor::new(&allocator, kind, all)?;
                (LengthInputs::Masked, logits)
            }
        };
        binding.bind_output("logits", &mut logits)?;
        Ok(Self {
            binding,
            ids,
            lengths,
            positions,
            logits,
        })
    }

    fn write(&mut self, rows: &[(usize, &[u32])], wanted: usize) -> ort::Result<()> {
        let ids = self.ids.extract_tensor_mut().1;
        let given = rows.iter().flat_map(|(_, ids)| ids.iter());
        for (place, &id) in ids.iter_mut().zip(given) {
            *place = i64::from(id);
        }
        let count = ids.len();
        if let Some(positions) = &mut self.positions {
            let given = rows.iter().flat_map(|(past, ids)| *past..past + ids.len());
            for (place, position) in positions.extract_tensor_mut().1.iter_mut().zip(given) {
                *place = position as i64;
            }
        }
        let lengths = rows.iter().map(|(past, ids)| past + ids.len());
        let longest = lengths.clone().max().unwrap_or(0);
        let short = |length: usize| {
            i32::try_from(length).expect("the capacity is at most 2^20, see bundle::COUNT_MAX")
        };
        match &mut self.lengths {
            LengthInputs::Counted {
                last_index,
                total,
                wanted: positions,
            } => {
                for (place, length) in last_index.extract_tensor_mut().1.iter_mut().zip(lengths) {
                    *place = short(length) - 1;
                }
                total.extract_tensor_mut().1[0] = short(longest);
                let positions = positions.extract_tensor_mut().1;
                for (place, position) in positions.iter_mut().zip(count - wanted..) {
                    *place = position as i64;
                }
            }
            LengthInputs::Masked => {
                let mut mask = Vec::with_capacity(rows.len() * longest);
                for length in lengths {
                    mask.extend(std::iter::repeat_n(1i64, length));
                    mask.extend(std::iter::repeat_n(0, longest - length));
                }
                let mask = Tensor::from_array(([rows.len(), longest], mask))?;
                self.binding.bind_input("attention_mask", &mask)?;
            }
        }
        Ok(())
    }
}
