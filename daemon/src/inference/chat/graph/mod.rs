//! The decoder as ONNX Runtime runs it: one file per layout, all with the same few operations on numbered slots.
//!
//! A graph owns the caches' memory and no bookkeeping: it is told how many tokens a slot holds. [`in_place`] writes new keys and
//! values into the buffers that it reads; [`growing`] gets new buffers with every run, as the common exports want.

use std::{ops::Range, sync::Arc};

use half::f16;
use ort::{
    session::{NoSelectedOutputs, RunOptions, Session},
    value::{DynTensor, TensorElementType},
};

pub(super) mod growing;
pub(super) mod in_place;

/// What every run is given, so that it can be ended from another thread.
pub(super) type Interruptible = Arc<RunOptions<NoSelectedOutputs>>;

/// A decoder with its caches. Slots are numbered from 0; `past` is how many tokens a slot holds.
pub(super) trait DecoderGraph {
    /// Whether [`together`](Self::together) takes more than one row.
    fn is_joint(&self) -> bool;

    /// Feeds one token to each of the slots `first..first + rows.len()`; a row is its slot's `past` and the token. Gives the logits
    /// row by row.
    fn together(&mut self, first: usize, rows: &[(usize, u32)]) -> ort::Result<&[f32]>;

    /// Feeds several tokens to one slot, and gives the logits after each of the last `wanted` of them.
    fn alone(
        &mut self,
        slot: usize,
        past: usize,
        ids: &[u32],
        wanted: usize,
    ) -> ort::Result<&[f32]>;

    /// Copies the first `tokens` tokens of a slot's cache to another slot.
    fn copy(&mut self, from: usize, to: usize, tokens: usize) -> ort::Result<()>;

    /// Exchanges the first `tokens` tokens of two slots' caches.
    fn swap(&mut self, one: usize, other: usize, tokens: usize);

    /// Gives a slot's memory back.
    fn release(&mut self, slot: usize);

    /// The cache of some tokens of a slot as bytes that [`import`](Self::import) of the same model understands.
    fn export(&self, slot: usize, tokens: Range<usize>) -> ort::Result<Vec<u8>>;

    /// Writes the cache of some tokens into a slot that holds those before them. `false`, with nothing written, when the bytes
    /// have another length.
    fn import(&mut self, slot: usize, tokens: Range<usize>, bytes: &[u8]) -> ort::Result<bool>;
}

/// Element type of logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogitsKind {
    F32,
    F16,
}

impl LogitsKind {
    /// The graph's; `session::open` compared it with `model.toml`.
    pub(super) fn of(session: &Session) -> Self {
        let is_narrow = session.outputs().iter().any(|output| {
            output.name() == "logits"
                && output.dtype().tensor_type() == Some(TensorElementType::Float16)
        });
        if is_narrow { Self::F16 } else { Self::F32 }
    }

    pub(super) fn tensor_type(self) -> TensorElementType {
        match self {
            Self::F32 => TensorElementType::Float32,
            Self::F16 => TensorElementType::Float16,
        }
    }
}

/// The last `count` logits as floats: as they are, or widened into `wide`.
pub(super) fn floats<'a>(
    tensor: &'a DynTensor,
    kind: LogitsKind,
    count: usize,
    wide: &'a mut Vec<f32>,
) -> ort::Result<&'a [f32]> {
    match kind {
        LogitsKind::F32 => Ok(last(tensor.try_extract_tensor::<f32>()?.1, count)),
        LogitsKind::F16 => {
            let narrow = last(tensor.try_extract_tensor::<f16>()?.1, count);
            wide.clear();
            wide.extend(narrow.iter().map(|value| value.to_f32()));
            Ok(wide)
        }
    }
}

fn last<T>(values: &[T], count: usize) -> &[T] {
    &values[values.len().saturating_sub(count)..]
}
