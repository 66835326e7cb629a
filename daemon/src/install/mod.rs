//! Putting bundles where the daemon finds them, and taking them away: whole or not at all.
//!
//! A bundle comes from a directory or from a repository of a hub ([`source`], [`hub`]). Its `model.toml` is read and checked first, then the free
//! space; every file is written beside its place, counted and hashed on its way, and the directory is renamed into place when all of it is on
//! the disk ([`place`]). What an interruption leaves behind is swept away by the next call.
//!
//! Never: a file that `model.toml` does not name; a link, or a name that leads out of the bundle; a graph that is opened. Whether a model computes
//! the right thing is the daemon's to say, who tries it before it serves. Everything here blocks: for threads of their own.

use std::{
    fs::File,
    io::{self, Read, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::inference::{
    bundle::{Bundle, BundleError, MANIFEST_FILE},
    manifest::FileFacts,
};

pub mod hub;
pub mod place;
pub mod source;
mod transfer;

pub use self::{
    hub::{HubError, RepositoryId},
    place::{Removed, remove, sweep},
    source::Source,
};
use self::{place::Place, source::Origin};
pub use crate::inference::manifest::Task;

/// Space that is left for others when a bundle is added.
const ROOM_LEFT_BYTES: u64 = 64 << 20;

/// Longest name of a bundle. Chosen because some file systems allow no more than 143 bytes for a name, and ours puts a prefix before it.
const NAME_BYTES_MAX: usize = 96;

const CHUNK_BYTES: usize = 256 << 10;

/// Told how far the work has come, and asked whether it is still wanted.
pub trait Watch {
    /// So many bytes are to come.
    fn begin(&mut self, name: &str, bytes: u64);
    /// So many more bytes are there.
    fn advance(&mut self, bytes: u64);
    /// Whether to give up.
    fn is_cancelled(&self) -> bool;
}

/// A bundle that is in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// Its name.
    pub name: String,
    /// What it does.
    pub task: Task,
    /// Where it is.
    pub dir: PathBuf,
    /// Files besides `model.toml`.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Whether another of the same name gave way.
    pub has_replaced: bool,
}

/// What becomes of a bundle of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and nothing is added.
    Keep,
    /// It gives way, in one step.
    Replace,
}

/// Why a bundle was not added or removed. Nothing has changed then.
#[derive(Debug, Error)]
pub enum InstallError {
    /// Neither a directory nor the name of a repository.
    #[error("{given:?} is neither a directory nor OWNER/REPOSITORY")]
    Source {
        /// What was given.
        given: String,
    },
    /// There is nothing that says what the files are.
    #[error("{origin} has no {MANIFEST_FILE}")]
    NoManifest {
        /// Directory or repository.
        origin: String,
    },
    /// `model.toml`, or the files that it names, cannot be used.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A name that a bundle cannot have.
    #[error(
        "the name {name:?} cannot be a bundle's: A-Z a-z 0-9 . _ -, beginning with a letter or digit, at most {NAME_BYTES_MAX}"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// A file is a link out of the directory, or no file at all.
    #[error("{} is no plain file inside {}", path.display(), root.display())]
    NotPlain {
        /// The file.
        path: PathBuf,
        /// The directory.
        root: PathBuf,
    },
    /// A file that came is not the one that `model.toml` names.
    #[error("{file} of {origin} is not what its {MANIFEST_FILE} says: {what}")]
    Content {
        /// Directory or repository.
        origin: String,
        /// The file.
        file: String,
        /// Size or digest, expected and seen.
        what: String,
    },
    /// The disk has not enough room.
    #[error(
        "{name} needs {needed} bytes and {ROOM_LEFT_BYTES} more for others, {} has {free}",
        dir.display()
    )]
    NoRoom {
        /// The bundle.
        name: String,
        /// Bytes of its files.
        needed: u64,
        /// Bytes that may be written.
        free: u64,
        /// Where it was to go.
        dir: PathBuf,
    },
    /// There is one of this name.
    #[error("{} is there already", dir.display())]
    Exists {
        /// The bundle.
        dir: PathBuf,
    },
    /// There is none of this name.
    #[error("there is no bundle {name:?} in {}", dir.display())]
    Absent {
        /// The name.
        name: String,
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// Somebody else adds or removes bundles there at this moment.
    #[error("bundles in {} are being changed by another process", dir.display())]
    Busy {
        /// The directory of bundles.
        dir: PathBuf,
    },
    /// The hub, or the way there.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// A file or directory could not be read or written.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// `read`, `write` and so on.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It was given up.
    #[error("interrupted; nothing was added")]
    Cancelled,
}

impl InstallError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }

    /// Whether the caller has not the rights that it takes.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// Puts the bundle from `source` into the directory `dir`, which is made if it is not there.
