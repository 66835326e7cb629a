//! Properties of understanding that hold for any sentence, without a model.
//!
//! Vectors are made of the words themselves (a bag of hashed words), so that similarity is real but crude; what
//! is claimed here must hold whatever the embedding model says.

use std::path::Path;

use autoglm_edge::things::description::{ThingDescription, ThingId};
use autoglm_edge::things::schema::ThingSchemas;
use autoglm_edge::understanding::catalogue::Catalogue;
use autoglm_edge::understanding::wording::Wording;
use autoglm_edge::understanding::{Call, Focus, Operation, Resolution, Understanding};
use proptest::prelude::*;
use serde_json::{Value, json};

const DIMENSIONS: usize = 64;

fn vector(text: &str) -> Vec<f32> {
    let mut vector = vec![0.0f32; DIMENSIONS];
    for word in text.split_whitespace() {
        let hash = word.bytes().fold(5381usize, |hash, byte| {
            hash.wrapping_mul(33) ^ usize::from(byte)
        });
        vector[hash % DIMENSIONS] += 1.0;
    }
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-6);
    vector.iter().map(|x| x / length).collect()
}

fn things() -> Vec<ThingDescription> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/things");
    let mut things: Vec<_> = std::fs::read_dir(folder)
        .expect("the fixtures")
        .map(|file| file.expect("an entry").path())
        // Foreign devices' descriptions have a folder of their own there.
        .filter(|path| path.is_file())
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("readable");
            ThingDescription::from_json(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"))
        })
        .collect();
    things.sort_by(|a, b| a.id.cmp(&b.id));
    things
}

fn catalogue(things: &[ThingDescription]) -> Catalogue {
    let mut catalogue = Catalogue::new(Wording::english());
    for thing in things {
        let phrases = catalogue.phrases_for(thing);
        let vectors = phrases.iter().map(|phrase| vector(&phrase.text)).collect();
        catalogue
            .insert(thing, phrases, vectors)
            .expect("the fixtures compile");
    }
    catalogue
}

fn state(_: &ThingId, property: &str) -> Option<Value> {
    match property {
        "brightness" | "position" | "volume" => Some(json!(50)),
        "target_temperature" => Some(json!(20.0)),
        "speed" => Some(json!("low")),
        _ => None,
    }
}

fn say(catalogue: &Catalogue, text: &str, focus: &Focus) -> Resolution {
    let prepared = catalogue.prepare(text, focus);
    let vectors: Vec<_> = prepared.texts().iter().map(|text| vector(text)).collect();
    catalogue.resolve(&prepared, &vectors, focus, &state)
}

fn assert_valid(things: &[ThingDescription], calls: &[Call]) {
    for call in calls {
        let thing = things
            .iter()
            .find(|thing| thing.id == call.thing)
            .expect("a known thing");
        let schemas = ThingSchemas::compile(thing).expect("compiles");
        match &call.operation {
            Operation::Invoke { action, input } => schemas.check_input(action, input.as_ref()),
            Operation::Read { property } => schemas.check_read(property),
            Operation::Write { property, value } => schemas.check_write(property, value),
        }
        .unwrap_or_else(|error| panic!("{call:?}: {error}"));
    }
}

