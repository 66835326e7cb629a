//! A whole edge box in a temporary directory: private message bus, MQTT broker, simulated devices and the daemon, all real
//! processes that can be killed, stopped and started again.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use autoglm_edge::control::dbus::client::{ManagerProxy, ModelsProxy};
use autoglm_edge::control::dbus::value;
use serde_json::Value;
use tempfile::TempDir;
use zbus::Variant;

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

/// What came of something said.
#[derive(Debug, Clone)]
pub struct Said {
    /// All events, in order.
    pub events: Vec<Value>,
}

impl Said {
    /// The last event: `done` or `failed`.
    #[must_use]
    pub fn end(&self) -> &Value {
        self.events.last().unwrap_or(&Value::Null)
    }

    /// What was answered.
    #[must_use]
    pub fn text(&self) -> &str {
        self.end()["text"]
            .as_str()
            .or_else(|| self.end()["message"].as_str())
            .unwrap_or("")
    }

    /// `command`, `question`, `refusal`, `cancellation`, `conversation`, or the error's name.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.end()["kind"]
            .as_str()
            .or_else(|| self.end()["error"].as_str())
            .unwrap_or("")
    }

    /// The calls that were carried out.
    pub fn executed(&self) -> impl Iterator<Item = &Value> {
        self.events
            .iter()
            .filter(|event| event["event"] == "executed")
    }
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

    /// Writes the configuration: two links, the fleet, the models of the cache but those for speech, which few tests need; `more` is appended.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_config(&self, more: &str) -> anyhow::Result<()> {
        let runtime =
            crate::process::newest(&self.cache.join("runtime"))?.join("libonnxruntime.so");
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

    /// Where the models and ONNX Runtime are kept.
    #[must_use]
    pub fn cache(&self) -> &Path {
        &self.cache
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

    /// The daemon's interface on the bus. One connection per call, so that a restarted bus is no trouble.
    ///
    /// # Errors
    /// When the bus is not there.
    pub async fn manager(&self) -> anyhow::Result<ManagerProxy<'static>> {
        let address: &str = &self.bus_address();
        let connection = zbus::connection::Builder::address(address).build().await?;
        Ok(ManagerProxy::new(&connection).await?)
    }

    /// The same for models.
    ///
    /// # Errors
    /// When the bus is not there.
    pub async fn models(&self) -> anyhow::Result<ModelsProxy<'static>> {
        let address: &str = &self.bus_address();
        let connection = zbus::connection::Builder::address(address).build().await?;
        Ok(ModelsProxy::new(&connection).await?)
    }

    /// The daemon's status.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn status(&self) -> anyhow::Result<Value> {
        let status = self.manager().await?.status().await?;
        let mut object = serde_json::Map::new();
        for (key, value) in status {
            object.insert(key, value::to_json(&value)?);
        }
        Ok(Value::Object(object))
    }

    /// Waits until the status is as wanted.
    ///
    /// # Errors
    /// Shows the last status and the log when it never is.
    pub async fn wait_for_status(
        &self,
        what: &str,
        mut is_so: impl FnMut(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let until = tokio::time::Instant::now() + PATIENCE;
        let mut last = Value::Null;
        while tokio::time::Instant::now() < until {
            if let Ok(status) = self.status().await {
                if is_so(&status) {
                    return Ok(status);
                }
                last = status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::bail!(
            "waited in vain for {what}; status {last:#}\nlog:\n{}",
            self.log()
        )
    }

    /// Waits until this many things are online and every sentence about them would be understood.
    ///
    /// # Errors
    /// When that does not come to be.
    pub async fn is_understanding(&self, things: u64) -> anyhow::Result<()> {
        self.wait_for_status("things and models", |status| {
            let is_ready = |task: &str| {
                status["models"].as_array().is_some_and(|models| {
                    models
                        .iter()
                        .any(|model| model["task"] == task && model["state"] == "ready")
                })
            };
            let count = &status["things"];
            count["online"] == things
                && count["understood"] == things
                && is_ready("embedding")
                && is_ready("chat")
        })
        .await?;
        Ok(())
    }

    /// Says something and waits for the whole answer.
    ///
    /// # Errors
    /// When the daemon refuses the call or breaks the stream.
    pub async fn say(&self, session: &str, text: &str) -> anyhow::Result<Said> {
        let answer = self.begin_to_say(session, text).await?;
        tokio::task::spawn_blocking(move || {
            let lines = answer.lines();
            let events = lines
                .map(|line| Ok(serde_json::from_str(&line?)?))
                .collect::<anyhow::Result<Vec<Value>>>()?;
            anyhow::ensure!(!events.is_empty(), "the stream broke before its end");
            Ok(Said { events })
        })
        .await?
    }

    /// Says something and returns the answer as it comes: one JSON object a line.
    ///
    /// # Errors
    /// When the daemon refuses the call.
    pub async fn begin_to_say(&self, session: &str, text: &str) -> anyhow::Result<BufReader<File>> {
        let pipe = self
            .manager()
            .await?
            .say(session, text, HashMap::new())
            .await?;
        Ok(BufReader::new(File::from(OwnedFd::from(pipe))))
    }

    /// What was said in a conversation, oldest first, as it is kept.
    ///
    /// # Errors
    /// The daemon's error.
    pub async fn turns(&self, session: &str) -> anyhow::Result<Vec<Value>> {
        let turns = self.manager().await?.session_turns(session, 100).await?;
        turns
            .into_iter()
            .map(|turn| {
                let members = turn
                    .into_iter()
                    .map(|(key, value)| Ok((key, value::to_json(&value)?)));
                Ok(Value::Object(members.collect::<anyhow::Result<_>>()?))
            })
            .collect()
    }

    /// Invokes an action over D-Bus.
    ///
    /// # Errors
    /// The daemon's error.
    pub async fn invoke(
        &self,
        thing: &str,
        action: &str,
        input: Option<&Value>,
    ) -> Result<Value, zbus::Error> {
        let mut options: HashMap<&str, Variant<'_>> = HashMap::new();
        if let Some(input) = input {
            options.insert("input", value::from_json(input));
        }
        let manager = self
            .manager()
            .await
            .map_err(|error| zbus::Error::Failure(error.to_string()))?;
        let result = manager.invoke(thing, action, options).await?;
        let members = result
            .into_iter()
            .filter_map(|(key, value)| Some((key, value::to_json(&value).ok()?)));
        Ok(Value::Object(members.collect()))
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
