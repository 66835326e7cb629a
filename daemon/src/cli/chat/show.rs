//! How an answer looks in a terminal, and what it comes to.

use std::collections::HashMap;

use serde_json::{Map, Value as Json};

use super::event::{Event, Explanation};
use crate::cli::bus::Daemon;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::text::{self, plain};
use crate::understanding::{Call, Operation};

/// Shows one answer after the other.
#[derive(Debug)]
pub struct Show {
    explain: bool,
    /// By id; asked for once, and again when an id is not among them.
    titles: HashMap<String, String>,
    /// Whether the answer at hand was already shown in pieces.
    is_shown: bool,
    /// Whether the cursor stands within a line of the answer.
    is_within_line: bool,
    /// How the first command that failed did.
    failed: Option<Exit>,
}

impl Show {
    /// With or without explanations.
    #[must_use]
    pub fn new(explain: bool) -> Self {
        Self {
            explain,
            titles: HashMap::new(),
            is_shown: false,
            is_within_line: false,
            failed: None,
        }
    }

    /// A new answer begins.
    pub fn begin(&mut self) {
        self.is_shown = false;
        self.failed = None;
    }

    /// Asks the daemon for the things' titles. Who may talk may perhaps not look; then ids have to do.
    pub async fn learn_titles(&mut self, daemon: &Daemon) {
        if let Ok(things) = daemon.things().await {
            self.titles = things
                .into_iter()
                .map(|thing| (thing.id, thing.title))
                .collect();
        }
    }

    /// Shows an event.
    ///
    /// # Errors
    /// [`Failure::output`]
    pub fn event(&mut self, event: &Event, output: &mut Output) -> Result<(), Failure> {
        match event {
            Event::Understood {
                calls,
                explanations,
            } => {
                if self.explain {
                    explanations
                        .iter()
                        .for_each(|explanation| output.note(&explanation_text(explanation)));
                }
                calls
                    .iter()
                    .for_each(|call| output.note(&self.call_text(call)));
            }
            Event::Executed {
                answer, timings_us, ..
            } => {
                self.line(answer, output)?;
                if self.explain && !timings_us.is_empty() {
                    output.note(&format!("  device: {}", timings_text(timings_us)));
                }
            }
            Event::Delta { text } => self.piece(text, output)?,
            Event::Done {
                text,
                trace,
                timings_us,
                origin,
                ..
            } => {
                if !self.is_shown {
                    self.line(text, output)?;
                }
                self.end_line(output)?;
                if let Some(origin) = origin
                    && (self.explain || origin.is_notable())
                {
                    output.note(&format!("  {}", plain(&origin.to_string())));
                }
                if self.explain {
                    output.note(&format!("  time: {}", timings_text(timings_us)));
                    output.note(&format!("  trace: {trace}"));
                }
            }
            Event::Failed { .. } | Event::Unknown => {}
        }
        Ok(())
    }

    /// What the answer came to, once `event` is its last.
    pub fn settle(&mut self, event: &Event) -> Option<Result<Exit, Failure>> {
        match event {
            Event::Executed {
                error: Some(error), ..
            } => {
                self.failed.get_or_insert(Exit::of_error(error));
                None
            }
            Event::Done { kind, .. } => Some(Ok(match kind.as_str() {
                "question" => Exit::Asked,
                "refusal" => Exit::Refused,
                _ => self.failed.unwrap_or(Exit::Success),
            })),
            Event::Failed { error, message } => Some(Err(Failure::daemon(error, message.as_str()))),
            _ => None,
        }
    }

    /// Ends the line in which the cursor stands, if any.
    ///
    /// # Errors
    /// [`Failure::output`]
    pub fn end_line(&mut self, output: &mut Output) -> Result<(), Failure> {
        if std::mem::take(&mut self.is_within_line) {
            output.text("\n")?;
        }
        Ok(())
    }

    fn line(&mut self, text: &str, output: &mut Output) -> Result<(), Failure> {
        self.piece(text, output)?;
        self.end_line(output)
    }

    fn piece(&mut self, text: &str, output: &mut Output) -> Result<(), Failure> {
        if text.is_empty() {
            return Ok(());
        }
        self.is_shown = true;
        self.is_within_line = !text.ends_with('\n');
        output.text(&plain(text))
    }

