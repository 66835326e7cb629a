//! The device's end of a transfer: one at a time, in order, hashed as it comes.

use alloc::boxed::Box;

use crate::message::{Fault, FaultCode, Message};
use crate::transfer::{DeviceTransferEvent, Offer, TransferDigest, TransferId};
use crate::{Instant, SendError};

use super::machine::Device;

/// Invariant: `digest` is of the bytes taken so far, at most `offer.length`; `None` until the owner accepts.
#[derive(Debug)]
pub(super) struct IncomingTransfer {
    id: TransferId,
    offer: Offer,
    digest: Option<TransferDigest>,
}

/// [`Device::accept_transfer`] or [`Device::refuse_transfer`] was called for what is not offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("transfer {} is not offered", .0.0)]
pub struct NotOffered(pub TransferId);

impl Device {
    /// The next event of a transfer, or `None`; to be polled as [`Device::poll_event`] is.
    pub fn poll_transfer(&mut self) -> Option<DeviceTransferEvent> {
        let (event, cost) = self.transfer_events.pop_front()?;
        self.give_back(cost);
        Some(event)
    }

    /// Accepts an offer; `stored` is the hash of what this device has of it already, [`TransferDigest::new`] if nothing.
    ///
    /// # Errors
    /// It is not offered, or not any more.
    pub fn accept_transfer(
        &mut self,
        now: Instant,
        id: TransferId,
        stored: TransferDigest,
    ) -> Result<(), NotOffered> {
        let transfer = self.transfer.as_mut().filter(|transfer| transfer.id == id);
        let transfer = transfer.ok_or(NotOffered(id))?;
        // More than there is cannot be of this.
        let stored = match stored.length() <= transfer.offer.length {
            true => stored,
            false => TransferDigest::new(),
        };
        let offset = stored.length();
        transfer.digest = Some(stored);
        self.reply_transfer(Message::TransferWanted { id: id.0, offset });
        self.finish_transfer_if_complete();
        self.send_transfer_replies(now);
        Ok(())
    }

    /// Refuses an offer, or gives up an accepted one.
    ///
    /// # Errors
    /// It is not offered, or not any more.
    pub fn refuse_transfer(
        &mut self,
        now: Instant,
        id: TransferId,
        fault: Fault,
    ) -> Result<(), NotOffered> {
        if self.transfer.as_ref().map(|transfer| transfer.id) != Some(id) {
            return Err(NotOffered(id));
        }
        self.transfer = None;
        self.reply_done(id, fault.code, Some(fault));
        self.send_transfer_replies(now);
        Ok(())
    }

    pub(super) fn on_offer(&mut self, id: TransferId, offer: Offer, cost: usize) {
        if self.transfer.as_ref().is_some_and(|other| other.id != id) {
            return self.reply_done(id, FaultCode::Busy, None);
        }
        self.transfer = Some(Box::new(IncomingTransfer {
            id,
            offer: offer.clone(),
            digest: None,
        }));
        self.tell(DeviceTransferEvent::Offered { id, offer }, cost);
    }

    pub(super) fn on_part(&mut self, id: TransferId, offset: u32, bytes: alloc::vec::Vec<u8>) {
        let transfer = self.transfer.as_deref_mut();
        let Some(IncomingTransfer {
            offer,
            digest: Some(digest),
            ..
        }) = transfer.filter(|transfer| transfer.id == id)
        else {
            // Given up while parts were on their way.
            self.count_unexpected();
            return;
        };
        let rest = offer.length - digest.length();
        if offset != digest.length() || bytes.is_empty() || bytes.len() > rest as usize {
            self.transfer = None;
            self.reply_done(id, FaultCode::Malformed, None);
            let is_worthless = false;
            return self.tell(DeviceTransferEvent::Ended { id, is_worthless }, 0);
        }
        digest.update(&bytes);
        let cost = bytes.len() + super::machine::EVENT_OVERHEAD_BYTES;
        self.tell(DeviceTransferEvent::Part { id, offset, bytes }, cost);
        self.finish_transfer_if_complete();
    }

    pub(super) fn on_transfer_abort(&mut self, id: TransferId) {
        if self.transfer.as_ref().is_some_and(|other| other.id == id) {
            self.end_transfer();
        }
    }

    /// The connection or the host's wish ended it.
    pub(super) fn end_transfer(&mut self) {
        self.transfer_replies.clear();
        if let Some(transfer) = self.transfer.take() {
            let id = transfer.id;
            let is_worthless = false;
            self.tell(DeviceTransferEvent::Ended { id, is_worthless }, 0);
        }
    }

    fn finish_transfer_if_complete(&mut self) {
        let is_complete = |transfer: &IncomingTransfer| {
            let digest = transfer.digest.as_ref();
            digest.is_some_and(|digest| digest.length() == transfer.offer.length)
        };
        if !self.transfer.as_deref().is_some_and(is_complete) {
            return;
        }
        let Some(IncomingTransfer {
            id,
            offer,
            digest: Some(digest),
        }) = self.transfer.take().map(|transfer| *transfer)
        else {
            return;
        };
        if digest.matches(&offer.hash) {
            let (id, code, text) = (id.0, 0, None);
            self.reply_transfer(Message::TransferDone { id, code, text });
            self.tell(DeviceTransferEvent::Complete { id: TransferId(id) }, 0);
        } else {
            self.reply_done(id, FaultCode::HashMismatch, None);
            let is_worthless = true;
            self.tell(DeviceTransferEvent::Ended { id, is_worthless }, 0);
        }
    }

    fn reply_done(&mut self, id: TransferId, code: FaultCode, fault: Option<Fault>) {
        let text = fault
            .map(|fault| fault.message)
            .filter(|text| !text.is_empty());
        let (id, code) = (id.0, code.to_u16());
        self.reply_transfer(Message::TransferDone { id, code, text });
    }

    /// Beyond the bound a reply is given up: only a host that offers without end gets so far.
    fn reply_transfer(&mut self, reply: Message<'static>) {
        if self.transfer_replies.len() < self.answers_max() {
            self.transfer_replies.push_back(reply);
        }
    }

    pub(super) fn send_transfer_replies(&mut self, now: Instant) {
        while let Some(reply) = self.transfer_replies.front().cloned() {
            match self.send(now, &reply) {
                Err(SendError::QueueFull | SendError::NotConnected) => return,
                Ok(()) | Err(_) => self.transfer_replies.pop_front(),
            };
        }
    }

    fn tell(&mut self, event: DeviceTransferEvent, cost: usize) {
        self.charge(cost);
        self.transfer_events.push_back((event, cost));
    }
}
