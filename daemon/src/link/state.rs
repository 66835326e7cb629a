//! The state of a link, as observers see it.

use std::time::Instant;

/// The state of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// Never tried.
    Disconnected,
    /// Not needed now: the device is reached by another link.
    Standby,
    /// Being opened, or waiting for the device's side of the handshake.
    Connecting {
        /// Tries so far without success.
        attempt: u32,
    },
    /// It carries the device's connection.
    Connected {
        /// Since when.
        since: Instant,
    },
    /// Resting before the next try.
    Reconnecting {
        /// Tries so far without success.
        attempt: u32,
        /// When the next one is.
        retry_at: Instant,
        /// What ended the last.
        cause: String,
    },
    /// Whoever answers on it is not authentic. It rests long; a person has to mend the keys.
    Refused {
        /// How often in a row.
        refusals: u32,
        /// When it is tried again.
        retry_at: Instant,
        /// What is wrong, and what to do.
        cause: String,
    },
}

impl LinkState {
    /// The state's name on the bus and in logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Standby => "standby",
            Self::Connecting { .. } => "connecting",
            Self::Connected { .. } => "connected",
            Self::Reconnecting { .. } => "reconnecting",
            Self::Refused { .. } => "refused",
        }
    }

    /// Why it is not connected, if something went wrong.
    #[must_use]
    pub fn cause(&self) -> Option<&str> {
        match self {
            Self::Reconnecting { cause, .. } | Self::Refused { cause, .. } => Some(cause),
            _ => None,
        }
    }
}
