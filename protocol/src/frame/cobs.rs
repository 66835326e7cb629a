//! Consistent Overhead Byte Stuffing (Cheshire and Baker, 1999), a block at a time.
//!
//! Our own, because the `cobs` crate goes byte by byte and took most of the time of a message (see the crate's bench); the
//! tests hold the two against each other.

use alloc::vec::Vec;

use memchr::memchr;

/// The most bytes of a block: its code is one byte and says their number plus one, zero excluded.
const BLOCK_BYTES_MAX: usize = 254;

/// The most bytes that `bytes` become.
pub(super) const fn encoded_bytes_max(bytes: usize) -> usize {
    bytes + bytes / BLOCK_BYTES_MAX + 1
}

/// Appends to `out` what it is given, without zeros.
///
/// Invariant: the open block begins behind `code_at` and holds fewer than [`BLOCK_BYTES_MAX`] bytes, unless `is_full`.
pub(super) struct Encoder<'a> {
    out: &'a mut Vec<u8>,
    code_at: usize,
    /// The block is closed; another begins only if more comes.
    is_full: bool,
}

impl<'a> Encoder<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        let code_at = out.len();
        out.push(0);
        Self {
            out,
            code_at,
            is_full: false,
        }
    }

    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if core::mem::take(&mut self.is_full) {
                self.begin_block();
            }
            let room = BLOCK_BYTES_MAX - (self.out.len() - self.code_at - 1);
            let near = &bytes[..room.min(bytes.len())];
            match memchr(0, near) {
                Some(at) => {
                    self.out.extend_from_slice(&near[..at]);
                    self.close_block();
                    self.begin_block();
                    bytes = &bytes[at + 1..];
                }
                None => {
                    self.out.extend_from_slice(near);
                    bytes = &bytes[near.len()..];
                    if near.len() == room {
                        self.close_block();
                        self.is_full = true;
                    }
                }
            }
        }
    }

    pub(super) fn finish(mut self) {
        if !self.is_full {
            self.close_block();
        }
    }

    fn begin_block(&mut self) {
        self.code_at = self.out.len();
        self.out.push(0);
    }

    fn close_block(&mut self) {
        // A block has at most 254 bytes.
        self.out[self.code_at] = (self.out.len() - self.code_at) as u8;
    }
}

/// Bytes that no encoder makes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotCobs;

/// Decodes `bytes`, which hold no zero, in their place.
pub(super) fn decode(bytes: &mut Vec<u8>) -> Result<(), NotCobs> {
    let (mut from, mut to) = (0, 0);
    while let Some(&code) = bytes.get(from) {
        let block = from + 1..from + usize::from(code);
        if code == 0 || block.end > bytes.len() {
            return Err(NotCobs);
        }
        from = block.end;
        let length = block.len();
        bytes.copy_within(block, to);
        to += length;
        if length < BLOCK_BYTES_MAX && from < bytes.len() {
            bytes[to] = 0;
            to += 1;
        }
    }
    bytes.truncate(to);
    Ok(())
}
