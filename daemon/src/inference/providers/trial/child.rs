//! The child's side of a trial: one request from standard input, a report into a file, and nothing else.
//!
//! It opens no store, no bus and no port, and says each step before it takes it, since it may not live to say it afterwards.

use std::{
    error::Error,
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    process::ExitCode,
};

use nix::sys::{
    prctl,
    resource::{Resource, setrlimit},
    signal::Signal,
};

use super::{
    super::{
        super::{error::chain, examine, runtime::Runtime},
        candidate::Origin,
        inspect,
    },
    Line, REPORT, Request, measure,
};

/// Longest request that is read.
const REQUEST_BYTES_MAX: u64 = 1 << 20;

/// Carries out the request on standard input. The exit code is for nobody: the report says everything.
pub fn main() -> ExitCode {
    let mut text = Vec::new();
    let request = io::stdin()
        .take(REQUEST_BYTES_MAX)
        .read_to_end(&mut text)
        .ok()
        .and_then(|_| serde_json::from_slice::<Request>(&text).ok());
    let Some(mut request) = request else {
        eprintln!("autoglm-edged: the daemon starts this by itself, to try a provider");
        return ExitCode::FAILURE;
    };
    let mut log = match Log::open(&request) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("autoglm-edged: {}: {error}", request.work.display());
            return ExitCode::FAILURE;
        }
    };
    let result = carry_out(&mut request, &mut log);
    let last = match result {
        Ok(()) => Line::Done,
        Err(error) => Line::Failed(chain(error.as_ref())),
    };
    log.write(&last);
    ExitCode::SUCCESS
}

fn carry_out(request: &mut Request, log: &mut Log) -> Result<(), Box<dyn Error>> {
    log.step("limits");
    limit(request.memory_bytes);
    log.step("ONNX Runtime");
    let runtime = Runtime::load(Some(&request.runtime))?;
    let environment = runtime.environment();
    if let Some(library) = &request.library {
        log.step("registering the library");
        environment.register_ep_library(inspect::registration_name(library), library)?;
    }
    if let Some(examination) = request.examination.take() {
        let mut on_step = |step: &str| log.step(step);
        let examined = examine::carry_out(&runtime, examination, &request.work, &mut on_step)?;
        log.write(&Line::Examined(Box::new(examined)));
        return Ok(());
    }
    match (&request.proof, &request.library) {
        (Some(proof), _) => measure::prove(&runtime, proof, &request.work, log)?,
        (None, library) => {
            log.step("listing devices");
            let origin = library.clone().map_or(Origin::Builtin, Origin::Library);
            log.write(&Line::Devices(inspect::devices(environment, &origin)));
        }
    }
    Ok(())
}

/// Limits what this process may do to the box. What cannot be limited is said, and tried all the same: time is limited from outside.
fn limit(memory_bytes: u64) {
    let said = |what: &str, result: nix::Result<()>| {
        if let Err(error) = result {
            eprintln!("autoglm-edged: {what}: {error}");
        }
    };
    // Private writable memory, and not address space: graphics drivers reserve terabytes of that.
    let memory = setrlimit(Resource::RLIMIT_DATA, memory_bytes, memory_bytes);
    said("cannot limit memory", memory);
    said(
        "cannot switch core files off",
        setrlimit(Resource::RLIMIT_CORE, 0, 0),
    );
    said(
        "cannot follow the daemon into death",
        prctl::set_pdeathsig(Signal::SIGKILL),
    );
    // Where memory runs out all the same, this process goes first.
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", "1000") {
        eprintln!("autoglm-edged: cannot offer itself when memory runs out: {error}");
    }
}

/// The report.
pub(super) struct Log(File);

impl Log {
    fn open(request: &Request) -> io::Result<Self> {
        let path = request.work.join(REPORT);
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map(Self)
    }

    /// Says what begins.
    pub(super) fn step(&mut self, name: &str) {
        self.write(&Line::Step(name.to_owned()));
    }

    pub(super) fn write(&mut self, line: &Line) {
        let mut text = serde_json::to_vec(line).unwrap_or_default();
        text.push(b'\n');
        if let Err(error) = self.0.write_all(&text) {
            eprintln!("autoglm-edged: cannot report: {error}");
        }
    }
}
