//! The daemon.

pub mod inference;
pub mod things;
pub mod understanding;
