//! Trials: what a provider's code is first allowed to do, in a process of its own.
//!
//! A provider is somebody else's code that may crash, hang, eat memory or print to anybody's terminal, and ONNX Runtime never lets a
//! library go again. So the daemon starts its own program once more ([`run`], the parent's side) with [`ARGUMENT`], hands it a
//! [`Request`] on standard input, and reads a report of [`Line`]s from a file; [`child`] is the other side. The child limits its own
//! memory, is killed with all that it started when its time is up, and what it prints is kept for the error and shown nowhere else.
//! However it ends, the last step that it reported says how far it came.
//!
//! Never: two trials at once (the caller sees to that, so that the times measured are worth something).

use std::{
    fs,
    io::{self, PipeReader, Read as _, Write as _},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use super::{
    super::examine::{Examination, Examined},
    builtin::Options,
    candidate::Candidate,
    outcome::{Compiled, Measured},
};

pub mod child;
mod feed;
mod measure;
pub(super) use measure::own_cache;
mod profile;

/// The argument that makes the daemon's program a trial. Hidden from its help: nobody but the daemon uses it.
pub const ARGUMENT: &str = "--provider-trial";

/// What the child prints is kept up to so many bytes, the last ones: where a crash says why.
const OUTPUT_BYTES_MAX: usize = 8 << 10;

/// Longest report that is read; one of ours has some 2 kB.
const REPORT_BYTES_MAX: u64 = 1 << 20;

/// Pace at which a child is looked at. A trial takes a second.
const LOOK: Duration = Duration::from_millis(10);

/// What a child is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    /// ONNX Runtime's library.
    pub(super) runtime: PathBuf,
    /// The plugin library to register, if any.
    pub(super) library: Option<PathBuf>,
    /// Bytes of private memory that it may have.
    pub(super) memory_bytes: u64,
    /// An empty directory for everything that it writes.
    pub(super) work: PathBuf,
    /// The proof, if one is wanted; else the devices are listed.
    pub(super) proof: Option<Proof>,
    /// In place of both: what to find out about a bundle.
    pub(super) examination: Option<Examination>,
}

/// The proof of one model on one candidate.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Proof {
    pub(super) bundle: PathBuf,
    pub(super) candidate: Candidate,
    pub(super) options: Options,
    pub(super) threads: std::num::NonZeroUsize,
    /// Whether to keep the compiled graph in `work`/[`COMPILED`].
    pub(super) compile: bool,
}

/// Where a child leaves what a provider compiled, below its working directory.
pub(super) const COMPILED: &str = "compiled";
/// The compiled graph in there.
pub(super) const COMPILED_GRAPH: &str = "graph.onnx";
const REPORT: &str = "report";

/// One line of a child's report.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    /// It begins with this.
    Step(String),
    /// The library's devices.
    Devices(Vec<Candidate>),
    /// What the proof measured; a later one replaces it.
    Measured(Box<Measured>),
    /// What was found out about a bundle.
    Examined(Box<Examined>),
    /// It gave up in the present step.
    Failed(String),
    /// It did all that it should.
    Done,
}

/// What came of a child.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) devices: Vec<Candidate>,
    pub(super) measured: Option<Measured>,
    pub(super) examined: Option<Examined>,
    /// How far it came and what went wrong; `None` when it did all that it should.
    pub(super) failure: Option<Failure>,
}

/// How a trial failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// The step that it was in.
    pub(super) stage: String,
    /// What was said, or how the process ended and what it printed last.
    pub(super) message: String,
}

/// Why there was no trial at all: this machine's fault, never the provider's.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The child could not be started, or its directory not be made.
    #[error("cannot start a trial: {what}")]
    Start {
        /// What was tried.
        what: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Inference is being stopped.
    #[error("the trial was given up: inference is stopping")]
    Stopped,
}

impl TrialError {
    pub(super) fn start(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Start { what, source }
    }
}

/// Runs one child to its end, at most for `time_max`. `program` is the daemon's; by default the one that runs.
///
/// # Errors
/// [`TrialError`]; whatever the provider does wrong is in the [`Report`].
pub(super) fn run(
    program: Option<&Path>,
    request: &Request,
    time_max: Duration,
    is_stopped: &dyn Fn() -> bool,
) -> Result<Report, TrialError> {
    // The link leads to the running program even after an upgrade has replaced the file.
    let program = program.unwrap_or(Path::new("/proc/self/exe"));
    let (output, writer) = io::pipe().map_err(TrialError::start("a pipe"))?;
    let printed = writer.try_clone().map_err(TrialError::start("a pipe"))?;
    let mut child = Command::new(program)
        .arg0("autoglm-edged")
        .arg(ARGUMENT)
        .env("ORT_DISABLE_TELEMETRY", "1")
        .current_dir(&request.work)
        .stdin(Stdio::piped())
        .stdout(printed)
        .stderr(writer)
        .process_group(0)
        .spawn()
        .map_err(TrialError::start(program.display().to_string()))?;
    let text = serde_json::to_vec(request).map_err(|error| TrialError::Start {
        what: "the request".into(),
        source: error.into(),
    })?;
    if let Some(mut input) = child.stdin.take() {
        // A child that is gone already says why by how it ended.
        let _ = input.write_all(&text);
    }
    let listener = thread::spawn(move || last_of(output));
    let ended = wait(&mut child, time_max, is_stopped);
    // Whatever it started goes with it, so that nobody holds the pipe's other end.
    let group = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    let _ = killpg(group, Signal::SIGKILL);
    let _ = child.wait();
    let printed = listener.join().unwrap_or_default();
    let ended = ended?;
    let mut report = Report::default();
    let mut step = "start".to_owned();
    let mut is_done = false;
    for line in lines(&request.work.join(REPORT)) {
        match line {
            Line::Step(next) => step = next,
            Line::Devices(devices) => report.devices = devices,
            Line::Measured(measured) => report.measured = Some(*measured),
            Line::Examined(examined) => report.examined = Some(*examined),
            Line::Failed(message) => {
                report.failure = Some(Failure {
                    stage: step.clone(),
                    message,
                });
                is_done = true;
            }
            Line::Done => is_done = true,
        }
    }
    if !is_done {
        let mut message = ended.to_string();
        if let Some(last) = last_words(&printed) {
            message.push_str("; its last words: ");
            message.push_str(&last);
        }
        report.failure = Some(Failure {
            stage: step,
            message,
        });
    }
    // The proof itself was whole when only keeping the compiled graph failed.
    if let (Some(measured), Some(failure)) = (&mut report.measured, &report.failure) {
        measured.compiled = Compiled::Unusable {
            message: format!("{}: {}", failure.stage, failure.message),
        };
        report.failure = None;
    }
    if report.failure.is_some() && !printed.is_empty() {
        tracing::debug!(printed = %String::from_utf8_lossy(&printed), "what the failed trial printed");
    }
    Ok(report)
}

