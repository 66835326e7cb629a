//! A device keeps its connection over links that break, return and change: nothing is lost, nothing is done twice, and with a key
//! nothing is said in the clear. Real daemon, broker and pseudo-terminals; the device counts for itself.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use autoglm_edge::control::dbus::names::path;
use autoglm_edge::control::dbus::value;
use autoglm_tests::cable::Cable;
use autoglm_tests::edge_box::{EdgeBox, LAMP, PATIENCE};
use autoglm_tests::process::{program, wait_for};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// How long the lamp works on a command, in milliseconds.
const WORK_MS: &str = "60";
/// Moves from the line to the broker and back, in the long test.
const ROUNDS: usize = 3;

/// A box with bus and broker and no models, and a lamp with these links.
fn prepared(links: &[String], more: &str) -> EdgeBox {
    let mut edge_box = EdgeBox::new().unwrap();
    edge_box.start_bus().unwrap();
    edge_box.start_broker().unwrap();
    edge_box.write_config("").unwrap();
    let models = edge_box.cache().join("models").display().to_string();
    let before = format!("links = [\"serial://{}\"]", edge_box.path("lamp").display());
    edge_box
        .edit_config(|config| {
            config
                .replace(&models, "/nonexistent")
                .replace(&before, &format!("links = {links:?}\n{more}"))
        })
        .unwrap();
    edge_box
}

/// As [`prepared`], with a lamp on a line and at the broker, and a key.
fn prepared_with_both() -> EdgeBox {
    let edge_box = prepared(&[], "");
    let links = [line(&edge_box), at_broker(&edge_box)];
    let key = new_key(&edge_box, "lamp.key");
    edge_box
        .edit_config(|config| {
            config.replace(
                "links = []",
                &format!("links = {links:?}\nkey = {{ file = {key:?} }}"),
            )
        })
        .unwrap();
    edge_box
}

fn line(edge_box: &EdgeBox) -> String {
    format!("serial://{}", edge_box.path("lamp").display())
}

fn at_broker(edge_box: &EdgeBox) -> String {
    format!(
        "mqtt://127.0.0.1:{}/autoglm/devices/lamp",
        edge_box.broker_port()
    )
}

/// Makes a key as a person would.
fn new_key(edge_box: &EdgeBox, name: &str) -> PathBuf {
    let file = edge_box.path(name);
    let made = ctl(edge_box, &["key", "new", file.to_str().unwrap()]);
    assert!(made.status.success(), "{made:?}");
    assert!(made.stdout.is_empty(), "a secret key is not printed");
    file
}

fn ctl(edge_box: &EdgeBox, arguments: &[&str]) -> std::process::Output {
    Command::new(program("autoglmctl").unwrap())
        .args(["--bus", &edge_box.bus_address()])
        .args(arguments)
        .output()
        .unwrap()
}

/// The links as `autoglmctl links` shows them, by name.
fn links(edge_box: &EdgeBox) -> BTreeMap<String, Value> {
    let output = ctl(edge_box, &["links", "--json"]);
    let json: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let links = json["links"].as_array().unwrap().iter();
    links
        .map(|link| (link["name"].as_str().unwrap().to_owned(), link.clone()))
        .collect()
}

async fn carried_by(edge_box: &EdgeBox, link: &str) {
    edge_box
        .wait_for_status(link, |status| {
            status["links"][link]["state"] == "connected" && status["things"]["online"] == 1
        })
        .await
        .unwrap();
}

