//! `autoglmctl` against the real daemon: what it prints, the JSON that it promises, and the exit codes that scripts rely on
//! (`daemon/src/cli/exit.rs`).

use std::io::Write as _;
use std::process::{Command, Stdio};

use autoglm_tests::edge_box::{EdgeBox, LAMP};
use autoglm_tests::process::program;
use serde_json::{Value, json};

/// How a run ended and what it printed.
#[derive(Debug)]
struct Run {
    code: i32,
    out: String,
    error: String,
}

impl Run {
    fn json(&self) -> Value {
        let json: Value =
            serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        assert_eq!(json["version"], 1, "{self:?}");
        json
    }
}

fn command(edge_box: &EdgeBox, arguments: &[&str]) -> Command {
    let mut command = Command::new(program("autoglmctl").unwrap());
    command
        .args(["--bus", &edge_box.bus_address()])
        .args(arguments);
    command
        .env_remove("AUTOGLM_SESSION")
        .env_remove("AUTOGLM_BUS")
        .stdin(Stdio::null());
    command
}

fn run(edge_box: &EdgeBox, arguments: &[&str]) -> Run {
    finished(command(edge_box, arguments).output().unwrap())
}

/// With sentences on standard input.
fn piped(edge_box: &EdgeBox, arguments: &[&str], input: &str) -> Run {
    let mut command = command(edge_box, arguments);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    finished(child.wait_with_output().unwrap())
}

