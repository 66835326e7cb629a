//! Sensors from their advertisements to the registry, with a real store. The payloads are BTHome's published examples, and own
//! ones sealed as its encryption page says.

use std::collections::BTreeMap;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use aes::Aes128;
use autoglm_drivers::ble::address::{parse_adapter, parse_uuid};
use autoglm_drivers::ble::{AdapterStatus, Advertisement, DeviceAddress, RadioStatus};
use autoglm_drivers::port::PortError;
use autoglm_protocol::{FaultCode, Reply, Request, RequestFailure, RequestId};
use ccm::aead::{Aead as _, KeyInit as _};
use ccm::consts::{U4, U13};
use ccm::{Ccm, Nonce};
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::super::Board;
use super::sensors::Owner;
use crate::config::foreign::{Admission, BleConfig, SensorConfig};
use crate::config::key::KeySource;
use crate::foreign::Sources;
use crate::store::{ExportPolicy, Store, StoreConfig};
use crate::things::description::ThingId;
use crate::things::registry::{DeviceEvent, Presence, Registry, ThingSnapshot, registry};

const ADDRESS: [u8; 6] = [0x54, 0x48, 0xe6, 0x8f, 0x80, 0xa5];
const THING: &str = "urn:dev:mac:5448e6fffe8f80a5";
/// The key of the encryption page.
const KEY: &str = "231d39c1d7cc1ab1aee224cd096db932";
const PATIENCE: Duration = Duration::from_secs(10);

/// A box with a radio that hears what the test says.
struct Air {
    advertisements: broadcast::Sender<Advertisement>,
    radio: watch::Sender<RadioStatus>,
    forget: mpsc::Sender<DeviceAddress>,
    registry: Registry,
    events: broadcast::Receiver<DeviceEvent>,
    sources: Sources,
    cancel: CancellationToken,
    store: Store,
}

impl Air {
    fn new(directory: &Path, admission: Admission, sensor: Option<SensorConfig>) -> Self {
        let store = StoreConfig {
            state_directory: directory.to_owned(),
            export: ExportPolicy::default(),
        };
        let store = Store::open(store, SystemTime::now()).unwrap();
        let (registry, task) = registry();
        let cancel = CancellationToken::new();
        tokio::spawn(task.run(cancel.clone()));
        let (publish, sources) = watch::channel(Default::default());
        let config = BleConfig {
            adapter: parse_adapter("hci0").unwrap(),
            admission,
            sensors: sensor
                .map(|sensor| (DeviceAddress::from(ADDRESS), sensor))
                .into_iter()
                .collect(),
        };
        let owner = Owner::new(config, registry.clone(), store.handle(), Board(publish));
        let (advertisements, heard) = broadcast::channel(16);
        let (radio, status) = watch::channel(adapter(true));
        let (forget, forgotten) = mpsc::channel(1);
        let events = registry.events();
        tokio::spawn(owner.run(heard, status, forgotten, cancel.clone()));
        Self {
            advertisements,
            radio,
            forget,
            registry,
            events,
            sources,
            cancel,
            store,
        }
    }

    /// The box goes down in an orderly way, and gives its directory back.
    fn stop(self) {
        self.cancel.cancel();
        self.store.shutdown();
    }

    fn say(&self, payload: &[u8]) {
        self.say_as(ADDRESS, "hci0", payload);
    }

    fn say_as(&self, address: [u8; 6], adapter: &str, payload: &[u8]) {
        let service = parse_uuid("fcd2").unwrap();
        let advertisement = Advertisement {
            adapter: adapter.to_owned(),
            device: address.into(),
            name: Some("DIY-sensor".to_owned()),
            rssi_dbm: None,
            services: Vec::new(),
            service_data: BTreeMap::from([(service, payload.to_vec())]),
            manufacturer_data: BTreeMap::new(),
        };
        self.advertisements.send(advertisement).unwrap();
    }

    /// Waits until the thing is as wanted.
    async fn thing(&self, is_as_wanted: impl Fn(&ThingSnapshot) -> bool) -> ThingSnapshot {
        let id = ThingId::new(THING).unwrap();
        let mut things = self.registry.watch();
        let found = things.wait_for(|things| things.get(&id).is_some_and(&is_as_wanted));
        let found = tokio::time::timeout(PATIENCE, found).await;
        found.expect("the thing becomes so").unwrap()[&id].clone()
    }

