//! `status` in words: a line for each part of the daemon, then its models and links as tables.
//!
//! Reads members by name and shows nothing for those that are not there: the daemon may be older or newer.

use serde_json::{Map, Value as Json, json};

use crate::cli::table::Table;
use crate::cli::text::plain;

/// The whole status, as it fits one screen.
pub(super) fn status_text(status: &Json, width: Option<u16>) -> String {
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
pub(super) fn outbox_text(lanes: &Map<String, Json>) -> String {
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
pub(super) fn strain_text(adapt: &Json) -> String {
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
