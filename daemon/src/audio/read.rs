//! Sound from a file or a pipe: WAV of any common rate, or bare samples, to f32, mono, at the rate that is wanted.
//!
//! It is read as it comes and never kept twice, so that only what comes out takes memory. The header is read here, chunk by chunk and within a
//! limit, and handed on with nothing in it but the format and the length; the samples are read by `hound`. Programs that write into a pipe do not know the
//! length beforehand and put the largest number there: then the sound goes on until the pipe ends.
//!
//! Never: a panic or an allocation by what a header claims.

use std::{
    cell::Cell,
    io::{self, BufReader, Cursor, Read},
    rc::Rc,
    time::Duration,
};

use hound::{SampleFormat, WavReader, WavSpec};
use thiserror::Error;

use super::resample::{RATES_HZ, ResampleError, Resampler};

/// Longest header: chunks before the sound hold names and pictures, at most some kB of which anybody needs.
const HEADER_BYTES_MAX: usize = 1 << 20;

/// From here on a length is one of a program that did not know it. The largest file that can say its length honestly has 4 GB; nobody sends a third
/// of that to be listened to.
const UNKNOWN_BYTES_MIN: u32 = 0x7000_0000;

/// Most channels that are mixed into one.
const CHANNELS_MAX: u16 = 8;

/// How bare samples are read: 16-bit little-endian, mono, at the rate that is wanted.
const RAW_BYTES: usize = 2;

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Samples a second that come out.
    pub rate_hz: u32,
    /// Longer sound is refused.
    pub length_max: Duration,
}

/// How the bytes are to be understood.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// A WAV file: 16, 24 or 32 bits or floats, up to eight channels, 8 to 192 kHz.
    #[default]
    Wav,
    /// 16-bit little-endian samples, mono, at the rate that is wanted, without any header.
    S16le,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Wav, Self::S16le];

    /// Its name in options.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Wav => "wav",
            Self::S16le => "s16le",
        }
    }
}

/// Why there is no sound. Every one but `Read` is the fault of what was sent.
#[derive(Debug, Error)]
pub enum SoundError {
    /// The file or pipe gave an error.
    #[error("cannot read the sound")]
    Read {
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Not one byte came.
    #[error("there is no sound: it has no bytes at all")]
    Empty,
    /// The beginning is not a WAV file's.
    #[error("it is no WAV file: it does not begin with RIFF and WAVE")]
    NotWav,
    /// The header contradicts itself, or ends before the sound begins.
    #[error("the WAV header is not usable: {what}")]
    Header {
        /// In what way.
        what: String,
    },
    /// The sound does not begin within the limit.
    #[error("the WAV header has more than {limit} bytes before the sound begins")]
    HeaderTooLong {
        /// The most that is read.
        limit: usize,
    },
    /// A way to write samples that is not read.
    #[error("{what} {actual}, allowed are {allowed}")]
    Format {
        /// Which part of the format.
        what: &'static str,
        /// What it is.
        actual: String,
        /// What it may be.
        allowed: String,
    },
    /// The file ends before its sound does.
    #[error("the sound is cut off: {actual} of {expected} samples are there")]
    Truncated {
        /// Samples by the header, of one channel.
        expected: u64,
        /// Samples that came.
        actual: u64,
    },
    /// A sample is no number.
    #[error("sample {at} of the sound is {value}")]
    NotFinite {
        /// Which one, counted from 0.
        at: u64,
        /// What it is.
        value: f32,
    },
    /// Longer than the limit.
    #[error("the sound is longer than {} s, which is the most that is taken", limit.as_secs())]
    TooLong {
        /// The limit.
        limit: Duration,
    },
}

impl SoundError {
    fn header(what: impl Into<String>) -> Self {
        Self::Header { what: what.into() }
    }

    fn resample(error: ResampleError) -> Self {
        let ResampleError::Rate { rate_hz } = error else {
            return Self::header(error.to_string());
        };
        Self::Format {
            what: "the rate is",
            actual: format!("{rate_hz} Hz"),
            allowed: format!("{} to {} Hz", RATES_HZ.start(), RATES_HZ.end()),
        }
    }
}

/// Reads sound to its end.
///
/// # Errors
/// [`SoundError`]
pub fn read(source: impl Read, format: Format, wanted: Wanted) -> Result<Vec<f32>, SoundError> {
    let is_at_end = Rc::new(Cell::new(false));
    let mut source = BufReader::with_capacity(
        64 << 10,
        Ending {
            source,
            is_at_end: Rc::clone(&is_at_end),
        },
    );
    match format {
        Format::Wav => {
            let header = Header::read(&mut source)?;
            header.sound(source, wanted, &is_at_end)
        }
        Format::S16le => raw(source, wanted),
    }
}

/// Notes when its source has ended: `hound` tells the end and an error alike.
struct Ending<R> {
    source: R,
    is_at_end: Rc<Cell<bool>>,
}

impl<R: Read> Read for Ending<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(bytes)?;
        if count == 0 && !bytes.is_empty() {
            self.is_at_end.set(true);
        }
        Ok(count)
    }
}