fn device(edge_box: &EdgeBox) -> Value {
    edge_box.device("far-lamp").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_outlives_the_cable_and_its_answer_arrives_on_the_connection_that_goes_on() {
    let mut edge_box = prepared(&[], "");
    let links = [line(&edge_box)];
    edge_box
        .edit_config(|config| config.replace("links = []", &format!("links = {links:?}")))
        .unwrap();
    edge_box
        .start_device_as("far-lamp", "lamp", &["--delay-ms", "500"])
        .unwrap();
    let mut cable = Cable::plugged(edge_box.path("far-lamp"), edge_box.path("lamp")).unwrap();
    edge_box.start_daemon().unwrap();
    carried_by(&edge_box, "lamp-serial").await;
    let manager = edge_box.manager().await.unwrap();
    let toggling = tokio::spawn(async move {
        let options = std::collections::HashMap::new();
        manager.invoke(LAMP, "toggle", options).await
    });
    wait_for("the lamp to work", PATIENCE, || {
        device(&edge_box)["working"] == "toggle"
    })
    .unwrap();
    cable.pull();
    edge_box
        .wait_for_status("the box to notice", |status| {
            status["links"]["lamp-serial"]["state"] == "reconnecting"
        })
        .await
        .unwrap();
    wait_for("the lamp to have done it", PATIENCE, || {
        device(&edge_box)["executed"] == 1
    })
    .unwrap();
    cable.plug().unwrap();
    toggling
        .await
        .unwrap()
        .unwrap_or_else(|error| panic!("{error}\n{}", edge_box.log()));
    let shown = device(&edge_box);
    assert_eq!(
        (&shown["executed"], &shown["connections"], &shown["on"]),
        (&json!(1), &json!(1), &json!(true)),
        "{shown}\n{}",
        edge_box.log()
    );
    let link = &self::links(&edge_box)["lamp-serial"];
    assert_eq!(link["security"], "clear", "{link}");
}

/// Collects the numbers of the lamp's `tick` events, as the bus tells them.
async fn ticks(edge_box: &EdgeBox) -> mpsc::UnboundedReceiver<i64> {
    use zbus::export::futures_core::Stream as _;
    let connection = edge_box
        .manager()
        .await
        .unwrap()
        .inner()
        .connection()
        .clone();
    let thing = path("things", LAMP);
    let proxy = zbus::Proxy::new(
        &connection,
        "org.openautoglm.Edge1",
        thing,
        "org.openautoglm.Edge1.Thing",
    )
    .await
    .unwrap();
    let mut signals = proxy.receive_signal("Event").await.unwrap();
    let (up, numbers) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(signal) =
            std::future::poll_fn(|context| std::pin::Pin::new(&mut signals).poll_next(context))
                .await
        {
            let body = signal.body();
            let (name, data): (String, zbus::Variant<'_>) = body.deserialize().unwrap();
            assert_eq!(name, "tick");
            let number = value::to_json(&data).unwrap().as_i64().unwrap();
            if up.send(number).is_err() {
                return;
            }
        }
    });
    numbers
}

