//! `status`, `links` and [`mod@wait`]: how the daemon stands.

mod report;
#[cfg(test)]
mod tests;
pub mod wait;

use serde_json::{Map, Value as Json, json};

use self::report::status_text;
use super::bus::Daemon;
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Form, Output};
use super::table::Table;
use super::text;

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
