//! Conversations survive `kill -9`: what was answered is kept, what it was about is still known. Real processes throughout.

use std::io::BufRead as _;

use autoglm_tests::edge_box::EdgeBox;
use autoglm_tests::edge_box::door::Said;
use serde_json::Value;

/// `kill -9`, a new start, and everything is back.
async fn kill_and_restart(edge_box: &mut EdgeBox) {
    edge_box.daemon().unwrap().kill();
    edge_box.start_daemon().unwrap();
    edge_box.is_understanding(2).await.unwrap();
}

fn brightness(edge_box: &EdgeBox) -> i64 {
    edge_box.device("lamp").unwrap()["brightness"]
        .as_i64()
        .unwrap()
}

/// The turns that an exchange must have left: the sentence, and its answer in one piece for each call.
fn expected(sentence: &str, said: &Said) -> Vec<(String, String)> {
    let answers: Vec<&Value> = said.executed().map(|event| &event["answer"]).collect();
    let (speaker, answers) = match answers.is_empty() {
        true => ("assistant", vec![said.text().to_owned()]),
        false => (
            "device",
            answers
                .into_iter()
                .map(|answer| answer.as_str().unwrap().to_owned())
                .collect(),
        ),
    };
    let mut turns = vec![("user".to_owned(), sentence.to_owned())];
    turns.extend(
        answers
            .into_iter()
            .map(|answer| (speaker.to_owned(), answer)),
    );
    turns
}

