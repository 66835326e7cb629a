//! Where a bundle comes from: a directory of this machine, or a repository of a hub.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{
    InstallError,
    hub::{Hub, Repository, RepositoryId},
};
use crate::inference::bundle::{MANIFEST_BYTES_MAX, MANIFEST_FILE};

/// Where from, as a person says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A directory with a `model.toml`.
    Directory(PathBuf),
    /// A repository, and a branch, tag or commit of it.
    Repository(RepositoryId, Option<String>),
}

impl Source {
    /// What `given` means: a directory if there is one, else a repository's name. What begins with `.`, `/` or `~` is never looked for elsewhere.
    ///
    /// # Errors
    /// [`InstallError::Source`], and [`HubError::Revision`](super::HubError::Revision).
    pub fn of(given: &str, revision: Option<&str>) -> Result<Self, InstallError> {
        let path = Path::new(given);
        if path.is_dir() && revision.is_none() {
            return Ok(Self::Directory(path.to_owned()));
        }
        let unknown = || InstallError::Source {
            given: given.to_owned(),
        };
        if given.starts_with(['.', '/', '~']) {
            return Err(unknown());
        }
        let id = RepositoryId::new(given).ok_or_else(unknown)?;
        let revision = revision.map(super::hub::check_revision).transpose()?;
        Ok(Self::Repository(id, revision))
    }
}

/// A source that is being read.
pub(super) enum Origin {
    Directory { root: PathBuf, manifest: Vec<u8> },
    Repository(Box<Repository>),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory { root, .. } => write!(f, "{}", root.display()),
            Self::Repository(repository) => write!(f, "{repository}"),
        }
    }
}

impl Origin {
    /// Reads the `model.toml`.
    pub(super) fn open(source: &Source) -> Result<Self, InstallError> {
        match source {
            Source::Directory(dir) => {
                let root = dir.canonicalize().map_err(InstallError::io("read", dir))?;
                let path = root.join(MANIFEST_FILE);
                if !path.exists() {
                    return Err(InstallError::NoManifest {
                        origin: dir.display().to_string(),
                    });
                }
                let mut manifest = Vec::new();
                plain(&root, MANIFEST_FILE)?
                    .take(MANIFEST_BYTES_MAX)
                    .read_to_end(&mut manifest)
                    .map_err(InstallError::io("read", &path))?;
                Ok(Self::Directory { root, manifest })
            }
            Source::Repository(id, revision) => {
                let repository = Hub::from_env()?.open(id, revision.as_deref())?;
                Ok(Self::Repository(Box::new(repository)))
            }
        }
    }

    pub(super) fn manifest(&self) -> Result<Vec<u8>, InstallError> {
        match self {
            Self::Directory { manifest, .. } => Ok(manifest.clone()),
            Self::Repository(repository) => Ok(repository.manifest().to_vec()),
        }
    }

    /// A file of it, for errors.
    pub(super) fn path_of(&self, file: &str) -> PathBuf {
        match self {
            Self::Directory { root, .. } => root.join(file),
            Self::Repository(repository) => Path::new(&repository.to_string()).join(file),
        }
    }

    /// Whether all files can be asked for at all.
    pub(super) fn check_names<'n>(
        &self,
        mut names: impl Iterator<Item = &'n String>,
    ) -> Result<(), InstallError> {
        match self {
            Self::Directory { .. } => Ok(()),
            Self::Repository(repository) => {
                names.try_for_each(|name| Ok(repository.check_file(name)?))
            }
        }
    }

    /// The content of a file that should have so many bytes.
    pub(super) fn read(&self, file: &str, bytes: u64) -> Result<Box<dyn Read + '_>, InstallError> {
        match self {
            Self::Directory { root, .. } => Ok(Box::new(plain(root, file)?)),
            Self::Repository(repository) => Ok(Box::new(repository.read(file, Some(bytes)))),
        }
    }

    /// A file that broke off.
    pub(super) fn unreadable(&self, file: &str, source: io::Error) -> InstallError {
        match self {
            Self::Directory { root, .. } => InstallError::io("read", &root.join(file))(source),
            Self::Repository(repository) => repository.broken(file, source).into(),
        }
    }
}

/// Opens a file that lies in `root` itself: no device, no pipe, and no link that leads out. Whatever it is exchanged for meanwhile, only
/// what has the digest that `model.toml` names is taken.
fn plain(root: &Path, file: &str) -> Result<File, InstallError> {
    let path = root.join(file);
    let real = path
        .canonicalize()
        .map_err(InstallError::io("read", &path))?;
    if !real.starts_with(root) || !real.is_file() {
        return Err(InstallError::NotPlain {
            path,
            root: root.to_owned(),
        });
    }
    File::open(&real).map_err(InstallError::io("read", &path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_never_taken_for_a_repository() {
        for path in ["./no/such", "/no/such", "~/no", "../x"] {
            assert!(
                matches!(Source::of(path, None), Err(InstallError::Source { .. })),
                "{path}"
            );
        }
        let dir = tempfile::tempdir().unwrap();
        let given = dir.path().to_str().unwrap();
        assert_eq!(
            Source::of(given, None).unwrap(),
            Source::Directory(dir.path().into())
        );
        let id = RepositoryId::new("owner/repo").unwrap();
        assert_eq!(
            Source::of("owner/repo", Some("v1")).unwrap(),
            Source::Repository(id, Some("v1".into()))
        );
    }
}
