//! The daemon.

pub mod things;
pub mod understanding;
