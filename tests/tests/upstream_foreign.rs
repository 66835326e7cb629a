//! Conversations that are answered by engines that nobody here wrote, with a real model: llama.cpp's server over its OpenAI-compatible API,
//! and MLServer over the Open Inference Protocol.
//! What no good engine does is in `upstream_engine`.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};

use autoglm_edge::inference::{
    chat::{ChatEvent, ChatMessage, ChatRequest, Finish, Form, Role},
    upstream::Place,
};
use autoglm_tests::{
    edge_box::{EdgeBox, PATIENCE, cache},
    no_models::dispatcher,
    process::newest,
};
use serde_json::{Value, json};

const CHAT: &str = "smollm2-135m-instruct-int4";
const KEY: &str = "a-key-of-the-tests";

/// A server in a process of its own, killed when it is dropped.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    /// llama.cpp's own.
    fn llama(port: u16, key: &str) -> Self {
        Self::start("llama_server.py", &[&port.to_string(), key])
    }

    fn start(script: &str, arguments: &[&str]) -> Self {
        let cache = cache().unwrap();
        let advice = "run `python3 models/setup.py test-tools` (make test does)";
        let tools = newest(&cache.join("test-tools")).expect(advice);
        let model = cache.join("peer-tools/smollm2-135m-instruct-q4_1/model.gguf");
        assert!(model.is_file(), "{advice}");
        let support = Path::new(env!("CARGO_MANIFEST_DIR")).join("support");
        let mut process = Command::new("python3")
            .arg(support.join(script))
            .arg(model)
            .args(arguments)
            .env("PYTHONPATH", tools)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let url = BufReader::new(process.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok)
            .find(|line| line.starts_with("http://127.0.0.1:"))
            .expect("it says where it is to be found");
        Self { process, url }
    }

    fn port(&self) -> u16 {
        self.url.rsplit(':').next().unwrap().parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn key_file(directory: &Path, key: &str) -> PathBuf {
    use std::{fs, os::unix::fs::PermissionsExt as _};
    let path = directory.join("engine.key");
    fs::write(&path, format!("{key}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn table(url: &str, key_file: &Path) -> String {
    format!(
        "[inference.upstream.{CHAT}]\npolicy = \"always\"\nurl = \"{url}\"\nmodel = \"smollm2\"\nkey_file = {key_file:?}\n\
         rest_min_ms = 200\nrest_max_ms = 400\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn llama_cpp_answers_a_box_and_where_it_is_gone_or_refuses_the_box_does_and_says_why() {
    const QUESTION: &str = "What is the capital of Japan?";
    let llama = Server::llama(0, KEY);
    let mut edge_box = EdgeBox::new().unwrap();
    edge_box.start_bus().unwrap();
    edge_box.start_broker().unwrap();
    let key = key_file(&edge_box.path(""), KEY);
    edge_box.write_config(&table(&llama.url, &key)).unwrap();
    edge_box.start_daemon().unwrap();
    edge_box.is_understanding(0).await.unwrap();

    let said = edge_box.say("kitchen", QUESTION).await.unwrap();
    let origin = &said.end()["origin"];
    assert_eq!(
        (&origin["place"], &origin["url"], &origin["model"]),
        (&json!("upstream"), &json!(llama.url), &json!("smollm2")),
        "{said:?}"
    );
    assert!(said.text().contains("Tokyo"), "{said:?}");
    // It knows what was said before.
    let again = edge_box
        .say("kitchen", "Repeat the name of that city.")
        .await
        .unwrap();
    assert_eq!(again.end()["origin"]["place"], "upstream", "{again:?}");
    assert!(again.text().contains("Tokyo"), "{again:?}");

    let port = llama.port();
    drop(llama);
    let said = edge_box.say("hall", QUESTION).await.unwrap();
    let origin = &said.end()["origin"];
    assert_eq!(origin["place"], "here", "{said:?}");
    assert!(said.text().contains("Tokyo"), "{said:?}");

    // Back, with another key: told, and answered here.
    let strict = Server::llama(port, "another-key");
    let until = Instant::now() + PATIENCE;
    loop {
        let said = edge_box.say("hall", QUESTION).await.unwrap();
        let origin = said.end()["origin"].clone();
        assert_eq!(origin["place"], "here", "{said:?}");
        if origin["reason"].as_str().unwrap().contains("401") {
            break;
        }
        assert!(Instant::now() < until, "{origin}");
    }
    drop(strict);
    let _llama = Server::llama(port, KEY);
    let until = Instant::now() + PATIENCE;
    while edge_box.say("attic", QUESTION).await.unwrap().end()["origin"]["place"] != "upstream" {
        assert!(Instant::now() < until);
    }
    assert!(!edge_box.log().contains(KEY), "the key is in the log");
}

#[tokio::test]
async fn llama_cpp_keeps_to_a_schema_a_stop_string_and_a_limit_that_are_passed_on() {
    let llama = Server::llama(0, KEY);
    let directory = tempfile::tempdir().unwrap();
    let key = key_file(directory.path(), KEY);
    let table = table(&llama.url, &key);
    let (_inference, dispatcher) = dispatcher(directory.path(), CHAT, &table).unwrap();
    let ask = async |content: &str, change: &dyn Fn(&mut ChatRequest)| {
        let role = Role::User;
        let content = content.to_owned();
        let mut request = ChatRequest::new(vec![ChatMessage { role, content }], 60);
        change(&mut request);
        let mut answer = dispatcher.ask(request).await.unwrap();
        assert!(matches!(&answer.origin().place, Place::Upstream { .. }));
        let mut text = String::new();
        loop {
            match answer.next().await {
                Some(ChatEvent::Delta(piece)) => text.push_str(&piece),
                Some(ChatEvent::Done { usage, finish, .. }) => return (text, usage, finish),
                other => panic!("{other:?}"),
            }
        }
    };

    let schema = json!({"type": "object", "properties": {
        "room": {"enum": ["kitchen", "hall"]}, "level": {"type": "integer"}},
        "required": ["room", "level"], "additionalProperties": false});
    let form = Form::JsonSchema(schema);
    let (text, usage, finish) = ask("Set the kitchen to level 3.", &|request| {
        request.form = Some(form.clone());
    })
    .await;
    let value: Value = serde_json::from_str(&text).unwrap();
    assert!(
        value["room"].is_string() && value["level"].is_i64(),
        "{text}"
    );
    assert_eq!(finish, Finish::EndOfTurn);
    assert!(
        usage.prompt_tokens > 10 && usage.answer_tokens > 5,
        "{usage:?}"
    );

    let (text, ..) = ask("Count from one to nine in digits.", &|request| {
        request.stop = vec!["5".into()];
    })
    .await;
    assert!(!text.contains('5'), "{text}");

    let (_, usage, finish) = ask("Tell me a long story.", &|request| request.max_tokens = 7).await;
    assert_eq!((usage.answer_tokens, finish), (7, Finish::MaxTokens));
}

#[tokio::test]
async fn mlserver_answers_over_the_open_inference_protocol_word_by_word_and_at_once() {
    let server = Server::start("mlserver_llama.py", &[]);
    let directory = tempfile::tempdir().unwrap();
    for (endpoint, least_pieces) in [("infer_stream", 2), ("infer", 1)] {
        let table = format!(
            "[inference.upstream.{CHAT}]\npolicy = \"always\"\nurl = \"{}\"\nmodel = \"smollm2\"\nprotocol = \"kserve\"\n\
             [inference.upstream.{CHAT}.kserve]\nendpoint = \"{endpoint}\"\ninput = \"prompt\"\noutput = \"answer\"\n",
            server.url
        );
        let state = directory.path().join(endpoint);
        std::fs::create_dir(&state).unwrap();
        let (_inference, dispatcher) = dispatcher(&state, CHAT, &table).unwrap();
        let role = Role::User;
        let content = "What is the capital of Japan?".to_owned();
        let request = ChatRequest::new(vec![ChatMessage { role, content }], 40);
        let mut answer = dispatcher.ask(request).await.unwrap();
        let origin = answer.origin().clone();
        assert!(matches!(origin.place, Place::Upstream { .. }), "{origin:?}");
        let (mut text, mut pieces) = (String::new(), 0);
        loop {
            match answer.next().await {
                Some(ChatEvent::Delta(piece)) => {
                    text.push_str(&piece);
                    pieces += 1;
                }
                Some(ChatEvent::Done { .. }) => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(text.contains("Tokyo"), "{endpoint}: {text}");
        assert!(pieces >= least_pieces, "{endpoint}: {pieces} pieces");
    }
}
