//! The host's end of transfers: offered, written as the device wants them and as there is room.

use crate::message::{Fault, FaultCode, Message};
use crate::transfer::{HostTransferEvent, Offer, TransferId};
use crate::{Instant, RequestError, SendError};

use super::machine::Host;

/// Transfers that may be open at a time; a device takes one, and a second one waits for nothing but its refusal.
const TRANSFERS_MAX: usize = 4;

/// What a part's message needs besides its bytes: at most 26 bytes of CBOR around them.
const PART_OVERHEAD_BYTES: usize = 32;

/// The longest part in bytes; larger ones would gain less than a percent, and wait longer to be whole.
const PART_BYTES_MAX: usize = 4096;

/// Invariant: `next <= length`.
#[derive(Debug)]
pub(super) struct OutgoingTransfer {
    length: u32,
    /// The next byte to be written; `None` until the device wants it.
    next: Option<u32>,
}

impl Host {
    /// Offers the device something large. [`HostTransferEvent::Wanted`] or [`HostTransferEvent::Finished`] follows.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn offer_transfer(
        &mut self,
        now: Instant,
        id: TransferId,
        offer: &Offer,
    ) -> Result<(), RequestError> {
        if self.transfers.len() >= TRANSFERS_MAX && !self.transfers.contains_key(&id) {
            return Err(RequestError::Busy);
        }
        let message = Message::TransferOffer {
            id: id.0,
            name: offer.name.as_str().into(),
            length: offer.length,
            hash: offer.hash.into(),
        };
        self.send_if_announced(now, &message)?;
        let (length, next) = (offer.length, None);
        self.transfers.insert(id, OutgoingTransfer { length, next });
        Ok(())
    }

    /// Writes the next bytes of a transfer that the device wants; gives how many were taken, 0 if there is no room now.
    ///
    /// # Errors
    /// Not connected, or [`SendError::OutOfBounds`]: not wanted, or more than was offered.
    pub fn write_transfer(
        &mut self,
        now: Instant,
        id: TransferId,
        bytes: &[u8],
    ) -> Result<usize, SendError> {
        let part_max = self.message_bytes_max().ok_or(SendError::NotConnected)?;
        let part_max = part_max
            .saturating_sub(PART_OVERHEAD_BYTES)
            .min(PART_BYTES_MAX);
        let transfer = self.transfers.get(&id).ok_or(SendError::OutOfBounds)?;
        let offset = transfer.next.ok_or(SendError::OutOfBounds)?;
        if bytes.len() > (transfer.length - offset) as usize {
            return Err(SendError::OutOfBounds);
        }
        let part = &bytes[..bytes.len().min(part_max)];
        if part.is_empty() {
            return Ok(0);
        }
        let message = Message::TransferPart {
            id: id.0,
            offset,
            bytes: part.to_vec().into(),
        };
        match self.send(now, &message) {
            Err(SendError::QueueFull) => return Ok(0),
            other => other?,
        }
        if let Some(transfer) = self.transfers.get_mut(&id) {
            transfer.next = Some(offset + part.len() as u32);
        }
        Ok(part.len())
    }

    /// Gives a transfer up; no event of it follows.
    pub fn abort_transfer(&mut self, now: Instant, id: TransferId) {
        if self.transfers.remove(&id).is_some() {
            // Best effort: parts stop coming, and the device's own limits hold.
            let _ = self.send(now, &Message::TransferAbort { id: id.0 });
        }
    }

    /// The next event of a transfer, or `None`; to be polled as [`Host::poll_event`] is.
    pub fn poll_transfer(&mut self) -> Option<HostTransferEvent> {
        self.transfer_events.pop_front()
    }

    pub(super) fn on_transfer_wanted(&mut self, id: TransferId, offset: u32) {
        match self.transfers.get_mut(&id) {
            Some(transfer) if offset <= transfer.length && transfer.next.is_none() => {
                transfer.next = Some(offset);
                let event = HostTransferEvent::Wanted { id, offset };
                self.transfer_events.push_back(event);
            }
            _ => self.count_unexpected(),
        }
    }

    pub(super) fn on_transfer_done(
        &mut self,
        id: TransferId,
        code: u16,
        text: Option<alloc::string::String>,
    ) {
        if self.transfers.remove(&id).is_none() {
            return self.count_unexpected();
        }
        let result = match code {
            0 => Ok(()),
            code => {
                let code = FaultCode::from_u16(code);
                Err(Fault::new(code, text.unwrap_or_default()))
            }
        };
        let event = HostTransferEvent::Finished { id, result };
        self.transfer_events.push_back(event);
    }

    pub(super) fn interrupt_transfers(&mut self) {
        while let Some((id, _)) = self.transfers.pop_first() {
            let event = HostTransferEvent::Interrupted { id };
            self.transfer_events.push_back(event);
        }
    }
}
