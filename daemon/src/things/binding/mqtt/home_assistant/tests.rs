//! Against the examples of <https://www.home-assistant.io/integrations/mqtt/> ("Discovery examples", "Device discovery payload").

use std::sync::Arc;
use std::time::{Duration, Instant};

use autoglm_protocol::{Request, Value as Wire};
use proptest::prelude::*;

use super::super::MqttThing;
use super::super::device::{Device, Output};
use super::*;
use crate::things::binding::Described;

/// The Things of one group after these messages.
fn things(messages: &[(&str, Value)]) -> Vec<Device> {
    let mut discovery = Discovery::default();
    let mut groups = BTreeSet::new();
    for (topic, config) in messages {
        let (changed, refused) = discovery
            .handle_config("homeassistant", topic, config.to_string().as_bytes())
            .unwrap();
        assert_eq!(refused, [], "{topic}");
        groups.extend(changed);
    }
    groups
        .iter()
        .flat_map(|group| discovery.descriptions("home", group))
        .map(|document| {
            Device::new(Arc::new(
                MqttThing::bind(Described::from_value(document).unwrap()).unwrap(),
            ))
        })
        .collect()
}

fn one(messages: &[(&str, Value)]) -> Device {
    let mut things = things(messages);
    assert_eq!(things.len(), 1, "{things:?}");
    things.remove(0)
}

fn outputs(device: &mut Device) -> Vec<Output> {
    std::iter::from_fn(|| device.poll_output()).collect()
}

fn told(device: &mut Device, topic: &str, payload: &str) -> Vec<(String, Value)> {
    let errors = device.handle_message(Instant::now(), topic, payload.as_bytes());
    assert_eq!(errors, [], "{topic} {payload}");
    let values = outputs(device)
        .into_iter()
        .filter_map(|output| match output {
            Output::Value { property, value } => Some((property, value)),
            _ => None,
        });
    values.collect()
}

