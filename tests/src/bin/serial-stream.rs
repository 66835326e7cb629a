//! Sends or receives a stream of checked blocks over a serial line, opened as the daemon opens it: `serial-stream receive
//! serial:///dev/ttyUSB0?baud=3000000`. The other end is another of these, with `--make` on a pseudo-terminal of its own.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use autoglm_drivers::link::LinkAddress;
use autoglm_drivers::serial::{LineFormat, open_place};
use autoglm_tests::device::line::Line;
use autoglm_tests::stream::{receive, send};
use clap::{Parser, ValueEnum};
use tokio_serial::SerialStream;

/// Longest wait for the first byte.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    /// Send blocks.
    Send,
    /// Receive them, and say what came.
    Receive,
}

/// A stream of checked blocks over a serial line.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// What to do.
    role: Role,
    /// The line, as the configuration names it; with --make the name of the pseudo-terminal.
    line: String,
    /// Make a pseudo-terminal of that name.
    #[arg(long)]
    make: bool,
    /// Seconds of sending.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Bytes a second; as many as the line takes, if not given.
    #[arg(long)]
    rate: Option<u32>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let mut held = None;
    let mut line = match options.make {
        true => {
            let made = Line::pseudo_terminal(Path::new(&options.line))?;
            held = made.far_end;
            made.stream
        }
        false => open(&options.line).await?,
    };
    match options.role {
        Role::Send => {
            let lasts = Duration::from_secs(options.seconds);
            let blocks = send(&mut line, lasts, options.rate).await?;
            println!("{blocks} blocks sent");
            // What is on its way in the pseudo-terminal would be gone with it.
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        Role::Receive => println!("{}", receive(&mut line, PATIENCE).await?),
    }
    drop(held);
    Ok(())
}

async fn open(address: &str) -> anyhow::Result<SerialStream> {
    let LinkAddress::Serial { place, baud } = address.parse()? else {
        anyhow::bail!("{address} is no serial line");
    };
    let opened = open_place(&place, LineFormat::at(baud), None).await;
    opened.with_context(|| format!("cannot open {address}"))
}
