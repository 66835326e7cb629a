//! The daemon.

pub mod inference;