fn sent(device: &mut Device, request: Request) -> (String, String) {
    device.handle_request(Instant::now(), 1, request, Duration::from_secs(1));
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

#[test]
fn the_motion_detector_is_a_thing_that_reports() {
    let mut garden = one(&[(
        "homeassistant/binary_sensor/garden/config",
        json!({"name": "garden", "device_class": "motion", "state_topic": "homeassistant/binary_sensor/garden/state"}),
    )]);
    assert_eq!(garden.thing().described.description.title, "garden");
    assert_eq!(
        told(
            &mut garden,
            "homeassistant/binary_sensor/garden/state",
            "ON"
        ),
        [("garden".into(), json!(true))]
    );
    assert!(garden.is_available(), "nothing says otherwise");
}

#[test]
fn one_state_topic_serves_two_sensors_by_template() {
    let config = |class: &str, unit: &str| {
        json!({"device_class": class, "name": super::super::td::spoken(class), "unit_of_measurement": unit,
        "state_topic": "homeassistant/sensor/sensorBedroom/state", "value_template": format!("{{{{ value_json.{class}}}}}"),
        "device": {"identifiers": ["bedroom01ae"], "name": "Bedroom"}})
    };
    let mut bedroom = one(&[
        (
            "homeassistant/sensor/sensorBedroomT/config",
            config("temperature", "°C"),
        ),
        (
            "homeassistant/sensor/sensorBedroomH/config",
            config("humidity", "%"),
        ),
    ]);
    assert_eq!(bedroom.thing().described.description.title, "Bedroom");
    let values = told(
        &mut bedroom,
        "homeassistant/sensor/sensorBedroom/state",
        r#"{ "temperature": 23.20, "humidity": 43.70 }"#,
    );
    assert_eq!(
        values,
        [
            ("humidity".into(), json!(43.7)),
            ("temperature".into(), json!(23.2))
        ]
    );
}

#[test]
fn the_switch_is_the_same_with_and_without_abbreviations() {
    let long = json!({"name": "garden", "command_topic": "homeassistant/switch/irrigation/set", "state_topic": "homeassistant/switch/irrigation/state"});
    let short = json!({"~": "homeassistant/switch/irrigation", "name": "garden", "cmd_t": "~/set", "stat_t": "~/state"});
    for config in [long, short] {
        let mut switch = one(&[("homeassistant/switch/irrigation/config", config)]);
        assert_eq!(
            sent(&mut switch, write("on", true)),
            ("homeassistant/switch/irrigation/set".into(), "ON".into())
        );
        assert_eq!(
            told(&mut switch, "homeassistant/switch/irrigation/state", "ON"),
            [("on".into(), json!(true))]
        );
    }
}

#[test]
fn the_light_of_the_json_schema_dims_in_percent() {
    let mut light = one(&[(
        "homeassistant/light/kitchen/config",
        json!({"~": "homeassistant/light/kitchen", "name": "Kitchen",
        "unique_id": "kitchen_light", "cmd_t": "~/set", "stat_t": "~/state", "schema": "json", "brightness": true}),
    )]);
    assert_eq!(
        told(
            &mut light,
            "homeassistant/light/kitchen/state",
            r#"{"state": "ON", "brightness": 255}"#
        ),
        [
            ("brightness".into(), json!(100)),
            ("on".into(), json!(true))
        ]
    );
    assert_eq!(
        sent(&mut light, write("on", false)),
        (
            "homeassistant/light/kitchen/set".into(),
            r#"{"state":"OFF"}"#.into()
        )
    );
    assert_eq!(
        sent(&mut light, write("brightness", 40)),
        (
            "homeassistant/light/kitchen/set".into(),
            r#"{"state":"ON","brightness":102}"#.into()
        )
    );
}

#[test]
fn a_device_message_holds_its_components_and_empty_ones_are_removed() {
    // The page's example of a device with two sensors, then the same with one removed.
    let message = json!({"dev": {"ids": "ea334450945afc", "name": "Kitchen", "mf": "Bla electronics", "mdl": "xya", "sw": "1.0", "sn": "ea334450945afc", "hw": "1.0rev2"},
        "o": {"name": "bla2mqtt", "sw": "2.1", "url": "https://bla2mqtt.example.com/support"},
        "cmps": {
            "some_unique_component_id1": {"p": "sensor", "device_class": "temperature", "unit_of_measurement": "°C", "value_template": "{{ value_json.temperature}}", "unique_id": "temp01ae_t"},
            "some_unique_id2": {"p": "sensor", "device_class": "humidity", "unit_of_measurement": "%", "value_template": "{{ value_json.humidity}}", "unique_id": "temp01ae_h"}},
        "state_topic": "sensorBedroom/state", "qos": 2});
    let topic = "homeassistant/device/0AFFD2/bla/config";
    let mut kitchen = one(&[(topic, message.clone())]);
    assert_eq!(kitchen.thing().described.description.title, "Kitchen");
    assert_eq!(
        told(
            &mut kitchen,
            "sensorBedroom/state",
            r#"{"temperature": 23.2, "humidity": 43.7}"#
        )
        .len(),
        2
    );
    let mut fewer = message;
    fewer["cmps"]["some_unique_id2"] = json!({"p": "sensor"});
    let kitchen = one(&[(topic, fewer)]);
    assert_eq!(
        kitchen.thing().properties.keys().collect::<Vec<_>>(),
        ["temperature"]
    );
}

#[test]
fn several_lights_of_a_device_are_things_by_their_own_names() {
    let light = |object: &str, name: &str| {
        (
            format!("homeassistant/light/strip/{object}/config"),
            json!({"name": name, "cmd_t": format!("s/{object}/set"),
        "stat_t": format!("s/{object}"), "avty_t": "s/status", "dev": {"ids": ["strip"], "name": "Strip", "sa": "Kitchen"}}),
        )
    };
    let (left, right) = (light("l", "Left"), light("r", "Right"));
    let mut things = things(&[(&left.0, left.1.clone()), (&right.0, right.1.clone())]);
    let titles: Vec<&str> = things
        .iter()
        .map(|thing| thing.thing().described.description.title.as_str())
        .collect();
    assert_eq!(titles, ["Strip Left", "Strip Right"]);
    assert!(!things[0].is_available());
    things[0].handle_message(Instant::now(), "s/status", b"online");
    assert!(things[0].is_available());
    assert_eq!(
        things[0].thing().described.description.location.as_deref(),
        Some("Kitchen")
    );
}

#[test]
fn covers_locks_fans_numbers_buttons_and_events_do_what_their_pages_say() {
    let mut cover = one(&[(
        "homeassistant/cover/blind/config",
        json!({"name": "Blind", "cmd_t": "b/set", "stat_t": "b/state", "set_pos_t": "b/pos/set", "pos_t": "b/pos"}),
    )]);
    assert_eq!(
        sent(&mut cover, write("open", true)),
        ("b/set".into(), "OPEN".into())
    );
    assert_eq!(
        told(&mut cover, "b/state", "closing"),
        [("open".into(), json!(true))]
    );
    assert_eq!(
        sent(&mut cover, write("position", 30)),
        ("b/pos/set".into(), "30".into())
    );
    assert_eq!(
        sent(
            &mut cover,
            Request::Invoke {
                action: "stop".into(),
                input: Wire::Null
            }
        ),
        ("b/set".into(), "STOP".into())
    );
    let mut lock = one(&[(
        "homeassistant/lock/door/config",
        json!({"name": "Door", "cmd_t": "d/set", "stat_t": "d"}),
    )]);
    assert!(lock.thing().described.description.properties["locked"].confirm);
    assert_eq!(
        sent(&mut lock, write("locked", false)),
        ("d/set".into(), "UNLOCK".into())
    );
    assert_eq!(
        told(&mut lock, "d", "LOCKED"),
        [("locked".into(), json!(true))]
    );
    let mut fan = one(&[(
        "homeassistant/fan/f/config",
        json!({"name": "Fan", "cmd_t": "f/set", "stat_t": "f", "pct_cmd_t": "f/pct/set", "pct_stat_t": "f/pct", "spd_rng_max": 10}),
    )]);
    assert_eq!(
        sent(&mut fan, write("speed", 50)),
        ("f/pct/set".into(), "5".into())
    );
    let mut number = one(&[(
        "homeassistant/number/n/config",
        json!({"name": "Level", "cmd_t": "n/set", "cmd_tpl": "{\"v\": {{ value }} }", "stat_t": "n", "min": 0, "max": 5}),
    )]);
    assert_eq!(
        sent(&mut number, write("level", 3)),
        ("n/set".into(), "{\"v\": 3 }".into())
    );
    let mut button = one(&[(
        "homeassistant/button/r/config",
        json!({"name": "Restart", "cmd_t": "r/do"}),
    )]);
    assert_eq!(
        sent(
            &mut button,
            Request::Invoke {
                action: "restart".into(),
                input: Wire::Null
            }
        ),
        ("r/do".into(), "PRESS".into())
    );
    let mut event = one(&[(
        "homeassistant/event/e/config",
        json!({"name": "Doorbell", "stat_t": "e", "event_types": ["press"]}),
    )]);
    event.handle_message(Instant::now(), "e", br#"{"event_type": "press"}"#);
    assert_eq!(
        outputs(&mut event),
        [Output::Event {
            name: "doorbell".into(),
            data: json!("press")
        }]
    );
}

#[test]
fn what_is_not_taken_is_refused_by_name() {
    let mut discovery = Discovery::default();
    let mut refused = |topic: &str, config: Value| match discovery.handle_config(
        "homeassistant",
        topic,
        config.to_string().as_bytes(),
    ) {
        Ok((_, refused)) => refused
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; "),
        Err(error) => error.to_string(),
    };
    for (topic, config, culprit) in [
        (
            "homeassistant/camera/c/config",
            json!({"topic": "c"}),
            "camera",
        ),
        ("homeassistant/sensor/s/config", json!({}), "state_topic"),
        (
            "homeassistant/sensor/s/config",
            json!({"stat_t": "s/#"}),
            "state_topic",
        ),
        (
            "homeassistant/sensor/s/config",
            json!({"stat_t": "s", "val_tpl": "{{ value | regex_findall('x') }}"}),
            "regex_findall",
        ),
        (
            "homeassistant/light/l/config",
            json!({"cmd_t": "l", "schema": "template"}),
            "template schema",
        ),
        (
            "homeassistant/select/s/config",
            json!({"cmd_t": "l"}),
            "options",
        ),
        (
            "homeassistant/device/d/config",
            json!({"dev": {"ids": "x"}}),
            "components",
        ),
        (
            "homeassistant/a/b/c/d/config",
            json!({}),
            "configuration topic",
        ),
        ("homeassistant/sensor/s/config", json!([]), "object"),
    ] {
        let error = refused(topic, config);
        assert!(error.contains(culprit), "{topic}: {error}");
    }
}

#[test]
fn an_empty_message_removes_what_its_topic_configured() {
    let mut discovery = Discovery::default();
    let topic = "homeassistant/binary_sensor/garden/config";
    let config = json!({"name": "garden", "state_topic": "g"}).to_string();
    let (groups, _) = discovery
        .handle_config("homeassistant", topic, config.as_bytes())
        .unwrap();
    let group = groups.into_iter().next().unwrap();
    assert_eq!(discovery.descriptions("home", &group).len(), 1);
    let (changed, _) = discovery
        .handle_config("homeassistant", topic, b"")
        .unwrap();
    assert!(changed.contains(&group));
    assert!(discovery.descriptions("home", &group).is_empty());
}

fn member() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        prop::sample::select(vec![
            "~/a",
            "a/b",
            "json",
            "ON",
            "{{ value_json.a }}",
            "{{ value"
        ])
        .prop_map(Value::from),
        Just(json!(["a", "b"])),
        Just(json!([{"t": "a"}])),
        Just(json!({"ids": ["x"], "name": "y"})),
    ]
}

proptest! {
    #[test]
    fn any_configuration_is_described_or_refused(
        component in prop::sample::select(vec!["sensor", "binary_sensor", "switch", "light", "number", "select", "text", "button", "cover", "lock", "fan", "event", "device", "x"]),
        members in prop::collection::btree_map(prop::sample::select(vec![
            "~", "name", "cmd_t", "stat_t", "val_tpl", "cmd_tpl", "dev", "avty", "avty_t", "avty_mode", "pl_on", "pl_off", "schema", "brightness", "bri_scl",
            "bri_cmd_t", "min", "max", "ops", "unit_of_meas", "dev_cla", "cmps", "set_pos_t", "pos_open", "pos_clsd", "pct_cmd_t", "spd_rng_max", "ret"]), member(), 0..12),
        bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let mut discovery = Discovery::default();
        let topic = format!("homeassistant/{component}/o/config");
        for payload in [json!(members).to_string().into_bytes(), bytes] {
            if let Ok((groups, _)) = discovery.handle_config("homeassistant", &topic, &payload) {
                for document in groups.iter().flat_map(|group| discovery.descriptions("home", group)) {
                    let _ = Described::from_value(document).map(MqttThing::bind);
                }
            }
        }
    }
}
