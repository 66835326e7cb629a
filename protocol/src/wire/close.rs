//! Close: the connection ends, and why. Its 12 bytes are the same in every version.

use alloc::vec::Vec;

use super::header::Kind;
use super::{Token, VersionRange, WireError, array_at};

/// Why a peer ended the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// It stops or goes away on purpose.
    Goodbye,
    /// No common version.
    IncompatibleVersion,
    /// The other end broke the protocol.
    ProtocolViolation,
    /// It cannot get a packet across.
    Undeliverable,
    /// The other end did not prove that it has the key, or security is wanted by one end only.
    Unauthenticated,
    /// A reason of a later version.
    Other(u8),
}

impl CloseReason {
    /// The number on the wire.
    #[must_use]
    pub const fn to_u8(self) -> u8 {
        match self {
            Self::Goodbye => 1,
            Self::IncompatibleVersion => 2,
            Self::ProtocolViolation => 3,
            Self::Undeliverable => 4,
            Self::Unauthenticated => 5,
            Self::Other(number) => number,
        }
    }

    /// The reason that a number stands for.
    #[must_use]
    pub const fn from_u8(number: u8) -> Self {
        match number {
            1 => Self::Goodbye,
            2 => Self::IncompatibleVersion,
            3 => Self::ProtocolViolation,
            4 => Self::Undeliverable,
            5 => Self::Unauthenticated,
            other => Self::Other(other),
        }
    }
}

/// A Close packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close {
    /// Why.
    pub reason: CloseReason,
    /// Versions that the sender speaks.
    pub versions: VersionRange,
    /// The sender's identity.
    pub from: Token,
    /// The identity that is closed on; a Close for another one is stale.
    pub to: Token,
}

impl Close {
    /// Bytes of a Close.
    pub const BYTES: usize = 12;

    /// Appends the encoded packet.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[
            Kind::Close.first_byte(),
            0,
            self.reason.to_u8(),
            self.versions.to_byte(),
        ]);
        out.extend_from_slice(&self.from.0.to_le_bytes());
        out.extend_from_slice(&self.to.0.to_le_bytes());
    }

    /// Reads a packet whose kind is Close.
    ///
    /// # Errors
    /// Too short, or no sensible versions.
    pub fn decode(packet: &[u8]) -> Result<Self, WireError> {
        if packet.len() < Self::BYTES {
            return Err(WireError::TooShort {
                actual: packet.len(),
                needed: Self::BYTES,
            });
        }
        Ok(Self {
            reason: CloseReason::from_u8(packet[2]),
            versions: VersionRange::from_byte(packet[3])?,
            from: Token(u32::from_le_bytes(array_at(packet, 4)?)),
            to: Token(u32::from_le_bytes(array_at(packet, 8)?)),
        })
    }
}
