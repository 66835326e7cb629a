//! The offering end: offered, written as the other end wants it and as there is room.
//!
//! `Offered -> Wanted -> Written`, each of which ends by Done, by our abort or by the loss of the connection.

use alloc::string::String;

use crate::message::{Fault, FaultCode, Message};
use crate::segment::Channel;
use crate::{Instant, SendError};

use super::{Offer, TransferEvent, TransferId, Transfers};

/// What a part's message needs besides its bytes: at most 26 bytes of CBOR around them.
const PART_OVERHEAD_BYTES: usize = 32;

/// The longest part in bytes; larger ones would gain less than a percent, and wait longer to be whole.
const PART_BYTES_MAX: usize = 4096;

/// Invariant: `next <= length`.
#[derive(Debug)]
pub(super) struct Outgoing {
    id: TransferId,
    length: u32,
    /// The next byte to be written; `None` until the other end wants it.
    next: Option<u32>,
}

/// Why an offer was not made; nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// There is no connection now.
    #[error("not connected")]
    NotConnected,
    /// Another transfer of ours is open, or the send queue is full.
    #[error("another transfer is open or the send queue is full")]
    Busy,
    /// The name is longer than [`NAME_BYTES_MAX`](crate::message::NAME_BYTES_MAX).
    #[error("the name breaks the protocol's bounds")]
    OutOfBounds,
}

impl OfferError {
    /// Whether the same offer may be made a little later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::NotConnected | Self::Busy)
    }
}

/// Why bytes were not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The transfer is not open, or not wanted yet.
    #[error("transfer {} is not wanted", .0.0)]
    NotWanted(TransferId),
    /// More than was offered.
    #[error("{actual} bytes given, {left} of the offer are left")]
    BeyondEnd {
        /// Bytes given.
        actual: usize,
        /// Bytes of the offer that were not written yet.
        left: u32,
    },
}

impl Transfers<'_> {
    /// Offers something large; [`TransferEvent::Wanted`], [`TransferEvent::Finished`] or [`TransferEvent::Interrupted`] follows.
    ///
    /// # Errors
    /// Nothing was sent, and no event follows.
    pub fn offer(&mut self, now: Instant, offer: &Offer) -> Result<TransferId, OfferError> {
        self.send_replies(now);
        if self.state.outgoing.is_some() || self.state.aborting.is_some() {
            return Err(OfferError::Busy);
        }
        let id = TransferId(self.state.next_id);
        let message = Message::TransferOffer {
            id: id.0,
            name: offer.name.as_str().into(),
            length: offer.length,
            hash: offer.hash.into(),
        };
        if !message.is_within_bounds() {
            return Err(OfferError::OutOfBounds);
        }
        let sent = self.connection.send(now, &message, None);
        sent.map_err(|error| match error {
            SendError::NotConnected => OfferError::NotConnected,
            SendError::QueueFull => OfferError::Busy,
            // An offer has 190 bytes at most, and the least message limit is 256.
            SendError::TooLarge { .. } | SendError::OutOfBounds => OfferError::OutOfBounds,
        })?;
        self.state.next_id = self.state.next_id.wrapping_add(1);
        let (length, next) = (offer.length, None);
        self.state.outgoing = Some(Outgoing { id, length, next });
        Ok(id)
    }

    /// Writes the next bytes of what is wanted; gives how many were taken, 0 if there is no room now.
    ///
    /// # Errors
    /// Nothing was taken.
    pub fn write(
        &mut self,
        now: Instant,
        id: TransferId,
        bytes: &[u8],
    ) -> Result<usize, WriteError> {
        let outgoing = self.state.outgoing.as_mut().filter(|open| open.id == id);
        let Some(Outgoing {
            length,
            next: Some(next),
            ..
        }) = outgoing
        else {
            return Err(WriteError::NotWanted(id));
        };
        let left = *length - *next;
        if bytes.len() > left as usize {
            let actual = bytes.len();
            return Err(WriteError::BeyondEnd { actual, left });
        }
        // Interrupted, and kept to be resumed: there is room again when it is.
        let Some(message_max) = self.connection.message_max(Channel::Bulk) else {
            return Ok(0);
        };
        // A quarter of the queue at most, so that one part waits while another is sent.
        let part_max = (self.connection.config().send_queue_bytes / 4)
            .min(message_max)
            .saturating_sub(PART_OVERHEAD_BYTES)
            .min(PART_BYTES_MAX);
        let part = &bytes[..bytes.len().min(part_max)];
        if part.is_empty() {
            return Ok(0);
        }
        let message = Message::TransferPart {
            id: id.0,
            offset: *next,
            bytes: part.to_vec().into(),
        };
        if self.connection.send(now, &message, None).is_err() {
            return Ok(0);
        }
        // A part is shorter than what is left, which is a u32.
        *next += part.len() as u32;
        Ok(part.len())
    }

    /// Gives up what we offered; no event of it follows.
    pub fn abort(&mut self, now: Instant, id: TransferId) {
        if self
            .state
            .outgoing
            .as_ref()
            .is_none_or(|open| open.id != id)
        {
            return;
        }
        self.state.outgoing = None;
        self.state.aborting = Some(id);
        self.send_replies(now);
    }

    pub(super) fn on_wanted(&mut self, id: TransferId, offset: u32) {
        match &mut self.state.outgoing {
            Some(open) if open.id == id && open.next.is_none() && offset <= open.length => {
                open.next = Some(offset);
                self.tell(TransferEvent::Wanted { id, offset }, 0);
            }
            _ => self.count_unexpected(),
        }
    }

    pub(super) fn on_done(&mut self, id: TransferId, code: u16, text: Option<String>) {
        if self
            .state
            .outgoing
            .as_ref()
            .is_none_or(|open| open.id != id)
        {
            return self.count_unexpected();
        }
        self.state.outgoing = None;
        let result = match code {
            0 => Ok(()),
            code => {
                let code = FaultCode::from_u16(code);
                Err(Fault::new(code, text.unwrap_or_default()))
            }
        };
        self.tell(TransferEvent::Finished { id, result }, 0);
    }

    pub(super) fn end_outgoing(&mut self) {
        if let Some(Outgoing { id, .. }) = self.state.outgoing.take() {
            self.tell(TransferEvent::Interrupted { id }, 0);
        }
    }
}
