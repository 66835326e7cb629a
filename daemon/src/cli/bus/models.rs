//! The daemon's bundles and models.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value as Json};

use super::Daemon;
use super::decode::{object, objects};
use crate::cli::failure::Failure;
use crate::control::dbus::client::Tensor;

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
}
