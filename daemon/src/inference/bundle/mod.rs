//! A model bundle on disk: a directory whose `model.toml` names every other file with its size and SHA-256.
//!
//! [`Bundle::open`] parses and checks what `model.toml` says (shape of the data, sizes of
//! the files, no path that leaves the directory), [`Bundle::verify`] compares the digests. It never loads a graph and never
//! changes a file. The format is in [`manifest`](super::manifest); [`search`](super::search) finds bundles.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Component, Path, PathBuf},
};

use sha2::{Digest, Sha256};
use thiserror::Error;

use super::manifest::{ChatGraph, FORMAT, Graph, Manifest, Task};

mod check;

/// The file that makes a directory a bundle.
pub const MANIFEST_FILE: &str = "model.toml";

/// Longest `model.toml` that is read. Chosen because the largest of ours, which lists 124 tensors, has some 12 kB.
pub const MANIFEST_BYTES_MAX: u64 = 1 << 20;

/// Largest probe that is read; the probes are a few kB, one second of sound as JSON some 300 kB.
const PROBE_BYTES_MAX: u64 = 16 << 20;

/// Bound on every count in a graph (layers, heads, ...), so that no product of them overflows and no typing error in a
/// `model.toml` becomes an allocation. Far above any model that fits an edge box.
const COUNT_MAX: usize = 1 << 20;

/// A bundle that was opened: its data makes sense and its files exist with the stated sizes.
#[derive(Debug, Clone)]
pub struct Bundle {
    dir: PathBuf,
    manifest: Manifest,
}

/// Why a bundle cannot be used. Every variant names the file at fault.
#[derive(Debug, Error)]
pub enum BundleError {
    /// A file could not be read at all.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// `model.toml` is not what [`Manifest`] describes.
    #[error("{} is not a valid model.toml", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, key and expectation.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// `model.toml` is of a format that this daemon does not know.
    #[error("{} has format {actual}, this daemon reads format {expected}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// [`FORMAT`].
        expected: u32,
        /// What the file says.
        actual: u32,
    },
    /// A value in `model.toml` contradicts another, or is out of range.
    #[error("{}: {key} is {actual}, expected {expected}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key at fault.
        key: String,
        /// What would be right.
        expected: String,
        /// What the file says.
        actual: String,
    },
    /// A path in `model.toml` leads out of the bundle.
    #[error("{}: the file name {name:?} leads out of the bundle", path.display())]
    Escapes {
        /// The `model.toml`.
        path: PathBuf,
        /// The name as written, or where its link leads.
        name: String,
    },
    /// A file has another size than `model.toml` says: an interrupted copy, most often.
    #[error("{} has {actual} bytes, expected {expected}", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Bytes by `model.toml`.
        expected: u64,
        /// Bytes on disk.
        actual: u64,
    },
    /// A file's content is not what `model.toml` says.
    #[error("{} has SHA-256 {actual}, expected {expected}", path.display())]
    Digest {
        /// The file.
        path: PathBuf,
        /// Digest by `model.toml`.
        expected: String,
        /// Digest of what is on disk.
        actual: String,
    },
}

impl Bundle {
    /// Reads `dir/model.toml` and checks all that can be checked without reading the large files.
    ///
    /// # Errors
    /// Every [`BundleError`] but [`BundleError::Digest`].
    pub fn open(dir: &Path) -> Result<Self, BundleError> {
        let path = dir.join(MANIFEST_FILE);
        let bundle = Self {
            dir: dir.to_path_buf(),
            manifest: parse(&path, read_limited(&path, MANIFEST_BYTES_MAX)?)?,
        };
        bundle.check(&path)?;
        bundle.check_files(&path)?;
        Ok(bundle)
    }

