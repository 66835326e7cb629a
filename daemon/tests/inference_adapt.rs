//! Strain comes and goes, on the real ONNX Runtime with real bundles; the kernel's files are those of a directory, with texts that kernels wrote.

mod bundles;

use std::{fs, num::NonZeroUsize, path::Path, time::Duration};

use autoglm_edge::inference::{
    Inference, InferenceConfig, InferenceHandle,
    adapt::{AdaptConfig, Adaptation, Level, Limits, Measures, Timing},
    chat::{ChatEvent, ChatMessage, ChatRequest, Role},
    class::Class,
    manifest::Task,
    status::{ModelState, Running},
    threads::Threads,
};
use tokio::sync::mpsc::{Receiver, error::TryRecvError};

/// Stands for a smaller bundle: the default one under another name, so that every machine has it.
const SMALLER: &str = "the-smaller-one";

fn smaller(models: &Path) {
    let target = models.join(SMALLER);
    fs::create_dir_all(&target).unwrap();
    for entry in fs::read_dir(bundles::bundle(bundles::CHAT)).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), target.join(entry.file_name()));
        if entry.file_name() == "model.toml" {
            let text = fs::read_to_string(from).unwrap();
            let named = text.replace(
                &format!("name = \"{}\"", bundles::CHAT),
                &format!("name = \"{SMALLER}\""),
            );
            assert_ne!(named, text);
            fs::write(to, named).unwrap();
        } else {
            fs::copy(from, to).unwrap();
        }
    }
}

const TWO: Option<NonZeroUsize> = NonZeroUsize::new(2);

fn config(root: &Path, smaller: &str) -> InferenceConfig {
    InferenceConfig {
        model_dirs: vec![bundles::cache().join("models"), root.join("models")],
        embedding: "none".into(),
        vad: "none".into(),
        threads: Threads {
            asked: TWO,
            // On a machine that lends one, the second takes turns with the first; that is slow, and right.
            lent: TWO,
        },
        adapt: Some(AdaptConfig {
            root: root.to_owned(),
            period: Duration::from_millis(20),
            timing: Timing {
                rise: Duration::from_millis(60),
                dwell: Duration::from_millis(200),
                dwell_max: Duration::from_millis(400),
            },
            limits: Limits {
                // How fast this machine is just now is no matter here.
                slower_times: [f64::INFINITY; 2],
                ..AdaptConfig::default().limits
            },
            measures: Measures {
                smaller: Some(smaller.into()),
                ..Measures::default()
            },
        }),
        ..bundles::config()
    }
}

/// The kernel's word for the share of time in which somebody waited for a processor.
fn pressure(root: &Path, percent: f64) {
    let dir = root.join("proc/pressure");
    fs::create_dir_all(&dir).unwrap();
    let text = format!(
        "some avg10={percent:.2} avg60=40.25 avg300=21.62 total=28501285376\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
    );
    // In one step, as a look finds the kernel's.
    fs::write(dir.join("new"), text).unwrap();
    fs::rename(dir.join("new"), dir.join("cpu")).unwrap();
}

fn ask(class: Class, text: &str, max_tokens: usize) -> ChatRequest {
    let message = ChatMessage {
        role: Role::User,
        content: text.into(),
    };
    ChatRequest {
        class,
        ..ChatRequest::new(vec![message], max_tokens)
    }
}

/// The text, and the bundle that answered.
async fn read(events: &mut Receiver<ChatEvent>) -> (String, String) {
    let (mut text, mut by) = (String::new(), String::new());
    loop {
        match events.recv().await.expect("the last event is Done") {
            ChatEvent::Started { bundle, .. } => by = bundle.to_string(),
            ChatEvent::Delta(piece) => text.push_str(&piece),
            ChatEvent::Done { .. } => return (text, by),
            other => panic!("{other:?}"),
        }
    }
}

async fn adapted(handle: &InferenceHandle, level: Level) -> Adaptation {
    let mut told = handle.adaptation();
    let reached = told.wait_for(|told| told.level == level);
    let reached = tokio::time::timeout(bundles::PATIENCE, reached).await;
    reached.expect("the level is reached").unwrap().clone()
}

async fn running(handle: &InferenceHandle, threads: usize, bundle: &str) -> String {
    let mut status = handle.status();
    let is_it = |state: &ModelState| match state {
        ModelState::Ready { running, .. } => {
            let Running { bundle: serves, .. } = running;
            (running.threads.get(), &**serves) == (threads, bundle)
        }
        _ => false,
    };
    let reached = status.wait_for(|status| is_it(&status.model(Task::Chat).unwrap().state));
    let reached = tokio::time::timeout(bundles::PATIENCE, reached).await;
    let status = reached
        .unwrap_or_else(|_| panic!("{bundle} never serves with {threads} threads"))
        .unwrap();
    status.model(Task::Chat).unwrap().state.to_string()
}

