//! The engine in a process of its own, which can be killed: what it keeps of a conversation, how soon it is there, and the most memory it took.
//!
//! The process is this program, started again; questions and answers are lines of JSON, as the peers' are.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use autoglm_edge::{
    inference::{Inference, InferenceConfig, chat::SnapshotConfig, manifest::Task},
    store::{ExportPolicy, Scan, Store, StoreConfig, StoreHandle, Tree},
};
use autoglm_tests::bench::{
    bundles::{Bundles, CHAT},
    statistics::ms,
};
use serde::{Deserialize, Serialize};

use super::{CONTEXT_TOKENS, Options, answer, say};
use autoglm_edge::inference::chat::{ChatMessage, ChatRequest, Role};

/// Far above what the conversations of the bench take.
const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;
/// The index has grown by nothing for so long: all that was offered is kept.
const QUIET: Duration = Duration::from_millis(700);

#[derive(Serialize, Deserialize)]
struct Question {
    /// Who (`system`, `user`, `assistant`) said what.
    messages: Vec<(String, String)>,
    tokens: usize,
}

/// What the process measured itself.
#[derive(Serialize, Deserialize)]
pub(super) struct Told {
    pub(super) text: String,
    pub(super) first_ms: f64,
    pub(super) prompt_tokens: usize,
    pub(super) reused_tokens: usize,
    /// The most memory that the process took until now (`VmHWM`).
    pub(super) peak_kb: u64,
}

/// The process, killed with -9 when it is dropped.
pub(super) struct Apart {
    process: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// From the engine's start to the model's readiness.
    pub(super) load_ms: f64,
}

impl Apart {
    /// Starts the engine with what `state` holds of earlier conversations.
    pub(super) fn start(state: &Path, options: &Options) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["--threads", &options.threads.to_string()])
            .args(["--cache", &format!("{:?}", options.cache).to_lowercase()])
            .arg("--apart")
            .arg(state)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let questions = process.stdin.take().context("it has no stdin")?;
        let mut answers = BufReader::new(process.stdout.take().context("it has no stdout")?);
        let mut line = String::new();
        answers.read_line(&mut line)?;
        let load_ms = serde_json::from_str(&line).with_context(|| format!("{line:?}"))?;
        Ok(Self {
            process,
            questions,
            answers,
            load_ms,
        })
    }

    /// An answer; what is to be kept of the conversation is on the disk when it comes.
    pub(super) fn ask(&mut self, messages: &[ChatMessage], tokens: usize) -> Result<Told> {
        let messages = messages
            .iter()
            .map(|message| {
                let role = match message.role {
                    Role::System => "system",
                    Role::Assistant => "assistant",
                    _ => "user",
                };
                (role.to_owned(), message.content.clone())
            })
            .collect();
        let question = serde_json::to_string(&Question { messages, tokens })?;
        writeln!(self.questions, "{question}")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        ensure!(!line.is_empty(), "the engine's process ended");
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The life of the process.
pub(super) async fn serve(state: PathBuf, options: &Options) -> Result<()> {
    let bundles = Bundles::find()?;
    let directory = state.clone();
    let store = tokio::task::spawn_blocking(move || {
        let config = StoreConfig {
            state_directory: directory,
            export: ExportPolicy::default(),
        };
        Store::open(config, SystemTime::now())
    })
    .await??;
    let begun = Instant::now();
    let inference = Inference::start(InferenceConfig {
        embedding: "none".into(),
        chat: CHAT.into(),
        context_tokens: CONTEXT_TOKENS,
        chat_sessions: options.sessions,
        chat_cache: options.cache,
        threads: options.threads.into(),
        snapshots: Some(SnapshotConfig {
            directory: state.join("contexts"),
            bytes_max: SNAPSHOT_BYTES_MAX,
            store: store.handle(),
        }),
        ..bundles.embedding_only()
    });
    let handle = inference.handle();
    handle
        .wait_ready(Task::Chat, Duration::from_secs(300))
        .await?;
    println!("{}", ms(begun.elapsed()));
    for line in std::io::stdin().lines() {
        let Question { messages, tokens } = serde_json::from_str(&line?)?;
        let messages = messages
            .into_iter()
            .map(|(role, text)| match role.as_str() {
                "system" => say(Role::System, text),
                "assistant" => say(Role::Assistant, text),
                _ => say(Role::User, text),
            })
            .collect();
        let request = ChatRequest::new(messages, tokens);
        let told = answer(&handle, request, Instant::now()).await?;
        all_kept(&store.handle()).await?;
        let told = Told {
            text: told.text,
            first_ms: told.first_ms,
            prompt_tokens: told.prompt_tokens,
            reused_tokens: told.reused_tokens,
            peak_kb: peak_kb()?,
        };
        println!("{}", serde_json::to_string(&told)?);
    }
    Ok(())
}

async fn all_kept(store: &StoreHandle) -> Result<()> {
    let (mut count, mut since) = (usize::MAX, Instant::now());
    while since.elapsed() < QUIET {
        let now = store
            .scan(Scan::first(Tree::Snapshots, "", 1000))
            .await?
            .len();
        if now != count {
            (count, since) = (now, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// The most memory that this process took, in kB, as the kernel counts it (proc(5), `VmHWM`).
fn peak_kb() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("the kernel tells no VmHWM")?.parse()?)
}
