//! Layout `optimum`: what transformers.js and Hugging Face's optimum export. Inputs `input_ids[B,S]`, `attention_mask[B,past+S]`, perhaps
//! `position_ids[B,S]` and `past_key_values.{layer}.{key,value}[B,heads,past,dim]`; outputs `logits[B,S,vocab]` and
//! `present.{layer}.{key,value}[B,heads,past+S,dim]`.
//!
//! The graph itself joins past and new keys into new tensors, so a copy of the cache per run is part of the layout and cannot be avoided
//! from outside. Nothing is added to that: what a run puts out is bound as the next one's input where it lies. Rows of different
//! lengths would have to be padded and copied, so every sequence runs by itself. Taking tokens back costs one copy of what stays.

use std::ops::Range;

use ort::{
    memory::{Allocator, MemoryInfo},
    session::Session,
    value::{DynTensor, Tensor},
};

use super::{
    super::cache::memory::{Geometry, bytes_of, bytes_of_mut},
    DecoderGraph, Interruptible, LogitsKind, floats,
};

const POSITIONS: &str = "position_ids";

/// The graph and its caches.
pub(in super::super) struct Growing {
    session: Session,
    slots: Vec<Slot>,
    geometry: Geometry,
    interruptible: Interruptible,
    has_positions: bool,
    vocab_size: usize,
    logits_kind: LogitsKind,
    logits: Option<DynTensor>,
    wide: Vec<f32>,
}

/// One cache: `[1, heads, tokens, dim]` each, keys and values in turn; no tensors at all for no tokens.
#[derive(Default)]
struct Slot {
    tokens: usize,
    tensors: Vec<DynTensor>,
}

impl Growing {
    pub(in super::super) fn new(
        session: Session,
        vocab_size: usize,
        geometry: Geometry,
        interruptible: Interruptible,
    ) -> Self {
        let has_positions = session
            .inputs()
            .iter()
            .any(|input| input.name() == POSITIONS);
        Self {
            slots: (0..geometry.slots).map(|_| Slot::default()).collect(),
            logits_kind: LogitsKind::of(&session),
            session,
            geometry,
            interruptible,
            has_positions,
            vocab_size,
            logits: None,
            wide: Vec::new(),
        }
    }

    /// Bytes of `tokens` tokens of one head.
    fn head_bytes(&self, tokens: usize) -> usize {
        tokens * self.geometry.dim * self.geometry.kind.bytes()
    }

    fn tensor(&self, tokens: usize) -> ort::Result<DynTensor> {
        let Geometry {
            heads, dim, kind, ..
        } = self.geometry;
        DynTensor::new(
            &Allocator::default(),
            kind.tensor_type(),
            [1, heads, tokens, dim],
        )
    }

    /// Some tokens of a slot in tensors of their own.
    fn part(&self, slot: usize, tokens: Range<usize>) -> ort::Result<Slot> {
        let source = &self.slots[slot];
        if tokens.end > source.tokens {
            return Err(ort::Error::new(format!(
                "{} tokens of a cache that holds {}",
                tokens.end, source.tokens
            )));
        }
        if tokens.is_empty() {
            return Ok(Slot::default());
        }
        let (start, end) = (self.head_bytes(tokens.start), self.head_bytes(tokens.end));
        let whole = self.head_bytes(source.tokens);
        let mut tensors = Vec::with_capacity(source.tensors.len());
        for tensor in &source.tensors {
            let mut copy = self.tensor(tokens.len())?;
            let heads = bytes_of(tensor, self.geometry.kind).chunks_exact(whole);
            let places = bytes_of_mut(&mut copy, self.geometry.kind).chunks_exact_mut(end - start);
            for (place, head) in places.zip(heads) {
                place.copy_from_slice(&head[start..end]);
            }
            tensors.push(copy);
        }
        Ok(Slot {
            tokens: tokens.len(),
            tensors,
        })
    }

