//! Carrying something large to the device, beside requests and without delaying them by more than a segment.
//!
//! One at a time. It goes on over interruptions of the connection as requests do; when the connection is lost the caller offers
//! it again, and the device says from where it wants it. What a device offers to us is refused: nobody here takes it yet
//! ([`Config::transfer_bytes_max`](autoglm_protocol::Config::transfer_bytes_max) is 0).

use std::sync::Arc;

use autoglm_protocol::transfer::{Offer, OfferError, TransferEvent, TransferId};
use autoglm_protocol::{Fault, Host, Instant};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Why something was not carried to its end.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CarryError {
    /// Something else is being carried to this device, or offered to it.
    #[error("something else is being carried to this device")]
    Busy,
    /// The connection is over, or was not there yet.
    #[error("the device is not connected")]
    NotConnected,
    /// The device does not speak our protocol, and nothing large can be carried to it.
    #[error("nothing large can be carried to this device")]
    Unsupported,
    /// The name or the length breaks the protocol's bounds, or the length is not the content's.
    #[error("the offer breaks the protocol's bounds")]
    OutOfBounds,
    /// The connection was lost on the way. Offered again, it goes on where it stopped.
    #[error("the connection was lost on the way")]
    Interrupted,
    /// The device refused it, or what came did not match its hash.
    #[error("the device answered: {0}")]
    Refused(Fault),
}

pub(super) type CarryReply = oneshot::Sender<Result<(), CarryError>>;

/// What is to be carried.
pub(super) struct Parcel {
    pub(super) offer: Offer,
    pub(super) content: Arc<[u8]>,
    pub(super) reply: CarryReply,
    /// Which connection it is meant for.
    pub(super) connection: CancellationToken,
}

struct Carried {
    id: TransferId,
    content: Arc<[u8]>,
    /// The next byte to be written, once the device wants it.
    next: Option<usize>,
    reply: CarryReply,
}

/// What is being carried, if something is.
#[derive(Default)]
pub(super) struct Carrier(Option<Carried>);

impl Carrier {
    pub(super) fn offer(&mut self, now: Instant, host: &mut Host, parcel: Parcel) {
        let offered = match parcel.offer.length as usize == parcel.content.len() {
            _ if parcel.connection.is_cancelled() => Err(CarryError::NotConnected),
            true => host.transfers().offer(now, &parcel.offer).map_err(refusal),
            false => Err(CarryError::OutOfBounds),
        };
        match offered {
            Ok(id) => {
                self.0 = Some(Carried {
                    id,
                    content: parcel.content,
                    next: None,
                    reply: parcel.reply,
                });
            }
            Err(error) => {
                let _ = parcel.reply.send(Err(error));
            }
        }
    }

    /// Takes what the machine tells of transfers, and gives it as much as it has room for.
    pub(super) fn advance(&mut self, now: Instant, host: &mut Host) {
        while let Some(event) = host.transfers().poll() {
            match event {
                TransferEvent::Wanted { id, offset } => {
                    if let Some(carried) = self.0.as_mut().filter(|carried| carried.id == id) {
                        carried.next = Some(offset as usize);
                    }
                }
                TransferEvent::Finished { id, result } => {
                    self.end(id, result.map_err(CarryError::Refused));
                }
                TransferEvent::Interrupted { id } => self.end(id, Err(CarryError::Interrupted)),
                TransferEvent::Offered { .. }
                | TransferEvent::Part { .. }
                | TransferEvent::Complete { .. }
                | TransferEvent::Ended { .. } => {}
            }
        }
        let Some(Carried {
            id, content, next, ..
        }) = &mut self.0
        else {
            return;
        };
        while let Some(rest) = next.and_then(|next| content.get(next..)) {
            match host.transfers().write(now, *id, rest) {
                Ok(0) | Err(_) => return,
                Ok(count) => *next = next.map(|next| next + count),
            }
        }
    }

    fn end(&mut self, id: TransferId, result: Result<(), CarryError>) {
        if let Some(carried) = self.0.take_if(|carried| carried.id == id) {
            let _ = carried.reply.send(result);
        }
    }
}

fn refusal(error: OfferError) -> CarryError {
    match error {
        OfferError::NotConnected => CarryError::NotConnected,
        OfferError::Busy => CarryError::Busy,
        OfferError::OutOfBounds => CarryError::OutOfBounds,
    }
}
