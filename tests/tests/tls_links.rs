//! Devices of our own and foreign ones behind a broker that is spoken to over TLS 1.3 with certificates: the whole box, a real mosquitto
//! and our test authority.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

use autoglm_edge::control::dbus::value;
use autoglm_tests::appliance::Appliances;
use autoglm_tests::edge_box::{EdgeBox, LAMP, PATIENCE};
use autoglm_tests::mosquitto::Mosquitto;
use autoglm_tests::pki::{Authority, Signed, Valid};
use autoglm_tests::process::{Process, program, wait_for};
use serde_json::json;

/// The Thing that Tasmota's plug comes out as.
const KETTLE: &str = "urn:dev:mac:000000fffe49a3bc";

/// A box without models, and a broker that talks TLS to whoever has a certificate of ours, and clear text on another port.
struct Site {
    edge_box: EdgeBox,
    authority: PathBuf,
    ours: Signed,
    devices: Signed,
    broker: Mosquitto,
    tls_port: u16,
    clear_port: u16,
}

impl Site {
    fn new() -> Self {
        let mut edge_box = EdgeBox::new().unwrap();
        edge_box.start_bus().unwrap();
        let directory = edge_box.path("site");
        std::fs::create_dir(&directory).unwrap();
        let authority = Authority::new(&directory, "authority").unwrap();
        let sign = |name: &str, names: &[&str]| authority.sign(name, names, Valid::Now).unwrap();
        let server = sign("server", &["localhost"]);
        let (tls_port, clear_port) = (
            Mosquitto::free_port().unwrap(),
            Mosquitto::free_port().unwrap(),
        );
        let lines = format!(
            "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\nuse_identity_as_username true\ntls_version tlsv1.3\n\
             listener {clear_port} 127.0.0.1\nallow_anonymous true",
            authority.file().display(),
            server.certificate.display(),
            server.key.display()
        );
        let broker = Mosquitto::start(&directory, tls_port, &lines).unwrap();
        Self {
            edge_box,
            authority: authority.file(),
            ours: sign("box", &["box-1"]),
            devices: sign("lamp", &["lamp-1"]),
            broker,
            tls_port,
            clear_port,
        }
    }

    fn tls(&self) -> String {
        let Signed { certificate, key } = &self.ours;
        format!(
            "ca = {:?}\ncertificate = {certificate:?}\nkey = {key:?}\n",
            self.authority
        )
    }