///
/// # Errors
/// [`InstallError`]; nothing has changed then, and nothing is left behind.
pub fn add(
    source: &Source,
    dir: &Path,
    existing: Existing,
    watch: &mut dyn Watch,
) -> Result<Added, InstallError> {
    let origin = Origin::open(source)?;
    let announced = Bundle::announced(dir, &origin.path_of(MANIFEST_FILE), origin.manifest()?)?;
    let name = announced.manifest().name.clone();
    check_name(&name)?;
    let files = &announced.manifest().files;
    origin.check_names(files.keys())?;
    let bytes = files
        .values()
        .fold(0u64, |sum, facts| sum.saturating_add(facts.bytes));
    let place = Place::open(dir)?;
    if existing == Existing::Keep && place.has(&name) {
        return Err(InstallError::Exists {
            dir: dir.join(&name),
        });
    }
    let free = place.free_bytes()?;
    if bytes.saturating_add(ROOM_LEFT_BYTES) > free {
        return Err(InstallError::NoRoom {
            name,
            needed: bytes,
            free,
            dir: dir.to_owned(),
        });
    }
    let staging = place.stage(&name)?;
    watch.begin(&name, bytes);
    for (file, facts) in files {
        let to = staging.path(file)?;
        let content = origin.read(file, facts.bytes)?;
        take(content, &to, facts, watch).map_err(|problem| problem.of(&origin, file, &to))?;
    }
    // Last, as the sign that the rest is there.
    let to = staging.path(MANIFEST_FILE)?;
    write(&to, &origin.manifest()?).map_err(InstallError::io("write", &to))?;
    // Once more as the daemon will, and from what was written.
    Bundle::open(&staging.bundle())?;
    if watch.is_cancelled() {
        return Err(InstallError::Cancelled);
    }
    let has_replaced = staging.commit(existing)?;
    Ok(Added {
        task: announced.manifest().task,
        dir: dir.join(&name),
        files: files.len(),
        bytes,
        has_replaced,
        name,
    })
}

/// Whether a bundle may have this name.
///
/// # Errors
/// [`InstallError::Name`].
pub fn check_name(name: &str) -> Result<(), InstallError> {
    let is_usual = |letter: u8| letter.is_ascii_alphanumeric() || b"._-".contains(&letter);
    let is_good = name.len() <= NAME_BYTES_MAX
        && name.bytes().all(is_usual)
        && name
            .bytes()
            .next()
            .is_some_and(|first| first.is_ascii_alphanumeric());
    match is_good {
        true => Ok(()),
        false => Err(InstallError::Name {
            name: name.to_owned(),
        }),
    }
}

/// What went wrong with one file, before it is known whose it is.
enum Problem {
    Read(io::Error),
    Write(io::Error),
    Content(String),
    Cancelled,
}

impl Problem {
    fn of(self, origin: &Origin, file: &str, to: &Path) -> InstallError {
        match self {
            Self::Read(source) => origin.unreadable(file, source),
            Self::Write(source) => InstallError::Io {
                what: "write",
                path: to.to_owned(),
                source,
            },
            Self::Content(what) => InstallError::Content {
                origin: origin.to_string(),
                file: file.to_owned(),
                what,
            },
            Self::Cancelled => InstallError::Cancelled,
        }
    }
}

/// Writes a file and syncs it; never more than was promised.
fn take(
    mut content: impl Read,
    to: &Path,
    facts: &FileFacts,
    watch: &mut dyn Watch,
) -> Result<(), Problem> {
    let mut file = create(to).map_err(Problem::Write)?;
    let (mut hasher, mut count) = (Sha256::new(), 0u64);
    let mut chunk = vec![0u8; CHUNK_BYTES];
    loop {
        if watch.is_cancelled() {
            return Err(Problem::Cancelled);
        }
        let read = match content.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => &chunk[..read],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Problem::Read(error)),
        };
        count += read.len() as u64;
        if count > facts.bytes {
            return Err(Problem::Content(format!(
                "it is longer than {} bytes",
                facts.bytes
            )));
        }
        hasher.update(read);
        file.write_all(read).map_err(Problem::Write)?;
        watch.advance(read.len() as u64);
    }
    if count < facts.bytes {
        return Err(Problem::Content(format!(
            "it has {count} bytes, expected {}",
            facts.bytes
        )));
    }
    let actual = hex::encode(hasher.finalize());
    if actual != facts.sha256 {
        return Err(Problem::Content(format!(
            "its SHA-256 is {actual}, expected {}",
            facts.sha256
        )));
    }
    file.sync_all().map_err(Problem::Write)
}

fn write(to: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = create(to)?;
    file.write_all(content)?;
    file.sync_all()
}

/// A new file that everybody may read, whatever the caller's mask: the daemon is another user.
fn create(to: &Path) -> io::Result<File> {
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(to)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundles_name_is_one_plain_word() {
        for good in ["silero-vad", "a", "Qwen2.5-0.5B_int4"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        let long = "a".repeat(NAME_BYTES_MAX + 1);
        for bad in ["", ".", "..", ".hidden", "a/b", "a b", "ä", "-x", &long] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
