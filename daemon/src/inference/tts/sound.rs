//! From the graph's sound to 16-bit samples. Pure.
//!
//! As Piper does it: every piece is made as loud as it can be, its largest sample becoming 32767, but what is nearly silent is not blown up beyond a
//! hundredfold (`synthesize` in rhasspy/piper, src/cpp/piper.cpp: `32767 / max(0.01, peak)`, then clamped); between pieces there are 0.2 s of silence (the same file,
//! `sentenceSilenceSeconds`).

use std::time::Duration;

/// Below this the largest sample counts as so large.
const PEAK_MIN: f32 = 0.01;

/// Silence between two pieces.
const PAUSE: Duration = Duration::from_millis(200);

/// 16-bit samples; `None` where one of them is no number.
pub(super) fn pcm(sound: &[f32]) -> Option<Vec<i16>> {
    // Not `max`, which drops a NaN.
    if !sound.iter().all(|sample| sample.is_finite()) {
        return None;
    }
    let peak = sound
        .iter()
        .fold(PEAK_MIN, |peak, sample| peak.max(sample.abs()));
    let scale = f32::from(i16::MAX) / peak;
    // `as` saturates.
    Some(sound.iter().map(|sample| (sample * scale) as i16).collect())
}

/// Samples of silence between two pieces.
pub(super) fn pause(sample_rate_hz: u32) -> usize {
    let samples = u64::from(sample_rate_hz) * PAUSE.as_millis() as u64 / 1000;
    usize::try_from(samples).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loudest_sample_is_full_and_noise_stays_noise() {
        assert_eq!(pcm(&[0.0, 0.25, -0.5]).unwrap(), [0, 16_383, -32_767]);
        assert_eq!(pcm(&[2.0, -4.0]).unwrap(), [16_383, -32_767]);
        assert_eq!(pcm(&[0.001]).unwrap(), [3_276]);
        assert_eq!(pcm(&[]).unwrap(), [0i16; 0]);
        for wrong in [f32::NAN, f32::INFINITY] {
            assert_eq!(pcm(&[0.5, wrong]), None);
        }
        assert_eq!(pause(22_050), 4_410);
    }
}
