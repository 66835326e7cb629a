//! Compiled graphs on disk: one directory each, named after the trial's key, with a digest beside it and a bound on all of them.
//!
//! A compiled graph is only ever made by a trial that opened it again and got the same answer. One that is damaged is deleted, and
//! the model is opened from its bundle. Nothing here is worth an fsync: all of it can be made again.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use sha2::{Digest as _, Sha256};

use super::{library, trial::COMPILED_GRAPH};

const DIGEST: &str = "sha256";
/// Directories of children that were killed with the daemon begin with this; they are cleared at the next start.
pub(super) const WORK_PREFIX: &str = "trial-";

/// The directory of all compiled graphs.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    dir: PathBuf,
    bytes_max: u64,
}

impl Cache {
    pub(super) fn new(dir: PathBuf, bytes_max: u64) -> Self {
        Self { dir, bytes_max }
    }

    /// An empty directory for a trial.
    pub(super) fn work(&self, name: &str) -> io::Result<PathBuf> {
        fs::create_dir_all(&self.dir)?;
        let work = self.dir.join(format!("{WORK_PREFIX}{name}"));
        remove(&work)?;
        fs::create_dir(&work)?;
        Ok(work)
    }

    /// Deletes what trials left behind when the daemon died.
    pub(super) fn clear_work(&self) {
        for (path, _) in self.entries() {
            let name = path.file_name().and_then(|name| name.to_str());
            if name.is_some_and(|name| name.starts_with(WORK_PREFIX)) {
                let _ = remove(&path);
            }
        }
    }

    /// Takes what a trial made in `made`; then deletes the entries that were used longest ago until all fit. Returns whether this one does.
    pub(super) fn keep(&self, key: &str, made: &Path) -> io::Result<bool> {
        let place = self.dir.join(key);
        remove(&place)?;
        if size(made)? > self.bytes_max {
            return Ok(false);
        }
        let digest = digest(made)?;
        fs::write(made.join(DIGEST), digest)?;
        fs::rename(made, &place)?;
        touch(&place);
        self.shrink(&place)?;
        Ok(true)
    }

    /// The compiled graph of a trial, unchanged since it was made; a damaged one is deleted.
    pub(super) fn graph(&self, key: &str) -> Option<PathBuf> {
        let place = self.dir.join(key);
        let expected = fs::read_to_string(place.join(DIGEST)).ok()?;
        if digest(&place).ok().as_deref() != Some(expected.as_str()) {
            tracing::warn!(place = %place.display(), "a kept compiled graph is damaged; the model is compiled anew");
            let _ = remove(&place);
            return None;
        }
        touch(&place);
        Some(place.join(COMPILED_GRAPH)).filter(|graph| graph.is_file())
    }

    /// The directory that a provider fills by itself, made if it is not there.
    pub(super) fn own_dir(&self, key: &str) -> io::Result<PathBuf> {
        let place = self.dir.join(key);
        fs::create_dir_all(&place)?;
        touch(&place);
        self.shrink(&place)?;
        Ok(place)
    }

    pub(super) fn forget(&self, key: &str) {
        let _ = remove(&self.dir.join(key));
    }

    fn shrink(&self, keep: &Path) -> io::Result<()> {
        let mut entries: Vec<(SystemTime, PathBuf, u64)> = self
            .entries()
            .filter_map(|(path, facts)| Some((facts.modified().ok()?, size(&path).ok()?, path)))
            .map(|(used, bytes, path)| (used, path, bytes))
            .collect();
        entries.sort();
        let mut total: u64 = entries.iter().map(|(_, _, bytes)| bytes).sum();
        for (_, path, bytes) in entries {
            if total <= self.bytes_max {
                break;
            }
            if path != keep {
                remove(&path)?;
                total -= bytes;
            }
        }
        Ok(())
    }

    fn entries(&self) -> impl Iterator<Item = (PathBuf, fs::Metadata)> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| {
            let facts = entry.metadata().ok().filter(fs::Metadata::is_dir)?;
            Some((entry.path(), facts))
        })
    }
}

/// Marks an entry as used now.
fn touch(place: &Path) {
    let marked = fs::File::open(place).and_then(|dir| dir.set_modified(SystemTime::now()));
    if let Err(error) = marked {
        tracing::debug!(place = %place.display(), %error, "the time of use cannot be noted");
    }
}

fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_file() && path.file_name().is_some_and(|name| name != DIGEST) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn size(dir: &Path) -> io::Result<u64> {
    files(dir)?
        .iter()
        .map(|file| Ok(fs::metadata(file)?.len()))
        .sum()
}

/// Names and contents.
fn digest(dir: &Path) -> io::Result<String> {
    let mut all = Sha256::new();
    for file in files(dir)? {
        let name = file.file_name().unwrap_or_default().as_encoded_bytes();
        all.update(name);
        all.update([0]);
        all.update(library::digest(&file)?);
    }
    Ok(hex::encode(all.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(cache: &Cache, bytes: usize) -> PathBuf {
        let made = cache.work("test").unwrap();
        fs::write(made.join(COMPILED_GRAPH), vec![7u8; bytes]).unwrap();
        made
    }

    #[test]
    fn a_damaged_graph_is_deleted_and_never_given_out() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().join("compiled"), 1000);
        assert!(cache.keep("a", &made(&cache, 400)).unwrap());
        let graph = cache.graph("a").expect("kept");
        fs::write(&graph, [8u8; 400]).unwrap();
        assert_eq!(cache.graph("a"), None);
        assert!(!graph.exists());
        assert_eq!(cache.graph("never made"), None);
    }

    #[test]
    fn what_was_used_longest_ago_goes_when_there_is_too_much() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().join("compiled"), 1000);
        let old = SystemTime::UNIX_EPOCH;
        for (key, bytes) in [("a", 400), ("b", 400)] {
            assert!(cache.keep(key, &made(&cache, bytes)).unwrap());
            let place = fs::File::open(dir.path().join("compiled").join(key)).unwrap();
            place.set_modified(old).unwrap();
        }
        assert!(cache.graph("a").is_some(), "used now");
        assert!(cache.keep("c", &made(&cache, 400)).unwrap());
        assert!(cache.graph("a").is_some() && cache.graph("c").is_some());
        assert_eq!(cache.graph("b"), None);
        assert!(
            !cache.keep("d", &made(&cache, 1001)).unwrap(),
            "larger than all that may be kept"
        );
        assert!(cache.graph("a").is_some());
    }
}
