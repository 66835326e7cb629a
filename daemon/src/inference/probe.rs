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
    /// A tensor of the probe has not the type and the number of elements that `model.toml` says.
    #[error("{}: the tensor {name:?} does not fit its type or its shape, or is none of the graph's", path.display())]
    Tensor {
        /// The file.
        path: std::path::PathBuf,
        /// The tensor.
        name: String,
    },
    /// An output has another shape than the reference.
    #[error("the probe's output {name:?} has the shape {actual:?}, expected {expected:?}")]
    Shape {
        /// The output.
        name: String,
        /// Dimensions of the reference.
        expected: Vec<usize>,
        /// Dimensions that came out; none where it is absent.
        actual: Vec<usize>,
    },
    /// A single element of an output is too far off.
    #[error(
        "the probe's output {name:?} is {actual} at {index}, expected {expected} within {tolerance}"
    )]
    Element {
        /// The output.
        name: String,
        /// Its element, in row-major order.
        index: usize,
        /// The reference.
        expected: f64,
        /// What came out.
        actual: f64,
        /// Allowed difference.
        tolerance: f64,
    },
    /// A single value is too far off.
    #[error("the probe's value {index} is {actual}, expected {expected} within {tolerance}")]
    Value {
        /// Token id, or index of the chunk.
        index: usize,
        /// The reference.
        expected: f32,
        /// What came out.
        actual: f32,
        /// Allowed difference.
        tolerance: f32,
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

/// A prompt's token ids and the logits of the likeliest next tokens.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChatProbe {
    pub(super) input_ids: Vec<u32>,
    pub(super) top: Vec<(usize, f32)>,
    pub(super) tolerance: f32,
}

impl ChatProbe {
    /// `slack` is how many tolerances apart they may be.
    pub(super) fn check(&self, logits: &[f32], slack: f32) -> Result<(), ProbeError> {
        check_top(&self.top, logits, self.tolerance * slack)
    }
}

/// Sound and the probability of speech in each chunk of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VadProbe {
    pub(super) samples: Vec<f32>,
    pub(super) probabilities: Vec<f32>,
    pub(super) tolerance: f32,
}

impl VadProbe {
    pub(super) fn check(&self, probabilities: &[f32]) -> Result<(), ProbeError> {
        check_length(self.probabilities.len(), probabilities.len())?;
        for (index, (&expected, &actual)) in
            self.probabilities.iter().zip(probabilities).enumerate()
        {
            check_value(index, expected, actual, self.tolerance)?;
        }
        Ok(())
    }
}

/// Sound, tokens that are fed one by one, and the logits of the likeliest after the last of them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SttProbe {
    /// 16-bit numbers.
    samples: Vec<i16>,
    pub(super) input_ids: Vec<u32>,
    top: Vec<(usize, f32)>,
    tolerance: f32,
}

impl SttProbe {
    /// In -1..1.
    pub(super) fn samples(&self) -> Vec<f32> {
        let samples = self.samples.iter();
        samples.map(|&sample| f32::from(sample) / 32768.0).collect()
    }

    pub(super) fn check(&self, logits: &[f32]) -> Result<(), ProbeError> {
        check_top(&self.top, logits, self.tolerance)
    }
}

fn check_top(top: &[(usize, f32)], logits: &[f32], tolerance: f32) -> Result<(), ProbeError> {
    for &(index, expected) in top {
        let actual = *logits.get(index).ok_or(ProbeError::Length {
            expected: index + 1,
            actual: logits.len(),
        })?;
        check_value(index, expected, actual, tolerance)?;
    }
    Ok(())
}

fn check_length(expected: usize, actual: usize) -> Result<(), ProbeError> {
    if expected == actual {
        Ok(())
    } else {
        Err(ProbeError::Length { expected, actual })
    }
}

fn check_value(index: usize, expected: f32, actual: f32, tolerance: f32) -> Result<(), ProbeError> {
    // Not `> tolerance`: a NaN must fail.
    if (expected - actual).abs() <= tolerance {
        Ok(())
    } else {
        Err(ProbeError::Value {
            index,
            expected,
            actual,
            tolerance,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nan_never_passes_a_probe() {
        let vad = VadProbe {
            samples: vec![],
            probabilities: vec![0.5],
            tolerance: 0.1,
        };
        assert!(vad.check(&[f32::NAN]).is_err());
        let embedding = EmbeddingProbe {
            text: String::new(),
            vector: vec![1.0, 0.0],
            cosine_min: 0.9,
        };
        assert!(embedding.check(&[f32::NAN, 0.0]).is_err());
        let chat = ChatProbe {
            input_ids: vec![],
            top: vec![(1, 2.0)],
            tolerance: 0.5,
        };
        assert!(chat.check(&[0.0, f32::NAN], 1.0).is_err());
    }

    #[test]
    fn a_value_off_by_more_than_the_tolerance_is_named() {
        let chat = ChatProbe {
            input_ids: vec![],
            top: vec![(0, 1.0), (2, 3.0)],
            tolerance: 0.5,
        };
        chat.check(&[1.4, 0.0, 2.6], 1.0).unwrap();
        chat.check(&[1.4, 0.0, 2.4], 2.0).unwrap();
        let error = chat.check(&[1.4, 0.0, 2.4], 1.0).unwrap_err();
        assert!(
            matches!(error, ProbeError::Value { index: 2, .. }),
            "{error}"
        );
    }
}
