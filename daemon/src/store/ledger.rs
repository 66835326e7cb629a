//! The command ledger: a command is executed at most once, across restarts and `kill -9`.
//!
//! ```text
//! (nothing) --begin--> Running --finish--> Done          a duplicate gets the stored outcome
//!                         |
//!                         +--restart--> Interrupted      it may or may not have reached the device
//! ```
//! `begin` is durable before it returns [`Begin::Fresh`], so whoever executes only what was fresh never executes twice. Entries are
//! kept until the command's expiry and a margin; a command older than that is refused as expired, so that forgetting is safe.
//! The ledger never executes anything and never decides whether an interrupted command may be tried again.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::in_progress::InProgress;
use super::{Batch, Committed, Expect, Key, Scan, StoreError, StoreHandle, Tree, Versioned, Write};

/// Format of [`Entry`].
const FORMAT: u8 = 1;

/// How long an entry outlives its command's expiry: more than a box's clock is expected to be off.
const EXPIRY_MARGIN: Duration = Duration::from_secs(15 * 60);

/// Farthest expiry taken, so that one peer cannot fill the ledger for years.
pub const LIFETIME_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Entries looked at in one step of a walk over the ledger.
const PAGE: usize = 512;

/// The stored form of one command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    digest: String,
    expires_unix_ms: u64,
    progress: Progress,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Progress {
    Running,
    Done(serde_json::Value),
    Interrupted,
}

/// What the ledger says to a command that is about to be executed.
#[derive(Debug, Clone, PartialEq)]
pub enum Begin {
    /// Nobody executed it before; it is now durably noted as running. Execute it, then [`Ledger::finish`].
    Fresh(Committed),
    /// It is being executed right now.
    Running,
    /// It was executed; this is what came of it.
    Done(serde_json::Value),
    /// The daemon stopped while executing it; whether the device did it is unknown.
    Interrupted,
    /// The id was used for another command.
    Conflict,
}

/// Why the ledger could not answer; the command must then not be executed.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The command's expiry has passed.
    #[error("the command has expired")]
    Expired,
    /// The command's expiry is farther away than [`LIFETIME_MAX`].
    #[error("the command's expiry is more than {} days away", LIFETIME_MAX.as_secs() / 86_400)]
    ExpiryTooFar,
    /// `finish` was called for a command that is not running.
    #[error("command {id} is not running")]
    NotRunning {
        /// The command's id.
        id: String,
    },
    /// [`Ledger::recover`] has not succeeded yet.
    #[error("the commands of the last run could not be looked through yet")]
    NotRecovered,
    /// The store refused or failed.
    #[error("the ledger cannot be written or read")]
    Store(#[from] StoreError),
}

/// The ledger over a store.
#[derive(Debug, Clone)]
pub struct Ledger {
    store: StoreHandle,
    /// Set once the commands of the last run are marked; before that, nothing is begun.
    is_recovered: Arc<AtomicBool>,
    in_progress: Arc<InProgress>,
    /// Set by a failure of the store, after which entries may say what is not so.
    is_unsettled: Arc<AtomicBool>,
}

impl Ledger {
    /// The ledger of a store; it refuses every command until [`Ledger::recover`] has succeeded.
    #[must_use]
    pub fn new(store: StoreHandle) -> Self {
        Self {
            store,
            is_recovered: Arc::default(),
            in_progress: Arc::default(),
            is_unsettled: Arc::default(),
        }
    }

