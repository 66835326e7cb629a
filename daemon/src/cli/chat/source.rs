//! Where sentences come from: a person at a terminal, with line editing and history, or lines from a pipe.

use std::fs;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Behavior, Config, Editor};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines, Stdin};

use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::output::Form;

const PROMPT: &str = "> ";
/// Sentences that the history keeps; chosen to be more than anybody looks back.
const HISTORY: usize = 1000;

/// A source of sentences.
#[derive(Debug)]
pub enum Source {
    /// A terminal.
    Terminal(Terminal),
    /// Anything else.
    Lines(Lines<BufReader<Stdin>>),
}

/// A terminal with its line editor.
#[derive(Debug)]
pub struct Terminal {
    /// `None` only while a thread reads with it.
    editor: Option<Editor<(), FileHistory>>,
    history: Option<PathBuf>,
}

impl Source {
    /// On standard input.
    ///
    /// # Errors
    /// [`Exit::Internal`] for a terminal that cannot be used.
    pub fn open(form: Form) -> Result<Self, Failure> {
        if !io::stdin().is_terminal() {
            return Ok(Self::Lines(BufReader::new(tokio::io::stdin()).lines()));
        }
        // The prompt must not get among data that goes elsewhere.
        let behavior = match form == Form::Text && io::stdout().is_terminal() {
            true => Behavior::Stdio,
            false => Behavior::PreferTerm,
        };
        let config = Config::builder()
            .behavior(behavior)
            .max_history_size(HISTORY)
            .map_err(|error| unusable(&error))?
            .history_ignore_space(true)
            .build();
        let mut editor = Editor::with_config(config).map_err(|error| unusable(&error))?;
        let history = history_path();
        if let Some(path) = &history {
            // None yet, or not readable: then there is no history.
            let _ = editor.load_history(path);
        }
        Ok(Self::Terminal(Terminal {
            editor: Some(editor),
            history,
        }))
    }

    /// Whether a person types.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }

    /// The next sentence that is not empty; `None` at the end.
    ///
    /// # Errors
    /// [`Exit::Internal`] for a terminal, [`Exit::Usage`] for a pipe that cannot be read (or holds no text),
    /// [`Exit::Interrupted`] for Ctrl-C while a pipe has nothing.
    pub async fn next(&mut self) -> Result<Option<String>, Failure> {
        loop {
            let line = match self {
                Self::Terminal(terminal) => terminal.line().await?,
                Self::Lines(lines) => tokio::select! {
                    line = lines.next_line() => line.map_err(|error| {
                        Failure::new(Exit::Usage, "cannot read standard input").because(&error)
                    })?,
                    _ = tokio::signal::ctrl_c() => return Err(Failure::interrupted()),
                },
            };
            match line {
                Some(line) if line.trim().is_empty() => {}
                line => return Ok(line.map(|line| line.trim().to_owned())),
            }
        }
    }
}

impl Terminal {
    async fn line(&mut self) -> Result<Option<String>, Failure> {
        let Some(mut editor) = self.editor.take() else {
            return Ok(None);
        };
        // The editor blocks: a thread of its own, so that the connection to the bus lives on.
        let read = tokio::task::spawn_blocking(move || {
            let line = editor.readline(PROMPT);
            (editor, line)
        });
        let (mut editor, line) = read.await.map_err(|error| {
            Failure::new(Exit::Internal, "the line editor failed").because(&error)
        })?;
        let line = match line {
            Ok(line) => line,
            Err(ReadlineError::Eof | ReadlineError::Interrupted) => return Ok(None),
            Err(error) => return Err(unusable(&error)),
        };
        if editor.add_history_entry(line.as_str()).unwrap_or_default()
            && let Some(path) = &self.history
        {
            // A history that cannot be kept is no reason to stop talking.
            let _ = editor.append_history(path);
        }
        self.editor = Some(editor);
        Ok(Some(line))
    }
}

/// `$XDG_STATE_HOME/autoglmctl/history`, in a directory of the person's own (the editor makes the file readable to nobody else).
fn history_path() -> Option<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let state =
        absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    let dir = state.join("autoglmctl");
    fs::create_dir_all(&dir).ok()?;
    Some(dir.join("history"))
}

fn unusable(error: &ReadlineError) -> Failure {
    Failure::new(Exit::Internal, "the terminal cannot be used").because(error)
}
