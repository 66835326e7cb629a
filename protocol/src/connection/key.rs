//! What two identities make of a connection: its tags, its first number, its name.

use crate::frame::crc32c;
use crate::wire::{Identity, Role};

/// What tells one connection's packets from another's: derived from both identities, different in each direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionKey {
    pub(crate) role: Role,
    pub(crate) tag_out: u8,
    pub(crate) tag_in: u8,
    pub(crate) first_seq: u16,
    pub(crate) session: u32,
}

impl ConnectionKey {
    pub(crate) fn new(role: Role, ours: Identity, theirs: Identity) -> Self {
        let (host, device) = match role {
            Role::Host => (ours, theirs),
            Role::Device => (theirs, ours),
        };
        let mut bytes = [0; 16];
        let fields = [host.boot_id, host.epoch, device.boot_id, device.epoch];
        for (chunk, field) in bytes.chunks_exact_mut(4).zip(fields) {
            chunk.copy_from_slice(&field.to_le_bytes());
        }
        let key = crc32c(&bytes);
        let from_host = (key >> 24) as u8;
        let (tag_out, tag_in) = match role {
            Role::Host => (from_host, !from_host),
            Role::Device => (!from_host, from_host),
        };
        Self {
            role,
            tag_out,
            tag_in,
            first_seq: key as u16,
            session: key,
        }
    }
}
