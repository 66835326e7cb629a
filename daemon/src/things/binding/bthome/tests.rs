//! Against the format's own examples: <https://bthome.io/format/> and <https://bthome.io/encryption/>.

use proptest::prelude::*;

use super::*;
use crate::things::description::ThingDescription;

fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text.replace(' ', "")).unwrap()
}

fn receiver() -> Receiver {
    Receiver::new([0x54, 0x48, 0xe6, 0x8f, 0x80, 0xa5], None)
}

fn heard(objects: &str) -> Heard {
    receiver()
        .handle_service_data(&[vec![0x40], bytes(objects)].concat())
        .unwrap()
}

/// "Example" and "Result" of the format's tables.
const PUBLISHED: &[(&str, &str, &str)] = &[
    ("0161", "battery", "97"),
    ("02CA09", "temperature", "25.06"),
    ("03BF13", "humidity", "50.55"),
    ("2E23", "humidity", "35"),
    ("04138A01", "pressure", "1008.83"),
    ("05138A14", "illuminance", "13460.67"),
    ("065E1F", "mass", "80.3"),
    ("073E1D", "mass_lb", "74.86"),
    ("08CA06", "dew_point", "17.38"),
    ("0960", "count", "96"),
    ("3D0960", "count", "24585"),
    ("3E2A2C0960", "count", "1611213866"),
    ("59EA", "count", "-22"),
    ("5AEAEA", "count", "-5398"),
    ("5BEA0234EA", "count", "-365690134"),
    ("0A138A14", "energy", "1346.067"),
    ("4D12138A14", "energy", "344593.17"),
    ("0B021B00", "power", "69.14"),
    ("5C02FBFFFF", "power", "-12.78"),
    ("0C020C", "voltage", "3.074"),
    ("4A020C", "voltage", "307.4"),
    ("0D120C", "pm2_5", "3090"),
    ("0E021C", "pm10", "7170"),
    ("12E204", "co2", "1250"),
    ("133301", "tvoc", "307"),
    ("14020C", "moisture", "30.74"),
    ("2F23", "moisture", "35"),
    ("3F020C", "rotation", "307.4"),
    ("400C00", "distance_mm", "12"),
    ("414E00", "distance", "7.8"),
    ("424E3400", "duration", "13.39"),
    ("434E34", "current", "13.39"),
    ("5D02EA", "current", "-5.63"),
    ("444E34", "speed", "133.9"),
    ("451101", "temperature", "27.3"),
    ("57EA", "temperature", "-22"),
    ("58EA", "temperature", "-7.7"),
    ("4632", "uv_index", "5"),
    ("478756", "volume", "2215.1"),
    ("48DC87", "volume_ml", "34780"),
    ("49DC87", "volume_flow_rate", "34.78"),
    ("4B138A14", "gas", "1346.067"),
    ("4C41018A01", "gas", "25821.505"),
    ("4E87562A01", "volume", "19551.879"),
    ("4F87562A01", "water", "19551.879"),
    ("5587562A01", "volume_storage", "19551.879"),
    ("505D396164", "timestamp", "1684093277"),
    ("518756", "acceleration", "22.151"),
    ("528756", "gyroscope", "22.151"),
    ("56E803", "conductivity", "1000"),
    ("5E9F8C", "direction", "359.99"),
    ("5FA00F", "precipitation", "400"),
    ("61AC0D", "rotational_speed", "3500"),
    ("624099DFFF", "speed", "-2.123456"),
    ("634057D0FF", "acceleration", "-3.123392"),
    ("530C48656C6C6F20576F726C6421", "text", "\"Hello World!\""),
    (
        "540C48656C6C6F20576F726C6421",
        "raw",
        "\"48656c6c6f20576f726c6421\"",
    ),
    ("0F01", "generic", "true"),
    ("1001", "power_on", "true"),
    ("1100", "opening", "false"),
    ("1501", "battery_low", "true"),
    ("2101", "motion", "true"),
    ("2D01", "window", "true"),
    ("F00100", "device_type", "1"),
    ("F100010204", "firmware_version", "\"4.2.1.0\""),
    ("F2000106", "firmware_version", "\"6.1.0\""),
];

#[test]
fn every_published_example_gives_its_published_result() {
    for (example, name, result) in PUBLISHED {
        let heard = heard(example);
        let [(found, value)] = heard.values.as_slice() else {
            panic!("{example}: {heard:?}")
        };
        assert_eq!(
            (found.as_str(), value.to_string().as_str()),
            (*name, *result),
            "{example}"
        );
    }
}

#[test]
fn the_published_advertisement_is_a_thing_with_its_values() {
    let advertisement = bytes("020106 0B094449592D73656E736F72 0A16D2FC4002C40903BF13");
    assert_eq!(local_name(&advertisement), Some("DIY-sensor"));
    let mut receiver = receiver();
    let heard = receiver
        .handle_service_data(service_data(&advertisement).unwrap())
        .unwrap();
    assert_eq!(
        heard.values,
        [
            ("temperature".into(), json!(25)),
            ("humidity".into(), json!(50.55))
        ]
    );
    assert!(heard.is_described_anew);
    let description =
        ThingDescription::from_value(receiver.description(local_name(&advertisement))).unwrap();
    assert_eq!(description.title, "DIY-sensor");
    assert_eq!(
        description.properties["temperature"].schema.unit.as_deref(),
        Some("°C")
    );
    let again = receiver
        .handle_service_data(service_data(&advertisement).unwrap())
        .unwrap();
    assert!(
        !again.is_described_anew,
        "the same properties are no new description"
    );
}

