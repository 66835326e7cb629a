//! Hello: who the sender is, what it can do, and whom it has heard.
//!
//! Its 20 bytes are the same in every version of the protocol, so that two peers can always find out that they do not
//! understand each other.

use alloc::vec::Vec;
use core::fmt;

use super::header::Kind;
use super::{
    MAX_MESSAGE_LOG2_MAX, MAX_MESSAGE_LOG2_MIN, MTU_MIN, VERSION, WINDOW_MAX, WINDOW_MIN,
    WireError, array_at,
};
use crate::frame::crc32c;

const ESTABLISHED: u8 = 1;
const DEVICE: u8 = 1 << 1;
const RESUME: u8 = 1 << 2;
const RELIABLE: u8 = 1 << 3;

/// Which end of the connection a machine plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The end that asks.
    Host,
    /// The end that is asked.
    Device,
}

/// Versions from `min` to `max`, both included, each 1 to 15.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionRange {
    /// The lowest version spoken.
    pub min: u8,
    /// The highest version spoken.
    pub max: u8,
}

impl VersionRange {
    /// What this crate speaks.
    pub const OURS: Self = Self {
        min: VERSION,
        max: VERSION,
    };

    /// The highest version that both speak.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u8> {
        let (min, max) = (self.min.max(other.min), self.max.min(other.max));
        (min <= max).then_some(max)
    }

    pub(super) fn to_byte(self) -> u8 {
        self.min << 4 | self.max & 0x0f
    }

    pub(super) fn from_byte(byte: u8) -> Result<Self, WireError> {
        let range = Self {
            min: byte >> 4,
            max: byte & 0x0f,
        };
        if range.min == 0 || range.min > range.max {
            return Err(WireError::OutOfRange { field: "versions" });
        }
        Ok(range)
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.min, self.max)
    }
}

/// One machine on one connection: the power-up it lives in, and which of its connections this is.
///
/// A pair is never used twice: the boot id differs between power-ups (or process starts), the epoch grows within one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Drawn anew at each power-up.
    pub boot_id: u32,
    /// Grows by one with each connection that this machine begins.
    pub epoch: u32,
}

impl Identity {
    /// The identity in 32 bits, for echoing.
    #[must_use]
    pub fn token(self) -> Token {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&self.boot_id.to_le_bytes());
        bytes[4..].copy_from_slice(&self.epoch.to_le_bytes());
        Token(crc32c(&bytes).max(1))
    }
}

/// CRC-32C of an [`Identity`]; zero says "nobody".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token(pub u32);

impl Token {
    /// No identity is known.
    pub const NOBODY: Self = Self(0);
}

/// Where in an encoded Hello its offer stands: versions, features, identity and limits, that is all but flags and `heard`.
pub(crate) const HELLO_OFFER: core::ops::Range<usize> = 2..16;

/// A Hello packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// The sender's role; a Hello of one's own role is an echo or a miswired line.
    pub role: Role,
    /// The sender counts the connection as established and wants no answer.
    pub established: bool,
    /// The sender has kept an interrupted connection with the peer that it has heard, and resumes it.
    pub resume: bool,
    /// The sender was told that the link loses nothing and keeps the order; if the receiver was too, nothing is repeated.
    pub reliable: bool,
    /// Versions that the sender speaks.
    pub versions: VersionRange,
    /// The security demanded: 0 none, 1 a pre-shared key, 2 static keys as well. Both ends must agree.
    pub features: u8,
    /// The sender.
    pub identity: Identity,
    /// The largest packet that the sender takes, in bytes, 20 to 65,536.
    pub mtu: usize,
    /// The most packets that the sender takes out of order, 4 to 64.
    pub window: u8,
    /// The largest message that the sender takes, as a power of two, 8 to 20.
    pub max_message_log2: u8,
    /// The token of the peer that the sender has heard last.
    pub heard: Token,
}

impl Hello {
    /// Bytes of a Hello; equals the least MTU.
    pub const BYTES: usize = 20;

    /// Appends the encoded packet.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let flags = (u8::from(self.established) * ESTABLISHED)
            | (u8::from(self.resume) * RESUME)
            | (u8::from(self.reliable) * RELIABLE)
            | match self.role {
                Role::Host => 0,
                Role::Device => DEVICE,
            };
        out.extend_from_slice(&[
            Kind::Hello.first_byte(),
            flags,
            self.versions.to_byte(),
            self.features,
        ]);
        out.extend_from_slice(&self.identity.boot_id.to_le_bytes());
        out.extend_from_slice(&self.identity.epoch.to_le_bytes());
        let mtu_less_one = u16::try_from(self.mtu.saturating_sub(1)).unwrap_or(u16::MAX);
        out.extend_from_slice(&mtu_less_one.to_le_bytes());
        out.extend_from_slice(&[self.window, self.max_message_log2]);
        out.extend_from_slice(&self.heard.0.to_le_bytes());
    }

    /// Reads a packet whose kind is Hello. Bytes after the twentieth are left for later versions.
    ///
    /// # Errors
    /// Too short, or a field out of its range.
    pub fn decode(packet: &[u8]) -> Result<Self, WireError> {
        if packet.len() < Self::BYTES {
            return Err(WireError::TooShort {
                actual: packet.len(),
                needed: Self::BYTES,
            });
        }
        let [_, flags, versions, features] = array_at(packet, 0)?;
        let [window, max_message_log2] = array_at(packet, 14)?;
        let hello = Self {
            role: if flags & DEVICE == 0 {
                Role::Host
            } else {
                Role::Device
            },
            established: flags & ESTABLISHED != 0,
            resume: flags & RESUME != 0,
            reliable: flags & RELIABLE != 0,
            versions: VersionRange::from_byte(versions)?,
            features,
            identity: Identity {
                boot_id: u32::from_le_bytes(array_at(packet, 4)?),
                epoch: u32::from_le_bytes(array_at(packet, 8)?),
            },
            mtu: usize::from(u16::from_le_bytes(array_at(packet, 12)?)) + 1,
            window,
            max_message_log2,
            heard: Token(u32::from_le_bytes(array_at(packet, 16)?)),
        };
        let checks = [
            ("mtu", hello.mtu >= MTU_MIN),
            ("window", (WINDOW_MIN..=WINDOW_MAX).contains(&window)),
            (
                "max_message",
                (MAX_MESSAGE_LOG2_MIN..=MAX_MESSAGE_LOG2_MAX).contains(&max_message_log2),
            ),
        ];
        match checks.iter().find(|(_, holds)| !holds) {
            None => Ok(hello),
            Some((field, _)) => Err(WireError::OutOfRange { field }),
        }
    }
}
