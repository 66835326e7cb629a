//! The store: what must survive a restart, `kill -9` and a pulled plug.
//!
//! One thread owns the database ([`commit`]); everybody else holds a [`StoreHandle`] and sends it [`Batch`]es. A batch becomes
//! durable as a whole, and [`StoreHandle::commit`] is the only way to learn that it did: it returns a [`Committed`],
//! which nobody else can make. No other module knows sled; nothing outside `store/` sees its types or its files.
//!
//! ```text
//! caller --commit(batch)--> queue(256, waits) --+
//! caller --post(batch)----> queue(1024, drops)  +--> owner: apply all -> flush -> sync files -> Committed to each
//! caller --read/scan------> queue(256, waits) --+          then answer reads
//! ```
//!
//! Reading order: [`schema`] (what is stored), [`batch`] (what is asked), [`queue`] (how it waits), [`commit`] (the owner), [`disk`] and [`engine`] (sled), [`durable`] (the
//! syncs), [`recovery`] (opening whatever is found), [`export`] (JSON lines), [`ledger`] (commands executed at most once), [`outbox`] (what must
//! reach the broker), [`verdicts`] (what is known of execution providers).

mod batch;
mod commit;
mod disk;
mod durable;
mod engine;
mod error;
mod export;
mod in_progress;
pub mod ledger;
pub mod outbox;
mod queue;
mod recovery;
mod schema;
pub mod verdicts;

use std::{
    io,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    thread,
    time::SystemTime,
};

use tokio::sync::{mpsc, oneshot, watch};

pub use self::{
    batch::{BATCH_WRITES_MAX, Batch, Expect, SCAN_LIMIT_MAX, Scan, Write},
    commit::{Committed, Maintenance},
    error::{DiskError, StoreError},
    export::{ExportPolicy, TransferReport, export_due},
    recovery::Origin,
    schema::{KEY_BYTES_MAX, Key, Quota, RESERVED_TREES, Tree, VALUE_BYTES_MAX, Versioned},
};
use self::{
    commit::Owner,
    queue::{QUEUE, Reply, Request, Shared},
};

/// Where the store lies and how often it is exported.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The state directory; the store takes the names `store*` and `export*` in it.
    pub state_directory: PathBuf,
    /// When an export is due.
    pub export: ExportPolicy,
}

/// Whether the store can be used, and how it came to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreHealth {
    /// It commits.
    Ready {
        /// Where it came from; [`Origin::Rebuilt`] is to be shown to an operator.
        origin: Origin,
    },
    /// It does not; commands are refused, devices are still served, and [`StoreHandle::maintain`] tries again.
    Unavailable {
        /// Why, in one line.
        cause: String,
    },
}

/// Counters since the store was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Batches that became durable.
    pub batches: u64,
    /// Group commits that carried them.
    pub groups: u64,
    /// `fsync` and `fdatasync` calls made for them, opening not counted.
    pub syncs: u64,
    /// Telemetry batches dropped, by a full queue or a full tree.
    pub telemetry_dropped: u64,
}

/// Why there is no store to talk to at all; everything else is a [`StoreHealth`].
#[derive(Debug, thiserror::Error)]
pub enum StoreOpenError {
    /// Another process holds the state directory.
    #[error("state directory {} is in use by another daemon{}", directory.display(),
        process.map(|id| format!(" (process {id})")).unwrap_or_default())]
    InUse {
        /// The directory.
        directory: PathBuf,
        /// The other process, where it could be read.
        process: Option<u32>,
    },
    /// The lock file cannot be made.
    #[error("cannot lock {}", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The owner thread cannot be started.
    #[error("cannot start the store's thread")]
    Thread {
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The running store; stops it when dropped. Hand out [`StoreHandle`]s with [`Store::handle`].
#[derive(Debug)]
pub struct Store {
    handle: StoreHandle,
    owner: Option<thread::JoinHandle<()>>,
}

/// A cheap way to the store for everybody who writes or reads records.
///
/// All methods are cancel-safe in this sense: a request that was sent is carried out whether or not its answer is awaited.
#[derive(Debug, Clone)]
pub struct StoreHandle {
    queue: mpsc::Sender<Request>,
    shared: Arc<Shared>,
    health: watch::Receiver<StoreHealth>,
}

impl Store {
    /// Locks the state directory, opens or rebuilds the store and starts its thread.
    ///
    /// Blocks for as long as reading the whole store takes (about a second per 300,000 records): call it before the
    /// runtime has work, or from `spawn_blocking`. A store that is damaged, full or out of reach is no error here; see [`StoreHandle::health`].
    ///
    /// # Errors
    /// [`StoreOpenError::InUse`] when another daemon runs on the directory; the others when the system refuses a file or a thread.
    pub fn open(config: StoreConfig, now: SystemTime) -> Result<Self, StoreOpenError> {
        let lock = recovery::lock(&config.state_directory)?;
        let (queue, requests) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared::default());
        let (health_sender, health) = watch::channel(StoreHealth::Unavailable {
            cause: "opening".to_owned(),
        });
        let owner = Owner::open(
            config.state_directory,
            config.export,
            now,
            lock,
            requests,
            shared.clone(),
            health_sender,
        );
        let owner = thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || owner.run())
            .map_err(|source| StoreOpenError::Thread { source })?;
        Ok(Self {
            handle: StoreHandle {
                queue,
                shared,
                health,
            },
            owner: Some(owner),
        })
    }

    /// A handle to hand out.
    pub fn handle(&self) -> StoreHandle {
        self.handle.clone()
    }

    /// Carries out what waits, makes it durable, closes the database and releases the directory. Blocks until that is done;
    /// handles that are still held then get [`StoreError::Closed`].
    pub fn shutdown(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        let Some(owner) = self.owner.take() else {
            return;
        };
        self.handle.shared.stop.store(true, Ordering::Release);
        // A full queue needs no nudge: the owner looks at the flag after each turn.
        let _ = self.handle.queue.try_send(Request::Nudge);
        if owner.join().is_err() {
            tracing::error!("the store's thread panicked");
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.stop();
    }
}

