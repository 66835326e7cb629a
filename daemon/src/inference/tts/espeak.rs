//! espeak-ng as a child process: text to phonemes.
//!
//! It is under the GPL, so it is run as a program and never linked. One child for each piece of text, some milliseconds: it gets the text on standard
//! input (never as an argument, where other users could read it and where a `-` would be an option) and an empty environment, and is killed with all that it
//! started when it takes too long, prints too much, or inference stops. Never: two at once for one model (its thread waits for it).

use std::{
    io::{self, PipeReader, Read as _, Write as _},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, sync_channel},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use nix::{
    sys::{
        signal::{Signal, killpg},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};
use thiserror::Error;

/// What a person can do where it is missing.
const REMEDY: &str =
    "install Debian's package espeak-ng, or set inference.espeak_ng to where it is";

/// Longest that it may take. A piece of text takes it some 10 ms, on a small board that is busy perhaps 200.
const TIME_MAX: Duration = Duration::from_secs(3);

/// Most bytes that it may print. A piece of 300 digits makes some 8 kB.
const OUTPUT_BYTES_MAX: usize = 64 << 10;

/// Most bytes of its complaints that are kept.
const WORDS_BYTES_MAX: usize = 2 << 10;

/// How often is looked whether inference stops.
const LOOK: Duration = Duration::from_millis(50);

/// Why there are no phonemes.
#[derive(Debug, Clone, Error)]
pub enum EspeakError {
    /// It is not installed.
    #[error("{} is not there: {REMEDY}", program.display())]
    Missing {
        /// Where it was looked for.
        program: PathBuf,
    },
    /// It is there and could not be started.
    #[error("{} cannot be started", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// It took too long and was killed.
    #[error("{} took longer than {} ms and was killed", program.display(), limit.as_millis())]
    TimedOut {
        /// The program.
        program: PathBuf,
        /// How long it may take.
        limit: Duration,
    },
    /// It printed too much and was killed.
    #[error("{} printed more than {limit} bytes for one sentence and was killed", program.display())]
    TooLong {
        /// The program.
        program: PathBuf,
        /// How much it may print.
        limit: usize,
    },
    /// It ended with an error, or was killed by somebody else.
    #[error("{} failed ({how}){words}", program.display())]
    Failed {
        /// The program.
        program: PathBuf,
        /// Exit status or signal.
        how: String,
        /// What it said last, after a colon; empty where it said nothing.
        words: String,
    },
    /// It printed something that is no text.
    #[error("{} printed something that is not UTF-8", program.display())]
    NotText {
        /// The program.
        program: PathBuf,
    },
    /// It printed phonemes that are not of the voice.
    #[error("{} printed phonemes of which the voice knows too few ({unknown} of {all} are unknown to it)", program.display())]
    Foreign {
        /// The program.
        program: PathBuf,
        /// Phonemes that the voice does not know.
        unknown: usize,
        /// All that it printed.
        all: usize,
    },
    /// Inference is being stopped.
    #[error("inference is stopping")]
    Stopped,
}

/// The program with a voice's language.
#[derive(Debug, Clone)]
pub(super) struct Espeak {
    program: PathBuf,
    voice: String,
}

/// What the program's file looks like from outside, so that a model that was disabled for want of it is tried again when it comes.
pub(super) fn fingerprint(program: &Path) -> Option<(u64, SystemTime)> {
    let facts = std::fs::metadata(program).ok()?;
    Some((facts.len(), facts.modified().ok()?))
}

impl Espeak {
    /// `voice` was checked to be no option.
    pub(super) fn new(program: &Path, voice: &str) -> Self {
        Self {
            program: program.to_owned(),
            voice: voice.to_owned(),
        }
    }

    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// What it prints for one piece of text: a line of IPA for every clause. Blocks.
    ///
    /// # Errors
    /// [`EspeakError`].
    pub(super) fn run(
        &self,
        text: &str,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<String, EspeakError> {
        let start = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => EspeakError::Missing {
                program: self.program.clone(),
            },
            _ => EspeakError::Start {
                program: self.program.clone(),
                source: Arc::new(source),
            },
        };
        let (output, printed) = io::pipe().map_err(start)?;
        let (complaints, words) = io::pipe().map_err(start)?;
        let mut command = Command::new(&self.program);
        command
            .args(["-q", "--ipa", "--stdin", "-b", "1", "-v", &self.voice])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(printed)
            .stderr(words)
            .process_group(0);
        let mut child = Running::of(command.spawn().map_err(start)?);
        // It holds our writing ends of the pipes.
        drop(command);
        let (said, heard) = sync_channel(1);
        let reader = thread::spawn(move || {
            let _ = said.send(read(output, OUTPUT_BYTES_MAX));
        });
        let listener = thread::spawn(move || read(complaints, WORDS_BYTES_MAX));
        if let Some(mut input) = child.input() {
            // A piece is smaller than a pipe, so this never waits. A child that is gone says why by how it ended. `[[` would begin phonemes.
            let _ = input.write_all(text.replace("[[", "[ [").as_bytes());
        }
        let begun = Instant::now();
        let printed = loop {
            match heard.recv_timeout(LOOK) {
                Ok(printed) => break Ok(printed),
                Err(RecvTimeoutError::Timeout) if is_stopped() => break Err(EspeakError::Stopped),
                Err(RecvTimeoutError::Timeout) if begun.elapsed() < TIME_MAX => {}
                Err(_) => break Err(self.timed_out()),
            }
        };
        // One that has closed its output ends at once, or never.
        let ended = printed.and_then(|printed| match printed.len() > OUTPUT_BYTES_MAX {
            true => Err(EspeakError::TooLong {
                program: self.program.clone(),
                limit: OUTPUT_BYTES_MAX,
            }),
            false => self.wait(&child, begun, is_stopped).map(|()| printed),
        });
        let status = child.end();
        let _ = reader.join();
        let words = listener.join().unwrap_or_default();
        let (printed, status) = (ended?, status.map_err(start)?);
        if !status.success() {
            let how = match status.signal().map(Signal::try_from) {
                Some(Ok(signal)) => format!("killed by {signal}"),
                _ => status.to_string(),
            };
            return Err(EspeakError::Failed {
                program: self.program.clone(),
                how,
                words: last_words(&words),
            });
        }
        String::from_utf8(printed).map_err(|_| EspeakError::NotText {
            program: self.program.clone(),
        })
    }

    /// Until it has ended, without taking its number away.
    fn wait(
        &self,
        child: &Running,
        begun: Instant,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<(), EspeakError> {
        while child.is_alive() {
            if is_stopped() {
                return Err(EspeakError::Stopped);
            }
            if begun.elapsed() > TIME_MAX {
                return Err(self.timed_out());
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn timed_out(&self) -> EspeakError {
        EspeakError::TimedOut {
            program: self.program.clone(),
            limit: TIME_MAX,
        }
    }
}

/// Killed with its group, and waited for, when it ends or is dropped.
struct Running(Option<Child>);

impl Running {
    fn of(child: Child) -> Self {
        Self(Some(child))
    }

    fn input(&mut self) -> Option<ChildStdin> {
        self.0.as_mut().and_then(|child| child.stdin.take())
    }

    fn pid(&self) -> Option<Pid> {
        let child = self.0.as_ref()?;
        i32::try_from(child.id()).ok().map(Pid::from_raw)
    }

    /// Looks without reaping, so that its number stays its own.
    fn is_alive(&self) -> bool {
        let how = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let seen = self.pid().map(|pid| waitid(Id::Pid(pid), how));
        matches!(seen, Some(Ok(WaitStatus::StillAlive)))
    }

    /// Whatever it started goes with it, so that nobody holds the pipes' other ends.
    fn end(mut self) -> io::Result<ExitStatus> {
        self.kill();
        match self.0.take() {
            Some(mut child) => child.wait(),
            None => Err(io::Error::other("it was waited for twice")),
        }
    }

    fn kill(&self) {
        if let Some(pid) = self.pid() {
            // A group that is gone already is what is wanted.
            let _ = killpg(pid, Signal::SIGKILL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        if let Some(mut child) = self.0.take() {
            let _ = child.wait();
        }
    }
}

/// Reads to the end, or a byte more than `limit`.
fn read(pipe: PipeReader, limit: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What cannot be read is as if it had not been printed.
    let _ = pipe.take(limit as u64 + 1).read_to_end(&mut bytes);
    bytes
}

/// The last line that is one, without control characters, behind a colon.
fn last_words(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let line = text
        .lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty());
    let Some(line) = line else {
        return String::new();
    };
    let harmless = line.chars().filter(|letter| !letter.is_control());
    format!(": {}", harmless.take(200).collect::<String>())
}
