//! `status`, `links` and `wait`: how the daemon stands.

use std::time::Duration;

use serde_json::{Map, Value as Json, json};
use tokio::time::Instant;

use super::args::{Global, WaitArgs};
use super::bus::Daemon;
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Form, Output};
use super::table::Table;
use super::target;
use super::text::{self, plain};

/// How long `wait` waits unless told otherwise. Chosen to be longer than the default models take to load on a small box.
const WAIT: Duration = Duration::from_secs(120);
/// How often `wait` looks. It looks instead of listening because the bus itself may not be there yet, and a look costs
/// the daemon one snapshot.
const LOOK: Duration = Duration::from_millis(200);

/// Shows everything.
///
/// # Errors
/// [`Failure`]
pub async fn status(daemon: &Daemon, output: &mut Output) -> Result<Exit, Failure> {
    let status = Json::Object(daemon.status().await?);
    match output.form {
        Form::Json => output.json("status", &status)?,
        Form::Text => output.text(&status_text(&status, output.width))?,
    }
    Ok(Exit::Success)
}

/// Lists the links.
///
/// # Errors
/// [`Failure`]
pub async fn links(daemon: &Daemon, output: &mut Output) -> Result<Exit, Failure> {
    let links = daemon.links().await?;
    if links.is_empty() && output.form == Form::Text {
        output.note(
            "no links yet: the configuration names them, one [[device]] for each device with its links",
        );
    }
    if output.form == Form::Json {
        output.json("links", &json!(links))?;
    } else if !links.is_empty() {
        output.text(&links_text(&links, output.width))?;
    }
    Ok(Exit::Success)
}

/// Columns: head and member.
type Columns = [(&'static str, &'static str); 4];
const LINK: Columns = [
    ("LINK", "name"),
    ("ADDRESS", "address"),
    ("STATE", "state"),
    ("DETAIL", "detail"),
];
const MODEL: Columns = [
    ("MODEL", "name"),
    ("TASK", "task"),
    ("STATE", "state"),
    ("DETAIL", "detail"),
];

fn rows_text<'a>(
    columns: &Columns,
    rows: impl Iterator<Item = &'a Map<String, Json>>,
    width: Option<u16>,
) -> String {
    let mut table = Table::new(&columns.map(|(head, _)| head), width);
    for row in rows {
        table.row(
            columns.map(|(_, member)| row.get(member).and_then(Json::as_str).unwrap_or_default()),
        );
    }
    table.render()
}

/// What waits for the broker, and what was lost of it, on one line.
fn outbox_text(lanes: &Map<String, Json>) -> String {
    let sum = |key: &str| -> i64 { lanes.values().filter_map(|lane| lane[key].as_i64()).sum() };
    let mut waiting: Vec<String> = Vec::new();
    let mut lost: Vec<String> = Vec::new();
    for (name, lane) in lanes {
        let count = |key: &str| lane[key].as_i64().unwrap_or(0);
        if count("waiting") > 0 {
            waiting.push(format!("{} {}", count("waiting"), plain(name)));
        }
        for key in ["dropped", "refused", "expired", "undeliverable"] {
            if count(key) > 0 {
                lost.push(format!("{} {} {key}", count(key), plain(name)));
            }
        }
    }
    let mut text = match waiting.is_empty() {
        true => "empty".to_owned(),
        false => format!(
            "{} waiting ({} KiB)",
            waiting.join(", "),
            sum("bytes").div_euclid(1024) + 1
        ),
    };
    if !lost.is_empty() {
        text.push_str(&format!("; since the start {}", lost.join(", ")));
    }
    text
}

