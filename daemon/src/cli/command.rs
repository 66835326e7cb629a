//! `invoke`, `read` and `write`: one command to one thing, and the device's own answer.

use serde_json::{Map, Value as Json, json};

use super::bus::{Daemon, Request};
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Form, Output};
use super::{input, target, text};
use crate::things::description::DataSchema;

/// Invokes an action.
///
/// # Errors
/// [`Failure`]
pub async fn invoke(
    daemon: &Daemon,
    thing: &str,
    action: &str,
    words: &[String],
    id: Option<&str>,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let things = daemon.things().await?;
    let thing = target::thing(&things, thing)?;
    let description = target::description(thing)?;
    let (name, action) = target::action(&description, action)?;
    let input = input::input(action.input.as_ref(), words).map_err(|failure| {
        with_usage(
            failure,
            &thing.title,
            name,
            &text::usage(action.input.as_ref()),
        )
    })?;
    let reply = daemon
        .request(&thing.id, Request::Invoke(name, input), id)
        .await?;
    let about = About {
        thing: &thing.id,
        title: &thing.title,
        kind: "action",
        name,
    };
    answer(&about, reply, action.output.as_ref(), output)
}

/// Reads a property.
///
/// # Errors
/// [`Failure`]
pub async fn read(
    daemon: &Daemon,
    thing: &str,
    property: &str,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let things = daemon.things().await?;
    let thing = target::thing(&things, thing)?;
    let description = target::description(thing)?;
    let (name, property) = target::property(&description, property)?;
    let reply = daemon.request(&thing.id, Request::Read(name), None).await?;
    let about = About {
        thing: &thing.id,
        title: &thing.title,
        kind: "property",
        name,
    };
    answer(&about, reply, Some(&property.schema), output)
}

/// Writes a property.
///
/// # Errors
/// [`Failure`]
pub async fn write(
    daemon: &Daemon,
    thing: &str,
    property: &str,
    words: &[String],
    id: Option<&str>,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let things = daemon.things().await?;
    let thing = target::thing(&things, thing)?;
    let description = target::description(thing)?;
    let (name, property) = target::property(&description, property)?;
    let value = input::value(&property.schema, words).map_err(|failure| {
        with_usage(
            failure,
            &thing.title,
            name,
            &text::usage(Some(&property.schema)),
        )
    })?;
    let reply = daemon
        .request(&thing.id, Request::Write(name, value), id)
        .await?;
    let about = About {
        thing: &thing.id,
        title: &thing.title,
        kind: "property",
        name,
    };
    answer(&about, reply, Some(&property.schema), output)
}

struct About<'a> {
    thing: &'a str,
    title: &'a str,
    kind: &'static str,
    name: &'a str,
}

/// The device's output goes to standard output; that it has answered at all, and when, to standard error.
fn answer(
    about: &About<'_>,
    reply: Map<String, Json>,
    schema: Option<&DataSchema>,
    output: &mut Output,
) -> Result<Exit, Failure> {
    if output.form == Form::Json {
        let mut result = reply;
        // D-Bus has no null: an answer without output lacks it, and here it is said.
        result.entry("output").or_insert(Json::Null);
        result.insert("thing".to_owned(), json!(about.thing));
        result.insert(about.kind.to_owned(), json!(about.name));
        output.json("result", &Json::Object(result))?;
        return Ok(Exit::Success);
    }
    if let Some(value) = reply.get("output").filter(|value| !value.is_null()) {
        output.text(&format!("{}\n", text::value(value, schema)))?;
    }
    let answered = reply
        .get("timings_us")
        .and_then(|timings| timings["answered"].as_u64())
        .filter(|micros| *micros > 0);
    let when = answered.map_or_else(String::new, |micros| {
        format!(" after {}", text::millis(micros))
    });
    output.note(&format!("{} answered {}{when}", about.title, about.name));
    Ok(Exit::Success)
}

fn with_usage(failure: Failure, thing: &str, name: &str, usage: &str) -> Failure {
    let message = format!("{thing}: {name}: {}", failure.message);
    let hint = failure
        .hint
        .clone()
        .or_else(|| (!usage.is_empty()).then(|| format!("{name} takes {usage}")));
    Failure {
        message,
        hint,
        ..failure
    }
}
