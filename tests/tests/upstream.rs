//! A box whose conversations may be answered elsewhere: real daemon, models and bus; the engine elsewhere is a stand-in on a real socket.

use std::io::BufRead as _;
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use autoglm_tests::edge_box::door::Said;
use autoglm_tests::edge_box::{EdgeBox, PATIENCE};
use autoglm_tests::process::program;
use autoglm_tests::stand_in_engine::{StandInEngine, answer};
use futures_util::StreamExt as _;
use serde_json::Value;

const CHAT: &str = "smollm2-135m-instruct-int4";
const QUESTION: &str = "why is the sky blue?";

/// A box with its lamp, whose chat model has an engine elsewhere.
async fn edge_box(policy: &str, url: &str, more: &str) -> EdgeBox {
    let mut edge_box = EdgeBox::new().unwrap();
    edge_box.start_bus().unwrap();
    edge_box.start_broker().unwrap();
    edge_box.start_device("lamp", &[]).unwrap();
    edge_box.start_device("thermometer", &[]).unwrap();
    edge_box
        .write_config(&format!(
            "[inference.upstream.{CHAT}]\npolicy = \"{policy}\"\nurl = \"{url}\"\nmodel = \"big\"\nfailures = 2\nrest_min_ms = 500\nrest_max_ms = 1000\n\
             [inference.adapt]\nrise_s = 1\ncpu_eased = 100\ncpu_strained = 100\nmemory_eased = 100\nmemory_strained = 100\nslower_eased = 1000\nslower_strained = 1000\n"
        ))
        .unwrap();
    edge_box
        .edit_config(|text| text.replace("[inference]\n", &format!("[inference]\n{more}\n")))
        .unwrap();
    edge_box.start_daemon().unwrap();
    edge_box.is_understanding(2).await.unwrap();
    edge_box
}

fn origin(said: &Said) -> &Value {
    &said.end()["origin"]
}

async fn upstream(edge_box: &EdgeBox) -> Value {
    edge_box.status().await.unwrap()["upstreams"][0].clone()
}

