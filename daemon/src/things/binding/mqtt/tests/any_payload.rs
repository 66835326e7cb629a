//! Whatever is published: no panic, and nothing that the description does not allow.

use proptest::prelude::*;

use super::tasmota_payloads::TASMOTA;
use super::*;

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