/// The links with their quality; the one that is connected carries its device.
fn links_text(links: &[Map<String, Json>], width: Option<u16>) -> String {
    let head = [
        "LINK", "ADDRESS", "STATE", "SECURITY", "RTT", "LOSS", "SENT", "RECEIVED", "DETAIL",
    ];
    let mut table = Table::new(&head, width);
    for link in links {
        let word = |member: &str| link.get(member).and_then(Json::as_str).unwrap_or_default();
        let number = |member: &str| link.get(member).and_then(Json::as_u64).unwrap_or_default();
        let loss = link.get("loss").and_then(Json::as_f64).unwrap_or(-1.0);
        let rtt = match number("rtt_us") {
            0 => String::new(),
            micros => text::millis(micros),
        };
        let loss = match loss >= 0.0 {
            true => format!("{:.1} %", loss * 100.0),
            false => String::new(),
        };
        table.row([
            word("name"),
            word("address"),
            word("state"),
            word("security"),
            &rtt,
            &loss,
            &bytes(number("bytes_sent")),
            &bytes(number("bytes_received")),
            word("detail"),
        ]);
    }
    table.render()
}

/// A number of bytes in the unit that leaves at most four digits.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let mut unit = 0;
    let mut scaled = count;
    while scaled > 9999 && unit + 1 < UNITS.len() {
        scaled /= 1024;
        unit += 1;
    }
    format!("{scaled} {}", UNITS[unit])
}

/// An engine elsewhere, on one line.
fn upstream_text(upstream: &Json) -> String {
    let word = |member: &str| plain(upstream[member].as_str().unwrap_or_default()).into_owned();
    let state = match (word("breaker").as_str(), upstream["rest_ms"].as_u64()) {
        ("open", Some(rest)) if rest > 0 => format!("left alone for {rest} ms more"),
        ("open", _) => "tried again with the next conversation".to_owned(),
        ("half-open", _) => "being tried".to_owned(),
        _ => "asked".to_owned(),
    };
    let cause = match word("cause") {
        cause if cause.is_empty() => cause,
        cause => format!(" ({cause})"),
    };
    format!(
        "upstream {} for {}, {} by {} at {}: {state}{cause}; {} asked, {} answered, {} failed\n",
        word("policy"),
        word("bundle"),
        word("model"),
        word("protocol"),
        word("url"),
        upstream["asked"],
        upstream["answered"],
        upstream["failed"],
    )
}

/// What the machine lends, how hard it has it, and what is done about it.
fn strain_text(adapt: &Json) -> String {
    let word = |member: &str| plain(adapt[member].as_str().unwrap_or_default()).into_owned();
    let count = |member: &str| adapt[member].as_u64();
    let mut text = String::new();
    if let (Some(asked), Some(lent)) = (count("threads_asked"), count("threads_lent"))
        && asked > lent
    {
        text.push_str(&format!(
            "threads  {asked} asked for each model, the machine lends {lent}\n"
        ));
    }
    if adapt["enabled"] != true {
        return text;
    }
    let mut done = Vec::new();
    if word("level") != "normal" {
        match count("chat_threads") {
            Some(1) => done.push("chat on 1 thread".to_owned()),
            Some(threads) => done.push(format!("chat on {threads} threads")),
            None => {}
        }
        if adapt["chat_instead"].is_string() {
            done.push(format!("by {}", word("chat_instead")));
        }
        if adapt["background_rests"] == true {
            done.push("background work rests".to_owned());
        }
    }
    let reason = match word("reason") {
        reason if reason.is_empty() => reason,
        reason => format!(": {reason}"),
    };
    text.push_str(&format!("strain   {}{reason}", word("level")));
    if !done.is_empty() {
        text.push_str(&format!("; {}", done.join(", ")));
    }
    match count("changes") {
        None | Some(0) => {}
        Some(1) => text.push_str("; 1 change"),
        Some(changes) => text.push_str(&format!("; {changes} changes")),
    }
    text.push('\n');
    let all = |member: &str| adapt[member].as_array().into_iter().flatten();
    let inputs: Vec<&str> = all("inputs").filter_map(Json::as_str).collect();
    if !inputs.is_empty() {
        text.push_str(&format!("         seen: {}\n", plain(&inputs.join("; "))));
    }
    let absent: Vec<String> = all("absent")
        .map(|one| plain(one["what"].as_str().unwrap_or_default()).into_owned())
        .collect();
    if !absent.is_empty() {
        text.push_str(&format!(
            "         not to be seen here: {} (--json says why)\n",
            absent.join(", ")
        ));
    }
    text
}

