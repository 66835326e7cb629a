//! A private bus, and a stand-in for the daemon on it that answers as a script says. It obeys no device and has no model.

use std::collections::HashMap;
use std::io::Write as _;
use std::process::{Output, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use autoglm_edge::control::dbus::{names, value};
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use zbus::{Connection, OwnedFd, OwnedVariant};

/// Longer than anything here takes on a busy machine; only a hang meets it.
pub(crate) const HANG: Duration = Duration::from_secs(60);

pub(crate) type Dictionary = HashMap<String, OwnedVariant>;

/// A private bus.
pub(crate) struct Bus {
    address: String,
    _dir: TempDir,
    _process: Child,
}

impl Bus {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("bus.conf");
        let text = format!(
            "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \
             \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n\
             <busconfig><type>session</type><listen>unix:dir={}</listen><auth>EXTERNAL</auth>\
             <policy context=\"default\"><allow send_destination=\"*\" eavesdrop=\"true\"/><allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>",
            dir.path().display()
        );
        std::fs::write(&config, text).unwrap();
        let mut process = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--print-address=1"])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("dbus-daemon is installed (package dbus)");
        let mut address = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut address)
            .await
            .unwrap();
        Self {
            address: address.trim().to_owned(),
            _dir: dir,
            _process: process,
        }
    }

    pub(crate) fn ctl(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_autoglmctl"));
        command
            .args(args)
            .env("AUTOGLM_BUS", &self.address)
            .env_remove("NO_COLOR")
            .kill_on_drop(true);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) async fn run(&self, args: &[&str]) -> Run {
        finish(self.ctl(args).spawn().unwrap()).await
    }
}

/// What a run left behind.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    pub(crate) fn json(&self) -> Json {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

