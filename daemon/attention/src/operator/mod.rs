//! `autoglm.edge:ByteCacheAttention`, as ONNX Runtime calls it: GroupQueryAttention over a cache of bytes, for the CPU provider.
//!
//! | | | |
//! | --- | --- | --- |
//! | input 0 | queries `[B,S,heads * dim]`, or with keys and values behind them | f32 |
//! | input 1, 2 | caches of keys and values `[B,kv_heads,max,dim + 4]` | u8, see [`row`](crate::row) |
//! | input 3 | each row's tokens after this step, less one `[B]` | i32 |
//! | input 4, 5 | cosines and sines `[positions, dim / 2]`, or none | f32 |
//! | input 6, 7 | keys and values `[B,S,kv_heads * dim]`, if not in input 0 | f32 |
//! | output 0 | `[B,S,heads * dim]` | f32 |
//! | output 1, 2 | the caches; bound to the same memory, or they are copied | u8 |
//!
//! Attributes: `num_heads`, `kv_num_heads`, `scale` (0 or none is `dim ^ -0.5`). All rows have S new tokens. It keeps nothing between runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ort::{
    operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput},
    value::TensorElementType,
};

use self::{
    batch::{Batch, Heads},
    tensors::{Cache, Inputs},
};
use crate::{Scratch, attend};

mod batch;
mod tensors;

/// Domain and name of the operator in a graph.
pub(crate) const DOMAIN: &str = "autoglm.edge";
pub(crate) const OPERATOR: &str = "ByteCacheAttention";

/// Multiplications under which other threads are not woken: they sleep between operators, and waking one takes as long as this.
const SHARED_FROM: usize = 1 << 19;

/// One for a session.
#[derive(Default)]
pub(crate) struct ByteCacheAttention {
    pool: Pool,
}

/// One for each of its layers.
pub(crate) struct Attention {
    heads: Heads,
    pool: Pool,
}

/// What is not in use of what the layers of a session work with. All share it, so that it stays in the processor's caches: a layer's own would be
/// 2 MB for each of 30 after 1,400 tokens, new memory at the first run and out of the caches at every further one.
#[derive(Default, Clone)]
struct Pool(Arc<Mutex<Vec<Work>>>);

/// What one cached head of one row needs while it is worked on.
#[derive(Default)]
struct Work {
    scratch: Scratch,
    out: Vec<f32>,
}

impl Pool {
    /// What was given back last.
    fn take(&self) -> Work {
        lock(&self.0).pop().unwrap_or_default()
    }

    fn give_back(&self, work: Work) {
        lock(&self.0).push(work);
    }
}

impl Operator for ByteCacheAttention {
    type Kernel<'attr> = Attention;

    const INPLACES: &[(u32, u32)] = &[(1, 1), (2, 2)];

    fn name(&self) -> &str {
        OPERATOR
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        let (float, byte) = (TensorElementType::Float32, TensorElementType::Uint8);
        [
            OperatorInput::required(float),
            OperatorInput::required(byte),
            OperatorInput::required(byte),
            OperatorInput::required(TensorElementType::Int32),
            OperatorInput::optional(float),
            OperatorInput::optional(float),
            OperatorInput::optional(float),
            OperatorInput::optional(float),
        ]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        let byte = OperatorOutput::required(TensorElementType::Uint8);
        [
            OperatorOutput::required(TensorElementType::Float32),
            byte,
            OperatorOutput::required(TensorElementType::Uint8),
        ]
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<Attention> {
        let count = |name: &str| {
            let count = context.get::<i64>(name).unwrap_or_default();
            usize::try_from(count)
                .ok()
                .filter(|count| *count > 0)
                .ok_or_else(|| misfit(name))
        };
        let (heads, kv_heads) = (count("num_heads")?, count("kv_num_heads")?);
        if heads % kv_heads != 0 {
            return Err(misfit("kv_num_heads"));
        }
        Ok(Attention {
            heads: Heads {
                all: heads,
                cached: kv_heads,
                score_scale: context.get::<f32>("scale").unwrap_or_default(),
            },
            pool: self.pool.clone(),
        })
    }
}

impl Kernel for Attention {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let inputs = Inputs::of(context)?;
        let [mut key_cache, mut value_cache] = [Cache::take(context, 1)?, Cache::take(context, 2)?];
        let shapes = [key_cache.shape()?, value_cache.shape()?];
        let batch = Batch::new(self.heads, &inputs, shapes)?;
        let mut out = context
            .output(0, batch.out_shape())?
            .ok_or_else(|| misfit("the result"))?;
        let (_, out) = out.try_extract_tensor_mut::<f32>()?;

        let items = batch.items();
        let out = Mutex::new(out);
        let caches: Vec<Mutex<(&mut [u8], &mut [u8])>> = key_cache
            .bytes()?
            .chunks_exact_mut(batch.head_bytes())
            .zip(value_cache.bytes()?.chunks_exact_mut(batch.head_bytes()))
            .map(Mutex::new)
            .collect();
        let one = |item: usize| {
            // Its own, so nobody waits; the lock only says so to the compiler.
            let mut caches = lock(&caches[item]);
            let (key_cache, value_cache) = &mut *caches;
            let mut work = self.pool.take();
            work.out.resize(batch.item_elements(), 0.0);
            let step = batch.step(item, key_cache, value_cache, &mut work.out);
            let done = attend(&mut work.scratch, step);
            if done.is_ok() {
                batch.place(item, &work.out, &mut lock(&out));
            }
            self.pool.give_back(work);
            done.map_err(|misfitting| misfit(misfitting.0))
        };
        if items == 1 || batch.products() < SHARED_FROM {
            (0..items).try_for_each(one)
        } else {
            let failed = Mutex::new(Ok(()));
            context.par_for(items, 0, |item| {
                if let Err(error) = one(item) {
                    *lock(&failed) = Err(error);
                }
            })?;
            failed.into_inner().unwrap_or_else(PoisonError::into_inner)
        }
    }
}

/// What these protect is whole whenever it is locked, also after a panic.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn misfit(what: &str) -> ort::Error {
    ort::Error::new(format!("{OPERATOR}: the length of {what} does not fit"))
}
