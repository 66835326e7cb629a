//! Conversations' caches on disk, so that a restart or a `kill -9` does not cost the reading of them anew.
//!
//! [`Shelf`] is what the model's thread holds: it looks beginnings up and reads them, and offers new ones, which the `keeper` thread
//! writes. Files lie in one directory, the [`index`] of them in the store, where each record holds its file's length and
//! SHA-256: a file without a record, or that is not what its record says, is a miss and is deleted, never an answer. A file
//! is whole before its record is durable: written under another name, synced, renamed, synced again.
//!
//! | channel | from, to | capacity | when full |
//! | --- | --- | --- | --- |
//! | offers | model thread -> keeper | [`OFFERS`] | dropped: the conversation is read anew after a restart |

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::Duration,
};

use sha2::{Digest, Sha256};

use self::index::{Index, PrefixId, Segment};
use crate::store::StoreHandle;

pub(super) mod index;
mod keeper;

/// Segments that may wait for the disk. Each is held in memory meanwhile: some 46 kB a token.
const OFFERS: usize = 8;

/// How long a model waits for the index: some thousand records take milliseconds, and a store that is being rebuilt is not worth
/// waiting for.
const LOAD_PATIENCE: Duration = Duration::from_secs(2);

/// Shorter beginnings are computed faster than they are worth a file.
pub(super) const SEGMENT_TOKENS_MIN: usize = 32;

/// Where conversations' caches are kept.
#[derive(Debug, Clone)]
pub struct SnapshotConfig {
    /// A directory for them alone; made if it is not there. Files of other names in it are left alone.
    pub directory: PathBuf,
    /// Most bytes of all files together.
    pub bytes_max: u64,
    /// Where the index is.
    pub store: StoreHandle,
}

/// What the model's thread knows of the snapshots. Dropping it ends the keeper, after what was offered is written.
pub(super) struct Shelf {
    directory: PathBuf,
    fingerprint: String,
    index: Arc<Mutex<Index>>,
    work: Option<mpsc::SyncSender<Work>>,
    keeper: Option<thread::JoinHandle<()>>,
}

/// What the keeper is asked.
enum Work {
    Write {
        id: PrefixId,
        parent: PrefixId,
        from: usize,
        to: usize,
        bytes: Vec<u8>,
    },
    /// It was not what its record says.
    Forget(PrefixId),
}

impl Shelf {
    /// Starts the keeper and waits for it to read the index, a while at most. `fingerprint` must differ whenever a cache
    /// computed by one model cannot serve another.
    pub(super) fn open(config: SnapshotConfig, fingerprint: String) -> std::io::Result<Self> {
        fs::create_dir_all(&config.directory)?;
        let index = Arc::new(Mutex::new(Index::default()));
        let (work, tasks) = mpsc::sync_channel(OFFERS);
        let directory = config.directory.clone();
        let kept = Arc::clone(&index);
        let (loaded, is_loaded) = mpsc::sync_channel(1);
        let keeper = thread::Builder::new()
            .name("chat-snapshots".to_owned())
            .spawn(move || keeper::run(&config, &kept, &loaded, &tasks))?;
        if is_loaded.recv_timeout(LOAD_PATIENCE).is_err() {
            tracing::warn!(
                "the index of conversations' caches is late; they are found when it is there"
            );
        }
        Ok(Self {
            directory,
            fingerprint,
            index,
            work: Some(work),
            keeper: Some(keeper),
        })
    }

    /// The files that hold the longest beginning of `tokens`.
    pub(super) fn chain(&self, tokens: &[u32]) -> Vec<(PrefixId, Segment)> {
        lock(&self.index).chain(&self.fingerprint, tokens)
    }

    /// Reads one segment. `None`, and it is forgotten, when it is not what its record says.
    pub(super) fn read(&self, id: PrefixId, segment: &Segment) -> Option<Vec<u8>> {
        let path = path_of(&self.directory, &id);
        let bytes = fs::read(&path).ok().filter(|bytes| {
            bytes.len() as u64 == segment.bytes
                && Sha256::digest(bytes).as_slice() == segment.sha256
        });
        if bytes.is_none() {
            tracing::warn!(path = %path.display(), "a conversation's cache is not what it should be; it is read anew");
            lock(&self.index).remove(&id);
            self.send(Work::Forget(id));
        }
        bytes
    }

    /// What of `tokens` is not on disk yet: from where on.
    pub(super) fn kept(&self, tokens: &[u32]) -> usize {
        self.chain(tokens)
            .last()
            .map_or(0, |(_, segment)| segment.to)
    }

    /// Has the cache of the tokens from `from` to the end of `tokens` written; `from` is where a segment ends, or 0.
    pub(super) fn offer(&self, tokens: &[u32], from: usize, bytes: Vec<u8>) {
        let id = PrefixId::of(&self.fingerprint, tokens);
        if lock(&self.index).has(&id) {
            return;
        }
        self.send(Work::Write {
            id,
            parent: PrefixId::of(&self.fingerprint, &tokens[..from]),
            from,
            to: tokens.len(),
            bytes,
        });
    }

    fn send(&self, work: Work) {
        if let Some(sender) = &self.work
            && sender.try_send(work).is_err()
        {
            tracing::debug!("the disk is behind; a conversation's cache is not kept");
        }
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        self.work = None;
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

fn lock(index: &Mutex<Index>) -> MutexGuard<'_, Index> {
    // Nothing that can panic is done under the lock but arithmetic on what was checked.
    index.lock().unwrap_or_else(PoisonError::into_inner)
}

fn path_of(directory: &Path, id: &PrefixId) -> PathBuf {
    directory.join(id.name()).with_extension(keeper::EXTENSION)
}
