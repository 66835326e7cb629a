//! ONNX Runtime itself: found and loaded while the daemon runs, never linked.
//!
//! Reads the file system and loads one library; knows nothing of models. A [`Runtime`] also says where the sessions that are opened with it
//! run, so that an engine need not know. A failed load leaves nothing behind and is simply
//! tried again later, which is how the daemon recovers when the file appears.
//!
//! The one piece of process-wide state in the daemon is here, because it is process-wide in the library underneath: ONNX
//! Runtime allows one environment per process and `ort` (2.0.0-rc.15, `environment.rs`) refuses a second one even after the
//! first was dropped. So the first that loads is kept for good, and everybody gets clones of it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use ort::{environment::Environment, logging::LogLevel};
use thiserror::Error;

use super::providers::Placement;

/// The library's file name on Linux.
const LIBRARY: &str = "libonnxruntime.so";

/// What a person can do about a missing runtime. Shown in the status and in the log.
pub const REMEDY: &str =
    "run `make models`, or set inference.runtime_path to an ONNX Runtime 1.23 or newer";

static LOADED: Mutex<Option<Runtime>> = Mutex::new(None);

/// A loaded ONNX Runtime. Clones share the process's one environment.
#[derive(Debug, Clone)]
pub struct Runtime {
    environment: Environment,
    path: Arc<Path>,
    build: Arc<str>,
    placement: Arc<Placement>,
    /// Provider libraries in this process, with the digest of what was loaded: ONNX Runtime lets none go.
    libraries: Arc<Mutex<BTreeMap<PathBuf, String>>>,
}

/// Why there is no ONNX Runtime.
#[derive(Debug, Error)]
pub enum RuntimeError {
    /// No file at any of the places.
    #[error("ONNX Runtime was not found (looked for {})", list(looked))]
    Missing {
        /// Every path that was tried, in order.
        looked: Vec<PathBuf>,
    },
    /// The configured path is relative; it would depend on where the daemon was started.
    #[error("the runtime path {} is not absolute", path.display())]
    Relative {
        /// The configured path.
        path: PathBuf,
    },
    /// The file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is not a whole 64-bit ELF library: an interrupted download or copy.
    #[error("{} is not a complete shared library ({actual_bytes} bytes)", path.display())]
    Incomplete {
        /// The file.
        path: PathBuf,
        /// Its size.
        actual_bytes: u64,
    },
    /// The dynamic linker refused it, or it is too old.
    #[error("{} cannot be loaded", path.display())]
    Unloadable {
        /// The file.
        path: PathBuf,
        /// What the loader said.
        #[source]
        source: ort::LoadDynamicError,
    },
    /// The library loaded but would not start.
    #[error("ONNX Runtime from {} would not start", path.display())]
    Start {
        /// The file.
        path: PathBuf,
        /// What the library said.
        #[source]
        source: ort::Error,
    },
}

impl RuntimeError {
    /// The places that were tried.
    pub fn looked(&self) -> Vec<PathBuf> {
        match self {
            Self::Missing { looked } => looked.clone(),
            Self::Relative { path }
            | Self::Read { path, .. }
            | Self::Incomplete { path, .. }
            | Self::Unloadable { path, .. }
            | Self::Start { path, .. } => vec![path.clone()],
        }
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths
        .iter()
        .map(|path| path.display().to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

impl Runtime {
    /// Loads ONNX Runtime from `explicit`, or from the first of the [standard places](standard_places) that has it. When it is
    /// loaded already, returns that one, wherever it came from ([`path`](Self::path) tells).
    ///
    /// # Errors
    /// [`RuntimeError`]; all are worth trying again when the files have changed.
    pub fn load(explicit: Option<&Path>) -> Result<Self, RuntimeError> {
        // A poisoned lock means that a load panicked, and then nothing was stored: the content is sound.
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = &*loaded {
            return Ok(runtime.clone());
        }
        let candidates = explicit.map_or_else(|| Ok(standard_places()), check_explicit)?;
        let Some(path) = candidates.iter().find(|path| path.is_file()) else {
            return Err(RuntimeError::Missing { looked: candidates });
        };
        check_complete(path)?;
        let builder = ort::init_from(path).map_err(|source| RuntimeError::Unloadable {
            path: path.clone(),
            source,
        })?;
        let environment = builder
            .with_name("autoglm-edge")
            .with_telemetry(false)
            .with_logger(Arc::new(forward_log))
            .build()
            .map_err(|source| RuntimeError::Start {
                path: path.clone(),
                source,
            })?;
        environment.set_log_level(LogLevel::Warning);
        let runtime = Self {
            environment,
            path: path.as_path().into(),
            build: ort::info().into(),
            placement: Arc::new(Placement::cpu()),
            libraries: Arc::default(),
        };
        *loaded = Some(runtime.clone());
        Ok(runtime)
    }

    /// The process's environment, for building sessions.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The same, for sessions that run at `placement`.
    #[must_use]
    pub fn placed(&self, placement: Placement) -> Self {
        Self {
            placement: Arc::new(placement),
            ..self.clone()
        }
    }

    /// Registers a provider's library, once in the life of the process.
    ///
    /// # Errors
    /// What ONNX Runtime says; and that another version of the file is in the process already, which only a restart changes.
    pub(super) fn register(&self, library: &Path, name: String, digest: &str) -> ort::Result<()> {
        let mut libraries = self
            .libraries
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match libraries.get(library) {
            Some(loaded) if loaded == digest => Ok(()),
            Some(_) => Err(ort::Error::new(
                "another version of the file is loaded; the daemon must be started again",
            )),
            None => {
                self.environment.register_ep_library(name, library)?;
                libraries.insert(library.to_owned(), digest.to_owned());
                Ok(())
            }
        }
    }

    /// Where its sessions run; the CPU provider unless [`placed`](Self::placed) said otherwise.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// The file it came from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The library's own description of its build, which names its version.
    pub fn build(&self) -> &str {
        &self.build
    }
}

fn check_explicit(path: &Path) -> Result<Vec<PathBuf>, RuntimeError> {
    if path.is_relative() {
        Err(RuntimeError::Relative { path: path.into() })
    } else {
        Ok(vec![path.into()])
    }
}

/// Where the library is looked for when the configuration names no path, in order: what the user fetched, what a package
/// or an administrator installed, what the distribution carries. Never the state directory: the unit lets no code be loaded from where
/// the daemon can write, and a library there would keep the package's from being found. Entries with a version in the path come newest first.
pub fn standard_places() -> Vec<PathBuf> {
    let mut places = Vec::new();
    let fetched = cache_dir().map(|cache| cache.join("autoglm-edge/runtime"));
    let package = Some(PathBuf::from("/usr/lib/autoglm-edge/runtime"));
    for parent in [fetched, package].into_iter().flatten() {
        let versions = newest_first(&parent);
        if versions.is_empty() {
            // Named although it matches nothing, so that the error says where a file would have been found.
            places.push(parent.join("*").join(LIBRARY));
        }
        places.extend(versions.into_iter().map(|dir| dir.join(LIBRARY)));
    }
    let multiarch = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    for dir in ["/usr/local/lib", &multiarch, "/usr/lib64", "/usr/lib"] {
        places.push(Path::new(dir).join(LIBRARY));
    }
    places
}

/// The user's cache directory by the XDG base directory specification 0.8: `$XDG_CACHE_HOME` if absolute, else `~/.cache`.
pub fn cache_dir() -> Option<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))
}

