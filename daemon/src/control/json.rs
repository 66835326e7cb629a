//! The JSON of answers, which the D-Bus door streams and the command line prints with `--json`.
//!
//! Version 1. Fields may be added; none is renamed or removed within a version. Durations are whole microseconds.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::router::conversation::{Report, SayError, SayEvent, SayTimings};
use crate::router::outcome::{CommandError, Done, Outcome, Timings};

/// One event of an answer as one JSON object.
#[must_use]
pub fn event(event: &SayEvent) -> Value {
    match event {
        SayEvent::Understood {
            calls,
            explanations,
        } => {
            json!({"event": "understood", "calls": calls, "explanations": explanations})
        }
        SayEvent::Executed {
            call,
            result,
            answer,
        } => {
            let mut object = executed(result);
            object.insert("event".to_owned(), json!("executed"));
            object.insert("call".to_owned(), json!(call));
            object.insert("answer".to_owned(), json!(answer));
            Value::Object(object)
        }
        SayEvent::Delta(text) => json!({"event": "delta", "text": text}),
        SayEvent::Done(report) => done(report),
        SayEvent::Failed(error) => failed(error),
    }
}

/// A command's result.
#[must_use]
pub fn executed(result: &Result<Done, CommandError>) -> Map<String, Value> {
    let mut object = match Outcome::of(result).to_json() {
        Value::Object(object) => object,
        _ => Map::new(),
    };
    if let Ok(done) = result {
        object.insert("timings_us".to_owned(), command_timings(&done.timings));
    }
    object
}

fn done(report: &Report) -> Value {
    let mut told = json!({
        "event": "done",
        "kind": report.kind.name(),
        "text": report.text,
        "trace": report.trace_id,
        "timings_us": say_timings(&report.timings),
    });
    if let Some(origin) = &report.origin {
        told["origin"] = origin.to_json();
    }
    told
}

/// An answer that failed.
#[must_use]
pub fn failed(error: &SayError) -> Value {
    json!({"event": "failed", "error": error.name(), "message": error.to_string()})
}

fn command_timings(timings: &Timings) -> Value {
    json!({
        "noted": micros(timings.noted),
        "written": micros(timings.written),
        "answered": micros(timings.answered),
        "total": micros(timings.total),
    })
}

fn say_timings(timings: &SayTimings) -> Value {
    let comprehension = &timings.comprehension;
    let mut object = json!({
        "load": micros(timings.load),
        "queue": micros(comprehension.queue),
        "encode": micros(comprehension.encode),
        "infer": micros(comprehension.infer),
        "decode": micros(comprehension.decode),
        "devices": micros(timings.devices),
        "keep": micros(timings.keep),
        "total": micros(timings.total),
    });
    let mut add = |name: &str, duration: Option<Duration>| {
        if let (Some(object), Some(duration)) = (object.as_object_mut(), duration) {
            object.insert(name.to_owned(), micros(duration));
        }
    };
    add("first_frame", timings.first_frame);
    add("first_text", timings.first_text);
    if let Some(chat) = &timings.chat {
        add("chat_queue", Some(chat.queue));
        add("chat_encode", Some(chat.encode));
        add("chat_prefill", Some(chat.prefill));
        add("chat_decode", Some(chat.decode));
    }
    object
}

fn micros(duration: Duration) -> Value {
    json!(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}
