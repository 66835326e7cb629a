//! What Tasmota publishes about its devices, as its documentation shows it.

use super::*;

/// Messages of a dimmer with Tasmota 9.3.0 as others have recorded and published them.
pub(super) const TASMOTA: &str = r#"{"ip":"192.168.15.10","dn":"Huzzah 1","fn":["Relay 1",null,null,null,null,null,null,null],"hn":"tasmota-huzzah",
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
