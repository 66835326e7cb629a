//! The directory that bundles lie in, and how one comes into it and goes out of it in a single step.
//!
//! One process at a time changes it, held by a lock on the directory itself, which leaves no file. What is being made or taken away has a
//! name that no bundle can have, so the daemon never sees a part.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, Flock, FlockArg, RenameFlags, renameat2},
    sys::statvfs::statvfs,
};

use super::{Existing, InstallError, check_name};

/// What stands before the name of a bundle on its way in.
const ADDING: &str = ".adding-";
/// What stands before the name of a bundle on its way out.
const REMOVING: &str = ".removing-";

/// A directory of bundles that nobody else changes meanwhile.
#[derive(Debug)]
pub(super) struct Place {
    dir: PathBuf,
    _lock: Flock<File>,
}

/// A bundle in the making. Dropped, it is gone.
#[derive(Debug)]
pub(super) struct Staging<'p> {
    place: &'p Place,
    name: String,
}

/// A bundle that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// Where it was.
    pub dir: PathBuf,
}

/// Takes the bundle `name` out of `dir`. It need not be a sound one: a damaged bundle can be removed, too.
///
/// # Errors
/// [`InstallError::Name`], [`InstallError::Absent`], [`InstallError::Busy`], [`InstallError::Io`].
pub fn remove(name: &str, dir: &Path) -> Result<Removed, InstallError> {
    check_name(name)?;
    let absent = || InstallError::Absent {
        name: name.to_owned(),
        dir: dir.to_owned(),
    };
    if !dir.is_dir() {
        return Err(absent());
    }
    let place = Place::open(dir)?;
    let from = dir.join(name);
    let gone = dir.join(format!("{REMOVING}{name}"));
    match fs::rename(&from, &gone) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(absent()),
        Err(error) => return Err(InstallError::io("remove", &from)(error)),
    }
    sync(&place.dir)?;
    delete(&gone).map_err(InstallError::io("delete", &gone))?;
    Ok(Removed { dir: from })
}

/// Deletes what interrupted calls left in `dir`. For a process that has given up its own call and is about to end; every other call does
/// it by itself.
pub fn sweep(dir: &Path) {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(ADDING) || name.starts_with(REMOVING) {
            // What cannot be deleted is in nobody's way.
            let _ = delete(&entry.path());
        }
    }
}

/// A link goes, not what it leads to.
fn delete(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}

impl Place {
    pub(super) fn open(dir: &Path) -> Result<Self, InstallError> {
        make_dir(dir).map_err(InstallError::io("make", dir))?;
        let handle = File::open(dir).map_err(InstallError::io("open", dir))?;
        let lock = Flock::lock(handle, FlockArg::LockExclusiveNonblock);
        let lock = lock.map_err(|(_, error)| match error {
            Errno::EWOULDBLOCK => InstallError::Busy {
                dir: dir.to_owned(),
            },
            error => InstallError::io("lock", dir)(error.into()),
        })?;
        sweep(dir);
        Ok(Self {
            dir: dir.to_owned(),
            _lock: lock,
        })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        fs::symlink_metadata(self.dir.join(name)).is_ok()
    }

    /// Bytes that the caller may still write.
    pub(super) fn free_bytes(&self) -> Result<u64, InstallError> {
        let facts = statvfs(&self.dir)
            .map_err(|error| InstallError::io("look at", &self.dir)(error.into()))?;
        #[expect(
            clippy::useless_conversion,
            reason = "the types differ from one machine to another"
        )]
        let (blocks, size) = (
            u64::from(facts.blocks_available()),
            u64::from(facts.fragment_size()),
        );
        Ok(blocks.saturating_mul(size))
    }

    pub(super) fn stage(&self, name: &str) -> Result<Staging<'_>, InstallError> {
        let staging = Staging {
            place: self,
            name: name.to_owned(),
        };
        let dir = staging.bundle();
        make_dir(&dir).map_err(InstallError::io("make", &dir))?;
        Ok(staging)
    }
}

impl Staging<'_> {
    fn outer(&self) -> PathBuf {
        self.place.dir.join(format!("{ADDING}{}", self.name))
    }

    /// The bundle's directory, under its own name.
    pub(super) fn bundle(&self) -> PathBuf {
        self.outer().join(&self.name)
    }

    /// Where a file goes; the directories above it are made.
    pub(super) fn path(&self, file: &str) -> Result<PathBuf, InstallError> {
        let path = self.bundle().join(file);
        if let Some(parent) = path.parent() {
            make_dir(parent).map_err(InstallError::io("make", parent))?;
        }
        Ok(path)
    }

    /// Puts it in its place, on the disk; true when another gave way.
    pub(super) fn commit(self, existing: Existing) -> Result<bool, InstallError> {
        let (from, to) = (self.bundle(), self.place.dir.join(&self.name));
        for dir in directories(&from).map_err(InstallError::io("read", &from))? {
            sync(&dir)?;
        }
        let move_by = |flags| {
            renameat2(AT_FDCWD, &from, AT_FDCWD, &to, flags).map_err(|error| {
                (
                    error,
                    InstallError::io("move into place", &to)(error.into()),
                )
            })
        };
        let has_replaced = match move_by(RenameFlags::RENAME_NOREPLACE) {
            Ok(()) => false,
            Err((Errno::EEXIST, _)) if existing == Existing::Replace => {
                move_by(RenameFlags::RENAME_EXCHANGE).map_err(|(_, error)| error)?;
                true
            }
            Err((Errno::EEXIST, _)) => return Err(InstallError::Exists { dir: to }),
            Err((_, error)) => return Err(error),
        };
        sync(&self.place.dir)?;
        Ok(has_replaced)
    }
}

impl Drop for Staging<'_> {
    /// After a replacement, the old bundle is what is deleted here.
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(self.outer()) {
            tracing::debug!(%error, dir = %self.outer().display(), "swept away by the next call");
        }
    }
}

/// A directory that everybody may read, whatever the caller's mask; one that is there stays as it is.
fn make_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        make_dir(parent)?;
    }
    match DirBuilder::new().mode(0o755).create(dir) {
        Ok(()) => fs::set_permissions(dir, Permissions::from_mode(0o755)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// A directory and all below it.
fn directories(root: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::from([root.to_owned()]);
    let mut waiting = vec![root.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(&next)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                found.insert(entry.path());
                waiting.push(entry.path());
            }
        }
    }
    Ok(found)
}

fn sync(dir: &Path) -> Result<(), InstallError> {
    File::open(dir)
        .and_then(|handle| handle.sync_all())
        .map_err(InstallError::io("sync", dir))
}