fn status_text(status: &Json, width: Option<u16>) -> String {
    let word = |value: &Json| plain(value.as_str().unwrap_or_default()).into_owned();
    let state = |value: &Json| match value["detail"].as_str() {
        Some(detail) if !detail.is_empty() => {
            format!("{}: {}", word(&value["state"]), plain(detail))
        }
        _ => word(&value["state"]),
    };
    let mut text = format!(
        "autoglm-edged {} on {}\n",
        word(&status["version"]),
        word(&status["box"])
    );
    text.push_str(&format!("store    {}\n", state(&status["store"])));
    text.push_str(&format!("runtime  {}\n", word(&status["runtime"])));
    text.push_str(&format!("fleet    {}\n", state(&status["fleet"])));
    if let Some(lanes) = status["fleet"]["outbox"].as_object() {
        text.push_str(&format!("outbox   {}\n", outbox_text(lanes)));
    }
    for (name, source) in status["foreign"].as_object().into_iter().flatten() {
        text.push_str(&format!(
            "foreign  {}: {}, {} things, {} online, {} errors\n",
            plain(name),
            state(source),
            source["things"],
            source["online"],
            source["errors"]
        ));
    }
    for upstream in status["upstreams"].as_array().into_iter().flatten() {
        text.push_str(&upstream_text(upstream));
    }
    text.push_str(&strain_text(&status["adapt"]));
    text.push_str(&format!(
        "things   {} known, {} online\n",
        status["things"]["known"], status["things"]["online"]
    ));

    text.push('\n');
    let models: Vec<&Map<String, Json>> = status["models"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Json::as_object)
        .collect();
    match models.is_empty() {
        true => text.push_str("no models\n"),
        false => text.push_str(&rows_text(&MODEL, models.into_iter(), width)),
    }
    text.push('\n');
    let links: Vec<Map<String, Json>> = status["links"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, link)| {
            let mut link = link.as_object()?.clone();
            link.insert("name".to_owned(), json!(name));
            Some(link)
        })
        .collect();
    match links.is_empty() {
        true => text.push_str("no links\n"),
        false => text.push_str(&rows_text(&LINK, links.iter(), width)),
    }
    text
}

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
    let daemon = super::connect(global).await?;
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
fn models_ready(models: &[Json], wanted: &[String]) -> Result<(), Failure> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn models() -> Vec<Json> {
        vec![
            json!({"name": "minilm", "task": "embedding", "state": "ready", "detail": "on the CPU"}),
            json!({"name": "smol", "task": "chat", "state": "loading", "detail": "hashing"}),
        ]
    }

    #[test]
    fn all_models_must_be_ready_unless_some_are_named() {
        let failure = models_ready(&models(), &[]).unwrap_err();
        assert_eq!(failure.exit, Exit::Unavailable);
        assert_eq!(failure.message, "the model smol is loading: hashing");
        assert!(models_ready(&models(), &["embedding".to_owned()]).is_ok());
        assert!(models_ready(&models(), &["smol".to_owned()]).is_err());
        assert_eq!(
            models_ready(&models(), &["smoll".to_owned()])
                .unwrap_err()
                .exit,
            Exit::Unknown
        );
        assert!(models_ready(&[], &[]).is_ok());
    }

    #[test]
    fn outbox_says_what_waits_and_what_was_lost() {
        let lane = |waiting: u64, dropped: u64, refused: u64| json!({"waiting": waiting, "bytes": 600, "dropped": dropped, "refused": refused, "expired": 0, "undeliverable": 0});
        let text = |value: Json| outbox_text(value.as_object().unwrap());
        let quiet = json!({"results": lane(0, 0, 0), "events": lane(0, 0, 0)});
        assert_eq!(text(quiet), "empty");
        let busy = json!({"events": lane(3, 0, 2), "telemetry": lane(4, 1, 0)});
        assert_eq!(
            text(busy),
            "3 events, 4 telemetry waiting (2 KiB); since the start 2 events refused, 1 telemetry dropped"
        );
    }

    #[test]
    fn links_show_who_carries_how_well_and_how_privately() {
        let link = |link: Json| link.as_object().unwrap().clone();
        let links = [
            link(json!({
                "name": "desk-mqtt", "address": "mqtt://b:1883/desk", "state": "standby", "detail": "", "security": "private",
                "rtt_us": 0, "loss": -1.0, "bytes_sent": 0, "bytes_received": 0,
            })),
            link(json!({
                "name": "desk-serial", "address": "serial:///dev/a?baud=9600", "state": "connected", "detail": "",
                "security": "private", "rtt_us": 21_500, "loss": 0.0125, "bytes_sent": 123, "bytes_received": 1_234_567,
            })),
        ];
        let text = anstream::adapter::strip_str(&links_text(&links, None)).to_string();
        let row = |line: usize| -> Vec<&str> {
            let line = text.lines().nth(line).unwrap();
            line.split("  ")
                .map(str::trim)
                .filter(|cell| !cell.is_empty())
                .collect()
        };
        assert_eq!(row(1)[2..], ["standby", "private", "0 B", "0 B"], "{text}");
        assert_eq!(row(2)[2..4], ["connected", "private"], "{text}");
        assert_eq!(row(2)[5..], ["1.2 %", "123 B", "1205 KiB"], "{text}");
    }

    #[test]
    fn strain_is_told_with_its_reason_and_what_is_done() {
        let adapt = json!({
            "enabled": true, "level": "strained", "reason": "cpu pressure 81 % over 10 s", "changes": 3, "chat_threads": 1,
            "chat_instead": "tiny", "background_rests": true, "threads_asked": 8, "threads_lent": 2,
            "inputs": ["cpu pressure 81 % over 10 s", "memory pressure 0 % over 10 s"],
            "absent": [{"what": "temperature", "why": "no zones"}],
        });
        let expected = "\
threads  8 asked for each model, the machine lends 2
strain   strained: cpu pressure 81 % over 10 s; chat on 1 thread, by tiny, background work rests; 3 changes
         seen: cpu pressure 81 % over 10 s; memory pressure 0 % over 10 s
         not to be seen here: temperature (--json says why)
";
        assert_eq!(strain_text(&adapt), expected);
        let calm = json!({"enabled": true, "level": "normal", "reason": "", "changes": 0, "chat_threads": 2,
            "threads_asked": null, "threads_lent": 4, "inputs": [], "absent": []});
        assert_eq!(strain_text(&calm), "strain   normal\n");
        assert_eq!(strain_text(&json!({"enabled": false})), "");
    }

    #[test]
    fn status_fits_one_screen_and_names_causes() {
        let status = json!({
            "version": "0.1.0", "box": "kitchen", "runtime": "not loaded",
            "store": {"state": "unavailable", "detail": "disk full"},
            "fleet": {"state": "off"},
            "things": {"known": 2, "online": 1},
            "models": models(),
            "links": {"bench": {"address": "serial:/dev/ttyACM0", "state": "connected", "detail": ""}},
        });
        let text = anstream::adapter::strip_str(&status_text(&status, None)).to_string();
        let expected = "\
autoglm-edged 0.1.0 on kitchen
store    unavailable: disk full
runtime  not loaded
fleet    off
things   2 known, 1 online

MODEL   TASK       STATE    DETAIL
minilm  embedding  ready    on the CPU
smol    chat       loading  hashing

LINK   ADDRESS              STATE      DETAIL
bench  serial:/dev/ttyACM0  connected
";
        assert_eq!(text, expected);
    }
}
