//! The far ends: devices that answer every read at once, or a bare echo, each on a pseudo-terminal.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use autoglm_protocol::{Config, Device, DeviceEvent, Instant, LinkKind, Value};
use autoglm_tests::device::line::Line;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// What a far end does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Answers with the bytes that come.
    Echo,
    /// Speaks the protocol.
    Device,
}

/// The name of the pseudo-terminal with this number.
pub(crate) fn path(directory: &Path, number: usize) -> PathBuf {
    directory.join(format!("line-{number}"))
}

/// A process with far ends; dropped, it ends.
#[derive(Debug)]
pub(crate) struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a process with `count` far ends, and waits until they are there.
pub(crate) fn start(
    directory: &Path,
    first: usize,
    count: usize,
    role: &str,
) -> anyhow::Result<Peer> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--role", role, "--directory"])
        .arg(directory)
        .args(["--first", &first.to_string()])
        .args(["--links", &count.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().context("its output is piped")?;
    let peer = Peer(child);
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    anyhow::ensure!(line == "ready\n", "the far ends did not come up");
    Ok(peer)
}

/// Serves until standard input ends, as it does with the process that started this one.
pub(crate) fn run(directory: &Path, first: usize, count: usize, kind: Kind) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        for number in first..first + count {
            let line = Line::pseudo_terminal(&path(directory, number))?;
            tokio::spawn(async move {
                let _ = match kind {
                    Kind::Echo => echo(line).await,
                    Kind::Device => device(line, rand::random()).await,
                };
            });
        }
        println!("ready");
        let until_it_ends = || std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        tokio::task::spawn_blocking(until_it_ends).await??;
        // The lines end with the process; waiting for them would last for ever.
        std::process::exit(0)
    })
}

async fn echo(mut line: Line) -> std::io::Result<()> {
    let mut bytes = [0; 4096];
    loop {
        let count = line.stream.read(&mut bytes).await?;
        line.stream.write_all(&bytes[..count]).await?;
    }
}

async fn device(mut line: Line, boot_id: u32) -> std::io::Result<()> {
    let origin = tokio::time::Instant::now();
    let clock = || Instant::from_micros(origin.elapsed().as_micros() as u64);
    let description = br#"{"id": "urn:bench", "title": "bench"}"#;
    let config = Config::default();
    let mut device = Device::new(config, LinkKind::Stream, boot_id, 1, description);
    let (mut input, mut output) = ([0; 4096], Vec::new());
    loop {
        while let Some(event) = device.poll_event() {
            if let DeviceEvent::Read { id, .. } = event {
                let _ = device.respond(clock(), id, Ok(Value::Int(42)));
            }
        }
        output.clear();
        while output.len() < 4096 && device.poll_transmit(clock(), &mut output) {}
        if !output.is_empty() {
            line.stream.write_all(&output).await?;
            continue;
        }
        let wait = device
            .poll_timeout()
            .map_or(Duration::from_secs(3600), |at| {
                Duration::from_micros(at.as_micros().saturating_sub(clock().as_micros()))
            });
        tokio::select! {
            count = line.stream.read(&mut input) => device.handle_input(clock(), &input[..count?]),
            () = tokio::time::sleep(wait) => device.handle_timeout(clock()),
        }
    }
}
