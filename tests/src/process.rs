//! Running the project's own programs as processes, and waiting for what they do without sleeping blindly.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::Value;

/// A program that dies with the test that started it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts a command.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &mut Command) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self { child, name })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: nix::sys::signal::Signal) -> anyhow::Result<()> {
        let id = nix::unistd::Pid::from_raw(i32::try_from(self.child.id())?);
        nix::sys::signal::kill(id, signal).with_context(|| format!("{} is gone", self.name))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn ended_within(&mut self, patience: Duration) -> anyhow::Result<std::process::ExitStatus> {
        let mut status = None;
        wait_for(&format!("{} to end", self.name), patience, || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        })?;
        status.context("ended without a status")
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Polls until something is so.
///
/// # Errors
/// Names what was waited for when it does not come to be in time.
pub fn wait_for(
    what: &str,
    patience: Duration,
    mut is_so: impl FnMut() -> bool,
) -> anyhow::Result<()> {
    let until = Instant::now() + patience;
    while !is_so() {
        anyhow::ensure!(
            Instant::now() < until,
            "waited {} s in vain for {what}",
            patience.as_secs_f32()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// One of the project's programs, beside the running test in the build directory.
///
/// # Errors
/// When it was not built.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    let path = test
        .ancestors()
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
        .with_context(|| {
            format!("{name} is not built: run `cargo build --workspace` first (make test does)")
        })?;
    Ok(path)
}

/// The state that a simulated device shows to the world.
///
/// # Errors
/// When it shows none.
pub fn state(path: &Path) -> anyhow::Result<Value> {
    let text = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    Ok(serde_json::from_slice(&text)?)
}

/// The last entry of a directory by name: the newest version of what is kept there.
///
/// # Errors
/// When there is none.
pub fn newest(directory: &Path) -> anyhow::Result<PathBuf> {
    let entries = std::fs::read_dir(directory)
        .with_context(|| format!("{} cannot be read: run `make models`", directory.display()))?;
    let paths = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_dir());
    paths
        .max()
        .with_context(|| format!("{} is empty: run `make models`", directory.display()))
}
