//! Conversations' caches on disk, so that a restart or a `kill -9` does not cost the reading of them anew.
//!
//! [`Shelf`] is what a model holds: it looks beginnings up and reads them, and offers new ones, which the `keeper` thread
//! writes. Files lie in one directory, the [`index`] of them in the store, where each record holds its file's length and
//! SHA-256: a file without a record, or that is not what its record says, is a miss and is deleted, never an answer. A file
//! is whole before its record is durable: written under another name, synced, renamed, synced again.
//!
//! A file is the cache of its tokens as the graph exports it, and then the tokens themselves, four bytes each (little-endian): so that a new process can
//! take the latest conversations in before anybody says what they are.
//!
//! A directory has one keeper, and it alone writes, evicts and deletes there. All models of the process share it ([`Snapshots`]), also the
//! two of a swap: so nobody takes for an orphan what another is about to note, and what the old model still offers the new one finds.
//!
//! | channel | from, to | capacity | when full |
//! | --- | --- | --- | --- |
//! | offers | model threads -> keeper | [`OFFERS`] | dropped: the conversation is read anew after a restart |

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

/// Segments that may wait for the disk, 0.8 MB each with the default model. A prompt that has more is kept to its end with a later turn.
const OFFERS: usize = 32;

/// How long a model waits for the index: some thousand records take milliseconds, and a store that is being rebuilt is not worth
/// waiting for.
const LOAD_PATIENCE: Duration = Duration::from_secs(2);

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

/// The way of all models of a process to their one keeper, which is started with the first that wants it.
#[derive(Debug)]
pub(in super::super) struct Snapshots {
    config: SnapshotConfig,
    kept: Mutex<Option<Arc<Kept>>>,
}

/// What the models share. Dropping the last of it ends the keeper, after what was offered is written.
#[derive(Debug)]
struct Kept {
    directory: PathBuf,
    index: Arc<Mutex<Index>>,
    work: Option<mpsc::SyncSender<Work>>,
    keeper: Option<thread::JoinHandle<()>>,
}

/// What one model knows of the snapshots.
pub(super) struct Shelf {
    fingerprint: String,
    kept: Arc<Kept>,
}

/// One segment, as it was offered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KeptCache {
    pub(super) tokens: Vec<u32>,
    pub(super) bytes: Vec<u8>,
}

impl KeptCache {
    /// Takes a file of so many tokens apart; `None` when it is too short for them.
    fn of(mut file: Vec<u8>, tokens: usize) -> Option<Self> {
        let cache = file
            .len()
            .checked_sub(tokens.checked_mul(size_of::<u32>())?)?;
        let (words, _) = file[cache..].as_chunks();
        let tokens = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
        file.truncate(cache);
        Some(Self {
            tokens,
            bytes: file,
        })
    }
}

/// What the keeper is asked.
#[derive(Debug)]
enum Work {
    Write {
        id: PrefixId,
        parent: PrefixId,
        from: usize,
        to: usize,
        /// The whole file.
        bytes: Vec<u8>,
    },
    /// It was not what its record says.
    Forget(PrefixId),
}

impl Snapshots {
    pub(in super::super) fn new(config: SnapshotConfig) -> Self {
        Self {
            config,
            kept: Mutex::new(None),
        }
    }

    /// Where they are.
    pub(super) fn directory(&self) -> &Path {
        &self.config.directory
    }

    /// The shelf of one model. `fingerprint` must differ whenever a cache computed by one model cannot serve another. The first starts the keeper and
    /// waits for it to read the index, a while at most.
    pub(super) fn open(&self, fingerprint: String) -> std::io::Result<Shelf> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = match &*kept {
            Some(kept) => Arc::clone(kept),
            None => Arc::clone(kept.insert(Arc::new(Kept::start(self.config.clone())?))),
        };
        Ok(Shelf { fingerprint, kept })
    }
}

impl Kept {
    fn start(config: SnapshotConfig) -> std::io::Result<Self> {
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
            index,
            work: Some(work),
            keeper: Some(keeper),
        })
    }

    fn send(&self, work: Work) {
        if let Some(sender) = &self.work
            && sender.try_send(work).is_err()
        {
            tracing::debug!("the disk is behind; a conversation's cache is not kept");
        }
    }
}

impl Shelf {
    /// The files that hold the longest beginning of `tokens`.
    pub(super) fn chain(&self, tokens: &[u32]) -> Vec<(PrefixId, Segment)> {
        lock(&self.kept.index).chain(&self.fingerprint, tokens)
    }

    /// The conversations that were used last, the latest first, each as its segments: at most `count`, and `bytes` together.
    pub(super) fn recent(&self, count: usize, bytes: u64) -> Vec<Vec<(PrefixId, Segment)>> {
        lock(&self.kept.index).recent(&self.fingerprint, count, bytes)
    }

    /// Whether it is a file of the length that its record says, which can be read without waiting for anybody but the disk.
    pub(super) fn is_there(&self, id: PrefixId, segment: &Segment) -> bool {
        fs::metadata(path_of(&self.kept.directory, &id))
            .is_ok_and(|file| file.is_file() && file.len() == segment.bytes)
    }

    /// Whether these are the tokens up to the end of that segment.
    pub(super) fn is_of(&self, id: PrefixId, tokens: &[u32]) -> bool {
        PrefixId::of(&self.fingerprint, tokens) == id
    }

    /// Reads one segment and compares it with its digest: milliseconds for each, so on a thread that holds nobody up. `None`, and it is forgotten, when it
    /// is not what its record says.
    pub(super) fn read(&self, id: PrefixId, segment: &Segment) -> Option<KeptCache> {
        let path = path_of(&self.kept.directory, &id);
        let bytes = fs::read(&path).ok().filter(|bytes| {
            bytes.len() as u64 == segment.bytes
                && Sha256::digest(bytes).as_slice() == segment.sha256
        });
        let cache = bytes.and_then(|bytes| KeptCache::of(bytes, segment.to - segment.from));
        if cache.is_none() {
            tracing::warn!(path = %path.display(), "a conversation's cache is not what it should be; it is read anew");
            lock(&self.kept.index).remove(&id);
            self.kept.send(Work::Forget(id));
        }
        cache
    }

    /// What of `tokens` is not on disk yet: from where on.
    pub(super) fn kept(&self, tokens: &[u32]) -> usize {
        self.chain(tokens)
            .last()
            .map_or(0, |(_, segment)| segment.to)
    }

    /// Has the cache of the tokens from `from` to the end of `tokens` written; `from` is where a segment ends, or 0.
    pub(super) fn offer(&self, tokens: &[u32], from: usize, cache: Vec<u8>) {
        let id = PrefixId::of(&self.fingerprint, tokens);
        if lock(&self.kept.index).has(&id) {
            return;
        }
        let mut bytes = cache;
        bytes.extend(tokens[from..].iter().flat_map(|token| token.to_le_bytes()));
        self.kept.send(Work::Write {
            id,
            parent: PrefixId::of(&self.fingerprint, &tokens[..from]),
            from,
            to: tokens.len(),
            bytes,
        });
    }
}

impl Drop for Kept {
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

#[cfg(test)]
mod tests;
