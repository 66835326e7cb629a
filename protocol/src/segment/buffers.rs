//! Memory that is used again: what held a message, a segment or a text, for the next one.
//!
//! It holds empty vectors and nothing of what was in them. In a steady state every message finds its memory here, so that
//! nothing is allocated, and a microcontroller's heap does not come apart.

use alloc::string::String;
use alloc::vec::Vec;

/// The most buffers kept: a full window of segments (64), and what is being put together beside it.
const BUFFERS_MAX: usize = 80;

/// Buffers to be used again. Invariants: all are empty, `bytes` is the sum of their capacities and at most `bytes_max`.
#[derive(Debug)]
pub struct Buffers {
    spare: Vec<Vec<u8>>,
    bytes: usize,
    bytes_max: usize,
}

impl Buffers {
    /// Keeps up to `bytes_max` bytes; what is given back beyond that is freed.
    #[must_use]
    pub const fn new(bytes_max: usize) -> Self {
        Self {
            spare: Vec::new(),
            bytes: 0,
            bytes_max,
        }
    }

    /// An empty buffer, with room for `capacity` bytes if one of those kept has it; the smallest such.
    pub fn take(&mut self, capacity: usize) -> Vec<u8> {
        let by_room = |at: &usize| self.spare[*at].capacity();
        let fits = |at: &usize| by_room(at) >= capacity;
        let all = 0..self.spare.len();
        match all.clone().filter(fits).min_by_key(by_room) {
            Some(at) => self.remove(at),
            None => self.take_roomiest(),
        }
    }

    /// The empty buffer with the most room.
    pub fn take_roomiest(&mut self) -> Vec<u8> {
        let by_room = |at: &usize| self.spare[*at].capacity();
        match (0..self.spare.len()).max_by_key(by_room) {
            Some(at) => self.remove(at),
            None => Vec::new(),
        }
    }

    fn remove(&mut self, at: usize) -> Vec<u8> {
        let buffer = self.spare.swap_remove(at);
        self.bytes -= buffer.capacity();
        buffer
    }

    /// A copy of `bytes`.
    pub fn copy(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut buffer = self.take(bytes.len());
        buffer.extend_from_slice(bytes);
        buffer
    }

    /// A copy of `bytes` that is to be kept for long: in a buffer of at most `capacity_max`, unless they are longer.
    pub(crate) fn copy_within(&mut self, bytes: &[u8], capacity_max: usize) -> Vec<u8> {
        let mut buffer = self.take(bytes.len());
        if buffer.capacity() > capacity_max.max(bytes.len()) {
            self.give(buffer);
            buffer = Vec::with_capacity(bytes.len());
        }
        buffer.extend_from_slice(bytes);
        buffer
    }

    /// Takes a buffer back.
    pub fn give(&mut self, mut buffer: Vec<u8>) {
        let fits = self.bytes + buffer.capacity() <= self.bytes_max;
        if fits && buffer.capacity() > 0 && self.spare.len() < BUFFERS_MAX {
            buffer.clear();
            self.bytes += buffer.capacity();
            self.spare.push(buffer);
        }
    }

    /// A copy of `text`.
    pub(crate) fn text(&mut self, text: &str) -> String {
        // An empty vector is valid UTF-8, so that nothing is read here.
        let mut copy = String::from_utf8(self.take(text.len())).unwrap_or_default();
        copy.push_str(text);
        copy
    }

    /// Takes a text back.
    pub(crate) fn give_text(&mut self, text: String) {
        self.give(text.into_bytes());
    }
}