    async fn event(&mut self) -> Value {
        let event = tokio::time::timeout(PATIENCE, self.events.recv()).await;
        event.expect("an event comes").unwrap().data
    }

    /// Waits until so many advertisements were refused.
    async fn refused(&self, count: u64) {
        let mut sources = self.sources.clone();
        let found = sources.wait_for(|all| all.get("ble").is_some_and(|ble| ble.errors >= count));
        tokio::time::timeout(PATIENCE, found)
            .await
            .expect("it is refused")
            .unwrap();
    }

    async fn ask(&self, request: Request) -> Result<Reply, PortError> {
        let thing = self.thing(is_online).await;
        let Presence::Online { port, .. } = thing.presence else {
            panic!("it is online")
        };
        let id = RequestId(rand::random());
        port.request(id, request, PATIENCE)
            .await
            .map(|answer| answer.reply)
    }
}

fn is_online(thing: &ThingSnapshot) -> bool {
    matches!(thing.presence, Presence::Online { .. })
}

fn has(property: &str, value: Value) -> impl Fn(&ThingSnapshot) -> bool {
    move |thing| is_online(thing) && thing.values.get(property) == Some(&value)
}

fn adapter(is_on: bool) -> RadioStatus {
    let status = AdapterStatus {
        name: "hci0".to_owned(),
        address: DeviceAddress::default(),
        is_on,
        is_scanning: is_on,
        connected: 0,
    };
    RadioStatus {
        has_service: true,
        adapters: BTreeMap::from([("hci0".to_owned(), status)]),
    }
}

/// An advertisement that is sealed with [`KEY`].
fn sealed(counter: u32, measurements: &[u8]) -> Vec<u8> {
    let (information, counter) = (0x41, counter.to_le_bytes());
    let nonce = [&ADDRESS[..], &[0xd2, 0xfc, information], &counter].concat();
    let key = <[u8; 16]>::try_from(hex::decode(KEY).unwrap()).unwrap();
    let cipher = Ccm::<Aes128, U4, U13>::new(&key.into());
    let text = cipher
        .encrypt(Nonce::<U13>::from_slice(&nonce), measurements)
        .unwrap();
    let (text, tag) = text.split_at(text.len() - 4);
    [&[information], text, &counter, tag].concat()
}

fn with_key(directory: &Path, text: &str) -> SensorConfig {
    use std::io::Write as _;
    let path = directory.join("bind.key");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .unwrap();
    writeln!(file, "{text}").unwrap();
    SensorConfig {
        title: Some("Front door".to_owned()),
        key: Some(KeySource::File(path)),
    }
}

const PRESS: &[u8] = &[0x3a, 0x01];

