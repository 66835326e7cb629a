//! Packets on and off a link: delimited and checked on byte streams, passed through where the link does that itself.
//!
//! Never looks into a packet.

mod datagram;
mod stream;

pub use datagram::DatagramGate;
pub use stream::{StreamDecoder, encode_stream};

use crc::{CRC_32_ISCSI, Crc, Table};

/// CRC-32C (Castagnoli, RFC 3720 appendix B.4); a 16-entry table is enough at serial speed and suits small flash.
const CRC32C: Crc<u32, Table<1>> = Crc::<u32, Table<1>>::new(&CRC_32_ISCSI);

/// CRC-32C of `bytes`.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    CRC32C.checksum(bytes)
}

/// What came off a link and was no packet; each count says how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameStats {
    /// Packets handed on.
    pub packets: u64,
    /// Frames that are not COBS: noise, or the rest of a frame whose beginning was lost.
    pub bad_cobs: u64,
    /// Frames whose checksum does not match.
    pub bad_crc: u64,
    /// Frames too short to hold a checksum and a packet.
    pub too_short: u64,
    /// Frames, or datagrams, larger than the MTU allows.
    pub too_long: u64,
}
