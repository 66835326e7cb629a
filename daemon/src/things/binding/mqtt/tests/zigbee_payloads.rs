//! What Zigbee2MQTT publishes about its devices, as its documentation shows it.

use super::*;

#[test]
fn the_documented_list_becomes_things_and_says_what_it_leaves_out() {
    let found = zigbee2mqtt::descriptions("home", "zigbee2mqtt", &zigbee_list()).unwrap();
    let titles: Vec<String> = found
        .iter()
        .map(|device| match device {
            Ok(document) => document["title"].as_str().unwrap().to_owned(),
            Err(skipped) => skipped.to_string(),
        })
        .collect();
    assert_eq!(titles[..3], ["My plug", "My bulb", "Hall sensor"]);
    assert!(
        titles[3].contains("my_sensor") && titles[3].contains("definition"),
        "{titles:?}"
    );
    assert!(titles[4].contains("coordinator"), "{titles:?}");
    let bulb = zigbee("My bulb");
    let description = &bulb.thing().described.description;
    assert_eq!(description.id.as_str(), "urn:dev:mac:90fd9ffffe6494fc");
    assert_eq!(description.kinds, ["light", "lamp"]);
    assert!(!description.properties["on"].schema.read_only);
    let sensor = zigbee("Hall sensor");
    assert_eq!(
        sensor.thing().described.description.location.as_deref(),
        Some("hall")
    );
    assert!(
        sensor.thing().described.description.properties["temperature"]
            .schema
            .read_only
    );
}

#[test]
fn documented_zigbee_reports_are_values_and_button_presses_are_events() {
    let mut bulb = zigbee("My bulb");
    let told = reports(
        &mut bulb,
        "zigbee2mqtt/my_bulb",
        r#"{"state":"ON","brightness":215,"color_temp":325}"#,
    );
    assert_eq!(
        told,
        [
            ("brightness".into(), json!(85)),
            ("color_temp".into(), json!(325)),
            ("on".into(), json!(true))
        ]
    );
    let mut sensor = zigbee("Hall sensor");
    let told = reports(
        &mut sensor,
        "zigbee2mqtt/hall/sensor",
        r#"{"temperature":27.34,"humidity":44.72}"#,
    );
    assert_eq!(
        told,
        [
            ("humidity".into(), json!(44.72)),
            ("temperature".into(), json!(27.34))
        ]
    );
    assert_eq!(
        reports(
            &mut sensor,
            "zigbee2mqtt/hall/sensor",
            r#"{"occupancy":true}"#
        ),
        [("occupancy".into(), json!(true))]
    );
    for (payload, events) in [
        (r#"{"action":"single"}"#, 1),
        (r#"{"action":""}"#, 0),
        (r#"{"action":null}"#, 0),
    ] {
        assert!(
            sensor
                .handle_message(
                    Instant::now(),
                    "zigbee2mqtt/hall/sensor",
                    payload.as_bytes()
                )
                .is_empty()
        );
        let emitted = outputs(&mut sensor)
            .into_iter()
            .filter(|output| matches!(output, Output::Event { .. }))
            .count();
        assert_eq!(emitted, events, "{payload}");
    }
}

#[test]
fn zigbee_commands_are_the_documented_ones() {
    let mut bulb = zigbee("My bulb");
    assert_eq!(
        published(&mut bulb, 1, write("on", true)),
        ("zigbee2mqtt/my_bulb/set".into(), r#"{"state":"ON"}"#.into())
    );
    assert_eq!(
        published(&mut bulb, 2, write("brightness", 40)),
        (
            "zigbee2mqtt/my_bulb/set".into(),
            r#"{"brightness":102}"#.into()
        )
    );
    assert_eq!(
        published(&mut bulb, 3, read("on")),
        ("zigbee2mqtt/my_bulb/get".into(), r#"{"state":""}"#.into())
    );
    let xy = Wire::Map(vec![("x".into(), 0.123.into()), ("y".into(), 0.123.into())]);
    assert_eq!(
        published(&mut bulb, 4, write("color_xy", xy)),
        (
            "zigbee2mqtt/my_bulb/set".into(),
            r#"{"color":{"x":0.123,"y":0.123}}"#.into()
        )
    );
}

#[test]
fn a_bridge_or_device_that_is_offline_makes_the_thing_unavailable_in_both_payload_styles() {
    let mut bulb = zigbee("My bulb");
    assert!(!bulb.is_available(), "nothing was heard of the bridge yet");
    for (topic, payload, is_available) in [
        ("zigbee2mqtt/bridge/state", r#"{"state":"online"}"#, true),
        ("zigbee2mqtt/my_bulb/availability", "offline", false),
        (
            "zigbee2mqtt/my_bulb/availability",
            r#"{"state":"online"}"#,
            true,
        ),
        ("zigbee2mqtt/bridge/state", "offline", false),
    ] {
        assert!(
            bulb.handle_message(Instant::now(), topic, payload.as_bytes())
                .is_empty()
        );
        assert_eq!(bulb.is_available(), is_available, "{topic} {payload}");
    }
}