const STORY: &str = "Tell me a long story about the sea.";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_strain_less_is_done_and_said_and_what_was_begun_is_ended_as_it_was() {
    let root = tempfile::tempdir().unwrap();
    smaller(&root.path().join("models"));
    let inference = Inference::start(config(root.path(), SMALLER));
    let handle = inference.handle();
    let ready = handle.wait_ready(Task::Chat, bundles::PATIENCE).await;
    ready.expect("the chat model loads");
    running(&handle, 2, bundles::CHAT).await;
    let generate = |request| handle.chat().generate(request).expect("accepted");
    let (alone, by) = read(&mut generate(ask(Class::Local, STORY, 300))).await;
    assert_eq!(by, bundles::CHAT);

    // Nothing can be measured yet, and that is said.
    let mut told = handle.adaptation();
    let seen = told.wait_for(|told| !told.absent.is_empty()).await;
    let absent: Vec<String> = seen
        .unwrap()
        .absent
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(absent[0].contains("proc/pressure/cpu"), "{absent:?}");

    let mut story = generate(ask(Class::Local, STORY, 300));
    while !matches!(story.recv().await, Some(ChatEvent::Delta(_))) {}
    let mut typed = generate(ask(Class::Background, "List twenty animals.", 100));
    pressure(root.path(), 50.0);
    let eased = adapted(&handle, Level::Eased).await;
    assert_eq!(eased.reason, "cpu pressure 50 % over 10 s");
    println!("{}", running(&handle, 1, bundles::CHAT).await);
    let (rest, _) = read(&mut story).await;
    assert!(
        alone.ends_with(&rest) && rest.len() > alone.len() / 2,
        "{rest:?} is not the end of {alone:?}"
    );
    read(&mut typed).await;

    let mut story = generate(ask(Class::Local, STORY, 300));
    while !matches!(story.recv().await, Some(ChatEvent::Delta(_))) {}
    pressure(root.path(), 90.0);
    let strained = adapted(&handle, Level::Strained).await;
    assert_eq!(strained.reason, "cpu pressure 90 % over 10 s");
    assert!(
        strained.background_rests && strained.changes == 2,
        "{strained:?}"
    );
    println!("{}", running(&handle, 1, SMALLER).await);
    let (_, by) = read(&mut story).await;
    // What was taken from the story's beginning was read above, its bundle with it.
    assert_eq!(by, "");
    let mut background = generate(ask(Class::Background, "Name a colour.", 8));
    let (_, by) = read(&mut generate(ask(Class::Local, "Name a bird.", 8))).await;
    assert_eq!(by, SMALLER);
    assert!(matches!(background.try_recv(), Err(TryRecvError::Empty)));

    // The file vanishes, as with a kernel that is told to: nobody guesses that it goes on.
    fs::remove_file(root.path().join("proc/pressure/cpu")).unwrap();
    let normal = adapted(&handle, Level::Normal).await;
    println!("{}", normal.reason);
    println!("{}", running(&handle, 2, bundles::CHAT).await);
    read(&mut background).await;
    let (again, by) = read(&mut generate(ask(Class::Local, STORY, 300))).await;
    assert_eq!((again, by.as_str()), (alone, bundles::CHAT));
    let counters = handle.chat().counters();
    assert_eq!(
        (counters.failed, counters.cancelled),
        (0, 0),
        "{counters:?}"
    );
    inference.stop(bundles::PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_smaller_bundle_that_is_not_there_costs_nothing_but_a_word() {
    let root = tempfile::tempdir().unwrap();
    let inference = Inference::start(config(root.path(), "nobody"));
    let handle = inference.handle();
    let ready = handle.wait_ready(Task::Chat, bundles::PATIENCE).await;
    ready.expect("the chat model loads");
    pressure(root.path(), 90.0);
    adapted(&handle, Level::Strained).await;
    let state = running(&handle, 1, bundles::CHAT).await;
    assert!(state.contains("there is no bundle nobody"), "{state}");
    let mut answer = handle
        .chat()
        .generate(ask(Class::Local, "Hello!", 8))
        .unwrap();
    read(&mut answer).await;
    pressure(root.path(), 1.0);
    adapted(&handle, Level::Normal).await;
    let state = running(&handle, 2, bundles::CHAT).await;
    assert!(!state.contains("nobody"), "{state}");
}
