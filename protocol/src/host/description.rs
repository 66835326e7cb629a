//! A description fetched part by part.

use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use super::RequestFailure;

/// What a Description message says.
#[derive(Debug)]
pub(super) struct Part<'a> {
    pub(super) hash: [u8; 32],
    pub(super) length: u32,
    pub(super) offset: u32,
    pub(super) bytes: &'a [u8],
}

#[derive(Debug)]
pub(super) enum Fetched {
    /// More is to be asked for.
    Part { next_offset: u32 },
    /// All of it, and the hash is right.
    Whole(Vec<u8>),
}

/// Invariant: `document.len() <= bytes_max`; it grows by parts received, never by an announced length.
#[derive(Debug)]
pub(super) struct DescriptionFetch {
    document: Vec<u8>,
    hash: Option<[u8; 32]>,
    bytes_max: usize,
}

impl DescriptionFetch {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            document: Vec::new(),
            hash: None,
            bytes_max,
        }
    }

    /// Takes the next part. Fails on one that is too long, out of place, empty before the end, or of another
    /// document, and on a whole that does not match its hash.
    pub(super) fn on_part(&mut self, part: &Part<'_>) -> Result<Fetched, RequestFailure> {
        let (length, limit) = (part.length as usize, self.bytes_max);
        if length > limit {
            return Err(RequestFailure::DescriptionTooLarge {
                length: part.length,
                limit,
            });
        }
        let rest = length.saturating_sub(self.document.len());
        let is_in_place = part.offset as usize == self.document.len() && part.bytes.len() <= rest;
        let is_progress = !part.bytes.is_empty() || rest == 0;
        if !is_in_place || !is_progress || *self.hash.get_or_insert(part.hash) != part.hash {
            return Err(RequestFailure::BadReply);
        }
        self.document.extend_from_slice(part.bytes);
        if self.document.len() < length {
            return Ok(Fetched::Part {
                next_offset: self.document.len() as u32,
            });
        }
        let is_genuine = <[u8; 32]>::from(Sha256::digest(&self.document)) == part.hash;
        match is_genuine {
            true => Ok(Fetched::Whole(core::mem::take(&mut self.document))),
            false => Err(RequestFailure::BadReply),
        }
    }
}