fn finished(output: std::process::Output) -> Run {
    Run {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        error: String::from_utf8(output.stderr).unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_sees_the_box_commands_it_and_talks_to_it() {
    let edge_box = EdgeBox::running().await.unwrap();
    let waited = run(
        &edge_box,
        &["wait", "--thing", "Desk lamp", "--timeout", "60"],
    );
    assert_eq!(waited.code, 0, "{waited:?}");

    let status = run(&edge_box, &["status"]);
    assert_eq!(status.code, 0, "{status:?}");
    for part in [
        "test-box",
        "lamp",
        "thermometer",
        "all-minilm-l6-v2-int8",
        "ready",
        "connected",
    ] {
        assert!(status.out.contains(part), "{part}: {status:?}");
    }
    let things = run(&edge_box, &["things"]);
    assert!(
        things.code == 0 && things.out.contains("Desk lamp") && things.out.contains(LAMP),
        "{things:?}"
    );
    let lamp = run(&edge_box, &["things", "desk lamp"]);
    assert!(
        lamp.code == 0 && lamp.out.contains("set_brightness") && lamp.out.contains("brightness"),
        "{lamp:?}"
    );

    for (input, level) in [
        (&["level=40"][..], 40),
        (&["{\"level\": 41}"], 41),
        (&["42"], 42),
    ] {
        let invoked = run(
            &edge_box,
            &[&["invoke", "Desk lamp", "set_brightness"], input].concat(),
        );
        assert_eq!(
            (
                invoked.code,
                &edge_box.device("lamp").unwrap()["brightness"]
            ),
            (0, &json!(level)),
            "{invoked:?}"
        );
    }
    let read = run(&edge_box, &["read", "Desk lamp", "brightness"]);
    assert!(read.code == 0 && read.out.contains("42"), "{read:?}");

    let chat = piped(
        &edge_box,
        &["chat"],
        "set the desk lamp to 60 percent\n\nand make it brighter\n",
    );
    assert_eq!(chat.code, 0, "{chat:?}");
    assert!(chat.out.contains("60"), "{chat:?}");
    assert!(
        edge_box.device("lamp").unwrap()["brightness"]
            .as_i64()
            .unwrap()
            > 60,
        "{chat:?}"
    );

    let sessions = run(&edge_box, &["sessions"]);
    assert!(
        sessions.code == 0 && sessions.out.contains("cli"),
        "{sessions:?}"
    );
    let turns = run(&edge_box, &["sessions", "show", "cli"]);
    assert!(
        turns.code == 0 && turns.out.contains("and make it brighter"),
        "{turns:?}"
    );
    assert_eq!(run(&edge_box, &["sessions", "delete", "cli"]).code, 0);
    assert_eq!(
        run(&edge_box, &["sessions", "delete", "cli"]).code,
        4,
        "there is none any more"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_gets_the_json_that_the_help_promises() {
    let edge_box = EdgeBox::running().await.unwrap();
    let json = |arguments: &[&str]| {
        let run = run(&edge_box, &[&["--json"], arguments].concat());
        assert_eq!(run.code, 0, "{run:?}");
        run.json()
    };
    assert_eq!(json(&["status"])["status"]["things"]["online"], 2);
    assert_eq!(json(&["things"])["things"].as_array().unwrap().len(), 2);
    assert_eq!(json(&["things", LAMP])["thing"]["id"], LAMP);
    assert_eq!(json(&["links"])["links"].as_array().unwrap().len(), 2);
    let models = json(&["models"])["models"].clone();
    let tasks: Vec<&str> = models
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|model| model["task"].as_str())
        .collect();
    for task in ["embedding", "chat", "vad"] {
        assert!(tasks.contains(&task), "{models}");
    }
    assert_eq!(json(&["models", "providers"])["providers"], json!([]));
    let probe = json(&["models", "probe", "silero-vad"]);
    assert_eq!(
        probe["probe"]["provider"], "CPU",
        "nobody wants another: {probe}"
    );
    let result = json(&["invoke", LAMP, "set_brightness", "level=40"]);
    assert!(
        result["result"]["timings_us"]["total"].as_u64().unwrap() > 0,
        "{result}"
    );
    assert_eq!(json(&["read", LAMP, "brightness"])["result"]["output"], 40);

    let chat = piped(
        &edge_box,
        &["--json", "chat", "--session", "script"],
        "set the desk lamp to 60 percent\nwhy is the sky blue?\n",
    );
    assert_eq!(chat.code, 0, "{chat:?}");
    let events: Vec<Value> = chat
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        events
            .iter()
            .all(|event| event["version"] == 1 && event["session"] == "script"),
        "{events:?}"
    );
    let kinds: Vec<&Value> = events
        .iter()
        .filter(|event| event["event"] == "done")
        .map(|event| &event["kind"])
        .collect();
    assert_eq!(kinds, ["command", "conversation"], "{events:?}");
    assert!(
        events.iter().any(|event| event["event"] == "delta"),
        "{events:?}"
    );

    assert_eq!(json(&["sessions"])["sessions"][0]["id"], "script");
    let turns = json(&["sessions", "show", "script"]);
    assert_eq!(turns["turns"].as_array().unwrap().len(), 4, "{turns}");
    assert!(
        json(&["sessions", "delete", "script"])
            .get("deleted")
            .is_some()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_failure_has_its_exit_code_and_names_its_culprit() {
    let mut edge_box = EdgeBox::running().await.unwrap();
    for (arguments, code, culprit) in [
        (&["invoke"][..], 2, "THING"),
        (&["frobnicate"], 2, "frobnicate"),
        (&["chat", "--session", "a b", "hello"], 2, "a b"),
        (&["things", "dek lamp"], 4, "Desk lamp"),
        (&["invoke", "Desk lamp", "turn_in"], 4, "turn_on"),
        (&["read", "Desk lamp", "colour"], 4, "colour"),
        (&["sessions", "show", "nobody"], 4, "nobody"),
        (
            &["invoke", "Desk lamp", "set_brightness", "level=400"],
            5,
            "400",
        ),
        (
            &["invoke", "Desk lamp", "set_brightness", "level=much"],
            5,
            "much",
        ),
        (&["chat", "set the desk lamp"], 9, ""),
        (&["chat", "set the desk lamp to 400 percent"], 10, ""),
    ] {
        let run = run(&edge_box, arguments);
        assert_eq!(run.code, code, "{arguments:?}: {run:?}");
        assert!(
            run.error.contains(culprit),
            "{arguments:?} names {culprit:?}: {run:?}"
        );
    }
    assert_eq!(edge_box.device("lamp").unwrap()["executed"], 0);

    let failed = run(
        &edge_box,
        &["--json", "invoke", LAMP, "set_brightness", "level=400"],
    );
    let told: Value =
        serde_json::from_str(&failed.error).unwrap_or_else(|error| panic!("{error}: {failed:?}"));
    assert_eq!(
        (failed.code, failed.out.as_str(), &told["error"]["code"]),
        (5, "", &json!(5)),
        "{told}"
    );

    edge_box.pull_device("lamp");
    edge_box
        .wait_for_status("the lamp to be gone", |status| {
            status["things"]["online"] == 1
        })
        .await
        .unwrap();
    let away = run(&edge_box, &["invoke", "Desk lamp", "turn_on"]);
    assert!(
        away.code == 6 && away.error.contains("not connected"),
        "{away:?}"
    );

    edge_box.daemon().unwrap().kill();
    let gone = run(&edge_box, &["status"]);
    assert!(
        gone.code == 3 && gone.error.contains("not running"),
        "{gone:?}"
    );
    edge_box.stop_bus();
    let no_bus = run(&edge_box, &["status"]);
    assert!(
        no_bus.code == 3
            && no_bus
                .error
                .contains(edge_box.path("bus").to_str().unwrap()),
        "{no_bus:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_model_a_sentence_ends_with_the_code_for_unavailable() {
    let mut edge_box = EdgeBox::new().unwrap();
    edge_box.start_bus().unwrap();
    edge_box.start_device("lamp", &[]).unwrap();
    edge_box.write_config("").unwrap();
    let models = edge_box.cache().join("models").display().to_string();
    edge_box
        .edit_config(|config| config.replace(&models, "/nonexistent"))
        .unwrap();
    edge_box.start_daemon().unwrap();
    edge_box
        .wait_for_status("the lamp", |status| status["things"]["online"] == 1)
        .await
        .unwrap();
    let said = run(&edge_box, &["chat", "turn on the desk lamp"]);
    assert!(
        said.code == 8 && said.error.contains("/nonexistent/all-minilm-l6-v2-int8"),
        "{said:?}"
    );
    assert_eq!(run(&edge_box, &["invoke", "Desk lamp", "turn_on"]).code, 0);
}