const KEY: &str = "231d39c1d7cc1ab1aee224cd096db932";
/// Device information, cipher text, counter and check value of the encryption page's example.
const SEALED: &str = "41 a47266c95f73 00112233 78237214";

fn with_key() -> Receiver {
    Receiver::new(
        [0x54, 0x48, 0xe6, 0x8f, 0x80, 0xa5],
        Some(BindKey::parse(KEY).unwrap()),
    )
}

#[test]
fn the_published_encrypted_example_opens_with_its_key() {
    let heard = with_key().handle_service_data(&bytes(SEALED)).unwrap();
    assert_eq!(
        heard.values,
        [
            ("temperature".into(), json!(25.06)),
            ("humidity".into(), json!(50.55))
        ]
    );
}

#[test]
fn no_downgrade_no_replay_no_other_key() {
    let mut receiver = with_key();
    assert_eq!(
        receiver.handle_service_data(&bytes("4002CA09")),
        Err(BthomeError::Downgrade)
    );
    receiver.handle_service_data(&bytes(SEALED)).unwrap();
    assert!(
        receiver
            .handle_service_data(&bytes(SEALED))
            .unwrap()
            .is_repeated
    );
    receiver.counter = Some(0x3322_1101);
    let replay = BthomeError::Replay {
        found: 0x3322_1100,
        last: 0x3322_1101,
    };
    assert_eq!(receiver.handle_service_data(&bytes(SEALED)), Err(replay));
    receiver.forget_counter();
    assert!(receiver.handle_service_data(&bytes(SEALED)).is_ok());
    let mut altered = bytes(SEALED);
    altered[3] ^= 1;
    assert_eq!(
        with_key().handle_service_data(&altered),
        Err(BthomeError::Decryption)
    );
    let mut stranger = Receiver::new([1; 6], Some(BindKey::parse(KEY).unwrap()));
    assert_eq!(
        stranger.handle_service_data(&bytes(SEALED)),
        Err(BthomeError::Decryption)
    );
    assert_eq!(
        self::receiver().handle_service_data(&bytes(SEALED)),
        Err(BthomeError::NoKey)
    );
    assert!(BindKey::parse("231d").is_err() && !format!("{:?}", with_key()).contains("35, 29"));
}

#[test]
fn events_are_the_published_ones_and_none_is_no_event() {
    for (example, name, data) in [
        ("3A01", "button", json!("press")),
        ("3A02", "button", json!("double_press")),
        ("3A04", "button", json!("long_press")),
        ("3A80", "button", json!("hold_press")),
        ("3A003A01", "button_2", json!("press")),
        (
            "3B010305",
            "command",
            json!({"command": "step_up", "steps": 5}),
        ),
        ("3B0002", "command", json!({"command": "toggle"})),
        (
            "3C0103",
            "dimmer",
            json!({"direction": "rotate_left", "steps": 3}),
        ),
        (
            "3C020A",
            "dimmer",
            json!({"direction": "rotate_right", "steps": 10}),
        ),
    ] {
        assert_eq!(
            heard(example).events,
            [(name.to_owned(), data)],
            "{example}"
        );
    }
    let none = heard("3A00");
    assert!(
        none.events.is_empty() && none.is_described_anew,
        "the device has a button all the same"
    );
    assert!(heard("3C00").events.is_empty());
}

#[test]
fn a_packet_that_is_heard_twice_counts_once() {
    let mut receiver = receiver();
    let first = receiver.handle_service_data(&bytes("440009 3A01")).unwrap();
    assert_eq!((first.events.len(), first.is_repeated), (1, false));
    let again = receiver.handle_service_data(&bytes("440009 3A01")).unwrap();
    assert_eq!((again.events.len(), again.is_repeated), (0, true));
    assert_eq!(
        receiver
            .handle_service_data(&bytes("44000A 3A01"))
            .unwrap()
            .events
            .len(),
        1
    );
}

#[test]
fn several_of_a_kind_are_numbered_and_a_newer_object_ends_the_reading() {
    let heard = heard("02CA09 02CB09 D0FFFF");
    assert_eq!(
        heard.values,
        [
            ("temperature".into(), json!(25.06)),
            ("temperature_2".into(), json!(25.07))
        ]
    );
    assert_eq!(heard.unknown_object, Some(0xd0));
    let mut receiver = receiver();
    assert_eq!(
        receiver.handle_service_data(&bytes("40 02CA")),
        Err(BthomeError::Truncated(0x02))
    );
    assert_eq!(
        receiver.handle_service_data(&bytes("E1 0200")),
        Err(BthomeError::Version(7))
    );
    assert_eq!(receiver.handle_service_data(&[]), Err(BthomeError::Empty));
}

#[test]
fn the_table_has_each_id_once_in_order() {
    assert!(
        objects::OBJECTS
            .windows(2)
            .all(|pair| pair[0].id < pair[1].id)
    );
}

proptest! {
    #[test]
    fn any_bytes_are_heard_or_refused(advertisement in prop::collection::vec(any::<u8>(), 0..255), body in prop::collection::vec(any::<u8>(), 0..255)) {
        let _ = (service_data(&advertisement), local_name(&advertisement));
        for information in [0x40, 0x44, 0x41] {
            for mut receiver in [receiver(), with_key()] {
                let data = [vec![information], body.clone()].concat();
                if receiver.handle_service_data(&data).is_ok() {
                    let description = receiver.description(None);
                    prop_assert!(ThingDescription::from_value(description).is_ok());
                }
            }
        }
    }
}
