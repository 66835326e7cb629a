//! Opens the store whatever state it is in, and never destroys what it finds.
//!
//! ```text
//! no store, no export          -> create                               Origin::Created
//! opens                        -> use it                               Origin::Opened
//! opens, older schema          -> export, set aside, rebuild           Origin::Rebuilt
//! broken (error or panic)      -> set aside, rebuild from last export  Origin::Rebuilt
//! opens, but lost something    -> set aside, rebuild from the newer of what is left and the export
//! no store but an export       -> rebuild (a cut fell between)         Origin::Rebuilt
//! out of reach (space, rights) -> leave alone, serve without a store   error
//! ```
//! A new store is built in a directory beside and renamed into place when it is durable, so that a cut while
//! building leaves no half a store that looks like a whole one.

use std::{
    fs::{self, File, TryLockError},
    io::{Read, Seek, SeekFrom, Write as _},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    StoreOpenError,
    batch::{Batch, Write},
    disk::{ApplyError, Disk, Opened},
    durable::{Mark, sync_directory},
    error::{DiskError, Verdict},
    export::{self, Exported, TransferReport},
    schema::{Record, SCHEMA},
};

/// Records applied at once while a store is rebuilt; a power cut there loses nothing, since the store is not in place yet.
const IMPORT_BATCH: usize = 256;

/// Names inside the state directory.
const STORE: &str = "store";
const BUILDING: &str = "store.building";
const LOCK: &str = "store.lock";
const MARK: &str = "store.mark";
const EXPORT: &str = "export.jsonl";

/// Where the store in use came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// There was none.
    Created,
    /// It was found and opened.
    Opened,
    /// It was built anew.
    Rebuilt {
        /// Where the store that was found before is kept; `None` where there was none.
        set_aside: Option<PathBuf>,
        /// Why it was not used.
        cause: String,
        /// What the last export gave; `None` where there was no readable export, so that the store began empty.
        restored: Option<TransferReport>,
    },
}

/// The state directory's files.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    state: PathBuf,
}

impl Layout {
    pub(super) fn new(state: &Path) -> Self {
        Self {
            state: state.to_owned(),
        }
    }

    pub(super) fn export(&self) -> PathBuf {
        self.state.join(EXPORT)
    }

    pub(super) fn mark(&self) -> PathBuf {
        self.state.join(MARK)
    }

    fn store(&self) -> PathBuf {
        self.state.join(STORE)
    }
}

/// Holds the state directory for this process; released when it is dropped or the process ends.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    _file: File,
}

/// Takes the directory's lock, apart from the engine's own, so that a second daemon is told from a damaged store.
pub(super) fn lock(state: &Path) -> Result<DirectoryLock, StoreOpenError> {
    let path = state.join(LOCK);
    let open = || {
        fs::create_dir_all(state)?;
        File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
    };
    let mut file = open().map_err(|source| StoreOpenError::Lock {
        path: path.clone(),
        source,
    })?;
    match file.try_lock() {
        Ok(()) => {
            // The number is only for the other daemon's message; the lock works without it.
            let _ = file
                .set_len(0)
                .and_then(|()| write!(file, "{}", std::process::id()));
            Ok(DirectoryLock { _file: file })
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file
                .seek(SeekFrom::Start(0))
                .and_then(|_| file.take(20).read_to_string(&mut holder));
            Err(StoreOpenError::InUse {
                directory: state.to_owned(),
                process: holder.trim().parse().ok(),
            })
        }
        Err(TryLockError::Error(source)) => Err(StoreOpenError::Lock { path, source }),
    }
}

/// Opens, creates or rebuilds the store.
///
/// # Errors
/// Only what lies outside the store's content: no space, no rights, a device that fails, a newer schema.
pub(super) fn open(layout: &Layout, now: SystemTime) -> Result<(Disk, Origin), DiskError> {
    let store = layout.store();
    if !is_present(&store)? {
        let from_export = is_present(&layout.export())?;
        let (disk, restored) = build(layout)?;
        let origin = match from_export {
            false => Origin::Created,
            true => Origin::Rebuilt {
                set_aside: None,
                cause: "there was an export but no store".to_owned(),
                restored,
            },
        };
        return Ok((disk, origin));
    }
    let cause = match Disk::open(&store) {
        Ok(Opened::Current(disk)) => match loss(&disk, Mark::read(&layout.mark())) {
            None => return Ok((disk, Origin::Opened)),
            Some(cause) => {
                if is_worth_keeping(&disk, export::header(&layout.export())) {
                    export::write(&disk, &layout.export(), SCHEMA, now)?;
                }
                cause
            }
        },
        Ok(Opened::Older { disk, schema }) => {
            export::write(&disk, &layout.export(), schema, now)?;
            format!("schema {schema} was migrated to {SCHEMA}")
        }
        Err(error) if error.verdict() == Verdict::Damaged => with_sources(&error),
        Err(error) => return Err(error),
    };
    replace(layout, now, cause)
}

/// What a store that opened without complaint has lost, if anything.
fn loss(disk: &Disk, mark: u64) -> Option<String> {
    if !disk.is_complete() {
        return Some("the store does not hold the records that it says it holds".to_owned());
    }
    let missing = mark.saturating_sub(disk.sequence());
    (missing > 0).then(|| format!("the store has lost its last {missing} batches"))
}