/// What a person sees who asks for the status and reads the conversation again.
fn shown(edge_box: &EdgeBox, arguments: &[&str]) -> String {
    let output = Command::new(program("autoglmctl").unwrap())
        .args(["--bus", &edge_box.bus_address()])
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_answered_elsewhere_says_so_and_an_engine_that_is_gone_is_left_alone_until_it_is_back()
 {
    let engine = StandInEngine::start(answer(&["Because ", "of Rayleigh."]))
        .await
        .unwrap();
    let edge_box = edge_box("always", &engine.url(), "bundle_upstreams = false").await;

    let said = edge_box.say("kitchen", QUESTION).await.unwrap();
    assert_eq!(said.text(), "Because of Rayleigh.", "{said:?}");
    assert_eq!(origin(&said)["place"], "upstream");
    assert_eq!(origin(&said)["url"], *engine.url());
    assert_eq!(origin(&said)["reason"], "its policy is always");
    let turns = edge_box.turns("kitchen").await.unwrap();
    assert_eq!(
        turns[1]["origin"],
        *origin(&said),
        "the stored turn says so, too"
    );
    let asked = &engine.seen()[0].body;
    assert_eq!(
        (&asked["model"], &asked["stream"]),
        (&"big".into(), &true.into())
    );
    // A command goes nowhere.
    let command = edge_box
        .say("kitchen", "turn on the desk lamp")
        .await
        .unwrap();
    assert_eq!(command.kind(), "command");
    assert!(origin(&command).is_null() && engine.seen().len() == 1);

    // Killed: answered here, and said so each time; then it is not even tried.
    let port = engine.port();
    drop(engine);
    for round in 0..3 {
        let said = edge_box.say("hall", QUESTION).await.unwrap();
        assert_eq!(
            (said.kind(), &origin(&said)["place"]),
            ("conversation", &"here".into()),
            "{said:?}"
        );
        let reason = origin(&said)["reason"].as_str().unwrap();
        assert!(reason.contains("cannot be reached"), "{reason}");
        if round == 2 {
            // Unless its rest was over by then.
            let is_open = upstream(&edge_box).await["breaker"] == "open";
            assert!(is_open && reason.contains(&port.to_string()), "{reason}");
        }
    }
    let status = shown(&edge_box, &["status"]);
    assert!(
        status.contains("upstream always") && status.contains("cannot be reached"),
        "{status}"
    );
    let sessions = shown(&edge_box, &["sessions", "show", "hall"]);
    assert!(sessions.contains("answered here by"), "{sessions}");

    // Back: one tries, and it is used again.
    let engine = StandInEngine::start_at(port, answer(&["Back."]))
        .await
        .unwrap();
    let until = Instant::now() + PATIENCE;
    loop {
        let said = edge_box.say("attic", QUESTION).await.unwrap();
        if origin(&said)["place"] == "upstream" {
            assert_eq!(said.text(), "Back.");
            break;
        }
        assert!(Instant::now() < until, "{said:?}");
    }
    let status = upstream(&edge_box).await;
    assert_eq!(
        (&status["breaker"], engine.seen().len()),
        (&"closed".into(), 1),
        "{status}"
    );
    let chat = shown(&edge_box, &["chat", "--session", "attic", QUESTION]);
    assert!(
        chat.contains("Back.") && chat.contains("answered by big at http://127.0.0.1"),
        "{chat}"
    );
}

/// Many people, each in a session of their own, who all listen.
struct Crowd {
    size: usize,
    events: Sender<Value>,
    heard: Receiver<Value>,
}

impl Crowd {
    /// One more says it, and again one more, until somebody hears what is looked for.
    async fn grow_until(
        &mut self,
        edge_box: &EdgeBox,
        what: &str,
        is_so: impl Fn(&Value) -> bool,
    ) -> Value {
        for _ in 0..200 {
            self.size += 1;
            let answer = edge_box
                .begin_to_say(&format!("s{}", self.size), "tell me a long story")
                .await
                .unwrap();
            let events = self.events.clone();
            std::thread::spawn(move || {
                for line in answer.lines().map_while(Result::ok) {
                    let _ = events.send(serde_json::from_str(&line).unwrap());
                }
            });
            tokio::time::sleep(Duration::from_millis(200)).await;
            if let Some(event) = self.heard.try_iter().find(&is_so) {
                return event;
            }
        }
        panic!("nobody heard {what}: {}", edge_box.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overloaded_box_hands_over_and_says_why() {
    let engine = StandInEngine::start(answer(&["Elsewhere."])).await.unwrap();
    let limits = "chat_sessions = 1\nanswer_tokens_max = 1500";
    let edge_box = edge_box("when-overloaded", &engine.url(), limits).await;
    let (events, heard) = channel();
    let mut crowd = Crowd {
        size: 0,
        events,
        heard,
    };
    let there = |event: &Value| event["origin"]["place"] == "upstream";
    let event = crowd
        .grow_until(&edge_box, "an answer from elsewhere", there)
        .await;
    assert!(crowd.size > 1, "while there is room it stays here");
    assert_eq!(event["text"], "Elsewhere.");
    let reason = event["origin"]["reason"].as_str().unwrap();
    assert!(reason.contains("overloaded"), "{event}");
    // Who comes now is refused here as well, and so the box counts as strained: that is announced, and where answers are made says it.
    let manager = edge_box.manager().await.unwrap();
    let mut announced = manager.receive_strain_changed().await;
    let strained = |event: &Value| {
        let reason = event["origin"]["reason"].as_str().unwrap_or_default();
        reason.starts_with("the box is strained: ")
    };
    let event = crowd
        .grow_until(&edge_box, "that the box is strained", strained)
        .await;
    let reason = event["origin"]["reason"].as_str().unwrap();
    assert!(reason.contains("conversations refused"), "{event}");
    let level = async {
        while let Some(change) = announced.next().await {
            if change.get().await.unwrap() == "strained" {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, level)
        .await
        .expect("the level is announced");
    let why = manager.strain_reason().await.unwrap();
    assert!(reason.ends_with(&why), "{reason:?} and {why:?}");
    let status = shown(&edge_box, &["status"]);
    assert!(
        status.contains("strain   strained: ") && status.contains("background work rests"),
        "{status}"
    );
    // Without the engine the box says what is wrong with both.
    drop(engine);
    let failed = |event: &Value| event["event"] == "failed";
    let event = crowd.grow_until(&edge_box, "a refusal", failed).await;
    assert_eq!(event["error"], "ModelUnavailable");
    let message = event["message"].as_str().unwrap();
    assert!(
        message.contains("overloaded") && message.contains("cannot be reached"),
        "{message}"
    );
}
