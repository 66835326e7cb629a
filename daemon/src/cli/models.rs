//! `models`: what runs the models, why not something else, and trying that again.

use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use super::args::models::ModelsCommand;
use super::bus::Daemon;
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Form, Output};
use super::table::Table;
use super::text::plain;
use super::{examine, tensors};

/// How long a proof is waited for unless told otherwise: the daemon gives each provider five minutes.
pub(super) const PATIENCE: Duration = Duration::from_secs(1800);

/// Runs `models`.
///
/// # Errors
/// [`Failure`]
pub async fn run(
    daemon: &Daemon,
    command: Option<ModelsCommand>,
    output: &mut Output,
) -> Result<Exit, Failure> {
    match command.unwrap_or(ModelsCommand::List) {
        ModelsCommand::List => {
            let models = daemon.models().await?;
            match output.form {
                Form::Json => output.json("models", &json!(models))?,
                Form::Text if models.is_empty() => {
                    output.note("no models yet: the configuration names them");
                }
                Form::Text => output.text(&list_text(&models, output.width))?,
            }
        }
        ModelsCommand::Providers => {
            let status = daemon.status().await?;
            let providers = status.get("providers").cloned().unwrap_or(json!([]));
            let found = providers.as_array().map(Vec::as_slice).unwrap_or_default();
            match output.form {
                Form::Json => output.json("providers", &providers)?,
                Form::Text if found.is_empty() => output.note(
                    "no providers besides the CPU: nobody looked, since no model's policy wants one, or none is there",
                ),
                Form::Text => output.text(&providers_text(found, output.width))?,
            }
        }
        ModelsCommand::Probe { model } => {
            let choice = daemon.probe_model(&model).await?;
            match output.form {
                Form::Json => output.json("probe", &json!(choice))?,
                Form::Text => output.text(&probe_text(&model, &Json::Object(choice)))?,
            }
        }
        ModelsCommand::Reload { model } => {
            let loaded = daemon.reload_models(model.as_deref()).await?;
            match output.form {
                Form::Json => output.json("reload", &json!(loaded))?,
                Form::Text => {
                    output.text(&format!("loaded anew: {}\n", plain(&loaded.join(", "))))?
                }
            }
        }
        ModelsCommand::Verify { model } => {
            return examine::verify(daemon, model.as_deref(), output).await;
        }
        ModelsCommand::Benchmark { model } => {
            return examine::benchmark(daemon, &model, output).await;
        }
        ModelsCommand::Run { model, file } => {
            return tensors::run(daemon, &model, &file, output).await;
        }
        ModelsCommand::Add(_) | ModelsCommand::Remove(_) => {
            return Err(Failure::new(
                Exit::Internal,
                "this command has a road of its own",
            ));
        }
    }
    Ok(Exit::Success)
}

fn word<'a>(object: &'a Map<String, Json>, member: &str) -> &'a str {
    object
        .get(member)
        .and_then(Json::as_str)
        .unwrap_or_default()
}

