//! What is read, and what is refused. Files are made by `hound`, headers that no program should write by hand.

use std::io;

use hound::WavWriter;
use proptest::prelude::*;

use super::*;

const WANTED: Wanted = Wanted {
    rate_hz: 16_000,
    length_max: Duration::from_secs(2),
};

fn wav(spec: WavSpec, samples: &[i32]) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    let mut writer = WavWriter::new(&mut file, spec).unwrap();
    for &sample in samples {
        match spec.sample_format {
            SampleFormat::Int => writer.write_sample(sample).unwrap(),
            SampleFormat::Float => writer.write_sample(sample as f32 / 32768.0).unwrap(),
        }
    }
    writer.finalize().unwrap();
    file.into_inner()
}

fn spec(channels: u16, sample_rate: u32, bits_per_sample: u16) -> WavSpec {
    WavSpec {
        channels,
        sample_rate,
        bits_per_sample,
        sample_format: SampleFormat::Int,
    }
}

fn heard(bytes: &[u8]) -> Result<Vec<f32>, SoundError> {
    read(bytes, Format::Wav, WANTED)
}

fn refused(bytes: &[u8]) -> String {
    heard(bytes).unwrap_err().to_string()
}

#[test]
fn every_width_gives_the_same_sound_and_channels_are_mixed() {
    let plain = heard(&wav(spec(1, 16_000, 16), &[0, 16384, -16384, 32767])).unwrap();
    assert_eq!(plain, [0.0, 0.5, -0.5, 32767.0 / 32768.0]);
    let wider = |shift: u32| {
        plain
            .iter()
            .map(|it| (it * 32768.0) as i32 * (1 << shift))
            .collect()
    };
    let (deep, deepest): (Vec<i32>, Vec<i32>) = (wider(8), wider(16));
    assert_eq!(heard(&wav(spec(1, 16_000, 24), &deep)).unwrap(), plain);
    assert_eq!(heard(&wav(spec(1, 16_000, 32), &deepest)).unwrap(), plain);
    let floats = WavSpec {
        sample_format: SampleFormat::Float,
        ..spec(1, 16_000, 32)
    };
    assert_eq!(
        heard(&wav(floats, &[0, 16384, -16384, 32767])).unwrap(),
        plain
    );
    let stereo = wav(spec(2, 16_000, 16), &[100, 300, -8, 8]);
    assert_eq!(heard(&stereo).unwrap(), [200.0 / 32768.0, 0.0]);
    let raw = [0, 0, 0, 64, 0, 192];
    let read = read(&raw[..], Format::S16le, WANTED).unwrap();
    assert_eq!(read, [0.0, 0.5, -0.5]);
}

#[test]
fn a_file_of_another_rate_comes_out_as_long_as_it_is() {
    let seen = heard(&wav(spec(1, 48_000, 16), &vec![1000; 48_000])).unwrap();
    assert_eq!(seen.len(), 16_000);
}

#[test]
fn chunks_before_the_sound_are_passed_over_and_a_pipes_unknown_length_is_none() {
    let file = wav(spec(1, 16_000, 16), &[5; 100]);
    let expected = heard(&file).unwrap();
    let mut noted = file[..12].to_vec();
    noted.extend(b"LIST\x05\0\0\0INFOx\0");
    noted.extend(&file[12..]);
    assert_eq!(heard(&noted).unwrap(), expected);
    for length in [u32::MAX, 0x7fff_ffff, 0x7fff_f000] {
        let mut piped = file.clone();
        piped[40..44].copy_from_slice(&length.to_le_bytes());
        assert_eq!(heard(&piped).unwrap(), expected, "{length:x}");
        piped.pop();
        assert_eq!(
            heard(&piped).unwrap(),
            expected[..99],
            "half a sample is none"
        );
    }
}