#[tokio::test]
async fn a_sensor_becomes_a_thing_by_its_advertisement_and_grows_with_what_it_sends() {
    let directory = tempfile::tempdir().unwrap();
    let air = Air::new(
        directory.path(),
        Admission::Listed,
        Some(SensorConfig::default()),
    );
    // The format page's example: temperature and humidity.
    air.say(&hex::decode("4002c40903bf13").unwrap());
    let thing = air.thing(has("humidity", json!(50.55))).await;
    assert_eq!(thing.description.title, "DIY-sensor");
    assert_eq!(thing.values["temperature"], json!(25));
    air.say(&hex::decode("400161").unwrap());
    let thing = air.thing(has("battery", json!(97))).await;
    assert_eq!(
        thing.values["temperature"],
        json!(25),
        "what it sent before is still known"
    );

    let read = |property: &str| Request::Read {
        property: property.to_owned(),
    };
    assert_eq!(
        air.ask(read("battery")).await.unwrap(),
        Reply::Value(autoglm_protocol::Value::Int(97))
    );
    let write = Request::Write {
        property: "battery".to_owned(),
        value: autoglm_protocol::Value::Int(100),
    };
    let refused = air.ask(write).await;
    assert!(
        matches!(&refused, Err(PortError::Failed(RequestFailure::Fault(fault))) if fault.code == FaultCode::ReadOnly),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_neighbours_sensor_and_another_adapters_are_left_alone_unless_all_are_wanted() {
    let directory = tempfile::tempdir().unwrap();
    let air = Air::new(
        directory.path(),
        Admission::Listed,
        Some(SensorConfig::default()),
    );
    air.say_as([7; 6], "hci0", &hex::decode("400161").unwrap());
    air.say_as(ADDRESS, "hci1", &hex::decode("400163").unwrap());
    air.say(&hex::decode("400161").unwrap());
    air.thing(has("battery", json!(97))).await;
    assert_eq!(air.registry.things().len(), 1);
    air.stop();

    let air = Air::new(directory.path(), Admission::All, None);
    air.say(&hex::decode("400161").unwrap());
    air.thing(has("battery", json!(97))).await;
}

#[tokio::test]
async fn a_recorded_event_is_refused_also_after_a_restart_of_the_box() {
    let directory = tempfile::tempdir().unwrap();
    let sensor = with_key(directory.path(), KEY);
    let mut air = Air::new(directory.path(), Admission::Listed, Some(sensor.clone()));
    air.say(&sealed(5, PRESS));
    assert_eq!(air.event().await, json!("press"));
    assert_eq!(air.thing(is_online).await.description.title, "Front door");
    air.say(&sealed(4, PRESS));
    air.refused(1).await;
    air.stop();

    let mut air = Air::new(directory.path(), Admission::Listed, Some(sensor));
    air.say(&sealed(4, PRESS));
    air.refused(1).await;
    // The one that was taken last, again: heard, and no news.
    air.say(&sealed(5, PRESS));
    air.say(&sealed(6, &[0x3a, 0x02]));
    assert_eq!(
        air.event().await,
        json!("double_press"),
        "nothing of the old ones came before"
    );

    // A new battery: the sensor counts from the beginning, and a person says so.
    air.say(&sealed(1, PRESS));
    air.refused(2).await;
    air.forget.send(ADDRESS.into()).await.unwrap();
    // Both are of one task, which takes them in no certain order: so it is said until it is heard.
    let pressed = async {
        for counter in 2.. {
            air.say(&sealed(counter, PRESS));
            tokio::select! {
                event = air.events.recv() => return event.unwrap().data,
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
            }
        }
        unreachable!()
    };
    assert_eq!(
        tokio::time::timeout(PATIENCE, pressed).await.unwrap(),
        json!("press")
    );
}

#[tokio::test]
async fn a_sensor_whose_key_is_no_key_is_not_believed_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let sensor = with_key(directory.path(), "231d");
    let air = Air::new(directory.path(), Admission::All, Some(sensor));
    air.say(&hex::decode("400161").unwrap());
    air.say(&sealed(1, PRESS));
    air.say_as([7; 6], "hci0", &hex::decode("400161").unwrap());
    let mut things = air.registry.watch();
    let found = things.wait_for(|things| !things.is_empty());
    let found = tokio::time::timeout(PATIENCE, found)
        .await
        .unwrap()
        .unwrap()
        .clone();
    let ids: Vec<_> = found.keys().map(ToString::to_string).collect();
    assert_eq!(
        ids,
        ["urn:dev:mac:070707fffe070707"],
        "the neighbour, and not the one with the broken key"
    );
}

#[tokio::test]
async fn a_sensor_with_a_key_is_not_believed_in_the_clear() {
    let directory = tempfile::tempdir().unwrap();
    let sensor = with_key(directory.path(), KEY);
    let air = Air::new(directory.path(), Admission::Listed, Some(sensor));
    air.say(&hex::decode("400161").unwrap());
    air.refused(1).await;
    assert!(air.registry.things().is_empty());
}

#[tokio::test]
async fn without_an_adapter_sensors_are_away_and_return_when_they_are_heard() {
    let directory = tempfile::tempdir().unwrap();
    let air = Air::new(
        directory.path(),
        Admission::Listed,
        Some(SensorConfig::default()),
    );
    air.say(&hex::decode("400161").unwrap());
    air.thing(has("battery", json!(97))).await;
    air.radio.send_replace(adapter(false));
    air.thing(|thing| !is_online(thing)).await;
    let mut sources = air.sources.clone();
    let waiting = sources
        .wait_for(|all| all["ble"].state == "waiting")
        .await
        .unwrap()["ble"]
        .clone();
    assert!(waiting.detail.contains("switched off"), "{waiting:?}");
    air.radio.send_replace(adapter(true));
    air.say(&hex::decode("400160").unwrap());
    air.thing(has("battery", json!(96))).await;
}
