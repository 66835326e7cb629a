//! What is missing is said plainly (what, where, what to do), the rest works, and it recovers by itself when the missing part
//! appears: models, runtime, ports, broker, bus, store. Real processes throughout; nothing is restarted but what the test restarts.

use std::os::unix::fs::symlink;
use std::path::Path;

use autoglm_tests::edge_box::{EdgeBox, LAMP, PATIENCE, THERMOMETER};
use autoglm_tests::fleet::Operator;
use autoglm_tests::process::wait_for;
use serde_json::{Value, json};

/// A box with bus, broker, devices and configuration, and no daemon yet.
fn prepared() -> EdgeBox {
    let mut edge_box = EdgeBox::new().unwrap();
    edge_box.start_bus().unwrap();
    edge_box.start_broker().unwrap();
    edge_box.start_device("lamp", &[]).unwrap();
    edge_box.start_device("thermometer", &[]).unwrap();
    edge_box.write_config("").unwrap();
    edge_box
}

async fn turns_on_the_lamp(edge_box: &EdgeBox) {
    edge_box
        .invoke(LAMP, "turn_on", None)
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", edge_box.log()));
    assert_eq!(edge_box.device("lamp").unwrap()["on"], true);
}

/// The name and words of the error that a command meets.
async fn refusal(edge_box: &EdgeBox) -> (String, String) {
    let error = edge_box.invoke(LAMP, "turn_on", None).await.unwrap_err();
    let zbus::Error::MethodError(name, message, _) = error else {
        panic!("{error}")
    };
    (
        name.as_str().rsplit('.').next().unwrap().to_owned(),
        message.unwrap_or_default(),
    )
}

fn model<'a>(status: &'a Value, task: &str) -> &'a Value {
    status["models"]
        .as_array()
        .unwrap()
        .iter()
        .find(|model| model["task"] == task)
        .unwrap()
}

