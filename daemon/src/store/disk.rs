//! The database on disk, in the store's terms: batches, records, and what the trees hold.
//!
//! With [`engine`] the only code that calls sled. Every call runs under `catch_unwind`, because 0.34.7 panics on some damaged files. Batches are
//! transactions over the trees that they touch (sled writes those under one batch header, and recovery
//! takes all of it or nothing), so that a record and its index are never torn. Nothing here acknowledges: see `commit`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use sled::{
    Transactional,
    transaction::{ConflictableTransactionResult, TransactionError, TransactionalTree},
};

use super::{
    batch::{Batch, Direction, Scan},
    durable::{SyncedFiles, sync_directory},
    engine::{self, Engine, guarded},
    error::{DiskError, StoreError},
    schema::{Key, Record, SCHEMA, Tree, Versioned},
};

/// Key of the schema's number in `meta`.
const META_SCHEMA: &str = "schema";

/// Key of the [`Tally`] in `meta`.
const META_TALLY: &str = "tally";

/// An open database with the number and size of what it holds.
#[derive(Debug)]
pub(super) struct Disk {
    /// `None` only while it is being dropped.
    open: Option<Engine>,
    held: BTreeMap<Tree, Held>,
    /// Number of the last batch that was applied, through all the store's life.
    sequence: u64,
    /// Whether the trees hold what the tally says.
    is_complete: bool,
    files: SyncedFiles,
}

/// What the store says of itself, written with every batch. sled 0.34.7 opens a log with a damaged middle or end without a word and
/// shows what it could read; only by this is that noticed.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Tally {
    sequence: u64,
    /// Records and bytes by tree name.
    held: BTreeMap<String, (u64, u64)>,
}

/// What a tree holds; kept in memory so that a quota costs no scan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

impl Tally {
    /// Whether the trees hold what was noted; a tree that did not exist then must be empty.
    fn agrees_with(&self, held: &BTreeMap<Tree, Held>) -> bool {
        held.iter().all(|(tree, held)| {
            let noted = self.held.get(tree.name()).copied().unwrap_or_default();
            noted == (held.entries, held.bytes)
        })
    }
}

/// Why a batch was not applied.
#[derive(Debug)]
pub(super) enum ApplyError {
    /// The batch's own fault; the database is as before.
    Refused(StoreError),
    /// The database failed; its state is unknown.
    Disk(DiskError),
}

/// A database that opened, by the schema that it was written in.
#[derive(Debug)]
pub(super) enum Opened {
    Current(Disk),
    /// Readable, but to be rebuilt through an export with the migration steps.
    Older {
        disk: Disk,
        schema: u32,
    },
}

impl Disk {
    /// Opens or creates the database in `directory`, reads every record once, and syncs what opening wrote.
    ///
    /// The reading is the check: damage that a later read would meet is met here, where the store can still be rebuilt.
    pub(super) fn open(directory: &Path) -> Result<Opened, DiskError> {
        let open = guarded(|| engine::open(directory))?;
        let mut disk = Self {
            open: Some(open),
            held: BTreeMap::new(),
            sequence: 0,
            is_complete: true,
            files: SyncedFiles::new(directory)?,
        };
        disk.held = guarded(|| {
            Tree::ALL
                .into_iter()
                .map(|tree| Ok((tree, count(disk.tree(tree))?)))
                .collect()
        })?;
        let schema = disk.read_or_write_schema()?;
        let tally = disk.read_tally()?;
        disk.sequence = tally.sequence;
        disk.is_complete = tally.agrees_with(&disk.held);
        disk.make_durable()?;
        if let Some(parent) = directory.parent() {
            sync_directory(parent)?;
        }
        match schema {
            SCHEMA => Ok(Opened::Current(disk)),
            0..SCHEMA => Ok(Opened::Older { disk, schema }),
            found => Err(DiskError::SchemaTooNew {
                found,
                known: SCHEMA,
            }),
        }
    }

    fn read_or_write_schema(&self) -> Result<u32, DiskError> {
        let found = guarded(|| {
            let meta = &self.engine().meta;
            let found = meta.get(META_SCHEMA)?;
            if found.is_none() {
                meta.insert(META_SCHEMA, &SCHEMA.to_be_bytes())?;
            }
            Ok(found)
        })?;
        let Some(bytes) = found else {
            return Ok(SCHEMA);
        };
        let bytes = bytes.as_ref().try_into();
        Ok(u32::from_be_bytes(bytes.map_err(|_| {
            DiskError::NotOurs {
                what: "the schema number",
            }
        })?))
    }

