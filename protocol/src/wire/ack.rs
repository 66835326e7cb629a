//! The body of Ack and Pong: how much more is welcome, and what has arrived beyond the gap.

use alloc::vec::Vec;

use super::{WINDOW_MAX, WireError};

/// Selective acknowledgement and credit; the cumulative acknowledgement is in the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AckBody {
    /// How many packets beyond the cumulative acknowledgement may be in flight, 0 to 64; 0 asks the peer to pause.
    pub credit: u8,
    /// Bit `i` set: packet `ack + 1 + i` has arrived.
    pub received: u64,
}

impl AckBody {
    /// Appends the encoded body: the credit, then the bitmap without its trailing zero bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.credit);
        let used = 8 - self.received.leading_zeros() as usize / 8;
        out.extend_from_slice(&self.received.to_le_bytes()[..used]);
    }

    /// Reads a body.
    ///
    /// # Errors
    /// No credit, a credit above 64, or a bitmap longer than 8 bytes.
    pub fn decode(body: &[u8]) -> Result<Self, WireError> {
        let (&credit, bitmap) = body.split_first().ok_or(WireError::TooShort {
            actual: 0,
            needed: 1,
        })?;
        if credit > WINDOW_MAX {
            return Err(WireError::OutOfRange { field: "credit" });
        }
        let mut received = [0; 8];
        received
            .get_mut(..bitmap.len())
            .ok_or(WireError::OutOfRange { field: "bitmap" })?
            .copy_from_slice(bitmap);
        Ok(Self {
            credit,
            received: u64::from_le_bytes(received),
        })
    }
}
