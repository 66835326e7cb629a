//! `sessions`: what was said, and forgetting it.

use jiff::tz::TimeZone;
use serde_json::{Map, Value as Json, json};

use super::args::conversation::SessionsCommand;
use super::bus::Daemon;
use super::chat::event::Origin;
use super::exit::Exit;
use super::failure::Failure;
use super::output::{ASIDE, Form, Output};
use super::table::Table;
use super::target;
use super::text::{self, plain};

/// Runs `sessions`.
///
/// # Errors
/// [`Failure`]
pub async fn run(
    daemon: &Daemon,
    command: Option<SessionsCommand>,
    output: &mut Output,
) -> Result<Exit, Failure> {
    match command.unwrap_or(SessionsCommand::List) {
        SessionsCommand::List => {
            let sessions = daemon.sessions().await?;
            if output.form == Form::Json {
                output.json("sessions", &json!(sessions))?;
            } else if sessions.is_empty() {
                output.note("no conversations yet: `autoglmctl chat` begins one");
            } else {
                output.text(&list_text(&sessions, &TimeZone::system(), output.width))?;
            }
        }
        SessionsCommand::Show { id, last } => {
            let turns = daemon.turns(&id, last).await?;
            if turns.is_empty() {
                return Err(unknown(daemon, &id).await);
            }
            match output.form {
                Form::Json => output.json("turns", &json!(turns))?,
                Form::Text => output.text(&turns_text(&turns, &TimeZone::system()))?,
            }
        }
        SessionsCommand::Delete { id } => {
            if !daemon.delete_session(&id).await? {
                return Err(unknown(daemon, &id).await);
            }
            match output.form {
                Form::Json => output.json("deleted", &json!(id))?,
                Form::Text => output.note(&format!("{id} is deleted")),
            }
        }
    }
    Ok(Exit::Success)
}

async fn unknown(daemon: &Daemon, id: &str) -> Failure {
    let sessions = daemon.sessions().await.unwrap_or_default();
    let ids = sessions
        .iter()
        .filter_map(|session| session.get("id").and_then(Json::as_str));
    let failure = Failure::new(Exit::Unknown, format!("there is no conversation {id:?}"));
    match target::nearest(id, ids) {
        Some(near) if near != id => failure.hint(format!("did you mean {near:?}?")),
        _ => failure.hint("`autoglmctl sessions` lists them"),
    }
}

fn word<'a>(object: &'a Map<String, Json>, member: &str) -> &'a str {
    object
        .get(member)
        .and_then(Json::as_str)
        .unwrap_or_default()
}

fn number(object: &Map<String, Json>, member: &str) -> u64 {
    object
        .get(member)
        .and_then(Json::as_u64)
        .unwrap_or_default()
}

fn list_text(sessions: &[Map<String, Json>], zone: &TimeZone, width: Option<u16>) -> String {
    let mut table = Table::new(&["SESSION", "TURNS", "LAST", "BEGAN WITH"], width);
    for session in sessions {
        let turns = number(session, "turns").to_string();
        let updated = text::time(number(session, "updated-ms"), zone);
        table.row([
            word(session, "id"),
            &turns,
            &updated,
            word(session, "title"),
        ]);
    }
    table.render()
}

fn turns_text(turns: &[Map<String, Json>], zone: &TimeZone) -> String {
    let line = |turn: &Map<String, Json>| {
        let time = text::time(number(turn, "when_unix_ms"), zone);
        let (speaker, said, outcome) = (
            word(turn, "speaker"),
            word(turn, "text"),
            word(turn, "outcome"),
        );
        let cut = match turn.get("is_cut").and_then(Json::as_bool) {
            Some(true) => " …",
            _ => "",
        };
        let note = match outcome {
            "refused" | "failed" => format!(" ({outcome})"),
            _ => String::new(),
        };
        let origin = turn
            .get("origin")
            .and_then(|origin| serde_json::from_value::<Origin>(origin.clone()).ok())
            .filter(Origin::is_notable)
            .map_or_else(String::new, |origin| {
                format!(" ({})", plain(&origin.to_string()))
            });
        format!(
            "{ASIDE}{time}{ASIDE:#}  {:<9}  {}{cut}{}{ASIDE}{origin}{ASIDE:#}\n",
            plain(speaker),
            plain(said),
            plain(&note)
        )
    };
    turns.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(json: Json) -> Map<String, Json> {
        json.as_object().cloned().unwrap()
    }

    #[test]
    fn a_conversation_reads_as_it_was_held() {
        let turns = [
            object(
                json!({"when_unix_ms": 0, "speaker": "user", "text": "Lamp to 400", "outcome": "refused"}),
            ),
            object(
                json!({"when_unix_ms": 1000, "speaker": "assistant", "text": "0 to 100", "outcome": "refused", "is_cut": true}),
            ),
            object(
                json!({"when_unix_ms": 2000, "speaker": "device", "text": "on", "outcome": "done"}),
            ),
        ];
        let text = anstream::adapter::strip_str(&turns_text(&turns, &TimeZone::UTC)).to_string();
        let expected = "\
1970-01-01 00:00:00  user       Lamp to 400 (refused)
1970-01-01 00:00:01  assistant  0 to 100 … (refused)
1970-01-01 00:00:02  device     on
";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_list_tells_how_long_how_old_and_what_about() {
        let session =
            object(json!({"id": "cli", "turns": 4, "updated-ms": 1000, "title": "set the lamp"}));
        let text =
            anstream::adapter::strip_str(&list_text(&[session], &TimeZone::UTC, None)).to_string();
        let expected = "\
SESSION  TURNS  LAST                 BEGAN WITH
cli      4      1970-01-01 00:00:01  set the lamp
";
        assert_eq!(text, expected);
    }
}