fn newest_first(parent: &Path) -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    dirs.sort_by_cached_key(|dir| {
        let name = dir
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let version: Vec<u64> = name
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|part| part.parse().ok())
            .collect();
        std::cmp::Reverse((version, name))
    });
    dirs
}

/// Refuses a file whose ELF section table lies beyond its end. The linker maps a library without reading it, so a file that is
/// still being copied would load and then kill the process with SIGBUS at the first missing page.
fn check_complete(path: &Path) -> Result<(), RuntimeError> {
    let read = |source| RuntimeError::Read {
        path: path.into(),
        source,
    };
    let mut file = File::open(path).map_err(read)?;
    let actual_bytes = file.metadata().map_err(read)?.len();
    let incomplete = || RuntimeError::Incomplete {
        path: path.into(),
        actual_bytes,
    };
    // System V ABI, ELF-64 header (64 bytes): magic, class at 4, data at 5, e_shoff u64 at 40, e_shentsize u16 at 58, e_shnum
    // u16 at 60.
    let mut header = [0u8; 64];
    file.read_exact(&mut header).map_err(|_| incomplete())?;
    if header[..6] != *b"\x7fELF\x02\x01" {
        return Err(incomplete());
    }
    let field = |at: usize| u64::from(u16::from_le_bytes([header[at], header[at + 1]]));
    let table_at = u64::from_le_bytes(
        header[40..48]
            .try_into()
            .expect("a slice of 8 bytes is an array of 8 bytes"),
    );
    let table_end = table_at.saturating_add(field(58) * field(60));
    if table_at == 0 || table_end > actual_bytes {
        Err(incomplete())
    } else {
        Ok(())
    }
}

fn forward_log(level: LogLevel, category: &str, _id: &str, at: &str, message: &str) {
    match level {
        LogLevel::Error | LogLevel::Fatal => {
            tracing::error!(target: "onnxruntime", category, at, "{message}")
        }
        LogLevel::Warning => tracing::warn!(target: "onnxruntime", category, at, "{message}"),
        LogLevel::Info => tracing::debug!(target: "onnxruntime", category, at, "{message}"),
        LogLevel::Verbose => tracing::trace!(target: "onnxruntime", category, at, "{message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_is_looked_at_first() {
        let parent = tempfile::tempdir().unwrap();
        for name in [
            "onnxruntime-1.9.0",
            "onnxruntime-1.31.1",
            "onnxruntime-1.31.0",
        ] {
            fs::create_dir(parent.path().join(name)).unwrap();
        }
        fs::write(
            parent.path().join("onnxruntime-9.0.0"),
            "a file, not a directory",
        )
        .unwrap();
        let names: Vec<_> = newest_first(parent.path())
            .iter()
            .map(|dir| dir.file_name().unwrap().to_owned())
            .collect();
        assert_eq!(
            names,
            [
                "onnxruntime-1.31.1",
                "onnxruntime-1.31.0",
                "onnxruntime-1.9.0"
            ]
        );
    }

    #[test]
    fn a_relative_path_is_refused_before_anything_is_loaded() {
        let error = check_explicit(Path::new("lib/libonnxruntime.so")).unwrap_err();
        assert!(matches!(error, RuntimeError::Relative { .. }), "{error}");
    }
}
