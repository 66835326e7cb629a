//! Consistent Overhead Byte Stuffing (Cheshire and Baker, 1999), a block at a time.
//!
//! Our own, because the `cobs` crate goes byte by byte and took most of the time of a message (see the crate's bench); the
//! tests hold the two against each other.

use alloc::vec::Vec;

use memchr::{memchr, memrchr};

/// The most bytes of a block: its code is one byte and says their number plus one, zero excluded.
const BLOCK_BYTES_MAX: usize = 254;

/// The code of a block of [`BLOCK_BYTES_MAX`] bytes, which no zero follows.
const FULL: u8 = 255;

/// The most bytes that `bytes` become.
pub(super) const fn encoded_bytes_max(bytes: usize) -> usize {
    bytes + bytes / BLOCK_BYTES_MAX + 1
}

/// The most bytes that may follow what is encoded.
const TAIL_BYTES_MAX: usize = 8;

/// Appends `bytes` and then `tail`, of at most eight bytes, to `out` without zeros.
///
/// A zero is replaced by its distance to the next, so that all up to the last zero of a window stays as it is and is
/// copied at once; a byte comes in between only where a window has no zero.
pub(super) fn encode(bytes: &[u8], tail: &[u8], out: &mut Vec<u8>) {
    let rest = put_windows(bytes, out);
    if rest.len() + tail.len() < BLOCK_BYTES_MAX {
        return put_blocks(rest, tail, out);
    }
    let mut last = [0; BLOCK_BYTES_MAX + TAIL_BYTES_MAX];
    let end = rest.len() + tail.len();
    last[..rest.len()].copy_from_slice(rest);
    last[rest.len()..end].copy_from_slice(tail);
    let rest = put_windows(&last[..end], out);
    match rest.len() == BLOCK_BYTES_MAX && memchr(0, rest).is_none() {
        // A whole block has no zero behind it, and no empty block follows it.
        true => put_full(rest, out),
        false => put_blocks(rest, &[], out),
    }
}

/// Appends the blocks of `bytes` as far as more than a block's bytes are left; gives what is left.
fn put_windows<'a>(mut bytes: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    while bytes.len() > BLOCK_BYTES_MAX {
        let window = &bytes[..BLOCK_BYTES_MAX];
        match memrchr(0, window) {
            Some(last) => {
                put_blocks(&window[..last], &[], out);
                bytes = &bytes[last + 1..];
            }
            None => {
                put_full(window, out);
                bytes = &bytes[BLOCK_BYTES_MAX..];
            }
        }
    }
    bytes
}

fn put_full(block: &[u8], out: &mut Vec<u8>) {
    out.push(FULL);
    out.extend_from_slice(block);
}

/// Appends the blocks of fewer than 254 bytes that `bytes`, `tail` and a zero behind them make, the zero itself left out.
fn put_blocks(bytes: &[u8], tail: &[u8], out: &mut Vec<u8>) {
    let from = out.len();
    out.push(0);
    out.extend_from_slice(bytes);
    out.extend_from_slice(tail);
    set_codes(&mut out[from..]);
}

/// Writes the codes into blocks whose zeros, and first byte, stand where they are to be.
fn set_codes(blocks: &mut [u8]) {
    let mut code_at = 0;
    while let Some(length) = memchr(0, &blocks[code_at + 1..]) {
        // At most 254 bytes are looked at.
        blocks[code_at] = (length + 1) as u8;
        code_at += length + 1;
    }
    blocks[code_at] = (blocks.len() - code_at) as u8;
}

/// Bytes that no encoder makes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotCobs;

/// Decodes `bytes`, which hold no zero, in their place.
pub(super) fn decode(bytes: &mut Vec<u8>) -> Result<(), NotCobs> {
    // What is decoded from `run` on stands in its place but for the codes that were left out before.
    let (mut run, mut to) = (1, 0);
    let mut from = 0;
    let Some(&(mut code)) = bytes.first() else {
        return Ok(());
    };
    loop {
        let next = from + usize::from(code);
        if code == 0 || next > bytes.len() {
            return Err(NotCobs);
        }
        let Some(&following) = bytes.get(next) else {
            bytes.copy_within(run.., to);
            bytes.truncate(to + next - run);
            return Ok(());
        };
        match code {
            FULL => {
                bytes.copy_within(run..next, to);
                to += next - run;
                run = next + 1;
            }
            _ => bytes[next] = 0,
        }
        (from, code) = (next, following);
    }
}
