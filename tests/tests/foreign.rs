//! Devices that do not speak our protocol, as Things of a whole box: pymodbus's units on a serial bus, and a real broker with what
//! Zigbee2MQTT, Tasmota and Home Assistant publish. Real processes throughout; the units' line is a pair of pseudo-terminals.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use autoglm_edge::control::dbus::value;
use autoglm_tests::appliance::Appliances;
use autoglm_tests::cable::{Cable, Noise};
use autoglm_tests::edge_box::{EdgeBox, PATIENCE, cache};
use autoglm_tests::process::{Process, newest};
use serde_json::{Value, json};

const THERMOMETER: &str = "urn:example:kiln-thermometer";
const PUMP: &str = "urn:example:coolant-pump";
const METER: &str = "urn:example:power-meter";

fn described(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("things/foreign")
        .join(format!("{name}.td.json"))
}

/// The units of pymodbus, on the far end of a cable.
fn units(edge_box: &EdgeBox) -> Process {
    units_at(edge_box, edge_box.path("far-bus").as_os_str())
}

/// The units of pymodbus on a line, or behind a port of loopback.
fn units_at(edge_box: &EdgeBox, place: &std::ffi::OsStr) -> Process {
    let tools = newest(&cache().unwrap().join("test-tools"))
        .expect("run `python3 models/setup.py test-tools` (make test does)");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("support/modbus_units.py");
    let mut command = Command::new("python3");
    command.arg(script).arg(place).env("PYTHONPATH", tools);
    command.stderr(std::fs::File::create(edge_box.path("units.log")).unwrap());
    Process::start(&mut command).unwrap()
}

/// A box with this `[foreign]` section and these descriptions.
async fn box_with(section: &str, things: &[&str]) -> EdgeBox {
    let mut edge_box = EdgeBox::new().unwrap();
    edge_box.start_bus().unwrap();
    edge_box.start_broker().unwrap();
    let directory = edge_box.path("things");
    std::fs::create_dir_all(&directory).unwrap();
    for name in things {
        std::fs::copy(described(name), directory.join(format!("{name}.td.json"))).unwrap();
    }
    edge_box
        .write_config(&format!("[foreign]\nthings = {directory:?}\n{section}"))
        .unwrap();
    edge_box.start_daemon().unwrap();
    edge_box
}

fn modbus(edge_box_line: &Path) -> String {
    format!(
        "[[foreign.modbus]]\nname = \"meters\"\naddress = \"serial://{}?baud=19200\"\ntimeout_ms = 400\n",
        edge_box_line.display()
    )
}

async fn read(edge_box: &EdgeBox, thing: &str, property: &str) -> Result<Value, zbus::Error> {
    let manager = edge_box.manager().await.unwrap();
    let done = manager.read(thing, property, HashMap::new()).await?;
    Ok(value::to_json(&done["output"]).unwrap())
}

async fn write(
    edge_box: &EdgeBox,
    thing: &str,
    property: &str,
    to: &Value,
) -> Result<Value, zbus::Error> {
    let manager = edge_box.manager().await.unwrap();
    let done = manager
        .write(thing, property, &value::from_json(to), HashMap::new())
        .await?;
    Ok(value::to_json(&done["output"]).unwrap())
}

