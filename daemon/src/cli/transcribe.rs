//! `transcribe`: what is said in a sound file. The file itself goes to the daemon, as a descriptor; nothing here reads sound.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value as Json, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::unix::pipe;

use super::args::conversation::TranscribeArgs;
use super::bus::Daemon;
use super::exit::Exit;
use super::failure::Failure;
use super::output::{ASIDE, Form, Output};
use super::text::plain;

/// A line of the daemon's answer.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event {
    Segment(Segment),
    Done(Done),
    Failed {
        error: String,
        message: String,
    },
    /// Of a later version.
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize)]
struct Segment {
    start_ms: u64,
    end_ms: u64,
    text: String,
    doubtful: bool,
}

#[derive(Debug, Deserialize)]
struct Done {
    sound_ms: u64,
}

/// Runs `transcribe`.
///
/// # Errors
/// [`Failure`]
pub async fn run(
    daemon: &Daemon,
    args: TranscribeArgs,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let sound = sound(&args.file)?;
    let answer = daemon
        .transcribe(
            sound,
            args.raw,
            args.language.as_deref(),
            args.class.class(),
        )
        .await?;
    let pipe = pipe::Receiver::from_owned_fd(OwnedFd::from(answer)).map_err(|error| {
        Failure::new(Exit::Internal, "the daemon's answer is no pipe").because(&error)
    })?;
    let mut lines = BufReader::new(pipe).lines();
    let mut segments = Vec::new();
    loop {
        let line = lines.next_line().await.map_err(|error| {
            Failure::new(Exit::Unreachable, "the answer broke off").because(&error)
        })?;
        let line = line.ok_or_else(|| {
            Failure::new(
                Exit::Unreachable,
                "the answer broke off: the daemon stopped",
            )
        })?;
        let json: Json = serde_json::from_str(&line).map_err(|error| unreadable(&error))?;
        let event = serde_json::from_value(json.clone()).map_err(|error| unreadable(&error))?;
        match event {
            Event::Segment(segment) => {
                if output.form == Form::Text {
                    output.text(&line_of(&segment, args.times))?;
                }
                segments.push((segment, json));
            }
            Event::Done(done) => return end(&done, segments, json, output),
            Event::Failed { error, message } => return Err(Failure::daemon(&error, message)),
            Event::Other => {}
        }
    }
}

fn end(
    done: &Done,
    segments: Vec<(Segment, Json)>,
    mut told: Json,
    output: &mut Output,
) -> Result<Exit, Failure> {
    match output.form {
        Form::Json => {
            let texts: Vec<&str> = segments.iter().map(|(one, _)| one.text.as_str()).collect();
            let text = texts.join(" ");
            let segments = segments.into_iter().map(|(_, json)| without_event(json));
            told = without_event(told);
            told["text"] = json!(text);
            told["segments"] = Json::Array(segments.collect());
            output.json("transcript", &told)?;
        }
        Form::Text if segments.is_empty() => {
            output.note(&format!("nobody speaks in {}", clock(done.sound_ms)));
        }
        Form::Text => {}
    }
    Ok(Exit::Success)
}

fn without_event(mut json: Json) -> Json {
    if let Some(object) = json.as_object_mut() {
        object.remove("event");
    }
    json
}

/// The file, opened: the daemon may not be able to.
fn sound(file: &Path) -> Result<OwnedFd, Failure> {
    if file == Path::new("-") {
        let stdin = io::stdin();
        if stdin.is_terminal() {
            return Err(Failure::new(
                Exit::Usage,
                "standard input is a terminal, which gives no sound",
            )
            .hint("arecord -f S16_LE -r 16000 -d 5 | autoglmctl transcribe -"));
        }
        let sound = stdin.as_fd().try_clone_to_owned();
        return sound.map_err(|error| {
            Failure::new(Exit::Internal, "cannot pass standard input on").because(&error)
        });
    }
    let unusable = |what: &str| format!("{what} {}", file.display());
    let opened = File::open(file);
    let opened = opened
        .map_err(|error| Failure::new(Exit::Usage, unusable("cannot open")).because(&error))?;
    if opened.metadata().is_ok_and(|facts| facts.is_dir()) {
        return Err(Failure::new(
            Exit::Usage,
            unusable("no sound file but a directory:"),
        ));
    }
    Ok(OwnedFd::from(opened))
}

fn line_of(segment: &Segment, times: bool) -> String {
    let text = plain(&segment.text);
    if !times {
        return format!("{text}\n");
    }
    let (start, end) = (clock(segment.start_ms), clock(segment.end_ms));
    let doubt = if segment.doubtful { "  (doubtful)" } else { "" };
    format!("{ASIDE}{start:>8} {end:>8}{ASIDE:#}  {text}{ASIDE}{doubt}{ASIDE:#}\n")
}

/// Minutes, seconds and hundredths.
fn clock(ms: u64) -> String {
    format!("{}:{:02}.{:02}", ms / 60_000, ms / 1000 % 60, ms / 10 % 100)
}

fn unreadable(error: &serde_json::Error) -> Failure {
    Failure::new(Exit::Internal, "the daemon's answer cannot be read")
        .because(error)
        .hint("daemon and command line may be of different versions")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_times_where_they_are_wanted_and_no_control_characters() {
        let segment = Segment {
            start_ms: 61_230,
            end_ms: 3_600_000,
            text: "turn \u{1b}[31mit on".to_owned(),
            doubtful: true,
        };
        let seen = |times| anstream::adapter::strip_str(&line_of(&segment, times)).to_string();
        assert!(!line_of(&segment, false).contains('\u{1b}'));
        let timed = seen(true);
        assert!(
            timed.contains("1:01.23 60:00.00") && timed.ends_with("(doubtful)\n"),
            "{timed}"
        );
        assert_eq!(seen(false).matches("it on").count(), 1);
    }
}
