//! `chat`: say something and follow the answer as it comes.
//!
//! [`event`] is what the daemon streams, [`show`] how it looks, [`source`] where sentences come from. The answer is data and
//! goes to standard output; what was understood and where the time went accompany it on standard error.
//!
//! Ctrl-C during an answer closes the pipe, which ends the language model's answer at its next token; a command that a device
//! has begun is carried out all the same. Ctrl-C or Ctrl-D at the prompt leaves.

pub mod event;
pub mod show;
pub mod source;

use std::os::fd::OwnedFd;

use serde_json::{Map, Value as Json, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::unix::pipe;

use self::event::Event;
use self::show::Show;
use self::source::Source;
use super::args::Global;
use super::args::conversation::{Asking, ChatArgs};
use super::bus::Daemon;
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Form, Output};

/// Runs `chat`.
///
/// # Errors
/// [`Failure`]; in a conversation held line by line only what ends the conversation.
pub async fn run(global: &Global, args: ChatArgs, output: &mut Output) -> Result<Exit, Failure> {
    let session = match args.new {
        true => format!("cli-{}", uuid::Uuid::now_v7()),
        false => args.session,
    };
    let chat = Chat {
        daemon: super::connect(global).await?,
        global,
        session,
        class: args.class,
    };
    let mut show = Show::new(args.explain);
    if args.text.is_empty() {
        return chat.converse(&mut show, output).await;
    }
    chat.say(&args.text.join(" "), &mut show, output).await
}

struct Chat<'a> {
    daemon: Daemon,
    global: &'a Global,
    session: String,
    class: Asking,
}

impl Chat<'_> {
    /// Line by line until the end. From a terminal this succeeds however single answers ended, since the person saw them; from
    /// a pipe it ends with the first number that was not success, after all lines.
    async fn converse(&self, show: &mut Show, output: &mut Output) -> Result<Exit, Failure> {
        let mut source = Source::open(output.form)?;
        if source.is_terminal() {
            output.note(&format!(
                "Conversation {}. Ctrl-C stops an answer; Ctrl-D leaves.",
                self.session
            ));
        }
        let mut worst = Exit::Success;
        while let Some(sentence) = source.next().await? {
            let exit = match self.say(&sentence, show, output).await {
                Ok(exit) => exit,
                Err(failure) if failure.exit == Exit::Success => return Err(failure),
                Err(failure) if failure.exit == Exit::Unreachable && !source.is_terminal() => {
                    return Err(failure);
                }
                Err(failure) => {
                    output.failure(&failure);
                    failure.exit
                }
            };
            if source.is_terminal() {
                continue;
            }
            if exit == Exit::Interrupted {
                return Ok(exit);
            }
            if worst == Exit::Success {
                worst = exit;
            }
        }
        Ok(worst)
    }

    /// Says one thing and shows the answer, up to Ctrl-C or `--timeout`.
    async fn say(&self, text: &str, show: &mut Show, output: &mut Output) -> Result<Exit, Failure> {
        show.begin();
        let answer = self.answer(text, show, output);
        let answer = async {
            match self.global.timeout {
                None => answer.await,
                Some(timeout) => tokio::time::timeout(timeout, answer)
                    .await
                    .unwrap_or_else(|_| {
                        Err(Failure::new(
                            Exit::Unreachable,
                            "the answer took longer than --timeout",
                        ))
                    }),
            }
        };
        let result = tokio::select! {
            result = answer => result,
            result = tokio::signal::ctrl_c() => match result {
                Ok(()) => Ok(Exit::Interrupted),
                Err(error) => Err(Failure::new(Exit::Internal, "cannot listen for Ctrl-C").because(&error)),
            },
        };
        // What comes next must not continue a line that broke off.
        show.end_line(output)?;
        if matches!(result, Ok(Exit::Interrupted)) {
            output.note("stopped");
        }
        result
    }

    async fn answer(
        &self,
        text: &str,
        show: &mut Show,
        output: &mut Output,
    ) -> Result<Exit, Failure> {
        let pipe = self
            .daemon
            .say(&self.session, text, self.class.class())
            .await?;
        let pipe = pipe::Receiver::from_owned_fd(OwnedFd::from(pipe)).map_err(|error| {
            Failure::new(Exit::Internal, "the daemon's answer is no pipe").because(&error)
        })?;
        let mut lines = BufReader::new(pipe).lines();
        loop {
            let line = lines
                .next_line()
                .await
                .map_err(|error| {
                    Failure::new(Exit::Unreachable, "the answer broke off").because(&error)
                })?
                .ok_or_else(|| {
                    Failure::new(
                        Exit::Unreachable,
                        "the answer broke off: the daemon stopped",
                    )
                    .hint("what a device had begun may have been done; `autoglmctl read` asks it")
                })?;
            let json: Json = serde_json::from_str(&line).map_err(|error| unreadable(&error))?;
            if output.form == Form::Json {
                output.json_line(self.stamped(&json))?;
            }
            let event: Event = serde_json::from_value(json).map_err(|error| unreadable(&error))?;
            if output.form == Form::Text {
                if event.names_things() {
                    show.learn_titles(&self.daemon).await;
                }
                show.event(&event, output)?;
            }
            if let Some(result) = show.settle(&event) {
                return result;
            }
        }
    }

    fn stamped(&self, event: &Json) -> Map<String, Json> {
        let mut line = event.as_object().cloned().unwrap_or_default();
        line.insert("session".to_owned(), json!(self.session));
        line
    }
}

fn unreadable(error: &serde_json::Error) -> Failure {
    Failure::new(Exit::Internal, "the daemon's answer cannot be read")
        .because(error)
        .hint("daemon and command line may be of different versions")
}
