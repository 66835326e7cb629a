//! Secrecy and proof of identity: a Noise handshake with a key that both ends were given, and sealed messages after it.
//!
//! The pattern is `NNpsk0`, or `KKpsk0` where both ends also have static keys, with 25519, ChaChaPoly and BLAKE2s (the Noise
//! Protocol Framework, revision 34). Messages are sealed, not packets, so that a packet of 20 bytes has room for data; what
//! an eavesdropper sees are the sizes of messages and their channels, and what somebody who can write on the line can do is
//! to end the connection, which a pair of pliers can do too.
//!
//! An end that has keys never speaks without them: there is no fall-back, and the handshake covers both Hellos, so that nobody in
//! between can talk the ends into less. A recorded handshake is worth nothing later, since it covers identities that are never
//! used twice. Nothing here reads a source of randomness: the owner gives a seed.

#[cfg(not(feature = "secure"))]
mod absent;
#[cfg(feature = "secure")]
mod cipher;
#[cfg(feature = "secure")]
mod handshake;
#[cfg(feature = "secure")]
mod key;

#[cfg(not(feature = "secure"))]
pub(crate) use absent::{Ciphers, EphemeralSource, Handshake};
#[cfg(feature = "secure")]
pub(crate) use cipher::Ciphers;
#[cfg(feature = "secure")]
pub(crate) use handshake::{EphemeralSource, Handshake};
#[cfg(feature = "secure")]
pub use key::SecretKey;

/// How a machine protects its connections; both ends must be given the same kind.
#[derive(Debug, Clone, Default)]
pub enum Security {
    /// In the clear. A peer that demands security is refused.
    #[default]
    None,
    /// A key that both ends have, one per device.
    #[cfg(feature = "secure")]
    Psk {
        /// The key.
        key: SecretKey,
        /// Randomness for the handshakes of this machine: drawn anew for each machine that is built.
        seed: SecretKey,
    },
    /// A key that both ends have, and a static key pair at each end, whose public halves were exchanged before.
    #[cfg(feature = "secure")]
    Mutual {
        /// The key.
        key: SecretKey,
        /// This end's private key (X25519).
        private: SecretKey,
        /// The other end's public key (X25519).
        peer: [u8; 32],
        /// Randomness for the handshakes of this machine: drawn anew for each machine that is built.
        seed: SecretKey,
    },
}

impl Security {
    /// What sealing adds to each message, in bytes: the tag of ChaCha20-Poly1305.
    pub(crate) fn seal_bytes(&self) -> usize {
        match self {
            Self::None => 0,
            #[cfg(feature = "secure")]
            Self::Psk { .. } | Self::Mutual { .. } => cipher::TAG_BYTES,
        }
    }

    /// The features byte of a Hello.
    pub(crate) fn features(&self) -> u8 {
        match self {
            Self::None => 0,
            #[cfg(feature = "secure")]
            Self::Psk { .. } => 1,
            #[cfg(feature = "secure")]
            Self::Mutual { .. } => 2,
        }
    }
}

/// The other end did not prove that it has the key, or a message was changed on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Forged;

#[cfg(all(test, feature = "secure"))]
mod tests;
