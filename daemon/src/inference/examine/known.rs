//! Which bundles there are, as `models` lists them.
//!
//! Reads their `model.toml` alone: no digest is compared and nothing is loaded.

use std::{collections::BTreeMap, fs, path::PathBuf};

use serde::Serialize;

use super::super::{
    bundle::{Bundle, MANIFEST_FILE},
    error::chain,
    manifest::Task,
};

/// A bundle that lies in one of the directories.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Known {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub dir: PathBuf,
    /// What it does; absent where its `model.toml` cannot be used.
    pub task: Option<Task>,
    /// A name for people.
    pub title: String,
    /// The licence that the weights' package states.
    pub licence: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// What is wrong with it at first sight.
    pub problem: Option<String>,
}

/// All bundles in `dirs`, those that are found first where there are several of a name. Reads no large file.
pub(in super::super) fn list(dirs: &[PathBuf]) -> Vec<Known> {
    let mut all: BTreeMap<String, Known> = BTreeMap::new();
    for dir in dirs {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        for entry in entries {
            let dir = entry.path();
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if all.contains_key(&name) || !dir.join(MANIFEST_FILE).is_file() {
                continue;
            }
            let known = match Bundle::open(&dir) {
                Ok(bundle) => {
                    let manifest = bundle.manifest();
                    Known {
                        task: Some(manifest.task),
                        title: manifest.title.clone(),
                        licence: manifest.licence.clone(),
                        bytes: manifest.files.values().map(|facts| facts.bytes).sum(),
                        problem: None,
                        name: name.clone(),
                        dir,
                    }
                }
                Err(error) => Known {
                    task: None,
                    title: String::new(),
                    licence: String::new(),
                    bytes: 0,
                    problem: Some(chain(&error)),
                    name: name.clone(),
                    dir,
                },
            };
            all.insert(name, known);
        }
    }
    all.into_values().collect()
}
