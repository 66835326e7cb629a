//! The relation with one peer.

mod config;
mod outcome;
mod stats;

pub use config::{Config, LinkKind};
pub use outcome::{LostReason, PeerInfo, SendError};
pub use stats::Stats;
