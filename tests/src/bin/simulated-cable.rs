//! A serial cable as its own process: `simulated-cable /tmp/far-lamp /tmp/lamp` carries bytes between a device's line and a new
//! pseudo-terminal by the second name. Killing it pulls the cable: the device keeps its power and its memory, and the box sees
//! its adapter vanish. A process of its own, since what a test starts would inherit the pseudo-terminal and keep it open.
//!
//! With `--pair` the device's end is a new pseudo-terminal, too, for programs that open a port by name. With `--noise FILE` one bit in each
//! piece of bytes towards the box is turned over while that file exists.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use autoglm_tests::device::line::Line;
use clap::Parser;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

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
    /// Make the device's line, too.
    #[arg(long)]
    pair: bool,
    /// There is noise while this file exists.
    #[arg(long)]
    noise: Option<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let device = if arguments.pair {
        Line::pseudo_terminal(&arguments.device)?
    } else {
        Line::serial(&arguments.device, BAUD)?
    };
    let host = Line::pseudo_terminal(&arguments.host)?;
    let (from_device, to_device) = tokio::io::split(device.stream);
    let (from_host, to_host) = tokio::io::split(host.stream);
    let noise = arguments.noise.as_deref();
    tokio::try_join!(
        carry(from_device, to_host, noise),
        carry(from_host, to_device, None)
    )
    .context("an end of the cable failed")?;
    Ok(())
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    noise: Option<&Path>,
) -> std::io::Result<()> {
    let mut bytes = [0; 4096];
    loop {
        let count = from.read(&mut bytes).await?;
        if count == 0 {
            return Ok(());
        }
        if noise.is_some_and(Path::exists) {
            bytes[count / 2] ^= 0x10;
        }
        to.write_all(&bytes[..count]).await?;
    }
}
