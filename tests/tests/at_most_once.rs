//! A command is executed at most once, whoever dies in the middle of it: daemon, device or cable. Real processes throughout.
//!
//! `toggle` is the command of choice: executed twice, it would undo itself.

use std::time::Duration;

use autoglm_tests::cable::Cable;
use autoglm_tests::edge_box::{EdgeBox, LAMP, PATIENCE};
use autoglm_tests::fleet::Operator;
use autoglm_tests::process::wait_for;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

/// Rounds of the random test.
const ROUNDS: usize = 16;
/// How long the lamp works on a command in the random test, in milliseconds.
const WORK_MS: u64 = 120;

fn payload(action: &str) -> Vec<u8> {
    json!({"thing": LAMP, "action": action})
        .to_string()
        .into_bytes()
}

/// A box with a fleet and whatever is on the lamp's line. Models are not needed, so none load.
async fn connected(edge_box: &mut EdgeBox) -> Operator {
    edge_box.start_bus().unwrap();
    edge_box.start_broker().unwrap();
    edge_box.write_config("").unwrap();
    let models = edge_box.cache().join("models").display().to_string();
    edge_box
        .edit_config(|config| config.replace(&models, "/nonexistent"))
        .unwrap();
    edge_box.start_daemon().unwrap();
    edge_box
        .wait_for_status("lamp and fleet", |status| {
            status["things"]["online"] == 1 && status["fleet"]["state"] == "connected"
        })
        .await
        .unwrap();
    Operator::connect(edge_box.broker_port(), "test-box")
        .await
        .unwrap()
}

