//! What goes in at a run, with every length checked, and which part of it is one cached head's.

use super::{
    misfit,
    tensors::{Input, Inputs},
};
use crate::{DIMS, Rotary, Rows, Step, row};

/// The operator's attributes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    /// Heads of queries, a multiple of `cached`.
    pub(super) all: usize,
    /// Heads of keys and values.
    pub(super) cached: usize,
    /// What scores are multiplied with; 0 is `dim ^ -0.5`.
    pub(super) score_scale: f32,
}

/// One run. An *item* is one cached head of one row.
pub(super) struct Batch<'a> {
    heads: Heads,
    rows: usize,
    tokens: usize,
    dim: usize,
    /// Bytes of one item in a cache.
    head_bytes: usize,
    /// Tokens in each row's cache after this run.
    ends: Vec<usize>,
    queries: Columns<'a>,
    keys: Columns<'a>,
    values: Columns<'a>,
    rotary: Option<Rotary<'a>>,
    score_scale: f32,
}

/// Some columns of a tensor `[rows * tokens, width]`.
#[derive(Clone, Copy)]
struct Columns<'a> {
    elements: &'a [f32],
    first: usize,
    width: usize,
}

impl<'a> Columns<'a> {
    /// A head's, from a row's first token on.
    fn of(&self, before: usize, column: usize) -> Rows<'a> {
        Rows {
            values: &self.elements[before * self.width..],
            first: self.first + column,
            step: self.width,
        }
    }
}

impl<'a> Batch<'a> {
    /// `shapes` are the caches'.
    pub(super) fn new(
        heads: Heads,
        inputs: &'a Inputs<'_>,
        shapes: [[usize; 4]; 2],
    ) -> ort::Result<Self> {
        let [rows, cached, capacity, stride] = shapes[0];
        let dim = stride.saturating_sub(row::bytes(0));
        if shapes[1] != shapes[0] || cached != heads.cached || !DIMS.contains(&dim) {
            return Err(misfit("the caches"));
        }
        let (shape, queries) = inputs.queries.rows()?;
        let tokens = shape[1];
        let tensor = |elements, first, width| Columns {
            elements,
            first,
            width,
        };
        let (queries, keys, values) = match (&inputs.keys, &inputs.values) {
            (Some(keys), Some(values)) => {
                let width = cached * dim;
                let (keys, values) = (keys.rows()?, values.rows()?);
                if [keys.0, values.0] != [[rows, tokens, width]; 2] {
                    return Err(misfit("keys and values"));
                }
                let queries = tensor(queries, 0, heads.all * dim);
                (
                    queries,
                    tensor(keys.1, 0, width),
                    tensor(values.1, 0, width),
                )
            }
            _ => {
                let width = (heads.all + 2 * cached) * dim;
                let columns = |heads: usize| tensor(queries, heads * dim, width);
                (columns(0), columns(heads.all), columns(heads.all + cached))
            }
        };
        if shape != [rows, tokens, queries.width] || tokens == 0 {
            return Err(misfit("the queries"));
        }
        let rotary = match (&inputs.cos, &inputs.sin) {
            (Some(cos), Some(sin)) => Some(Rotary {
                cos: cos.floats()?,
                sin: sin.floats()?,
            }),
            _ => None,
        };
        let ends = ends(&inputs.last, tokens, capacity)?;
        if ends.len() != rows {
            return Err(misfit("the lengths"));
        }
        Ok(Self {
            heads,
            rows,
            tokens,
            dim,
            head_bytes: capacity * stride,
            ends,
            queries,
            keys,
            values,
            rotary,
            score_scale: match heads.score_scale > 0.0 {
                true => heads.score_scale,
                false => (dim as f32).powf(-0.5),
            },
        })
    }

    /// Query heads that share a cached one.
    fn group(&self) -> usize {
        self.heads.all / self.heads.cached
    }

    pub(super) fn out_shape(&self) -> [usize; 3] {
        [self.rows, self.tokens, self.heads.all * self.dim]
    }

    pub(super) fn items(&self) -> usize {
        self.rows * self.heads.cached
    }

    pub(super) fn head_bytes(&self) -> usize {
        self.head_bytes
    }

    /// Elements of an item's result.
    pub(super) fn item_elements(&self) -> usize {
        self.tokens * self.group() * self.dim
    }

    /// Multiplications of all items, nearly.
    pub(super) fn products(&self) -> usize {
        self.ends.iter().sum::<usize>() * self.tokens * self.heads.all * self.dim * 2
    }

    /// One item's part.
    pub(super) fn step<'b>(
        &self,
        item: usize,
        key_cache: &'b mut [u8],
        value_cache: &'b mut [u8],
        out: &'b mut [f32],
    ) -> Step<'b>
    where
        'a: 'b,
    {
        let (row, head) = (item / self.heads.cached, item % self.heads.cached);
        let before = row * self.tokens;
        Step {
            dim: self.dim,
            group: self.group(),
            tokens: self.tokens,
            past: self.ends[row] - self.tokens,
            score_scale: self.score_scale,
            rotary: self.rotary,
            queries: self.queries.of(before, head * self.group() * self.dim),
            keys: self.keys.of(before, head * self.dim),
            values: self.values.of(before, head * self.dim),
            key_cache,
            value_cache,
            out,
        }
    }

    /// Puts an item's result where all heads of a token lie side by side.
    pub(super) fn place(&self, item: usize, result: &[f32], out: &mut [f32]) {
        let (row, head) = (item / self.heads.cached, item % self.heads.cached);
        let width = self.group() * self.dim;
        for (token, result) in result.chunks_exact(width).enumerate() {
            let token = row * self.tokens + token;
            let to = token * self.heads.all * self.dim + head * width;
            out[to..][..width].copy_from_slice(result);
        }
    }
}

/// How many tokens each row's cache holds after this run.
fn ends(last: &Input<'_>, tokens: usize, capacity: usize) -> ort::Result<Vec<usize>> {
    last.wholes()?
        .iter()
        .map(|last| {
            usize::try_from(*last)
                .ok()
                .map(|last| last + 1)
                .filter(|end| (tokens..=capacity).contains(end))
                .ok_or_else(|| misfit("a row"))
        })
        .collect()
}
