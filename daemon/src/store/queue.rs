//! What reaches the owner thread, in what queues, and what happens when they are full.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::SystemTime,
};

use tokio::sync::oneshot;

use super::{
    batch::{Batch, Scan},
    commit::{Committed, Maintenance},
    error::StoreError,
    export::TransferReport,
    schema::{Key, Tree, Versioned},
};

/// Requests that may wait. Full means that callers wait: commands and outcomes are never dropped.
/// Chosen above the number of requests that the doors together admit at once.
pub(super) const QUEUE: usize = 256;

/// Telemetry batches that may wait. Full means that the oldest is dropped and counted: the newest value is worth more.
pub(super) const TELEMETRY_QUEUE: usize = 1_024;

pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;
pub(super) type Records = Vec<(Key, Versioned)>;

/// What reaches the owner thread.
#[derive(Debug)]
pub(super) enum Request {
    Commit {
        batch: Batch,
        reply: Reply<Committed>,
    },
    Read {
        tree: Tree,
        key: Key,
        reply: Reply<Option<Versioned>>,
    },
    Scan {
        scan: Scan,
        reply: Reply<Records>,
    },
    Maintain {
        now: SystemTime,
        reply: Reply<Maintenance>,
    },
    Export {
        now: SystemTime,
        reply: Reply<TransferReport>,
    },
    /// Telemetry waits, or the store is to stop: look.
    Nudge,
}

/// Counters since the store was opened.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) batches: AtomicU64,
    pub(super) groups: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) telemetry_dropped: AtomicU64,
}

/// What handles and owner share besides the queue.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) counters: Counters,
    pub(super) stop: AtomicBool,
    telemetry: Mutex<VecDeque<Batch>>,
}

impl Shared {
    /// Queues telemetry, dropping the oldest when full; returns whether the owner should be nudged.
    pub(super) fn post_telemetry(&self, batch: Batch) -> bool {
        let mut queue = self
            .telemetry
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if queue.len() == TELEMETRY_QUEUE {
            queue.pop_front();
            self.counters
                .telemetry_dropped
                .fetch_add(1, Ordering::Relaxed);
        }
        queue.push_back(batch);
        queue.len() == 1
    }

    pub(super) fn take_telemetry(&self) -> VecDeque<Batch> {
        std::mem::take(
            &mut *self
                .telemetry
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}
