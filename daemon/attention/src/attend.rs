//! One cached head of one sequence: what it is given, whether the lengths fit, and which kernel takes it.

use pulp::Arch;

use crate::{
    kernel::{self, Scratch},
    row,
};

/// Elements per head that there is a kernel for.
pub const DIMS: [usize; 5] = [32, 64, 96, 128, 256];

/// One row per token inside a larger tensor: token `t`'s begins at `first + t * step`.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// The tensor.
    pub values: &'a [f32],
    /// Where the first token's row begins.
    pub first: usize,
    /// From one token's row to the next.
    pub step: usize,
}

/// Cosines and sines of the rotary positions (RoFormer, arXiv:2104.09864), `[positions, dim / 2]` each; element `i` is turned together
/// with element `i + dim / 2`.
#[derive(Debug, Clone, Copy)]
pub struct Rotary<'a> {
    /// Cosines.
    pub cos: &'a [f32],
    /// Sines.
    pub sin: &'a [f32],
}

/// What one cached head of one sequence is given.
#[derive(Debug)]
pub struct Step<'a> {
    /// Elements per head; one of [`DIMS`].
    pub dim: usize,
    /// Query heads that share the cached head.
    pub group: usize,
    /// New tokens.
    pub tokens: usize,
    /// Tokens that the caches hold before them.
    pub past: usize,
    /// What a product of query and key is multiplied with; mostly `dim ^ -0.5`.
    pub score_scale: f32,
    /// How positions are told; absent if queries and keys come turned, or have none.
    pub rotary: Option<Rotary<'a>>,
    /// `group * dim` elements per token.
    pub queries: Rows<'a>,
    /// `dim` elements per token.
    pub keys: Rows<'a>,
    /// `dim` elements per token.
    pub values: Rows<'a>,
    /// Rows of the head's keys, at least `past + tokens`; those of the new tokens are written.
    pub key_cache: &'a mut [u8],
    /// Rows of the head's values, as `key_cache`.
    pub value_cache: &'a mut [u8],
    /// `[tokens, group, dim]`.
    pub out: &'a mut [f32],
}

/// What [`attend`] was given and cannot work with: one of the lengths does not fit the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Misfit(
    /// Which one.
    pub &'static str,
);

impl std::fmt::Display for Misfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the length of {} does not fit", self.0)
    }
}

impl std::error::Error for Misfit {}

/// Writes the new tokens into the caches and computes their attention. `scratch` holds nothing from one call to the next.
///
/// # Errors
/// [`Misfit`], with nothing written.
pub fn attend(scratch: &mut Scratch, step: Step<'_>) -> Result<(), Misfit> {
    step.check()?;
    let arch = Arch::new();
    match step.dim {
        32 => arch.dispatch(kernel::Head::<32> { scratch, step }),
        64 => arch.dispatch(kernel::Head::<64> { scratch, step }),
        96 => arch.dispatch(kernel::Head::<96> { scratch, step }),
        128 => arch.dispatch(kernel::Head::<128> { scratch, step }),
        256 => arch.dispatch(kernel::Head::<256> { scratch, step }),
        _ => return Err(Misfit("a head")),
    }
    Ok(())
}

impl Rows<'_> {
    /// The row of a token.
    #[inline(always)]
    pub(crate) fn of(&self, token: usize, length: usize) -> &[f32] {
        &self.values[self.first + token * self.step..][..length]
    }

    fn holds(&self, tokens: usize, length: usize) -> bool {
        self.first + (tokens - 1) * self.step + length <= self.values.len()
    }
}

impl Step<'_> {
    fn check(&self) -> Result<(), Misfit> {
        let (dim, group, tokens) = (self.dim, self.group, self.tokens);
        let end = self.past + tokens;
        let is_room = |cache: &[u8]| cache.len() >= end * row::bytes(dim);
        let is_known = |table: &[f32]| table.len() >= end * dim / 2;
        let checks = [
            ("a head", DIMS.contains(&dim)),
            ("the group", group > 0),
            ("the tokens", tokens > 0),
            (
                "the queries",
                tokens > 0 && self.queries.holds(tokens, group * dim),
            ),
            ("the keys", tokens > 0 && self.keys.holds(tokens, dim)),
            ("the values", tokens > 0 && self.values.holds(tokens, dim)),
            ("the cache of keys", is_room(self.key_cache)),
            ("the cache of values", is_room(self.value_cache)),
            (
                "the rotary tables",
                self.rotary
                    .is_none_or(|tables| is_known(tables.cos) && is_known(tables.sin)),
            ),
            ("the result", self.out.len() == tokens * group * dim),
        ];
        match checks.into_iter().find(|(_, is_met)| !is_met) {
            Some((what, _)) => Err(Misfit(what)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
