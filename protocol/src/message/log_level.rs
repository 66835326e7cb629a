//! The levels of log lines.

use minicbor::{Decode, Encode};

/// How grave a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum LogLevel {
    /// Somebody must act.
    #[n(0)]
    Error,
    /// Degraded.
    #[n(1)]
    Warn,
    /// A change of state.
    #[n(2)]
    Info,
    /// For developers.
    #[n(3)]
    Debug,
}
