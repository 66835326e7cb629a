//! Round trips and messages a second on one line: a bare echo of as many bytes as a read and its answer have, and the protocol.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use autoglm_drivers::serial::{self, LineFormat};
use autoglm_tests::bench::statistics::Sample;
use autoglm_tests::bench::table::{Table, number};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::host::Connected;
use super::peer;

/// Round trips in a block.
const BLOCK: usize = 200;
/// Requests on their way when many are sent at once: what a port takes.
const AT_ONCE: usize = 16;
/// A read of a number is 29 bytes on the line, and so is its answer (`cargo bench -p autoglm-protocol`: 58 both ways).
const FRAME: [u8; 29] = [0x5a; 29];

/// The table of both, the echo on line 0 and the device on line 1. Both are asked by a task of the runtime, as all that asks in the daemon
/// is one: what waits in `block_on` is woken by another thread at every turn.
pub(crate) fn measure(directory: &Path, blocks: usize) -> anyhow::Result<Table> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let (echo, device) = (peer::path(directory, 0), peer::path(directory, 1));
    let [echo_trip, trip, echo_rate, rate] =
        runtime.block_on(runtime.spawn(figures(echo, device, blocks)))??;
    let mut table = Table::new(&["on a pseudo-terminal", "bare echo", "protocol", "ratio"]);
    let row = |ours: &Sample, floor: &Sample| {
        [floor.p50(), ours.p50(), ours.over(floor).p50()].map(number)
    };
    table.row("round trip, µs, median of a block", row(&trip, &echo_trip));
    table.row(
        "messages there and back a second, 16 at once",
        row(&rate, &echo_rate),
    );
    Ok(table)
}

async fn figures(echo: PathBuf, device: PathBuf, blocks: usize) -> anyhow::Result<[Sample; 4]> {
    let mut echo = serial::open(&echo, LineFormat::at(115_200))?;
    let device = Connected::open(&device).await?;
    let mut figures: [Sample; 4] = Default::default();
    for _ in 0..blocks {
        let [echo_trip, trip, echo_rate, rate] = &mut figures;
        echo_trip.push(one_by_one_echo(&mut echo).await?);
        trip.push(one_by_one(&device).await?);
        echo_rate.push(at_once_echo(&mut echo).await?);
        rate.push(at_once(&device).await?);
    }
    Ok(figures)
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

async fn one_by_one_echo(line: &mut tokio_serial::SerialStream) -> anyhow::Result<f64> {
    let mut trips = Sample::default();
    let mut back = FRAME;
    for _ in 0..BLOCK {
        let begun = Instant::now();
        line.write_all(&FRAME).await?;
        line.read_exact(&mut back).await?;
        trips.push(micros(begun.elapsed()));
    }
    Ok(trips.p50())
}

async fn one_by_one(device: &Connected) -> anyhow::Result<f64> {
    let mut trips = Sample::default();
    for _ in 0..BLOCK {
        let begun = Instant::now();
        device.read().await?;
        trips.push(micros(begun.elapsed()));
    }
    Ok(trips.p50())
}

async fn at_once_echo(line: &mut tokio_serial::SerialStream) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let mut back = FRAME;
    for sent in 0..BLOCK + AT_ONCE {
        if sent < BLOCK {
            line.write_all(&FRAME).await?;
        }
        if sent >= AT_ONCE {
            line.read_exact(&mut back).await?;
        }
    }
    Ok(BLOCK as f64 / begun.elapsed().as_secs_f64())
}

async fn at_once(device: &Connected) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let lanes = (0..AT_ONCE).map(|_| async {
        for _ in 0..BLOCK / AT_ONCE {
            device.read().await?;
        }
        anyhow::Ok(())
    });
    futures_util::future::try_join_all(lanes).await?;
    Ok((BLOCK / AT_ONCE * AT_ONCE) as f64 / begun.elapsed().as_secs_f64())
}