/// What of a WAV header counts.
struct Header {
    format: Vec<u8>,
    data_bytes: u32,
}

impl Header {
    /// Reads up to the first byte of the sound.
    fn read(source: &mut impl Read) -> Result<Self, SoundError> {
        let mut riff = [0; 12];
        match fill(source, &mut riff)? {
            0 => return Err(SoundError::Empty),
            12 if riff[..4] == *b"RIFF" && riff[8..] == *b"WAVE" => {}
            _ => return Err(SoundError::NotWav),
        }
        let mut format = None;
        let mut left = HEADER_BYTES_MAX;
        loop {
            let mut chunk = [0; 8];
            if fill(source, &mut chunk)? < chunk.len() {
                return Err(SoundError::header("it ends before the sound begins"));
            }
            let [a, b, c, d, length @ ..] = chunk;
            let length = u32::from_le_bytes(length);
            if [a, b, c, d] == *b"data" {
                let format = format.ok_or_else(|| SoundError::header("it has no format"))?;
                return Ok(Self {
                    format,
                    data_bytes: length,
                });
            }
            // Chunks are filled up to an even length.
            let filled = length as usize + length as usize % 2;
            left = left
                .checked_sub(filled + chunk.len())
                .ok_or(SoundError::HeaderTooLong {
                    limit: HEADER_BYTES_MAX,
                })?;
            let mut body = vec![0; filled];
            if fill(source, &mut body)? < filled {
                return Err(SoundError::header("it ends within a chunk"));
            }
            if [a, b, c, d] == *b"fmt " {
                body.truncate(length as usize);
                format = Some(body);
            }
        }
    }

    fn sound(
        self,
        source: impl Read,
        wanted: Wanted,
        is_at_end: &Cell<bool>,
    ) -> Result<Vec<f32>, SoundError> {
        let has_length = self.data_bytes < UNKNOWN_BYTES_MIN;
        let reader = WavReader::new(Cursor::new(self.plain(has_length)).chain(source));
        let reader = reader.map_err(|error| SoundError::header(error.to_string()))?;
        let spec = reader.spec();
        check(&spec)?;
        let resampler = Resampler::new(spec.sample_rate, wanted.rate_hz);
        let mut intake = Intake {
            resampler: resampler.map_err(SoundError::resample)?,
            limit: wanted.length_max,
            frames_max: frames(wanted.length_max, spec.sample_rate),
            frames: 0,
        };
        let expected = u64::from(reader.duration());
        if has_length && expected > intake.frames_max {
            return Err(intake.too_long());
        }
        let ended = match spec.sample_format {
            SampleFormat::Float => {
                let samples = reader.into_samples::<f32>();
                intake.take_all(samples, spec.channels, |sample| sample)
            }
            SampleFormat::Int => {
                let full = 2f32.powi(i32::from(spec.bits_per_sample) - 1);
                let samples = reader.into_samples::<i32>();
                intake.take_all(samples, spec.channels, |sample| sample as f32 / full)
            }
        };
        match ended {
            Err(Ended::Sound(error)) => return Err(error),
            Err(Ended::Wav(_)) if is_at_end.get() && !has_length => {}
            Err(Ended::Wav(_)) if is_at_end.get() => {
                return Err(SoundError::Truncated {
                    expected,
                    actual: intake.frames,
                });
            }
            Err(Ended::Wav(hound::Error::IoError(source))) => {
                return Err(SoundError::Read { source });
            }
            Err(Ended::Wav(error)) => return Err(SoundError::header(error.to_string())),
            Ok(()) => {}
        }
        intake.finish()
    }

