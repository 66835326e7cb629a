//! A simulated device as its own process: `simulated-device lamp --pty /tmp/lamp --state /tmp/lamp.json`.
//!
//! It speaks the protocol in its device role over a pseudo-terminal that it makes, or over a real port with
//! `--serial`. Its state can be looked at in the state file; noise, slowness and faults can be asked for.

use std::path::PathBuf;
use std::time::Duration;

use autoglm_tests::device::lamp::{self, Lamp};
use autoglm_tests::device::line::Line;
use autoglm_tests::device::model::Model;
use autoglm_tests::device::noise::Noise;
use autoglm_tests::device::serve::{Counting, Options, serve};
use autoglm_tests::device::thermometer::{self, Thermometer};
use clap::{Parser, ValueEnum};

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
    #[arg(long, conflicts_with = "serial", required_unless_present = "serial")]
    pty: Option<PathBuf>,
    /// Use a real serial port instead.
    #[arg(long)]
    serial: Option<PathBuf>,
    /// Speed of the real port.
    #[arg(long, default_value_t = 115_200)]
    baud: u32,
    /// Write the device's state to this file, as JSON, on every change.
    #[arg(long)]
    state: Option<PathBuf>,
    /// Serve this Thing Description instead of the kind's own.
    #[arg(long)]
    description: Option<PathBuf>,
    /// Milliseconds that each command takes.
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
    /// An action that always fails.
    #[arg(long)]
    fails: Option<String>,
    /// An event to raise again and again, with a running number as its data.
    #[arg(long, requires = "event_every_ms")]
    event: Option<String>,
    /// Milliseconds between two of these events.
    #[arg(long, requires = "event")]
    event_every_ms: Option<u64>,
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
    let line = match (&arguments.pty, &arguments.serial) {
        (Some(path), _) => Line::pseudo_terminal(path)?,
        (None, Some(path)) => Line::serial(path, arguments.baud)?,
        (None, None) => unreachable!("clap requires one of them"),
    };
    let options = Options {
        state: arguments.state,
        delay: Duration::from_millis(arguments.delay_ms),
        fails: arguments.fails,
        counting: arguments
            .event
            .zip(arguments.event_every_ms)
            .map(|(event, every)| Counting {
                event,
                every: Duration::from_millis(every.max(1)),
            }),
        noise: Noise::new(arguments.garbled, arguments.lost, arguments.seed),
        boot_id: rand::random(),
    };
    serve(line, &description, model.as_mut(), options).await
}
