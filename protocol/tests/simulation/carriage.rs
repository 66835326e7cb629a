//! One direction of transfers in a world: what is offered, and what is stored of it at the other end.

use autoglm_protocol::Instant;
use autoglm_protocol::transfer::{
    EndReason, Offer, TransferDigest, TransferEvent, TransferId, Transfers,
};

#[derive(Debug, Default)]
pub(crate) struct Carriage {
    image: Vec<u8>,
    stored: Vec<u8>,
    offered: Option<TransferId>,
    /// What the other end wants next, once it wants something.
    next: Option<usize>,
    /// How often the giving owner heard of success.
    pub(crate) successes: u32,
    /// From where it was wanted, each time.
    pub(crate) wanted_from: Vec<usize>,
    /// How often the taking owner was told that its end was lost.
    pub(crate) interruptions: u32,
}

impl Carriage {
    pub(crate) fn new(image: Vec<u8>) -> Self {
        Self {
            image,
            ..Self::default()
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.image.len()
    }

    pub(crate) fn is_done(&self) -> bool {
        self.successes > 0
    }

    /// What must hold in the end.
    pub(crate) fn check(&self, was_interrupted: bool, world: &str) {
        assert_eq!(self.successes, 1, "told once\n{world}");
        assert!(self.stored == self.image, "whole and right\n{world}");
        assert!(self.wanted_from.is_sorted(), "{:?}", self.wanted_from);
        if !was_interrupted {
            assert_eq!(self.wanted_from, [0], "nothing was sent twice\n{world}");
            assert_eq!(self.interruptions, 0, "{world}");
        }
    }
}

/// One machine's owner: gives `giving` and takes `taking`.
pub(crate) fn serve(
    now: Instant,
    mut machine: Transfers<'_>,
    giving: &mut Carriage,
    taking: &mut Carriage,
) {
    while let Some(event) = machine.poll() {
        match event {
            TransferEvent::Offered { id, offer } => {
                assert_eq!(offer.length as usize, taking.image.len());
                let mut stored = TransferDigest::new();
                stored.update(&taking.stored);
                machine.accept(now, id, stored).expect("just offered");
            }
            TransferEvent::Part { offset, bytes, .. } => {
                assert_eq!(offset as usize, taking.stored.len(), "a gap, or doubled");
                taking.stored.extend(bytes);
            }
            TransferEvent::Complete { id } => machine.confirm(now, id).expect("just complete"),
            TransferEvent::Ended { reason, .. } => {
                assert_eq!(reason, EndReason::ConnectionLost);
                taking.interruptions += 1;
            }
            TransferEvent::Wanted { offset, .. } => {
                giving.wanted_from.push(offset as usize);
                giving.next = Some(offset as usize);
            }
            TransferEvent::Finished { result, .. } => {
                assert_eq!(result, Ok(()));
                giving.successes += 1;
                giving.next = None;
            }
            TransferEvent::Interrupted { .. } => (giving.offered, giving.next) = (None, None),
        }
    }
    if giving.offered.is_none() {
        let mut whole = TransferDigest::new();
        whole.update(&giving.image);
        let offer = Offer {
            name: "image".into(),
            length: whole.length(),
            hash: whole.hash(),
        };
        match machine.offer(now, &offer) {
            Ok(id) => giving.offered = Some(id),
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
    }
    while let (Some(id), Some(next)) = (giving.offered, giving.next)
        && let taken @ 1.. = machine
            .write(now, id, &giving.image[next..])
            .expect("it is wanted")
    {
        giving.next = Some(next + taken);
    }
}
