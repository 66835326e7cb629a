//! Where output goes: data to standard output, everything else to standard error.
//!
//! Text is written with its colours, and the streams take them out where they are not wanted.

use std::io::{self, IsTerminal as _, Write as _};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Effects, Style};
use serde_json::{Map, Value as Json, json};

use super::failure::Failure;
use super::text::plain;

/// Version of the JSON form.
pub const JSON_VERSION: u32 = 1;

const ERROR: Style = AnsiColor::Red.on_default().effects(Effects::BOLD);
const HINT: Style = Style::new().effects(Effects::BOLD);
/// For what accompanies an answer.
pub const ASIDE: Style = Style::new().effects(Effects::DIMMED);

/// For whom output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// The two streams of a run.
#[derive(Debug)]
pub struct Output {
    /// For whom.
    pub form: Form,
    /// The terminal's width; `None` where standard output is none.
    pub width: Option<u16>,
    out: AutoStream<io::Stdout>,
    err: AutoStream<io::Stderr>,
}

impl Output {
    /// On the process's streams.
    #[must_use]
    pub fn new(form: Form, color: ColorChoice) -> Self {
        let stdout = io::stdout();
        let width = stdout
            .is_terminal()
            .then(terminal_size::terminal_size)
            .flatten()
            .map(|(width, _)| width.0);
        Self {
            form,
            width,
            out: AutoStream::new(stdout, color),
            err: AutoStream::new(io::stderr(), color),
        }
    }

    /// Writes text (made harmless by its maker) to standard output, at once.
    ///
    /// # Errors
    /// [`Failure::output`].
    pub fn text(&mut self, text: &str) -> Result<(), Failure> {
        let written = self
            .out
            .write_all(text.as_bytes())
            .and_then(|()| self.out.flush());
        written.map_err(|error| Failure::output(&error))
    }

    /// Writes `{"version": 1, key: value}` in one line.
    ///
    /// # Errors
    /// [`Failure::output`].
    pub fn json(&mut self, key: &str, value: &Json) -> Result<(), Failure> {
        self.json_line(Map::from_iter([(key.to_owned(), value.clone())]))
    }

    /// Writes an object in one line, with its version.
    ///
    /// # Errors
    /// [`Failure::output`].
    pub fn json_line(&mut self, mut object: Map<String, Json>) -> Result<(), Failure> {
        object.insert("version".to_owned(), json!(JSON_VERSION));
        self.text(&format!("{}\n", Json::Object(object)))
    }

    /// Tells something beside the data. Standard error that cannot be written is nobody's concern.
    pub fn note(&mut self, text: &str) {
        let _ = writeln!(self.err, "{ASIDE}{}{ASIDE:#}", plain(text));
    }

    /// Tells a failure.
    pub fn failure(&mut self, failure: &Failure) {
        let _ = match self.form {
            Form::Json => writeln!(
                self.err,
                "{}",
                json!({"version": JSON_VERSION, "error": failure.to_json()})
            ),
            Form::Text => self.err.write_all(failure_text(failure).as_bytes()),
        };
    }
}

fn failure_text(failure: &Failure) -> String {
    let mut text = format!("{ERROR}error:{ERROR:#} {}\n", plain(&failure.message));
    for cause in &failure.causes {
        text.push_str(&format!("  caused by: {}\n", plain(cause)));
    }
    if let Some(hint) = &failure.hint {
        text.push_str(&format!("{HINT}hint:{HINT:#} {}\n", plain(hint)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::exit::Exit;

    #[test]
    fn a_failure_is_a_line_its_causes_and_a_hint() {
        let cause = io::Error::other("no such socket");
        let failure = Failure::new(Exit::Unreachable, "cannot reach the system bus")
            .because(&cause)
            .hint("start it");
        let text = anstream::adapter::strip_str(&failure_text(&failure)).to_string();
        assert_eq!(
            text,
            "error: cannot reach the system bus\n  caused by: no such socket\nhint: start it\n"
        );
    }
}
