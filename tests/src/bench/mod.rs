//! What the benches share: statistics, tables for the README, the machine's name, the default models, and the floors.
//!
//! A floor is the barest way to do the same work (the graph without the engine, the line without the protocol), measured in the
//! same run and in turn with ours (so is a peer, which is somebody else's program), so that a drift of the machine meets both. Speed is printed and never asserted.

pub mod bundles;
pub mod floor;
pub mod machine;
pub mod peer;
pub mod statistics;
pub mod table;
