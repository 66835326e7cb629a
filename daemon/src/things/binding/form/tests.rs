use super::*;
use proptest::prelude::*;
use serde_json::json;

fn thing(document: Value) -> ThingDescription {
    ThingDescription::from_value(document).unwrap()
}

fn with_form(form: Value) -> ThingDescription {
    thing(
        json!({"id": "urn:x", "title": "X", "base": "modbus+rtu://bus/7/", "properties": {
            "level": {"type": "integer", "forms": [form]}
        }}),
    )
}

#[test]
fn a_form_has_the_default_operations_of_its_class() {
    let thing = with_form(json!({"href": "3?quantity=2"}));
    let found = affordances(&thing).unwrap();
    let form = &found[0].forms[0];
    assert_eq!(form.operations, [Operation::Read, Operation::Write].into());
    assert_eq!(
        (form.href.scheme.as_str(), form.href.authority.as_str()),
        ("modbus+rtu", "bus")
    );
    assert_eq!(form.href.path, "7/3");
    assert_eq!(form.href.query, [("quantity".into(), "2".into())]);
}

#[test]
fn a_wrong_form_names_its_path() {
    for (form, path, says) in [
        (json!({}), "properties.level.forms[0].href", "missing"),
        (json!(3), "properties.level.forms[0]", "object"),
        (json!({"href": 3}), "properties.level.forms[0].href", "URI"),
        (
            json!({"href": "%zz"}),
            "properties.level.forms[0].href",
            "percent",
        ),
        (
            json!({"href": "x", "op": 3}),
            "properties.level.forms[0].op",
            "operation",
        ),
        (
            json!({"href": "x", "contentType": 3}),
            "properties.level.forms[0].contentType",
            "media",
        ),
    ] {
        let error = affordances(&with_form(form)).unwrap_err();
        assert_eq!(error.path, path);
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[test]
fn forms_of_two_protocols_in_one_thing_are_refused() {
    let two = thing(json!({"id": "urn:x", "title": "X", "properties": {
        "a": {"forms": [{"href": "mqtt://b/t"}]}, "b": {"forms": [{"href": "gatt://c/d"}]}
    }}));
    assert!(
        scheme(&two)
            .unwrap_err()
            .to_string()
            .contains("same scheme")
    );
}

proptest! {
    #[test]
    fn an_encoded_topic_comes_back(topic in "[^\\x00]{1,40}") {
        let href = format!("mqtt://broker/{}", percent_encode(&topic));
        prop_assert_eq!(resolve("p", &href, None).unwrap().path, topic);
    }

    #[test]
    fn any_href_is_taken_or_refused(href in "\\PC{0,60}") {
        let _ = resolve("p", &href, Some("a://b/c"));
        let _ = resolve("p", &href, None);
    }
}
