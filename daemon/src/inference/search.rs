//! Where bundles are, and whether one has changed since it was last looked at. Reads directories, never a bundle's files.

use std::{
    fs,
    path::{Component, Path, PathBuf},
    time::SystemTime,
};

use super::{bundle::MANIFEST_FILE, runtime::cache_dir};

/// Where bundles are looked for when the configuration names no directory, in order: what the user fetched, what an
/// administrator put there, what a package installed.
pub fn standard_dirs() -> Vec<PathBuf> {
    let fetched = cache_dir().map(|cache| cache.join("autoglm-edge/models"));
    let installed = [
        "/var/lib/autoglm-edge/models",
        "/usr/share/autoglm-edge/models",
    ]
    .map(PathBuf::from);
    fetched.into_iter().chain(installed).collect()
}

/// Looks for the bundle `name` in `dirs`, in order. `Err` holds the places that were looked at.
///
/// # Errors
/// The list of `model.toml` paths that do not exist, when none does; it is empty for a name that is no plain directory name.
pub fn locate(name: &str, dirs: &[PathBuf]) -> Result<PathBuf, Vec<PathBuf>> {
    let mut looked = Vec::with_capacity(dirs.len());
    if !is_plain(name) {
        return Err(looked);
    }
    for dir in dirs {
        let candidate = dir.join(name);
        let manifest = candidate.join(MANIFEST_FILE);
        if manifest.is_file() {
            return Ok(candidate);
        }
        looked.push(manifest);
    }
    Err(looked)
}

fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name)
}

/// What a bundle looked like from outside at one moment. A bundle that was refused is tried again only when this changes, so
/// that a broken 100 MB file is not hashed every few seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint(Vec<(PathBuf, u64, Option<SystemTime>)>);

impl Fingerprint {
    /// Sizes and modification times of everything directly in `dir`; what cannot be read is left out.
    pub fn of(dir: &Path) -> Self {
        let mut entries: Vec<_> = fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let facts = fs::metadata(entry.path()).ok()?;
                Some((entry.path(), facts.len(), facts.modified().ok()))
            })
            .collect();
        entries.sort();
        Self(entries)
    }
}