#[test]
fn what_is_no_sound_is_told_which_part_and_which_limit() {
    let file = wav(spec(1, 16_000, 16), &[5; 100]);
    let edited = |at: usize, bytes: &[u8]| {
        let mut file = file.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    let eight = wav(spec(1, 16_000, 8), &[1, 2, 3]);
    let mut huge = file[..12].to_vec();
    huge.extend(b"LIST\xff\xff\xff\x7f");
    for (bytes, part) in [
        (vec![], "no bytes at all"),
        (wav(spec(1, 16_000, 16), &[]), "no bytes at all"),
        (b"RIFF".to_vec(), "no WAV file"),
        (b"OggS\0\0\0\0\0\0\0\0\0\0\0\0".to_vec(), "no WAV file"),
        (file[..30].to_vec(), "it ends within a chunk"),
        (file[..38].to_vec(), "before the sound begins"),
        (file[..100].to_vec(), "28 of 100 samples"),
        (file[..101].to_vec(), "28 of 100 samples"),
        (eight, "a sample has 8 bits, allowed are 16, 24"),
        (huge, "more than 1048576 bytes"),
        (edited(12, b"fmx "), "it has no format"),
        (edited(20, &[2, 0]), "not usable"),
        (edited(22, &[0, 0]), "not usable"),
        (edited(24, &[1, 0, 0, 0]), "not usable"),
        (
            wav(spec(1, 4_000, 16), &[1]),
            "4000 Hz, allowed are 8000 to 192000 Hz",
        ),
        (
            wav(spec(9, 16_000, 16), &[1; 9]),
            "channels are 9, allowed are 1 to 8",
        ),
        (wav(spec(1, 16_000, 16), &[1; 32_001]), "longer than 2 s"),
    ] {
        let said = refused(&bytes);
        assert!(said.contains(part), "{part}: {said}");
    }
    let long = edited(40, &u32::MAX.to_le_bytes());
    let endless = long.chain(io::repeat(1));
    let error = read(endless, Format::Wav, WANTED).unwrap_err();
    assert!(matches!(error, SoundError::TooLong { .. }), "{error}");
    let error = read(io::repeat(0), Format::S16le, WANTED).unwrap_err();
    assert!(matches!(error, SoundError::TooLong { .. }), "{error}");
    let floats = WavSpec {
        sample_format: SampleFormat::Float,
        ..spec(1, 16_000, 32)
    };
    let mut infinite = wav(floats, &[1, 2, 3]);
    let last = infinite.len() - 4;
    infinite[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(refused(&infinite).contains("sample 2 of the sound is NaN"));
    assert!(matches!(
        read(&[1u8][..], Format::S16le, WANTED),
        Err(SoundError::Truncated { .. })
    ));
}

/// A source that breaks.
struct Breaks;

impl Read for Breaks {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("unplugged"))
    }
}

#[test]
fn a_source_that_breaks_is_told_as_such_and_not_as_a_bad_file() {
    let file = wav(spec(1, 16_000, 16), &[5; 100]);
    for whole in [0, 20, 60] {
        let error = read(file[..whole].chain(Breaks), Format::Wav, WANTED).unwrap_err();
        assert!(matches!(error, SoundError::Read { .. }), "{whole}: {error}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_and_what_comes_out_is_within_the_limit(
        mut bytes in prop::collection::vec(any::<u8>(), 0..400), edits in prop::collection::vec((0usize..60, any::<u8>()), 0..6),
        is_wav in any::<bool>(),
    ) {
        if is_wav {
            let mut file = wav(spec(2, 44_100, 16), &[5; 200]);
            for (at, byte) in edits {
                file[at] = byte;
            }
            file.append(&mut bytes);
            bytes = file;
        }
        for format in Format::ALL {
            if let Ok(samples) = read(&bytes[..], format, WANTED) {
                prop_assert!(!samples.is_empty() || is_wav);
                prop_assert!(samples.len() <= 32_000 && samples.iter().all(|it| it.is_finite()));
            }
        }
    }
}
