//! `bluetooth`: who is heard, pairing and forgetting. A pairing that asks something asks the person at the terminal.

use std::io::IsTerminal as _;
use std::os::unix::net::UnixStream as StdStream;

use serde_json::{Map, Value as Json, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::args::pairing::BluetoothCommand;
use super::bus::{Daemon, Pairing};
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Form, Output};
use super::table::Table;
use super::text::plain;

/// Services that a person may look for, by UUID: what they mean here.
const MEANINGS: [(&str, &str); 3] = [
    ("6e400001-b5a3-f393-e0a9-e50e24dcca9e", "Nordic UART"),
    ("0000fcd2-0000-1000-8000-00805f9b34fb", "BTHome"),
    (
        "0000181a-0000-1000-8000-00805f9b34fb",
        "environmental sensing",
    ),
];
/// What follows the first eight digits of a UUID of 16 bits.
const BASE: &str = "-0000-1000-8000-00805f9b34fb";

/// Runs `bluetooth`.
///
/// # Errors
/// [`Failure`]
pub async fn run(
    daemon: &Daemon,
    command: BluetoothCommand,
    output: &mut Output,
) -> Result<Exit, Failure> {
    match command {
        BluetoothCommand::Scan { time, adapter } => {
            let heard = daemon.bluetooth_scan(adapter.as_deref(), time).await?;
            match output.form {
                Form::Json => output.json("devices", &json!(heard))?,
                Form::Text if heard.is_empty() => output.note("nobody was heard"),
                Form::Text => output.text(&table(&heard, output.width))?,
            }
        }
        BluetoothCommand::Pair {
            address,
            passkey,
            pin,
            adapter,
        } => {
            let ask = passkey.is_none() && pin.is_none() && std::io::stdin().is_terminal();
            let pairing = Pairing {
                adapter: adapter.as_deref(),
                passkey,
                pin: pin.as_deref(),
                ask,
            };
            let socket = daemon.bluetooth_pair(&address, pairing).await?;
            return pair(StdStream::from(std::os::fd::OwnedFd::from(socket)), output).await;
        }
        BluetoothCommand::Forget { address, adapter } => {
            daemon
                .bluetooth_forget(&address, adapter.as_deref())
                .await?;
            match output.form {
                Form::Json => output.json("forgotten", &json!(address))?,
                Form::Text => output.note(&format!("{address} is forgotten")),
            }
        }
    }
    Ok(Exit::Success)
}

async fn pair(socket: StdStream, output: &mut Output) -> Result<Exit, Failure> {
    let broken = |error: std::io::Error| {
        Failure::new(Exit::Unreachable, "the daemon ended the pairing").because(&error)
    };
    socket.set_nonblocking(true).map_err(broken)?;
    let (reader, mut writer) = UnixStream::from_std(socket).map_err(broken)?.into_split();
    let mut events = BufReader::new(reader).lines();
    let mut typed = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = events.next_line().await.map_err(broken)? {
        let event: Json = serde_json::from_str(&line).unwrap_or_default();
        let word = |member: &str| event[member].as_str().unwrap_or_default();
        match (word("event"), word("what")) {
            ("show", _) => output.note(&format!("type {} on the device", plain(word("digits")))),
            ("asked", what) => {
                output.note(&match what {
                    "passkey" => "six digits that the device shows:".to_owned(),
                    "pin" => "the device's PIN:".to_owned(),
                    _ => format!("does the device show {}? yes or no:", plain(word("digits"))),
                });
                let line = typed.next_line().await.ok().flatten().unwrap_or_default();
                let answer = match (what, line.trim()) {
                    (_, "") => Json::Null,
                    ("passkey" | "pin", digits) => json!(digits),
                    (_, word) => json!(matches!(word, "y" | "yes")),
                };
                let line = format!("{}\n", json!({ "answer": answer }));
                writer.write_all(line.as_bytes()).await.map_err(broken)?;
            }
            ("done", _) => {
                let is_checked = event["checked"] == json!(true);
                match output.form {
                    Form::Json => output.json(
                        "paired",
                        &json!({"address": word("address"), "checked": is_checked}),
                    )?,
                    Form::Text if is_checked => output.note(&format!("{} is paired", word("address"))),
                    Form::Text => output.note(&format!(
                        "{} is paired; nothing was compared, so somebody near may have come between",
                        word("address")
                    )),
                }
                return Ok(Exit::Success);
            }
            _ => return Err(Failure::daemon(word("name"), word("message"))),
        }
    }
    Err(Failure::new(
        Exit::Unreachable,
        "the daemon ended the pairing without a word",
    ))
}

fn table(heard: &[Map<String, Json>], width: Option<u16>) -> String {
    let mut table = Table::new(&["ADDRESS", "DBM", "ADAPTER", "NAME", "SERVICES"], width);
    let mut nearest: Vec<_> = heard.iter().collect();
    let strength = |device: &Map<String, Json>| device.get("rssi-dbm").and_then(Json::as_i64);
    nearest.sort_by_key(|device| std::cmp::Reverse(strength(device)));
    for device in nearest {
        let word = |member: &str| {
            device
                .get(member)
                .and_then(Json::as_str)
                .unwrap_or_default()
        };
        let signal = strength(device).map_or_else(|| "?".to_owned(), |dbm| dbm.to_string());
        let services = device.get("services").and_then(Json::as_array);
        let services: Vec<_> = services
            .into_iter()
            .flatten()
            .filter_map(Json::as_str)
            .map(meaning)
            .collect();
        table.row([
            word("address"),
            &signal,
            word("adapter"),
            plain(word("name")).as_ref(),
            &services.join(", "),
        ]);
    }
    table.render()
}

/// What a service is called, or its shortest UUID.
fn meaning(uuid: &str) -> &str {
    if let Some((_, meaning)) = MEANINGS.iter().find(|(known, _)| *known == uuid) {
        return meaning;
    }
    match uuid
        .strip_suffix(BASE)
        .and_then(|short| short.strip_prefix("0000"))
    {
        Some(short) => short,
        None => uuid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_device_comes_first_and_an_unknown_signal_is_no_number() {
        let device = |address: &str, rssi: Option<i64>, service: &str| {
            let mut device =
                json!({"address": address, "adapter": "hci0", "name": "N", "services": [service]});
            if let Some(rssi) = rssi {
                device["rssi-dbm"] = json!(rssi);
            }
            device.as_object().cloned().unwrap()
        };
        let heard = [
            device("A", None, "0000180f-0000-1000-8000-00805f9b34fb"),
            device("B", Some(-80), "0000fcd2-0000-1000-8000-00805f9b34fb"),
            device("C", Some(-40), "12345678-0000-1000-8000-00805f9b34fb"),
        ];
        let text = anstream::adapter::strip_str(&table(&heard, None)).to_string();
        let expected = "\
ADDRESS  DBM  ADAPTER  NAME  SERVICES
C        -40  hci0     N     12345678-0000-1000-8000-00805f9b34fb
B        -80  hci0     N     BTHome
A        ?    hci0     N     180f
";
        assert_eq!(text, expected);
    }
}
