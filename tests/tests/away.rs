//! Devices that are away: known over a restart of the daemon, answered for as away, and noticed when only their end of the line is broken.

use std::process::Command;

use autoglm_tests::cable::Cable;
use autoglm_tests::edge_box::{EdgeBox, LAMP, PATIENCE};
use autoglm_tests::process::{program, wait_for};
use nix::sys::signal::Signal;

/// A box with bus and broker, without models, with a lamp of this table.
fn prepared(lamp: impl FnOnce(&EdgeBox) -> String) -> EdgeBox {
    let mut edge_box = EdgeBox::new().unwrap();
    edge_box.start_bus().unwrap();
    edge_box.start_broker().unwrap();
    edge_box.write_config("").unwrap();
    let models = edge_box.cache().join("models").display().to_string();
    let before = format!("links = [\"serial://{}\"]", edge_box.path("lamp").display());
    let table = lamp(&edge_box);
    edge_box
        .edit_config(|config| {
            config
                .replace(&models, "/nonexistent")
                .replace(&before, &table)
        })
        .unwrap();
    edge_box
}

fn things(edge_box: &EdgeBox) -> serde_json::Value {
    let output = Command::new(program("autoglmctl").unwrap())
        .args(["--bus", &edge_box.bus_address(), "things", "--json"])
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_away_is_known_over_a_restart_and_answered_for_as_away() {
    let mut edge_box = prepared(|edge_box| {
        let line = edge_box.path("lamp");
        format!("links = [\"serial://{}\"]\nresume_s = 0", line.display())
    });
    edge_box.start_device("lamp", &[]).unwrap();
    edge_box.start_daemon().unwrap();
    let is_online =
        |count: u64| move |status: &serde_json::Value| status["things"]["online"] == count;
    edge_box
        .wait_for_status("the lamp", is_online(1))
        .await
        .unwrap();
    // Kept beside serving it; nothing says when, and a kill must not come before.
    wait_for("its description to be kept", PATIENCE, || {
        edge_box.log().contains("kept over restarts")
    })
    .unwrap();
    edge_box.daemon().unwrap().kill();
    edge_box.pull_device("lamp");
    edge_box.start_daemon().unwrap();

    edge_box
        .wait_for_status("a box without the lamp", |status| {
            status["things"]["known"] == 1 && status["things"]["online"] == 0
        })
        .await
        .unwrap();
    let shown = things(&edge_box);
    let lamp = &shown["things"][0];
    assert_eq!(
        (&lamp["id"], &lamp["online"]),
        (&serde_json::json!(LAMP), &serde_json::json!(false)),
        "{shown}"
    );
    let error = edge_box.invoke(LAMP, "toggle", None).await.unwrap_err();
    let error = format!("{error:#}");
    assert!(
        error.contains("NotConnected") || error.contains("not connected"),
        "{error}"
    );

    edge_box.start_device("lamp", &[]).unwrap();
    edge_box
        .wait_for_status("the lamp again", is_online(1))
        .await
        .unwrap();
    edge_box.invoke(LAMP, "toggle", None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_broken_at_the_devices_end_is_noticed_while_a_command_waits_which_is_done_by_the_broker()
 {
    let mut key = None;
    let mut edge_box = prepared(|edge_box| {
        let file = edge_box.path("lamp.key");
        let made = Command::new(program("autoglmctl").unwrap())
            .args(["key", "new"])
            .arg(&file)
            .status();
        assert!(made.unwrap().success());
        let table = format!(
            "links = [\"serial://{}\", \"mqtt://127.0.0.1:{}/lamp\"]\nkey = {{ file = {file:?} }}",
            edge_box.path("lamp").display(),
            edge_box.broker_port()
        );
        key = Some(file);
        table
    });
    let key = key.unwrap();
    let at_broker = format!("mqtt://127.0.0.1:{}/lamp", edge_box.broker_port());
    let options = ["--mqtt", &at_broker, "--key", key.to_str().unwrap()];
    edge_box
        .start_device_as("far-lamp", "lamp", &options)
        .unwrap();
    let cable = Cable::plugged(edge_box.path("far-lamp"), edge_box.path("lamp")).unwrap();
    edge_box.start_daemon().unwrap();
    edge_box
        .wait_for_status("the line to carry", |status| {
            status["links"]["lamp-serial"]["state"] == "connected"
                && status["things"]["online"] == 1
        })
        .await
        .unwrap();
    cable.sever().unwrap();
    // Within its usual deadline of 10 s, a third of the time that the keep-alive takes.
    edge_box
        .invoke(LAMP, "toggle", None)
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", edge_box.log()));
    let device = edge_box.device("far-lamp").unwrap();
    assert_eq!(
        (&device["executed"], &device["connections"]),
        (&serde_json::json!(1), &serde_json::json!(1)),
        "{device}"
    );
    let log = edge_box.log();
    assert!(log.contains("not even to probes"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fleet_hears_that_a_box_left_in_order() {
    let mut edge_box = prepared(|_| "links = [\"serial:///nonexistent\"]".to_owned());
    edge_box.start_daemon().unwrap();
    let mut operator = autoglm_tests::fleet::Operator::connect(edge_box.broker_port(), "test-box")
        .await
        .unwrap();
    assert_eq!(operator.presence().await.unwrap()["state"], "online");
    operator.forget_presence().await.unwrap();
    edge_box.daemon().unwrap().signal(Signal::SIGTERM).unwrap();
    assert_eq!(operator.presence().await.unwrap()["state"], "offline");
}
