//! Whether what was read from a window is to be believed. Pure.
//!
//! The thresholds are those of the model's authors (Radford et al. 2022, section 4.5: "no speech" above 0.6 together with a mean log probability below
//! -1 is silence; a mean log probability below -1, or a text that gzip packs to less than 1 / 2.4, is tried again at a higher temperature). They try up to six
//! temperatures; three are tried here, so that a window of noise takes at most three readings.

use std::io::Write as _;

use flate2::{Compression, write::ZlibEncoder};

/// "Nobody speaks" counts from here on.
const NO_SPEECH: f32 = 0.6;
/// Mean log probability of a token below which the model only guessed.
const GUESSED: f64 = -1.0;
/// Bytes of a text for each byte of its packed form, above which it repeats itself.
const REPETITIVE: f64 = 2.4;

/// Greedily first, then drawn.
pub(super) const TEMPERATURES: [f32; 3] = [0.0, 0.4, 0.8];

/// No sample is louder than one step and a half of 16 bits: a microphone that is switched off, or a gap in a recording. The model would hear its own
/// phantasies, since it looks at what is loudest first.
const SILENT_PEAK: f32 = 1.5 / 32768.0;

/// One reading of a window, in numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measures {
    /// How sure the model was that nobody speaks, before the first token.
    pub(super) no_speech: f32,
    /// Over all tokens, the end included.
    pub(super) mean_log_probability: f64,
    /// Bytes of the text for each byte of its packed form.
    pub(super) compression: f64,
}

/// What becomes of a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It is taken.
    Sound,
    /// Nobody spoke.
    Silence,
    /// It is read again, if there is an attempt left.
    Doubtful,
}

impl Measures {
    pub(super) fn judge(&self) -> Judgement {
        let mean = self.mean_log_probability;
        let is_guessed = mean.is_nan() || mean < GUESSED;
        if is_guessed && self.no_speech > NO_SPEECH {
            Judgement::Silence
        } else if is_guessed || self.compression > REPETITIVE {
            Judgement::Doubtful
        } else {
            Judgement::Sound
        }
    }

    /// Which of two doubtful readings is the less doubtful: the one that does not repeat itself, then the likelier one.
    pub(super) fn is_better_than(&self, other: &Self) -> bool {
        let repeats = |one: &Self| one.compression > REPETITIVE;
        match (repeats(self), repeats(other)) {
            (false, true) => true,
            (true, false) => false,
            _ => self.mean_log_probability > other.mean_log_probability,
        }
    }
}

/// What brings sound that is too loud to -1..1: the model knows no other, and says anything about it.
pub(super) fn gain(samples: &[f32]) -> f32 {
    let peak = samples
        .iter()
        .fold(0.0f32, |peak, sample| peak.max(sample.abs()));
    if peak > 1.0 { 1.0 / peak } else { 1.0 }
}

/// Whether there is no sound at all.
pub(super) fn is_silent(samples: &[f32]) -> bool {
    samples.iter().all(|sample| sample.abs() <= SILENT_PEAK)
}

/// Bytes of a text for each byte of its packed form: 1 or less for a short sentence, 20 for a word said a hundred times.
pub(super) fn compression(text: &str) -> f64 {
    let mut packer = ZlibEncoder::new(Vec::new(), Compression::default());
    // Writing to memory does not fail.
    let packed = packer
        .write_all(text.as_bytes())
        .and_then(|()| packer.finish());
    let bytes = packed.map_or(text.len(), |packed| packed.len());
    text.len() as f64 / bytes.max(1) as f64
}
