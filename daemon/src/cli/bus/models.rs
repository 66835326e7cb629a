//! The daemon's bundles and models.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value as Json};
use zbus::{OwnedFd, Variant};

use super::Daemon;
use super::decode::{object, objects};
use crate::cli::failure::Failure;
use crate::control::dbus::client::Tensor;

/// How a text is spoken.
#[derive(Debug, Clone, Copy)]
pub struct Speaking<'a> {
    /// Who waits for it.
    pub class: &'a str,
    /// Which speaker; the first when left out.
    pub speaker: Option<u32>,
    /// How fast; as recorded when left out.
    pub speed: Option<f64>,
}

impl Daemon {
    /// Tries a model's providers again: where it would run, and who was refused.
    ///
    /// # Errors
    /// What the daemon said.
    pub async fn probe_model(&self, model: &str) -> Result<Map<String, Json>, Failure> {
        let choice = self.models.probe(model).await;
        object(&choice.map_err(|error| self.failure(&error))?)
    }

    /// All bundles that the daemon finds.
    ///
    /// # Errors
    /// What the daemon said.
    pub async fn bundles(&self) -> Result<Vec<Map<String, Json>>, Failure> {
        let bundles = self.models.list_bundles().await;
        objects(&bundles.map_err(|error| self.failure(&error))?)
    }

    /// Has the daemon try a bundle: digests, loading, probe.
    ///
    /// # Errors
    /// What the daemon said.
    pub async fn verify_model(&self, model: &str) -> Result<Map<String, Json>, Failure> {
        let examined = self.models.verify(model).await;
        object(&examined.map_err(|error| self.failure(&error))?)
    }

    /// Has the daemon measure a bundle.
    ///
    /// # Errors
    /// What the daemon said.
    pub async fn benchmark_model(&self, model: &str) -> Result<Map<String, Json>, Failure> {
        let examined = self.models.benchmark(model).await;
        object(&examined.map_err(|error| self.failure(&error))?)
    }

    /// Loads a model anew, or all; the names of those that were.
    ///
    /// # Errors
    /// What the daemon said.
    pub async fn reload_models(&self, model: Option<&str>) -> Result<Vec<String>, Failure> {
        let loaded = self.models.reload(model.unwrap_or_default()).await;
        loaded.map_err(|error| self.failure(&error))
    }

    /// Runs a model of plain tensors once.
    ///
    /// # Errors
    /// What the daemon said.
    pub async fn run_model(
        &self,
        model: &str,
        inputs: &BTreeMap<String, Tensor>,
    ) -> Result<BTreeMap<String, Tensor>, Failure> {
        let outputs = self.models.run(model, inputs, HashMap::new()).await;
        outputs.map_err(|error| self.failure(&error))
    }

    /// Has what is said in a sound written down; segments come on the pipe.
    ///
    /// # Errors
    /// What the daemon said.
    pub async fn transcribe(
        &self,
        sound: std::os::fd::OwnedFd,
        is_raw: bool,
        language: Option<&str>,
        class: &str,
    ) -> Result<OwnedFd, Failure> {
        let format = if is_raw { "s16le" } else { "wav" };
        let mut options = HashMap::from([
            ("class", Variant::from(class)),
            ("format", Variant::from(format)),
        ]);
        options.extend(language.map(|language| ("language", Variant::from(language))));
        if let Some(timeout) = self.timeout {
            let millis = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
            options.insert("deadline-ms", Variant::from(millis.max(1)));
        }
        let answer = self.models.transcribe(OwnedFd::from(sound), options).await;
        answer.map_err(|error| self.failure(&error))
    }

    /// Speaks a text; the sound comes on the pipe.
    ///
    /// # Errors
    /// What the daemon said.
    pub async fn speak(&self, text: &str, how: &Speaking<'_>) -> Result<OwnedFd, Failure> {
        let mut options = HashMap::from([("class", Variant::from(how.class))]);
        if let Some(speaker) = how.speaker {
            options.insert("speaker", Variant::from(speaker));
        }
        if let Some(speed) = how.speed {
            options.insert("speed", Variant::from(speed));
        }
        let pipe = self.models.speak(text, options).await;
        pipe.map_err(|error| self.failure(&error))
    }
}
