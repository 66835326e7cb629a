//! `wait`: until the daemon answers, its models are ready and things are online, or the time is up.

use std::time::Duration;

use serde_json::Value as Json;
use tokio::time::Instant;

use crate::cli::args::{Global, WaitArgs};
use crate::cli::connect;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::output::{Form, Output};
use crate::cli::target;

/// How long `wait` waits unless told otherwise. Chosen to be longer than the default models take to load on a small box.
const WAIT: Duration = Duration::from_secs(120);
/// How often `wait` looks. It looks instead of listening because the bus itself may not be there yet, and a look costs
/// the daemon one snapshot.
const LOOK: Duration = Duration::from_millis(200);

/// Waits until everything that was asked for is there.
///
/// # Errors
/// After the time is up, what was missing last: [`Exit::Unreachable`] for the daemon, [`Exit::Unavailable`] for the rest. At
/// once for what waiting does not mend, such as [`Exit::Denied`].
pub async fn wait(global: &Global, args: &WaitArgs, output: &mut Output) -> Result<Exit, Failure> {
    let deadline = Instant::now() + global.timeout.unwrap_or(WAIT);
    let mut missing = Failure::new(Exit::Unreachable, "the daemon did not answer");
    loop {
        match tokio::time::timeout_at(deadline, look(global, args)).await {
            Ok(Ok(())) => break,
            Ok(Err(failure)) if !matches!(failure.exit, Exit::Unreachable | Exit::Unavailable) => {
                return Err(failure);
            }
            Ok(Err(failure)) => missing = failure,
            Err(_) => return Err(timed_out(missing)),
        }
        if Instant::now() + LOOK >= deadline {
            return Err(timed_out(missing));
        }
        tokio::time::sleep(LOOK).await;
    }
    match output.form {
        Form::Json => output.json("ready", &Json::Bool(true))?,
        Form::Text => output.note("ready"),
    }
    Ok(Exit::Success)
}

fn timed_out(missing: Failure) -> Failure {
    Failure {
        message: format!("waited in vain: {}", missing.message),
        ..missing
    }
}

async fn look(global: &Global, args: &WaitArgs) -> Result<(), Failure> {
    let daemon = connect(global).await?;
    let status = daemon.status().await?;
    if !args.no_models {
        let models = status
            .get("models")
            .and_then(Json::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default();
        models_ready(models, &args.models)?;
    }
    if !args.things.is_empty() {
        let things = daemon.things().await?;
        for wanted in &args.things {
            // A thing that is not known yet may come; an ambiguous title stays one, but says so at the end.
            let thing = target::thing(&things, wanted).map_err(|failure| Failure {
                exit: Exit::Unavailable,
                ..failure
            })?;
            if !thing.online {
                return Err(Failure::new(
                    Exit::Unavailable,
                    format!("{} is not connected", thing.title),
                )
                .hint("`autoglmctl links` shows why"));
            }
        }
    }
    Ok(())
}

/// Whether the wanted models (all, if none is named) are ready. `missing` and `disabled` may still become it: the daemon
/// looks at them again by itself.
pub(super) fn models_ready(models: &[Json], wanted: &[String]) -> Result<(), Failure> {
    let is_wanted = |model: &&Json| {
        wanted.is_empty()
            || wanted
                .iter()
                .any(|wanted| model["name"] == wanted.as_str() || model["task"] == wanted.as_str())
    };
    for wanted in wanted {
        if !models
            .iter()
            .any(|model| model["name"] == wanted.as_str() || model["task"] == wanted.as_str())
        {
            return Err(Failure::new(
                Exit::Unknown,
                format!("no model is called {wanted:?}, and none has this task"),
            )
            .hint("`autoglmctl models` lists them"));
        }
    }
    match models
        .iter()
        .filter(is_wanted)
        .find(|model| model["state"] != "ready")
    {
        None => Ok(()),
        Some(model) => {
            let word = |member: &str| model[member].as_str().unwrap_or("?").to_owned();
            let message = format!(
                "the model {} is {}: {}",
                word("name"),
                word("state"),
                word("detail")
            );
            Err(Failure::new(Exit::Unavailable, message)
                .hint("`autoglmctl models` shows how they stand"))
        }
    }
}
