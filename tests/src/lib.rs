//! Test support.

pub mod sentences;
