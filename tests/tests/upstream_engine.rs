//! What becomes of a conversation that goes elsewhere, by what the engine there does: everything over real sockets, against a stand-in that
//! plays the engine, also the parts that no good engine plays. No model is needed here: the one of this box is missing.

use std::time::{Duration, Instant};

use autoglm_edge::inference::Inference;
use autoglm_edge::inference::chat::{ChatEvent, ChatMessage, ChatRequest, Finish, Role, Usage};
use autoglm_edge::inference::error::InferenceError;
use autoglm_edge::inference::upstream::{Answer, Dispatcher, Place, UpstreamError};
use autoglm_tests::no_models::dispatcher;
use autoglm_tests::pki::{Authority, Valid};
use autoglm_tests::stand_in_engine::{
    Act, StandInEngine, answer, body_end, chunk, event, finish, head, piece, refusal, stream_head,
};
use serde_json::json;
use tempfile::TempDir;

const CHAT: &str = "no-such-model";

/// A box without models, and an engine elsewhere.
struct Site {
    directory: TempDir,
    _inference: Inference,
    dispatcher: Dispatcher,
}

impl Site {
    /// `more` are lines of the table, or tables below it.
    fn new(url: &str, more: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let rest = match more.contains("rest_min_ms") {
            true => "",
            false => "rest_min_ms = 200\nrest_max_ms = 400\n",
        };
        let table = format!(
            "[inference.upstream.{CHAT}]\npolicy = \"always\"\nurl = \"{url}\"\nmodel = \"big\"\n{rest}{}\n",
            more.replace("DIR", &directory.path().display().to_string())
        );
        let (inference, dispatcher) = dispatcher(directory.path(), CHAT, &table).unwrap();
        Self {
            directory,
            _inference: inference,
            dispatcher,
        }
    }

    async fn ask(&self) -> Result<Answer, InferenceError> {
        self.dispatcher.ask(request()).await
    }

    /// Why the engine did not begin to answer.
    async fn refused(&self) -> UpstreamError {
        match self.ask().await {
            Err(InferenceError::Nowhere { there, here }) => {
                assert!(matches!(*here, InferenceError::NotReady { .. }), "{here}");
                *there
            }
            other => panic!("{other:?}"),
        }
    }

    fn breaker(&self) -> &'static str {
        self.dispatcher.status().unwrap().breaker
    }
}

fn request() -> ChatRequest {
    let said = |role, content: &str| ChatMessage {
        role,
        content: content.to_owned(),
    };
    let messages = vec![said(Role::System, "Be brief."), said(Role::User, "Hello?")];
    ChatRequest::new(messages, 32)
}