/// How a child ended.
enum Ended {
    Exited(ExitStatus),
    TimedOut(Duration),
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TimedOut(limit) => {
                write!(
                    f,
                    "it took longer than {} s and was killed",
                    limit.as_secs()
                )
            }
            Self::Exited(status) => match status.signal().map(Signal::try_from) {
                Some(Ok(signal)) => write!(f, "the process crashed with {signal}"),
                Some(Err(_)) | None => write!(f, "the process ended unexpectedly ({status})"),
            },
        }
    }
}

fn wait(
    child: &mut Child,
    time_max: Duration,
    is_stopped: &dyn Fn() -> bool,
) -> Result<Ended, TrialError> {
    let begun = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(Ended::Exited(status)),
            Ok(None) if begun.elapsed() > time_max => return Ok(Ended::TimedOut(time_max)),
            Ok(None) if is_stopped() => return Err(TrialError::Stopped),
            Ok(None) => thread::sleep(LOOK),
            Err(source) => return Err(TrialError::start("waiting for it")(source)),
        }
    }
}

/// Reads to the end and keeps the last [`OUTPUT_BYTES_MAX`] bytes.
fn last_of(mut output: PipeReader) -> Vec<u8> {
    let (mut kept, mut part) = (Vec::new(), [0u8; 4096]);
    while let Ok(count @ 1..) = output.read(&mut part) {
        kept.extend_from_slice(&part[..count]);
        let excess = kept.len().saturating_sub(OUTPUT_BYTES_MAX);
        kept.drain(..excess);
    }
    kept
}

/// The last line that is one, without control characters.
fn last_words(printed: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(printed);
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(
        line.trim()
            .chars()
            .filter(|letter| !letter.is_control())
            .take(300)
            .collect(),
    )
}

/// A child that crashes may leave half a line; what comes before it counts.
fn lines(path: &Path) -> Vec<Line> {
    let mut text = Vec::new();
    if let Ok(file) = fs::File::open(path) {
        let _ = file.take(REPORT_BYTES_MAX).read_to_end(&mut text);
    }
    text.split(|byte| *byte == b'\n')
        .map_while(|line| serde_json::from_slice(line).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A script in place of the daemon's program: what is shown is the parent's side.
    fn outcome(script: &str, time_max: Duration) -> (Failure, Duration) {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(&program, mode).unwrap();
        let request = Request {
            runtime: "/nowhere".into(),
            library: None,
            memory_bytes: 1 << 30,
            work: dir.path().into(),
            proof: None,
            examination: None,
        };
        let begun = Instant::now();
        let report = run(Some(&program), &request, time_max, &|| false).unwrap();
        (report.failure.expect("it failed"), begun.elapsed())
    }

    #[test]
    fn however_a_child_ends_the_step_and_the_last_words_are_told() {
        let long = Duration::from_secs(60);
        let (failure, _) = outcome(
            r#"echo '{"step":"the library"}' > report; echo noise; echo 'bad: cannot' >&2; kill -ABRT $$"#,
            long,
        );
        assert_eq!(failure.stage, "the library");
        assert_eq!(
            failure.message,
            "the process crashed with SIGABRT; its last words: bad: cannot"
        );
        let (failure, _) = outcome(r#"printf '{"step":"a"}\n{"st' > report; exit 3"#, long);
        assert_eq!(failure.stage, "a");
        assert!(
            failure.message.contains("exit status: 3"),
            "{}",
            failure.message
        );
        let (failure, _) = outcome("exit 0", long);
        assert_eq!(failure.stage, "start");
    }

    #[test]
    fn a_child_that_hangs_is_killed_with_all_that_it_started() {
        // The grandchild holds the pipe; were it left alive, the parent would wait for it.
        let (failure, took) = outcome("sleep 600 & sleep 600", Duration::from_millis(300));
        assert!(failure.message.contains("killed"), "{}", failure.message);
        assert!(took < Duration::from_secs(60), "{took:?}");
    }
}
