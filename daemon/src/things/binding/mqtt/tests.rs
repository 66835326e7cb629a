//! The MQTT binding and its machine, with the payloads that the projects' own documentation shows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use autoglm_drivers::port::PortError;
use autoglm_protocol::{Reply, Request, RequestFailure, Value as Wire};
use proptest::prelude::*;
use serde_json::json;

use super::device::{Device, Output, SETTLE, Unpublished};
use super::*;

const DEADLINE: Duration = Duration::from_secs(10);

fn bind(document: Value) -> MqttThing {
    MqttThing::bind(Described::from_value(document).unwrap()).unwrap()
}

fn device(document: Value) -> Device {
    Device::new(Arc::new(bind(document)))
}

fn outputs(device: &mut Device) -> Vec<Output> {
    std::iter::from_fn(|| device.poll_output()).collect()
}

/// The publication that a request leads to: topic and payload.
fn published(device: &mut Device, token: u64, request: Request) -> (String, String) {
    device.handle_request(Instant::now(), token, request, DEADLINE);
    match outputs(device).as_slice() {
        [Output::Publish { topic, payload, .. }] => {
            (topic.clone(), String::from_utf8(payload.clone()).unwrap())
        }
        other => panic!("{other:?}"),
    }
}

fn write(property: &str, value: impl Into<Wire>) -> Request {
    Request::Write {
        property: property.into(),
        value: value.into(),
    }
}

fn read(property: &str) -> Request {
    Request::Read {
        property: property.into(),
    }
}

fn reports(device: &mut Device, topic: &str, payload: &str) -> Vec<(String, Value)> {
    let errors = device.handle_message(Instant::now(), topic, payload.as_bytes());
    assert_eq!(errors, [], "{topic} {payload}");
    outputs(device)
        .into_iter()
        .filter_map(|output| match output {
            Output::Value { property, value } => Some((property, value)),
            _ => None,
        })
        .collect()
}

/// From <https://www.zigbee2mqtt.io/guide/usage/mqtt_topics_and_messages.html>, with the `exposes` that
/// <https://www.zigbee2mqtt.io/guide/usage/exposes.html> shows for such devices in place of its `[...]`.
fn zigbee_list() -> Vec<u8> {
    let light = json!({"type": "light", "features": [
        {"type":"binary","name":"state","property":"state","value_on":"ON","value_off":"OFF","value_toggle":"TOGGLE","access":7},
        {"type":"numeric","name":"brightness","property":"brightness","value_min":0,"value_max":254,"access":7},
        {"type":"numeric","name":"color_temp","property":"color_temp","access":7},
        {"type":"composite","name":"color_xy","property":"color","features":[
            {"type":"numeric","name":"x","property":"x","access":7}, {"type":"numeric","name":"y","property":"y","access":7}]}
    ]});
    let plug = json!({"type": "switch", "features": [
        {"type":"binary","name":"state","property":"state","value_on":"ON","value_off":"OFF","value_toggle":"TOGGLE","access":7}]});
    let list = json!([
        {"ieee_address":"0x00158d00018255df","type":"Router","network_address":29159,"supported":true,"friendly_name":"my_plug",
         "endpoints":{"1":{"bindings":[],"configured_reportings":[],"clusters":{"input":["genOnOff","genBasic"],"output":[]}}},
         "definition":{"model":"ZNCZ02LM","vendor":"Xiaomi","description":"Mi power plug ZigBee","options":[],
             "exposes":[plug, {"type":"numeric","name":"power","property":"power","unit":"W","access":5}]},
         "power_source":"Mains (single phase)","date_code":"02-28-2017","model_id":"lumi.plug","interviewing":false,"interview_completed":true},
        {"ieee_address":"0x90fd9ffffe6494fc","type":"Router","network_address":57440,"supported":true,"friendly_name":"my_bulb",
         "definition":{"model":"LED1624G9","vendor":"IKEA","description":"TRADFRI LED bulb E14/E26/E27 600 lumen, dimmable, color, opal white",
             "options":[],"exposes":[light]},
         "power_source":"Mains (single phase)","interviewing":false,"interview_completed":true},
        {"ieee_address":"0x00158d0001f3a2b1","type":"EndDevice","network_address":1,"supported":true,"friendly_name":"hall/sensor",
         "definition":{"model":"WSDCGQ01LM","vendor":"Xiaomi","description":"Temperature and humidity sensor","exposes":[
             {"type":"numeric","name":"temperature","property":"temperature","unit":"°C","access":1},
             {"type":"numeric","name":"humidity","property":"humidity","unit":"%","access":1},
             {"type":"binary","name":"occupancy","property":"occupancy","value_on":true,"value_off":false,"access":1},
             {"type":"enum","name":"action","property":"action","values":["single","double"],"access":1}]}},
        {"ieee_address":"0x00169a00022256da","type":"Router","network_address":22160,"supported":false,"friendly_name":"my_sensor","definition":null},
        {"ieee_address":"0x00124b00120144ae","type":"Coordinator","network_address":0,"supported":false,"friendly_name":"Coordinator","definition":null}
    ]);
    list.to_string().into_bytes()
}

