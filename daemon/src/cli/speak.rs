//! `speak`: a text as sound, into a file, into a pipe as WAV, or to the loudspeaker through a player that is installed.
//!
//! The sound is heard, or written, as it comes. A file is there when it is whole. What a stream ends with is in the exit code: a text that was not spoken to its
//! end is a failure.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::pipe;
use tokio::process::{Child, ChildStdin, Command};

use super::args::Global;
use super::args::conversation::SpeakArgs;
use super::bus::{Daemon, Speaking};
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Form, Output};
use crate::audio::write::{WavFile, endless_header};

/// Most bytes that are read from standard input: above what the daemon takes, so that it says what is allowed.
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// Most bytes of one sentence that are believed: ten minutes of the best sound.
const SENTENCE_BYTES_MAX: usize = 256 << 20;

/// One line of the daemon's answer; sound follows `Audio`.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event {
    Format {
        sample_rate_hz: u32,
        channels: u16,
        encoding: String,
    },
    Audio {
        bytes: usize,
    },
    Done,
    Failed {
        error: String,
        message: String,
    },
}

/// Runs `speak`.
///
/// # Errors
/// [`Failure`]
pub async fn run(global: &Global, args: SpeakArgs, output: &mut Output) -> Result<Exit, Failure> {
    let target = Target::of(args.output.as_deref(), output.form)?;
    let text = match args.text.is_empty() {
        true => standard_input().await?,
        false => args.text.join(" "),
    };
    let daemon = super::connect(global).await?;
    let speaking = speak(&daemon, &text, &args, target, output);
    match global.timeout {
        None => speaking.await,
        Some(timeout) => tokio::time::timeout(timeout, speaking)
            .await
            .unwrap_or_else(|_| {
                let message = "the speech took longer than --timeout";
                Err(Failure::new(Exit::Unreachable, message))
            }),
    }
}

async fn standard_input() -> Result<String, Failure> {
    let read = tokio::task::spawn_blocking(|| {
        let mut text = String::new();
        let stdin = io::stdin().lock();
        stdin
            .take(TEXT_BYTES_MAX + 1)
            .read_to_string(&mut text)
            .map(|_| text)
    });
    let unreadable = |error: &(dyn std::error::Error + 'static)| {
        Failure::new(Exit::Usage, "cannot read standard input").because(error)
    };
    let text = read.await.map_err(|error| unreadable(&error))?;
    let text = text.map_err(|error| unreadable(&error))?;
    match text.len() as u64 > TEXT_BYTES_MAX {
        true => Err(Failure::new(
            Exit::InvalidValue,
            format!("standard input is longer than {TEXT_BYTES_MAX} bytes"),
        )),
        false => Ok(text),
    }
}

async fn speak(
    daemon: &Daemon,
    text: &str,
    args: &SpeakArgs,
    target: Target,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let how = Speaking {
        class: args.class.class(),
        speaker: args.speaker,
        speed: args.speed,
    };
    let pipe = daemon.speak(text, &how).await?;
    let pipe = pipe::Receiver::from_owned_fd(OwnedFd::from(pipe)).map_err(|error| {
        Failure::new(Exit::Internal, "the daemon's answer is no pipe").because(&error)
    })?;
    let mut answer = BufReader::new(pipe);
    let mut sink: Option<Sink> = None;
    let (mut rate, mut samples, mut line) = (0, 0, String::new());
    loop {
        line.clear();
        let count = answer
            .read_line(&mut line)
            .await
            .map_err(|error| broken(&error))?;
        if count == 0 {
            let message = "the speech broke off: the daemon stopped";
            return Err(Failure::new(Exit::Unreachable, message));
        }
        let event = serde_json::from_str(&line).map_err(|error| unreadable().because(&error))?;
        match event {
            Event::Format {
                sample_rate_hz,
                channels: 1,
                encoding,
            } if encoding == "s16le" && sink.is_none() => {
                rate = sample_rate_hz;
                sink = Some(target.open(rate, output).await?);
            }
            Event::Audio { bytes } if bytes <= SENTENCE_BYTES_MAX && bytes % 2 == 0 => {
                let mut sound = vec![0; bytes];
                answer
                    .read_exact(&mut sound)
                    .await
                    .map_err(|error| broken(&error))?;
                let sink = sink.as_mut().ok_or_else(unreadable)?;
                sink.add(&sound).await?;
                samples += bytes / 2;
            }
            Event::Done => break,
            Event::Failed { error, message } => return Err(Failure::daemon(&error, message)),
            Event::Format { .. } | Event::Audio { .. } => return Err(unreadable()),
        }
    }
    let sink = sink.ok_or_else(unreadable)?;
    let place = sink.finish().await?;
    let seconds = samples as f64 / f64::from(rate.max(1));
    if output.form == Form::Json {
        let spoken = json!({"file": place, "seconds": seconds, "sample_rate_hz": rate});
        output.json("spoken", &spoken)?;
    } else if let Some(place) = place {
        output.note(&format!("{} has {seconds:.1} s of speech", place.display()));
    }
    Ok(Exit::Success)
}