/// Has the lamp carry out something harmless, after whatever it is still working on; returns what it has executed since power-up.
async fn executed_when_idle(edge_box: &EdgeBox, lamp: &str) -> u64 {
    let level = json!({"level": 50});
    let until = std::time::Instant::now() + PATIENCE;
    loop {
        // Busy, not yet connected or not yet on the bus: it will be.
        match edge_box.invoke(LAMP, "set_brightness", Some(&level)).await {
            Ok(_) => return edge_box.device(lamp).unwrap()["executed"].as_u64().unwrap(),
            Err(error) => assert!(
                std::time::Instant::now() < until,
                "{error}\n{}",
                edge_box.log()
            ),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn is_working(edge_box: &EdgeBox, lamp: &str) -> bool {
    edge_box
        .device(lamp)
        .is_ok_and(|state| state["working"] == "toggle")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_command_runs_at_most_once_whenever_the_daemon_is_killed() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut edge_box = EdgeBox::new().unwrap();
    edge_box
        .start_device("lamp", &["--delay-ms", &WORK_MS.to_string()])
        .unwrap();
    let mut operator = connected(&mut edge_box).await;
    let mut before = executed_when_idle(&edge_box, "lamp").await;
    let mut outcomes = std::collections::BTreeMap::<String, u32>::new();
    for round in 0..ROUNDS {
        let id = format!("round-{round}");
        // Not waiting for anything: the moment of the kill is what this test draws by chance.
        let moment = Duration::from_millis(random.random_range(0..2 * WORK_MS));
        operator.publish(&id, &payload("toggle")).await.unwrap();
        tokio::time::sleep(moment).await;
        edge_box.daemon().unwrap().kill();
        edge_box.start_daemon().unwrap();
        let reply = operator.reply_to(&id, PATIENCE).await.unwrap();
        let after = executed_when_idle(&edge_box, "lamp").await;
        let toggled = after - before - 1;
        before = after;
        let said = format!(
            "seed {seed}, round {round}, killed after {moment:?}: executed {toggled} times, {reply}\n{}",
            edge_box.log()
        );
        match (reply["status"].as_str().unwrap(), reply["error"].as_str()) {
            ("SUCCEEDED", _) => assert_eq!(toggled, 1, "{said}"),
            ("FAILED", Some("Interrupted")) => assert!(toggled <= 1, "{said}"),
            // "Rejected" is a promise that nothing was done.
            ("REJECTED", Some("NotConnected" | "UnknownThing")) => assert_eq!(toggled, 0, "{said}"),
            _ => panic!("{said}"),
        }
        *outcomes
            .entry(format!("{}{}", reply["status"], reply["error"]))
            .or_default() += 1;
    }
    println!("outcomes {outcomes:?}");
    assert_eq!(outcomes.values().sum::<u32>(), ROUNDS as u32);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ran_when_the_daemon_was_killed_is_answered_as_interrupted_and_never_tried_again() {
    let mut edge_box = EdgeBox::new().unwrap();
    edge_box
        .start_device("lamp", &["--delay-ms", "400"])
        .unwrap();
    let mut operator = connected(&mut edge_box).await;
    operator.publish("once", &payload("toggle")).await.unwrap();
    wait_for("the lamp to work", PATIENCE, || {
        is_working(&edge_box, "lamp")
    })
    .unwrap();
    edge_box.daemon().unwrap().kill();
    edge_box.start_daemon().unwrap();
    let redelivered = operator.reply_to("once", PATIENCE).await.unwrap();
    let repeated = operator.command("once", &payload("toggle")).await.unwrap();
    for reply in [&redelivered, &repeated] {
        assert_eq!(
            (&reply["status"], &reply["error"]),
            (&json!("FAILED"), &json!("Interrupted")),
            "{reply}\n{}",
            edge_box.log()
        );
    }
    assert_eq!(
        executed_when_idle(&edge_box, "lamp").await,
        2,
        "the toggle and the look, nothing more"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_command_is_answered_from_memory_even_while_its_device_is_away() {
    let mut edge_box = EdgeBox::new().unwrap();
    edge_box.start_device("lamp", &[]).unwrap();
    let mut operator = connected(&mut edge_box).await;
    let first = operator.command("once", &payload("toggle")).await.unwrap();
    assert_eq!(first["status"], "SUCCEEDED", "{first}");
    edge_box.pull_device("lamp");
    edge_box.daemon().unwrap().kill();
    edge_box.start_daemon().unwrap();
    // This run of the daemon has not heard the lamp, but it knows what came of the command.
    let again = operator.command("once", &payload("toggle")).await.unwrap();
    assert_eq!(again, first, "{}", edge_box.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_is_not_carried_out_by_a_duplicate_that_comes_later() {
    let mut edge_box = EdgeBox::new().unwrap();
    edge_box.start_device("lamp", &[]).unwrap();
    let mut operator = connected(&mut edge_box).await;
    edge_box.pull_device("lamp");
    edge_box.daemon().unwrap().kill();
    edge_box.start_daemon().unwrap();
    // This run of the daemon knows the lamp only from before. "Rejected" is a promise that nothing is done.
    let refused = operator.command("late", &payload("toggle")).await.unwrap();
    assert_eq!(
        (&refused["status"], &refused["error"]),
        (&json!("REJECTED"), &json!("NotConnected")),
        "{refused}\n{}",
        edge_box.log()
    );
    edge_box.start_device("lamp", &[]).unwrap();
    let executed = executed_when_idle(&edge_box, "lamp").await;
    // An operator that had no answer yet, or a broker that delivers twice, sends it again.
    let again = operator.command("late", &payload("toggle")).await.unwrap();
    assert_eq!(again["error"], "NotConnected", "{again}");
    assert_eq!(
        executed_when_idle(&edge_box, "lamp").await,
        executed + 1,
        "the second look, and no toggle"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_at_the_broker_is_carried_out_by_the_box_that_comes_back() {
    let mut edge_box = EdgeBox::new().unwrap();
    edge_box.start_device("lamp", &[]).unwrap();
    let mut operator = connected(&mut edge_box).await;
    for round in 0..5 {
        edge_box.daemon().unwrap().kill();
        let id = format!("waiting-{round}");
        operator.publish(&id, &payload("toggle")).await.unwrap();
        edge_box.start_daemon().unwrap();
        let reply = operator.reply_to(&id, PATIENCE).await.unwrap();
        assert_eq!(
            reply["status"],
            "SUCCEEDED",
            "round {round}: {reply}\n{}",
            edge_box.log()
        );
        assert_eq!(edge_box.device("lamp").unwrap()["executed"], round + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_restarts_is_not_asked_to_toggle_again_but_to_turn_on_again() {
    let mut edge_box = EdgeBox::new().unwrap();
    edge_box
        .start_device("lamp", &["--delay-ms", "400"])
        .unwrap();
    let mut operator = connected(&mut edge_box).await;
    operator
        .publish("toggle", &payload("toggle"))
        .await
        .unwrap();
    wait_for("the lamp to work", PATIENCE, || {
        is_working(&edge_box, "lamp")
    })
    .unwrap();
    edge_box.pull_device("lamp");
    // The state file of the dead lamp would say that it still works.
    std::fs::remove_file(edge_box.path("lamp.json")).unwrap();
    edge_box
        .start_device("lamp", &["--delay-ms", "400"])
        .unwrap();
    let reply = operator.reply_to("toggle", PATIENCE).await.unwrap();
    assert_eq!(
        (&reply["status"], &reply["error"]),
        (&json!("FAILED"), &json!("Interrupted")),
        "{reply}"
    );
    assert_eq!(
        executed_when_idle(&edge_box, "lamp").await,
        1,
        "only the look"
    );

    operator.publish("on", &payload("turn_on")).await.unwrap();
    wait_for("the lamp to work", PATIENCE, || {
        edge_box
            .device("lamp")
            .is_ok_and(|state| state["working"] == "turn_on")
    })
    .unwrap();
    edge_box.pull_device("lamp");
    std::fs::remove_file(edge_box.path("lamp.json")).unwrap();
    edge_box
        .start_device("lamp", &["--delay-ms", "400"])
        .unwrap();
    let reply = operator.reply_to("on", PATIENCE).await.unwrap();
    assert_eq!(reply["status"], "SUCCEEDED", "{reply}");
    assert_eq!(edge_box.device("lamp").unwrap()["on"], true);
}

/// Toggles over a cable that is pulled while the lamp works, and plugged in again once `is_time` says so.
async fn toggled_over_a_pulled_cable(is_time: impl Fn(&Value) -> bool) {
    let mut edge_box = EdgeBox::new().unwrap();
    edge_box
        .start_device_as("far-lamp", "lamp", &["--delay-ms", "400"])
        .unwrap();
    let mut cable = Cable::plugged(edge_box.path("far-lamp"), edge_box.path("lamp")).unwrap();
    let mut operator = connected(&mut edge_box).await;
    operator
        .publish("toggle", &payload("toggle"))
        .await
        .unwrap();
    wait_for("the lamp to work", PATIENCE, || {
        is_working(&edge_box, "far-lamp")
    })
    .unwrap();
    cable.pull();
    edge_box
        .wait_for_status("the box to notice", |status| {
            status["things"]["online"] == 0
        })
        .await
        .unwrap();
    wait_for("the moment to plug in", PATIENCE, || {
        edge_box
            .device("far-lamp")
            .is_ok_and(|state| is_time(&state))
    })
    .unwrap();
    cable.plug().unwrap();
    let reply = operator.reply_to("toggle", PATIENCE).await.unwrap();
    assert_eq!(reply["status"], "SUCCEEDED", "{reply}\n{}", edge_box.log());
    let state = edge_box.device("far-lamp").unwrap();
    assert_eq!(
        (&state["executed"], &state["on"]),
        (&json!(1), &json!(true)),
        "{state}"
    );
    assert_eq!(
        executed_when_idle(&edge_box, "far-lamp").await,
        2,
        "the toggle and the look, nothing more"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cable_pulled_and_plugged_in_while_the_lamp_works_costs_nothing() {
    toggled_over_a_pulled_cable(|_| true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_met_a_pulled_cable_is_given_again_without_a_second_toggle() {
    toggled_over_a_pulled_cable(|state| state["executed"] == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn doors_that_command_one_device_at_once_are_all_served_and_each_command_is_done_once() {
    let mut edge_box = EdgeBox::new().unwrap();
    edge_box
        .start_device("lamp", &["--delay-ms", "100"])
        .unwrap();
    let mut operator = connected(&mut edge_box).await;
    for round in 0..4 {
        operator
            .publish(&format!("fleet-{round}"), &payload("toggle"))
            .await
            .unwrap();
    }
    // The lamp does one thing at a time, and says that it is busy otherwise.
    let (one, two) = tokio::join!(
        edge_box.invoke(LAMP, "toggle", None),
        edge_box.invoke(LAMP, "toggle", None)
    );
    one.unwrap();
    two.unwrap();
    for round in 0..4 {
        let reply = operator.reply_to(&format!("fleet-{round}"), PATIENCE).await;
        let reply = reply.unwrap();
        assert_eq!(reply["status"], "SUCCEEDED", "{reply}\n{}", edge_box.log());
    }
    assert_eq!(edge_box.device("lamp").unwrap()["executed"], 6);
}
