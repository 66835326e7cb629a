//! The engine that a bundle names for itself, in the table `[upstream]` of its `model.toml`. Read anew when the bundle changes.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    super::{
        bundle::MANIFEST_FILE,
        error::chain,
        manifest::Manifest,
        search::{Fingerprint, locate},
    },
    engine::Engine,
};
use crate::config::upstream::of_bundle;

/// Looks for the table.
#[derive(Debug)]
pub(super) struct Bundled {
    name: Arc<str>,
    model_dirs: Vec<PathBuf>,
    known: Mutex<Option<(Fingerprint, Option<Arc<Engine>>)>>,
}

impl Bundled {
    pub(super) fn new(name: Arc<str>, model_dirs: Vec<PathBuf>) -> Self {
        Self {
            name,
            model_dirs,
            known: Mutex::new(None),
        }
    }

    /// The engine that the bundle names, if it names one. Looks at the disk.
    pub(super) fn look(&self) -> Option<Arc<Engine>> {
        let dir = locate(&self.name, &self.model_dirs).ok()?;
        let fingerprint = Fingerprint::of(&dir);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((last, engine)) = &*known
            && *last == fingerprint
        {
            return engine.clone();
        }
        let path = dir.join(MANIFEST_FILE);
        let engine = std::fs::read_to_string(&path)
            .ok()
            // What else is wrong with it, loading the bundle says.
            .and_then(|text| toml::from_str::<Manifest>(&text).ok())
            .and_then(|manifest| manifest.upstream)
            .and_then(|raw| match of_bundle(&raw, &path) {
                Ok(settings) => Some(Arc::new(Engine::new(settings))),
                Err(error) => {
                    tracing::error!(error = %chain(&error), "the bundle's upstream is not used");
                    None
                }
            });
        *known = Some((fingerprint, engine.clone()));
        engine
    }

    /// What was found at the last look.
    pub(super) fn last(&self) -> Option<Arc<Engine>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().and_then(|(_, engine)| engine.clone())
    }
}