/// One row for each model; who was refused, and why, on lines of their own below.
fn list_text(models: &[Map<String, Json>], width: Option<u16>) -> String {
    let head = [
        "MODEL", "TASK", "STATE", "RUNS ON", "NODES", "TIME", "DETAIL",
    ];
    let mut table = Table::new(&head, width);
    let mut below = String::new();
    for model in models {
        let number = |member: &str| model.get(member).and_then(Json::as_f64).unwrap_or(0.0);
        let on = match (word(model, "provider"), word(model, "device")) {
            ("", _) => "-".to_owned(),
            ("CPU", _) => "CPU".to_owned(),
            (provider, device) => format!("{provider} ({device})"),
        };
        let (placed, left) = (number("nodes_placed"), number("nodes_left"));
        let nodes = match placed > 0.0 {
            true => format!("{placed} of {}", placed + left),
            false => "-".to_owned(),
        };
        let time = match number("time_ratio") {
            ratio if ratio > 0.0 => format!("{ratio:.2}x CPU"),
            _ => "-".to_owned(),
        };
        let refused: Vec<&[Json]> = model
            .get("refused")
            .and_then(Json::as_array)
            .into_iter()
            .flatten()
            .filter_map(|row| row.as_array().map(Vec::as_slice))
            .collect();
        let detail = match refused.is_empty() {
            true => word(model, "detail"),
            false => "another was wanted, see below",
        };
        let name = word(model, "name");
        table.row([
            name,
            word(model, "task"),
            word(model, "state"),
            &on,
            &nodes,
            &time,
            detail,
        ]);
        for row in refused {
            let cell = |at: usize| plain(row.get(at).and_then(Json::as_str).unwrap_or_default());
            let device = match cell(1) {
                device if device.is_empty() => String::new(),
                device => format!(" ({device})"),
            };
            below.push_str(&format!(
                "{} not on {}{device}: {}\n",
                plain(name),
                cell(0),
                cell(3)
            ));
        }
    }
    let mut text = table.render();
    if !below.is_empty() {
        text.push('\n');
        text.push_str(&below);
    }
    text
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn providers_text(found: &[Json], width: Option<u16>) -> String {
    let mut table = Table::new(
        &["PROVIDER", "DEVICE", "VENDOR", "LIBRARY", "DETAIL"],
        width,
    );
    for row in found.iter().filter_map(Json::as_object) {
        let facts: Vec<String> = row
            .get("facts")
            .and_then(Json::as_object)
            .into_iter()
            .flatten()
            .filter_map(|(name, value)| Some(format!("{name} {}", value.as_str()?)))
            .collect();
        let detail = match word(row, "problem") {
            "" => facts.join(", "),
            problem => problem.to_owned(),
        };
        let (provider, device) = (word(row, "provider"), word(row, "device"));
        table.row([
            or_dash(provider),
            or_dash(device),
            or_dash(word(row, "vendor")),
            word(row, "library"),
            detail.as_str(),
        ]);
    }
    table.render()
}

fn probe_text(model: &str, choice: &Json) -> String {
    let word = |value: &Json| plain(value.as_str().unwrap_or_default()).into_owned();
    let mut text = String::new();
    for tried in choice["refused"].as_array().into_iter().flatten() {
        text.push_str(&format!(
            "{}: {}\n",
            word(&tried["who"]),
            word(&tried["detail"])
        ));
    }
    let on = match (word(&choice["provider"]), word(&choice["device"])) {
        (provider, _) if provider == "CPU" => provider,
        (provider, device) => format!("{provider} on {device}"),
    };
    text.push_str(&format!("{on}: runs {}", plain(model)));
    let measured = &choice["measured"];
    if let Some(ratio) = measured["time_ratio"].as_f64() {
        let placed = measured["nodes_placed"].as_u64().unwrap_or(0);
        let all = placed + measured["nodes_left"].as_u64().unwrap_or(0);
        text.push_str(&format!(
            ", {placed} of {all} nodes, {ratio:.2} times the CPU's time, largest difference {:.1e}, compiled graph {}",
            measured["difference"].as_f64().unwrap_or(f64::NAN),
            word(&measured["compiled"])
        ));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_show_what_runs_them_and_why_not_another() {
        let models = [json!({
            "name": "silero-vad", "task": "vad", "state": "ready", "detail": "long", "provider": "OpenVINO", "device": "cpu",
            "nodes_placed": 1, "nodes_left": 0, "time_ratio": 1.5,
            "refused": [["ggml", "cpu", "wrong", "wrong: output \"stateN\" differs by 0.915"], ["*:npu", "", "absent", "absent: no such"]],
        })];
        let models: Vec<_> = models
            .iter()
            .map(|it| it.as_object().unwrap().clone())
            .collect();
        let text = anstream::adapter::strip_str(&list_text(&models, None)).to_string();
        for part in [
            "OpenVINO (cpu)",
            "1 of 1",
            "1.50x CPU",
            "silero-vad not on ggml (cpu): wrong: output \"stateN\"",
            "silero-vad not on *:npu: absent",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
    }

    #[test]
    fn a_library_that_crashed_is_shown_with_its_end() {
        let found = [
            json!({"library": "/p/libbad.so", "problem": "registering the library: the process crashed with SIGABRT"}),
        ];
        let text = providers_text(&found, None);
        assert!(
            text.contains("/p/libbad.so") && text.contains("SIGABRT"),
            "{text}"
        );
    }
}
