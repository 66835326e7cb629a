//! Start and stop: the configuration's errors, what systemd is told, and a clean end. Real processes throughout.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use autoglm_tests::edge_box::{EdgeBox, LAMP, PATIENCE};
use autoglm_tests::process::wait_for;
use nix::sys::signal::Signal;
use serde_json::json;

/// More than the 5 s that a stop may take, since a test machine may be busy.
const STOP: Duration = Duration::from_secs(10);

/// A box whose models are not looked at, so that it starts at once.
fn prepared() -> EdgeBox {
    let mut edge_box = EdgeBox::new().unwrap();
    edge_box.start_bus().unwrap();
    edge_box.write_config("").unwrap();
    let models = edge_box.cache().join("models").display().to_string();
    edge_box
        .edit_config(|config| config.replace(&models, "/nonexistent"))
        .unwrap();
    edge_box
}

/// systemd's end of the notification socket.
struct Notifications {
    socket: UnixDatagram,
    lines: Vec<String>,
}

impl Notifications {
    fn bound(edge_box: &EdgeBox) -> Self {
        let socket = UnixDatagram::bind(edge_box.path("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            socket,
            lines: Vec::new(),
        }
    }

    /// Reads on until a line begins so, and returns the rest of it.
    fn wait_for(&mut self, beginning: &str) -> String {
        let mut buffer = [0u8; 4096];
        loop {
            while !self.lines.is_empty() {
                let line = self.lines.remove(0);
                if let Some(rest) = line.strip_prefix(beginning) {
                    return rest.to_owned();
                }
            }
            let count = self
                .socket
                .recv(&mut buffer)
                .unwrap_or_else(|error| panic!("no {beginning}: {error}"));
            self.lines.extend(
                String::from_utf8_lossy(&buffer[..count])
                    .lines()
                    .map(str::to_owned),
            );
        }
    }
}

fn start_with(edge_box: &mut EdgeBox, environment: &[(&str, &str)]) -> Notifications {
    let notifications = Notifications::bound(edge_box);
    let mut command = edge_box.daemon_command().unwrap();
    command
        .env("NOTIFY_SOCKET", edge_box.path("notify"))
        .envs(environment.iter().copied());
    edge_box.start_daemon_as(command).unwrap();
    notifications
}

#[test]
fn a_mistyped_configuration_is_refused_by_file_line_and_key() {
    let edge_box = prepared();
    edge_box
        .edit_config(|config| config.replace("max_ms = 500", "max_sm = 500"))
        .unwrap();
    let config = std::fs::read_to_string(edge_box.path("config.toml")).unwrap();
    let line = 1 + config
        .lines()
        .position(|line| line.starts_with("max_sm"))
        .unwrap();
    for option in [None, Some("--check"), Some("--print-config")] {
        let mut command = edge_box.daemon_command().unwrap();
        command.args(option);
        let (status, words) = edge_box.daemon_refuses(command).unwrap();
        assert!(
            status.code().is_some_and(|code| code != 0),
            "{option:?}: {status} {words}"
        );
        for part in [
            edge_box.path("config.toml").to_str().unwrap(),
            &format!("line {line}"),
            "max_sm",
            "max_ms",
        ] {
            assert!(
                words.contains(part),
                "{option:?}: {part:?} is not named: {words}"
            );
        }
    }
}

#[test]
fn a_value_out_of_range_is_refused_by_key_value_and_range() {
    let edge_box = prepared();
    edge_box
        .edit_config(|config| config.replace("max_ms = 500", "max_ms = 5"))
        .unwrap();
    let (status, words) = edge_box
        .daemon_refuses(edge_box.daemon_command().unwrap())
        .unwrap();
    assert!(
        status.code().is_some_and(|code| code != 0),
        "{status} {words}"
    );
    for part in [
        edge_box.path("config.toml").to_str().unwrap(),
        "reconnect.max_ms",
        "\"5\"",
        "from 100 to 3600000",
    ] {
        assert!(words.contains(part), "{part:?} is not named: {words}");
    }
}

#[test]
fn a_configuration_that_is_not_there_is_refused_by_name() {
    let edge_box = EdgeBox::new().unwrap();
    let (status, words) = edge_box
        .daemon_refuses(edge_box.daemon_command().unwrap())
        .unwrap();
    assert!(
        status.code().is_some_and(|code| code != 0),
        "{status} {words}"
    );
    let path = edge_box.path("config.toml");
    assert!(
        words.contains(path.to_str().unwrap()) && words.contains("No such file"),
        "{words}"
    );
}

#[test]
fn check_and_print_config_touch_nothing_and_what_is_printed_is_taken_again() {
    let edge_box = prepared();
    let mut command = edge_box.daemon_command().unwrap();
    let output = command.arg("--check").output().unwrap();
    let words = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && words.contains("2 devices") && words.contains("fleet on"),
        "{words}"
    );

