//! `models verify` and `models benchmark`: the daemon tries bundles, each in a process of its own, and this shows what it found.

use indicatif::HumanBytes;
use serde_json::{Map, Value as Json, json};

use super::bundles::names;
use super::bus::Daemon;
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Form, Output};
use super::table::Table;
use super::text::plain;

/// Runs `models verify`: one bundle, or all that the daemon finds.
///
/// # Errors
/// [`Failure`]; with all, those that fail are told and the others tried all the same.
pub async fn verify(
    daemon: &Daemon,
    model: Option<&str>,
    output: &mut Output,
) -> Result<Exit, Failure> {
    if let Some(model) = model {
        let examined = daemon.verify_model(model).await?;
        match output.form {
            Form::Json => output.json("verified", &json!([examined]))?,
            Form::Text => output.text(&verified_text(&examined))?,
        }
        return Ok(Exit::Success);
    }
    let (mut sound, mut first) = (Vec::new(), None);
    for name in names(&daemon.bundles().await?) {
        match daemon.verify_model(&name).await {
            Ok(examined) => {
                if output.form == Form::Text {
                    output.text(&verified_text(&examined))?;
                }
                sound.push(examined);
            }
            Err(error) if [Exit::Unreachable, Exit::Denied].contains(&error.exit) => {
                return Err(error);
            }
            Err(error) => {
                output.failure(&error);
                first.get_or_insert(error.exit);
            }
        }
    }
    if output.form == Form::Json {
        output.json("verified", &json!(sound))?;
    } else if sound.is_empty() && first.is_none() {
        output.note("no bundles: `models add` puts them where the daemon looks");
    }
    Ok(first.unwrap_or(Exit::Success))
}

/// Runs `models benchmark`.
///
/// # Errors
/// [`Failure`]
pub async fn benchmark(daemon: &Daemon, model: &str, output: &mut Output) -> Result<Exit, Failure> {
    let examined = daemon.benchmark_model(model).await?;
    match output.form {
        Form::Json => output.json("benchmark", &json!(examined))?,
        Form::Text => output.text(&benchmark_text(&examined, output.width))?,
    }
    Ok(Exit::Success)
}

fn number(object: &Map<String, Json>, member: &str) -> f64 {
    object.get(member).and_then(Json::as_f64).unwrap_or(0.0)
}

fn word(object: &Map<String, Json>, member: &str) -> String {
    plain(
        object
            .get(member)
            .and_then(Json::as_str)
            .unwrap_or_default(),
    )
    .into_owned()
}

fn verified_text(examined: &Map<String, Json>) -> String {
    format!(
        "{}: sound: {} files, {}, digests in {:.0} ms; loaded and probe passed in {:.0} ms on {}\n",
        word(examined, "name"),
        number(examined, "files"),
        HumanBytes(number(examined, "bytes") as u64),
        number(examined, "verify_ms"),
        number(examined, "load_ms"),
        word(examined, "provider"),
    )
}

fn benchmark_text(examined: &Map<String, Json>, width: Option<u16>) -> String {
    let mut table = Table::new(&["WHAT", "VALUE", "UNIT", "ROUNDS"], width);
    let mebibytes = |member: &str| format!("{:.1}", number(examined, member) / 1024.0);
    table.row([
        "on disk",
        &format!("{:.1}", number(examined, "bytes") / f64::from(1 << 20)),
        "MiB",
        "",
    ]);
    table.row([
        "digests",
        &format!("{:.0}", number(examined, "verify_ms")),
        "ms",
        "1",
    ]);
    table.row([
        "loading and the probe",
        &format!("{:.0}", number(examined, "load_ms")),
        "ms",
        "1",
    ]);
    table.row(["memory after loading", &mebibytes("loaded_kib"), "MiB", ""]);
    table.row(["memory at most", &mebibytes("peak_kib"), "MiB", ""]);
    let figures = examined.get("figures").and_then(Json::as_array);
    for figure in figures.into_iter().flatten().filter_map(Json::as_object) {
        let value = number(figure, "value");
        let value = match value {
            value if value >= 100.0 => format!("{value:.0}"),
            value if value >= 1.0 => format!("{value:.1}"),
            value => format!("{value:.3}"),
        };
        table.row([
            word(figure, "what"),
            value,
            word(figure, "unit"),
            number(figure, "rounds").to_string(),
        ]);
    }
    format!(
        "{} ({}) on {}\n\n{}",
        word(examined, "name"),
        word(examined, "task"),
        word(examined, "provider"),
        table.render()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_benchmark_names_what_was_measured_and_how_often() {
        let examined = json!({"name": "m", "task": "vad", "provider": "CPU", "bytes": 1_048_576, "verify_ms": 3.2, "load_ms": 71.0,
            "loaded_kib": 2048, "peak_kib": 4096, "figures": [{"what": "a chunk", "value": 0.1234, "unit": "ms", "rounds": 200}]});
        let text = benchmark_text(examined.as_object().unwrap(), None);
        let text = anstream::adapter::strip_str(&text).to_string();
        for part in [
            "m (vad) on CPU",
            "on disk                1.0    MiB",
            "memory at most         4.0",
            "a chunk                0.123  ms    200",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
    }
}
