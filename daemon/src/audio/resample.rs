//! Sound from one rate to another: `rubato`'s resampler by Fourier transforms, fed as the sound comes, with its delay taken out.

use std::ops::RangeInclusive;

use rubato::{FftFixedIn, Resampler as _};
use thiserror::Error;

/// Rates that are taken, in samples a second: from the telephone's to the studio's.
pub const RATES_HZ: RangeInclusive<u32> = 8_000..=192_000;

/// Samples that are resampled at a time, at least; the two rates need a multiple of theirs.
const CHUNK_MIN: usize = 1024;

/// Why sound cannot be brought to another rate.
#[derive(Debug, Error)]
pub enum ResampleError {
    /// A rate outside of [`RATES_HZ`].
    #[error("{rate_hz} samples a second cannot be resampled")]
    Rate {
        /// The rate.
        rate_hz: u32,
    },
    /// The resampler does not make one for these two rates.
    #[error("no resampler from {from_hz} to {to_hz} samples a second")]
    Construction {
        /// The sound's rate.
        from_hz: u32,
        /// The rate that is wanted.
        to_hz: u32,
        /// What it said.
        #[source]
        source: rubato::ResamplerConstructionError,
    },
    /// The resampler failed: a bug of ours in how it is fed.
    #[error("the resampler failed")]
    Run(#[from] rubato::ResampleError),
}

/// One stream of mono sound on its way from one rate to another.
pub struct Resampler {
    from_hz: u32,
    to_hz: u32,
    taken: u64,
    out: Vec<f32>,
    /// `None` where the rates are the same.
    inner: Option<Inner>,
}

struct Inner {
    fft: FftFixedIn<f32>,
    chunk: Vec<f32>,
    /// Samples at the beginning of what comes out that are no sound yet.
    delay: usize,
}

impl Resampler {
    /// From one rate to another; both within [`RATES_HZ`].
    ///
    /// # Errors
    /// [`ResampleError::Rate`], [`ResampleError::Construction`]
    pub fn new(from_hz: u32, to_hz: u32) -> Result<Self, ResampleError> {
        if let Some(rate_hz) = [from_hz, to_hz]
            .into_iter()
            .find(|rate| !RATES_HZ.contains(rate))
        {
            return Err(ResampleError::Rate { rate_hz });
        }
        let inner = match from_hz == to_hz {
            true => None,
            false => {
                // Even, or the filter's middle lies between two samples and all comes half a sample late.
                let step = 2 * (from_hz / common_divisor(from_hz, to_hz)) as usize;
                let chunk = CHUNK_MIN.next_multiple_of(step);
                let fft = FftFixedIn::new(from_hz as usize, to_hz as usize, chunk, 1, 1);
                let fft = fft.map_err(|source| ResampleError::Construction {
                    from_hz,
                    to_hz,
                    source,
                })?;
                Some(Inner {
                    chunk: Vec::with_capacity(fft.input_frames_next()),
                    delay: fft.output_delay(),
                    fft,
                })
            }
        };
        Ok(Self {
            from_hz,
            to_hz,
            taken: 0,
            out: Vec::new(),
            inner,
        })
    }

    /// Takes one more sample.
    ///
    /// # Errors
    /// [`ResampleError::Run`]
    pub fn push(&mut self, sample: f32) -> Result<(), ResampleError> {
        self.taken += 1;
        let Some(inner) = &mut self.inner else {
            self.out.push(sample);
            return Ok(());
        };
        inner.chunk.push(sample);
        if inner.chunk.len() >= inner.fft.input_frames_next() {
            inner.run(&mut self.out)?;
        }
        Ok(())
    }

    /// All that came out: as long as what went in, to a sample.
    ///
    /// # Errors
    /// [`ResampleError::Run`]
    pub fn finish(mut self) -> Result<Vec<f32>, ResampleError> {
        let Some(inner) = &mut self.inner else {
            return Ok(self.out);
        };
        let length = self.taken * u64::from(self.to_hz) / u64::from(self.from_hz);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        // Silence behind the sound, until the last of it has come out.
        while self.out.len() < length.saturating_add(inner.delay) {
            inner.chunk.resize(inner.fft.input_frames_next(), 0.0);
            inner.run(&mut self.out)?;
        }
        self.out.drain(..inner.delay);
        self.out.truncate(length);
        Ok(self.out)
    }
}

/// Euclid's.
fn common_divisor(one: u32, other: u32) -> u32 {
    match other {
        0 => one,
        other => common_divisor(other, one % other),
    }
}

impl Inner {
    fn run(&mut self, out: &mut Vec<f32>) -> Result<(), ResampleError> {
        let parts = self.fft.process(&[&self.chunk], None)?;
        out.extend(parts.into_iter().flatten());
        self.chunk.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::f32::consts::TAU;

    use super::*;

    fn tone(hz: f32, rate: u32, seconds: f32) -> Vec<f32> {
        let count = (seconds * rate as f32) as usize;
        (0..count)
            .map(|at| 0.5 * (TAU * hz * at as f32 / rate as f32).sin())
            .collect()
    }

    fn resampled(samples: &[f32], from: u32, to: u32) -> Vec<f32> {
        let mut resampler = Resampler::new(from, to).unwrap();
        samples
            .iter()
            .for_each(|sample| resampler.push(*sample).unwrap());
        resampler.finish().unwrap()
    }

    #[test]
    fn a_tone_keeps_its_pitch_its_loudness_and_its_place_in_time() {
        for from in [8_000, 11_025, 22_050, 44_100, 48_000, 96_000] {
            let seen = resampled(&tone(440.0, from, 1.0), from, 16_000);
            let expected = tone(440.0, 16_000, 1.0);
            assert!(
                seen.len().abs_diff(expected.len()) <= 1,
                "{from}: {}",
                seen.len()
            );
            // The ends ring, as those of every filter.
            let middle = 1000..15_000;
            let worst = seen[middle.clone()]
                .iter()
                .zip(&expected[middle])
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max);
            assert!(worst < 0.005, "{from}: off by {worst}");
        }
    }

    #[test]
    fn a_tone_that_the_lower_rate_cannot_hold_is_gone_and_no_phantom_is_left() {
        let seen = resampled(&tone(11_000.0, 48_000, 1.0), 48_000, 16_000);
        let loudest = seen[1000..15_000]
            .iter()
            .fold(0.0f32, |a, b| a.max(b.abs()));
        assert!(loudest < 0.01, "{loudest}");
    }

    #[test]
    fn however_short_the_sound_is_its_length_is_right() {
        for count in [1usize, 2, 3, 100, 1023, 1024, 1025, 5000] {
            let seen = resampled(&vec![0.1; count], 48_000, 16_000);
            assert_eq!(seen.len(), count / 3, "{count}");
        }
        assert_eq!(resampled(&[0.1, 0.2], 16_000, 16_000), [0.1, 0.2]);
        for rate in [0, 7_999, 192_001, u32::MAX] {
            assert!(Resampler::new(rate, 16_000).is_err(), "{rate}");
        }
    }
}
