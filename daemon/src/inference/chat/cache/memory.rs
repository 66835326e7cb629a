//! The memory of the key-value caches: reserved for all slots at once, taken from the machine only where tokens are written.
//!
//! One anonymous mapping per cache tensor, `[slots, heads, capacity, dim]`. Neighbouring slots are neighbouring rows, so any run of
//! slots is a tensor `[rows, heads, capacity, dim]` over the same bytes, and no cache is copied when rows join or leave a batch.
//! Pages come with the first write and go back with [`CacheMemory::release`]; huge pages are refused, since the first token of a head
//! would take 2 MB each. It never knows tokens or sequences; [`slots`](super::slots) does.
//!
//! `unsafe` because ONNX Runtime has to be given pointers into memory that it does not own, and because several tensors lie over
//! the same bytes; ort's safe constructors copy borrowed tensors when they are bound, and make no two of them over one buffer.

#![expect(
    unsafe_code,
    reason = "tensors over memory that ONNX Runtime does not own"
)]

use std::{io, ops::Range, ptr};

use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};
use ort::{
    AsPointer,
    memory::{Allocator, MemoryInfo},
    value::{DynTensor, TensorElementType},
};

/// Pages are given back in this unit or larger ones; 64 KiB is the largest page size of the processors we run on.
const PAGE_BYTES_MAX: usize = 64 << 10;

/// The shape of all caches of one model. Every number is at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Geometry {
    /// Cache tensors: two per layer, keys and values in turn.
    pub(in super::super) tensors: usize,
    pub(in super::super) heads: usize,
    /// Elements per head and token.
    pub(in super::super) dim: usize,
    pub(in super::super) kind: ElementKind,
    /// Tokens per slot.
    pub(in super::super) capacity: usize,
    pub(in super::super) slots: usize,
}

/// Element type of caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum ElementKind {
    F32,
    F16,
    /// With scales that are the graph's own affair.
    I8,
    /// Rows of bytes with their scale, as `autoglm_edge_attention::row` has them.
    Rows,
}

impl ElementKind {
    /// By its name in `model.toml`.
    pub(in super::super) fn from_name(name: &str) -> Option<Self> {
        match name {
            "f32" => Some(Self::F32),
            "f16" => Some(Self::F16),
            "i8" => Some(Self::I8),
            _ => None,
        }
    }

    pub(in super::super) fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::I8 | Self::Rows => 1,
        }
    }

    pub(in super::super) fn tensor_type(self) -> TensorElementType {
        match self {
            Self::F32 => TensorElementType::Float32,
            Self::F16 => TensorElementType::Float16,
            Self::I8 => TensorElementType::Int8,
            Self::Rows => TensorElementType::Uint8,
        }
    }
}

impl Geometry {
    /// Bytes that one token takes in all tensors together: `tensors * heads * row bytes`.
    pub(in super::super) fn token_bytes(&self) -> u128 {
        [self.heads, self.row_bytes()]
            .into_iter()
            .fold(self.tensors as u128, |bytes, count| {
                bytes.saturating_mul(count as u128)
            })
    }

    /// The tensors' last dimension.
    fn row_elements(&self) -> usize {
        match self.kind {
            ElementKind::Rows => autoglm_edge_attention::row::bytes(self.dim),
            _ => self.dim,
        }
    }

    /// Bytes of a head's key or value of one token.
    fn row_bytes(&self) -> usize {
        self.row_elements() * self.kind.bytes()
    }

    fn head_bytes(&self) -> usize {
        self.capacity * self.row_bytes()
    }

    fn slot_bytes(&self) -> usize {
        self.heads * self.head_bytes()
    }
}

/// The mappings. Tensors made by [`tensor`](Self::tensor) must be dropped before it.
#[derive(Debug)]
pub(in super::super) struct CacheMemory {
    geometry: Geometry,
    maps: Vec<MmapRaw>,
}