    /// The ledger of a store that was just opened, recovered, and the ids that [`Ledger::recover`] returned.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub async fn open(store: StoreHandle) -> Result<(Self, Vec<String>), LedgerError> {
        let ledger = Self::new(store);
        let interrupted = ledger.recover().await?;
        Ok((ledger, interrupted))
    }

    /// Marks the commands that were running when the daemon stopped as interrupted, durably, and returns their ids. Only the first
    /// success does it: what runs later is our own.
    ///
    /// # Errors
    /// [`LedgerError::Store`]; to be tried again when the store is back.
    pub async fn recover(&self) -> Result<Vec<String>, LedgerError> {
        let mut interrupted = Vec::new();
        if self.is_recovered.load(Ordering::Acquire) {
            return Ok(interrupted);
        }
        self.rewrite_each(|key, entry| match entry.progress {
            Progress::Running => {
                interrupted.push(key.as_str().to_owned());
                let entry = Entry {
                    progress: Progress::Interrupted,
                    ..entry
                };
                Rewrite::Put(entry)
            }
            Progress::Done(_) | Progress::Interrupted => Rewrite::Keep,
        })
        .await?;
        self.is_recovered.store(true, Ordering::Release);
        Ok(interrupted)
    }

    /// Asks for leave to execute a command. `digest` identifies its content (who asks for what), so that an id that is used
    /// twice for different commands is noticed.
    ///
    /// # Errors
    /// [`LedgerError`]; the command must then not be executed.
    pub async fn begin(
        &self,
        id: &str,
        digest: &str,
        expiry: SystemTime,
        now: SystemTime,
    ) -> Result<Begin, LedgerError> {
        if !self.is_recovered.load(Ordering::Acquire) {
            return Err(LedgerError::NotRecovered);
        }
        check_expiry(expiry, now)?;
        let key = Key::new(id)?;
        if let Some(found) = self.entry(&key).await? {
            return Ok(judge(found, digest));
        }
        let entry = Entry {
            digest: digest.to_owned(),
            expires_unix_ms: unix_ms(expiry),
            progress: Progress::Running,
        };
        let batch = Batch::new(vec![Write::put(
            Tree::Ledger,
            key.clone(),
            Versioned::encode(FORMAT, &entry)?,
        )])?
        .expecting(Expect::absent(Tree::Ledger, key.clone()));
        if !self.in_progress.begin(id) {
            return Ok(Begin::Running);
        }
        let committed = self.store.commit(batch).await;
        if committed.is_err() {
            self.in_progress.end(id);
        }
        match committed {
            Ok(committed) => Ok(Begin::Fresh(committed)),
            // Somebody else began the same id between the look and the commit.
            Err(StoreError::Conflict { .. }) => Ok(self
                .entry(&key)
                .await?
                .map_or(Begin::Running, |found| judge(found, digest))),
            // It may be found in the store later all the same.
            Err(error) => {
                self.is_unsettled.store(true, Ordering::Release);
                Err(error.into())
            }
        }
    }

    /// What the ledger says to a command that cannot be begun: `None` when it does not know it either.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn recall(&self, id: &str, digest: &str) -> Result<Option<Begin>, LedgerError> {
        let found = self.entry(&Key::new(id)?).await?;
        Ok(found.map(|found| judge(found, digest)))
    }

    /// Notes what came of a command that was begun; from then on a duplicate gets this outcome. With the entry's own fields it must
    /// fit a value of the store (6 KiB), so callers keep it to a state, a short message and the device's answer.
    ///
    /// # Errors
    /// [`LedgerError::NotRunning`] unless the command is running; [`LedgerError::Store`]: the outcome is not noted. It is kept until
    /// [`Ledger::settle`] can note it; after a restart before that the command counts as interrupted.
    pub async fn finish(
        &self,
        id: &str,
        outcome: serde_json::Value,
    ) -> Result<Committed, LedgerError> {
        let finished = self.note_outcome(id, outcome.clone()).await;
        if let Err(LedgerError::Store(StoreError::Unavailable { .. })) = &finished {
            self.in_progress.keep(id, outcome);
            self.is_unsettled.store(true, Ordering::Release);
        } else {
            self.in_progress.end(id);
        }
        finished
    }

    /// Puts right what a failure of the store left, once the store is back: outcomes that it could not take are noted, and commands
    /// that only seem to run, because their beginning was found in the store after all, count as interrupted. Does nothing
    /// when the store has not failed.
    ///
    /// # Errors
    /// [`LedgerError::Store`]; to be tried again when the store is back.
    pub async fn settle(&self) -> Result<(), LedgerError> {
        if !self.is_recovered.load(Ordering::Acquire)
            || !self.is_unsettled.swap(false, Ordering::AcqRel)
        {
            return Ok(());
        }
        let settled = self.settle_each().await;
        if settled.is_err() {
            self.is_unsettled.store(true, Ordering::Release);
        }
        settled
    }

    async fn settle_each(&self) -> Result<(), LedgerError> {
        for (id, outcome) in self.in_progress.outcomes() {
            match self.note_outcome(&id, outcome).await {
                // What the store has of it then is older than the failure, or was the outcome after all.
                Ok(_) | Err(LedgerError::NotRunning { .. }) => self.in_progress.end(&id),
                Err(error) => return Err(error),
            }
        }
        let mut scan = Scan::first(Tree::Ledger, "", PAGE);
        loop {
            let page = self.store.scan(scan.clone()).await?;
            let Some((last, _)) = page.last() else {
                return Ok(());
            };
            scan = scan.after(last.clone());
            for (key, value) in page {
                let Ok(entry) = decode(&value) else { continue };
                if entry.progress != Progress::Running || self.in_progress.contains(key.as_str()) {
                    continue;
                }
                let entry = Entry {
                    progress: Progress::Interrupted,
                    ..entry
                };
                let write = Write::put(
                    Tree::Ledger,
                    key.clone(),
                    Versioned::encode(FORMAT, &entry)?,
                );
                // One that has finished since it was looked at is left alone.
                let batch =
                    Batch::new(vec![write])?.expecting(Expect::unchanged(Tree::Ledger, key, value));
                match self.store.commit(batch).await {
                    Ok(_) | Err(StoreError::Conflict { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }

    async fn note_outcome(
        &self,
        id: &str,
        outcome: serde_json::Value,
    ) -> Result<Committed, LedgerError> {
        let key = Key::new(id)?;
        let not_running = || LedgerError::NotRunning { id: id.to_owned() };
        let before = self
            .store
            .read(Tree::Ledger, key.clone())
            .await?
            .ok_or_else(not_running)?;
        let entry = decode(&before)?;
        if entry.progress != Progress::Running {
            return Err(not_running());
        }
        let entry = Entry {
            progress: Progress::Done(outcome),
            ..entry
        };
        let batch = Batch::new(vec![Write::put(
            Tree::Ledger,
            key.clone(),
            Versioned::encode(FORMAT, &entry)?,
        )])?
        .expecting(Expect::unchanged(Tree::Ledger, key, before));
        match self.store.commit(batch).await {
            Err(StoreError::Conflict { .. }) => Err(not_running()),
            result => Ok(result?),
        }
    }

    /// Forgets commands whose expiry and margin have passed; returns how many.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub async fn prune(&self, now: SystemTime) -> Result<usize, LedgerError> {
        self.rewrite_each(|_, entry| match is_forgettable(&entry, now) {
            true => Rewrite::Remove,
            false => Rewrite::Keep,
        })
        .await
    }

    async fn entry(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let found = self.store.read(Tree::Ledger, key.clone()).await?;
        found.as_ref().map(decode).transpose()
    }

    /// Walks the ledger page by page, one commit a page; returns how many entries were changed.
    async fn rewrite_each(
        &self,
        mut decide: impl FnMut(&Key, Entry) -> Rewrite,
    ) -> Result<usize, LedgerError> {
        let mut changed = 0;
        let mut scan = Scan::first(Tree::Ledger, "", PAGE);
        loop {
            let page = self.store.scan(scan.clone()).await?;
            let Some((last, _)) = page.last() else {
                return Ok(changed);
            };
            scan = scan.after(last.clone());
            let mut writes = Vec::new();
            for (key, value) in page {
                // An entry that cannot be read stays as it is: `begin` refuses its id, which is the safe side.
                let Ok(entry) = decode(&value) else { continue };
                match decide(&key, entry) {
                    Rewrite::Keep => {}
                    Rewrite::Remove => writes.push(Write::remove(Tree::Ledger, key)),
                    Rewrite::Put(entry) => {
                        writes.push(Write::put(
                            Tree::Ledger,
                            key,
                            Versioned::encode(FORMAT, &entry)?,
                        ));
                    }
                }
            }
            if !writes.is_empty() {
                changed += writes.len();
                let _: Committed = self.store.commit(Batch::new(writes)?).await?;
            }
        }
    }
}

enum Rewrite {
    Keep,
    Remove,
    Put(Entry),
}

/// What an entry that is there says to a command with this digest.
fn judge(found: Entry, digest: &str) -> Begin {
    if found.digest != digest {
        return Begin::Conflict;
    }
    match found.progress {
        Progress::Running => Begin::Running,
        Progress::Done(outcome) => Begin::Done(outcome),
        Progress::Interrupted => Begin::Interrupted,
    }
}

fn check_expiry(expiry: SystemTime, now: SystemTime) -> Result<(), LedgerError> {
    match expiry.duration_since(now) {
        Err(_) => Err(LedgerError::Expired),
        Ok(left) if left.is_zero() => Err(LedgerError::Expired),
        Ok(left) if left > LIFETIME_MAX => Err(LedgerError::ExpiryTooFar),
        Ok(_) => Ok(()),
    }
}

/// A running command is never forgotten, however late: forgetting it would let a duplicate run beside it.
fn is_forgettable(entry: &Entry, now: SystemTime) -> bool {
    let kept_until = entry
        .expires_unix_ms
        .saturating_add(EXPIRY_MARGIN.as_millis() as u64);
    entry.progress != Progress::Running && kept_until < unix_ms(now)
}

fn decode(value: &Versioned) -> Result<Entry, StoreError> {
    match value.format() {
        FORMAT => value.decode(),
        format => Err(StoreError::UnknownFormat {
            tree: Tree::Ledger,
            format,
        }),
    }
}

/// Milliseconds since 1970; a time before that is 0.
fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