    fn call_text(&self, call: &Call) -> String {
        let id = call.thing.as_str();
        let thing = self.titles.get(id).map_or(id, String::as_str);
        match &call.operation {
            Operation::Invoke {
                action,
                input: None | Some(Json::Null),
            } => format!("→ {thing}: {action}"),
            Operation::Invoke {
                action,
                input: Some(input),
            } => format!("→ {thing}: {action} {}", text::value(input, None)),
            Operation::Read { property } => format!("→ {thing}: read {property}"),
            Operation::Write { property, value } => {
                format!("→ {thing}: {property} := {}", text::value(value, None))
            }
        }
    }
}

fn explanation_text(explanation: &Explanation) -> String {
    let Explanation {
        clause,
        phrase,
        similarity,
        margin,
        reason,
    } = explanation;
    let near = phrase
        .as_ref()
        .map_or_else(String::new, |phrase| format!(" ~ {phrase:?}"));
    format!("  {clause:?}{near}  similarity {similarity:.3}, margin {margin:.3}: {reason}")
}

/// The stages in the order in which they happen; ones that are not known here come last.
const STAGES: [&str; 17] = [
    "load",
    "queue",
    "encode",
    "infer",
    "decode",
    "noted",
    "written",
    "first_frame",
    "answered",
    "devices",
    "chat_queue",
    "chat_encode",
    "chat_prefill",
    "first_text",
    "chat_decode",
    "keep",
    "total",
];

fn timings_text(timings: &Map<String, Json>) -> String {
    let known = STAGES
        .iter()
        .filter_map(|stage| timings.get_key_value(*stage));
    let unknown = timings
        .iter()
        .filter(|(stage, _)| !STAGES.contains(&stage.as_str()));
    let stage = |(name, micros): (&String, &Json)| {
        Some(format!(
            "{} {}",
            name.replace('_', " "),
            text::millis(micros.as_u64()?)
        ))
    };
    known
        .chain(unknown)
        .filter_map(stage)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settled(events: &[Json]) -> Result<Exit, Exit> {
        let mut show = Show::new(false);
        show.begin();
        let mut events = events
            .iter()
            .map(|event| serde_json::from_value(event.clone()).unwrap());
        let result = events
            .find_map(|event| show.settle(&event))
            .expect("the last event settles");
        result.map_err(|failure| failure.exit)
    }

    #[test]
    fn an_answer_comes_to_what_the_devices_and_the_daemon_said() {
        let ok = json!({"event": "executed", "answer": "On."});
        let away = json!({"event": "executed", "answer": "It is away.", "error": "NotConnected"});
        let denied = json!({"event": "executed", "answer": "No.", "error": "AccessDenied"});
        let done = |kind: &str| json!({"event": "done", "kind": kind, "text": ""});
        assert_eq!(settled(&[ok.clone(), done("command")]), Ok(Exit::Success));
        assert_eq!(
            settled(&[ok, away, denied, done("command")]),
            Ok(Exit::Device)
        );
        assert_eq!(settled(&[done("question")]), Ok(Exit::Asked));
        assert_eq!(settled(&[done("refusal")]), Ok(Exit::Refused));
        assert_eq!(
            settled(&[
                json!({"event": "delta", "text": "Hi"}),
                done("conversation")
            ]),
            Ok(Exit::Success)
        );
        let failed = json!({"event": "failed", "error": "ModelUnavailable", "message": "loading"});
        assert_eq!(settled(&[failed]), Err(Exit::Unavailable));
    }

    #[test]
    fn calls_are_shown_by_title_or_else_by_id() {
        let call: Call = serde_json::from_value(json!({
            "thing": "urn:lamp-1", "operation": {"invoke": {"action": "set_brightness", "input": {"level": 40}}},
        }))
        .unwrap();
        let mut show = Show::new(false);
        assert_eq!(
            show.call_text(&call),
            "→ urn:lamp-1: set_brightness level=40"
        );
        show.titles
            .insert("urn:lamp-1".to_owned(), "Desk lamp".to_owned());
        assert_eq!(
            show.call_text(&call),
            "→ Desk lamp: set_brightness level=40"
        );
    }

    #[test]
    fn stages_are_shown_in_the_order_in_which_they_happen() {
        let timings = json!({"total": 23_400, "infer": 8_000, "queue": 10, "new_stage": 1, "first_frame": 12_000});
        let text = timings_text(timings.as_object().unwrap());
        assert_eq!(
            text,
            "queue 0.01 ms, infer 8.00 ms, first frame 12.0 ms, total 23.4 ms, new stage 0.00 ms"
        );
    }
}