#[tokio::test(flavor = "multi_thread")]
async fn under_a_stream_of_commands_and_events_the_connection_moves_to_the_broker_and_back_and_loses_nothing()
 {
    let mut edge_box = prepared_with_both();
    let (broker, key) = (at_broker(&edge_box), edge_box.path("lamp.key"));
    let options = [
        "--delay-ms",
        WORK_MS,
        "--tick-ms",
        "25",
        "--mqtt",
        &broker,
        "--key",
        key.to_str().unwrap(),
    ];
    edge_box
        .start_device_as("far-lamp", "lamp", &options)
        .unwrap();
    let mut cable = Cable::plugged(edge_box.path("far-lamp"), edge_box.path("lamp")).unwrap();
    edge_box.start_daemon().unwrap();
    carried_by(&edge_box, "lamp-serial").await;
    let mut numbers = ticks(&edge_box).await;

    let (stop, mut stopped) = mpsc::channel::<()>(1);
    let manager = edge_box.manager().await.unwrap();
    let toggling = tokio::spawn(async move {
        let (mut done, mut failed) = (0u64, Vec::new());
        while stopped.try_recv() != Err(mpsc::error::TryRecvError::Disconnected) {
            let options = std::collections::HashMap::new();
            match manager.invoke(LAMP, "toggle", options).await {
                Ok(_) => done += 1,
                Err(error) => failed.push(error.to_string()),
            }
        }
        (done, failed)
    });
    for round in 0..ROUNDS {
        let before = device(&edge_box)["executed"].as_u64().unwrap();
        wait_for("commands to go by the line", PATIENCE, || {
            device(&edge_box)["executed"].as_u64() > Some(before + 5)
        })
        .unwrap();
        cable.pull();
        let pulled = std::time::Instant::now();
        carried_by(&edge_box, "lamp-mqtt").await;
        println!("round {round}: on the broker after {:?}", pulled.elapsed());
        let before = device(&edge_box)["executed"].as_u64().unwrap();
        wait_for("commands to go by the broker", PATIENCE, || {
            device(&edge_box)["executed"].as_u64() > Some(before + 5)
        })
        .unwrap();
        cable.plug().unwrap();
        let plugged = std::time::Instant::now();
        carried_by(&edge_box, "lamp-serial").await;
        println!(
            "round {round}: on the line again after {:?}",
            plugged.elapsed()
        );
    }
    drop(stop);
    let (done, failed) = toggling.await.unwrap();
    assert!(failed.is_empty(), "{failed:?}\n{}", edge_box.log());
    let shown = device(&edge_box);
    assert_eq!(shown["executed"], done, "{shown}");
    assert_eq!(shown["connections"], 1, "{shown}\n{}", edge_box.log());

    let last = shown["ticks"].as_i64().unwrap() - 1;
    let mut heard = Vec::new();
    while heard.last() < Some(&last) {
        let number = tokio::time::timeout(PATIENCE, numbers.recv()).await;
        heard.push(number.expect("events come").unwrap());
    }
    let wanted: Vec<i64> = (heard[0]..).take(heard.len()).collect();
    assert_eq!(heard, wanted, "each once and in order");
    println!(
        "{done} commands and {} events over {} moves: lost 0, doubled 0",
        heard.len(),
        2 * ROUNDS
    );
    let links = links(&edge_box);
    assert_eq!(links["lamp-mqtt"]["state"], "standby", "{links:?}");
    for link in links.values().filter(|link| link["device"] == "lamp") {
        assert_eq!(link["security"], "private", "{link}");
        assert!(link["bytes_sent"].as_u64() > Some(0), "{link}");
        assert!(link["rtt_us"].as_u64() > Some(0), "{link}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_only_at_a_broker_obeys_over_restarts_of_broker_and_daemon() {
    let mut edge_box = prepared(&[], "");
    let links = [at_broker(&edge_box)];
    let key = new_key(&edge_box, "lamp.key");
    edge_box
        .edit_config(|config| {
            config.replace(
                "links = []",
                &format!("links = {links:?}\nkey = {{ file = {key:?} }}"),
            )
        })
        .unwrap();
    let options = ["--mqtt", &links[0], "--key", key.to_str().unwrap()];
    edge_box
        .start_device_as("far-lamp", "lamp", &options)
        .unwrap();
    edge_box.start_daemon().unwrap();
    carried_by(&edge_box, "lamp-mqtt").await;
    edge_box.invoke(LAMP, "toggle", None).await.unwrap();

    edge_box.stop_broker().unwrap();
    let status = edge_box
        .wait_for_status("the box to notice", |status| {
            status["links"]["lamp-mqtt"]["state"] == "reconnecting"
        })
        .await
        .unwrap();
    let detail = status["links"]["lamp-mqtt"]["detail"].as_str().unwrap();
    assert!(detail.contains("the broker is away"), "{detail}");
    edge_box.start_broker().unwrap();
    carried_by(&edge_box, "lamp-mqtt").await;
    edge_box.invoke(LAMP, "toggle", None).await.unwrap();
    assert_eq!(device(&edge_box)["connections"], 1, "{}", edge_box.log());

    edge_box.daemon().unwrap().kill();
    edge_box.start_daemon().unwrap();
    carried_by(&edge_box, "lamp-mqtt").await;
    edge_box.invoke(LAMP, "toggle", None).await.unwrap();
    let shown = device(&edge_box);
    assert_eq!(
        (&shown["executed"], &shown["connections"]),
        (&json!(3), &json!(2)),
        "{shown}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_without_the_right_key_is_refused_by_name_and_never_spoken_to_in_the_clear() {
    let mut edge_box = prepared_with_both();
    let wrong = new_key(&edge_box, "wrong.key");
    for options in [&["--key", wrong.to_str().unwrap()][..], &[]] {
        edge_box.start_device_as("lamp", "lamp", options).unwrap();
        edge_box.start_daemon().unwrap();
        let status = edge_box
            .wait_for_status("the refusal", |status| {
                status["links"]["lamp-serial"]["state"] == "refused"
            })
            .await
            .unwrap();
        let detail = status["links"]["lamp-serial"]["detail"].as_str().unwrap();
        for part in ["lamp is not authentic", "lamp.key", "give it that key"] {
            assert!(detail.contains(part), "{part}: {detail}");
        }
        assert_eq!(status["things"]["online"], 0);
        assert_eq!(edge_box.device("lamp").unwrap()["connections"], 0);
        edge_box.daemon().unwrap().kill();
        edge_box.pull_device("lamp");
    }
    let log = edge_box.log();
    let digits = std::fs::read_to_string(edge_box.path("lamp.key")).unwrap();
    let digits = digits.trim().strip_prefix("psk:").unwrap();
    assert!(!log.contains(&digits[..16]), "a key is never logged");

    // The right one, on a line that was just plugged in: no waiting for the breaker.
    edge_box.start_daemon().unwrap();
    edge_box
        .start_device_as(
            "lamp",
            "lamp",
            &["--key", edge_box.path("lamp.key").to_str().unwrap()],
        )
        .unwrap();
    carried_by(&edge_box, "lamp-serial").await;
    edge_box.invoke(LAMP, "toggle", None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_others_may_read_is_refused_until_it_is_its_owners_alone() {
    let mut edge_box = prepared_with_both();
    let key = edge_box.path("lamp.key");
    edge_box
        .start_device_as("lamp", "lamp", &["--key", key.to_str().unwrap()])
        .unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    edge_box.start_daemon().unwrap();
    let status = edge_box
        .wait_for_status("the refusal", |status| {
            status["links"]["lamp-serial"]["state"] == "refused"
        })
        .await
        .unwrap();
    let detail = status["links"]["lamp-serial"]["detail"].as_str().unwrap();
    assert!(
        detail.contains("chmod 600") && detail.contains("lamp.key"),
        "{detail}"
    );
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    carried_by(&edge_box, "lamp-serial").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn static_pairs_are_pinned_at_both_ends() {
    let mut edge_box = prepared_with_both();
    let pair = |name: &str| {
        let file = edge_box.path(name);
        let made = ctl(&edge_box, &["key", "pair", file.to_str().unwrap()]);
        let public = String::from_utf8(made.stdout).unwrap().trim().to_owned();
        let shown = ctl(&edge_box, &["key", "public", file.to_str().unwrap()]);
        assert_eq!(String::from_utf8(shown.stdout).unwrap().trim(), public);
        (file, public)
    };
    let (ours, our_public) = pair("box.key");
    let (theirs, their_public) = pair("device.key");
    let (stranger, _) = pair("stranger.key");
    edge_box
        .edit_config(|config| {
            config.replacen(
                "key = {",
                &format!("identity = {{ file = {ours:?} }}\npeer = \"{their_public}\"\nkey = {{"),
                1,
            )
        })
        .unwrap();
    let key = edge_box.path("lamp.key");
    let options = |identity: &PathBuf| {
        [
            "--key",
            key.to_str().unwrap(),
            "--identity",
            identity.to_str().unwrap(),
            "--peer",
            &our_public,
        ]
        .map(str::to_owned)
    };
    let start = |edge_box: &mut EdgeBox, identity: &PathBuf| {
        let options = options(identity);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        edge_box.start_device_as("lamp", "lamp", &options).unwrap();
    };
    start(&mut edge_box, &stranger);
    edge_box.start_daemon().unwrap();
    edge_box
        .wait_for_status("the refusal", |status| {
            status["links"]["lamp-serial"]["state"] == "refused"
        })
        .await
        .unwrap();
    edge_box.pull_device("lamp");
    start(&mut edge_box, &theirs);
    carried_by(&edge_box, "lamp-serial").await;
    edge_box.invoke(LAMP, "toggle", None).await.unwrap();
}
