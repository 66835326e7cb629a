//! A serial cable as its own process: `simulated-cable /tmp/far-lamp /tmp/lamp` carries bytes between a device's line and a new
//! pseudo-terminal by the second name. Killing it pulls the cable: the device keeps its power and its memory, and the box sees
//! its adapter vanish. A process of its own, since what a test starts would inherit the pseudo-terminal and keep it open.

use std::path::PathBuf;

use anyhow::Context as _;
use autoglm_tests::device::line::Line;
use clap::Parser;
use tokio::io::copy_bidirectional;

/// Speed that the device's pseudo-terminal is opened at; it has none of its own.
const BAUD: u32 = 115_200;

/// Carries bytes between a simulated device and a pseudo-terminal.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The device's line.
    device: PathBuf,
    /// Name of the pseudo-terminal that the box opens.
    host: PathBuf,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut device = Line::serial(&arguments.device, BAUD)?;
    let mut host = Line::pseudo_terminal(&arguments.host)?;
    copy_bidirectional(&mut device.stream, &mut host.stream)
        .await
        .context("an end of the cable failed")?;
    Ok(())
}
