//! The hash of a beginning: what lets a transfer go on without sending again what is there.

use core::fmt;

use sha2::{Digest, Sha256};

/// The SHA-256 of nothing, or of what is stored already.
#[derive(Clone, Default)]
pub struct TransferDigest {
    hasher: Sha256,
    length: u32,
}

impl TransferDigest {
    /// Of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the bytes that follow.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        let more = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.length = self.length.saturating_add(more);
    }

    /// How many bytes it is of.
    #[must_use]
    pub fn length(&self) -> u32 {
        self.length
    }

    /// The SHA-256 of what it has seen, as an [`Offer`](super::Offer) wants it.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        self.hasher.clone().finalize().into()
    }
}

impl fmt::Debug for TransferDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TransferDigest({} bytes)", self.length)
    }
}
