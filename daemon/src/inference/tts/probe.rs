//! The probe of a voice: phonemes, and how loud the sound is that they make, frame by frame.
//!
//! The samples themselves are not compared: a length that lies between two frames may be rounded the other way by another processor, which moves all
//! that follows by a frame. With the noise at 0 the loudness of every frame is the same on every run.

use serde::Deserialize;

use crate::inference::probe::ProbeError;

/// The known answer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct TtsProbe {
    /// The text that the phonemes are of, for measuring.
    pub(in super::super) text: String,
    /// Phoneme ids, with begin, pads and end.
    pub(in super::super) ids: Vec<i64>,
    /// The loudness (root of the mean square) of each frame, without noise.
    loudness: Vec<f32>,
    /// Frames that the sound may be longer or shorter.
    frames: usize,
    /// Least cosine of the two loudnesses.
    cosine_min: f32,
}

impl TtsProbe {
    /// Compares the sound that the ids have made without noise.
    pub(super) fn check(&self, sound: &[f32], hop: usize) -> Result<(), ProbeError> {
        let loudness = loudness(sound, hop);
        if loudness.len().abs_diff(self.loudness.len()) > self.frames {
            return Err(ProbeError::Length {
                expected: self.loudness.len() * hop,
                actual: sound.len(),
            });
        }
        // The best of the shifts that the length allows.
        let (mut actual, reach) = (f32::NAN, self.frames);
        for (skip_known, skip_seen) in (0..=reach).flat_map(|by| [(by, 0), (0, by)]) {
            let known = self.loudness.get(skip_known..).unwrap_or_default();
            let seen = loudness.get(skip_seen..).unwrap_or_default();
            // A NaN is dropped, and stays only where there is nothing else.
            actual = actual.max(cosine(known, seen));
        }
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

fn loudness(sound: &[f32], hop: usize) -> Vec<f32> {
    let power = |frame: &[f32]| frame.iter().map(|sample| sample * sample).sum::<f32>();
    let frames = sound.chunks(hop);
    frames
        .map(|frame| (power(frame) / frame.len() as f32).sqrt())
        .collect()
}

/// Of the vectors as far as both go.
fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(loudness: Vec<f32>) -> TtsProbe {
        TtsProbe {
            text: String::new(),
            ids: Vec::new(),
            loudness,
            frames: 1,
            cosine_min: 0.95,
        }
    }

    /// Frames of two samples, each as loud as said.
    fn sound(loudness: &[f32]) -> Vec<f32> {
        loudness.iter().flat_map(|it| [*it, -*it]).collect()
    }

    #[test]
    fn a_frame_more_or_less_passes_and_another_sound_silence_or_no_number_does_not() {
        let known = [0.1, 0.9, 0.2, 0.8, 0.1, 0.0, 0.5];
        let probe = probe(known.to_vec());
        probe.check(&sound(&known), 2).unwrap();
        probe.check(&sound(&known[1..]), 2).unwrap();
        probe
            .check(&sound(&[&[0.1], known.as_slice()].concat()), 2)
            .unwrap();
        let error = probe.check(&sound(&known[2..]), 2).unwrap_err();
        assert!(
            matches!(
                error,
                ProbeError::Length {
                    expected: 14,
                    actual: 10
                }
            ),
            "{error}"
        );
        for wrong in [
            [0.5; 7],
            [0.0; 7],
            [f32::NAN; 7],
            [0.9, 0.1, 0.1, 0.9, 0.0, 0.9, 0.1],
        ] {
            let error = probe.check(&sound(&wrong), 2).unwrap_err();
            assert!(matches!(error, ProbeError::Cosine { .. }), "{error}");
        }
    }
}
