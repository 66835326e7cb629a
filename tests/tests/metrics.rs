//! The door for Prometheus, asked over a real socket and read by Prometheus' own parser.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use autoglm_tests::{
    edge_box::{EdgeBox, PATIENCE, cache},
    process::newest,
};
use serde_json::Value;

/// A port that nobody has now.
fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// Head and body of the answer.
fn asked(address: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nHost: box\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

fn parsed(text: &str) -> Vec<Value> {
    let tools = newest(&cache().unwrap().join("test-tools"))
        .expect("run `python3 models/setup.py test-tools` (make test does)");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("support/read_metrics.py");
    let mut reader = Command::new("python3")
        .arg(script)
        .env("PYTHONPATH", tools)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = reader.stdin.take().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    let output = reader.wait_with_output().unwrap();
    assert!(output.status.success(), "not OpenMetrics:\n{text}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn value(samples: &[Value], name: &str, labels: &[(&str, &str)]) -> f64 {
    let is_it = |sample: &&Value| {
        sample["name"] == name && labels.iter().all(|(key, of)| sample["labels"][key] == *of)
    };
    let found: Vec<&Value> = samples.iter().filter(is_it).collect();
    assert_eq!(found.len(), 1, "{name} {labels:?}: {found:?}");
    found[0]["value"].as_f64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_reads_what_the_box_did_and_nobody_who_lingers_keeps_it_from_that() {
    const CHAT: (&str, &str) = ("model", "smollm2-135m-instruct-int4");
    let address = free_port();
    let mut edge_box = EdgeBox::new().unwrap();
    edge_box.start_bus().unwrap();
    edge_box.start_broker().unwrap();
    edge_box.start_device("lamp", &[]).unwrap();
    edge_box.start_device("thermometer", &[]).unwrap();
    let table = format!("[metrics]\nlisten = \"{address}\"\n");
    edge_box.write_config(&table).unwrap();
    edge_box.start_daemon().unwrap();
    edge_box.is_understanding(2).await.unwrap();
    let said = edge_box.say("hall", "why is the sky blue?").await.unwrap();
    assert_eq!(said.kind(), "conversation");

    let (head, text) = asked(address, "GET /metrics");
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("openmetrics-text; version=1.0.0"));
    let samples = parsed(&text);
    assert_eq!(value(&samples, "autoglm_store_ready", &[]), 1.0);
    let ready = value(&samples, "autoglm_model_state", &[CHAT, ("state", "ready")]);
    assert_eq!(ready, 1.0);
    let on_cpu = [CHAT, ("provider", "CPU"), ("fallback", "false")];
    assert_eq!(value(&samples, "autoglm_model_serving", &on_cpu), 1.0);
    assert!(value(&samples, "autoglm_model_load_seconds", &[CHAT]) > 0.0);
    let answered = ("outcome", "answered");
    assert_eq!(
        value(&samples, "autoglm_chat_answers_total", &[answered]),
        1.0
    );
    assert!(value(&samples, "autoglm_chat_tokens_total", &[("kind", "drawn")]) > 0.0);
    assert_eq!(
        value(&samples, "autoglm_things", &[("state", "online")]),
        2.0
    );
    let lamp = ("device", "lamp");
    assert_eq!(value(&samples, "autoglm_link_connected", &[lamp]), 1.0);
    assert_eq!(value(&samples, "autoglm_fleet_connected", &[]), 1.0);
    assert!(!text.contains("sky"), "what was said is nobody's number");

    for (request, status) in [
        ("GET /", "404"),
        ("POST /metrics", "405"),
        ("HEAD /metrics", "200"),
    ] {
        let (head, _) = asked(address, request);
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status}")),
            "{request}: {head}"
        );
    }

    // All places taken by who says nothing: they are sent away, and then it is our turn.
    let lingering: Vec<TcpStream> = (0..4)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    let (head, _) = asked(address, "GET /metrics");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    drop(lingering);

    // Links are counted from time to time, and one whose device leaves is seen to have lost it.
    let until_so = async |what: &str, is_so: &dyn Fn(&[Value]) -> bool| {
        let until = Instant::now() + PATIENCE;
        while !is_so(&parsed(&asked(address, "GET /metrics").1)) {
            assert!(Instant::now() < until, "waited in vain for {what}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let sent = [lamp, ("direction", "sent")];
    until_so("bytes", &|samples| {
        value(samples, "autoglm_link_bytes_total", &sent) > 0.0
    })
    .await;
    edge_box.pull_device("lamp");
    until_so("the lamp's end", &|samples| {
        value(samples, "autoglm_link_connected", &[lamp]) == 0.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_said_and_had_later_and_one_for_all_the_world_is_refused() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut edge_box = EdgeBox::new().unwrap();
    edge_box.start_bus().unwrap();
    let table = format!("[metrics]\nlisten = \"{address}\"\n");
    edge_box.write_config(&table).unwrap();
    edge_box.start_daemon().unwrap();
    edge_box
        .wait_for_status("the daemon", |_| true)
        .await
        .unwrap();
    assert!(edge_box.log().contains("metrics.listen cannot be had"));
    drop(taken);
    let until = Instant::now() + PATIENCE;
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < until, "{}", edge_box.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(asked(address, "GET /metrics").1.ends_with("# EOF\n"));

    let edge_box = EdgeBox::new().unwrap();
    edge_box
        .write_config("[metrics]\nlisten = \"0.0.0.0:9477\"\n")
        .unwrap();
    let command = edge_box.daemon_command().unwrap();
    let (status, words) = edge_box.daemon_refuses(command).unwrap();
    assert!(
        !status.success()
            && words.contains("metrics.listen = \"0.0.0.0:9477\": must be a port of this machine"),
        "{words}"
    );
}
