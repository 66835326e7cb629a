//! Consistent Overhead Byte Stuffing (Cheshire and Baker, 1999), a block at a time.
//!
//! Our own, because the `cobs` crate goes byte by byte and took most of the time of a message (see the crate's bench); the
//! tests hold the two against each other.

use alloc::vec::Vec;

use memchr::{memchr, memchr_iter, memrchr};

/// The most bytes of a block: its code is one byte and says their number plus one, zero excluded.
const BLOCK_BYTES_MAX: usize = 254;

/// The code of a block of [`BLOCK_BYTES_MAX`] bytes, which no zero follows.
const FULL: u8 = 255;

/// The most bytes that `bytes` become.
pub(super) const fn encoded_bytes_max(bytes: usize) -> usize {
    bytes + bytes / BLOCK_BYTES_MAX + 1
}

/// What [`encode_windows`] leaves is at most as long.
pub(super) const WINDOW_BYTES: usize = BLOCK_BYTES_MAX;

/// Appends `bytes` to `out` without zeros.
pub(super) fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    let rest = encode_windows(bytes, out);
    match rest.len() == BLOCK_BYTES_MAX && memchr(0, rest).is_none() {
        // A whole block has no zero behind it, and no empty block follows it.
        true => put_full(rest, out),
        false => put_blocks(rest, out),
    }
}

/// Appends the blocks of `bytes`, but for the last [`WINDOW_BYTES`] or fewer; gives what is left.
///
/// A zero is replaced by its distance to the next, so that all up to the last zero of a window stays as it is and is
/// copied at once; a byte comes in between only where a window has no zero.
pub(super) fn encode_windows<'a>(mut bytes: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    while bytes.len() > WINDOW_BYTES {
        let window = &bytes[..WINDOW_BYTES];
        match memrchr(0, window) {
            Some(last) => {
                put_blocks(&window[..last], out);
                bytes = &bytes[last + 1..];
            }
            None => {
                put_full(window, out);
                bytes = &bytes[WINDOW_BYTES..];
            }
        }
    }
    bytes
}

fn put_full(block: &[u8], out: &mut Vec<u8>) {
    out.push(FULL);
    out.extend_from_slice(block);
}

/// Appends the blocks of fewer than 254 bytes that `bytes` and a zero behind them make, the zero itself left out.
fn put_blocks(bytes: &[u8], out: &mut Vec<u8>) {
    let from = out.len();
    out.push(0);
    out.extend_from_slice(bytes);
    let encoded = &mut out[from..];
    let mut code_at = 0;
    for zero in memchr_iter(0, bytes) {
        // At most 254 bytes are looked at.
        encoded[code_at] = (zero + 1 - code_at) as u8;
        code_at = zero + 1;
    }
    encoded[code_at] = (encoded.len() - code_at) as u8;
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
