//! The box's daemon: its configuration, its process and its log.

use std::fs::File;
use std::process::Command;

use anyhow::Context as _;

use super::{EdgeBox, PATIENCE};
use crate::process::{Process, newest, program};

impl EdgeBox {
    /// Writes the configuration: two links, the fleet, the models of the cache but those for speech, which few tests need; `more` is appended.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_config(&self, more: &str) -> anyhow::Result<()> {
        let runtime = newest(&self.cache.join("runtime"))?.join("libonnxruntime.so");
        // Tests beside each other strain any box, and what it then does is for tests of that.
        let adapt = match more.contains("[inference.adapt]") {
            true => "",
            false => "[inference.adapt]\nenabled = false",
        };
        let lines = format!(
            r#"
[box]
id = "test-box"
state_dir = {state:?}
[bus]
kind = "session"
[log]
filter = "warn,autoglm_edge=debug,autoglm_drivers=debug"
[reconnect]
max_ms = 500
[inference]
runtime = {runtime:?}
model_dirs = [{models:?}]
stt = ""
tts = ""
{adapt}
[fleet]
broker = "mqtt://127.0.0.1:{port}"
[[device]]
name = "lamp"
links = ["serial://{lamp}"]
[[device]]
name = "thermometer"
links = ["serial://{thermometer}"]
{more}
"#,
            state = self.path("state"),
            models = self.cache.join("models"),
            port = self.broker_port,
            lamp = self.path("lamp").display(),
            thermometer = self.path("thermometer").display(),
        );
        std::fs::write(self.path("config.toml"), lines)?;
        Ok(())
    }

    /// Starts the daemon with the configuration that was written.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_daemon(&mut self) -> anyhow::Result<()> {
        let command = self.daemon_command()?;
        self.start_daemon_as(command)
    }

    /// Starts the daemon with a command made of [`EdgeBox::daemon_command`]; it logs to the box's log.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_daemon_as(&mut self, mut command: Command) -> anyhow::Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path("daemon.log"))?;
        command.stdout(log.try_clone()?).stderr(log);
        self.daemon = Some(Process::start(&mut command)?);
        Ok(())
    }

    /// The daemon's command line and environment on this box.
    ///
    /// # Errors
    /// When it was not built.
    pub fn daemon_command(&self) -> anyhow::Result<Command> {
        let mut command = Command::new(program("autoglm-edged")?);
        command
            .arg("--config")
            .arg(self.path("config.toml"))
            .env("DBUS_SESSION_BUS_ADDRESS", self.bus_address());
        command.env("NO_COLOR", "1").env_remove("NOTIFY_SOCKET");
        Ok(command)
    }

    /// Changes the configuration that was written.
    ///
    /// # Errors
    /// When it cannot be read or written, or the change changes nothing.
    pub fn edit_config(&self, edit: impl FnOnce(&str) -> String) -> anyhow::Result<()> {
        let path = self.path("config.toml");
        let before = std::fs::read_to_string(&path)?;
        let after = edit(&before);
        anyhow::ensure!(before != after, "the configuration was not changed");
        Ok(std::fs::write(path, after)?)
    }

    /// Runs the daemon to its end, which must come by itself: how it ended, and all that it printed.
    ///
    /// # Errors
    /// When it does not end.
    pub fn daemon_refuses(
        &self,
        mut command: Command,
    ) -> anyhow::Result<(std::process::ExitStatus, String)> {
        let path = self.path("refused.log");
        let log = File::create(&path)?;
        command.stdout(log.try_clone()?).stderr(log);
        let status = Process::start(&mut command)?.ended_within(PATIENCE)?;
        Ok((status, std::fs::read_to_string(path)?))
    }

    /// The daemon's process.
    ///
    /// # Errors
    /// When it was not started.
    pub fn daemon(&mut self) -> anyhow::Result<&mut Process> {
        self.daemon.as_mut().context("the daemon does not run")
    }

    /// What the daemon logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }
}
