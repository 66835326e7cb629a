//! The proof that a loaded model computes what its bundle says: a known input, the known output, and how far apart they may be.
//!
//! The comparisons are pure; the engines run the model and hand the output in. A probe that fails disables the model: a wrong
//! answer is worse than none. The reference outputs were made with another binding of ONNX Runtime on another machine, so
//! the tolerances cover the kernels' differences between CPUs and nothing more.

use serde::{Deserialize, de::DeserializeOwned};
use thiserror::Error;

use super::{
    bundle::{Bundle, BundleError},
    error::LoadError,
};

/// In what way a model's output differs from its probe.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// The probe file is not one.
    #[error("{} is not a valid probe", path.display())]
    Syntax {
        /// The file.
        path: std::path::PathBuf,
        /// Where and what.
        #[source]
        source: serde_json::Error,
    },
    /// The output has another length than the reference.
    #[error("the probe's output has {actual} values, expected {expected}")]
    Length {
        /// Values in the reference.
        expected: usize,
        /// Values that came out.
        actual: usize,
    },
    /// A sentence vector points elsewhere.
    #[error("the probe's vector has cosine {actual} to the reference, expected at least {minimum}")]
    Cosine {
        /// Least allowed.
        minimum: f32,
        /// What came out.
        actual: f32,
    },
}

/// Reads the bundle's probe.
pub(super) fn read<P: DeserializeOwned>(bundle: &Bundle) -> Result<P, LoadError> {
    let bytes = bundle
        .probe_bytes()
        .map_err(|error: BundleError| LoadError::Bundle(error))?;
    serde_json::from_slice(&bytes).map_err(|source| {
        let path = bundle.path(&bundle.manifest().probe.file);
        LoadError::Probe(ProbeError::Syntax { path, source })
    })
}

/// A sentence and its vector.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EmbeddingProbe {
    pub(super) text: String,
    pub(super) vector: Vec<f32>,
    pub(super) cosine_min: f32,
}

impl EmbeddingProbe {
    pub(super) fn check(&self, vector: &[f32]) -> Result<(), ProbeError> {
        check_length(self.vector.len(), vector.len())?;
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
        let actual = dot(&self.vector, vector)
            / (dot(&self.vector, &self.vector) * dot(vector, vector)).sqrt();
        // Not `actual < minimum`: a NaN must fail.
        if actual >= self.cosine_min {
            Ok(())
        } else {
            Err(ProbeError::Cosine {
                minimum: self.cosine_min,
                actual,
            })
        }
    }
}

fn check_length(expected: usize, actual: usize) -> Result<(), ProbeError> {
    if expected == actual {
        Ok(())
    } else {
        Err(ProbeError::Length { expected, actual })
    }
}
