//! Thing Descriptions: what is read from them, what is wrong with bad ones, and which values they allow.

use std::path::Path;

use autoglm_edge::things::description::{
    AFFORDANCES_MAX, DataType, DescriptionError, Fault, ThingDescription,
};
use autoglm_edge::things::schema::{CheckError, ThingSchemas, ValueFault};
use autoglm_edge::understanding::reply;
use autoglm_edge::understanding::wording::Wording;
use autoglm_edge::understanding::{Call, Operation};
use proptest::prelude::*;
use serde_json::{Value, json};

fn fixture(name: &str) -> ThingDescription {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/things");
    let text = std::fs::read_to_string(folder.join(name)).expect("a fixture");
    ThingDescription::from_json(&text).expect("a description")
}

fn minimal() -> Value {
    json!({ "id": "urn:x", "title": "X", "properties": { "p": { "type": "integer" } } })
}

fn broken(change: impl Fn(&mut Value)) -> DescriptionError {
    let mut json = minimal();
    change(&mut json);
    ThingDescription::from_value(json).expect_err("it is broken")
}

fn place(error: &DescriptionError) -> &str {
    match error {
        DescriptionError::Malformed { path, .. } | DescriptionError::Invalid { path, .. } => path,
    }
}

#[test]
fn the_desk_lamp_says_what_it_offers() {
    let lamp = fixture("desk-lamp.json");
    assert_eq!(lamp.title, "Desk lamp");
    assert_eq!(lamp.location.as_deref(), Some("study"));
    assert_eq!(lamp.aliases, ["table lamp"]);
    let brightness = &lamp.properties["brightness"];
    assert_eq!(brightness.schema.data_type, Some(DataType::Integer));
    assert_eq!(
        (brightness.schema.minimum, brightness.schema.maximum),
        (Some(0.0), Some(100.0))
    );
    assert!(brightness.schema.read_only && brightness.observable);
    let dim = &lamp.actions["set_brightness"];
    assert_eq!(dim.sets.as_deref(), Some("brightness"));
    assert_eq!(dim.input.as_ref().expect("an input").required, ["level"]);
    assert!(dim.idempotent && !lamp.actions["toggle"].idempotent);
    assert!(fixture("front-door-lock.json").actions["unlock"].confirm);
}

#[test]
fn choices_keep_their_titles_and_order() {
    let schema = &fixture("thermometer.json").properties["fan_speed"].schema;
    let titles: Vec<_> = schema
        .choices
        .iter()
        .filter_map(|choice| choice.title.as_deref())
        .collect();
    assert_eq!(titles, ["Off", "Low", "Medium", "High"]);
}

#[test]
fn an_error_names_the_path() {
    let wrong_type = broken(|json| json["properties"]["p"]["type"] = json!("lamp"));
    assert_eq!(place(&wrong_type), "properties.p.type");
    let range = broken(|json| json["properties"]["p"] = json!({ "minimum": 9, "maximum": 1 }));
    assert_eq!(place(&range), "properties.p");
    let step = broken(|json| json["properties"]["p"] = json!({ "multipleOf": 0 }));
    assert_eq!(place(&step), "properties.p.multipleOf");
    let title = broken(|json| json["title"] = json!("  "));
    assert!(matches!(
        title,
        DescriptionError::Invalid {
            fault: Fault::Empty,
            ..
        }
    ));
    let id = broken(|json| json["id"] = json!("two words"));
    assert_eq!(place(&id), "id");
    let sets = broken(|json| json["actions"] = json!({ "a": { "edge:sets": "q" } }));
    assert_eq!(place(&sets), "actions.a.edge:sets");
}

#[test]
fn what_a_device_may_list_is_bounded() {
    let many: serde_json::Map<String, Value> = (0..=AFFORDANCES_MAX)
        .map(|i| (format!("p{i}"), json!({})))
        .collect();
    let error = broken(|json| json["properties"] = Value::Object(many.clone()));
    assert!(matches!(
        error,
        DescriptionError::Invalid {
            fault: Fault::TooMany { .. },
            ..
        }
    ));
    let mut deep = json!({ "type": "integer" });
    for _ in 0..40 {
        deep = json!({ "type": "object", "properties": { "x": deep } });
    }
    let error = broken(|json| json["properties"]["p"] = deep.clone());
    assert!(matches!(
        error,
        DescriptionError::Invalid {
            fault: Fault::TooDeep,
            ..
        }
    ));
}

