//! The thread that writes, evicts and deletes snapshots, and keeps their records in the store; nobody else does.
//!
//! When a segment was used last is written once in a while and at the end, for all that were used since: after a `kill -9` it is known as it was a
//! minute ago.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
    sync::{Mutex, mpsc},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    SnapshotConfig, Work,
    index::{Index, PrefixId, Segment},
    lock, path_of,
};
use crate::store::{
    BATCH_WRITES_MAX, Batch, Key, SCAN_LIMIT_MAX, Scan, StoreError, StoreHandle, Tree, Versioned,
    Write,
};

/// Ending of a snapshot's file name.
pub(super) const EXTENSION: &str = "kv";
/// Ending while it is written.
const UNFINISHED: &str = "part";
/// 2: files end with their tokens. What an older one says is read anew.
const FORMAT: u8 = 2;

/// How often it is noted which segments were used. Chosen because a commit a minute is nothing beside the turns that cause it, and a minute's uses change
/// little about who goes first.
const USES_EVERY: Duration = Duration::from_secs(60);

/// A segment in the store, under its name.
#[derive(Debug, Serialize, Deserialize)]
struct SegmentRecord {
    parent: String,
    from: u64,
    to: u64,
    bytes: u64,
    sha256: String,
    used: u64,
}

#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error("{path}")]
    File {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("the store")]
    Store(#[from] StoreError),
}

/// The keeper's whole life.
pub(super) fn run(
    config: &SnapshotConfig,
    index: &Mutex<Index>,
    loaded: &mpsc::SyncSender<()>,
    tasks: &mpsc::Receiver<Work>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::warn!(%error, "conversations' caches are not kept");
            return;
        }
    };
    let wait = |future: std::pin::Pin<Box<dyn Future<Output = Result<(), KeepError>> + '_>>| {
        let done = runtime.block_on(future);
        if let Err(error) = &done {
            tracing::warn!(
                error = error as &dyn std::error::Error,
                "conversations' caches"
            );
        }
        done.is_ok()
    };
    let mut is_loaded = wait(Box::pin(load(config, index)));
    // Nobody may wait any more.
    let _ = loaded.try_send(());
    let mut noted = Instant::now();
    loop {
        match tasks.recv_timeout(USES_EVERY) {
            Ok(Work::Write {
                id,
                parent,
                from,
                to,
                bytes,
            }) => {
                wait(Box::pin(async move {
                    let segment = Segment {
                        parent,
                        from,
                        to,
                        bytes: bytes.len() as u64,
                        sha256: Sha256::digest(&bytes).into(),
                        used: lock(index).tick(),
                    };
                    keep(config, index, id, segment, &bytes).await
                }));
            }
            Ok(Work::Forget(id)) => {
                wait(Box::pin(forget(config, index, vec![id])));
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
        if noted.elapsed() >= USES_EVERY {
            // A store that was away may be back.
            is_loaded = is_loaded || wait(Box::pin(load(config, index)));
            wait(Box::pin(note_uses(config, index)));
            noted = Instant::now();
        }
    }
    wait(Box::pin(note_uses(config, index)));
}

/// Brings the records of what was used up to date.
async fn note_uses(config: &SnapshotConfig, index: &Mutex<Index>) -> Result<(), KeepError> {
    let touched = lock(index).take_touched();
    for some in touched.chunks(BATCH_WRITES_MAX) {
        if let Err(error) = put(&config.store, some).await {
            lock(index).touch_again(touched.iter().map(|(id, _)| *id));
            return Err(error);
        }
    }
    Ok(())
}

/// Makes records durable.
async fn put(store: &StoreHandle, segments: &[(PrefixId, Segment)]) -> Result<(), KeepError> {
    let mut writes = Vec::with_capacity(segments.len());
    for (id, segment) in segments {
        let record = SegmentRecord {
            parent: segment.parent.name(),
            from: segment.from as u64,
            to: segment.to as u64,
            bytes: segment.bytes,
            sha256: hex::encode(segment.sha256),
            used: segment.used,
        };
        let (key, value) = (Key::new(id.name())?, Versioned::encode(FORMAT, &record)?);
        writes.push(Write::put(Tree::Snapshots, key, value));
    }
    let _durable = store.commit(Batch::new(writes)?).await?;
    Ok(())
}

/// Reads the records; forgets those without a file, and deletes files without a record.
async fn load(config: &SnapshotConfig, index: &Mutex<Index>) -> Result<(), KeepError> {
    let mut files = HashSet::new();
    let file_error = |path: &Path, source| KeepError::File {
        path: path.display().to_string(),
        source,
    };
    let listing =
        fs::read_dir(&config.directory).map_err(|source| file_error(&config.directory, source))?;
    for path in listing.flatten().map(|entry| entry.path()) {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some(EXTENSION) => {
                files.extend(
                    path.file_stem()
                        .and_then(|stem| stem.to_str())
                        .and_then(PrefixId::from_name),
                );
            }
            Some(UNFINISHED) => {
                fs::remove_file(&path).map_err(|source| file_error(&path, source))?;
            }
            _ => {}
        }
    }
    let mut lost = Vec::new();
    let mut after = None;
    loop {
        let mut scan = Scan::first(Tree::Snapshots, "", SCAN_LIMIT_MAX);
        if let Some(key) = after.take() {
            scan = scan.after(key);
        }
        let page = config.store.scan(scan).await?;
        for (key, value) in &page {
            let Some(id) = PrefixId::from_name(key.as_str()) else {
                continue;
            };
            match decode(value).filter(|_| files.remove(&id)) {
                Some(segment) => lock(index).insert(id, segment),
                None => lost.push(id),
            }
        }
        match page.last() {
            Some((key, _)) if page.len() >= SCAN_LIMIT_MAX => after = Some(key.clone()),
            _ => break,
        }
    }
    for id in files {
        let path = path_of(&config.directory, &id);
        fs::remove_file(&path).map_err(|source| file_error(&path, source))?;
    }
    forget(config, index, lost).await?;
    evict(config, index).await
}

