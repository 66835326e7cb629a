//! What a radio does to packets, at the port: small ones, jumbled ones, lost ones, and eight devices at once that come and go.
//!
//! The radio is played by the test (a stand-in, since no radio can exist here: real ones are in tests/lab); port, protocol and devices
//! are the real ones, each device a process of its own.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use autoglm_drivers::link::{Delivery, Link, PacketLink};
use autoglm_drivers::port::{LinkControl, LinkIndex, Port, PortEvent, port};
use autoglm_protocol::{Config, Request, RequestId, Security, Value};
use autoglm_tests::edge_box::PATIENCE;
use autoglm_tests::process::{Process, program, wait_for};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::UnixDatagram;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A jumbled notification waits at most so long for the one that overtakes it.
const OVERTAKEN: Duration = Duration::from_millis(5);
/// Packets on the way.
const PACKETS: usize = 64;

/// What the radio does to notifications.
#[derive(Clone, Copy)]
struct Air {
    mtu_bytes: u16,
    /// Up to so many come before one that was sent earlier.
    jumbled: usize,
    /// So often one is lost.
    lost: f64,
}

/// A lamp as a process, on a radio that the test plays.
struct Lamp {
    directory: TempDir,
    socket: UnixDatagram,
    _process: Process,
}

impl Lamp {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let mut command = Command::new(program("simulated-device").unwrap());
        command.arg("lamp").arg("--packets").arg(path("air"));
        command.arg("--executions").arg(path("executions"));
        let process = Process::start(&mut command).unwrap();
        wait_for("the device", PATIENCE, || path("air.device").exists()).unwrap();
        let socket = UnixDatagram::bind(path("air")).unwrap();
        Self {
            directory,
            socket,
            _process: process,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The levels that it was set to, in order.
    fn executed(&self) -> Vec<i64> {
        let notes = std::fs::read_to_string(self.path("executions")).unwrap_or_default();
        let level = |line: &str| {
            let note: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(note["action"], json!("set_brightness"), "{note}");
            note["input"]["level"].as_i64().unwrap()
        };
        notes.lines().map(level).collect()
    }

    /// Plays the radio for one connection, until the link is dropped or `gone` is cancelled.
    async fn carry(&self, air: Air, seed: u64, link: Far, gone: CancellationToken) {
        let Far {
            mut outgoing,
            incoming,
        } = link;
        let device = self.path("air.device");
        let [low, high] = air.mtu_bytes.to_le_bytes();
        self.socket
            .send_to(&[b'+', low, high], &device)
            .await
            .unwrap();
        let mut random = StdRng::seed_from_u64(seed);
        let (mut held, mut bytes) = (VecDeque::new(), [0u8; 1024]);
        loop {
            tokio::select! {
                () = gone.cancelled() => break,
                packet = outgoing.recv() => match packet {
                    Some(packet) => {
                        assert!(packet.len() <= usize::from(air.mtu_bytes), "{} bytes", packet.len());
                        let _ = self.socket.send_to(&[b"=", &packet[..]].concat(), &device).await;
                    }
                    None => break,
                },
                count = self.socket.recv(&mut bytes) => {
                    let packet = &bytes[..count.unwrap()];
                    assert!(packet.len() <= usize::from(air.mtu_bytes), "{} bytes", packet.len());
                    if !random.random_bool(air.lost) {
                        held.push_back(packet.to_vec());
                    }
                    if held.len() > air.jumbled {
                        give(&incoming, held.remove(random.random_range(0..held.len())));
                    }
                }
                () = tokio::time::sleep(OVERTAKEN), if !held.is_empty() => {
                    give(&incoming, held.remove(random.random_range(0..held.len())));
                }
            }
        }
        let _ = self.socket.send_to(b"-", &device).await;
    }
}

fn give(incoming: &mpsc::Sender<std::io::Result<Vec<u8>>>, packet: Option<Vec<u8>>) {
    if let Some(packet) = packet {
        let _ = incoming.try_send(Ok(packet));
    }
}

/// The radio's end of a link.
struct Far {
    outgoing: mpsc::Receiver<Vec<u8>>,
    incoming: mpsc::Sender<std::io::Result<Vec<u8>>>,
}

fn link(mtu_bytes: u16) -> (Link, Far) {
    let (outgoing, from_port) = mpsc::channel(PACKETS);
    let (to_port, incoming) = mpsc::channel(PACKETS);
    let link = PacketLink {
        mtu_bytes: usize::from(mtu_bytes),
        delivery: Delivery::Unreliable,
        outgoing,
        incoming,
    };
    let far = Far {
        outgoing: from_port,
        incoming: to_port,
    };
    (Link::Packets(link), far)
}

/// A port, and the events of its connection.
fn host(cancel: &CancellationToken) -> (LinkControl, mpsc::Receiver<PortEvent>) {
    let (up, events) = mpsc::channel(64);
    let (control, task) = port(up);
    let config = Config {
        resume_window: PATIENCE,
        ..Config::default()
    };
    tokio::spawn(task.run(config, Security::None, rand::random(), cancel.clone()));
    (control, events)
}

async fn connected(events: &mut mpsc::Receiver<PortEvent>) -> Port {
    loop {
        let event = tokio::time::timeout(PATIENCE, events.recv()).await;
        if let PortEvent::Connected { port, .. } = event.expect("it connects").unwrap() {
            return port;
        }
    }
}

fn dim(level: i64) -> Request {
    Request::Invoke {
        action: "set_brightness".into(),
        input: Value::Map(vec![("level".into(), Value::Int(level))]),
    }
}

/// Sixty commands, each done once and in order, however the radio carries them.
async fn obeys_over(air: Air) {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let (lamp, cancel) = (Lamp::start(), CancellationToken::new());
    let (control, mut events) = host(&cancel);
    let (near, far) = link(air.mtu_bytes);
    let work = async {
        control.use_link(LinkIndex(0), near).await;
        let port = connected(&mut events).await;
        for level in 0..60 {
            let answer = port
                .request(RequestId(level as u64 + 1), dim(level), PATIENCE)
                .await;
            assert!(answer.is_ok(), "seed {seed}, level {level}: {answer:?}");
        }
    };
    tokio::select! {
        () = work => {}
        () = lamp.carry(air, seed, far, cancel.clone()) => panic!("seed {seed}: the link was dropped"),
    }
    assert_eq!(lamp.executed(), (0..60).collect::<Vec<_>>(), "seed {seed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_out_of_order_are_put_in_order() {
    let air = Air {
        mtu_bytes: 100,
        jumbled: 4,
        lost: 0.0,
    };
    obeys_over(air).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_of_20_bytes_that_are_jumbled_and_lost_are_enough() {
    let air = Air {
        mtu_bytes: 20,
        jumbled: 2,
        lost: 0.05,
    };
    obeys_over(air).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_devices_that_come_and_go_obey_at_once_and_nothing_is_done_twice() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let devices = (0..8u64).map(|number| tokio::spawn(one_of_eight(seed.wrapping_add(number))));
    for device in devices.collect::<Vec<_>>() {
        device
            .await
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

/// A device whose link breaks again and again under its commands.
async fn one_of_eight(seed: u64) {
    const COMMANDS: i64 = 40;
    let air = Air {
        mtu_bytes: 244,
        jumbled: 2,
        lost: 0.0,
    };
    let mut random = StdRng::seed_from_u64(seed);
    let (lamp, cancel) = (Lamp::start(), CancellationToken::new());
    let (control, mut events) = host(&cancel);
    let radio = async {
        for connection in 0.. {
            let (near, far) = link(air.mtu_bytes);
            let gone = CancellationToken::new();
            control.use_link(LinkIndex(0), near).await;
            let stays = Duration::from_millis(random.random_range(50..400));
            let timer = gone.clone();
            // Jumbled otherwise each time: what one connection did not live to mend, the next need not mend again.
            let jumble = seed.wrapping_add(connection);
            tokio::join!(lamp.carry(air, jumble, far, gone), async {
                tokio::time::sleep(stays).await;
                timer.cancel();
            });
            tokio::time::sleep(Duration::from_millis(random.random_range(10..100))).await;
        }
    };
    let work = async {
        let port = connected(&mut events).await;
        let drained = async { while events.recv().await.is_some() {} };
        let commands = async {
            for level in 0..COMMANDS {
                let answer = port
                    .request(RequestId(level as u64 + 1), dim(level), PATIENCE)
                    .await;
                assert!(answer.is_ok(), "seed {seed}, level {level}: {answer:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            () = commands => {}
            () = drained => panic!("seed {seed}: the port ended"),
        }
    };
    tokio::select! {
        () = work => {}
        () = radio => {}
    }
    cancel.cancel();
    assert_eq!(
        lamp.executed(),
        (0..COMMANDS).collect::<Vec<_>>(),
        "seed {seed}"
    );
}