#[test]
fn members_that_we_do_not_know_are_ignored() {
    let mut json = minimal();
    json["links"] = json!([{ "href": "x" }]);
    json["properties"]["p"]["saref:what"] = json!({ "a": [1] });
    assert!(ThingDescription::from_value(json).is_ok());
}

fn fault(thing: &ThingDescription, action: &str, input: Value) -> ValueFault {
    let schemas = ThingSchemas::compile(thing).expect("compiles");
    match schemas.check_input(action, Some(&input)) {
        Err(CheckError::Value(error)) => error.fault,
        other => panic!("{input}: {other:?}"),
    }
}

#[test]
fn a_value_that_does_not_fit_is_told_why() {
    let lamp = fixture("desk-lamp.json");
    assert_eq!(
        fault(&lamp, "set_brightness", json!({ "level": 400 })),
        ValueFault::OutOfRange {
            min: Some(0.0),
            max: Some(100.0),
            actual: 400.0,
            unit: Some("percent".into())
        }
    );
    assert!(matches!(
        fault(&lamp, "set_brightness", json!({ "level": "x" })),
        ValueFault::WrongType {
            expected: Some(DataType::Integer),
            ..
        }
    ));
    assert_eq!(
        fault(&lamp, "set_brightness", json!({})),
        ValueFault::Missing {
            member: "level".into()
        }
    );
    assert!(matches!(
        fault(&lamp, "turn_on", json!(1)),
        ValueFault::Unexpected { .. }
    ));
    let thermometer = fixture("thermometer.json");
    match fault(&thermometer, "set_fan_speed", json!({ "speed": "warp" })) {
        ValueFault::NotInEnum { allowed, .. } => {
            assert_eq!(allowed, ["off", "low", "medium", "high"]);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn writing_follows_the_description() {
    let schemas = ThingSchemas::compile(&fixture("thermostat.json")).expect("compiles");
    assert!(
        schemas
            .check_write("target_temperature", &json!(21.5))
            .is_ok()
    );
    let step = schemas.check_write("target_temperature", &json!(21.3));
    assert!(matches!(
        step,
        Err(CheckError::Value(error)) if matches!(error.fault, ValueFault::NotAMultiple { .. })
    ));
    let read_only = schemas.check_write("temperature", &json!(20));
    assert!(matches!(read_only, Err(CheckError::ReadOnly { .. })));
    let unknown = schemas.check_write("colour", &json!(20));
    assert!(matches!(unknown, Err(CheckError::NoSuchProperty { .. })));
}

#[test]
fn the_answer_is_made_of_what_the_device_said() {
    let lamp = fixture("desk-lamp.json");
    let wording = Wording::english();
    let report = |value: Value| reply::property_report("brightness", &value, &lamp, &wording);
    assert_eq!(report(json!(40)), "Desk lamp: brightness 40 percent.");
    assert_eq!(report(json!(38)), "Desk lamp: brightness 38 percent.");
    let thermometer = fixture("thermometer.json");
    assert_eq!(
        reply::property_report("fan_speed", &json!("high"), &thermometer, &wording),
        "Thermometer: fan speed high."
    );
    let call = Call {
        thing: lamp.id.clone(),
        operation: Operation::Invoke {
            action: "turn_on".into(),
            input: None,
        },
    };
    assert_eq!(
        reply::answer(&call, None, &lamp, &wording),
        "Desk lamp: turn on – done."
    );
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,300}") {
        let _ = ThingDescription::from_json(&text);
    }

    #[test]
    fn no_member_of_the_wrong_kind_makes_the_reader_panic(
        member in prop::sample::select(vec!["id", "title", "@type", "properties", "actions", "edge:kind"]),
        value in prop::sample::select(vec![
            json!(null), json!(1), json!(""), json!([]), json!({}), json!({ "a": null }),
            json!({ "a": { "input": 3 } }), json!({ "a": { "enum": [] } }), json!([1, "x"]),
        ]),
    ) {
        let mut json = minimal();
        json[member] = value;
        if let Ok(thing) = ThingDescription::from_value(json) {
            let _ = ThingSchemas::compile(&thing);
        }
    }
}
