//! Who the peers of this machine are and were: what a late packet of theirs is known by.

use alloc::collections::VecDeque;

use crate::wire::{Identity, Token};

/// How many identities of earlier peers are remembered; chosen because a line holds at most a few reboots' worth of bytes.
const RETIRED_MAX: usize = 8;

/// Invariant: `retired.len() <= RETIRED_MAX`, none twice.
#[derive(Debug, Default)]
pub(crate) struct KnownPeers {
    last: Option<Identity>,
    retired: VecDeque<Identity>,
    incompatible: Option<Token>,
}

impl KnownPeers {
    /// Whether `identity` belongs to the past: it was replaced, it said Close, or a later epoch of it was seen.
    pub(crate) fn is_stale(&self, identity: Identity) -> bool {
        let is_older = |last: Identity| {
            last.boot_id == identity.boot_id && identity.epoch.wrapping_sub(last.epoch) >= 1 << 31
        };
        self.retired.contains(&identity) || self.last.is_some_and(is_older)
    }

    /// `identity` is the peer now; another one before it is past.
    pub(crate) fn on_heard(&mut self, identity: Identity) {
        if let Some(last) = self.last.replace(identity)
            && last != identity
        {
            self.retire(last);
        }
    }

    /// `identity` will not come back.
    pub(crate) fn retire(&mut self, identity: Identity) {
        if self.retired.contains(&identity) {
            return;
        }
        if self.retired.len() == RETIRED_MAX {
            self.retired.pop_front();
        }
        self.retired.push_back(identity);
    }

    /// Notes a peer that we do not understand; true if it is news.
    pub(crate) fn on_incompatible(&mut self, peer: Token) -> bool {
        self.incompatible.replace(peer) != Some(peer)
    }
}