/// Makes the file whole, then the record durable, then the segment known.
async fn keep(
    config: &SnapshotConfig,
    index: &Mutex<Index>,
    id: PrefixId,
    segment: Segment,
    bytes: &[u8],
) -> Result<(), KeepError> {
    if segment.bytes > config.bytes_max {
        return Ok(());
    }
    let path = path_of(&config.directory, &id);
    write_whole(&path, bytes).map_err(|source| KeepError::File {
        path: path.display().to_string(),
        source,
    })?;
    put(&config.store, &[(id, segment)]).await?;
    lock(index).insert(id, segment);
    evict(config, index).await
}

async fn evict(config: &SnapshotConfig, index: &Mutex<Index>) -> Result<(), KeepError> {
    let surplus = lock(index).surplus(config.bytes_max);
    forget(config, index, surplus).await
}

/// Removes records, then files.
async fn forget(
    config: &SnapshotConfig,
    index: &Mutex<Index>,
    ids: Vec<PrefixId>,
) -> Result<(), KeepError> {
    for some in ids.chunks(BATCH_WRITES_MAX) {
        let mut writes = Vec::with_capacity(some.len());
        for id in some {
            lock(index).remove(id);
            writes.push(Write::remove(Tree::Snapshots, Key::new(id.name())?));
        }
        remove_records(&config.store, writes).await?;
        for id in some {
            // It may be gone already; what else stays is an orphan that the next start deletes.
            let _ = fs::remove_file(path_of(&config.directory, id));
        }
    }
    Ok(())
}

async fn remove_records(store: &StoreHandle, writes: Vec<Write>) -> Result<(), KeepError> {
    if !writes.is_empty() {
        let _durable = store.commit(Batch::new(writes)?).await?;
    }
    Ok(())
}

fn decode(value: &Versioned) -> Option<Segment> {
    if value.format() != FORMAT {
        return None;
    }
    let record: SegmentRecord = value.decode().ok()?;
    let mut sha256 = [0; 32];
    hex::decode_to_slice(&record.sha256, &mut sha256).ok()?;
    Some(Segment {
        parent: PrefixId::from_name(&record.parent)?,
        from: usize::try_from(record.from).ok()?,
        to: usize::try_from(record.to).ok()?,
        bytes: record.bytes,
        sha256,
        used: record.used,
    })
}

fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension(UNFINISHED);
    let mut file = File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}
