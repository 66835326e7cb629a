//! The operator's tensors as ONNX Runtime hands them over.

use ort::{
    operator::ComputeContext,
    value::{ValueRef, ValueRefMut},
};

use super::misfit;

/// All inputs but the caches.
pub(super) struct Inputs<'a> {
    pub(super) queries: Input<'a>,
    pub(super) last: Input<'a>,
    pub(super) cos: Option<Input<'a>>,
    pub(super) sin: Option<Input<'a>>,
    pub(super) keys: Option<Input<'a>>,
    pub(super) values: Option<Input<'a>>,
}

impl<'a> Inputs<'a> {
    pub(super) fn of(context: &'a ComputeContext) -> ort::Result<Self> {
        let needed = |index: usize, what: &str| -> ort::Result<Input<'a>> {
            Input::of(context, index)?.ok_or_else(|| misfit(what))
        };
        Ok(Self {
            queries: needed(0, "the queries")?,
            last: needed(3, "the lengths")?,
            cos: Input::of(context, 4)?,
            sin: Input::of(context, 5)?,
            keys: Input::of(context, 6)?,
            values: Input::of(context, 7)?,
        })
    }
}

/// A tensor that only goes in.
pub(super) struct Input<'a>(ValueRef<'a>);

impl<'a> Input<'a> {
    fn of(context: &'a ComputeContext, index: usize) -> ort::Result<Option<Self>> {
        if index >= context.num_inputs()? {
            return Ok(None);
        }
        Ok(context.input(index)?.map(Self))
    }

    pub(super) fn floats(&self) -> ort::Result<&[f32]> {
        Ok(self.0.try_extract_tensor::<f32>()?.1)
    }

    pub(super) fn wholes(&self) -> ort::Result<&[i32]> {
        Ok(self.0.try_extract_tensor::<i32>()?.1)
    }

    pub(super) fn rows(&self) -> ort::Result<([usize; 3], &[f32])> {
        let (shape, floats) = self.0.try_extract_tensor::<f32>()?;
        let shape = extents(shape).ok_or_else(|| misfit("a shape"))?;
        Ok((shape, floats))
    }
}

/// A cache that goes in and comes out.
pub(super) struct Cache<'a>(ValueRefMut<'a>);

impl<'a> Cache<'a> {
    /// The output of this number, holding what the input of the same number holds.
    pub(super) fn take(context: &'a ComputeContext, index: usize) -> ort::Result<Self> {
        let past = context.input(index)?.ok_or_else(|| misfit("a cache"))?;
        let (shape, bytes) = past.try_extract_tensor::<u8>()?;
        let mut present = context
            .output(index, shape.to_vec())?
            .ok_or_else(|| misfit("a cache"))?;
        // Both may lie over the same bytes, so no two slices are looked at together before that is known.
        let is_same = present.try_extract_tensor::<u8>()?.1.as_ptr() == bytes.as_ptr();
        if !is_same {
            present
                .try_extract_tensor_mut::<u8>()?
                .1
                .copy_from_slice(bytes);
        }
        Ok(Self(present))
    }

    pub(super) fn shape(&self) -> ort::Result<[usize; 4]> {
        let (shape, _) = self.0.try_extract_tensor::<u8>()?;
        extents(shape).ok_or_else(|| misfit("a cache"))
    }

    pub(super) fn bytes(&mut self) -> ort::Result<&mut [u8]> {
        Ok(self.0.try_extract_tensor_mut::<u8>()?.1)
    }
}

fn extents<const RANK: usize>(shape: &[i64]) -> Option<[usize; RANK]> {
    let extents: Vec<usize> = shape
        .iter()
        .map(|extent| usize::try_from(*extent).ok())
        .collect::<Option<_>>()?;
    extents.try_into().ok()
}