fn broken(error: &io::Error) -> Failure {
    Failure::new(Exit::Unreachable, "the speech broke off").because(error)
}

fn unreadable() -> Failure {
    Failure::new(Exit::Internal, "the daemon's answer cannot be read")
        .hint("daemon and command line may be of different versions")
}

/// Where the sound goes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    File(PathBuf),
    /// WAV of unknown length: to standard output, or to a device or pipe that `--output` names.
    Stream(Option<PathBuf>),
    Player,
}

impl Target {
    fn of(path: Option<&Path>, form: Form) -> Result<Self, Failure> {
        let stream = || match form {
            Form::Json => Err(Failure::new(
                Exit::Usage,
                "standard output cannot take JSON and sound",
            )
            .hint("--output FILE says where the sound goes")),
            Form::Text => Ok(Self::Stream(None)),
        };
        match path {
            Some(path) if path == Path::new("-") => stream(),
            Some(path) => match std::fs::metadata(path) {
                // Nothing can be put in the place of those.
                Ok(facts) if !facts.is_file() && !facts.is_dir() => {
                    Ok(Self::Stream(Some(path.to_owned())))
                }
                Ok(facts) if facts.is_dir() => {
                    let message = format!("{} is a directory", path.display());
                    Err(Failure::new(Exit::Usage, message))
                }
                _ => Ok(Self::File(path.to_owned())),
            },
            None if io::stdout().is_terminal() => Ok(Self::Player),
            None => stream(),
        }
    }

    async fn open(&self, sample_rate_hz: u32, output: &mut Output) -> Result<Sink, Failure> {
        Ok(match self {
            Self::File(path) => {
                let file =
                    WavFile::create(path, sample_rate_hz).map_err(|error| unwritten(&error))?;
                Sink::File(file, path.clone())
            }
            Self::Stream(path) => {
                let mut stream: Box<dyn io::Write> = match path {
                    None => Box::new(io::stdout()),
                    Some(path) => {
                        let file = std::fs::File::options().write(true).open(path);
                        let file = file.map_err(|error| {
                            let message = format!("cannot write {}", path.display());
                            Failure::new(Exit::Internal, message).because(&error)
                        })?;
                        Box::new(file)
                    }
                };
                let header = endless_header(sample_rate_hz);
                stream
                    .write_all(&header)
                    .map_err(|error| Failure::output(&error))?;
                Sink::Stream(stream)
            }
            Self::Player => Sink::Player(Player::start(sample_rate_hz, output)?),
        })
    }
}

fn unwritten(error: &crate::audio::write::WriteError) -> Failure {
    Failure::new(Exit::Internal, error.to_string())
        .because(std::error::Error::source(error).unwrap_or(error))
}

enum Sink {
    File(WavFile, PathBuf),
    Stream(Box<dyn io::Write>),
    Player(Player),
}

impl Sink {
    async fn add(&mut self, sound: &[u8]) -> Result<(), Failure> {
        match self {
            Self::File(file, _) => {
                let pairs = sound.chunks_exact(2);
                let samples: Vec<i16> = pairs
                    .map(|pair| i16::from_le_bytes([pair[0], pair[1]]))
                    .collect();
                file.add(&samples).map_err(|error| unwritten(&error))
            }
            Self::Stream(stream) => {
                let written = stream.write_all(sound).and_then(|()| stream.flush());
                written.map_err(|error| Failure::output(&error))
            }
            Self::Player(player) => player.add(sound).await,
        }
    }