impl StoreHandle {
    /// Makes a batch durable. Waits while the queue is full and until the commit is done.
    ///
    /// # Errors
    /// See [`StoreError`]; none of them acknowledges anything.
    pub async fn commit(&self, batch: Batch) -> Result<Committed, StoreError> {
        self.ask(|reply| Request::Commit { batch, reply }).await
    }

    /// Hands over telemetry: written with the next commit, dropped and counted when too much of it waits. Never waits.
    pub fn post(&self, batch: Batch) {
        if self.shared.post_telemetry(batch) {
            // A full queue needs no nudge: the owner takes telemetry on each turn.
            let _ = self.queue.try_send(Request::Nudge);
        }
    }

    /// Reads one record.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Closed`].
    pub async fn read(&self, tree: Tree, key: Key) -> Result<Option<Versioned>, StoreError> {
        self.ask(|reply| Request::Read { tree, key, reply }).await
    }

    /// Reads a bounded range of records.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Closed`].
    pub async fn scan(&self, scan: Scan) -> Result<Vec<(Key, Versioned)>, StoreError> {
        self.ask(|reply| Request::Scan { scan, reply }).await
    }

    /// Does what is due at `now`: brings back a store that could not be used, and exports. To be called every minute or so.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when an export that was due could not be written, or [`StoreError::Closed`].
    pub async fn maintain(&self, now: SystemTime) -> Result<Maintenance, StoreError> {
        self.ask(|reply| Request::Maintain { now, reply }).await
    }

    /// Writes `export.jsonl` in the state directory now.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the file cannot be written, or [`StoreError::Closed`].
    pub async fn export(&self, now: SystemTime) -> Result<TransferReport, StoreError> {
        self.ask(|reply| Request::Export { now, reply }).await
    }

    /// The store's present health.
    pub fn health(&self) -> StoreHealth {
        self.health.borrow().clone()
    }

    /// A receiver that sees each change of health.
    pub fn watch_health(&self) -> watch::Receiver<StoreHealth> {
        self.health.clone()
    }

    /// Counters, for metrics.
    pub fn stats(&self) -> StoreStats {
        let counters = &self.shared.counters;
        StoreStats {
            batches: counters.batches.load(Ordering::Relaxed),
            groups: counters.groups.load(Ordering::Relaxed),
            syncs: counters.syncs.load(Ordering::Relaxed),
            telemetry_dropped: counters.telemetry_dropped.load(Ordering::Relaxed),
        }
    }

    /// [`read`](Self::read) for a thread that may block.
    ///
    /// # Errors
    /// As there.
    fn read_blocking(&self, tree: Tree, key: Key) -> Result<Option<Versioned>, StoreError> {
        self.ask_blocking(|reply| Request::Read { tree, key, reply })
    }

    /// [`scan`](Self::scan) for a thread that may block.
    ///
    /// # Errors
    /// As there.
    fn scan_blocking(&self, scan: Scan) -> Result<Vec<(Key, Versioned)>, StoreError> {
        self.ask_blocking(|reply| Request::Scan { scan, reply })
    }

    /// [`commit`](Self::commit) for a thread that may block.
    ///
    /// # Errors
    /// As there.
    fn commit_blocking(&self, batch: Batch) -> Result<Committed, StoreError> {
        self.ask_blocking(|reply| Request::Commit { batch, reply })
    }

    fn ask_blocking<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.queue
            .blocking_send(request(reply))
            .map_err(|_| StoreError::Closed)?;
        answer.blocking_recv().map_err(|_| StoreError::Closed)?
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.queue
            .send(request(reply))
            .await
            .map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

#[cfg(test)]
pub(crate) mod tests;
