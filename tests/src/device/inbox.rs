//! What is carried to a device: kept in memory, and counted, so that a test can tell whether anything came twice.

use autoglm_protocol::transfer::{TransferDigest, TransferEvent};
use autoglm_protocol::{Device, Instant};

/// More than any test carries.
pub const BYTES_MAX: u32 = 16 * 1024 * 1024;

/// The inbox.
#[derive(Debug, Default)]
pub struct Inbox {
    /// What is there of the transfer that was offered last, by its hash.
    hash: [u8; 32],
    digest: TransferDigest,
    /// Bytes that came in parts, since power-up.
    pub bytes: u64,
    /// Transfers that were offered.
    pub offers: u64,
    /// Transfers that are complete.
    pub complete: u64,
}

impl Inbox {
    /// Takes what the machine tells.
    pub fn advance(&mut self, now: Instant, device: &mut Device) {
        while let Some(event) = device.transfers().poll() {
            match event {
                TransferEvent::Offered { id, offer } => {
                    self.offers += 1;
                    if self.hash != offer.hash {
                        (self.hash, self.digest) = (offer.hash, TransferDigest::new());
                    }
                    let stored = self.digest.clone();
                    device.transfers().accept(now, id, stored).unwrap_or(());
                }
                TransferEvent::Part { bytes, .. } => {
                    self.bytes += bytes.len() as u64;
                    self.digest.update(&bytes);
                }
                TransferEvent::Complete { id } => {
                    self.complete += 1;
                    (self.hash, self.digest) = Default::default();
                    device.transfers().confirm(now, id).unwrap_or(());
                }
                TransferEvent::Ended { .. }
                | TransferEvent::Wanted { .. }
                | TransferEvent::Finished { .. }
                | TransferEvent::Interrupted { .. } => {}
            }
        }
    }
}