async fn is_online(edge_box: &EdgeBox, count: u64) -> Value {
    edge_box
        .wait_for_status(&format!("{count} things online"), |status| {
            status["things"]["online"] == count
        })
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_modbus_units_share_a_bus_and_are_read_and_written_by_words() {
    let line_box = EdgeBox::new().unwrap();
    let (far, near) = (line_box.path("far-bus"), line_box.path("bus"));
    let cable = Cable::between(far, near.clone()).unwrap();
    let mut running = units(&line_box);
    let edge_box = box_with(&modbus(&near), &["thermometer", "pump", "meter", "absent"]).await;
    let status = edge_box
        .wait_for_status("three units", |status| {
            status["things"]["online"] == 3
                && status["things"]["understood"] == 4
                && status["models"].as_array().is_some_and(|models| {
                    models
                        .iter()
                        .filter(|model| model["state"] == "ready")
                        .count()
                        >= 2
                })
        })
        .await
        .unwrap();
    assert_eq!(
        status["things"]["known"], 4,
        "the absent valve is known, too: {status:#}"
    );

    let said = edge_box
        .say(
            "workshop",
            "what is the temperature of the kiln thermometer?",
        )
        .await
        .unwrap();
    assert_eq!(
        said.executed().next().map(|call| call["output"].clone()),
        Some(json!(21.7)),
        "{said:?}\n{}",
        edge_box.log()
    );
    assert!(said.text().contains("21.7"), "{}", said.text());
    let said = edge_box
        .say("workshop", "turn on the coolant pump")
        .await
        .unwrap();
    assert_eq!(
        said.executed().next().map(|call| call["output"].clone()),
        Some(json!(true)),
        "{said:?}\n{}",
        edge_box.log()
    );

    assert_eq!(
        read(&edge_box, THERMOMETER, "offset").await.unwrap(),
        json!(-10)
    );
    assert_eq!(
        read(&edge_box, METER, "voltage").await.unwrap(),
        json!(230.5)
    );
    assert_eq!(
        read(&edge_box, METER, "current").await.unwrap(),
        json!(1.25)
    );
    assert_eq!(
        write(&edge_box, PUMP, "speed", &json!(75)).await.unwrap(),
        json!(75)
    );
    assert_eq!(
        write(&edge_box, PUMP, "mode", &json!(2)).await.unwrap(),
        json!(2),
        "a bit field"
    );
    assert_eq!(
        read(&edge_box, PUMP, "speed").await.unwrap(),
        json!(75),
        "its neighbour is as it was"
    );
    edge_box.invoke(PUMP, "reset", None).await.unwrap();

    let broken = read(&edge_box, METER, "broken")
        .await
        .unwrap_err()
        .to_string();
    assert!(broken.contains("exception 4"), "{broken}");
    let too_fast = write(&edge_box, PUMP, "speed", &json!(101))
        .await
        .unwrap_err()
        .to_string();
    assert!(too_fast.contains("100"), "{too_fast}");
    let absent = read(&edge_box, "urn:example:absent-valve", "on")
        .await
        .unwrap_err()
        .to_string();
    assert!(absent.contains("not connected"), "{absent}");

    // Noise: frames with a wrong check sum are counted, and never taken for values.
    cable.set_noise(Noise::On).unwrap();
    let noisy = edge_box
        .wait_for_status("trouble", |status| {
            status["foreign"]["meters"]["errors"].as_u64() > Some(2)
        })
        .await
        .unwrap();
    assert!(
        noisy["foreign"]["meters"]["state"] == "connected",
        "{noisy:#}"
    );
    cable.set_noise(Noise::Off).unwrap();
    is_online(&edge_box, 3).await;
    assert_eq!(
        read(&edge_box, THERMOMETER, "temperature").await.unwrap(),
        json!(21.7)
    );

    // The units lose their power and come back.
    running.kill();
    is_online(&edge_box, 0).await;
    let away = read(&edge_box, THERMOMETER, "temperature")
        .await
        .unwrap_err()
        .to_string();
    assert!(away.contains("not connected"), "{away}");
    let _running = units(&line_box);
    is_online(&edge_box, 3).await;
    assert_eq!(
        read(&edge_box, PUMP, "speed").await.unwrap(),
        json!(30),
        "as it starts"
    );
}

/// What Zigbee2MQTT publishes for one bulb (the documented list, with the documented exposes of such a bulb).
#[tokio::test(flavor = "multi_thread")]
async fn modbus_units_behind_tcp_are_read_and_written_and_return_with_their_server() {
    let port = autoglm_tests::mosquitto::Mosquitto::free_port().unwrap();
    let section = format!(
        "[[foreign.modbus]]\nname = \"meters\"\naddress = \"modbus+tcp://127.0.0.1:{port}\"\ntimeout_ms = 400\n"
    );
    let edge_box = box_with(&section, &["thermometer", "pump", "meter", "absent"]).await;
    let mut running = units_at(&edge_box, port.to_string().as_ref());
    let status = is_online(&edge_box, 3).await;
    assert_eq!(
        status["foreign"]["meters"]["address"],
        format!("modbus+tcp://127.0.0.1:{port}")
    );
    assert_eq!(
        write(&edge_box, PUMP, "speed", &json!(70)).await.unwrap(),
        json!(70)
    );
    assert_eq!(
        read(&edge_box, METER, "voltage").await.unwrap(),
        json!(230.5)
    );
    running.kill();
    is_online(&edge_box, 0).await;
    let _again = units_at(&edge_box, port.to_string().as_ref());
    is_online(&edge_box, 3).await;
    assert_eq!(
        write(&edge_box, PUMP, "speed", &json!(45)).await.unwrap(),
        json!(45)
    );
}

fn bridge_devices() -> String {
    json!([{"ieee_address": "0x90fd9ffffe6494fc", "type": "Router", "network_address": 57440, "supported": true, "friendly_name": "reading_lamp",
        "definition": {"model": "LED1624G9", "vendor": "IKEA", "description": "TRADFRI LED bulb E14/E26/E27 600 lumen, dimmable, color, opal white",
            "exposes": [{"type": "light", "features": [
                {"type":"binary","name":"state","property":"state","value_on":"ON","value_off":"OFF","value_toggle":"TOGGLE","access":7},
                {"type":"numeric","name":"brightness","property":"brightness","value_min":0,"value_max":254,"access":7}]}]},
        "interviewing": false, "interview_completed": true}])
    .to_string()
}

/// A bulb as Zigbee2MQTT serves it: `set` changes it and publishes its state, `get` publishes it.
async fn zigbee2mqtt(port: u16) -> (Appliances, Arc<Mutex<Value>>) {
    let state = Arc::new(Mutex::new(json!({"state": "OFF", "brightness": 254})));
    let shown = Arc::clone(&state);
    let bridge = Appliances::connect(port, "zigbee2mqtt/reading_lamp/+", move |topic, payload| {
        let mut state = state.lock().unwrap();
        if topic.ends_with("/set")
            && let Ok(Value::Object(changes)) = serde_json::from_str(payload)
        {
            state.as_object_mut().unwrap().extend(changes);
        } else if !topic.ends_with("/get") {
            return Vec::new();
        }
        vec![(
            "zigbee2mqtt/reading_lamp".to_owned(),
            state.to_string(),
            false,
        )]
    });
    bridge
        .publish("zigbee2mqtt/bridge/state", r#"{"state":"online"}"#, true)
        .await
        .unwrap();
    bridge
        .publish("zigbee2mqtt/bridge/devices", &bridge_devices(), true)
        .await
        .unwrap();
    (bridge, shown)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zigbee_lamp_is_turned_on_by_words_and_answers_with_its_own_state() {
    let mut edge_box = EdgeBox::new().unwrap();
    edge_box.start_bus().unwrap();
    edge_box.start_broker().unwrap();
    let (bridge, lamp) = zigbee2mqtt(edge_box.broker_port()).await;
    let section = format!(
        "[[foreign.mqtt]]\nname = \"home\"\nbroker = \"mqtt://127.0.0.1:{}\"\nzigbee2mqtt = \"zigbee2mqtt\"\n",
        edge_box.broker_port()
    );
    edge_box.write_config(&section).unwrap();
    edge_box.start_daemon().unwrap();
    edge_box.is_understanding(1).await.unwrap();

    let said = edge_box
        .say("study", "turn on the reading lamp")
        .await
        .unwrap();
    assert_eq!(
        lamp.lock().unwrap()["state"],
        "ON",
        "{said:?}\n{}",
        edge_box.log()
    );
    assert_eq!(
        said.executed().next().map(|call| call["output"].clone()),
        Some(json!(true)),
        "{said:?}"
    );
    let said = edge_box
        .say("study", "set the reading lamp to 40 percent")
        .await
        .unwrap();
    assert_eq!(
        lamp.lock().unwrap()["brightness"],
        102,
        "{said:?}\n{}",
        edge_box.log()
    );
    assert!(said.text().contains("40"), "{}", said.text());
    let id = "urn:dev:mac:90fd9ffffe6494fc";
    assert_eq!(read(&edge_box, id, "brightness").await.unwrap(), json!(40));

    // Broken messages are counted and change nothing.
    bridge
        .publish("zigbee2mqtt/reading_lamp", "not json", false)
        .await
        .unwrap();
    bridge
        .publish("zigbee2mqtt/bridge/devices", "{", true)
        .await
        .unwrap();
    edge_box
        .wait_for_status("trouble", |status| {
            status["foreign"]["home"]["errors"].as_u64() > Some(1)
        })
        .await
        .unwrap();
    assert_eq!(read(&edge_box, id, "on").await.unwrap(), json!(true));

    // The bridge says that it stops.
    bridge
        .publish("zigbee2mqtt/bridge/state", r#"{"state":"offline"}"#, true)
        .await
        .unwrap();
    is_online(&edge_box, 0).await;
    let said = edge_box
        .say("study", "turn off the reading lamp")
        .await
        .unwrap();
    assert!(said.text().contains("not connected"), "{said:?}");
    assert_eq!(lamp.lock().unwrap()["state"], "ON", "{said:?}");
    bridge
        .publish("zigbee2mqtt/bridge/state", r#"{"state":"online"}"#, true)
        .await
        .unwrap();
    bridge
        .publish("zigbee2mqtt/bridge/devices", &bridge_devices(), true)
        .await
        .unwrap();
    is_online(&edge_box, 1).await;

    // The broker goes and comes back, with what it had kept.
    edge_box.stop_broker().unwrap();
    is_online(&edge_box, 0).await;
    edge_box.start_broker().unwrap();
    is_online(&edge_box, 1).await;
    let deadline = std::time::Instant::now() + PATIENCE;
    // The bulb's own connection returns in its own time.
    while read(&edge_box, id, "on").await.is_err() {
        assert!(std::time::Instant::now() < deadline, "{}", edge_box.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tasmota_home_assistant_and_a_described_barrel_come_out_as_things_of_one_broker() {
    let mut edge_box = EdgeBox::new().unwrap();
    edge_box.start_bus().unwrap();
    edge_box.start_broker().unwrap();
    let port = edge_box.broker_port();
    // Tasmota's plug reports its power after each command, and everything when asked (STATUS 11).
    let plug = Appliances::connect(port, "cmnd/kettle/+", |topic, payload| {
        let command = topic.rsplit('/').next().unwrap_or_default();
        match (command, payload) {
            ("POWER1", power) => vec![(
                "stat/kettle/RESULT".into(),
                format!(r#"{{"POWER":"{power}"}}"#),
                false,
            )],
            _ => vec![(
                "stat/kettle/STATUS11".into(),
                r#"{"StatusSTS":{"POWER":"ON"}}"#.into(),
                false,
            )],
        }
    });
    let config = r#"{"ip":"192.168.15.10","dn":"Kettle","fn":["Kettle",null],"hn":"tasmota_49A3BC-0956","mac":"00000049A3BC","md":"Sonoff Basic",
        "ofln":"Offline","onln":"Online","state":["OFF","ON","TOGGLE","HOLD"],"sw":"9.3.0","t":"kettle","ft":"%prefix%/%topic%/",
        "tp":["cmnd","stat","tele"],"rl":[1,0,0,0],"so":{"4":0},"lt_st":0,"ver":1}"#;
    plug.publish("tasmota/discovery/00000049A3BC/config", config, true)
        .await
        .unwrap();
    plug.publish("tele/kettle/LWT", "Online", true)
        .await
        .unwrap();
    let irrigation =
        Appliances::connect(port, "homeassistant/switch/irrigation/set", |_, payload| {
            vec![(
                "homeassistant/switch/irrigation/state".into(),
                payload.into(),
                true,
            )]
        });
    let switch = r#"{"~": "homeassistant/switch/irrigation", "name": "garden", "cmd_t": "~/set", "stat_t": "~/state"}"#;
    irrigation
        .publish("homeassistant/switch/irrigation/config", switch, true)
        .await
        .unwrap();
    irrigation
        .publish(
            "homeassistant/camera/gate/config",
            r#"{"topic":"gate"}"#,
            true,
        )
        .await
        .unwrap();
    let barrel = Appliances::connect(port, "garden/barrel/valve/set", |_, payload| {
        vec![(
            "garden/barrel/state".into(),
            json!({"level": 755, "valve": payload}).to_string(),
            true,
        )]
    });
    barrel
        .publish("garden/barrel/status", "here", true)
        .await
        .unwrap();
    barrel
        .publish(
            "garden/barrel/state",
            r#"{"level":755,"valve":"closed"}"#,
            true,
        )
        .await
        .unwrap();

    let directory = edge_box.path("things");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::copy(described("barrel"), directory.join("barrel.td.json")).unwrap();
    let section = format!(
        "[foreign]\nthings = {directory:?}\n[[foreign.mqtt]]\nname = \"home\"\nbroker = \"mqtt://127.0.0.1:{port}\"\ntasmota = \"tasmota/discovery\"\nhome_assistant = \"homeassistant\"\n"
    );
    edge_box.write_config(&section).unwrap();
    edge_box.start_daemon().unwrap();
    is_online(&edge_box, 3).await;

    let kettle = "urn:dev:mac:000000fffe49a3bc";
    assert_eq!(read(&edge_box, kettle, "on").await.unwrap(), json!(true));
    assert_eq!(
        write(&edge_box, kettle, "on", &json!(false)).await.unwrap(),
        json!(false)
    );
    let garden = "homeassistant:switch/irrigation";
    assert_eq!(
        write(&edge_box, garden, "on", &json!(true)).await.unwrap(),
        json!(true)
    );
    let rain = "urn:example:rain-barrel";
    assert_eq!(read(&edge_box, rain, "level").await.unwrap(), json!(75.5));
    assert_eq!(
        write(&edge_box, rain, "valve", &json!("open"))
            .await
            .unwrap(),
        json!("open")
    );
    let log = edge_box.log();
    assert!(
        log.contains("camera"),
        "the camera is refused by name: {log}"
    );
    plug.publish("tele/kettle/LWT", "Offline", true)
        .await
        .unwrap();
    is_online(&edge_box, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checking_names_the_file_and_the_path_of_what_is_wrong() {
    let edge_box = EdgeBox::new().unwrap();
    let directory = edge_box.path("things");
    std::fs::create_dir_all(&directory).unwrap();
    for entry in std::fs::read_dir(described("pump").parent().unwrap()).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, directory.join(path.file_name().unwrap())).unwrap();
    }
    let section = format!(
        "[foreign]\nthings = {directory:?}\n{}[[foreign.mqtt]]\nname = \"home\"\nbroker = \"mqtt://127.0.0.1\"\n[foreign.ble]\n",
        modbus(Path::new("/dev/ttyUSB9"))
    );
    edge_box.write_config(&section).unwrap();
    let check = |edge_box: &EdgeBox| {
        let mut command = edge_box.daemon_command().unwrap();
        command.arg("--check");
        edge_box.daemon_refuses(command).unwrap()
    };
    let (status, text) = check(&edge_box);
    assert!(
        status.success() && text.contains("6 described things"),
        "{text}"
    );

    let pump = directory.join("pump.td.json");
    let good = std::fs::read_to_string(&pump).unwrap();
    for (from, to, path) in [
        ("\"Coil\"", "\"Coyl\"", "properties.on.forms[0].modv:entity"),
        ("modbus+rtu://meters/2/", "modbus+rtu://metres/2/", "metres"),
        ("\"boolean\"", "\"bool\"", "properties.on.type"),
        (
            "\"edge:value\": 255",
            "\"edge:value\": 70000",
            "actions.reset.forms[0].edge:value",
        ),
        (
            "urn:example:coolant-pump",
            "urn:example:power-meter",
            "meter.td.json",
        ),
        ("\"title\": \"Coolant pump\",", "", "title"),
    ] {
        assert!(good.contains(from), "{from}");
        std::fs::write(&pump, good.replacen(from, to, 1)).unwrap();
        let (status, text) = check(&edge_box);
        assert_eq!(status.code(), Some(78), "{text}");
        assert!(
            text.contains("pump.td.json") && text.contains(path),
            "{text}"
        );
    }
}
