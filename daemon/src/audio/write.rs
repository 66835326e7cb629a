//! 16-bit sound as WAV: a file that is there when it is whole, and the header of a stream whose length nobody knows yet.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use hound::{SampleFormat, WavSpec, WavWriter};

/// Why a file was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The path names no file.
    #[error("{} is no name of a file", path.display())]
    Name {
        /// The path.
        path: PathBuf,
    },
    /// The system refused, or the disk is full.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What was said.
        #[source]
        source: hound::Error,
    },
}

fn spec(sample_rate_hz: u32) -> WavSpec {
    WavSpec {
        channels: 1,
        sample_rate: sample_rate_hz,
        bits_per_sample: 16,
        sample_format: SampleFormat::Int,
    }
}

/// Bytes of sound that a stream's header promises: as sox has it for pipes. Hours more than anybody speaks, a whole number of samples (the largest number is not, and some
/// readers refuse it), and below what readers with signed numbers take.
const ENDLESS_BYTES: u32 = 0x7fff_f000;

/// The header before samples (mono, 16 bits, little-endian) whose number is not known. Readers find the end of the stream before the one that is promised.
#[must_use]
pub fn endless_header(sample_rate_hz: u32) -> Vec<u8> {
    let mut header = spec(sample_rate_hz).into_header_for_infinite_file();
    // The length of all that follows the first eight bytes, and of the samples.
    let all = ENDLESS_BYTES + header.len() as u32 - 8;
    header[4..8].copy_from_slice(&all.to_le_bytes());
    let at = header.len() - 4;
    header[at..].copy_from_slice(&ENDLESS_BYTES.to_le_bytes());
    header
}

/// Samples as they are in a WAV.
#[must_use]
pub fn bytes(samples: &[i16]) -> Vec<u8> {
    samples
        .iter()
        .flat_map(|sample| sample.to_le_bytes())
        .collect()
}

/// A mono file that is being written, beside its place until [`finish`](Self::finish). Dropped before that it leaves nothing.
pub struct WavFile {
    writer: Option<WavWriter<BufWriter<File>>>,
    place: PathBuf,
    unfinished: PathBuf,
}

impl WavFile {
    /// Begins.
    ///
    /// # Errors
    /// [`WriteError`]
    pub fn create(place: &Path, sample_rate_hz: u32) -> Result<Self, WriteError> {
        let name = place.file_name().ok_or_else(|| WriteError::Name {
            path: place.to_owned(),
        })?;
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}.part", std::process::id()));
        let unfinished = place.with_file_name(hidden);
        let writer = WavWriter::create(&unfinished, spec(sample_rate_hz));
        let writer = writer.map_err(|source| WriteError::Write {
            path: place.to_owned(),
            source,
        })?;
        Ok(Self {
            writer: Some(writer),
            place: place.to_owned(),
            unfinished,
        })
    }

    /// Adds samples.
    ///
    /// # Errors
    /// [`WriteError::Write`]
    pub fn add(&mut self, samples: &[i16]) -> Result<(), WriteError> {
        let Some(writer) = &mut self.writer else {
            return Ok(());
        };
        let added = samples
            .iter()
            .try_for_each(|sample| writer.write_sample(*sample));
        added.map_err(|source| self.failed(source))
    }

    /// Ends the file, and puts it in its place.
    ///
    /// # Errors
    /// [`WriteError::Write`]
    pub fn finish(mut self) -> Result<(), WriteError> {
        if let Some(writer) = self.writer.take() {
            writer.finalize().map_err(|source| self.failed(source))?;
            let renamed = fs::rename(&self.unfinished, &self.place);
            renamed.map_err(|source| self.failed(source.into()))?;
        }
        Ok(())
    }

    fn failed(&self, source: hound::Error) -> WriteError {
        WriteError::Write {
            path: self.place.clone(),
            source,
        }
    }
}

impl Drop for WavFile {
    fn drop(&mut self) {
        drop(self.writer.take());
        // Renamed when it is finished; else nobody wants the half.
        let _ = fs::remove_file(&self.unfinished);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_when_it_is_whole_and_half_of_one_never() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("said.wav");
        let samples: Vec<i16> = (-300..300).collect();
        let mut half = WavFile::create(&place, 22_050).unwrap();
        half.add(&samples).unwrap();
        assert!(!place.exists());
        drop(half);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);

        let mut whole = WavFile::create(&place, 22_050).unwrap();
        whole.add(&samples).unwrap();
        whole.finish().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let mut reader = hound::WavReader::open(&place).unwrap();
        assert_eq!(reader.spec(), spec(22_050));
        let read: Vec<i16> = reader.samples().map(Result::unwrap).collect();
        assert_eq!(read, samples);
        assert!(matches!(
            WavFile::create(Path::new("/"), 1),
            Err(WriteError::Name { .. })
        ));
        let nowhere = dir.path().join("no/such/said.wav");
        assert!(matches!(
            WavFile::create(&nowhere, 1),
            Err(WriteError::Write { .. })
        ));
    }

    #[test]
    fn a_stream_begins_like_a_file_and_goes_on_as_long_as_it_likes() {
        let header = endless_header(16_000);
        assert_eq!((&header[..4], &header[8..12]), (&b"RIFF"[..], &b"WAVE"[..]));
        let stream = [header, bytes(&[1, -2, 3])].concat();
        let mut reader = hound::WavReader::new(stream.as_slice()).unwrap();
        assert_eq!(reader.spec().sample_rate, 16_000);
        let read: Vec<i16> = reader.samples().take(3).map(Result::unwrap).collect();
        assert_eq!(read, [1, -2, 3]);
    }
}