impl CacheMemory {
    /// Reserves address space for all slots; takes no memory yet.
    pub(in super::super) fn reserve(geometry: Geometry) -> io::Result<Self> {
        let bytes = geometry.slot_bytes() * geometry.slots;
        let maps = (0..geometry.tensors)
            .map(|_| {
                let map = MmapOptions::new().len(bytes).no_reserve_swap().map_anon()?;
                // A kernel without huge pages refuses the advice, and then there is nothing to refuse.
                let _ = map.advise(Advice::NoHugePage);
                Ok(MmapRaw::from(map))
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { geometry, maps })
    }

    pub(in super::super) fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The tensor `index` of the slots `first..first + rows`, `[rows, heads, capacity, dim]`, over this memory.
    pub(in super::super) fn tensor(
        &mut self,
        index: usize,
        first: usize,
        rows: usize,
    ) -> ort::Result<DynTensor> {
        let Geometry {
            heads,
            capacity,
            slots,
            kind,
            ..
        } = self.geometry;
        assert!(
            rows > 0 && first + rows <= slots,
            "slots {first}..{} of {slots}",
            first + rows
        );
        let row = self.geometry.row_elements();
        let shape = [rows, heads, capacity, row].map(|count| count as i64);
        let bytes = self.geometry.slot_bytes();
        let info = MemoryInfo::default();
        let mut value = ptr::null_mut();
        // SAFETY: the range lies inside the mapping (asserted above), which lives as long as `self`; whoever holds the tensor
        // drops it first. The mapping is aligned to a page and a slot to the size of an element. No Rust reference to this memory ever exists,
        // so the tensors over the same bytes alias raw pointers only, and all are used by one thread.
        let status = unsafe {
            (ort::api().CreateTensorWithDataAsOrtValue)(
                info.ptr(),
                self.maps[index].as_mut_ptr().add(first * bytes).cast(),
                rows * bytes,
                shape.as_ptr(),
                shape.len(),
                kind.tensor_type().into(),
                &mut value,
            )
        };
        // SAFETY: the status is what the call above returned, looked at once.
        unsafe { ort::Error::result_from_status(status) }?;
        let value =
            ptr::NonNull::new(value).expect("ONNX Runtime gives a value when it reports no error");
        // SAFETY: a valid value that nobody else owns. The allocator is only kept with it: the value does not own its memory.
        Ok(unsafe { DynTensor::from_ptr(value, Some(&Allocator::default())) })
    }

    /// Copies the first `tokens` tokens of one slot over those of another.
    pub(in super::super) fn copy(&mut self, from: usize, to: usize, tokens: usize) {
        assert_ne!(from, to, "a slot is not copied onto itself");
        self.each_head(from, to, |source, target, token_bytes| {
            // SAFETY: `each_head` gives pointers to `capacity` tokens each, in different slots, so they do not overlap.
            unsafe {
                ptr::copy_nonoverlapping(source, target, self.checked(tokens) * token_bytes);
            }
        });
    }

    /// Exchanges the first `tokens` tokens of two slots.
    pub(in super::super) fn swap(&mut self, one: usize, other: usize, tokens: usize) {
        assert_ne!(one, other, "a slot is not exchanged with itself");
        self.each_head(one, other, |one, other, token_bytes| {
            // SAFETY: as in `copy`.
            unsafe {
                ptr::swap_nonoverlapping(one, other, self.checked(tokens) * token_bytes);
            }
        });
    }

    /// Gives the slot's memory back; its content is gone.
    pub(in super::super) fn release(&mut self, slot: usize) {
        let bytes = self.geometry.slot_bytes();
        assert!(slot < self.geometry.slots, "slot {slot}");
        // Only whole pages inside the slot: what it shares with a neighbour is the neighbour's, too.
        let start = (slot * bytes).next_multiple_of(PAGE_BYTES_MAX);
        let end = (slot + 1) * bytes / PAGE_BYTES_MAX * PAGE_BYTES_MAX;
        if start >= end {
            return;
        }
        for map in &self.maps {
            // SAFETY: the range lies in this slot alone and in whole pages; what it held is not read again before it is
            // written, since the slot holds no tokens any more. A refusal leaves the memory as it is, which is no error.
            let _ = unsafe {
                map.unchecked_advise_range(UncheckedAdvice::DontNeed, start, end - start)
            };
        }
    }

    /// Some tokens of a slot: tensor by tensor, head by head, `tokens.len()` rows each.
    pub(in super::super) fn export(&self, slot: usize, tokens: Range<usize>) -> Vec<u8> {
        let token_bytes = self.geometry.row_bytes();
        let (skipped, end) = (tokens.start * token_bytes, self.checked(tokens.end));
        let part = end * token_bytes - skipped;
        let mut bytes = Vec::with_capacity(part * self.geometry.heads * self.maps.len());
        for pointer in self.heads_of(slot) {
            // SAFETY: `heads_of` points at `capacity` tokens, the range ends at most there, and nobody writes meanwhile: `&self`
            // keeps this thread, the only user, from running the model.
            bytes.extend_from_slice(unsafe {
                std::slice::from_raw_parts(pointer.add(skipped), part)
            });
        }
        bytes
    }

    /// Writes what [`export`](Self::export) gave into a slot. `false`, with nothing written, if the length does not fit.
    pub(in super::super) fn import(
        &mut self,
        slot: usize,
        tokens: Range<usize>,
        bytes: &[u8],
    ) -> bool {
        let token_bytes = self.geometry.row_bytes();
        let part = tokens.len() * token_bytes;
        if tokens.end > self.geometry.capacity
            || bytes.len() != part * self.geometry.heads * self.maps.len()
        {
            return false;
        }
        for (pointer, source) in self.heads_of(slot).zip(bytes.chunks_exact(part.max(1))) {
            // SAFETY: as in `export`; the source is `part` bytes long and no part of the mappings.
            unsafe {
                ptr::copy_nonoverlapping(
                    source.as_ptr(),
                    pointer.add(tokens.start * token_bytes),
                    part,
                );
            }
        }
        true
    }

    fn checked(&self, tokens: usize) -> usize {
        assert!(
            tokens <= self.geometry.capacity,
            "{tokens} tokens in a slot"
        );
        tokens
    }

    /// Where each head of a slot begins, tensor by tensor; `capacity` tokens are there.
    fn heads_of(&self, slot: usize) -> impl Iterator<Item = *mut u8> {
        let geometry = self.geometry;
        assert!(slot < geometry.slots, "slot {slot}");
        self.maps.iter().flat_map(move |map| {
            (0..geometry.heads).map(move |head| {
                // SAFETY: inside the mapping, since slot and head are below their counts.
                unsafe {
                    map.as_mut_ptr()
                        .add(slot * geometry.slot_bytes() + head * geometry.head_bytes())
                }
            })
        })
    }

    fn each_head(&self, one: usize, other: usize, act: impl Fn(*mut u8, *mut u8, usize)) {
        let token_bytes = self.geometry.row_bytes();
        for (one, other) in self.heads_of(one).zip(self.heads_of(other)) {
            act(one, other, token_bytes);
        }
    }
}

/// The bytes of a tensor of this type.
pub(in super::super) fn bytes_of(tensor: &DynTensor, kind: ElementKind) -> &[u8] {
    let bytes = tensor.shape().num_elements() * kind.bytes();
    if bytes == 0 || tensor.data_type() != &kind.tensor_type() {
        return &[];
    }
    // SAFETY: the tensor holds that many elements of that type (its own shape and type say so), on the CPU as all of ours, and
    // lives and stays unchanged as long as the borrow. Any bytes are valid `u8`.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), bytes) }
}

/// The bytes of a tensor of this type, to be written.
pub(in super::super) fn bytes_of_mut(tensor: &mut DynTensor, kind: ElementKind) -> &mut [u8] {
    let bytes = tensor.shape().num_elements() * kind.bytes();
    if bytes == 0 || tensor.data_type() != &kind.tensor_type() {
        return &mut [];
    }
    // SAFETY: as in `bytes_of`; nobody else has the tensor, and any bytes are valid floats.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr_mut().cast(), bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GEOMETRY: Geometry = Geometry {
        tensors: 2,
        heads: 2,
        dim: 4,
        kind: ElementKind::F32,
        capacity: 8,
        slots: 3,
    };

