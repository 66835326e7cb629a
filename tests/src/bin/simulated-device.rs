//! A simulated device as its own process: `simulated-device lamp --pty /tmp/lamp --state /tmp/lamp.json`.
//!
//! It speaks the protocol in its device role over a pseudo-terminal that it makes, over a real port with `--serial`, as a BLE
//! peripheral with `--ble hci1`, by a broker with `--mqtt`, or by several of these at once: it goes where the host speaks to it. Its state can be looked at in the state file;
//! noise, slowness and faults can be asked for.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use autoglm_drivers::backoff::Backoff;
use autoglm_drivers::ble::address::{MTU_BYTES_MAX, MTU_BYTES_MIN};
use autoglm_drivers::link::LinkAddress;
use autoglm_drivers::mqtt::device::{Brokers, End};
use autoglm_drivers::mqtt::{ClientFiles, TlsFiles, Transport};
use autoglm_edge::config::key::{KeyKind, KeySource, from_hex};
use autoglm_protocol::{SecretKey, Security};
use autoglm_tests::device::datagrams;
use autoglm_tests::device::lamp::{self, Lamp};
use autoglm_tests::device::line::Line;
use autoglm_tests::device::model::Model;
use autoglm_tests::device::noise::Noise;
use autoglm_tests::device::peripheral::Peripheral;
use autoglm_tests::device::serve::{Options, serve};
use autoglm_tests::device::thermometer::{self, Thermometer};
use autoglm_tests::device::ways::Ways;
use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// A dimmable lamp.
    Lamp,
    /// A thermometer with a fan.
    Thermometer,
}

