//! The three doors (words, D-Bus, MQTT), each ending in the same router: all move the lamp. Real processes throughout.

use std::time::Duration;

use autoglm_tests::edge_box::{EdgeBox, LAMP, PATIENCE, THERMOMETER};
use autoglm_tests::fleet::Operator;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn words_move_the_lamp_and_the_device_answers() {
    let edge_box = EdgeBox::running().await.unwrap();
    let said = edge_box
        .say("kitchen", "set the desk lamp to 40 percent")
        .await
        .unwrap();
    assert_eq!(
        edge_box.device("lamp").unwrap()["brightness"],
        40,
        "{said:?}\n{}",
        edge_box.log()
    );
    assert_eq!(said.kind(), "command");
    assert!(said.text().contains("40"), "{}", said.text());

    let said = edge_box.say("kitchen", "how warm is it?").await.unwrap();
    let shown = edge_box.device("thermometer").unwrap()["temperature"]
        .as_f64()
        .unwrap();
    let told = said.executed().next().unwrap()["output"].as_f64().unwrap();
    // The air moves on between the two looks.
    assert!((told - shown).abs() < 0.5, "{told} {shown} {said:?}");

    let said = edge_box
        .say("kitchen", "set the desk lamp to 400 percent")
        .await
        .unwrap();
    assert_eq!(
        (said.kind(), said.executed().count()),
        ("refusal", 0),
        "{said:?}"
    );
    assert!(
        said.text().contains("100"),
        "names the range: {}",
        said.text()
    );
    assert_eq!(edge_box.device("lamp").unwrap()["brightness"], 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_command_is_answered_by_the_language_model_in_pieces() {
    let edge_box = EdgeBox::running().await.unwrap();
    let said = edge_box
        .say("kitchen", "why is the sky blue?")
        .await
        .unwrap();
    let pieces: Vec<&str> = said
        .events
        .iter()
        .filter(|event| event["event"] == "delta")
        .filter_map(|event| event["text"].as_str())
        .collect();
    assert_eq!(said.kind(), "conversation", "{said:?}");
    assert!(
        pieces.len() > 3 && pieces.concat() == said.text(),
        "{said:?}"
    );
    assert_eq!(edge_box.device("lamp").unwrap()["executed"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn d_bus_moves_the_lamp_and_refuses_by_type() {
    let edge_box = EdgeBox::running().await.unwrap();
    edge_box
        .invoke(LAMP, "set_brightness", Some(&json!({"level": 25})))
        .await
        .unwrap();
    assert_eq!(edge_box.device("lamp").unwrap()["brightness"], 25);

    for (thing, action, input, name, culprit) in [
        ("urn:nobody", "turn_on", None, "UnknownThing", "urn:nobody"),
        (LAMP, "explode", None, "NotOffered", "explode"),
        (
            LAMP,
            "set_brightness",
            Some(json!({"level": 400})),
            "InvalidValue",
            "400",
        ),
        (
            LAMP,
            "set_brightness",
            Some(json!({"level": "much"})),
            "InvalidValue",
            "much",
        ),
        (LAMP, "set_brightness", None, "InvalidValue", "missing"),
        (LAMP, "turn_on", Some(json!(3)), "InvalidValue", "not taken"),
        ("has space", "turn_on", None, "InvalidArgument", "has space"),
        (
            THERMOMETER,
            "set_fan_speed",
            Some(json!({"speed": "warp"})),
            "InvalidValue",
            "warp",
        ),
    ] {
        let error = edge_box
            .invoke(thing, action, input.as_ref())
            .await
            .unwrap_err();
        let zbus::Error::MethodError(error_name, message, _) = &error else {
            panic!("{error}")
        };
        assert_eq!(
            error_name.as_str(),
            format!("org.openautoglm.Edge1.Error.{name}"),
            "{message:?}"
        );
        assert!(
            message
                .as_deref()
                .is_some_and(|message| message.contains(culprit)),
            "{culprit}: {message:?}"
        );
    }
    assert_eq!(edge_box.device("lamp").unwrap()["executed"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn mqtt_moves_the_lamp_once_even_when_the_command_comes_twice() {
    let edge_box = EdgeBox::running().await.unwrap();
    let mut operator = Operator::connect(edge_box.broker_port(), "test-box")
        .await
        .unwrap();
    assert_eq!(operator.presence().await.unwrap()["state"], "online");
    let toggle = json!({"thing": LAMP, "action": "toggle"}).to_string();
    let first = operator.command("c-1", toggle.as_bytes()).await.unwrap();
    assert_eq!(
        (&first["status"], &first["id"]),
        (&json!("SUCCEEDED"), &json!("c-1")),
        "{first}"
    );
    let second = operator.command("c-1", toggle.as_bytes()).await.unwrap();
    assert_eq!(
        second["status"], "SUCCEEDED",
        "a duplicate gets the stored outcome: {second}"
    );
    assert_eq!(edge_box.device("lamp").unwrap()["executed"], 1);
    let conflict = operator
        .command(
            "c-1",
            json!({"thing": LAMP, "action": "turn_off"})
                .to_string()
                .as_bytes(),
        )
        .await
        .unwrap();
    assert_eq!(
        (&conflict["status"], &conflict["error"]),
        (&json!("REJECTED"), &json!("Conflict")),
        "{conflict}"
    );

    for (payload, culprit) in [
        ("{", "payload"),
        (r#"{"thing":"urn:x","action":"a","extra":1}"#, "extra"),
        (r#"{"thing":"urn:x"}"#, "exactly one"),
        (r#"{"thing":"urn:x","action":"a"}"#, "urn:x"),
    ] {
        let reply = operator
            .command(&format!("bad-{}", payload.len()), payload.as_bytes())
            .await
            .unwrap();
        assert_eq!(reply["status"], "REJECTED", "{reply}");
        assert!(
            reply["message"]
                .as_str()
                .is_some_and(|message| message.contains(culprit)),
            "{culprit}: {reply}"
        );
    }
    let too_large = vec![b'x'; 100_000];
    assert_eq!(
        operator.command("big", &too_large).await.unwrap()["status"],
        "REJECTED"
    );
    assert_eq!(edge_box.device("lamp").unwrap()["executed"], 1);
    // The broker drops what is over our limit on packets; it must not become a poison that ends every connection.
    operator
        .publish("poison", &vec![b'x'; 300_000])
        .await
        .unwrap();
    let after = operator.command("c-2", toggle.as_bytes()).await.unwrap();
    assert_eq!(after["status"], "SUCCEEDED", "{after}");
    assert_eq!(edge_box.device("lamp").unwrap()["executed"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_command_waits_at_the_broker_while_the_box_is_away() {
    let mut edge_box = EdgeBox::running().await.unwrap();
    let mut operator = Operator::connect(edge_box.broker_port(), "test-box")
        .await
        .unwrap();
    edge_box.daemon().unwrap().kill();
    operator
        .publish(
            "late-1",
            json!({"thing": LAMP, "action": "turn_on"})
                .to_string()
                .as_bytes(),
        )
        .await
        .unwrap();
    edge_box.start_daemon().unwrap();
    let reply = operator.reply_to("late-1", PATIENCE).await.unwrap();
    assert_eq!(reply["status"], "SUCCEEDED", "{reply}");
    assert_eq!(edge_box.device("lamp").unwrap()["on"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_hangs_up_leaves_no_command_half_done() {
    let mut edge_box = EdgeBox::new().unwrap();
    edge_box.start_bus().unwrap();
    edge_box.start_broker().unwrap();
    edge_box
        .start_device("lamp", &["--delay-ms", "600"])
        .unwrap();
    edge_box.write_config("").unwrap();
    edge_box.start_daemon().unwrap();
    edge_box.is_understanding(1).await.unwrap();
    let hung_up = tokio::time::timeout(
        Duration::from_millis(200),
        edge_box.invoke(LAMP, "turn_on", None),
    )
    .await;
    assert!(hung_up.is_err(), "the caller was to give up first");
    edge_box
        .wait_for_status("the daemon to live on", |_| true)
        .await
        .unwrap();
    autoglm_tests::process::wait_for("the lamp to be on", PATIENCE, || {
        edge_box.device("lamp").unwrap()["on"] == true
    })
    .unwrap();
    assert_eq!(edge_box.device("lamp").unwrap()["executed"], 1);
}