    /// Writes a configuration without models, without the usual devices and without a fleet.
    fn configure(&self, section: &str) {
        let state = self.edge_box.path("state");
        let text = format!(
            "[box]\nid = \"test-box\"\nstate_dir = {state:?}\n[bus]\nkind = \"session\"\n[log]\nfilter = \"warn,autoglm_edge=debug,autoglm_drivers=debug\"\n\
             [reconnect]\nmax_ms = 500\n[inference]\nmodel_dirs = [\"/nonexistent\"]\n{section}"
        );
        std::fs::write(self.edge_box.path("config.toml"), text).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_at_a_tls_broker_obeys_and_both_ends_show_their_certificates() {
    let mut site = Site::new();
    let address = format!("mqtts://localhost:{}", site.tls_port);
    let link = format!("{address}/autoglm/devices/lamp");
    let key = site.edge_box.path("lamp.key");
    let made = Command::new(program("autoglmctl").unwrap())
        .args(["key", "new"])
        .arg(&key)
        .status();
    assert!(made.unwrap().success());
    site.configure(&format!(
        "[[broker]]\naddress = {address:?}\n[broker.tls]\n{}[[device]]\nname = \"lamp\"\nkey = {{ file = {key:?} }}\nlinks = [{link:?}]\n",
        site.tls()
    ));
    let state = site.edge_box.path("lamp.json");
    let mut lamp = Command::new(program("simulated-device").unwrap());
    lamp.args(["lamp", "--mqtt", &link, "--mqtt-ca"])
        .arg(&site.authority)
        .arg("--mqtt-certificate")
        .arg(&site.devices.certificate)
        .arg("--mqtt-key")
        .arg(&site.devices.key)
        .arg("--key")
        .arg(&key)
        .arg("--state")
        .arg(&state);
    let lamp = Process::start(&mut lamp).unwrap();
    site.edge_box.start_daemon().unwrap();
    site.edge_box
        .wait_for_status("the lamp", |status| {
            status["links"]["lamp-mqtt"]["state"] == "connected" && status["things"]["online"] == 1
        })
        .await
        .unwrap();
    site.edge_box.invoke(LAMP, "toggle", None).await.unwrap();
    wait_for("the lamp to have done it", PATIENCE, || {
        autoglm_tests::process::state(&state).is_ok_and(|state| state["executed"] == 1)
    })
    .unwrap();
    // The broker's own word for who both are: the common names of their certificates.
    let log = site.broker.log();
    assert!(
        log.contains("u'box-1'") && log.contains("u'lamp-1'"),
        "{log}"
    );
    drop(lamp);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_the_devices_broker_does_not_take_is_named_at_the_link() {
    let mut site = Site::new();
    let address = format!("mqtts://localhost:{}", site.tls_port);
    let other = Authority::new(&site.edge_box.path("site"), "other").unwrap();
    site.ours = other.sign("stranger", &["box-1"], Valid::Now).unwrap();
    let made = Command::new(program("autoglmctl").unwrap())
        .args(["key", "new"])
        .arg(site.edge_box.path("good.key"))
        .status();
    assert!(made.unwrap().success());
    let key = site.edge_box.path("good.key");
    site.configure(&format!(
        "[[broker]]\naddress = {address:?}\n[broker.tls]\n{}[[device]]\nname = \"lamp\"\nkey = {{ file = {key:?} }}\nlinks = [\"{address}/lamp\"]\n",
        site.tls()
    ));
    site.edge_box.start_daemon().unwrap();
    let status = site
        .edge_box
        .wait_for_status("the refusal", |status| {
            let detail = status["links"]["lamp-mqtt"]["detail"].as_str();
            detail.is_some_and(|detail| detail.contains("certificate"))
        })
        .await
        .unwrap();
    assert_eq!(status["links"]["lamp-mqtt"]["state"], "reconnecting");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_device_behind_a_tls_broker_is_read_and_written() {
    let mut site = Site::new();
    let power = Arc::new(Mutex::new(String::new()));
    let shown = Arc::clone(&power);
    // Tasmota's plug reports its power after each command, and everything when asked (STATUS 11).
    let plug =
        Appliances::connect(
            site.clear_port,
            "cmnd/kettle/+",
            move |topic, payload| match topic.rsplit('/').next().unwrap_or_default() {
                "POWER1" => {
                    payload.clone_into(&mut power.lock().unwrap());
                    let answer = json!({ "POWER": payload }).to_string();
                    vec![("stat/kettle/RESULT".into(), answer, false)]
                }
                _ => {
                    let answer = json!({"StatusSTS": {"POWER": "OFF"}}).to_string();
                    vec![("stat/kettle/STATUS11".into(), answer, false)]
                }
            },
        );
    let config = json!({"ip": "192.168.15.10", "dn": "Kettle", "fn": ["Kettle", null], "hn": "tasmota_49A3BC-0956", "mac": "00000049A3BC",
        "md": "Sonoff Basic", "ofln": "Offline", "onln": "Online", "state": ["OFF", "ON", "TOGGLE", "HOLD"], "sw": "9.3.0", "t": "kettle",
        "ft": "%prefix%/%topic%/", "tp": ["cmnd", "stat", "tele"], "rl": [1, 0, 0, 0], "so": {"4": 0}, "lt_st": 0, "ver": 1});
    plug.publish(
        "tasmota/discovery/00000049A3BC/config",
        &config.to_string(),
        true,
    )
    .await
    .unwrap();
    plug.publish("tele/kettle/LWT", "Online", true)
        .await
        .unwrap();
    site.configure(&format!(
        "[[foreign.mqtt]]\nname = \"home\"\nbroker = \"mqtts://localhost:{}\"\ntasmota = \"tasmota/discovery\"\n[foreign.mqtt.tls]\n{}",
        site.tls_port,
        site.tls()
    ));
    site.edge_box.start_daemon().unwrap();
    let status = site
        .edge_box
        .wait_for_status("the plug", |status| {
            status["foreign"]["home"]["state"] == "connected" && status["things"]["online"] == 1
        })
        .await
        .unwrap();
    assert!(
        status["foreign"]["home"]["address"]
            .as_str()
            .is_some_and(|address| address.starts_with("mqtts://")),
        "{status}"
    );
    let manager = site.edge_box.manager().await.unwrap();
    let options = std::collections::HashMap::new();
    manager
        .write(KETTLE, "on", &value::from_json(&json!(true)), options)
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", site.edge_box.log()));
    assert_eq!(*shown.lock().unwrap(), "ON");
    assert!(
        site.broker.log().contains("u'box-1'"),
        "{}",
        site.broker.log()
    );
}
