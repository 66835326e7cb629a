//! The first graph: a window of sound to what the second one attends to.

use ort::{
    session::Session,
    value::{DynValue, Tensor},
};

use super::{
    super::{error::InferenceError, manifest::WhisperGraph},
    decoder::Interruptible,
};

/// The encoder.
pub(super) struct Hearing {
    session: Session,
    layers: usize,
    window_samples: usize,
    interruptible: Interruptible,
}

/// What was heard: keys and values of each layer, by the names that the second graph has for them.
pub(super) struct Heard(pub(super) Vec<(String, DynValue)>);

impl Hearing {
    pub(super) fn new(
        session: Session,
        graph: &WhisperGraph,
        interruptible: Interruptible,
    ) -> Self {
        Self {
            session,
            layers: graph.layers,
            window_samples: graph.window_samples,
            interruptible,
        }
    }

    /// Listens to at most a window, `gain` times as loud; what is shorter is filled up with silence, since the model was made for nothing else.
    pub(super) fn listen(&mut self, samples: &[f32], gain: f32) -> Result<Heard, InferenceError> {
        let length = self.window_samples;
        let mut window = Vec::with_capacity(length);
        window.extend(samples.iter().take(length).map(|sample| sample * gain));
        window.resize(length, 0.0);
        let pcm = Tensor::from_array(([1, length], window))?;
        let inputs = ort::inputs!["pcm" => pcm];
        let mut outputs = self.session.run_with_options(inputs, &self.interruptible)?;
        let mut tensors = Vec::with_capacity(self.layers * 2);
        for layer in 0..self.layers {
            for kind in ["key", "value"] {
                let name = format!("cross.{layer}.{kind}");
                let value = outputs.remove(&name).ok_or(InferenceError::Output {
                    name: "cross",
                    expected: self.layers * 2,
                    actual: tensors.len(),
                })?;
                tensors.push((name, value));
            }
        }
        Ok(Heard(tensors))
    }
}