/// Sentences made of words that mean something, which reach deeper than random text.
fn sentence() -> impl Strategy<Value = String> {
    let words = [
        "turn",
        "on",
        "off",
        "set",
        "dim",
        "open",
        "close",
        "lock",
        "unlock",
        "the",
        "desk",
        "lamp",
        "light",
        "fan",
        "blinds",
        "door",
        "belt",
        "pump",
        "it",
        "other",
        "one",
        "both",
        "all",
        "everything",
        "except",
        "to",
        "by",
        "percent",
        "degrees",
        "minutes",
        "mm/s",
        "half",
        "a",
        "quarter",
        "minus",
        "400",
        "40",
        "-3",
        "1e9",
        "21.5",
        "99999999999999999999",
        "high",
        "low",
        "eco",
        "brighter",
        "warmer",
        "a bit",
        "not",
        "if",
        "and",
        "then",
        ",",
        "?",
        "\"hello\"",
        "'",
        "yes",
        "no",
        "first",
        "what is",
        "how warm is",
        "living room",
        "volume",
        "show",
    ];
    prop::collection::vec(prop::sample::select(words.to_vec()), 0..14)
        .prop_map(|words| words.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_answered_without_a_panic(text in "\\PC{0,200}", again in "\\PC{0,60}") {
        let things = things();
        let catalogue = catalogue(&things[..3]);
        let first = say(&catalogue, &text, &Focus::default());
        say(&catalogue, &again, &first.focus);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn no_call_violates_its_schema_and_no_danger_runs_unasked(
        first in sentence(), second in sentence(),
    ) {
        thread_local! {
            static HOUSE: (Vec<ThingDescription>, Catalogue) = {
                let things = things();
                let catalogue = catalogue(&things);
                (things, catalogue)
            };
        }
        HOUSE.with(|(things, catalogue)| {
            let one = say(catalogue, &first, &Focus::default());
            if let Understanding::Calls(calls) = &one.understanding {
                assert_valid(things, calls);
                let dangerous = calls.iter().any(|call| {
                    matches!(&call.operation, Operation::Invoke { action, .. } if action == "unlock")
                });
                assert!(!dangerous, "unlocked unasked by {first:?}");
            }
            let two = say(catalogue, &second, &one.focus);
            if let Understanding::Calls(calls) = &two.understanding {
                assert_valid(things, calls);
            }
            let json = serde_json::to_string(&two.focus).expect("a focus is JSON");
            let back: Focus = serde_json::from_str(&json).expect("and back");
            assert_eq!(back, two.focus);
        });
    }
}

#[test]
fn the_opposite_is_never_done_however_like_it_sounds() {
    let things = things();
    let catalogue = catalogue(&things);
    for (text, wanted) in [
        ("turn on the desk lamp", "turn_on"),
        ("turn off the desk lamp", "turn_off"),
        ("lock the front door", "lock"),
        ("open the window blinds", "open"),
        ("close the window blinds", "close"),
    ] {
        // Every phrase is the same to a broken model; the words alone must decide.
        let prepared = catalogue.prepare(text, &Focus::default());
        let vectors = vec![vector(text); prepared.texts().len()];
        let resolution = catalogue.resolve(&prepared, &vectors, &Focus::default(), &state);
        match &resolution.understanding {
            Understanding::Calls(calls) => assert!(
                matches!(&calls[0].operation, Operation::Invoke { action, .. } if action == wanted),
                "{text}: {calls:?}"
            ),
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn a_value_out_of_range_is_refused_with_the_range() {
    let things = things();
    let resolution = say(
        &catalogue(&things),
        "set the desk lamp to 400 percent",
        &Focus::default(),
    );
    match resolution.understanding {
        Understanding::Refuse { message, .. } => {
            assert!(
                message.contains("between 0 and 100 percent, not 400"),
                "{message}"
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn unlocking_asks_first_and_yes_does_it() {
    let things = things();
    let catalogue = catalogue(&things);
    let asked = say(&catalogue, "unlock the front door", &Focus::default());
    assert!(
        matches!(asked.understanding, Understanding::Ask { .. }),
        "{:?}",
        asked.understanding
    );
    let done = say(&catalogue, "yes", &asked.focus);
    match &done.understanding {
        Understanding::Calls(calls) => assert_eq!(calls.len(), 1),
        other => panic!("{other:?}"),
    }
    let dropped = say(&catalogue, "no", &asked.focus);
    assert_eq!(dropped.understanding, Understanding::Cancelled);
    assert_eq!(dropped.focus.pending, None);
}

#[test]
fn a_thing_that_has_gone_is_spoken_of_no_more() {
    let things = things();
    let mut catalogue = catalogue(&things);
    let lamp = things
        .iter()
        .find(|thing| thing.title == "Desk lamp")
        .expect("a fixture");
    let before = say(&catalogue, "turn on the desk lamp", &Focus::default());
    assert!(matches!(before.understanding, Understanding::Calls(_)));
    assert!(catalogue.remove(&lamp.id));
    let after = say(&catalogue, "turn it off", &before.focus);
    if let Understanding::Calls(calls) = &after.understanding {
        assert!(calls.iter().all(|call| call.thing != lamp.id), "{calls:?}");
    }
}
