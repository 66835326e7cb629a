//! Packets on and off a link: delimited and checked on byte streams, passed through where the link does that itself.
//!
//! Never looks into a packet.

mod cobs;
mod datagram;
mod stream;

pub use datagram::DatagramGate;
pub use stream::{StreamDecoder, encode_stream};

use crc::{CRC_32_ISCSI, Crc, Table};

/// How many tables of 1 KiB the CRC uses: 16 bytes at a time, or one where flash is small.
#[cfg(feature = "large-tables")]
const TABLES: usize = 16;
#[cfg(not(feature = "large-tables"))]
const TABLES: usize = 1;

/// CRC-32C (Castagnoli, RFC 3720 appendix B.4).
static CRC32C: Crc<u32, Table<TABLES>> = Crc::<u32, Table<TABLES>>::new(&CRC_32_ISCSI);

/// CRC-32C of `bytes`.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    CRC32C.checksum(bytes)
}

/// CRC-32C of bytes that come in pieces.
pub(crate) struct Checksum(crc::Digest<'static, u32, Table<TABLES>>);

impl Checksum {
    pub(crate) fn new() -> Self {
        Self(CRC32C.digest())
    }

    pub(crate) fn finish(self) -> u32 {
        self.0.finalize()
    }
}

impl minicbor::encode::Write for &mut Checksum {
    type Error = core::convert::Infallible;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        self.0.update(bytes);
        Ok(())
    }
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

impl FrameStats {
    /// Both counts together.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            packets: self.packets + other.packets,
            bad_cobs: self.bad_cobs + other.bad_cobs,
            bad_crc: self.bad_crc + other.bad_crc,
            too_short: self.too_short + other.too_short,
            too_long: self.too_long + other.too_long,
        }
    }
}