    fn filled() -> (CacheMemory, Vec<Vec<u8>>) {
        let mut memory = CacheMemory::reserve(GEOMETRY).unwrap();
        let contents: Vec<Vec<u8>> = (0..3u8)
            .map(|slot| (0..512u32).map(|at| slot * 80 + (at % 79) as u8).collect())
            .collect();
        for (slot, content) in contents.iter().enumerate() {
            assert!(memory.import(slot, 0..8, content));
        }
        (memory, contents)
    }

    #[test]
    fn what_goes_in_comes_out_and_the_neighbours_stay() {
        let (mut memory, contents) = filled();
        for (slot, content) in contents.iter().enumerate() {
            assert_eq!(&memory.export(slot, 0..8), content);
        }
        let short = memory.export(1, 0..3);
        assert_eq!(
            short.len() as u128,
            3 * GEOMETRY.token_bytes(),
            "the formula of the budget"
        );
        assert!(memory.import(2, 0..3, &short));
        assert_eq!(memory.export(2, 0..3), short);
        assert_eq!(memory.export(1, 0..8), contents[1]);
        assert!(!memory.import(0, 0..4, &short), "another length");
        assert!(!memory.import(0, 6..9, &short), "beyond the slot");
        assert_eq!(memory.export(0, 0..8), contents[0]);
        // The rest, behind what is there.
        let rest = memory.export(1, 3..8);
        assert!(memory.import(2, 3..8, &rest));
        assert_eq!(memory.export(2, 0..8), contents[1]);
    }

    #[test]
    fn copies_and_swaps_move_the_first_tokens_of_every_head() {
        let (mut memory, contents) = filled();
        memory.copy(0, 2, 5);
        assert_eq!(memory.export(2, 0..5), memory.export(0, 0..5));
        memory.swap(0, 1, 8);
        assert_eq!(memory.export(0, 0..8), contents[1]);
        assert_eq!(memory.export(1, 0..8), contents[0]);
    }

    #[test]
    fn a_released_slot_leaves_its_neighbours_alone() {
        let geometry = Geometry {
            capacity: 10_000,
            ..GEOMETRY
        };
        let mut memory = CacheMemory::reserve(geometry).unwrap();
        let content: Vec<u8> = (0..geometry.token_bytes() * 10_000)
            .map(|at| (at % 251) as u8)
            .collect();
        for slot in 0..3 {
            assert!(memory.import(slot, 0..10_000, &content));
        }
        memory.release(1);
        assert_eq!(memory.export(0, 0..10_000), content);
        assert_eq!(memory.export(2, 0..10_000), content);
        assert_ne!(memory.export(1, 0..10_000), content, "the memory went back");
    }
}
