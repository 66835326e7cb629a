//! `autoglmctl` as a process, on a private bus that a real dbus-daemon serves.
//!
//! The far side is a *stand-in* for the daemon ([`stand_in`]): it exports the same interfaces and answers as a script says, so
//! that pipes, errors and interruptions can be brought about at will. What the real daemon answers is tested end to end elsewhere.

mod stand_in;

use std::process::Stdio;

use serde_json::{Value as Json, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

use stand_in::{Bus, HANG, finish, serve};

#[tokio::test(flavor = "multi_thread")]
async fn typed_pairs_reach_the_daemon_as_the_schemas_types() {
    let bus = Bus::start().await;
    let _daemon = serve(&bus).await;
    let args = [
        "--json",
        "--timeout",
        "1.5",
        "invoke",
        "desk LAMP",
        "set_brightness",
        "level=40",
        "on=off",
        "--id",
        "a-1",
    ];
    let run = bus.run(&args).await;
    assert_eq!(run.code, Some(0), "{run:?}");
    let json = run.json();
    assert_eq!(json["version"], 1);
    let output = &json["result"]["output"];
    assert_eq!(output["thing"], "urn:lamp-1");
    assert_eq!(
        output["options"],
        json!({"input": {"level": 40, "on": false}, "id": "a-1", "deadline-ms": 1500})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn things_are_listed_by_title_with_what_they_offer() {
    let bus = Bus::start().await;
    let _daemon = serve(&bus).await;
    let run = bus.run(&["things"]).await;
    assert_eq!(
        run.out,
        "THING      ID          STATE   LINK\nDesk lamp  urn:lamp-1  online  bench\nFan        urn:fan-1   online  bench\n"
    );
    let run = bus.run(&["things", "fan"]).await;
    assert!(
        run.out
            .contains("level            40 percent  integer, 0 to 100 percent  read, write"),
        "{run:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_daemon_has_its_number_its_words_and_a_hint() {
    let bus = Bus::start().await;
    let _daemon = serve(&bus).await;
    let run = bus.run(&["invoke", "Desk lamp", "turn_off"]).await;
    assert_eq!((run.code, run.out.as_str()), (Some(6), ""), "{run:?}");
    assert_eq!(
        run.err,
        "error: Desk lamp is not connected\nhint: `autoglmctl links` shows why\n"
    );
    let run = bus.run(&["--json", "invoke", "Desk lmp", "turn_off"]).await;
    assert_eq!(run.code, Some(4), "{run:?}");
    let error: Json = serde_json::from_str(&run.err).unwrap();
    assert_eq!(
        (&error["version"], &error["error"]["code"]),
        (&json!(1), &json!(4))
    );
    assert_eq!(error["error"]["hint"], "did you mean \"Desk lamp\"?");
    assert_eq!(
        bus.run(&["chat", "--session", "busy", "lamp"]).await.code,
        Some(8)
    );
    let run = bus.run(&["sessions", "show", "kitchn"]).await;
    assert_eq!(run.code, Some(4), "{run:?}");
    assert!(run.err.contains("did you mean \"kitchen\"?"), "{run:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_that_the_daemon_does_not_know_is_a_matter_of_versions() {
    let bus = Bus::start().await;
    let _daemon = serve(&bus).await;
    let run = bus.run(&["read", "Fan", "level"]).await;
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.err.contains("different versions"), "{run:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_daemon_or_a_bus_it_says_what_is_not_there() {
    let bus = Bus::start().await;
    let run = bus.run(&["status"]).await;
    assert_eq!(run.code, Some(3), "{run:?}");
    assert!(
        run.err
            .starts_with("error: the daemon is not running on the bus at unix:"),
        "{run:?}"
    );
    assert!(
        run.err.contains("hint: `systemctl start autoglm-edged`"),
        "{run:?}"
    );
    let run = bus
        .run(&["--bus", "unix:path=/nowhere/at/all", "status"])
        .await;
    assert_eq!(run.code, Some(3), "{run:?}");
    assert!(
        run.err
            .starts_with("error: cannot reach the bus at unix:path=/nowhere/at/all\n  caused by: "),
        "{run:?}"
    );
    let run = bus.run(&["--bus", "nonsense", "status"]).await;
    assert_eq!(run.code, Some(2), "{run:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_shown_as_it_comes_and_cannot_drive_the_terminal() {
    let bus = Bus::start().await;
    let daemon = serve(&bus).await;
    let mut child = bus.ctl(&["chat", "talk"]).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    tokio::time::timeout(HANG, out.read_line(&mut first))
        .await
        .expect("the first line comes before the answer's end")
        .unwrap();
    assert_eq!(first, "Hel\u{fffd}lo\n");
    daemon.go_on.send(()).unwrap();
    let mut rest = String::new();
    out.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "World\n");
    assert_eq!(finish(child).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_during_an_answer_closes_the_pipe() {
    let bus = Bus::start().await;
    let daemon = serve(&bus).await;
    let mut child = bus.ctl(&["chat", "forever"]).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).await.unwrap();
    assert_eq!(line, "and on\n");
    // Who interrupts reads on: the process may wait for room in our pipe.
    let drained =
        tokio::spawn(async move { tokio::io::copy(&mut out, &mut tokio::io::sink()).await });
    let pid = child.id().unwrap().to_string();
    let sent = Command::new("sh")
        .args(["-c", "kill -INT \"$0\"", &pid])
        .status()
        .await
        .unwrap();
    assert!(sent.success());
    let run = finish(child).await;
    assert_eq!(run.code, Some(130), "{run:?}");
    assert_eq!(run.err, "stopped\n");
    daemon
        .closed
        .recv_timeout(HANG)
        .expect("the stand-in sees its pipe closed");
    drained.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_go_to_standard_output_and_calls_beside_them() {
    let bus = Bus::start().await;
    let _daemon = serve(&bus).await;
    let run = bus.run(&["chat", "lamp"]).await;
    assert_eq!((run.code, run.out.as_str()), (Some(0), "The lamp is on.\n"));
    assert_eq!(run.err, "→ Desk lamp: turn_on\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_answer_came_to_is_the_exit_code() {
    let bus = Bus::start().await;
    let _daemon = serve(&bus).await;
    for (text, code) in [("away", 6), ("which", 9), ("loading", 8), ("vanish", 3)] {
        let run = bus.run(&["chat", text]).await;
        assert_eq!(run.code, Some(code), "{text}: {run:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_from_a_pipe_are_said_one_by_one_and_the_first_failure_is_the_exit_code() {
    let bus = Bus::start().await;
    let _daemon = serve(&bus).await;
    let mut child = bus
        .ctl(&["--json", "chat", "--session", "s1"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all(b"lamp\n\n  which \nloading\nlamp")
        .await
        .unwrap();
    drop(stdin);
    let run = finish(child).await;
    assert_eq!(run.code, Some(9), "{run:?}");
    let events: Vec<Json> = run
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let names: Vec<&str> = events
        .iter()
        .map(|event| event["event"].as_str().unwrap())
        .collect();
    let lamp = ["understood", "executed", "done"];
    assert_eq!(
        names,
        [
            &lamp[..],
            &["understood", "done"],
            &["understood", "failed"],
            &lamp[..]
        ]
        .concat()
    );
    assert!(
        events
            .iter()
            .all(|event| event["version"] == 1 && event["session"] == "s1")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_color_wins_over_a_forced_colour_and_an_option_over_both() {
    let bus = Bus::start().await;
    let _daemon = serve(&bus).await;
    let colours = async |args: &[&str], no_color: bool| {
        let mut command = bus.ctl(args);
        command.env("CLICOLOR_FORCE", "1");
        if no_color {
            command.env("NO_COLOR", "1");
        }
        finish(command.spawn().unwrap())
            .await
            .out
            .contains('\u{1b}')
    };
    assert!(colours(&["things"], false).await);
    assert!(!colours(&["things"], true).await);
    assert!(colours(&["things", "--color", "always"], true).await);
    assert!(!colours(&["things", "--color", "never"], false).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_who_went_away_is_success() {
    let bus = Bus::start().await;
    let _daemon = serve(&bus).await;
    for args in [
        &["things"][..],
        &["completions", "bash"],
        &["--json", "chat", "forever"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let run = finish(bus.ctl(args).stdout(writer).spawn().unwrap()).await;
        assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wait_ends_when_the_daemon_comes_or_the_time_is_up() {
    let bus = Bus::start().await;
    let run = bus.run(&["wait", "--timeout", "100ms"]).await;
    assert_eq!(run.code, Some(3), "{run:?}");
    let waiting = bus
        .ctl(&["wait", "--timeout", "60", "--thing", "fan"])
        .spawn()
        .unwrap();
    let _daemon = serve(&bus).await;
    let run = finish(waiting).await;
    assert_eq!((run.code, run.err.as_str()), (Some(0), "ready\n"));
    let run = bus
        .run(&["wait", "--timeout", "100ms", "--thing", "boiler"])
        .await;
    assert_eq!(run.code, Some(8), "{run:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_made_without_a_daemon_and_what_is_secret_is_never_printed() {
    let bus = Bus::start().await;
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (psk, pair) = (path("desk.key"), path("box.key"));
    let run = bus.run(&["key", "new", &psk]).await;
    assert_eq!((run.code, run.out.as_str()), (Some(0), ""), "{run:?}");
    let made = std::fs::read_to_string(&psk).unwrap();
    let digits = made.trim().strip_prefix("psk:").unwrap();
    assert!(digits.len() == 64 && !run.err.contains(&digits[..8]));

    let run = bus.run(&["key", "pair", &pair]).await;
    let public = run.out.trim().to_owned();
    let private = std::fs::read_to_string(&pair).unwrap();
    assert_eq!((run.code, public.len()), (Some(0), 64), "{run:?}");
    assert!(!private.contains(&public));
    let run = bus.run(&["--json", "key", "public", &pair]).await;
    assert_eq!(run.json()["key"]["public"], public);

    let run = bus.run(&["key", "new", &psk]).await;
    assert_eq!(run.code, Some(2), "a key is never overwritten: {run:?}");
    assert_eq!(std::fs::read_to_string(&psk).unwrap(), made);
    let run = bus.run(&["key", "public", &psk]).await;
    assert_eq!(
        run.code,
        Some(2),
        "a shared key has no public half: {run:?}"
    );
    assert!(!run.err.contains(&digits[..8]), "{run:?}");
}
