//! Key-value caches: [`slots`] says whose they are and what they hold (pure), [`memory`] is where they lie, [`budget`] how much
//! memory they may take.

pub(super) mod budget;
pub(super) mod memory;
pub(super) mod slots;