    /// The file, where there is one.
    async fn finish(self) -> Result<Option<PathBuf>, Failure> {
        match self {
            Self::File(file, path) => {
                file.finish().map_err(|error| unwritten(&error))?;
                Ok(Some(path))
            }
            Self::Stream(mut stream) => {
                stream.flush().map_err(|error| Failure::output(&error))?;
                Ok(None)
            }
            Self::Player(player) => player.finish().await.map(|()| None),
        }
    }
}

/// A program that plays what it gets on standard input. It is killed when this run ends before it.
struct Player {
    name: &'static str,
    process: Child,
    input: Option<ChildStdin>,
}

/// Programs that play, with the packages that they are in, the preferred first: ALSA's goes through whatever sound server there is.
const PLAYERS: [(&str, &str); 3] = [
    ("aplay", "alsa-utils"),
    ("paplay", "pulseaudio-utils"),
    ("pw-play", "pipewire-bin"),
];

/// The arguments by which one of them plays mono samples of 16 bits from standard input.
fn arguments(player: &str, sample_rate_hz: u32) -> Vec<String> {
    let line = match player {
        "aplay" => format!("-q -t raw -f S16_LE -c 1 -r {sample_rate_hz} -"),
        "paplay" => format!("--raw --format=s16le --channels=1 --rate={sample_rate_hz}"),
        _ => format!("--format s16 --channels 1 --rate {sample_rate_hz} -"),
    };
    line.split(' ').map(str::to_owned).collect()
}

impl Player {
    fn start(sample_rate_hz: u32, output: &mut Output) -> Result<Self, Failure> {
        for (name, _) in PLAYERS {
            let started = Command::new(name)
                .args(arguments(name, sample_rate_hz))
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .kill_on_drop(true)
                .spawn();
            match started {
                Ok(mut process) => {
                    let input = process.stdin.take();
                    output.note(&format!("played by {name}"));
                    return Ok(Self {
                        name,
                        process,
                        input,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    let message = format!("{name} cannot be started");
                    return Err(Failure::new(Exit::Unavailable, message).because(&error));
                }
            }
        }
        let names = PLAYERS.map(|(name, package)| format!("{name} ({package})"));
        let message = format!("no player is installed: {}", names.join(", "));
        Err(Failure::new(Exit::Unavailable, message)
            .hint("--output FILE writes a WAV file, and a pipe gets one on standard output"))
    }

    async fn add(&mut self, sound: &[u8]) -> Result<(), Failure> {
        let Some(input) = &mut self.input else {
            return Ok(());
        };
        match input.write_all(sound).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.failed().await),
        }
    }

    /// Waits until all of it was heard.
    async fn finish(mut self) -> Result<(), Failure> {
        drop(self.input.take());
        match self.process.wait().await {
            Ok(status) if status.success() => Ok(()),
            _ => Err(self.failed().await),
        }
    }

    /// It has said itself on standard error what is wrong.
    async fn failed(&mut self) -> Failure {
        drop(self.input.take());
        let how = match self.process.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        Failure::new(
            Exit::Unavailable,
            format!("{} could not play it ({how})", self.name),
        )
        .hint("--output FILE writes a WAV file instead")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sound_goes_where_it_is_asked_and_never_among_json() {
        let of = |path: Option<&str>, form| Target::of(path.map(Path::new), form);
        assert_eq!(of(Some("-"), Form::Text).unwrap(), Target::Stream(None));
        assert_eq!(of(Some("-"), Form::Json).unwrap_err().exit, Exit::Usage);
        assert_eq!(
            of(Some("said.wav"), Form::Json).unwrap(),
            Target::File("said.wav".into())
        );
        let null = of(Some("/dev/null"), Form::Text).unwrap();
        assert_eq!(null, Target::Stream(Some("/dev/null".into())));
        assert_eq!(of(Some("/"), Form::Text).unwrap_err().exit, Exit::Usage);
    }
}
