//! Packet links delimit and check packets themselves; what is left to do is to refuse one that is too long.

use super::FrameStats;

/// The gate of a packet link.
#[derive(Debug)]
pub struct DatagramGate {
    mtu: usize,
    stats: FrameStats,
}

impl DatagramGate {
    /// A gate for packets of up to `mtu` bytes.
    #[must_use]
    pub fn new(mtu: usize) -> Self {
        Self {
            mtu,
            stats: FrameStats::default(),
        }
    }

    /// Counts a packet and says whether it may pass.
    pub fn admit(&mut self, packet: &[u8]) -> bool {
        let fits = packet.len() <= self.mtu;
        match fits {
            true => self.stats.packets += 1,
            false => self.stats.too_long += 1,
        }
        fits
    }

    /// The counts so far.
    #[must_use]
    pub fn stats(&self) -> FrameStats {
        self.stats
    }
}
