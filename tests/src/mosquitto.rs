//! A real mosquitto with a configuration of the test's own, that can be stopped, killed, frozen and started again.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use nix::sys::signal::Signal;

use crate::edge_box::PATIENCE;
use crate::process::{Process, wait_for};

/// A broker on a port of loopback. Dies with the test.
#[derive(Debug)]
pub struct Mosquitto {
    directory: PathBuf,
    port: u16,
    lines: String,
    process: Option<Process>,
}

impl Mosquitto {
    /// Starts a broker that keeps its files in `directory`; `lines` stand behind its `listener`.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(directory: &Path, port: u16, lines: &str) -> anyhow::Result<Self> {
        let mut broker = Self {
            directory: directory.to_owned(),
            port,
            lines: lines.to_owned(),
            process: None,
        };
        broker.start_again()?;
        Ok(broker)
    }

    /// A port that nobody listens on.
    ///
    /// # Errors
    /// When there is none.
    pub fn free_port() -> anyhow::Result<u16> {
        Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
    }

    /// Changes what stands behind `listener`; counts from the next start on.
    pub fn set_lines(&mut self, lines: &str) {
        lines.clone_into(&mut self.lines);
    }

    /// Starts it, or starts it again.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        let (path, port) = (self.directory.join("broker.conf"), self.port);
        // Started by root, mosquitto becomes a user of its own who cannot read and write here.
        let config = format!(
            "user root\nset_tcp_nodelay true\nlog_type all\npersistence_location {}/\nlistener {port} 127.0.0.1\n{}\n",
            self.directory.display(),
            self.lines
        );
        std::fs::write(&path, config)?;
        // Debian keeps it outside a user's PATH.
        let programs = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("mosquitto");
        command.env("PATH", programs).arg("-c").arg(&path);
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.directory.join("broker.log"))?;
        command.stderr(log);
        self.process = Some(Process::start(&mut command).context("package mosquitto")?);
        wait_for("the broker", PATIENCE, || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        })
    }

    /// What it logged, of all its lives.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("broker.log")).unwrap_or_default()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Stops it in an orderly way.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::SIGTERM)?;
            process.ended_within(PATIENCE)?;
        }
        Ok(())
    }

    /// Freezes it: its connections stay open and nobody answers on them.
    ///
    /// # Errors
    /// When it does not run.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.process
            .as_ref()
            .context("the broker does not run")?
            .signal(Signal::SIGSTOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.process
            .as_ref()
            .context("the broker does not run")?
            .signal(Signal::SIGCONT)
    }
}