    /// A bundle that is to come to lie in `parent`, by its `model.toml` alone: everything is checked that needs no other file. `origin` is
    /// where the text came from, for errors.
    ///
    /// # Errors
    /// [`BundleError::Syntax`], [`BundleError::Format`], [`BundleError::Value`], [`BundleError::Escapes`].
    pub fn announced(parent: &Path, origin: &Path, text: Vec<u8>) -> Result<Self, BundleError> {
        let manifest = parse(origin, text)?;
        let bundle = Self {
            dir: parent.join(&manifest.name),
            manifest,
        };
        bundle.check(origin)?;
        bundle.check_names(origin)?;
        Ok(bundle)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What `model.toml` says.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The path of a file of the bundle.
    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    /// Compares every file's SHA-256 with `model.toml`. Reads everything: about 0.1 s for 100 MB with SHA instructions, so
    /// this belongs on a loading thread.
    ///
    /// # Errors
    /// [`BundleError::Digest`] for the first file that differs, [`BundleError::Read`] for one that cannot be read.
    pub fn verify(&self) -> Result<(), BundleError> {
        for (name, facts) in &self.manifest.files {
            let path = self.path(name);
            let read = |source| BundleError::Read {
                path: path.clone(),
                source,
            };
            let mut hasher = Sha256::new();
            io::copy(&mut File::open(&path).map_err(read)?, &mut hasher).map_err(read)?;
            let actual = hex::encode(hasher.finalize());
            if actual != facts.sha256 {
                return Err(BundleError::Digest {
                    path,
                    expected: facts.sha256.clone(),
                    actual,
                });
            }
        }
        Ok(())
    }

    /// The probe's bytes.
    ///
    /// # Errors
    /// [`BundleError::Read`].
    pub fn probe_bytes(&self) -> Result<Vec<u8>, BundleError> {
        read_limited(&self.path(&self.manifest.probe.file), PROBE_BYTES_MAX)
    }

    fn check(&self, path: &Path) -> Result<(), BundleError> {
        let manifest = &self.manifest;
        if manifest.format != FORMAT {
            return Err(BundleError::Format {
                path: path.into(),
                expected: FORMAT,
                actual: manifest.format,
            });
        }
        let value = |key: &str, expected: String, actual: String| BundleError::Value {
            path: path.into(),
            key: key.into(),
            expected,
            actual,
        };
        let dir_name = self
            .dir
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if manifest.name != dir_name {
            return Err(value(
                "name",
                format!("the directory's name {dir_name:?}"),
                format!("{:?}", manifest.name),
            ));
        }
        if manifest.graph.task() != manifest.task {
            return Err(value(
                "graph.layout",
                format!("one for {}", manifest.task),
                format!("one for {}", manifest.graph.task()),
            ));
        }
        let mut references = vec![
            ("graph.file", manifest.graph.file()),
            ("probe.file", manifest.probe.file.as_str()),
        ];
        if let Graph::Whisper(graph) = &manifest.graph {
            references.push(("graph.decoder.file", graph.decoder.file.as_str()));
        }
        references.extend(
            manifest
                .tokenizer
                .as_ref()
                .map(|tokenizer| ("tokenizer.file", tokenizer.file.as_str())),
        );
        references.extend(
            manifest
                .template
                .as_ref()
                .map(|template| ("template.file", template.file.as_str())),
        );
        for (key, file) in references {
            if !manifest.files.contains_key(file) {
                return Err(value(
                    key,
                    "a file listed under [files]".into(),
                    format!("{file:?}"),
                ));
            }
        }
        let reads_text = matches!(manifest.task, Task::Chat | Task::Embedding | Task::Stt);
        if reads_text && manifest.tokenizer.is_none() {
            return Err(value("tokenizer", "a table".into(), "absent".into()));
        }
        if manifest.task == Task::Chat && manifest.template.is_none() {
            return Err(value("template", "a table".into(), "absent".into()));
        }
        for (key, count) in check::counts(&manifest.graph) {
            if count == 0 || count > COUNT_MAX {
                return Err(value(key, format!("1 to {COUNT_MAX}"), count.to_string()));
            }
        }
        if let Graph::Whisper(graph) = &manifest.graph {
            check::whisper(graph)
                .map_err(|(key, expected, actual)| value(&key, expected, actual))?;
        }
        if let Graph::Tensors(graph) = &manifest.graph {
            check::tensors(graph)
                .map_err(|(key, expected, actual)| value(&key, expected, actual))?;
        }
        if let Graph::Tts(graph) = &manifest.graph {
            check::voice(graph).map_err(|(key, expected, actual)| value(&key, expected, actual))?;
        }
        if let Some(ChatGraph { kv_type, .. }) = manifest.graph.chat()
            && !["f32", "f16", "i8"].contains(&kv_type.as_str())
        {
            return Err(value(
                "graph.kv_type",
                "\"f32\", \"f16\" or \"i8\"".into(),
                format!("{kv_type:?}"),
            ));
        }
        Ok(())
    }

    /// No name leads out of the bundle.
    fn check_names(&self, manifest_path: &Path) -> Result<(), BundleError> {
        let escapes = |name: &String| {
            let is_inside = Path::new(name)
                .components()
                .all(|part| matches!(part, Component::Normal(_)));
            name.is_empty() || !is_inside
        };
        match self.manifest.files.keys().find(|name| escapes(name)) {
            Some(name) => Err(BundleError::Escapes {
                path: manifest_path.into(),
                name: name.clone(),
            }),
            None => Ok(()),
        }
    }

    fn check_files(&self, manifest_path: &Path) -> Result<(), BundleError> {
        self.check_names(manifest_path)?;
        let read = |path: &Path| {
            let path = path.to_path_buf();
            move |source| BundleError::Read { path, source }
        };
        let root = self.dir.canonicalize().map_err(read(&self.dir))?;
        for (name, facts) in &self.manifest.files {
            let escapes = |name: String| BundleError::Escapes {
                path: manifest_path.into(),
                name,
            };
            let path = self.path(name);
            let real = path.canonicalize().map_err(read(&path))?;
            if !real.starts_with(&root) {
                return Err(escapes(format!("{name} -> {}", real.display())));
            }
            let actual = fs::metadata(&real).map_err(read(&path))?.len();
            if actual != facts.bytes {
                return Err(BundleError::Size {
                    path,
                    expected: facts.bytes,
                    actual,
                });
            }
        }
        Ok(())
    }
}

fn parse(path: &Path, text: Vec<u8>) -> Result<Manifest, BundleError> {
    let text = String::from_utf8(text).map_err(|error| BundleError::Value {
        path: path.into(),
        key: "the text".into(),
        expected: "UTF-8".into(),
        actual: error.to_string(),
    })?;
    toml::from_str(&text).map_err(|source| BundleError::Syntax {
        path: path.into(),
        source: Box::new(source),
    })
}

fn read_limited(path: &Path, bytes_max: u64) -> Result<Vec<u8>, BundleError> {
    let read = |source| BundleError::Read {
        path: path.into(),
        source,
    };
    let mut bytes = Vec::new();
    File::open(path)
        .map_err(read)?
        .take(bytes_max + 1)
        .read_to_end(&mut bytes)
        .map_err(read)?;
    if bytes.len() as u64 > bytes_max {
        let actual = fs::metadata(path).map_err(read)?.len();
        return Err(BundleError::Size {
            path: path.into(),
            expected: bytes_max,
            actual,
        });
    }
    Ok(bytes)
}