    let output = edge_box
        .daemon_command()
        .unwrap()
        .arg("--print-config")
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{printed}");
    assert!(
        printed.contains("max_ms = 500") && printed.contains("deadline_ms = 10000"),
        "values and defaults: {printed}"
    );
    edge_box.edit_config(|_| printed.clone()).unwrap();
    let output = edge_box
        .daemon_command()
        .unwrap()
        .arg("--print-config")
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), printed);
    assert!(!edge_box.path("state").exists(), "nothing was started");
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_is_told_when_it_is_ready_how_it_stands_and_when_it_stops() {
    let mut edge_box = prepared();
    edge_box.start_device("lamp", &[]).unwrap();
    let mut notifications = start_with(&mut edge_box, &[]);
    notifications.wait_for("READY=1");
    // READY is a promise: whoever waited for it finds the name on the bus.
    edge_box.status().await.unwrap();
    let line = notifications.wait_for("STATUS=");
    assert!(
        line.contains("things online") && line.contains("of 3 models ready"),
        "{line}"
    );

    edge_box.daemon().unwrap().signal(Signal::SIGTERM).unwrap();
    notifications.wait_for("STOPPING=1");
    let ended = edge_box.daemon().unwrap().ended_within(STOP).unwrap();
    assert_eq!(ended.code(), Some(0), "{}", edge_box.log());
    assert!(
        edge_box.manager().await.unwrap().status().await.is_err(),
        "the name is free"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_bus_it_is_ready_all_the_same_and_the_status_line_says_what_is_missing() {
    let mut edge_box = prepared();
    edge_box.stop_bus();
    let mut notifications = start_with(&mut edge_box, &[("WATCHDOG_USEC", "300000")]);
    notifications.wait_for("READY=1");
    let line = notifications.wait_for("STATUS=");
    assert!(
        line.contains("not on the message bus: no message bus answers"),
        "{line}"
    );
    assert!(
        line.contains(edge_box.path("bus").to_str().unwrap()),
        "{line}"
    );
    edge_box.start_bus().unwrap();
    while notifications.wait_for("STATUS=").contains("message bus") {}
    edge_box.status().await.unwrap();
}

#[test]
fn the_watchdog_is_fed_again_and_again() {
    let mut edge_box = prepared();
    let mut notifications = start_with(&mut edge_box, &[("WATCHDOG_USEC", "300000")]);
    notifications.wait_for("READY=1");
    for _ in 0..5 {
        notifications.wait_for("WATCHDOG=1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_in_progress_is_drained_before_a_stop() {
    let mut edge_box = prepared();
    edge_box
        .start_device("lamp", &["--delay-ms", "600"])
        .unwrap();
    edge_box.start_daemon().unwrap();
    edge_box
        .wait_for_status("the lamp", |status| status["things"]["online"] == 1)
        .await
        .unwrap();
    let manager = edge_box.manager().await.unwrap();
    let asking = tokio::spawn(async move {
        manager
            .invoke(LAMP, "toggle", [("id", "last".into())].into())
            .await
    });
    wait_for("the lamp to work", PATIENCE, || {
        edge_box
            .device("lamp")
            .is_ok_and(|state| state["working"] == "toggle")
    })
    .unwrap();
    edge_box.daemon().unwrap().signal(Signal::SIGTERM).unwrap();
    let ended = edge_box.daemon().unwrap().ended_within(STOP).unwrap();
    assert_eq!(ended.code(), Some(0), "{}", edge_box.log());
    assert!(
        !edge_box.log().contains("did not stop in time"),
        "{}",
        edge_box.log()
    );
    let state = edge_box.device("lamp").unwrap();
    assert_eq!(
        (&state["executed"], &state["on"]),
        (&json!(1), &json!(true)),
        "the lamp was waited for"
    );
    let answer = asking.await.unwrap();

    // Whether or not the caller still heard it, the outcome is kept: asking again tells it, and toggles nothing.
    edge_box.start_daemon().unwrap();
    edge_box
        .wait_for_status("the lamp", |status| status["things"]["online"] == 1)
        .await
        .unwrap();
    let manager = edge_box.manager().await.unwrap();
    let again = manager
        .invoke(LAMP, "toggle", [("id", "last".into())].into())
        .await;
    assert!(again.is_ok(), "{again:?} after {answer:?}");
    assert_eq!(edge_box.device("lamp").unwrap()["executed"], 1);
    assert!(
        answer.is_ok(),
        "the caller was told before the end: {answer:?}"
    );
}
