//! The taking end: accepted by its owner, taken in order, hashed as it comes, confirmed by its owner.
//!
//! `Offered -> Taking -> Complete`, each of which ends by our Done, by the other end's abort or by the loss of the connection.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::Instant;
use crate::message::{Fault, FaultCode, Message};

use super::{EndReason, Offer, TransferDigest, TransferEvent, TransferId, Transfers};

#[derive(Debug)]
pub(super) struct Incoming {
    id: TransferId,
    offer: Offer,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The owner decides.
    Offered,
    /// Invariant: the digest is of the bytes taken so far, fewer than `offer.length`.
    Taking(TransferDigest),
    /// All is there and right; the owner stores it.
    Complete,
}

/// The call is about a transfer that is not offered to us, not any more, or not at that stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("transfer {} is not offered", .0.0)]
pub struct NotOffered(pub TransferId);

impl Transfers<'_> {
    /// Accepts what is offered; `stored` is the hash of what is there of it already, [`TransferDigest::new`] if nothing.
    ///
    /// # Errors
    /// It is not offered, or accepted already.
    pub fn accept(
        &mut self,
        now: Instant,
        id: TransferId,
        stored: TransferDigest,
    ) -> Result<(), NotOffered> {
        let incoming = self.state.incoming.as_mut().filter(|open| open.id == id);
        let Some(incoming) = incoming.filter(|open| matches!(open.stage, Stage::Offered)) else {
            return Err(NotOffered(id));
        };
        // More than there is cannot be of this.
        let stored = match stored.length() <= incoming.offer.length {
            true => stored,
            false => TransferDigest::new(),
        };
        let offset = stored.length();
        incoming.stage = Stage::Taking(stored);
        self.reply(id, Message::TransferWanted { id: id.0, offset });
        self.finish_if_complete(id);
        self.send_replies(now);
        Ok(())
    }

    /// Refuses what is offered, or gives up what was accepted; no event of it follows.
    ///
    /// # Errors
    /// It is not offered, or not any more.
    pub fn refuse(&mut self, now: Instant, id: TransferId, fault: Fault) -> Result<(), NotOffered> {
        if self
            .state
            .incoming
            .as_ref()
            .is_none_or(|open| open.id != id)
        {
            return Err(NotOffered(id));
        }
        self.state.incoming = None;
        self.reply_fault(id, fault);
        self.send_replies(now);
        Ok(())
    }

    /// Says that all of it is stored for good, after [`TransferEvent::Complete`]: only then does the other end hear of success.
    ///
    /// # Errors
    /// It is not complete, or not any more: the connection was lost, and it will be offered again.
    pub fn confirm(&mut self, now: Instant, id: TransferId) -> Result<(), NotOffered> {
        let incoming = self
            .state
            .incoming
            .take_if(|open| open.id == id && matches!(open.stage, Stage::Complete));
        incoming.ok_or(NotOffered(id))?;
        let (code, text) = (0, None);
        let done = Message::TransferDone {
            id: id.0,
            code,
            text,
        };
        self.reply(id, done);
        self.send_replies(now);
        Ok(())
    }

    pub(super) fn on_offer(&mut self, id: TransferId, offer: Offer, cost: usize) {
        let refusal = match self.connection.config().transfer_bytes_max {
            0 => Some(FaultCode::Unsupported),
            _ if self.state.incoming.is_some() => Some(FaultCode::Busy),
            limit if offer.length > limit => Some(FaultCode::TransferTooLarge),
            _ => None,
        };
        if let Some(code) = refusal {
            return self.reply_fault(id, Fault::new(code, ""));
        }
        self.state.incoming = Some(Box::new(Incoming {
            id,
            offer: offer.clone(),
            stage: Stage::Offered,
        }));
        self.tell(TransferEvent::Offered { id, offer }, cost);
    }

    pub(super) fn on_part(&mut self, id: TransferId, offset: u32, bytes: Vec<u8>, cost: usize) {
        let incoming = self.state.incoming.as_deref_mut();
        let Some(Incoming {
            offer,
            stage: Stage::Taking(digest),
            ..
        }) = incoming.filter(|open| open.id == id)
        else {
            // Given up while parts were on their way.
            return self.count_unexpected();
        };
        let left = offer.length - digest.length();
        if offset != digest.length() || bytes.is_empty() || bytes.len() > left as usize {
            self.reply_fault(id, Fault::new(FaultCode::Malformed, ""));
            return self.end_incoming(EndReason::Misplaced);
        }
        digest.update(&bytes);
        self.tell(TransferEvent::Part { id, offset, bytes }, cost);
        self.finish_if_complete(id);
    }

    pub(super) fn on_abort(&mut self, id: TransferId) {
        self.forget_replies(id);
        match self
            .state
            .incoming
            .as_ref()
            .is_some_and(|open| open.id == id)
        {
            true => self.end_incoming(EndReason::Aborted),
            // Refused, or found wrong, before the abort came.
            false => self.count_unexpected(),
        }
    }

    pub(super) fn end_incoming(&mut self, reason: EndReason) {
        if let Some(incoming) = self.state.incoming.take() {
            let id = incoming.id;
            self.tell(TransferEvent::Ended { id, reason }, 0);
        }
    }

    fn finish_if_complete(&mut self, id: TransferId) {
        let Some(incoming) = self.state.incoming.as_deref_mut() else {
            return;
        };
        let Stage::Taking(digest) = &incoming.stage else {
            return;
        };
        if digest.length() < incoming.offer.length {
            return;
        }
        if digest.hash() == incoming.offer.hash {
            incoming.stage = Stage::Complete;
            self.tell(TransferEvent::Complete { id }, 0);
        } else {
            self.reply_fault(id, Fault::new(FaultCode::HashMismatch, ""));
            self.end_incoming(EndReason::HashMismatch);
        }
    }

    fn reply_fault(&mut self, id: TransferId, fault: Fault) {
        let text = Some(fault.message).filter(|text| !text.is_empty());
        let done = Message::TransferDone {
            id: id.0,
            code: fault.code.to_u16(),
            text,
        };
        self.reply(id, done);
    }
}