fn zigbee(title: &str) -> Device {
    let found = zigbee2mqtt::descriptions("home", "zigbee2mqtt", &zigbee_list()).unwrap();
    let document = found
        .into_iter()
        .filter_map(Result::ok)
        .find(|document| document["title"] == title);
    device(document.unwrap())
}

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

#[test]
fn a_write_is_answered_by_the_devices_own_report() {
    let mut bulb = zigbee("My bulb");
    published(&mut bulb, 7, write("on", true));
    bulb.handle_published(7, Ok(()));
    assert_eq!(
        outputs(&mut bulb),
        [],
        "the broker's acknowledgement is no answer of the lamp"
    );
    bulb.handle_message(Instant::now(), "zigbee2mqtt/my_bulb", br#"{"state":"ON"}"#);
    let answer = Output::Answer {
        token: 7,
        result: Ok(Reply::Done(Wire::Bool(true))),
    };
    assert!(outputs(&mut bulb).contains(&answer));
}

#[test]
fn a_lamp_that_fades_is_waited_for_and_then_taken_at_its_word() {
    let start = Instant::now();
    let mut bulb = zigbee("My bulb");
    bulb.handle_request(start, 1, write("brightness", 40), DEADLINE);
    bulb.handle_request(start, 2, write("brightness", 80), DEADLINE);
    outputs(&mut bulb);
    bulb.handle_message(start, "zigbee2mqtt/my_bulb", br#"{"brightness":50}"#);
    bulb.handle_message(start, "zigbee2mqtt/my_bulb", br#"{"brightness":102}"#);
    let done = |token, percent: i64| Output::Answer {
        token,
        result: Ok(Reply::Done(percent.into())),
    };
    assert!(outputs(&mut bulb).contains(&done(1, 40)));
    assert_eq!(bulb.poll_timeout(), Some(start + SETTLE));
    bulb.handle_timeout(start + SETTLE);
    assert_eq!(
        outputs(&mut bulb),
        [done(2, 40)],
        "it stays at 40 and says so"
    );
}

#[test]
fn silence_is_no_answer_and_a_lost_way_is_told() {
    let start = Instant::now();
    let mut bulb = zigbee("My bulb");
    bulb.handle_request(start, 1, write("on", true), DEADLINE);
    outputs(&mut bulb);
    bulb.handle_timeout(start + DEADLINE);
    let end = outputs(&mut bulb);
    assert!(
        matches!(
            end.as_slice(),
            [Output::Answer {
                token: 1,
                result: Err(PortError::Failed(RequestFailure::DeadlineExceeded { .. }))
            }]
        ),
        "{end:?}"
    );
    bulb.handle_request(start, 2, read("on"), DEADLINE);
    outputs(&mut bulb);
    bulb.handle_lost();
    let end = outputs(&mut bulb);
    assert!(
        matches!(
            end.as_slice(),
            [Output::Answer {
                token: 2,
                result: Err(PortError::Failed(RequestFailure::ConnectionLost { .. }))
            }]
        ),
        "{end:?}"
    );
    bulb.handle_request(start, 3, write("on", true), DEADLINE);
    outputs(&mut bulb);
    bulb.handle_published(3, Err(Unpublished::Busy));
    assert_eq!(
        outputs(&mut bulb),
        [Output::Answer {
            token: 3,
            result: Err(PortError::Busy)
        }]
    );
}

#[test]
fn what_cannot_be_asked_is_read_from_its_last_report() {
    let mut sensor = zigbee("Hall sensor");
    sensor.handle_request(Instant::now(), 1, read("temperature"), DEADLINE);
    let end = outputs(&mut sensor);
    assert!(
        matches!(end.as_slice(), [Output::Answer { result: Err(PortError::Failed(RequestFailure::Fault(fault))), .. }] if fault.message.contains("not reported")),
        "{end:?}"
    );
    reports(
        &mut sensor,
        "zigbee2mqtt/hall/sensor",
        r#"{"temperature":27.34}"#,
    );
    sensor.handle_request(Instant::now(), 2, read("temperature"), DEADLINE);
    assert_eq!(
        outputs(&mut sensor),
        [Output::Answer {
            token: 2,
            result: Ok(Reply::Value(27.34.into()))
        }]
    );
}

#[test]
fn a_broken_payload_is_a_typed_error_and_changes_nothing() {
    let mut bulb = zigbee("My bulb");
    for (payload, is_expected) in [
        (
            &b"{"[..],
            (|error| matches!(error, payload::PayloadError::NotJson(_)))
                as fn(&payload::PayloadError) -> bool,
        ),
        (b"\xff", |error| {
            matches!(error, payload::PayloadError::NotText)
        }),
        (br#"{"state":"MAYBE"}"#, |error| {
            matches!(error, payload::PayloadError::Unlisted(_))
        }),
        (br#"{"brightness":"bright"}"#, |error| {
            matches!(error, payload::PayloadError::Type { .. })
        }),
    ] {
        let errors = bulb.handle_message(Instant::now(), "zigbee2mqtt/my_bulb", payload);
        assert!(
            !errors.is_empty() && errors.iter().all(is_expected),
            "{errors:?}"
        );
        assert_eq!(outputs(&mut bulb), []);
    }
    assert!(zigbee2mqtt::descriptions("b", "z", b"{}").is_err());
}

/// Messages of a dimmer with Tasmota 9.3.0 as others have recorded and published them.
const TASMOTA: &str = r#"{"ip":"192.168.15.10","dn":"Huzzah 1","fn":["Relay 1",null,null,null,null,null,null,null],"hn":"tasmota-huzzah",
    "mac":"00000049A3BC","md":"Huzzah","ty":0,"if":0,"ofln":"Offline","onln":"Online","state":["OFF","ON","TOGGLE","HOLD"],"sw":"9.3.0",
    "t":"huzzah_1","ft":"%prefix%/%topic%/","tp":["cmnd","stat","tele"],"rl":[2,0,0,0,0,0,0,0],"swc":[-1,-1],"btn":[0,0],
    "so":{"4":0,"11":0,"17":0,"30":1,"68":0},"lk":1,"lt_st":1,"ver":1}"#;
