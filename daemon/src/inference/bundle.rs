//! A model bundle on disk: a directory whose `model.toml` names every other file with its size and SHA-256.
//!
//! [`Bundle::open`] parses and checks what `model.toml` says (shape of the data, sizes of
//! the files, no path that leaves the directory), [`Bundle::verify`] compares the digests. It never loads a graph and never
//! changes a file. The format is in [`manifest`](super::manifest); [`search`](super::search) finds bundles.

use std::{
    fs::{self, File},
    io::{self, Read},
    ops::RangeInclusive,
    path::{Component, Path, PathBuf},
};

use sha2::{Digest, Sha256};
use thiserror::Error;

use super::{
    arrays::Values,
    manifest::{
        ChatGraph, Dimension, FORMAT, Graph, Manifest, Task, TensorsGraph, TtsGraph, WhisperGraph,
    },
};

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
        for (key, count) in counts(&manifest.graph) {
            if count == 0 || count > COUNT_MAX {
                return Err(value(key, format!("1 to {COUNT_MAX}"), count.to_string()));
            }
        }
        if let Graph::Whisper(graph) = &manifest.graph {
            check_whisper(graph)
                .map_err(|(key, expected, actual)| value(&key, expected, actual))?;
        }
        if let Graph::Tensors(graph) = &manifest.graph {
            check_tensors(graph)
                .map_err(|(key, expected, actual)| value(&key, expected, actual))?;
        }
        if let Graph::Tts(graph) = &manifest.graph {
            check_voice(graph).map_err(|(key, expected, actual)| value(&key, expected, actual))?;
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

fn counts(graph: &Graph) -> Vec<(&'static str, usize)> {
    match graph {
        Graph::Chat(graph) | Graph::Optimum(graph) => vec![
            ("graph.layers", graph.layers),
            ("graph.kv_heads", graph.kv_heads),
            ("graph.head_dim", graph.head_dim),
            ("graph.vocab_size", graph.vocab_size),
            ("graph.context_tokens", graph.context_tokens),
        ],
        Graph::Embedding(graph) => vec![
            ("graph.dimensions", graph.dimensions),
            ("graph.max_tokens", graph.max_tokens),
        ],
        Graph::Tensors(graph) => {
            let limits = graph.dimensions.values();
            limits
                .map(|limits| ("graph.dimensions (max)", limits.max))
                .collect()
        }
        Graph::Whisper(graph) => vec![
            ("graph.layers", graph.layers),
            ("graph.heads", graph.heads),
            ("graph.head_dim", graph.head_dim),
            ("graph.vocab_size", graph.vocab_size),
            ("graph.context_tokens", graph.context_tokens),
            ("graph.sample_rate_hz", graph.sample_rate_hz as usize),
            ("graph.window_samples", graph.window_samples),
            ("graph.position_samples", graph.position_samples),
            (
                "graph.tokens.timestamp_samples",
                graph.tokens.timestamp_samples,
            ),
        ],
        Graph::Tts(graph) => vec![
            ("graph.sample_rate_hz", graph.sample_rate_hz as usize),
            ("graph.hop_samples", graph.hop_samples),
            ("graph.speakers", graph.speakers as usize),
            ("graph.symbols", graph.symbols as usize),
        ],
        Graph::Vad(graph) => {
            let elements = graph
                .state_shape
                .iter()
                .fold(1usize, |all, dimension| all.saturating_mul(*dimension));
            vec![
                ("graph.sample_rate_hz", graph.sample_rate_hz as usize),
                ("graph.chunk_samples", graph.chunk_samples),
                ("graph.context_samples", graph.context_samples),
                ("graph.state_shape (elements)", elements),
            ]
        }
    }
}

/// Windows are whole positions, times reach from a window's beginning to its end, and every token has a row.
fn check_whisper(graph: &WhisperGraph) -> Result<(), Wrong> {
    let wrong = |key: &str, expected: String, actual: String| Err((key.into(), expected, actual));
    let (window, tokens) = (graph.window_samples, &graph.tokens);
    for (key, part) in [
        ("graph.position_samples", graph.position_samples),
        ("graph.tokens.timestamp_samples", tokens.timestamp_samples),
    ] {
        if !window.is_multiple_of(part) {
            let expected = format!("a divisor of graph.window_samples, {window}");
            return wrong(key, expected, part.to_string());
        }
    }
    if graph.languages.is_empty() {
        return wrong("graph.languages", "at least one".into(), "none".into());
    }
    let last_timestamp = (tokens.first_timestamp as usize) + window / tokens.timestamp_samples;
    if last_timestamp >= graph.vocab_size {
        let expected = format!(
            "so that the time of a window's end, {last_timestamp}, is below graph.vocab_size, {}",
            graph.vocab_size
        );
        let actual = tokens.first_timestamp.to_string();
        return wrong("graph.tokens.first_timestamp", expected, actual);
    }
    let below_times = [tokens.end, tokens.no_speech];
    let listed = [&tokens.start, &tokens.suppressed];
    let mut all = below_times
        .into_iter()
        .chain(listed.into_iter().flatten().copied());
    if let Some(id) = all.find(|id| *id >= tokens.first_timestamp) {
        let expected = format!(
            "below graph.tokens.first_timestamp, {}",
            tokens.first_timestamp
        );
        return wrong("graph.tokens", expected, id.to_string());
    }
    // The beginning, one time and one word must fit.
    if tokens.start.is_empty() || tokens.start.len() + 2 > graph.context_tokens {
        let expected = format!("1 to {} tokens", graph.context_tokens.saturating_sub(2));
        return wrong(
            "graph.tokens.start",
            expected,
            tokens.start.len().to_string(),
        );
    }
    Ok(())
}

/// Key, expected, actual.
type Wrong = (String, String, String);

/// Every type is one that can be fed, every free dimension of an input has limits, and a batch is first everywhere.
fn check_tensors(graph: &TensorsGraph) -> Result<(), Wrong> {
    let sides = [("inputs", &graph.inputs), ("outputs", &graph.outputs)];
    for (side, tensors) in sides {
        if tensors.is_empty() {
            return Err((
                format!("graph.{side}"),
                "at least one".into(),
                "none".into(),
            ));
        }
        for (name, facts) in tensors {
            let key = format!("graph.{side}.{name}");
            if Values::element_bytes(&facts.element_type).is_none() {
                return Err((
                    key,
                    "f32, f64, f16, i64, i32, i16, i8, u8 or bool".into(),
                    format!("{:?}", facts.element_type),
                ));
            }
            let unlimited = facts.shape.iter().find(|dimension| {
                matches!(dimension, Dimension::Free(name) if !graph.dimensions.contains_key(name))
            });
            if let Some(unlimited) = unlimited.filter(|_| side == "inputs") {
                return Err((
                    key,
                    format!("limits in graph.dimensions.{unlimited:?}"),
                    "none".into(),
                ));
            }
            let is_batch = |first: Option<&Dimension>, batch: &String| matches!(first, Some(Dimension::Free(name)) if name == batch);
            if let Some(batch) = &graph.batch
                && !is_batch(facts.shape.first(), batch)
            {
                return Err((
                    key,
                    format!("a first dimension {batch:?}, as graph.batch says"),
                    format!("{:?}", facts.shape),
                ));
            }
        }
    }
    match graph
        .dimensions
        .iter()
        .find(|(_, limits)| limits.min > limits.max)
    {
        Some((name, limits)) => Err((
            format!("graph.dimensions.{name}"),
            "min not above max".into(),
            format!("{} to {}", limits.min, limits.max),
        )),
        None => Ok(()),
    }
}

/// Sample rates that sound cards and telephones have, in Hz.
const SAMPLE_RATES: RangeInclusive<u32> = 8_000..=192_000;

/// Longest name of a voice of espeak-ng; its own are below 20 letters.
const VOICE_BYTES_MAX: usize = 64;

/// The phonemes have rows in the graph, the scales are ones that something comes out with, and the voice's name can be an argument.
fn check_voice(graph: &TtsGraph) -> Result<(), Wrong> {
    let wrong =
        |key: &str, expected: String, actual: String| Err((key.to_owned(), expected, actual));
    if !SAMPLE_RATES.contains(&graph.sample_rate_hz) {
        let (min, max) = (SAMPLE_RATES.start(), SAMPLE_RATES.end());
        let actual = graph.sample_rate_hz.to_string();
        return wrong("graph.sample_rate_hz", format!("{min} to {max}"), actual);
    }
    let voice = &graph.espeak_voice;
    let is_fit = voice.starts_with(|first: char| first.is_ascii_alphanumeric())
        && voice.len() <= VOICE_BYTES_MAX
        && voice
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_+".contains(&byte));
    if !is_fit {
        let expected = "a voice of espeak-ng: letters, digits, -, _ and +".to_owned();
        return wrong("graph.espeak_voice", expected, format!("{voice:?}"));
    }
    for (key, scale, min) in [
        ("graph.scales.noise", graph.scales.noise, 0.0),
        ("graph.scales.length", graph.scales.length, 0.1),
        ("graph.scales.noise_width", graph.scales.noise_width, 0.0),
    ] {
        if !(min..=10.0).contains(&scale) {
            return wrong(key, format!("{min} to 10"), scale.to_string());
        }
    }
    for (key, mark) in [
        ("graph.pad", graph.pad),
        ("graph.begin", graph.begin),
        ("graph.end", graph.end),
    ] {
        if !graph.phonemes.contains_key(&mark) {
            let expected = "one of graph.phonemes".to_owned();
            return wrong(key, expected, format!("{mark:?}"));
        }
    }
    if let Some((phoneme, id)) = graph.phonemes.iter().find(|(_, id)| **id >= graph.symbols) {
        let expected = format!("below graph.symbols, {}", graph.symbols);
        return wrong(
            &format!("graph.phonemes.{phoneme:?}"),
            expected,
            id.to_string(),
        );
    }
    let names = |several| match several {
        true => "input, input_lengths, scales and sid (several speakers)",
        false => "input, input_lengths and scales (one speaker)",
    };
    let has = |name: &str| graph.inputs.contains_key(name);
    let is_several = graph.speakers > 1;
    let known = if is_several { 4 } else { 3 };
    let is_whole =
        has("input") && has("input_lengths") && has("scales") && has("sid") == is_several;
    if !is_whole || graph.inputs.len() != known {
        let actual: Vec<&str> = graph.inputs.keys().map(String::as_str).collect();
        return wrong("graph.inputs", names(is_several).into(), actual.join(", "));
    }
    match graph.outputs.contains_key("output") {
        true => Ok(()),
        false => wrong("graph.outputs", "output".into(), "without it".into()),
    }
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
