//! Conversations' caches survive the process that computed them, on the real ONNX Runtime, sled and file system.

mod bundles;

use std::{
    fs,
    io::{BufRead, BufReader},
    num::NonZeroUsize,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use autoglm_edge::{
    inference::{
        Inference, InferenceConfig,
        chat::{ChatCache, ChatEvent, ChatMessage, ChatRequest, Role, SnapshotConfig},
        manifest::Task,
    },
    store::{ExportPolicy, Scan, Store, StoreConfig, Tree},
};

/// Where the killed process keeps its state; set for it alone.
const STATE: &str = "AUTOGLM_TEST_SNAPSHOT_STATE";

struct Edge {
    inference: Inference,
    store: Store,
}

fn snapshots(state: &Path) -> PathBuf {
    state.join("contexts")
}

async fn start(state: &Path, model_dirs: Vec<PathBuf>, bytes_max: u64) -> Edge {
    start_with(ChatCache::Bytes, state, model_dirs, bytes_max).await
}

async fn start_with(
    chat_cache: ChatCache,
    state: &Path,
    model_dirs: Vec<PathBuf>,
    bytes_max: u64,
) -> Edge {
    let directory = state.to_path_buf();
    let store = tokio::task::spawn_blocking(move || {
        let config = StoreConfig {
            state_directory: directory,
            export: ExportPolicy::default(),
        };
        Store::open(config, SystemTime::now()).expect("the store opens")
    })
    .await
    .unwrap();
    let inference = Inference::start(InferenceConfig {
        model_dirs,
        embedding: "none".into(),
        vad: "none".into(),
        stt: None,
        chat_sessions: NonZeroUsize::new(2).unwrap(),
        chat_cache,
        snapshots: Some(SnapshotConfig {
            directory: snapshots(state),
            bytes_max,
            store: store.handle(),
        }),
        ..bundles::config()
    });
    inference
        .handle()
        .wait_ready(Task::Chat, bundles::PATIENCE)
        .await
        .expect("the chat model loads");
    Edge { inference, store }
}

impl Edge {
    /// The answer, the prompt's tokens, and how many of them were reused.
    async fn ask(&self, messages: Vec<ChatMessage>) -> (String, usize, usize) {
        let chat = self.inference.handle().chat().clone();
        let mut stream = chat.generate(ChatRequest::new(messages, 48)).unwrap();
        let (mut text, mut prompt, mut reused) = (String::new(), 0, 0);
        while let Some(event) = stream.recv().await {
            match event {
                ChatEvent::Started {
                    prompt_tokens,
                    reused_tokens,
                    ..
                } => (prompt, reused) = (prompt_tokens, reused_tokens),
                ChatEvent::Delta(piece) => text.push_str(&piece),
                ChatEvent::Failed(error) => panic!("{error}"),
                _ => {}
            }
        }
        (text, prompt, reused)
    }

    /// Waits until the index holds so many segments.
    async fn kept(&self, count: usize) {
        let wait = async {
            loop {
                let scan = Scan::first(Tree::Snapshots, "", 10);
                if self.store.handle().scan(scan).await.unwrap().len() >= count {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(bundles::PATIENCE, wait)
            .await
            .expect("the keeper writes");
    }

    async fn stop(self) {
        self.inference.stop(bundles::PATIENCE).await.unwrap();
        tokio::task::spawn_blocking(move || self.store.shutdown())
            .await
            .unwrap();
    }
}

fn say(role: Role, content: &str) -> ChatMessage {
    ChatMessage {
        role,
        content: content.into(),
    }
}

/// Of the default model: 60 tensors of 3 heads with 64 bytes and a scale, and the token itself.
const BYTES_PER_TOKEN: u64 = 60 * 3 * (64 + 4) + 4;

/// The files' lengths in bytes.
fn lengths(state: &Path) -> Vec<u64> {
    let listing = fs::read_dir(snapshots(state)).unwrap();
    let length = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().metadata().unwrap().len();
    listing.map(length).collect()
}

fn first_turn() -> Vec<ChatMessage> {
    vec![
        say(Role::System, &"The lamp in the hall is on. ".repeat(12)),
        say(Role::User, "Where is the lamp?"),
    ]
}

fn second_turn(answer: &str) -> Vec<ChatMessage> {
    let mut messages = first_turn();
    messages.push(say(Role::Assistant, answer));
    messages.push(say(Role::User, "And is it on?"));
    messages
}

fn models() -> Vec<PathBuf> {
    bundles::bundle(bundles::CHAT);
    vec![bundles::cache().join("models")]
}

/// No test of its own: what [`a_killed_process_leaves_its_conversations`] runs and kills.
#[tokio::test]
async fn the_process_that_is_killed() {
    let Some(state) = std::env::var_os(STATE) else {
        return;
    };
    let edge = start(Path::new(&state), models(), 1 << 30).await;
    let (answer, ..) = edge.ask(first_turn()).await;
    // The prompt's two; of the answer there is more or nothing.
    edge.kept(2).await;
    println!("\nanswer {answer:?}");
    // Until it is killed.
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_killed_process_leaves_its_conversations() {
    let state = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_process_that_is_killed", "--nocapture"])
        .env(STATE, state.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let answer = lines
        .map_while(Result::ok)
        .find_map(|line| {
            line.strip_prefix("answer ")
                .map(|text| serde_json::from_str::<String>(text).unwrap())
        })
        .expect("the process answers before it is killed");
    child.kill().unwrap();
    child.wait().unwrap();

    let edge = start(state.path(), models(), 1 << 30).await;
    let (second, prompt, reused) = edge.ask(second_turn(&answer)).await;
    println!("{reused} of {prompt} tokens came from the disk");
    let (_, first_prompt, again) = edge.ask(first_turn()).await;
    assert!(
        reused >= first_prompt,
        "{reused} tokens of {first_prompt} and the answer were kept"
    );
    assert_eq!(again, first_prompt - 2, "and now they are in memory");
    let counted = edge.inference.handle().chat().counters().prompt_tokens as usize;
    assert_eq!(counted, prompt - reused + 2, "really computed");
    edge.stop().await;

    // The same conversation, never interrupted.
    let fresh = tempfile::tempdir().unwrap();
    let edge = start(fresh.path(), models(), 1 << 30).await;
    let (first, ..) = edge.ask(first_turn()).await;
    assert_eq!(first, answer);
    assert_eq!(edge.ask(second_turn(&answer)).await.0, second);
    edge.stop().await;
}

#[tokio::test]
async fn what_finds_no_room_in_memory_comes_from_the_disk_when_it_goes_on() {
    let state = tempfile::tempdir().unwrap();
    let edge = start(state.path(), models(), 1 << 30).await;
    // One more than there are rows, that have nothing in common.
    let talk = |name: &str| {
        let mut messages = first_turn();
        messages[0].content.insert_str(0, name);
        messages
    };
    let names = ["Oslo. ", "Quito. ", "Hanoi. "];
    let mut answers = Vec::new();
    for name in names {
        answers.push(edge.ask(talk(name)).await.0);
    }
    edge.stop().await;

    let edge = start(state.path(), models(), 1 << 30).await;
    // The oldest first: it takes the room of the next older.
    for (name, answer) in names.into_iter().zip(answers) {
        let (again, prompt, reused) = edge.ask(talk(name)).await;
        println!("{name}{reused} of {prompt}");
        assert_eq!(again, answer, "{name}");
        assert!(reused >= prompt - 8, "{name}{reused} of {prompt}");
    }
    edge.stop().await;
}

#[tokio::test]
async fn what_is_damaged_or_of_another_model_is_read_anew() {
    let state = tempfile::tempdir().unwrap();
    let edge = start(state.path(), models(), 1 << 30).await;
    let (answer, prompt, reused) = edge.ask(first_turn()).await;
    assert_eq!(reused, 0);
    edge.kept(1).await;
    edge.stop().await;

    // Nothing is wrong with it yet.
    let edge = start(state.path(), models(), 1 << 30).await;
    let (again, _, reused) = edge.ask(first_turn()).await;
    assert!(reused > prompt / 2, "{reused} of {prompt}");
    assert_eq!(again, answer);
    edge.stop().await;

    // Another model: the same weights under another manifest.
    let other = tempfile::tempdir().unwrap();
    let target = other.path().join(bundles::CHAT);
    fs::create_dir(&target).unwrap();
    for entry in fs::read_dir(bundles::bundle(bundles::CHAT)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), target.join(entry.file_name())).unwrap();
    }
    let manifest = target.join("model.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(
        &manifest,
        text.replace("int4\"\nlicence", "int4, other\"\nlicence"),
    )
    .unwrap();
    assert_ne!(fs::read_to_string(&manifest).unwrap(), text);
    let edge = start(state.path(), vec![other.path().into()], 1 << 30).await;
    assert_eq!(edge.ask(first_turn()).await, (answer.clone(), prompt, 0));
    edge.stop().await;

    // One bit of every file.
    let mut damaged = 0;
    for entry in fs::read_dir(snapshots(state.path())).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
        damaged += 1;
    }
    assert!(damaged > 0, "there were files");
    let edge = start(state.path(), models(), 1 << 30).await;
    assert_eq!(edge.ask(first_turn()).await, (answer, prompt, 0));
    edge.stop().await;
}

#[tokio::test]
async fn files_beyond_the_limit_go_and_strangers_without_a_record_too() {
    let state = tempfile::tempdir().unwrap();
    fs::create_dir(snapshots(state.path())).unwrap();
    let stranger = snapshots(state.path()).join(format!("{}.kv", "ab".repeat(16)));
    fs::write(&stranger, "left by a crash before its record").unwrap();
    let limit = 2 << 20;
    let edge = start(state.path(), models(), limit).await;
    let mut tokens = 0;
    for number in 0..4 {
        let mut messages = first_turn();
        messages[0].content.insert_str(0, &format!("{number} "));
        tokens += edge.ask(messages).await.1 as u64;
    }
    assert!(tokens * BYTES_PER_TOKEN > 2 * limit, "{tokens} tokens");
    edge.kept(1).await;
    // What was offered is written before the engine has stopped.
    edge.stop().await;
    assert!(!stranger.exists());
    let bytes: u64 = lengths(state.path()).iter().sum();
    assert!(bytes > 0 && bytes <= limit, "{bytes} of {limit} bytes");
}

#[tokio::test]
async fn a_cache_holds_bytes_unless_floats_are_wanted_and_either_is_a_miss_for_the_other() {
    let state = tempfile::tempdir().unwrap();
    let edge = start(state.path(), models(), 1 << 30).await;
    let (_, prompt, _) = edge.ask(first_turn()).await;
    edge.stop().await;
    let bytes = lengths(state.path());
    assert!(!bytes.is_empty());
    assert!(
        bytes.iter().all(|bytes| bytes % BYTES_PER_TOKEN == 0),
        "{bytes:?}"
    );

    let edge = start_with(ChatCache::Floats, state.path(), models(), 1 << 30).await;
    let (answer, _, reused) = edge.ask(first_turn()).await;
    assert_eq!(reused, 0, "of {prompt}");
    assert!(!answer.is_empty());
    edge.stop().await;
    let all: u64 = lengths(state.path()).iter().sum();
    let floats = all - bytes.iter().sum::<u64>();
    assert_eq!(floats % (60 * 3 * 64 * 4 + 4), 0);
    assert!(
        floats > prompt as u64 * 60 * 3 * 64 * 4 / 2,
        "{floats} bytes"
    );
}

/// The other end of the one pipe among `paths` that somebody reads.
async fn writer_of_what_is_read(paths: &[PathBuf]) -> fs::File {
    let find = async {
        loop {
            let found = paths.iter().find_map(|path| {
                // Without a reader this is refused.
                let mut options = fs::File::options();
                let flag = nix::fcntl::OFlag::O_NONBLOCK.bits();
                options.write(true).custom_flags(flag).open(path).ok()
            });
            match found {
                Some(writer) => return writer,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(bundles::PATIENCE, find)
        .await
        .expect("a file is read")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_slow_holds_up_nobody_else_and_what_it_then_says_wrong_is_a_miss() {
    let state = tempfile::tempdir().unwrap();
    let edge = start(state.path(), models(), 1 << 30).await;
    let (answer, ..) = edge.ask(first_turn()).await;
    edge.kept(2).await;
    edge.stop().await;
    // In each file's place a pipe: who reads it waits for who writes.
    let listing = fs::read_dir(snapshots(state.path())).unwrap();
    let paths: Vec<PathBuf> = listing.map(|entry| entry.unwrap().path()).collect();
    for path in &paths {
        fs::remove_file(path).unwrap();
        nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    }
    let edge = start(state.path(), models(), 1 << 30).await;
    let chat = edge.inference.handle().chat().clone();
    let mut slow = chat.generate(ChatRequest::new(first_turn(), 48)).unwrap();
    let writer = writer_of_what_is_read(&paths).await;
    let (other, ..) = edge.ask(vec![say(Role::User, "Name a bird.")]).await;
    assert!(!other.is_empty() && slow.try_recv().is_err());
    drop(writer);
    let mut text = String::new();
    while let Some(event) = slow.recv().await {
        match event {
            ChatEvent::Started { reused_tokens, .. } => assert_eq!(reused_tokens, 0),
            ChatEvent::Delta(piece) => text.push_str(&piece),
            ChatEvent::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
    assert_eq!(text, answer);
    edge.stop().await;
}