fn names(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not named: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_models_devices_obey_and_each_model_is_used_as_soon_as_it_appears() {
    let mut edge_box = prepared();
    let (kept, models) = (edge_box.cache().join("models"), edge_box.path("models"));
    std::fs::create_dir(&models).unwrap();
    edge_box
        .edit_config(|config| config.replace(kept.to_str().unwrap(), models.to_str().unwrap()))
        .unwrap();
    edge_box.start_daemon().unwrap();
    let status = edge_box
        .wait_for_status("things, and models that are missed", |status| {
            status["things"]["online"] == 2 && model(status, "embedding")["state"] == "missing"
        })
        .await
        .unwrap();
    let wanted = models.join("all-minilm-l6-v2-int8");
    names(
        model(&status, "embedding")["detail"].as_str().unwrap(),
        &[
            wanted.to_str().unwrap(),
            "make models",
            "inference.model_dirs",
        ],
    );
    let said = edge_box
        .say("kitchen", "turn on the desk lamp")
        .await
        .unwrap();
    assert_eq!(said.kind(), "ModelUnavailable", "{said:?}");
    names(said.text(), &[wanted.to_str().unwrap(), "make models"]);
    turns_on_the_lamp(&edge_box).await;

    symlink(kept.join("all-minilm-l6-v2-int8"), &wanted).unwrap();
    edge_box
        .wait_for_status("the embedding model", |status| {
            model(status, "embedding")["state"] == "ready"
        })
        .await
        .unwrap();
    let said = edge_box
        .say("kitchen", "set the desk lamp to 40 percent")
        .await
        .unwrap();
    assert_eq!(
        (said.kind(), &edge_box.device("lamp").unwrap()["brightness"]),
        ("command", &json!(40)),
        "{said:?}"
    );
    let said = edge_box
        .say("kitchen", "why is the sky blue?")
        .await
        .unwrap();
    assert_eq!(said.kind(), "ModelUnavailable", "{said:?}");
    names(said.text(), &["smollm2-135m-instruct-int4", "make models"]);

    symlink(
        kept.join("smollm2-135m-instruct-int4"),
        models.join("smollm2-135m-instruct-int4"),
    )
    .unwrap();
    edge_box.is_understanding(2).await.unwrap();
    let said = edge_box
        .say("kitchen", "why is the sky blue?")
        .await
        .unwrap();
    assert!(
        said.kind() == "conversation" && !said.text().is_empty(),
        "{said:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_runtime_devices_obey_and_words_work_once_it_appears() {
    let mut edge_box = prepared();
    let kept = autoglm_tests::process::newest(&edge_box.cache().join("runtime"))
        .unwrap()
        .join("libonnxruntime.so");
    let library = edge_box.path("libonnxruntime.so");
    edge_box
        .edit_config(|config| config.replace(kept.to_str().unwrap(), library.to_str().unwrap()))
        .unwrap();
    edge_box.start_daemon().unwrap();
    let status = edge_box
        .wait_for_status("a runtime that is missed", |status| {
            status["things"]["online"] == 2
                && status["runtime"]
                    .as_str()
                    .is_some_and(|runtime| runtime.starts_with("missing"))
        })
        .await
        .unwrap();
    names(
        status["runtime"].as_str().unwrap(),
        &[library.to_str().unwrap(), "make"],
    );
    let said = edge_box
        .say("kitchen", "turn on the desk lamp")
        .await
        .unwrap();
    assert_eq!(said.kind(), "ModelUnavailable", "{said:?}");
    names(said.text(), &[library.to_str().unwrap()]);
    turns_on_the_lamp(&edge_box).await;

    // The library finds its siblings beside the real file.
    symlink(&kept, &library).unwrap();
    edge_box.is_understanding(2).await.unwrap();
    let said = edge_box
        .say("kitchen", "set the desk lamp to 40 percent")
        .await
        .unwrap();
    assert_eq!(
        (said.kind(), &edge_box.device("lamp").unwrap()["brightness"]),
        ("command", &json!(40)),
        "{said:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_may_be_missing_at_the_start_and_come_and_go_under_another_terminal() {
    let mut edge_box = prepared();
    edge_box.pull_device("lamp");
    edge_box.start_daemon().unwrap();
    let status = edge_box
        .wait_for_status("the thermometer alone", |status| {
            status["things"]["online"] == 1
                && status["links"]["lamp-serial"]["state"] == "reconnecting"
        })
        .await
        .unwrap();
    let port = edge_box.path("lamp").display().to_string();
    names(
        status["links"]["lamp-serial"]["detail"].as_str().unwrap(),
        &[&port, "no such port", "plugged in"],
    );
    let (name, message) = refusal(&edge_box).await;
    assert_eq!(name, "UnknownThing", "it was never seen: {message}");
    names(&message, &[LAMP, "autoglmctl things"]);
    edge_box
        .invoke(THERMOMETER, "set_fan_speed", Some(&json!({"speed": "low"})))
        .await
        .unwrap();

    edge_box.start_device("lamp", &[]).unwrap();
    edge_box
        .wait_for_status("the lamp", |status| status["things"]["online"] == 2)
        .await
        .unwrap();
    turns_on_the_lamp(&edge_box).await;

    let terminal = std::fs::read_link(edge_box.path("lamp")).unwrap();
    edge_box.pull_device("lamp");
    edge_box
        .wait_for_status("the lamp to be gone", |status| {
            status["things"]["online"] == 1
        })
        .await
        .unwrap();
    let (name, message) = refusal(&edge_box).await;
    assert_eq!(name, "NotConnected", "{message}");
    names(&message, &["Desk lamp"]);
    // Another device takes the terminal's number, so that the lamp returns under a new one. The system gives the lowest number that is
    // free, and other tests free some, too.
    for number in 0..100 {
        let squatter = format!("squatter-{number}");
        edge_box.start_device_as(&squatter, "lamp", &[]).unwrap();
        if std::fs::read_link(edge_box.path(&squatter)).unwrap() == terminal {
            break;
        }
    }
    edge_box.start_device("lamp", &[]).unwrap();
    assert_ne!(std::fs::read_link(edge_box.path("lamp")).unwrap(), terminal);
    edge_box
        .wait_for_status("the lamp again", |status| status["things"]["online"] == 2)
        .await
        .unwrap();
    turns_on_the_lamp(&edge_box).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_may_be_missing_at_the_start_and_restart_later() {
    let mut edge_box = prepared();
    edge_box.stop_broker().unwrap();
    edge_box.start_daemon().unwrap();
    let status = edge_box
        .wait_for_status("a broker that is missed", |status| {
            status["things"]["online"] == 2 && status["fleet"]["state"] == "waiting"
        })
        .await
        .unwrap();
    names(status["fleet"]["detail"].as_str().unwrap(), &["refused"]);
    let place = format!("mqtt://127.0.0.1:{}", edge_box.broker_port());
    names(&edge_box.log(), &[&place]);
    turns_on_the_lamp(&edge_box).await;

    edge_box.start_broker().unwrap();
    edge_box
        .wait_for_status("the broker", |status| {
            status["fleet"]["state"] == "connected"
        })
        .await
        .unwrap();
    let mut operator = Operator::connect(edge_box.broker_port(), "test-box")
        .await
        .unwrap();
    assert_eq!(operator.presence().await.unwrap()["state"], "online");
    operator.forget_presence().await.unwrap();
    let level = |level: u8| {
        json!({"thing": LAMP, "action": "set_brightness", "input": {"level": level}}).to_string()
    };
    let reply = operator
        .command("before", level(20).as_bytes())
        .await
        .unwrap();
    assert_eq!(reply["status"], "SUCCEEDED", "{reply}");

    edge_box.stop_broker().unwrap();
    edge_box
        .wait_for_status("the broker to be missed", |status| {
            status["fleet"]["state"] == "waiting"
        })
        .await
        .unwrap();
    turns_on_the_lamp(&edge_box).await;
    edge_box.start_broker().unwrap();
    edge_box
        .wait_for_status("the broker again", |status| {
            status["fleet"]["state"] == "connected"
        })
        .await
        .unwrap();
    let mut operator = Operator::connect(edge_box.broker_port(), "test-box")
        .await
        .unwrap();
    assert_eq!(
        operator.presence().await.unwrap()["state"],
        "online",
        "said anew, since the old one was taken away"
    );
    let reply = operator
        .command("after", level(30).as_bytes())
        .await
        .unwrap();
    assert_eq!(reply["status"], "SUCCEEDED", "{reply}");
    assert_eq!(edge_box.device("lamp").unwrap()["brightness"], 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_may_be_missing_at_the_start_and_be_killed_later() {
    let mut edge_box = prepared();
    edge_box.stop_bus();
    edge_box.start_daemon().unwrap();
    let mut operator = Operator::connect(edge_box.broker_port(), "test-box")
        .await
        .unwrap();
    assert_eq!(operator.presence().await.unwrap()["state"], "online");
    wait_for("the lamp, by the log", PATIENCE, || {
        edge_box.log().contains("title=Desk lamp")
    })
    .unwrap();
    let reply = operator
        .command(
            "no-bus",
            json!({"thing": LAMP, "action": "turn_on"})
                .to_string()
                .as_bytes(),
        )
        .await
        .unwrap();
    assert_eq!(reply["status"], "SUCCEEDED", "{reply}");
    wait_for("the missing bus in the log", PATIENCE, || {
        edge_box.log().contains("no message bus answers")
    })
    .unwrap();

    edge_box.start_bus().unwrap();
    edge_box
        .wait_for_status("the name", |status| status["things"]["online"] == 2)
        .await
        .unwrap();
    turns_on_the_lamp(&edge_box).await;
    for _ in 0..2 {
        edge_box.stop_bus();
        edge_box.start_bus().unwrap();
        edge_box
            .wait_for_status("the name again", |status| status["things"]["online"] == 2)
            .await
            .unwrap();
        turns_on_the_lamp(&edge_box).await;
    }
    assert!(edge_box.daemon().unwrap().is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_on_the_same_state_is_refused_and_the_first_is_unharmed() {
    let mut edge_box = prepared();
    edge_box.start_daemon().unwrap();
    edge_box
        .wait_for_status("the first", |status| status["things"]["online"] == 2)
        .await
        .unwrap();
    let first = edge_box.daemon().unwrap().id().to_string();
    let (status, words) = edge_box
        .daemon_refuses(edge_box.daemon_command().unwrap())
        .unwrap();
    assert!(
        status.code().is_some_and(|code| code != 0),
        "{status} {words}"
    );
    names(
        &words,
        &[
            "in use by another daemon",
            &first,
            edge_box.path("state").to_str().unwrap(),
        ],
    );
    turns_on_the_lamp(&edge_box).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_store_is_set_aside_and_said_in_the_status() {
    let mut edge_box = prepared();
    edge_box.start_daemon().unwrap();
    edge_box.is_understanding(2).await.unwrap();
    edge_box
        .say("kitchen", "turn on the desk lamp")
        .await
        .unwrap();
    edge_box.daemon().unwrap().kill();
    let damaged = scribble_over(&edge_box.path("state/store"));
    assert!(damaged > 0, "nothing was damaged");

    edge_box.start_daemon().unwrap();
    let status = edge_box
        .wait_for_status("a new store", |status| status["things"]["online"] == 2)
        .await
        .unwrap();
    assert_eq!(status["store"]["state"], "ready", "{status:#}");
    let detail = status["store"]["detail"].as_str().unwrap();
    names(detail, &["rebuilt", "because", "store.damaged-"]);
    let kept = detail
        .split_whitespace()
        .find(|word| word.contains("store.damaged-"))
        .unwrap();
    assert!(
        Path::new(kept).is_dir(),
        "the old one is kept whole: {detail}"
    );
    turns_on_the_lamp(&edge_box).await;
}

/// Overwrites the middle of every file of the database; returns how many.
fn scribble_over(directory: &Path) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            count += scribble_over(&path);
        } else {
            let length = std::fs::metadata(&path).unwrap().len();
            std::fs::write(&path, vec![0xA5; usize::try_from(length).unwrap()]).unwrap();
            count += usize::from(length > 0);
        }
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_directory_that_cannot_be_made_is_refused_by_name() {
    let edge_box = prepared();
    let state = edge_box.path("state");
    std::fs::write(&state, "in the way").unwrap();
    for wanted in [state.display().to_string(), "/dev/null/state".to_owned()] {
        edge_box
            .edit_config(|config| {
                config.replace(&format!("{state:?}"), &format!("{wanted:?}")) + "# edited\n"
            })
            .unwrap();
        let (status, words) = edge_box
            .daemon_refuses(edge_box.daemon_command().unwrap())
            .unwrap();
        assert!(
            status.code().is_some_and(|code| code != 0),
            "{status} {words}"
        );
        names(&words, &[&wanted, "state directory", "box.state_dir"]);
    }
}