    fn read_tally(&self) -> Result<Tally, DiskError> {
        let not_ours = DiskError::NotOurs {
            what: "the store's tally",
        };
        match guarded(|| self.engine().meta.get(META_TALLY))? {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|_| not_ours),
            None => Ok(Tally::default()),
        }
    }

    fn tally(&self, held: &BTreeMap<Tree, Held>) -> Tally {
        let of = |tree| held.get(&tree).copied().unwrap_or_default();
        Tally {
            sequence: self.sequence,
            held: Tree::ALL
                .into_iter()
                .map(|tree| (tree.name().to_owned(), (of(tree).entries, of(tree).bytes)))
                .collect(),
        }
    }

    /// Number of the last batch that was applied, through all the store's life.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether the trees held, when they were opened, what was put into them.
    pub(super) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Lets the next batch be the one after `sequence`: a rebuilt store goes on counting where the old one ended.
    pub(super) fn continue_after(&mut self, sequence: u64) -> Result<(), DiskError> {
        self.sequence = sequence;
        let tally = encode_tally(&self.tally(&self.held));
        guarded(|| self.engine().meta.insert(META_TALLY, tally).map(drop))
    }

    /// Applies one batch as a whole, in memory and in the engine's log; it is not durable yet.
    pub(super) fn apply(&mut self, batch: &Batch) -> Result<(), ApplyError> {
        for expect in &batch.expects {
            let found = self
                .read(expect.tree, &expect.key)
                .map_err(ApplyError::Disk)?;
            if found != expect.value {
                return Err(ApplyError::Refused(StoreError::Conflict {
                    tree: expect.tree,
                    key: expect.key.clone(),
                }));
            }
        }
        let held = self.held_after(batch)?;
        let touched: BTreeSet<Tree> = batch.writes.iter().map(|write| write.tree).collect();
        if touched.is_empty() {
            return Ok(());
        }
        let order: BTreeMap<Tree, usize> = touched.iter().copied().zip(0..).collect();
        let mut trees: Vec<&sled::Tree> = touched.iter().map(|&tree| self.tree(tree)).collect();
        trees.push(&self.engine().meta);
        let sequence = self.sequence + 1;
        let tally = encode_tally(&Tally {
            sequence,
            ..self.tally(&held)
        });
        let write_all = |views: &Vec<TransactionalTree>| -> ConflictableTransactionResult<(), ()> {
            for write in &batch.writes {
                let view = &views[order[&write.tree]];
                match &write.value {
                    Some(value) => view.insert(write.key.as_str(), value.as_bytes())?,
                    None => view.remove(write.key.as_str())?,
                };
            }
            views[touched.len()].insert(META_TALLY, tally.as_slice())?;
            Ok(())
        };
        guarded(|| match trees.as_slice().transaction(write_all) {
            Ok(()) => Ok(()),
            Err(TransactionError::Storage(error)) => Err(error),
            Err(TransactionError::Abort(())) => {
                Err(sled::Error::ReportableBug("aborted unasked".into()))
            }
        })
        .map_err(ApplyError::Disk)?;
        self.held = held;
        self.sequence = sequence;
        Ok(())
    }

    /// What the trees would hold after the batch, or the quota that it breaks. A tree above its quota may still shrink.
    fn held_after(&self, batch: &Batch) -> Result<BTreeMap<Tree, Held>, ApplyError> {
        let mut held = self.held.clone();
        let mut sizes: HashMap<(Tree, &Key), Option<u64>> = HashMap::new();
        for write in &batch.writes {
            let size_before = match sizes.get(&(write.tree, &write.key)) {
                Some(size) => *size,
                None => self
                    .read(write.tree, &write.key)
                    .map_err(ApplyError::Disk)?
                    .map(|value| record_bytes(&write.key, &value)),
            };
            let size = write
                .value
                .as_ref()
                .map(|value| record_bytes(&write.key, value));
            let tree = held.entry(write.tree).or_default();
            tree.entries =
                tree.entries - u64::from(size_before.is_some()) + u64::from(size.is_some());
            tree.bytes = tree.bytes - size_before.unwrap_or(0) + size.unwrap_or(0);
            sizes.insert((write.tree, &write.key), size);
        }
        for (&tree, after) in &held {
            let (before, quota) = (self.held(tree), tree.quota());
            let entries_broken =
                after.entries > quota.entries_max && after.entries > before.entries;
            let bytes_broken = after.bytes > quota.bytes_max && after.bytes > before.bytes;
            if entries_broken || bytes_broken {
                return Err(ApplyError::Refused(StoreError::QuotaExceeded {
                    tree,
                    entries: after.entries,
                    bytes: after.bytes,
                }));
            }
        }
        Ok(held)
    }

    /// Makes all that was applied survive a power cut; returns how many syncs it took.
    pub(super) fn make_durable(&mut self) -> Result<u64, DiskError> {
        guarded(|| self.engine().db.flush().map(drop))?;
        self.files.sync()
    }

    pub(super) fn read(&self, tree: Tree, key: &Key) -> Result<Option<Versioned>, DiskError> {
        let found = guarded(|| self.tree(tree).get(key.as_str()))?;
        Ok(found.and_then(|bytes| Versioned::from_bytes(&bytes)))
    }

    /// Walks a tree as asked; a record whose key or value is not ours is left out.
    pub(super) fn scan(&self, scan: &Scan) -> Result<Vec<(Key, Versioned)>, DiskError> {
        let start = match &scan.after {
            Some(key) if key.as_str() >= scan.prefix.as_str() => {
                Bound::Excluded(key.as_str().as_bytes())
            }
            _ => Bound::Included(scan.prefix.as_bytes()),
        };
        // Keys are UTF-8, so no key that begins with the prefix sorts behind the prefix followed by 0xff.
        let mut end = scan.prefix.clone().into_bytes();
        end.push(0xff);
        if matches!(start, Bound::Excluded(key) if key >= end.as_slice()) {
            return Ok(Vec::new());
        }
        guarded(|| {
            let range = self
                .tree(scan.tree)
                .range::<&[u8], _>((start, Bound::Excluded(end.as_slice())));
            match scan.direction {
                Direction::Ascending => collect_records(range, scan.limit),
                Direction::Descending => collect_records(range.rev(), scan.limit),
            }
        })
    }

    /// Hands every record to `sink`, tree by tree in the order of keys.
    pub(super) fn for_each_record<E: From<DiskError>>(
        &self,
        mut sink: impl FnMut(Record) -> Result<(), E>,
    ) -> Result<(), E> {
        for tree in Tree::ALL {
            let mut scan = Scan::first(tree, "", super::batch::SCAN_LIMIT_MAX);
            loop {
                let page = self.scan(&scan)?;
                let Some((last, _)) = page.last() else { break };
                scan = scan.after(last.clone());
                for (key, value) in page {
                    sink(Record { tree, key, value })?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn held(&self, tree: Tree) -> Held {
        self.held.get(&tree).copied().unwrap_or_default()
    }

    fn engine(&self) -> &Engine {
        self.open.as_ref().expect("taken only by drop")
    }

    fn tree(&self, tree: Tree) -> &sled::Tree {
        &self.engine().trees[&tree]
    }

    /// A batch of writes straight to sled, acknowledged by nothing: what a test needs to forge a store.
    #[cfg(test)]
    pub(super) fn forge_schema(&self, schema: u32) {
        self.engine()
            .meta
            .insert(META_SCHEMA, &schema.to_be_bytes())
            .unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let open = self.open.take();
        // sled's own drop syncs and unwraps the result: on a failing device that is a panic, and the cause was reported before.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(open)));
    }
}

fn encode_tally(tally: &Tally) -> Vec<u8> {
    serde_json::to_vec(tally).expect("numbers under text keys always make JSON")
}

fn count(tree: &sled::Tree) -> sled::Result<Held> {
    let mut held = Held::default();
    for record in tree.iter() {
        let (key, value) = record?;
        held.entries += 1;
        held.bytes += (key.len() + value.len()) as u64;
    }
    Ok(held)
}

fn record_bytes(key: &Key, value: &Versioned) -> u64 {
    (key.as_str().len() + value.as_bytes().len()) as u64
}

fn collect_records(
    range: impl Iterator<Item = sled::Result<(sled::IVec, sled::IVec)>>,
    limit: usize,
) -> sled::Result<Vec<(Key, Versioned)>> {
    let mut records = Vec::new();
    for record in range {
        if records.len() == limit {
            break;
        }
        let (key, value) = record?;
        let key = std::str::from_utf8(&key)
            .ok()
            .and_then(|text| Key::new(text).ok());
        if let (Some(key), Some(value)) = (key, Versioned::from_bytes(&value)) {
            records.push((key, value));
        }
    }
    Ok(records)
}

impl From<DiskError> for StoreError {
    fn from(error: DiskError) -> Self {
        StoreError::Unavailable {
            source: Arc::new(error),
        }
    }
}
