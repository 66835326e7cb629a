//! Links that keep packets: topics of a device at a real mosquitto, as the port and the device use them.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use autoglm_drivers::backoff::Backoff;
use autoglm_drivers::link::{LinkAddress, LinkError, Opener, PacketLink};
use autoglm_drivers::mqtt::Broker;
use autoglm_drivers::mqtt::device::{AttachError, Brokers, End};
use autoglm_drivers::port::{LinkIndex, PortEvent, port};
use autoglm_protocol::transfer::Offer;
use autoglm_protocol::{Config, Request, RequestId, SecretKey, Security, Value};
use autoglm_tests::edge_box::{EdgeBox, PATIENCE};
use autoglm_tests::process::{Process, program, state, wait_for};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const BACKOFF: Backoff = Backoff {
    min: Duration::from_millis(50),
    max: Duration::from_millis(200),
    healthy_after: Duration::from_secs(30),
};
const TOPIC: &str = "autoglm/devices/lamp";

struct Ends {
    edge_box: EdgeBox,
    broker: Broker,
    tracker: TaskTracker,
    cancel: CancellationToken,
}

impl Ends {
    fn new() -> Self {
        let mut edge_box = EdgeBox::new().unwrap();
        edge_box.start_broker().unwrap();
        let broker = Broker {
            host: "127.0.0.1".to_owned(),
            port: edge_box.broker_port(),
            access: Box::default(),
        };
        Self {
            edge_box,
            broker,
            tracker: TaskTracker::new(),
            cancel: CancellationToken::new(),
        }
    }

    fn brokers(&self, end: End) -> Brokers {
        let place = (self.broker.clone(), TOPIC.to_owned());
        Brokers::spawn([place], end, "test", BACKOFF, &self.tracker, &self.cancel)
    }