    fn run(&mut self, slot: usize, past: usize, ids: &[u32]) -> ort::Result<()> {
        if self.slots[slot].tokens != past {
            self.slots[slot] = self.part(slot, 0..past)?;
        }
        if self.slots[slot].tensors.is_empty() {
            let empty = (0..self.geometry.tensors).map(|_| self.tensor(0));
            self.slots[slot].tensors = empty.collect::<ort::Result<_>>()?;
        }
        let total = past + ids.len();
        let row = |values: Vec<i64>| Tensor::from_array(([1, values.len()], values));
        let mut binding = self.session.create_binding()?;
        binding.bind_input(
            "input_ids",
            &row(ids.iter().map(|&id| i64::from(id)).collect())?,
        )?;
        binding.bind_input("attention_mask", &row(vec![1; total])?)?;
        if self.has_positions {
            binding.bind_input(POSITIONS, &row((past as i64..total as i64).collect())?)?;
        }
        let here = MemoryInfo::default();
        let names = |index: usize| (index / 2, ["key", "value"][index % 2]);
        for (index, tensor) in self.slots[slot].tensors.iter().enumerate() {
            let (layer, kind) = names(index);
            binding.bind_input(format!("past_key_values.{layer}.{kind}"), tensor)?;
            binding.bind_output_to_device(format!("present.{layer}.{kind}"), &here)?;
        }
        binding.bind_output_to_device("logits", &here)?;
        let expected = self.geometry.heads * self.head_bytes(total);
        let mut outputs = self
            .session
            .run_binding_with_options(&binding, &self.interruptible)?;
        let mut take = |name: &str| -> ort::Result<DynTensor> {
            let value = outputs
                .remove(name)
                .ok_or_else(|| ort::Error::new(format!("the graph gave no {name}")))?;
            value.downcast()
        };
        let mut tensors = Vec::with_capacity(self.geometry.tensors);
        for index in 0..self.geometry.tensors {
            let (layer, kind) = names(index);
            tensors.push(take(&format!("present.{layer}.{kind}"))?);
        }
        self.logits = Some(take("logits")?);
        if tensors
            .iter()
            .any(|tensor| bytes_of(tensor, self.geometry.kind).len() != expected)
        {
            return Err(ort::Error::new(format!(
                "a cache of {total} tokens has another size than graph.kv_heads and graph.head_dim say"
            )));
        }
        self.slots[slot] = Slot {
            tokens: total,
            tensors,
        };
        Ok(())
    }
}

impl DecoderGraph for Growing {
    fn is_joint(&self) -> bool {
        false
    }

    fn together(&mut self, first: usize, rows: &[(usize, u32)]) -> ort::Result<&[f32]> {
        let &[(past, id)] = rows else {
            return Err(ort::Error::new("this layout runs one sequence at a time"));
        };
        self.alone(first, past, &[id], 1)
    }

    fn alone(
        &mut self,
        slot: usize,
        past: usize,
        ids: &[u32],
        wanted: usize,
    ) -> ort::Result<&[f32]> {
        self.run(slot, past, ids)?;
        let count = wanted * self.vocab_size;
        self.logits.as_ref().map_or(Ok(&[][..]), |logits| {
            floats(logits, self.logits_kind, count, &mut self.wide)
        })
    }

    fn copy(&mut self, from: usize, to: usize, tokens: usize) -> ort::Result<()> {
        self.slots[to] = self.part(from, 0..tokens)?;
        Ok(())
    }

    fn swap(&mut self, one: usize, other: usize, _tokens: usize) {
        self.slots.swap(one, other);
    }

    fn release(&mut self, slot: usize) {
        self.slots[slot] = Slot::default();
    }

    fn export(&self, slot: usize, tokens: Range<usize>) -> ort::Result<Vec<u8>> {
        let part = self.part(slot, tokens)?;
        Ok(part
            .tensors
            .iter()
            .flat_map(|tensor| bytes_of(tensor, self.geometry.kind))
            .copied()
            .collect())
    }

    fn import(&mut self, slot: usize, tokens: Range<usize>, bytes: &[u8]) -> ort::Result<bool> {
        let part = self.head_bytes(tokens.len());
        let new = self.geometry.heads * part;
        if tokens.is_empty() || bytes.len() != new * self.geometry.tensors {
            return Ok(false);
        }
        let before = self.part(slot, 0..tokens.start)?;
        let old = self.head_bytes(before.tokens);
        let mut tensors = Vec::with_capacity(self.geometry.tensors);
        for (index, source) in bytes.chunks_exact(new).enumerate() {
            let mut tensor = self.tensor(tokens.end)?;
            let places = bytes_of_mut(&mut tensor, self.geometry.kind).chunks_exact_mut(old + part);
            let beginnings = before
                .tensors
                .get(index)
                .map_or(&[][..], |tensor| bytes_of(tensor, self.geometry.kind));
            for (head, (place, source)) in places.zip(source.chunks_exact(part)).enumerate() {
                place[..old].copy_from_slice(&beginnings[head * old..(head + 1) * old]);
                place[old..].copy_from_slice(source);
            }
            tensors.push(tensor);
        }
        self.slots[slot] = Slot {
            tokens: tokens.end,
            tensors,
        };
        Ok(true)
    }
}
