//! Test support.

pub mod power_cut;
