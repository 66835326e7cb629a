//! Answers that need no memory, because asking again is harmless: refusals, Unobserve, parts of the description. They wait
//! for room in the send queue.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use crate::RequestId;
use crate::message::{Fault, FaultCode, Message, Value};
use crate::segment::Buffers;

use super::memory::encode_result;

/// What a Description needs besides its part of the document: at most 66 bytes of CBOR around it.
const DESCRIPTION_OVERHEAD_BYTES: usize = 72;

/// Invariant: neither queue is longer than `waiting_max`.
#[derive(Debug)]
pub(super) struct Answers {
    document: Vec<u8>,
    document_hash: [u8; 32],
    waiting_max: usize,
    results: VecDeque<(RequestId, Vec<u8>)>,
    /// Where the parts begin that were asked for and not sent yet.
    parts: BTreeMap<RequestId, u32>,
}

impl Answers {
    pub(super) fn new(document: &[u8], waiting_max: usize) -> Self {
        Self {
            document: document.to_vec(),
            document_hash: Sha256::digest(document).into(),
            waiting_max,
            results: VecDeque::new(),
            parts: BTreeMap::new(),
        }
    }

    pub(super) fn announcement(&self) -> Message<'static> {
        Message::Announce {
            hash: self.document_hash.into(),
            length: self.document.len() as u32,
        }
    }

    /// Beyond the bound an answer is given up: the host's deadline will tell it.
    pub(super) fn answer(
        &mut self,
        id: RequestId,
        result: &Result<Value, Fault>,
        buffers: &mut Buffers,
    ) {
        if self.results.len() < self.waiting_max {
            self.results
                .push_back((id, encode_result(id, result, buffers)));
        }
    }

    pub(super) fn refuse(&mut self, id: RequestId, code: FaultCode, buffers: &mut Buffers) {
        self.answer(id, &Err(Fault::new(code, "")), buffers);
    }

    pub(super) fn on_describe(&mut self, id: RequestId, offset: u32, buffers: &mut Buffers) {
        if offset as usize > self.document.len() {
            return self.refuse(id, FaultCode::OutOfRange, buffers);
        }
        if self.parts.len() >= self.waiting_max && !self.parts.contains_key(&id) {
            return self.refuse(id, FaultCode::Busy, buffers);
        }
        self.parts.insert(id, offset);
    }

    pub(super) fn on_lost(&mut self) {
        self.results.clear();
        self.parts.clear();
    }

    /// The result that waits longest, for sending or for [`Answers::put_back`].
    pub(super) fn take_result(&mut self) -> Option<(RequestId, Vec<u8>)> {
        self.results.pop_front()
    }

    /// There was no room for it.
    pub(super) fn put_back(&mut self, id: RequestId, result: Vec<u8>) {
        self.results.push_front((id, result));
    }

    /// The next part of the description that was asked for, as long as messages may be; [`Answers::on_part_sent`] says that it was sent.
    pub(super) fn next_part(&self, message_max: usize) -> Option<(RequestId, Message<'static>)> {
        let (&id, &offset) = self.parts.first_key_value()?;
        let rest = &self.document[offset as usize..];
        let part_max = message_max.saturating_sub(DESCRIPTION_OVERHEAD_BYTES);
        let part = Message::Description {
            id: id.0,
            hash: self.document_hash.into(),
            length: self.document.len() as u32,
            offset,
            bytes: rest[..rest.len().min(part_max)].to_vec().into(),
        };
        Some((id, part))
    }

    /// The part asked for under `id` was taken for sending.
    pub(super) fn on_part_sent(&mut self, id: RequestId) {
        self.parts.remove(&id);
    }
}