/// A simulated device that speaks the autoglm-edge protocol.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// What it is.
    kind: Kind,
    /// Make a pseudo-terminal and name it so.
    #[arg(long, required_unless_present_any = ["serial", "ble", "packets", "mqtt"])]
    pty: Option<PathBuf>,
    /// Use a real serial port.
    #[arg(long)]
    serial: Option<PathBuf>,
    /// Be a BLE peripheral on this controller, as in hci1. The signals USR1, USR2 and HUP make it vanish, return, and serve
    /// other handles.
    #[arg(long, value_name = "CONTROLLER")]
    ble: Option<String>,
    /// The name that it advertises.
    #[arg(long, default_value = "Lamp", requires = "ble")]
    ble_name: String,
    /// The most bytes of a packet that it takes by radio, 20 to 500.
    #[arg(long, default_value_t = MTU_BYTES_MAX, requires = "ble", value_parser = parse_mtu)]
    ble_mtu: usize,
    /// Be on a radio that another program plays, at this UNIX datagram socket (tests/lab/radio).
    #[arg(long, value_name = "SOCKET")]
    packets: Option<PathBuf>,
    /// Be reached by a broker: mqtt://HOST:PORT/TOPIC.
    #[arg(long)]
    mqtt: Option<LinkAddress>,
    /// The authority that signed the broker's certificate, for mqtts://.
    #[arg(long, requires = "mqtt")]
    mqtt_ca: Option<PathBuf>,
    /// Its own certificate for the broker.
    #[arg(long, requires_all = ["mqtt_ca", "mqtt_key"])]
    mqtt_certificate: Option<PathBuf>,
    /// The private key of that certificate.
    #[arg(long, requires = "mqtt_certificate")]
    mqtt_key: Option<PathBuf>,
    /// The key that it shares with the box.
    #[arg(long)]
    key: Option<PathBuf>,
    /// Its own private key, where static pairs are used too.
    #[arg(long, requires = "peer")]
    identity: Option<PathBuf>,
    /// The box's public key.
    #[arg(long, requires_all = ["identity", "key"])]
    peer: Option<String>,
    /// Seconds that it keeps an interrupted connection.
    #[arg(long, default_value_t = 30)]
    resume_s: u64,
    /// Raise the event `tick` with a growing number this often, in milliseconds.
    #[arg(long)]
    tick_ms: Option<u64>,
    /// Speed of the real port.
    #[arg(long, default_value_t = 115_200)]
    baud: u32,
    /// Write the device's state to this file, as JSON, on every change.
    #[arg(long)]
    state: Option<PathBuf>,
    /// Add a line of JSON to this file for each action that is carried out.
    #[arg(long)]
    executions: Option<PathBuf>,
    /// Serve this Thing Description instead of the kind's own.
    #[arg(long)]
    description: Option<PathBuf>,
    /// Milliseconds that each command takes.
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
    /// An action that always fails.
    #[arg(long)]
    fails: Option<String>,
    /// Probability that a byte on the line is garbled.
    #[arg(long, default_value_t = 0.0)]
    garbled: f64,
    /// Probability that a byte on the line vanishes.
    #[arg(long, default_value_t = 0.0)]
    lost: f64,
    /// Seed of the noise.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let (mut model, description): (Box<dyn Model>, &str) = match arguments.kind {
        Kind::Lamp => (Box::new(Lamp::default()), lamp::DESCRIPTION),
        Kind::Thermometer => (Box::new(Thermometer::default()), thermometer::DESCRIPTION),
    };
    let description = match &arguments.description {
        Some(path) => std::fs::read_to_string(path)?,
        None => description.to_owned(),
    };
    let security = security(&arguments)?;
    let mut ways = Ways::default();
    if let Some(path) = &arguments.pty {
        ways.add_line(Line::pseudo_terminal(path)?);
    }
    if let Some(path) = &arguments.serial {
        ways.add_line(Line::serial(path, arguments.baud)?);
    }
    if let Some(controller) = &arguments.ble {
        let peripheral =
            Peripheral::start(controller, &arguments.ble_name, arguments.ble_mtu).await?;
        ways.add_radio(peripheral.into_hosts());
    }
    if let Some(path) = &arguments.packets {
        ways.add_radio(datagrams::links(path)?);
    }
    let (at_broker, leaving) = (TaskTracker::new(), CancellationToken::new());
    if let Some(address) = arguments.mqtt.clone() {
        let LinkAddress::Mqtt { mut broker, topic } = address else {
            anyhow::bail!("--mqtt takes mqtt://HOST:PORT/TOPIC, not {address}");
        };
        if let Transport::Tls(files) = &mut broker.access.transport {
            let client = arguments.mqtt_certificate.clone();
            *files = TlsFiles {
                authority: arguments
                    .mqtt_ca
                    .clone()
                    .context("mqtts:// needs --mqtt-ca")?,
                client: client
                    .zip(arguments.mqtt_key.clone())
                    .map(|(certificate, key)| ClientFiles { certificate, key }),
            };
        }
        let place = (broker.clone(), topic.clone());
        let name = topic.replace('/', "-");
        let brokers = Brokers::spawn([place], End::Device, &name, BACKOFF, &at_broker, &leaving);
        ways.add_broker(brokers, broker, topic);
    }
    let options = Options {
        state: arguments.state,
        executions: arguments.executions,
        delay: Duration::from_millis(arguments.delay_ms),
        fails: arguments.fails,
        noise: Noise::new(arguments.garbled, arguments.lost, arguments.seed),
        boot_id: rand::random(),
        security,
        resume: Duration::from_secs(arguments.resume_s),
        tick: arguments.tick_ms.map(Duration::from_millis),
    };
    let mut terminated = signal(SignalKind::terminate())?;
    let served = tokio::select! {
        served = serve(ways, &description, model.as_mut(), options) => served,
        _ = terminated.recv() => Ok(()),
    };
    // It leaves in order: the broker hears it from itself.
    leaving.cancel();
    at_broker.close();
    let _ = tokio::time::timeout(LEAVING, at_broker.wait()).await;
    served
}

/// How long it may take to leave a broker.
const LEAVING: Duration = Duration::from_secs(2);

fn parse_mtu(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(mtu) if (MTU_BYTES_MIN..=MTU_BYTES_MAX).contains(&mtu) => Ok(mtu),
        _ => Err(format!(
            "not a number from {MTU_BYTES_MIN} to {MTU_BYTES_MAX}"
        )),
    }
}

/// Rests between connections to the broker.
const BACKOFF: Backoff = Backoff {
    min: Duration::from_millis(100),
    max: Duration::from_secs(2),
    healthy_after: Duration::from_secs(30),
};

fn security(arguments: &Arguments) -> anyhow::Result<Security> {
    let load = |path: &PathBuf, kind| KeySource::File(path.clone()).load(kind);
    let Some(key) = &arguments.key else {
        return Ok(Security::None);
    };
    let key = load(key, KeyKind::PreShared)?;
    let seed = SecretKey::new(rand::random());
    Ok(match (&arguments.identity, &arguments.peer) {
        (Some(identity), Some(peer)) => Security::Mutual {
            key,
            private: load(identity, KeyKind::Private)?,
            peer: *from_hex(peer).context("--peer takes 64 hexadecimal digits")?,
            seed,
        },
        _ => Security::Psk { key, seed },
    })
}