/// All that is said, and the last event.
async fn listen(answer: &mut Answer) -> (String, ChatEvent) {
    let mut text = String::new();
    loop {
        match answer.next().await {
            Some(ChatEvent::Delta(piece)) => text.push_str(&piece),
            Some(end @ (ChatEvent::Done { .. } | ChatEvent::Failed(_))) => {
                assert!(answer.next().await.is_none(), "nothing after the end");
                return (text, end);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// An answer that began and did not get to its end.
async fn broken(site: &Site) -> (String, UpstreamError) {
    let mut answer = site.ask().await.unwrap();
    match listen(&mut answer).await {
        (text, ChatEvent::Failed(InferenceError::Upstream { source })) => (text, *source),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_answer_from_elsewhere_says_so_and_brings_finish_and_usage() {
    let engine = StandInEngine::start(answer(&["Hello", " there"]))
        .await
        .unwrap();
    let site = Site::new(&engine.url(), "");
    let mut answer = site.ask().await.unwrap();
    let origin = answer.origin().clone();
    let Place::Upstream { url } = &origin.place else {
        panic!("{origin}")
    };
    assert_eq!((&**url, &*origin.model), (&*engine.url(), "big"));
    assert_eq!(origin.reason.as_deref(), Some("its policy is always"));
    let (text, end) = listen(&mut answer).await;
    let ChatEvent::Done { usage, finish, .. } = end else {
        panic!("{end:?}")
    };
    let expected = Usage {
        prompt_tokens: 21,
        answer_tokens: 2,
        ..Usage::default()
    };
    assert_eq!(
        (text.as_str(), finish, usage),
        ("Hello there", Finish::EndOfTurn, expected)
    );
    let seen = &engine.seen()[0];
    assert_eq!(seen.path(), "/v1/chat/completions");
    assert_eq!(seen.header("authorization"), None);
    assert_eq!(
        seen.body["messages"][1],
        json!({"role": "user", "content": "Hello?"})
    );
    let status = site.dispatcher.status().unwrap();
    assert_eq!(
        (status.asked, status.answered, status.breaker),
        (1, 1, "closed")
    );
}

#[tokio::test]
async fn characters_are_whole_wherever_the_bytes_are_cut() {
    let text = "Grüß Gott, 世界 🦀";
    let event = format!(
        ": comment\r\ndata: {}\r\n\r\n",
        json!({"choices": [{"index": 0, "delta": {"content": text}}]})
    );
    let mut script = vec![stream_head()];
    script.extend(event.as_bytes().chunks(1).map(chunk));
    script.extend(finish("length"));
    let engine = StandInEngine::start(script).await.unwrap();
    let site = Site::new(&engine.url(), "");
    let (heard, end) = listen(&mut site.ask().await.unwrap()).await;
    assert_eq!(heard, text);
    assert!(
        matches!(
            end,
            ChatEvent::Done {
                finish: Finish::MaxTokens,
                ..
            }
        ),
        "{end:?}"
    );
}

#[tokio::test]
async fn every_refusal_is_told_apart_and_named() {
    type Is = fn(&UpstreamError) -> bool;
    let error = |message: &str| json!({"error": {"message": message}});
    let cases: [(&str, Vec<Act>, Is, &str); 9] = [
        (
            "key",
            refusal("401 Unauthorized", &[], &error("bad key sk-123")),
            |it| matches!(it, UpstreamError::Credentials { status: 401, .. }),
            "key_file",
        ),
        (
            "model",
            refusal("404 Not Found", &[], &error("no model big")),
            |it| matches!(it, UpstreamError::NoModel { .. }),
            "no model big",
        ),
        (
            "request",
            refusal("400 Bad Request", &[], &error("context too long")),
            |it| matches!(it, UpstreamError::Refused { status: 400, .. }),
            "context too long",
        ),
        (
            "failure",
            refusal("500 Internal Server Error", &[], &json!({"detail": "CUDA"})),
            |it| matches!(it, UpstreamError::Failing { .. }),
            "CUDA",
        ),
        (
            "redirection",
            refusal(
                "307 Temporary Redirect",
                &["Location: http://example/"],
                &json!({}),
            ),
            |it| matches!(it, UpstreamError::Nonsense { .. }),
            "url",
        ),
        (
            "page",
            vec![
                head("200 OK", &["Content-Type: text/html"]),
                chunk(b"<html>"),
                body_end(),
            ],
            |it| matches!(it, UpstreamError::Nonsense { .. }),
            "text/html",
        ),
        (
            "no HTTP",
            vec![Act::Send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec())],
            |it| matches!(it, UpstreamError::Nonsense { .. }),
            "protocol",
        ),
        (
            "garbage",
            vec![stream_head(), event("{\"choices\": [{"), body_end()],
            |it| matches!(it, UpstreamError::Nonsense { .. }),
            "choices",
        ),
        (
            "not text",
            vec![stream_head(), chunk(b"data: \xff\xfe\n\n"), body_end()],
            |it| matches!(it, UpstreamError::Nonsense { .. }),
            "UTF-8",
        ),
    ];
    for (what, script, is_so, named) in cases {
        let engine = StandInEngine::start(script).await.unwrap();
        let error = Site::new(&engine.url(), "").refused().await;
        assert!(is_so(&error), "{what}: {error:?}");
        let message = error.to_string();
        assert!(message.contains(named), "{what}: {named:?} in {message}");
        assert!(!message.contains("sk-123"), "{what}: {message}");
    }
}

#[tokio::test]
async fn an_endless_event_is_not_collected() {
    let mut script = vec![stream_head()];
    script.extend((0..40).map(|_| chunk(&[b'x'; 16 * 1024])));
    script.push(Act::Hang);
    let engine = StandInEngine::start(script).await.unwrap();
    let error = Site::new(&engine.url(), "").refused().await;
    assert!(error.to_string().contains("262144 bytes"), "{error}");
}

#[tokio::test]
async fn an_engine_that_wants_to_be_left_alone_is() {
    for (status, headers) in [
        ("429 Too Many Requests", vec!["Retry-After: 7"]),
        ("503 Service Unavailable", vec!["Retry-After: 7"]),
    ] {
        let engine = StandInEngine::start(refusal(status, &headers, &json!({})))
            .await
            .unwrap();
        let site = Site::new(&engine.url(), "");
        let first = site.refused().await;
        assert!(
            matches!(first, UpstreamError::Overloaded { .. }),
            "{first:?}"
        );
        let second = site.refused().await;
        let UpstreamError::Resting { rest, cause, .. } = &second else {
            panic!("{second:?}")
        };
        assert!(
            *rest > Duration::from_secs(1),
            "longer than our longest rest: {rest:?}"
        );
        assert!(cause.contains("overloaded"), "{cause}");
        assert_eq!(engine.seen().len(), 1, "it was not asked again");
    }
    // Without a time of its own it gets three chances.
    let engine = StandInEngine::start(refusal("429 Too Many Requests", &[], &json!({})))
        .await
        .unwrap();
    let site = Site::new(&engine.url(), "");
    for _ in 0..3 {
        assert!(matches!(
            site.refused().await,
            UpstreamError::Overloaded { .. }
        ));
    }
    assert!(matches!(
        site.refused().await,
        UpstreamError::Resting { .. }
    ));
}

#[tokio::test]
async fn what_breaks_off_has_failed_and_is_not_begun_anew() {
    let cases = [
        (
            "chunk",
            vec![stream_head(), piece("Hel"), Act::Send(b"ff\r\n".to_vec())],
        ),
        (
            "no finish reason",
            vec![stream_head(), piece("Hel"), body_end()],
        ),
        (
            "its own words",
            vec![
                stream_head(),
                piece("Hel"),
                event("{\"error\":{\"message\":\"out of memory\"}}"),
                body_end(),
            ],
        ),
    ];
    for (what, script) in cases {
        let engine = StandInEngine::start(script).await.unwrap();
        let site = Site::new(&engine.url(), "");
        let (text, error) = broken(&site).await;
        assert_eq!(text, "Hel", "{what}");
        match what {
            "its own words" => assert!(error.to_string().contains("out of memory"), "{error}"),
            _ => assert!(
                matches!(error, UpstreamError::BrokeOff { .. }),
                "{what}: {error:?}"
            ),
        }
        assert_eq!(engine.seen().len(), 1, "{what}");
        assert_eq!(site.dispatcher.status().unwrap().failed, 1, "{what}");
    }
}

#[tokio::test]
async fn times_are_limited_one_by_one() {
    let limits = "connect_ms = 1000\nfirst_token_ms = 1500\ntotal_ms = 2500";
    // No head.
    let engine = StandInEngine::start(vec![Act::Hang]).await.unwrap();
    let error = Site::new(&engine.url(), limits).refused().await;
    assert!(
        matches!(
            error,
            UpstreamError::TooSlow {
                what: "begin to answer",
                ..
            }
        ),
        "{error:?}"
    );
    // A head, and no word.
    engine.now_does(vec![stream_head(), chunk(b": ping\n\n"), Act::Hang]);
    let error = Site::new(&engine.url(), limits).refused().await;
    assert!(
        matches!(
            error,
            UpstreamError::TooSlow {
                within_ms: 1500,
                ..
            }
        ),
        "{error:?}"
    );
    // A word, and no end.
    engine.now_does(vec![stream_head(), piece("Well"), Act::Hang]);
    let (text, error) = broken(&Site::new(&engine.url(), limits)).await;
    assert_eq!(text, "Well");
    assert!(
        matches!(
            error,
            UpstreamError::TooSlow {
                within_ms: 2500,
                ..
            }
        ),
        "{error:?}"
    );
    // Each of them was hung up on.
    let until = Instant::now() + Duration::from_secs(20);
    while engine.hung_up() < 3 {
        assert!(Instant::now() < until, "{} hung up", engine.hung_up());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_listener_who_goes_away_closes_the_connection() {
    let engine = StandInEngine::start(vec![stream_head(), piece("Once"), Act::Hang])
        .await
        .unwrap();
    let site = Site::new(&engine.url(), "answers_max = 1");
    // After the first word, and at the end before it.
    for round in 1..=2 {
        let mut answer = site.ask().await.unwrap();
        assert!(matches!(answer.next().await, Some(ChatEvent::Delta(_))));
        let error = site.refused().await;
        assert!(
            matches!(error, UpstreamError::Busy { limit: 1, .. }),
            "{error:?}"
        );
        drop(answer);
        let until = Instant::now() + Duration::from_secs(20);
        while engine.hung_up() < round {
            assert!(Instant::now() < until, "nobody hung up");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    engine.now_does(vec![Act::Hang]);
    let dispatcher = site.dispatcher.clone();
    let asking = tokio::spawn(async move { dispatcher.ask(request()).await.map(drop) });
    let until = Instant::now() + Duration::from_secs(20);
    while engine.seen().len() < 3 {
        assert!(Instant::now() < until, "nobody asked");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    asking.abort();
    while engine.hung_up() < 3 {
        assert!(Instant::now() < until, "nobody hung up");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let status = site.dispatcher.status().unwrap();
    assert_eq!(
        (status.withdrawn, status.failed, status.breaker),
        (3, 0, "closed")
    );
}

#[tokio::test]
async fn a_slow_reader_holds_the_engine_back() {
    // 64 MB, far more than all buffers on the way (Linux gives a socket some 6 MB of them).
    const PIECES: usize = 4000;
    let text = "y".repeat(16 * 1024);
    let mut script = vec![stream_head(), piece("First")];
    script.extend((0..PIECES).map(|_| chunk(format!(": {text}\n\n").as_bytes())));
    script.extend(finish("stop"));
    let engine = StandInEngine::start(script).await.unwrap();
    let site = Site::new(&engine.url(), "");
    let mut answer = site.ask().await.unwrap();
    let mut taken = engine.sent();
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        if engine.sent() == taken {
            break;
        }
        taken = engine.sent();
    }
    assert!(
        taken < 32 << 20,
        "{taken} bytes were taken although nobody listened"
    );
    let (text, end) = listen(&mut answer).await;
    assert_eq!(text, "First");
    assert!(matches!(end, ChatEvent::Done { .. }), "{end:?}");
    assert!(engine.sent() > 60 << 20, "{} bytes in all", engine.sent());
}

#[tokio::test]
async fn the_breaker_opens_lets_one_try_and_closes_again() {
    let engine = StandInEngine::start(answer(&["Hello"])).await.unwrap();
    let site = Site::new(
        &engine.url(),
        "failures = 2\nrest_min_ms = 1500\nrest_max_ms = 2000",
    );
    let port = engine.port();
    drop(engine);
    for _ in 0..2 {
        let error = site.refused().await;
        assert!(
            matches!(error, UpstreamError::Unreachable { .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains("running"), "{error}");
    }
    assert_eq!(site.breaker(), "open");
    assert!(matches!(
        site.refused().await,
        UpstreamError::Resting { .. }
    ));
    let engine = StandInEngine::start_at(port, answer(&["Hello again"]))
        .await
        .unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    let mut answer = loop {
        match site.ask().await {
            Ok(answer) => break answer,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(listen(&mut answer).await.0, "Hello again");
    assert_eq!((site.breaker(), engine.seen().len()), ("closed", 1));
}

#[tokio::test]
async fn tls_is_checked_against_the_named_authority_and_the_key_is_shown_to_nobody_else() {
    let pki = tempfile::tempdir().unwrap();
    let ours = Authority::new(pki.path(), "ours").unwrap();
    let other = Authority::new(pki.path(), "other").unwrap();
    let good = ours.sign("good", &["127.0.0.1"], Valid::Now).unwrap();
    let misnamed = ours.sign("misnamed", &["gpu.example"], Valid::Now).unwrap();
    let expired = ours
        .sign("expired", &["127.0.0.1"], Valid::Formerly)
        .unwrap();
    let foreign = other.sign("foreign", &["127.0.0.1"], Valid::Now).unwrap();
    let more = format!("ca = \"{}\"\nkey_file = \"DIR/key\"", ours.file().display());
    let site_for = |engine: &StandInEngine, more: &str| {
        let site = Site::new(&engine.url().replace("http:", "https:"), more);
        let path = site.directory.path().join("key");
        std::fs::write(&path, "sk-123\n").unwrap();
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        site
    };
    let engine = StandInEngine::start_tls(&good, answer(&["Safe"]))
        .await
        .unwrap();
    let site = site_for(&engine, &more);
    assert_eq!(listen(&mut site.ask().await.unwrap()).await.0, "Safe");
    assert_eq!(
        engine.seen()[0].header("authorization"),
        Some("Bearer sk-123")
    );
    // The key in a file that others can read is no secret any more.
    let path = site.directory.path().join("key");
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = site.refused().await;
    assert!(matches!(error, UpstreamError::OurFiles { .. }), "{error:?}");
    assert!(error.to_string().contains("chmod 600") && !error.to_string().contains("sk-123"));
    // The system's authorities do not know ours.
    let error = site_for(&engine, "key_file = \"DIR/key\"").refused().await;
    assert!(
        matches!(
            error,
            UpstreamError::Unreachable { .. } | UpstreamError::OurFiles { .. }
        ),
        "{error:?}"
    );
    for (what, signed) in [
        ("misnamed", misnamed),
        ("expired", expired),
        ("foreign", foreign),
    ] {
        let engine = StandInEngine::start_tls(&signed, answer(&["Unsafe"]))
            .await
            .unwrap();
        let error = site_for(&engine, &more).refused().await;
        assert!(
            error.to_string().contains("cannot be trusted"),
            "{what}: {error}"
        );
        assert!(engine.seen().is_empty(), "{what}: nothing was said to it");
    }
    // Clear text where TLS is expected.
    let engine = StandInEngine::start(answer(&["Clear"])).await.unwrap();
    let error = site_for(&engine, &more).refused().await;
    assert!(
        matches!(error, UpstreamError::Unreachable { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn kserve_engines_stream_or_answer_whole() {
    let event = |text: &str, done: bool| {
        event(&json!({"text_output": text, "model_name": "big", "done": done}).to_string())
    };
    let engine = StandInEngine::start(vec![
        stream_head(),
        event("Good ", false),
        event("day", true),
        body_end(),
    ])
    .await
    .unwrap();
    let site = Site::new(&engine.url(), "protocol = \"kserve\"");
    let mut answer = site.ask().await.unwrap();
    assert_eq!(listen(&mut answer).await.0, "Good day");
    let seen = &engine.seen()[0];
    assert_eq!(seen.path(), "/v2/models/big/generate_stream");
    assert_eq!(
        seen.body["text_input"],
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello?<|im_end|>\n<|im_start|>assistant\n"
    );
    let table = format!("[inference.upstream.{CHAT}.kserve]\nendpoint = \"infer\"");
    let site = Site::new(&engine.url(), &format!("protocol = \"kserve\"\n{table}"));
    engine.now_does(refusal(
        "200 OK",
        &[],
        &json!({"model_name": "big", "outputs": [{"name": "text_output", "shape": [1], "datatype": "BYTES", "data": ["Good evening"]}]}),
    ));
    let mut answer = site.ask().await.unwrap();
    assert_eq!(listen(&mut answer).await.0, "Good evening");
    assert_eq!(engine.seen()[1].path(), "/v2/models/big/infer");
}
