//! The MQTT binding and its machine, with the payloads that the projects' own documentation shows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use autoglm_drivers::port::PortError;
use autoglm_protocol::{Reply, Request, RequestFailure, Value as Wire};
use serde_json::json;

use super::device::{Device, Output, SETTLE, Unpublished};
use super::*;

mod any_payload;
mod tasmota_payloads;
mod zigbee_payloads;

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