    /// A header with nothing but the format and a length.
    fn plain(&self, has_length: bool) -> Vec<u8> {
        let block = self.format.get(12..14).map_or(1, |bytes| {
            u32::from(u16::from_le_bytes([bytes[0], bytes[1]])).max(1)
        });
        let data_bytes = match has_length {
            true => self.data_bytes,
            false => (u32::MAX >> 1) / block * block,
        };
        let format_bytes = u32::try_from(self.format.len()).unwrap_or(u32::MAX);
        let mut header = b"RIFF\xff\xff\xff\x7fWAVEfmt ".to_vec();
        header.extend(format_bytes.to_le_bytes());
        header.extend(&self.format);
        header.extend(std::iter::repeat_n(0, self.format.len() % 2));
        header.extend(b"data");
        header.extend(data_bytes.to_le_bytes());
        header
    }
}

fn check(spec: &WavSpec) -> Result<(), SoundError> {
    let wrong = |what, actual: String, allowed: &str| {
        Err(SoundError::Format {
            what,
            actual,
            allowed: allowed.to_owned(),
        })
    };
    if !(1..=CHANNELS_MAX).contains(&spec.channels) {
        let allowed = format!("1 to {CHANNELS_MAX}");
        return wrong("the channels are", spec.channels.to_string(), &allowed);
    }
    match (spec.sample_format, spec.bits_per_sample) {
        (SampleFormat::Int, 16 | 24 | 32) | (SampleFormat::Float, 32) => Ok(()),
        // Eight bits are so coarse that their noise is as loud as quiet speech.
        (_, bits) => wrong(
            "a sample has",
            format!("{bits} bits"),
            "16, 24 or 32, and floats of 32",
        ),
    }
}

/// Samples of so much sound.
fn frames(length: Duration, rate_hz: u32) -> u64 {
    u64::try_from(length.as_millis() * u128::from(rate_hz) / 1000).unwrap_or(u64::MAX)
}

/// Reads until `bytes` are full or the source ends; how many there are.
fn fill(source: &mut impl Read, bytes: &mut [u8]) -> Result<usize, SoundError> {
    let mut at = 0;
    while at < bytes.len() {
        match source.read(&mut bytes[at..]) {
            Ok(0) => break,
            Ok(count) => at += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(SoundError::Read { source }),
        }
    }
    Ok(at)
}

fn raw(mut source: impl Read, wanted: Wanted) -> Result<Vec<f32>, SoundError> {
    let frames_max = frames(wanted.length_max, wanted.rate_hz);
    let mut samples = Vec::new();
    let mut bytes = [0; 8192];
    loop {
        let count = fill(&mut source, &mut bytes)?;
        let whole = bytes[..count].chunks_exact(RAW_BYTES);
        if !whole.remainder().is_empty() {
            let frames = samples.len() as u64 + whole.len() as u64;
            return Err(SoundError::Truncated {
                expected: frames + 1,
                actual: frames,
            });
        }
        samples
            .extend(whole.map(|pair| f32::from(i16::from_le_bytes([pair[0], pair[1]])) / 32768.0));
        if samples.len() as u64 > frames_max {
            return Err(SoundError::TooLong {
                limit: wanted.length_max,
            });
        }
        if count < bytes.len() {
            return match samples.is_empty() {
                true => Err(SoundError::Empty),
                false => Ok(samples),
            };
        }
    }
}

/// Why samples came to an end before all were there.
enum Ended {
    Sound(SoundError),
    Wav(hound::Error),
}

/// Mixes channels and passes them on.
struct Intake {
    resampler: Resampler,
    limit: Duration,
    frames_max: u64,
    frames: u64,
}

impl Intake {
    fn too_long(&self) -> SoundError {
        SoundError::TooLong { limit: self.limit }
    }

    fn take_all<S>(
        &mut self,
        samples: impl Iterator<Item = hound::Result<S>>,
        channels: u16,
        to_float: impl Fn(S) -> f32,
    ) -> Result<(), Ended> {
        let (mut sum, mut count) = (0.0f32, 0);
        for sample in samples {
            let sample = to_float(sample.map_err(Ended::Wav)?);
            if !sample.is_finite() {
                return Err(Ended::Sound(SoundError::NotFinite {
                    at: self.frames,
                    value: sample,
                }));
            }
            sum += sample;
            count += 1;
            if count == channels {
                if self.frames >= self.frames_max {
                    return Err(Ended::Sound(self.too_long()));
                }
                self.frames += 1;
                let mixed = sum / f32::from(channels);
                let pushed = self.resampler.push(mixed);
                pushed.map_err(|error| Ended::Sound(SoundError::resample(error)))?;
                (sum, count) = (0.0, 0);
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Vec<f32>, SoundError> {
        match self.frames {
            0 => Err(SoundError::Empty),
            _ => self.resampler.finish().map_err(SoundError::resample),
        }
    }
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
