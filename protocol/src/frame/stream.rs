//! Framing for byte streams: `COBS(packet || CRC-32C) 0x00`.
//!
//! COBS (Cheshire and Baker, "Consistent Overhead Byte Stuffing", 1999) takes every zero out of the frame, so a zero
//! always ends one, and a receiver that lost its place finds it again at the next zero.

use alloc::vec::Vec;

use memchr::memchr;

use super::cobs::{self, encoded_bytes_max};
use super::{FrameStats, crc32c};

const DELIMITER: u8 = 0;
const CRC_BYTES: usize = 4;

/// Appends `packet` as one frame.
pub fn encode_stream(packet: &[u8], out: &mut Vec<u8>) {
    out.reserve(encoded_bytes_max(packet.len() + CRC_BYTES) + 1);
    cobs::encode(packet, &crc32c(packet).to_le_bytes(), out);
    out.push(DELIMITER);
}

/// Takes bytes in any portions and gives packets.
///
/// Invariant: `buffer.len() <= frame_bytes_max`; what goes beyond is counted and skipped up to the next delimiter.
#[derive(Debug)]
pub struct StreamDecoder {
    buffer: Vec<u8>,
    frame_bytes_max: usize,
    skipping: bool,
    stats: FrameStats,
}

impl StreamDecoder {
    /// A decoder for packets of up to `mtu` bytes. The buffer grows only as far as frames need.
    #[must_use]
    pub fn new(mtu: usize) -> Self {
        Self {
            buffer: Vec::new(),
            frame_bytes_max: encoded_bytes_max(mtu + CRC_BYTES),
            skipping: false,
            stats: FrameStats::default(),
        }
    }

    /// Takes bytes up to the end of the next good frame; gives its packet and the bytes not looked at yet.
    /// Call again with those until it gives `None`.
    pub fn next_packet<'a>(&mut self, mut bytes: &'a [u8]) -> Option<(Vec<u8>, &'a [u8])> {
        while let Some(at) = memchr(DELIMITER, bytes) {
            self.extend(&bytes[..at]);
            bytes = &bytes[at + 1..];
            if let Some(packet) = self.finish_frame() {
                return Some((packet, bytes));
            }
        }
        self.extend(bytes);
        None
    }

    /// Takes a packet's memory back, to be used for the next; only between frames.
    pub fn recycle(&mut self, mut packet: Vec<u8>) {
        if self.buffer.is_empty() && self.buffer.capacity() < packet.capacity() {
            packet.clear();
            self.buffer = packet;
        }
    }

    /// The counts so far.
    #[must_use]
    pub fn stats(&self) -> FrameStats {
        self.stats
    }

    fn extend(&mut self, bytes: &[u8]) {
        if self.skipping {
            return;
        }
        if self.buffer.len() + bytes.len() > self.frame_bytes_max {
            self.stats.too_long += 1;
            self.skipping = true;
            self.buffer.clear();
            return;
        }
        self.buffer.extend_from_slice(bytes);
    }

    fn finish_frame(&mut self) -> Option<Vec<u8>> {
        if core::mem::take(&mut self.skipping) || self.buffer.is_empty() {
            // An empty frame is a delimiter sent to end whatever noise came before it.
            return None;
        }
        let mut packet = core::mem::take(&mut self.buffer);
        if cobs::decode(&mut packet).is_err() {
            self.stats.bad_cobs += 1;
            return None;
        }
        let Some(packet_bytes) = packet.len().checked_sub(CRC_BYTES).filter(|&len| len > 0) else {
            self.stats.too_short += 1;
            return None;
        };
        if packet[packet_bytes..] != crc32c(&packet[..packet_bytes]).to_le_bytes() {
            self.stats.bad_crc += 1;
            return None;
        }
        packet.truncate(packet_bytes);
        self.stats.packets += 1;
        Some(packet)
    }
}
