//! Packets on and off a link: delimited and checked on byte streams, passed through where the link does that itself.
//!
//! Never looks into a packet.

mod checksum;
mod cobs;
mod datagram;
mod stream;

pub(crate) use checksum::Checksum;
pub use checksum::crc32c;
pub use datagram::DatagramGate;
pub use stream::{StreamDecoder, encode_stream};

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