    /// Attaches as soon as the broker is there.
    async fn attached(&self, brokers: &Brokers) -> PacketLink {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            match brokers.attach(&self.broker, TOPIC).await {
                Ok(link) => return link,
                Err(error) => assert!(tokio::time::Instant::now() < until, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn received(link: &mut PacketLink) -> std::io::Result<Vec<u8>> {
    let packet = tokio::time::timeout(PATIENCE, link.incoming.recv()).await;
    packet.expect("a packet comes").expect("the link lives")
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_keep_their_bounds_and_order_in_both_directions() {
    let ends = Ends::new();
    let (host, device) = (ends.brokers(End::Box), ends.brokers(End::Device));
    let mut at_device = ends.attached(&device).await;
    let mut at_host = ends.attached(&host).await;
    let packet = |number: u16| {
        let mut packet = number.to_le_bytes().to_vec();
        packet.resize(2 + usize::from(number) * 40, 7);
        packet
    };
    for number in 0..200 {
        at_host.outgoing.send(packet(number)).await.unwrap();
        assert_eq!(received(&mut at_device).await.unwrap(), packet(number));
        at_device.outgoing.send(packet(number)).await.unwrap();
        assert_eq!(received(&mut at_host).await.unwrap(), packet(number));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_ends_with_the_brokers_connection_and_says_why() {
    let mut ends = Ends::new();
    let host = ends.brokers(End::Box);
    let mut link = ends.attached(&host).await;
    ends.edge_box.stop_broker().unwrap();
    let error = received(&mut link).await.unwrap_err();
    assert!(error.to_string().contains("broker is away"), "{error}");
    let error = host.attach(&ends.broker, TOPIC).await.unwrap_err();
    assert!(
        matches!(&error, AttachError::BrokerAway { broker, .. } if *broker == ends.broker),
        "{error}"
    );
    ends.edge_box.start_broker().unwrap();
    ends.attached(&host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_vanishes_is_offline_and_announces_itself_when_it_is_back() {
    let mut ends = Ends::new();
    let start = |name: &str| {
        let mut command = Command::new(program("simulated-device").unwrap());
        command
            .args(["lamp", "--mqtt"])
            .arg(format!("{}/{TOPIC}", ends.broker));
        let state = ends.edge_box.path(name);
        command.arg("--state").arg(&state);
        let process = Process::start(&mut command).unwrap();
        wait_for("the device", PATIENCE, || state.exists()).unwrap();
        process
    };
    let mut device = start("first.json");
    let host = ends.brokers(End::Box);
    drop(ends.attached(&host).await);
    device.kill();
    // The broker speaks for it after the last will's delay.
    let until = tokio::time::Instant::now() + PATIENCE;
    let error = loop {
        if let Err(error) = host.attach(&ends.broker, TOPIC).await {
            break error;
        }
        assert!(tokio::time::Instant::now() < until, "it stays online");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(matches!(error, AttachError::Offline { .. }), "{error}");
    assert!(
        LinkError::Mqtt(error)
            .to_string()
            .contains("presence says offline")
    );
    let spoke = host.announcements(&ends.broker, TOPIC).unwrap();
    let spoken = spoke.notified();
    let _device = start("second.json");
    tokio::time::timeout(PATIENCE, spoken).await.unwrap();
    ends.attached(&host).await;
    ends.edge_box.stop_broker().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_goes_on_from_line_to_broker_and_back_and_every_byte_comes_once() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let ends = Ends::new();
    let key = ends.edge_box.path("key");
    let digits = "5a".repeat(32);
    std::fs::write(&key, format!("psk:{digits}\n")).unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let (line, shown) = (ends.edge_box.path("lamp"), ends.edge_box.path("lamp.json"));
    let mut command = Command::new(program("simulated-device").unwrap());
    command.arg("lamp").arg("--pty").arg(&line);
    command
        .arg("--mqtt")
        .arg(format!("{}/{TOPIC}", ends.broker));
    command.arg("--key").arg(&key).arg("--state").arg(&shown);
    let _device = Process::start(&mut command).unwrap();
    wait_for("the device", PATIENCE, || line.exists() && shown.exists()).unwrap();

    let opener = Opener::new(ends.brokers(End::Box), None);
    let addresses: [LinkAddress; 2] = [
        format!("serial://{}", line.display()).parse().unwrap(),
        format!("{}/{TOPIC}", ends.broker).parse().unwrap(),
    ];
    let (up, mut events) = mpsc::channel(64);
    let (control, task) = port(up);
    let config = Config {
        resume_window: PATIENCE,
        ..Config::default()
    };
    let security = Security::Psk {
        key: SecretKey::new([0x5a; 32]),
        seed: SecretKey::new(rand::random()),
    };
    tokio::spawn(task.run(config, security, rand::random(), ends.cancel.clone()));
    control
        .use_link(LinkIndex(0), opener.open(&addresses[0]).await.unwrap())
        .await;
    let port = loop {
        let event = tokio::time::timeout(PATIENCE, events.recv()).await;
        if let PortEvent::Connected { port, .. } = event.unwrap().unwrap() {
            break port;
        }
    };

    let content: Arc<[u8]> = (0..1_000_000u32)
        .map(|at| (u64::from(at).wrapping_mul(seed | 1) >> 24) as u8)
        .collect();
    let offer = Offer {
        name: "firmware".to_owned(),
        length: content.len() as u32,
        hash: Sha256::digest(&content).into(),
    };
    let carrier = port.clone();
    let whole = Arc::clone(&content);
    let carrying = tokio::spawn(async move { carrier.carry(offer, whole).await });
    let mut moves = 0;
    while !carrying.is_finished() {
        // A request beside it: what moves the connection must not lose that either.
        let read = Request::Read {
            property: "on".into(),
        };
        let answer = port
            .request(RequestId(rand::random()), read, PATIENCE)
            .await;
        assert!(
            answer.is_ok(),
            "seed {seed}, after {moves} moves: {answer:?}"
        );
        moves += 1;
        let Ok(link) = opener.open(&addresses[moves % 2]).await else {
            continue;
        };
        control.use_link(LinkIndex(moves % 2), link).await;
        while events.try_recv().is_ok() {}
    }
    carrying
        .await
        .unwrap()
        .unwrap_or_else(|error| panic!("seed {seed}, after {moves} moves: {error}"));
    let shown = state(&shown).unwrap();
    println!("{moves} moves under a transfer of {} bytes", content.len());
    assert!(moves > 2, "it was over before the connection moved");
    assert_eq!(
        (
            &shown["complete"],
            &shown["offers"],
            &shown["carried_bytes"],
            &shown["connections"]
        ),
        (&1.into(), &1.into(), &content.len().into(), &1.into()),
        "seed {seed}: {shown}"
    );
    let dim = Request::Invoke {
        action: "toggle".into(),
        input: Value::Null,
    };
    port.request(RequestId(rand::random()), dim, PATIENCE)
        .await
        .unwrap();
}
