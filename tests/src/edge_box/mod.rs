//! A whole edge box in a temporary directory: private message bus, MQTT broker, simulated devices and the daemon, all real
//! processes that can be killed, stopped and started again.
//!
//! Here are the parts around the daemon; [`daemon`] is the daemon itself, [`door`] what is asked of it.

mod daemon;
pub mod door;

use std::collections::HashMap;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Process, program, wait_for};

/// How long anything on the box may take before a test gives up on it: models load on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The lamp's id.
pub const LAMP: &str = "urn:dev:ops:32473-desk-lamp-1";
/// The thermometer's id.
pub const THERMOMETER: &str = "urn:dev:ops:32473-thermometer-1";

/// The box. Everything that runs dies with it.
#[derive(Debug)]
pub struct EdgeBox {
    directory: TempDir,
    bus: Option<Process>,
    broker: Option<Process>,
    broker_port: u16,
    devices: HashMap<String, Process>,
    daemon: Option<Process>,
    cache: PathBuf,
}

impl EdgeBox {
    /// An empty box: nothing runs yet.
    ///
    /// # Errors
    /// When there is no temporary directory, no free port, or the models are not there.
    pub fn new() -> anyhow::Result<Self> {
        let cache = cache()?;
        let broker_port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let directory = tempfile::Builder::new().prefix("edge-box-").tempdir()?;
        Ok(Self {
            directory,
            bus: None,
            broker: None,
            broker_port,
            devices: HashMap::new(),
            daemon: None,
            cache,
        })
    }

    /// A box with everything running and understood: lamp, thermometer, bus, broker, daemon.
    ///
    /// # Errors
    /// When a part does not come up.
    pub async fn running() -> anyhow::Result<Self> {
        let mut edge_box = Self::new()?;
        edge_box.start_bus()?;
        edge_box.start_broker()?;
        edge_box.start_device("lamp", &[])?;
        edge_box.start_device("thermometer", &[])?;
        edge_box.write_config("")?;
        edge_box.start_daemon()?;
        edge_box.is_understanding(2).await?;
        Ok(edge_box)
    }

    /// A path in the box's directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The bus's address.
    #[must_use]
    pub fn bus_address(&self) -> String {
        format!("unix:path={}", self.path("bus").display())
    }

    /// The broker's port on loopback.
    #[must_use]
    pub fn broker_port(&self) -> u16 {
        self.broker_port
    }

    /// Starts the private message bus.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_bus(&mut self) -> anyhow::Result<()> {
        let socket = self.path("bus");
        let _ = std::fs::remove_file(&socket);
        let mut command = Command::new("dbus-daemon");
        command
            .args(["--session", "--nofork", "--nopidfile", "--address"])
            .arg(self.bus_address());
        command.stderr(File::create(self.path("bus.log"))?);
        self.bus = Some(Process::start(&mut command).context("package dbus")?);
        wait_for("the message bus", PATIENCE, || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        })
    }

    /// Kills the message bus.
    pub fn stop_bus(&mut self) {
        self.bus = None;
    }

    /// Starts mosquitto, with its sessions kept over a restart.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_broker(&mut self) -> anyhow::Result<()> {
        let (config, port) = (self.path("mosquitto.conf"), self.broker_port);
        // Started by root, mosquitto becomes a user of its own who cannot write here; by anybody else, `user` has no effect.
        let lines = format!(
            "user root\nlistener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\npersistence true\npersistence_location {}/\nlog_type none\n",
            self.directory.path().display()
        );
        std::fs::write(&config, lines)?;
        // Debian keeps it outside a user's PATH.
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("mosquitto");
        command.env("PATH", path).arg("-c").arg(&config);
        command.stderr(File::create(self.path("broker.log"))?);
        self.broker = Some(Process::start(&mut command).context("package mosquitto")?);
        wait_for("the broker", PATIENCE, || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        })
    }

    /// Stops mosquitto in an orderly way.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop_broker(&mut self) -> anyhow::Result<()> {
        if let Some(mut broker) = self.broker.take() {
            broker.signal(nix::sys::signal::Signal::SIGTERM)?;
            broker.ended_within(PATIENCE)?;
        }
        Ok(())
    }

    /// Starts a simulated device; `kind` is also the name of its line and link.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_device(&mut self, kind: &str, options: &[&str]) -> anyhow::Result<()> {
        self.start_device_as(kind, kind, options)
    }

    /// Starts a simulated device whose line has another name than its kind.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_device_as(
        &mut self,
        name: &str,
        kind: &str,
        options: &[&str],
    ) -> anyhow::Result<()> {
        let line = self.path(name);
        let mut command = Command::new(program("simulated-device")?);
        command
            .arg(kind)
            .arg("--pty")
            .arg(&line)
            .arg("--state")
            .arg(self.path(&format!("{name}.json")))
            .args(options);
        command.stderr(File::create(self.path(&format!("{name}.log")))?);
        let device = Process::start(&mut command)?;
        self.devices.insert(name.to_owned(), device);
        wait_for("the device's line", PATIENCE, || line.exists())
    }

    /// Pulls a device's plug: its process dies and its line is gone.
    pub fn pull_device(&mut self, name: &str) {
        self.devices.remove(name);
        let _ = std::fs::remove_file(self.path(name));
    }

    /// The state that a device shows to the world.
    ///
    /// # Errors
    /// When it shows none.
    pub fn device(&self, kind: &str) -> anyhow::Result<Value> {
        crate::process::state(&self.path(&format!("{kind}.json")))
    }

    /// Where the models and ONNX Runtime are kept.
    #[must_use]
    pub fn cache(&self) -> &Path {
        &self.cache
    }
}

/// Where `make` keeps ONNX Runtime and the models: `AUTOGLM_EDGE_CACHE`, or the user's cache directory.
///
/// # Errors
/// When they are not there.
pub fn cache() -> anyhow::Result<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let user = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(home);
    let cache = match std::env::var_os("AUTOGLM_EDGE_CACHE") {
        Some(path) => PathBuf::from(path),
        None => user.context("no HOME")?.join("autoglm-edge"),
    };
    anyhow::ensure!(
        cache.join("models").is_dir(),
        "{} has no models: run `make test` or `make models`",
        cache.display()
    );
    Ok(cache)
}
