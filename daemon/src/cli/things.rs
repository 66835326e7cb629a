//! `things`: what is there, and what one of it offers.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::bus::{Daemon, ThingObject};
use super::exit::Exit;
use super::failure::Failure;
use super::output::{ASIDE, Form, Output};
use super::table::Table;
use super::target;
use super::text::{self, plain};
use crate::things::description::{Naming, ThingDescription};

/// Lists the things.
///
/// # Errors
/// [`Failure`]
pub async fn list(daemon: &Daemon, output: &mut Output) -> Result<Exit, Failure> {
    let things = daemon.things().await?;
    if output.form == Form::Json {
        output.json("things", &things.iter().map(summary).collect())?;
    } else if things.is_empty() {
        output.note(
            "no things yet: a device appears here once it has connected and described itself; \
             `autoglmctl links` shows the links",
        );
    } else {
        output.text(&list_text(&things, output.width))?;
    }
    Ok(Exit::Success)
}

/// Shows one thing.
///
/// # Errors
/// [`Failure`]
pub async fn show(daemon: &Daemon, wanted: &str, output: &mut Output) -> Result<Exit, Failure> {
    let things = daemon.things().await?;
    let thing = target::thing(&things, wanted)?;
    match output.form {
        Form::Json => {
            let mut shown = summary(thing);
            shown["values"] = Json::Object(thing.values.clone());
            shown["description"] = serde_json::from_str(&thing.description).unwrap_or(Json::Null);
            output.json("thing", &shown)?;
        }
        Form::Text => {
            let description = target::description(thing)?;
            output.text(&show_text(thing, &description, output.width))?;
        }
    }
    Ok(Exit::Success)
}

fn summary(thing: &ThingObject) -> Json {
    json!({"id": thing.id, "title": thing.title, "online": thing.online, "link": thing.link})
}

fn presence(thing: &ThingObject) -> &'static str {
    if thing.online { "online" } else { "offline" }
}

fn list_text(things: &[ThingObject], width: Option<u16>) -> String {
    let mut table = Table::new(&["THING", "ID", "STATE", "LINK"], width);
    for thing in things {
        table.row([&thing.title, &thing.id, presence(thing), &thing.link]);
    }
    table.render()
}

fn show_text(thing: &ThingObject, description: &ThingDescription, width: Option<u16>) -> String {
    let mut text = format!(
        "{}  {ASIDE}{}{ASIDE:#}\n",
        plain(&thing.title),
        plain(&thing.id)
    );
    if let Some(words) = &description.description {
        text.push_str(&format!("{}\n", plain(words)));
    }
    let mut facts = vec![presence(thing).to_owned()];
    if !thing.link.is_empty() {
        facts[0].push_str(&format!(" over {}", thing.link));
    }
    facts.extend(
        description
            .location
            .iter()
            .map(|place| format!("in {place}")),
    );
    if !description.aliases.is_empty() {
        facts.push(format!("also called {}", description.aliases.join(", ")));
    }
    text.push_str(&format!("{}\n", plain(&facts.join("; "))));

    section(
        &mut text,
        &["PROPERTY", "TITLE", "VALUE", "TYPE", "ACCESS"],
        width,
        &description.properties,
        |name, property| {
            let schema = &property.schema;
            let value = thing.values.get(name).map_or_else(
                || "unknown".to_owned(),
                |value| text::value(value, Some(schema)),
            );
            let access = match (schema.read_only, schema.write_only) {
                (true, _) => "read",
                (_, true) => "write",
                _ => "read, write",
            };
            vec![
                title(&property.naming),
                value,
                text::taken(schema),
                access.to_owned(),
            ]
        },
    );
    section(
        &mut text,
        &["ACTION", "TITLE", "INPUT"],
        width,
        &description.actions,
        |_, action| vec![title(&action.naming), text::usage(action.input.as_ref())],
    );
    section(
        &mut text,
        &["EVENT", "TITLE", "DATA"],
        width,
        &description.events,
        |_, event| {
            vec![
                title(&event.naming),
                event.data.as_ref().map(text::taken).unwrap_or_default(),
            ]
        },
    );
    text
}

fn section<A>(
    text: &mut String,
    head: &[&str],
    width: Option<u16>,
    offered: &BTreeMap<String, A>,
    cells: impl Fn(&str, &A) -> Vec<String>,
) {
    if offered.is_empty() {
        return;
    }
    let mut table = Table::new(head, width);
    for (name, affordance) in offered {
        let mut row = vec![name.clone()];
        row.extend(cells(name, affordance));
        table.row(row);
    }
    text.push('\n');
    text.push_str(&table.render());
}

fn title(naming: &Naming) -> String {
    naming.title.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;

    fn lamp() -> ThingObject {
        let description = json!({
            "id": "urn:lamp-1", "title": "Desk lamp", "edge:location": "study",
            "properties": {
                "brightness": {"title": "Brightness", "type": "integer", "unit": "percent", "minimum": 0, "maximum": 100, "readOnly": true},
                "on": {"title": "On", "type": "boolean"},
            },
            "actions": {"set_brightness": {"title": "Set brightness", "input": {
                "type": "object", "required": ["level"],
                "properties": {"level": {"type": "integer", "minimum": 0, "maximum": 100, "unit": "percent"}},
            }}},
        });
        ThingObject {
            id: "urn:lamp-1".to_owned(),
            title: "Desk lamp".to_owned(),
            online: true,
            link: "bench".to_owned(),
            description: description.to_string(),
            values: Map::from_iter([("brightness".to_owned(), json!(40))]),
        }
    }

    #[test]
    fn a_thing_is_shown_with_values_units_and_what_to_type() {
        let lamp = lamp();
        let text = show_text(&lamp, &target::description(&lamp).unwrap(), None);
        let text = anstream::adapter::strip_str(&text).to_string();
        let expected = "\
Desk lamp  urn:lamp-1
online over bench; in study

PROPERTY    TITLE       VALUE       TYPE                       ACCESS
brightness  Brightness  40 percent  integer, 0 to 100 percent  read
on          On          unknown     boolean                    read, write

ACTION          TITLE           INPUT
set_brightness  Set brightness  level=<integer, 0 to 100 percent>
";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_list_says_who_is_there_and_where() {
        let away = ThingObject {
            online: false,
            link: String::new(),
            title: "Fan".to_owned(),
            ..lamp()
        };
        let text = list_text(&[lamp(), away], None);
        let text = anstream::adapter::strip_str(&text).to_string();
        let expected = "\
THING      ID          STATE    LINK
Desk lamp  urn:lamp-1  online   bench
Fan        urn:lamp-1  offline
";
        assert_eq!(text, expected);
    }
}
