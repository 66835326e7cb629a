//! Which thing, and which of its actions or properties, a person means by what was typed.
//!
//! An id or a name is taken as it is; a title in any case, if only one has it. Nothing is guessed: the nearest name is a hint.

use std::collections::BTreeMap;

use super::bus::ThingObject;
use super::exit::Exit;
use super::failure::Failure;
use crate::things::description::{Action, Naming, Property, ThingDescription};

/// How alike (Jaro-Winkler, 0 to 1) a name must be to be offered as the one that was meant. Chosen so that a letter
/// missing, doubled or swapped is found, and another word is not.
const ALIKE: f64 = 0.8;

/// The thing with this id or title.
///
/// # Errors
/// [`Exit::Unknown`], with the nearest title or the candidates.
pub fn thing<'a>(things: &'a [ThingObject], wanted: &str) -> Result<&'a ThingObject, Failure> {
    if let Some(thing) = things.iter().find(|thing| thing.id == wanted) {
        return Ok(thing);
    }
    let title = wanted.to_lowercase();
    let titled: Vec<&ThingObject> = things
        .iter()
        .filter(|thing| thing.title.to_lowercase() == title)
        .collect();
    match titled[..] {
        [thing] => Ok(thing),
        [] => {
            let names = things
                .iter()
                .flat_map(|thing| [thing.title.as_str(), thing.id.as_str()]);
            let failure = Failure::new(Exit::Unknown, format!("no thing is called {wanted:?}"));
            Err(match (nearest(wanted, names), things) {
                (_, []) => failure.hint(
                    "there are no things yet; `autoglmctl links` shows where they would come from",
                ),
                (Some(name), _) => failure.hint(format!("did you mean {name:?}?")),
                (None, _) => failure.hint("`autoglmctl things` lists them"),
            })
        }
        _ => {
            let ids: Vec<&str> = titled.iter().map(|thing| thing.id.as_str()).collect();
            Err(Failure::new(
                Exit::Unknown,
                format!(
                    "{} things are called {wanted:?}: {}",
                    ids.len(),
                    ids.join(", ")
                ),
            )
            .hint("say which one by its id"))
        }
    }
}

/// A thing's description.
///
/// # Errors
/// [`Exit::Internal`]: the daemon took a description that we cannot read.
pub fn description(thing: &ThingObject) -> Result<ThingDescription, Failure> {
    ThingDescription::from_json(&thing.description).map_err(|error| {
        Failure::new(
            Exit::Internal,
            format!("the description of {} cannot be read", thing.title),
        )
        .because(&error)
    })
}

/// The action with this name or title.
///
/// # Errors
/// [`Exit::Unknown`], with the nearest name.
pub fn action<'a>(
    thing: &'a ThingDescription,
    wanted: &str,
) -> Result<(&'a str, &'a Action), Failure> {
    affordance(
        thing,
        "action",
        &thing.actions,
        |action| &action.naming,
        wanted,
    )
}

/// The property with this name or title.
///
/// # Errors
/// [`Exit::Unknown`], with the nearest name.
pub fn property<'a>(
    thing: &'a ThingDescription,
    wanted: &str,
) -> Result<(&'a str, &'a Property), Failure> {
    affordance(
        thing,
        "property",
        &thing.properties,
        |property| &property.naming,
        wanted,
    )
}

