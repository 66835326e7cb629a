//! Links and their supervision.
//!
//! [`policy`] decides (pure), [`supervisor`] acts: one task per link opens it, runs a port over it, learns the
//! device's description and hands the Thing to the registry, until the link is lost; then again.
//! Never interprets what a device says beyond that.

pub mod policy;
pub mod supervisor;
