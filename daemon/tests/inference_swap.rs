//! Models are swapped, unloaded and brought back under the requests of others, on the real ONNX Runtime with the shipped bundles.

mod bundles;

use std::{fs, path::Path, time::Duration};

use autoglm_edge::inference::{
    Inference, InferenceConfig, InferenceHandle,
    budget::MemoryLimits,
    chat::{ChatEvent, ChatMessage, ChatRequest, Role},
    error::ReloadError,
    manifest::Task,
    status::ModelState,
    vad::VadState,
};
use tokio::sync::mpsc::Receiver;

use bundles::{copied, copied_as, digest, until};

/// Puts another directory in a bundle's place, as one who updates a bundle does.
fn replaced(dir: &Path, name: &str, by: &str) {
    fs::rename(dir.join(name), dir.join(format!("{name}.old"))).unwrap();
    fs::rename(dir.join(by), dir.join(name)).unwrap();
    fs::remove_dir_all(dir.join(format!("{name}.old"))).unwrap();
}

/// Changes a file of a bundle and what its manifest says of it.
fn edited(bundle: &Path, file: &str, edit: impl Fn(String) -> String) {
    let facts = |bytes: &[u8]| (digest(bytes), bytes.len());
    let path = bundle.join(file);
    let before = fs::read(&path).unwrap();
    let after = edit(String::from_utf8(before.clone()).unwrap());
    fs::write(&path, &after).unwrap();
    let manifest = bundle.join("model.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    let told =
        |(digest, bytes): (String, usize)| format!("sha256 = \"{digest}\"\nbytes = {bytes}\n");
    let before = told(facts(&before));
    assert!(text.contains(&before), "{text} has {before}");
    let after = told(facts(after.as_bytes()));
    fs::write(&manifest, text.replace(&before, &after)).unwrap();
}

async fn started(config: InferenceConfig, tasks: &[Task]) -> Inference {
    let inference = Inference::start(config);
    for &task in tasks {
        let ready = inference.handle().wait_ready(task, bundles::PATIENCE).await;
        ready.expect("the model loads");
    }
    inference
}

fn ask(text: &str, max_tokens: usize) -> ChatRequest {
    let message = ChatMessage {
        role: Role::User,
        content: text.into(),
    };
    ChatRequest::new(vec![message], max_tokens)
}

/// Text and tokens of the prompt.
async fn read(mut events: Receiver<ChatEvent>) -> (String, usize) {
    let (mut text, mut prompt) = (String::new(), 0);
    loop {
        match events.recv().await.expect("the last event is Done") {
            ChatEvent::Started { prompt_tokens, .. } => prompt = prompt_tokens,
            ChatEvent::Delta(piece) => text.push_str(&piece),
            ChatEvent::Done { .. } => return (text, prompt),
            other => panic!("{other:?}"),
        }
    }
}

async fn hears(handle: &InferenceHandle) {
    let score = handle.vad().score(vec![0.0; 512], VadState::default());
    score.await.expect("nobody gets an error");
}

const STORY: &str = "Tell me a long story about the sea.";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_bundle_takes_over_and_what_was_begun_is_ended_by_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    copied(dir.path(), bundles::CHAT);
    let config = InferenceConfig {
        model_dirs: vec![dir.path().into()],
        embedding: "none".into(),
        vad: "none".into(),
        ..bundles::config()
    };
    let inference = started(config, &[Task::Chat]).await;
    let handle = inference.handle();
    let generate = |request| handle.chat().generate(request).expect("accepted");
    let (alone, _) = read(generate(ask(STORY, 300))).await;
    let (_, before) = read(generate(ask("Hi", 2))).await;

    let mut story = generate(ask(STORY, 300));
    while !matches!(story.recv().await, Some(ChatEvent::Delta(_))) {}
    copied_as(dir.path(), bundles::CHAT, "changed");
    edited(&dir.path().join("changed"), "chat_template.jinja", |text| {
        format!("Be brief. {text}")
    });
    replaced(dir.path(), bundles::CHAT, "changed");
    handle.recheck();
    let mut asked = 0;
    let swapped = async {
        loop {
            let (_, prompt) = read(generate(ask("Hi", 2))).await;
            asked += 1;
            if prompt != before {
                return prompt;
            }
        }
    };
    let after = tokio::time::timeout(bundles::PATIENCE, swapped)
        .await
        .expect("the changed bundle serves");
    println!("{asked} questions until the prompt had {after} tokens instead of {before}");
    assert!(after > before);
    let (rest, _) = read(story).await;
    assert!(
        alone.ends_with(&rest) && rest.len() > alone.len() / 2,
        "{rest:?} is not the end of {alone:?}"
    );
    assert!(handle.chat().counters().failed == 0);

    // By hand, with nothing changed.
    let mut story = generate(ask(STORY, 100));
    while !matches!(story.recv().await, Some(ChatEvent::Delta(_))) {}
    let loaded = handle.reload(Some(bundles::CHAT)).await.unwrap();
    assert_eq!(loaded.len(), 1);
    read(story).await;
    let nobody = handle.reload(Some("nobody")).await;
    assert!(
        matches!(nobody, Err(ReloadError::Unknown { .. })),
        "{nobody:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_bundle_that_cannot_be_used_changes_nothing_but_the_status() {
    let dir = tempfile::tempdir().unwrap();
    copied(dir.path(), bundles::VAD);
    let config = InferenceConfig {
        model_dirs: vec![dir.path().into()],
        embedding: "none".into(),
        chat: "none".into(),
        ..bundles::config()
    };
    let inference = started(config, &[Task::Vad]).await;
    let handle = inference.handle();
    copied_as(dir.path(), bundles::VAD, "broken");
    fs::write(dir.path().join("broken/probe.json"), "{}").unwrap();
    replaced(dir.path(), bundles::VAD, "broken");
    handle.recheck();
    let told = |state: &ModelState| state.to_string().contains("cannot be used");
    let state = until(&handle, Task::Vad, told).await;
    println!("{state}");
    assert!(state.is_ready());
    hears(&handle).await;
    let refused = handle.reload(None).await;
    assert!(refused.is_err(), "{refused:?}");
    hears(&handle).await;

    copied_as(dir.path(), bundles::VAD, "sound");
    replaced(dir.path(), bundles::VAD, "sound");
    handle.recheck();
    until(&handle, Task::Vad, |state| state.is_ready() && !told(state)).await;
    hears(&handle).await;
}

fn graph_bytes(name: &str) -> u64 {
    fs::metadata(bundles::bundle(name).join("model.onnx"))
        .unwrap()
        .len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_two_do_not_fit_requests_wait_for_the_changed_one() {
    let config = InferenceConfig {
        embedding: "none".into(),
        chat: "none".into(),
        memory: MemoryLimits {
            // A model counts twice; two do not fit.
            bytes_max: Some(3 * graph_bytes(bundles::VAD)),
            ..MemoryLimits::default()
        },
        ..bundles::config()
    };
    let inference = started(config, &[Task::Vad]).await;
    let handle = inference.handle();
    for _ in 0..3 {
        let reload = handle.reload(Some(bundles::VAD));
        tokio::pin!(reload);
        let mut heard = 0;
        loop {
            tokio::select! {
                loaded = &mut reload => {
                    loaded.expect("it is loaded anew");
                    break;
                }
                () = hears(&handle) => heard += 1,
            }
        }
        println!("{heard} requests served meanwhile");
        hears(&handle).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_model_makes_room_and_the_next_request_brings_it_back() {
    let config = InferenceConfig {
        chat: "none".into(),
        memory: MemoryLimits {
            bytes_max: Some(2 * graph_bytes(bundles::EMBEDDING) + graph_bytes(bundles::VAD)),
            idle_after: Duration::ZERO,
        },
        ..bundles::config()
    };
    let inference = started(config, &[Task::Embedding, Task::Vad]).await;
    let handle = inference.handle();
    for _ in 0..2 {
        hears(&handle).await;
        let state = until(&handle, Task::Embedding, |state| !state.is_ready()).await;
        assert!(matches!(state, ModelState::Unloaded { .. }), "{state}");
        let embedded = handle.embedder().embed(vec!["hello".into()]).await;
        assert_eq!(embedded.expect("it comes back").len(), 1);
        let state = until(&handle, Task::Vad, |state| !state.is_ready()).await;
        println!("{state}");
        assert!(matches!(state, ModelState::Unloaded { .. }), "{state}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_in_use_is_not_sent_away() {
    let config = InferenceConfig {
        chat: "none".into(),
        memory: MemoryLimits {
            bytes_max: Some(2 * graph_bytes(bundles::EMBEDDING) + graph_bytes(bundles::VAD)),
            idle_after: Duration::from_secs(3600),
        },
        ..bundles::config()
    };
    let inference = started(config, &[Task::Embedding, Task::Vad]).await;
    let handle = inference.handle();
    let is_embedder = handle
        .status()
        .borrow()
        .model(Task::Embedding)
        .unwrap()
        .state
        .is_ready();
    let refused = if is_embedder {
        let score = handle.vad().score(vec![0.0; 512], VadState::default());
        score.await.map(drop)
    } else {
        let embedded = handle.embedder().embed(vec!["hello".into()]);
        embedded.await.map(drop)
    };
    let error = refused.expect_err("there is no room for it").to_string();
    println!("{error}");
    assert!(error.contains("for all models together"), "{error}");
    let ready = handle
        .status()
        .borrow()
        .models
        .iter()
        .filter(|model| model.state.is_ready())
        .count();
    assert_eq!(ready, 1);
}