const TASMOTA_SENSORS: &str = r#"{"sn":{"Time":"2021-02-23T18:44:24","AM2301":{"Temperature":null,"Humidity":null},"TempUnit":"C"},"ver":1}"#;

fn tasmota_things(config: &str, sensors: Option<&str>) -> Vec<Device> {
    let config = tasmota::Config::parse(config.as_bytes()).unwrap();
    let found = tasmota::descriptions("home", &config, sensors.map(str::as_bytes)).unwrap();
    found.into_iter().map(device).collect()
}

#[test]
fn a_tasmota_dimmer_with_a_sensor_is_one_thing() {
    let mut things = tasmota_things(TASMOTA, Some(TASMOTA_SENSORS));
    let [dimmer] = things.as_mut_slice() else {
        panic!("{things:?}")
    };
    assert_eq!(dimmer.thing().described.description.title, "Huzzah 1");
    assert_eq!(
        dimmer.thing().described.description.id.as_str(),
        "urn:dev:mac:000000fffe49a3bc"
    );
    let state = r#"{"Time":"2021-03-07T23:12:34","Uptime":"0T00:05:09","POWER":"ON","Dimmer":7,"Fade":"OFF","Wifi":{"RSSI":70}}"#;
    assert_eq!(
        reports(dimmer, "tele/huzzah_1/STATE", state),
        [("brightness".into(), json!(7)), ("on".into(), json!(true))]
    );
    assert_eq!(
        reports(dimmer, "stat/huzzah_1/RESULT", r#"{"POWER":"OFF"}"#),
        [("on".into(), json!(false))]
    );
    assert_eq!(
        reports(
            dimmer,
            "stat/huzzah_1/STATUS11",
            r#"{"StatusSTS":{"POWER":"ON"}}"#
        ),
        [("on".into(), json!(true))]
    );
    let air = r#"{"Time":"2021-03-07T23:12:34","AM2301":{"Temperature":21.7,"Humidity":40.1},"TempUnit":"C"}"#;
    assert_eq!(
        reports(dimmer, "tele/huzzah_1/SENSOR", air),
        [
            ("humidity".into(), json!(40.1)),
            ("temperature".into(), json!(21.7))
        ]
    );
    let unit = dimmer.thing().described.description.properties["temperature"]
        .schema
        .unit
        .clone();
    assert_eq!(unit.as_deref(), Some("°C"));
    assert_eq!(
        published(dimmer, 1, write("on", true)),
        ("cmnd/huzzah_1/POWER1".into(), "ON".into())
    );
    assert_eq!(
        published(dimmer, 2, write("brightness", 40)),
        ("cmnd/huzzah_1/Dimmer".into(), "40".into())
    );
    assert_eq!(
        published(dimmer, 3, read("on")),
        ("cmnd/huzzah_1/STATUS".into(), "11".into())
    );
    assert_eq!(
        published(dimmer, 4, read("temperature")),
        ("cmnd/huzzah_1/STATUS".into(), "10".into())
    );
    assert!(!dimmer.is_available());
    dimmer.handle_message(Instant::now(), "tele/huzzah_1/LWT", b"Online");
    assert!(dimmer.is_available());
}

#[test]
fn several_tasmota_relays_are_things_by_their_own_names() {
    let several = TASMOTA
        .replace("\"rl\":[2,0,", "\"rl\":[1,1,")
        .replace(r#""fn":["Relay 1",null,"#, r#""fn":["Beer","Milk","#)
        .replace("%prefix%/%topic%/", "%topic%/%prefix%/");
    let mut things = tasmota_things(&several, Some(TASMOTA_SENSORS));
    let titles: Vec<String> = things
        .iter()
        .map(|thing| thing.thing().described.description.title.clone())
        .collect();
    assert_eq!(titles, ["Beer", "Milk", "Huzzah 1"]);
    assert_eq!(
        published(&mut things[1], 1, write("on", false)),
        ("huzzah_1/cmnd/POWER2".into(), "OFF".into())
    );
    assert_eq!(
        reports(&mut things[1], "huzzah_1/stat/RESULT", r#"{"POWER2":"ON"}"#),
        [("on".into(), json!(true))]
    );
    for wrong in [
        TASMOTA.replace("00000049A3BC", "?"),
        TASMOTA.replace("%prefix%", "x"),
        "[]".into(),
        TASMOTA.replace("\"tele\"", "\"tele\",\"x\""),
    ] {
        assert!(tasmota::Config::parse(wrong.as_bytes()).is_err(), "{wrong}");
    }
}

#[test]
fn a_described_action_sends_its_constant_and_its_answer_is_the_property_that_it_sets() {
    let mut thing = device(
        json!({"id": "urn:x", "title": "Pump", "base": "mqtt://home/",
        "properties": {"level": {"type": "number", "readOnly": true, "forms": [{"href": "pump/level", "op": "observeproperty", "contentType": "text/plain"}]}},
        "actions": {
            "fill": {"edge:sets": "level", "forms": [{"href": "pump/do", "edge:value": "FILL", "contentType": "text/plain"}]},
            "empty": {"forms": [{"href": "pump/do", "edge:value": "EMPTY", "contentType": "text/plain", "mqv:retain": true}]},
            "set": {"input": {"type": "object", "properties": {"level": {"type": "number"}}}, "forms": [{"href": "pump/set", "edge:pointer": "/level"}]}
        }}),
    );
    let invoke = |action: &str, input: Wire| Request::Invoke {
        action: action.into(),
        input,
    };
    assert_eq!(
        published(&mut thing, 1, invoke("fill", Wire::Null)),
        ("pump/do".into(), "FILL".into())
    );
    thing.handle_published(1, Ok(()));
    assert_eq!(outputs(&mut thing), []);
    thing.handle_message(Instant::now(), "pump/level", b"7.5");
    assert!(outputs(&mut thing).contains(&Output::Answer {
        token: 1,
        result: Ok(Reply::Done(7.5.into()))
    }));
    published(&mut thing, 2, invoke("empty", Wire::Null));
    thing.handle_published(2, Ok(()));
    assert_eq!(
        outputs(&mut thing),
        [Output::Answer {
            token: 2,
            result: Ok(Reply::Done(Wire::Null))
        }]
    );
    let input = Wire::Map(vec![("level".into(), 3.into())]);
    assert_eq!(
        published(&mut thing, 3, invoke("set", input)),
        ("pump/set".into(), r#"{"level":3}"#.into())
    );
}

#[test]
fn a_wrong_form_is_refused_with_its_path() {
    let fault = |form: Value| {
        let document = json!({"id": "urn:x", "title": "X", "properties": {"a": {"type": "boolean", "readOnly": true, "forms": [form]}}});
        MqttThing::bind(Described::from_value(document).unwrap())
            .unwrap_err()
            .to_string()
    };
    for (form, path) in [
        (
            json!({"href": "mqtt://b/a/#"}),
            "properties.a.forms[0].href",
        ),
        (json!({"href": "mqtt://b/"}), "properties.a.forms[0].href"),
        (
            json!({"href": "mqtt://b/t", "edge:pointer": "state"}),
            "properties.a.forms[0].edge:pointer",
        ),
        (
            json!({"href": "mqtt://b/t", "edge:pointer": "/a".repeat(20)}),
            "properties.a.forms[0].edge:pointer",
        ),
        (
            json!({"href": "mqtt://b/t", "edge:values": [[true]]}),
            "properties.a.forms[0].edge:values",
        ),
        (
            json!({"href": "mqtt://b/t", "edge:template": "{{ now() }}"}),
            "properties.a.forms[0].edge:template",
        ),
        (
            json!({"href": "mqtt://b/t", "op": "writeproperty"}),
            "properties.a.forms",
        ),
    ] {
        let error = fault(form);
        assert!(error.contains(path), "{error}");
    }
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "\\PC{0,6}".prop_map(Value::from),
        prop::sample::select(vec![
            "light",
            "switch",
            "binary",
            "numeric",
            "enum",
            "composite",
            "state",
            "brightness",
            "action",
            "ON",
            "0x00158d00018255df"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let key = prop::sample::select(vec![
            "ieee_address",
            "type",
            "friendly_name",
            "definition",
            "exposes",
            "features",
            "name",
            "property",
            "access",
            "value_on",
            "value_off",
            "value_min",
            "value_max",
            "values",
            "mac",
            "dn",
            "fn",
            "t",
            "ft",
            "tp",
            "rl",
            "sn",
            "AM2301",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            prop::collection::btree_map(key, inner, 0..8).prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    #[test]
    fn any_discovery_message_is_described_or_refused(message in json_value(), bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let text = message.to_string();
        for payload in [text.as_bytes(), bytes.as_slice(), format!("[{text}]").as_bytes()] {
            if let Ok(found) = zigbee2mqtt::descriptions("home", "zigbee2mqtt", payload) {
                for document in found.into_iter().flatten() {
                    let _ = Described::from_value(document).map(MqttThing::bind);
                }
            }
            if let Ok(config) = tasmota::Config::parse(TASMOTA.as_bytes()) {
                let _ = tasmota::descriptions("home", &config, Some(payload));
            }
            let _ = tasmota::Config::parse(payload);
        }
    }

    #[test]
    fn any_payload_is_reported_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..60), message in json_value()) {
        let mut bulb = zigbee("My bulb");
        for payload in [bytes.as_slice(), message.to_string().as_bytes()] {
            for topic in ["zigbee2mqtt/my_bulb", "zigbee2mqtt/my_bulb/availability", "zigbee2mqtt/bridge/state", "other"] {
                bulb.handle_message(Instant::now(), topic, payload);
            }
        }
    }
}