async fn kept(edge_box: &EdgeBox, session: &str) -> Vec<(String, String)> {
    let text = |turn: &Value, member: &str| turn[member].as_str().unwrap().to_owned();
    let turns = edge_box.turns(session).await.unwrap();
    assert!(
        turns
            .iter()
            .enumerate()
            .all(|(at, turn)| turn["seq"] == at as u64),
        "no gaps: {turns:?}"
    );
    turns
        .iter()
        .map(|turn| (text(turn, "speaker"), text(turn, "text")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_it_still_means_the_lamp_and_every_answered_turn_is_kept() {
    let mut edge_box = EdgeBox::running().await.unwrap();
    let mut turns = Vec::new();
    for (sentence, level) in [("turn on the desk lamp", 100), ("set it to 40 percent", 40)] {
        let said = edge_box.say("kitchen", sentence).await.unwrap();
        assert_eq!(
            (said.kind(), brightness(&edge_box)),
            ("command", level),
            "{sentence}: {said:?}"
        );
        turns.extend(expected(sentence, &said));
        // The answer was the acknowledgement: from here on it must not be lost.
        kill_and_restart(&mut edge_box).await;
        assert_eq!(
            kept(&edge_box, "kitchen").await,
            turns,
            "after {sentence:?}"
        );
    }
    let said = edge_box
        .say("kitchen", "and make it brighter")
        .await
        .unwrap();
    assert_eq!(said.kind(), "command", "{said:?}");
    assert!(
        brightness(&edge_box) > 40,
        "{} {said:?}",
        brightness(&edge_box)
    );
    turns.extend(expected("and make it brighter", &said));
    assert_eq!(kept(&edge_box, "kitchen").await, turns);
    assert_eq!(
        edge_box.device("lamp").unwrap()["executed"],
        3,
        "each command reached the lamp once"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_while_an_answer_streams_loses_only_what_was_not_acknowledged() {
    let mut edge_box = EdgeBox::running().await.unwrap();
    let said = edge_box
        .say("kitchen", "set the desk lamp to 40 percent")
        .await
        .unwrap();
    let turns = expected("set the desk lamp to 40 percent", &said);

    let mut answer = edge_box
        .begin_to_say("kitchen", "why is the sky blue?")
        .await
        .unwrap();
    let mut daemon_is_killed = false;
    let mut line = String::new();
    let mut events = Vec::new();
    while answer.read_line(&mut line).unwrap() > 0 {
        // A killed writer may leave half a line.
        let Ok(event) = serde_json::from_str::<Value>(&line) else {
            break;
        };
        if event["event"] == "delta" && !daemon_is_killed {
            edge_box.daemon().unwrap().kill();
            daemon_is_killed = true;
        }
        events.push(event);
        line.clear();
    }
    assert!(daemon_is_killed, "{events:?}");
    assert!(
        events.iter().all(|event| event["event"] != "done"),
        "the answer was to be cut off: {events:?}"
    );

    edge_box.start_daemon().unwrap();
    edge_box.is_understanding(2).await.unwrap();
    assert_eq!(
        kept(&edge_box, "kitchen").await,
        turns,
        "half an answer is no turn"
    );
    let said = edge_box
        .say("kitchen", "and make it brighter")
        .await
        .unwrap();
    assert!(
        said.kind() == "command" && brightness(&edge_box) > 40,
        "{} {said:?}",
        brightness(&edge_box)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_conversations_do_not_mix_over_a_kill() {
    let mut edge_box = EdgeBox::running().await.unwrap();
    let to_lamp = edge_box
        .say("anna", "set the desk lamp to 40 percent")
        .await
        .unwrap();
    let to_fan = edge_box.say("ben", "set the fan to low").await.unwrap();
    assert_eq!(
        (to_lamp.kind(), to_fan.kind()),
        ("command", "command"),
        "{to_lamp:?} {to_fan:?}"
    );
    kill_and_restart(&mut edge_box).await;

    let said = edge_box.say("ben", "set it to high").await.unwrap();
    assert_eq!(
        edge_box.device("thermometer").unwrap()["fan_speed"],
        "high",
        "{said:?}"
    );
    assert_eq!(brightness(&edge_box), 40);
    let said = edge_box.say("anna", "set it to 60 percent").await.unwrap();
    assert_eq!(brightness(&edge_box), 60, "{said:?}");
    assert_eq!(edge_box.device("thermometer").unwrap()["fan_speed"], "high");

    let (anna, ben) = (kept(&edge_box, "anna").await, kept(&edge_box, "ben").await);
    assert_eq!(
        anna[..2],
        expected("set the desk lamp to 40 percent", &to_lamp)
    );
    assert_eq!(ben[..2], expected("set the fan to low", &to_fan));
    assert_eq!((anna.len(), ben.len()), (4, 4), "{anna:?} {ben:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_waits_is_answered_after_a_kill() {
    let mut edge_box = EdgeBox::new().unwrap();
    edge_box.start_bus().unwrap();
    edge_box.start_broker().unwrap();
    edge_box.start_device("lamp", &[]).unwrap();
    let ceiling = concat!(env!("CARGO_MANIFEST_DIR"), "/things/ceiling-light.json");
    edge_box
        .start_device_as("ceiling", "lamp", &["--description", ceiling])
        .unwrap();
    let link = format!(
        "[[device]]\nname = \"ceiling\"\nlinks = [\"serial://{}\"]",
        edge_box.path("ceiling").display()
    );
    edge_box.write_config(&link).unwrap();
    edge_box.start_daemon().unwrap();
    edge_box.is_understanding(2).await.unwrap();

    let which = edge_box.say("kitchen", "turn on the light").await.unwrap();
    assert_eq!(
        (which.kind(), which.executed().count()),
        ("question", 0),
        "{which:?}"
    );
    assert!(
        ["desk lamp", "ceiling light"]
            .iter()
            .all(|title| which.text().to_lowercase().contains(title)),
        "{}",
        which.text()
    );
    let how_far = edge_box.say("study", "set the desk lamp").await.unwrap();
    assert_eq!(how_far.kind(), "question", "{how_far:?}");
    kill_and_restart(&mut edge_box).await;
    assert_eq!(
        kept(&edge_box, "kitchen").await,
        expected("turn on the light", &which)
    );

    let said = edge_box.say("kitchen", "the ceiling light").await.unwrap();
    let on = |device: &str| edge_box.device(device).unwrap()["on"] == true;
    assert_eq!(
        (said.kind(), on("ceiling"), on("lamp")),
        ("command", true, false),
        "{said:?}"
    );
    let said = edge_box.say("study", "40 percent").await.unwrap();
    assert_eq!(
        (said.kind(), brightness(&edge_box)),
        ("command", 40),
        "{said:?}"
    );
}