fn affordance<'a, A>(
    thing: &ThingDescription,
    kind: &str,
    offered: &'a BTreeMap<String, A>,
    naming: impl Fn(&A) -> &Naming,
    wanted: &str,
) -> Result<(&'a str, &'a A), Failure> {
    if let Some((name, affordance)) = offered.get_key_value(wanted) {
        return Ok((name, affordance));
    }
    let title = wanted.to_lowercase();
    let titled: Vec<(&String, &A)> = offered
        .iter()
        .filter(|(_, affordance)| {
            naming(affordance)
                .title
                .as_ref()
                .is_some_and(|it| it.to_lowercase() == title)
        })
        .collect();
    match titled[..] {
        [(name, affordance)] => Ok((name, affordance)),
        [] => {
            let names: Vec<&str> = offered.keys().map(String::as_str).collect();
            let failure = Failure::new(
                Exit::Unknown,
                format!("{} has no {kind} {wanted:?}", thing.title),
            );
            Err(match nearest(wanted, names.iter().copied()) {
                Some(name) => failure.hint(format!("did you mean {name:?}?")),
                None if names.is_empty() => failure,
                None => failure.hint(format!("it has {}", names.join(", "))),
            })
        }
        _ => {
            let names: Vec<&str> = titled.iter().map(|(name, _)| name.as_str()).collect();
            Err(Failure::new(
                Exit::Unknown,
                format!("{kind} {wanted:?} may be {}", names.join(" or ")),
            ))
        }
    }
}

/// The name that was perhaps meant.
pub fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = wanted.to_lowercase();
    names
        .map(|name| (strsim::jaro_winkler(&wanted, &name.to_lowercase()), name))
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    fn object(id: &str, title: &str) -> ThingObject {
        let description = json!({
            "id": id, "title": title,
            "actions": {"set_brightness": {"title": "Set brightness"}, "turn_on": {"title": "Turn on"}},
            "properties": {"a": {"title": "Level", "type": "integer"}, "b": {"title": "level", "type": "integer"}},
        });
        ThingObject {
            id: id.to_owned(),
            title: title.to_owned(),
            online: true,
            link: String::new(),
            description: description.to_string(),
            values: Map::new(),
        }
    }

    fn things() -> Vec<ThingObject> {
        vec![
            object("urn:lamp-1", "Desk lamp"),
            object("urn:fan-1", "Fan"),
            object("urn:fan-2", "fan"),
        ]
    }

    #[test]
    fn a_thing_is_found_by_id_or_by_title_in_any_case() {
        let things = things();
        assert_eq!(thing(&things, "urn:fan-2").unwrap().id, "urn:fan-2");
        assert_eq!(thing(&things, "DESK LAMP").unwrap().id, "urn:lamp-1");
    }

    #[test]
    fn a_shared_title_names_the_candidates() {
        let failure = thing(&things(), "Fan").unwrap_err();
        assert_eq!(failure.exit, Exit::Unknown);
        assert_eq!(
            failure.message,
            "2 things are called \"Fan\": urn:fan-1, urn:fan-2"
        );
    }

    #[test]
    fn a_mistyped_name_is_not_guessed_but_hinted_at() {
        let failure = thing(&things(), "dek lamp").unwrap_err();
        assert_eq!(failure.hint.as_deref(), Some("did you mean \"Desk lamp\"?"));
        let failure = thing(&things(), "zebra").unwrap_err();
        assert_eq!(
            failure.hint.as_deref(),
            Some("`autoglmctl things` lists them")
        );
        assert!(
            thing(&[], "lamp")
                .unwrap_err()
                .hint
                .unwrap()
                .contains("no things yet")
        );
    }

    #[test]
    fn affordances_are_found_by_name_or_unique_title() {
        let lamp = description(&things()[0]).unwrap();
        assert_eq!(action(&lamp, "set_brightness").unwrap().0, "set_brightness");
        assert_eq!(action(&lamp, "turn ON").unwrap().0, "turn_on");
        assert_eq!(
            action(&lamp, "turn_in").unwrap_err().hint.as_deref(),
            Some("did you mean \"turn_on\"?")
        );
        assert_eq!(
            action(&lamp, "explode").unwrap_err().hint.as_deref(),
            Some("it has set_brightness, turn_on")
        );
        assert_eq!(
            property(&lamp, "LEVEL").unwrap_err().message,
            "property \"LEVEL\" may be a or b"
        );
    }
}