pub(crate) async fn finish(child: Child) -> Run {
    let output: Output = tokio::time::timeout(HANG, child.wait_with_output())
        .await
        .expect("it ends")
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run {
        code: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

#[derive(Debug, zbus::DBusError)]
#[zbus(prefix = "org.openautoglm.Edge1.Error")]
pub(crate) enum Refusal {
    #[zbus(error)]
    ZBus(zbus::Error),
    NotConnected(String),
    Busy(String),
}

/// Answers as the script says.
pub(crate) struct StandIn {
    /// Lets the answer to "talk" go on.
    go_on: Arc<Mutex<Receiver<()>>>,
    /// Told when the listener of "forever" has closed the pipe.
    closed: Sender<()>,
}

#[zbus::interface(name = "org.openautoglm.Edge1.Manager")]
impl StandIn {
    async fn invoke(
        &self,
        thing: &str,
        action: &str,
        options: Dictionary,
    ) -> Result<Dictionary, Refusal> {
        if action == "turn_off" {
            return Err(Refusal::NotConnected(
                "Desk lamp is not connected".to_owned(),
            ));
        }
        let options: serde_json::Map<String, Json> = options
            .iter()
            .map(|(name, option)| (name.clone(), value::to_json(option).unwrap()))
            .collect();
        let output = json!({"thing": thing, "action": action, "options": options});
        Ok(dictionary(
            json!({"output": output, "timings_us": {"answered": 1500}}),
        ))
    }

    async fn say(
        &self,
        session: &str,
        text: &str,
        _options: Dictionary,
    ) -> Result<OwnedFd, Refusal> {
        if session == "busy" {
            return Err(Refusal::Busy(
                "the session busy is still answering".to_owned(),
            ));
        }
        let (reader, mut pipe) = std::io::pipe().unwrap();
        let (text, go_on, closed) = (
            text.to_owned(),
            Arc::clone(&self.go_on),
            self.closed.clone(),
        );
        tokio::task::spawn_blocking(move || {
            let mut tell = |event: Json| writeln!(pipe, "{event}");
            let done = |kind: &str, text: &str| json!({"event": "done", "kind": kind, "text": text, "trace": "t", "timings_us": {"total": 1}});
            let call = json!({"thing": "urn:lamp-1", "operation": {"invoke": {"action": "turn_on", "input": null}}});
            tell(json!({"event": "understood", "calls": if text == "lamp" { json!([call]) } else { json!([]) }, "explanations": []})).unwrap();
            match text.as_str() {
                "talk" => {
                    tell(json!({"event": "delta", "text": "Hel\u{1b}"})).unwrap();
                    tell(json!({"event": "delta", "text": "lo\n"})).unwrap();
                    go_on.lock().unwrap().recv().unwrap();
                    tell(json!({"event": "delta", "text": "World"})).unwrap();
                    tell(done("conversation", "Hello\nWorld")).unwrap();
                }
                "forever" => {
                    while tell(json!({"event": "delta", "text": "and on\n"})).is_ok() {}
                    closed.send(()).unwrap();
                }
                "lamp" => {
                    tell(json!({"event": "executed", "call": call, "status": "SUCCEEDED", "output": null, "answer": "The lamp is on."})).unwrap();
                    tell(done("command", "The lamp is on.")).unwrap();
                }
                "away" => {
                    tell(json!({"event": "executed", "call": call, "status": "FAILED", "error": "NotConnected", "answer": "It is away."})).unwrap();
                    tell(done("command", "It is away.")).unwrap();
                }
                "which" => tell(done("question", "Which lamp?")).unwrap(),
                "loading" => tell(json!({"event": "failed", "error": "ModelUnavailable", "message": "still loading"})).unwrap(),
                _ => {}
            }
        });
        Ok(OwnedFd::from(std::os::fd::OwnedFd::from(reader)))
    }

    async fn status(&self) -> Dictionary {
        dictionary(
            json!({"version": "0", "models": [{"name": "minilm", "task": "embedding", "state": "ready", "detail": ""}]}),
        )
    }

    async fn session_turns(&self, _session: &str, _count: u32) -> Vec<Dictionary> {
        Vec::new()
    }

    async fn list_sessions(&self) -> Vec<Dictionary> {
        vec![dictionary(
            json!({"id": "kitchen", "title": "hello", "turns": 2, "updated-ms": 0}),
        )]
    }
}

pub(crate) struct Thing(&'static str, &'static str);

#[zbus::interface(name = "org.openautoglm.Edge1.Thing")]
impl Thing {
    #[zbus(property)]
    fn id(&self) -> String {
        self.0.to_owned()
    }

    #[zbus(property)]
    fn title(&self) -> String {
        self.1.to_owned()
    }

    #[zbus(property)]
    fn online(&self) -> bool {
        true
    }

    #[zbus(property)]
    fn link(&self) -> String {
        "bench".to_owned()
    }

    #[zbus(property)]
    fn description(&self) -> String {
        let level = json!({"type": "integer", "minimum": 0, "maximum": 100, "unit": "percent"});
        let input =
            json!({"type": "object", "properties": {"level": level, "on": {"type": "boolean"}}});
        let actions = json!({"set_brightness": {"input": input}, "turn_off": {}});
        json!({"id": self.0, "title": self.1, "actions": actions, "properties": {"level": level}})
            .to_string()
    }

    #[zbus(property)]
    fn values(&self) -> Dictionary {
        dictionary(json!({"level": 40}))
    }
}

fn dictionary(json: Json) -> Dictionary {
    value::owned_dictionary(json.as_object().unwrap())
}

/// The stand-in on a bus, and what the test does with it.
pub(crate) struct Served {
    _connection: Connection,
    pub(crate) go_on: Sender<()>,
    pub(crate) closed: Receiver<()>,
}

pub(crate) async fn serve(bus: &Bus) -> Served {
    let (go_on, waiting) = channel();
    let (closed, is_closed) = channel();
    let stand_in = StandIn {
        go_on: Arc::new(Mutex::new(waiting)),
        closed,
    };
    let connection = zbus::connection::Builder::address(bus.address.as_str())
        .serve_at(names::ROOT, zbus::fdo::ObjectManager)
        .serve_at(names::ROOT, stand_in)
        .serve_at(
            names::path("things", "urn:lamp-1"),
            Thing("urn:lamp-1", "Desk lamp"),
        )
        .serve_at(
            names::path("things", "urn:fan-1"),
            Thing("urn:fan-1", "Fan"),
        )
        .name(names::SERVICE)
        .build()
        .await
        .unwrap();
    Served {
        _connection: connection,
        go_on,
        closed: is_closed,
    }
}
