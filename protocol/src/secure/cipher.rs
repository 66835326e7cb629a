//! Sealing and opening messages: a key for each channel and direction, a counter that nobody sends, and a new key in time.

use alloc::vec::Vec;
use core::fmt;

use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce, Tag};

use crate::segment::Channel;

use super::{Forged, SecretKey};

/// The tag that sealing adds to a message.
pub(super) const TAG_BYTES: usize = 16;

/// After how many messages of a channel its key is replaced by its successor (Noise §11.3, REKEY), so that a device that is
/// opened gives away no more than these. Chosen small because it costs one block of ChaCha20.
const MESSAGES_PER_KEY: u64 = 1024;

/// The nonce of Noise's REKEY: 2^64 - 1. Those of the channels' first keys are the four below it.
const REKEY_NONCE: u64 = u64::MAX;

/// Noise's ENCRYPT(key, nonce, "", 32 zero bytes), cut to 32 bytes: a key out of a key (§4.2, REKEY).
pub(super) fn derive(key: &SecretKey, nonce: u64) -> SecretKey {
    let mut bytes = [0; 32];
    cipher(key)
        .encrypt_in_place_detached(&noise_nonce(nonce), &[], &mut bytes)
        .expect("32 bytes are not too many");
    SecretKey::new(bytes)
}

fn cipher(key: &SecretKey) -> ChaCha20Poly1305 {
    ChaCha20Poly1305::new(key.bytes().into())
}

/// Noise §12.3: 32 zero bits, then the counter, little endian.
fn noise_nonce(counter: u64) -> Nonce {
    let mut nonce = Nonce::default();
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

/// One channel in one direction. The counter is the number of the next message, the same at both ends, since a channel
/// loses nothing and keeps its order.
struct ChannelKey {
    key: SecretKey,
    next: u64,
}

impl ChannelKey {
    fn new(direction: &SecretKey, channel: Channel) -> Self {
        let nonce = REKEY_NONCE - 1 - channel as u64;
        Self {
            key: derive(direction, nonce),
            next: 0,
        }
    }

    fn advance(&mut self) {
        self.next += 1;
        if self.next.is_multiple_of(MESSAGES_PER_KEY) {
            self.key = derive(&self.key, REKEY_NONCE);
        }
    }
}

/// Both directions of a connection.
pub(crate) struct Ciphers {
    out: [ChannelKey; 4],
    back: [ChannelKey; 4],
}

impl Ciphers {
    pub(super) fn new(out: &SecretKey, back: &SecretKey) -> Self {
        Self {
            out: Channel::ALL.map(|channel| ChannelKey::new(out, channel)),
            back: Channel::ALL.map(|channel| ChannelKey::new(back, channel)),
        }
    }

    /// Encrypts the next message of `channel` in its place, and appends its tag.
    pub(crate) fn seal(&mut self, channel: Channel, message: &mut Vec<u8>) {
        let key = &mut self.out[channel as usize];
        let tag = cipher(&key.key)
            .encrypt_in_place_detached(&noise_nonce(key.next), &[], message)
            .expect("a message is far below 256 GiB");
        message.extend_from_slice(&tag);
        key.advance();
    }

    /// Decrypts the next message of `channel` in its place, and cuts its tag off.
    pub(crate) fn open(&mut self, channel: Channel, message: &mut Vec<u8>) -> Result<(), Forged> {
        let length = message.len().checked_sub(TAG_BYTES).ok_or(Forged)?;
        let key = &mut self.back[channel as usize];
        let (text, tag) = message.split_at_mut(length);
        cipher(&key.key)
            .decrypt_in_place_detached(&noise_nonce(key.next), &[], text, Tag::from_slice(tag))
            .map_err(|_| Forged)?;
        message.truncate(length);
        key.advance();
        Ok(())
    }
}

impl fmt::Debug for Ciphers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ciphers(..)")
    }
}
