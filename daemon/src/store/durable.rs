//! Makes what the engine wrote survive a power cut.
//!
//! sled 0.34.7 flushes with `sync_file_range` on Linux, which commits neither the device's cache nor a grown
//! file's size: under power cuts it lost acknowledged records. So after each flush every file that the engine
//! may have written is synced here, and the directories whose entries changed.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::error::DiskError;

/// The engine's data file inside its directory.
const DATA_FILE: &str = "db";

/// The engine's directory for values that are too large for its log (see `schema::VALUE_BYTES_MAX`).
const BLOBS_DIRECTORY: &str = "blobs";

/// What a file looked like when it was last synced.
type Stamp = (u64, Option<SystemTime>);

/// The engine's files, and which state of them is known to be on the medium.
#[derive(Debug)]
pub(super) struct SyncedFiles {
    directory: PathBuf,
    /// Kept open from before the first write, so that this descriptor sees every later write-back error once.
    data: File,
    known: BTreeMap<PathBuf, Stamp>,
}

impl SyncedFiles {
    /// Looks at an engine's directory; nothing counts as synced yet.
    pub(super) fn new(directory: &Path) -> Result<Self, DiskError> {
        let path = directory.join(DATA_FILE);
        let data = File::open(&path).map_err(DiskError::file("open", path))?;
        Ok(Self {
            directory: directory.to_owned(),
            data,
            known: BTreeMap::new(),
        })
    }

    /// Syncs all that changed since the last call, and returns how many syncs it took: one in steady state.
    ///
    /// `fdatasync` serves for the data file: it commits the size and the block map, and leaves out only timestamps.
    pub(super) fn sync(&mut self) -> Result<u64, DiskError> {
        let data_path = self.directory.join(DATA_FILE);
        self.data
            .sync_data()
            .map_err(DiskError::file("sync", &data_path))?;
        let mut syncs = 1;
        let blobs = self.directory.join(BLOBS_DIRECTORY);
        for directory in [self.directory.clone(), blobs] {
            syncs += self.sync_directory(&directory, &data_path)?;
        }
        Ok(syncs)
    }

    fn sync_directory(&mut self, directory: &Path, data_path: &Path) -> Result<u64, DiskError> {
        let found = files_in(directory)?;
        let mut syncs = 0;
        for (path, stamp) in &found {
            if path == data_path || self.known.get(path) == Some(stamp) {
                continue;
            }
            File::open(path)
                .and_then(|file| file.sync_all())
                .map_err(DiskError::file("sync", path))?;
            syncs += 1;
        }
        let names_changed = {
            let before = self
                .known
                .keys()
                .filter(|path| path.parent() == Some(directory));
            !before.eq(found.keys())
        };
        if names_changed {
            sync_directory(directory)?;
            syncs += 1;
        }
        self.known
            .retain(|path, _| path.parent() != Some(directory));
        self.known.extend(found);
        Ok(syncs)
    }
}

/// How far the store had come, in a small file beside it: what a store that silently lost its end is found out by.
///
/// It is written after each group is durable and never synced itself, so that it costs no sync; after a power cut it may be older
/// than the store, never newer.
#[derive(Debug)]
pub(super) struct Mark(File);

/// Length of a mark: 20 digits and a newline, so that it is overwritten in place and fits one sector.
const MARK_BYTES: usize = 21;

impl Mark {
    pub(super) fn open(path: &Path) -> Result<Self, DiskError> {
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path);
        file.map(Self).map_err(DiskError::file("open", path))
    }

    pub(super) fn write(&self, sequence: u64) -> Result<(), std::io::Error> {
        self.0
            .write_all_at(format!("{sequence:020}\n").as_bytes(), 0)
    }

    /// The mark at `path`; 0 where there is none, or none that is whole.
    pub(super) fn read(path: &Path) -> u64 {
        let text = fs::read_to_string(path).unwrap_or_default();
        let digits = text.strip_suffix('\n').filter(|_| text.len() == MARK_BYTES);
        digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
    }
}

/// Syncs a directory's entries: a file that was created, renamed or removed there is so after a cut.
pub(super) fn sync_directory(directory: &Path) -> Result<(), DiskError> {
    File::open(directory)
        .and_then(|file| file.sync_all())
        .map_err(DiskError::file("sync", directory))
}

fn files_in(directory: &Path) -> Result<BTreeMap<PathBuf, Stamp>, DiskError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(DiskError::file("list", directory)(error)),
    };
    let mut found = BTreeMap::new();
    for entry in entries {
        let entry = entry.map_err(DiskError::file("list", directory))?;
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            // The engine removed it between the listing and here.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(DiskError::file("inspect", entry.path())(error)),
        };
        if metadata.is_file() {
            found.insert(entry.path(), (metadata.len(), metadata.modified().ok()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_synced_again() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(root.path().join(name), text).unwrap();
        write("db", "");
        write("conf", "a");
        fs::create_dir(root.path().join("blobs")).unwrap();
        let mut files = SyncedFiles::new(root.path()).unwrap();
        assert_eq!(files.sync().unwrap(), 3, "db, conf and the directory");
        write("db", "more");
        assert_eq!(files.sync().unwrap(), 1, "db alone");
        write("blobs/1", "b");
        assert_eq!(files.sync().unwrap(), 3, "db, the blob and its directory");
        write("conf", "longer");
        assert_eq!(files.sync().unwrap(), 2, "db and conf");
        fs::remove_file(root.path().join("blobs/1")).unwrap();
        assert_eq!(files.sync().unwrap(), 2, "db and the blob directory");
        assert_eq!(files.sync().unwrap(), 1, "db alone");
    }
}