/// Whether a store that lost something is still the best that there is: a whole older state that is newer than the export, or
/// anything at all where there is no export.
fn is_worth_keeping(disk: &Disk, exported: Option<Exported>) -> bool {
    exported.is_none_or(|exported| disk.is_complete() && disk.sequence() >= exported.sequence)
}

/// Sets the present store aside and builds another from the last export.
fn replace(layout: &Layout, now: SystemTime, cause: String) -> Result<(Disk, Origin), DiskError> {
    let set_aside = set_aside(layout, now)?;
    let (disk, restored) = build(layout)?;
    let origin = Origin::Rebuilt {
        set_aside: Some(set_aside),
        cause,
        restored,
    };
    Ok((disk, origin))
}

/// Brings back a store that failed while in use: what can be read of it is exported, and built anew in other files.
///
/// The export before that one is kept beside it, for the case that a failing device shows less than it once held.
pub(super) fn copy_into_new_files(
    layout: &Layout,
    now: SystemTime,
    cause: String,
) -> Result<(Disk, Origin), DiskError> {
    match Disk::open(&layout.store()) {
        Ok(Opened::Current(disk)) => {
            export::write(&disk, &layout.export(), SCHEMA, now)?;
        }
        Ok(Opened::Older { .. }) => {
            return Err(DiskError::NotOurs {
                what: "a store that was in use",
            });
        }
        Err(error) if error.verdict() == Verdict::Damaged => {}
        Err(error) => return Err(error),
    }
    replace(layout, now, cause)
}

/// Renames the store to `store.damaged-<unix seconds>`, with a counter behind it where that name is taken.
fn set_aside(layout: &Layout, now: SystemTime) -> Result<PathBuf, DiskError> {
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut target = layout.state.join(format!("store.damaged-{seconds}"));
    let mut counter = 1_u32;
    while is_present(&target)? {
        counter += 1;
        target = layout
            .state
            .join(format!("store.damaged-{seconds}-{counter}"));
    }
    fs::rename(layout.store(), &target).map_err(DiskError::file("set aside", layout.store()))?;
    sync_directory(&layout.state)?;
    Ok(target)
}

/// Builds a store from the export, or an empty one, and puts it in place.
fn build(layout: &Layout) -> Result<(Disk, Option<TransferReport>), DiskError> {
    let building = layout.state.join(BUILDING);
    if is_present(&building)? {
        // Left by a cut while building; it was never in use.
        fs::remove_dir_all(&building).map_err(DiskError::file("remove", &building))?;
    }
    let mut disk = current(Disk::open(&building)?)?;
    let restored = match is_present(&layout.export())? {
        true => import_readable(&mut disk, &layout.export())?,
        false => None,
    };
    // Not below what was ever counted, so that the mark and the export do not accuse the new store.
    let exported = export::header(&layout.export()).map_or(0, |exported| exported.sequence);
    let counted = exported
        .max(Mark::read(&layout.mark()))
        .max(disk.sequence());
    disk.continue_after(counted)?;
    disk.make_durable()?;
    drop(disk);
    let store = layout.store();
    fs::rename(&building, &store).map_err(DiskError::file("put in place", &building))?;
    sync_directory(&layout.state)?;
    Ok((current(Disk::open(&store)?)?, restored))
}

/// Imports an export; one that is not ours gives `None`, and the store begins empty.
fn import_readable(disk: &mut Disk, path: &Path) -> Result<Option<TransferReport>, DiskError> {
    match import(disk, path) {
        Ok(report) => Ok(Some(report)),
        Err(DiskError::NotOurs { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Puts every record of an export into the database; those that a quota refuses are counted as left out.
fn import(disk: &mut Disk, path: &Path) -> Result<TransferReport, DiskError> {
    let mut waiting = Vec::new();
    let mut refused = 0;
    let mut report = export::read::<DiskError>(path, |record| {
        waiting.push(record);
        if waiting.len() == IMPORT_BATCH {
            refused += apply_records(disk, &mut waiting)?;
        }
        Ok(())
    })?;
    refused += apply_records(disk, &mut waiting)?;
    report.records -= refused;
    report.left_out += refused;
    Ok(report)
}

fn apply_records(disk: &mut Disk, records: &mut Vec<Record>) -> Result<u64, DiskError> {
    let count = records.len() as u64;
    let writes = records
        .drain(..)
        .map(|record| Write::put(record.tree, record.key, record.value));
    let batch = Batch {
        expects: Vec::new(),
        writes: writes.collect(),
    };
    match disk.apply(&batch) {
        Ok(()) => Ok(0),
        Err(ApplyError::Refused(_)) => Ok(count),
        Err(ApplyError::Disk(error)) => Err(error),
    }
}

fn current(opened: Opened) -> Result<Disk, DiskError> {
    match opened {
        Opened::Current(disk) => Ok(disk),
        Opened::Older { .. } => Err(DiskError::NotOurs {
            what: "a store that was just built",
        }),
    }
}

/// Unlike `Path::exists`, keeps "cannot be seen" (rights, a failing device) apart from "is not there".
fn is_present(path: &Path) -> Result<bool, DiskError> {
    path.try_exists().map_err(DiskError::file("look at", path))
}

/// An error with its causes in one line, for a report that outlives the error.
pub(super) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
