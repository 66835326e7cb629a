//! Both directions of a line at full speed for a while, opened as the daemon opens it: bytes a second, and what was lost or garbled.

use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use autoglm_drivers::serial::{self, LineFormat};
use autoglm_tests::bench::table::{Table, number};
use autoglm_tests::device::line::Line;
use autoglm_tests::stream::{receive, send};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Bytes a second of 3 Mbaud at 8N1, ten bits to a byte.
const THREE_MBAUD: f64 = 300_000.0;
const BAUD: u32 = 3_000_000;

/// The table of what arrived, each way.
pub(crate) fn measure(directory: &Path, seconds: u64) -> anyhow::Result<Table> {
    let lasts = Duration::from_secs(seconds);
    let path = directory.join("sustained");
    let patience = Duration::from_secs(60);
    let sends = apart({
        let path = path.clone();
        async move || {
            let mut line = Line::pseudo_terminal(&path)?;
            // Opening a port discards what waits on it.
            line.stream.read_u8().await?;
            send(&mut line.stream, lasts, None).await?;
            // What is on its way would be gone with the pseudo-terminal.
            tokio::time::sleep(Duration::from_secs(7)).await;
            Ok(())
        }
    });
    let to_the_box = near(&path, async |mut line| {
        line.write_u8(b'!').await?;
        receive(&mut line, patience).await
    })?;
    ended(sends)?;
    let receives = apart({
        let path = path.clone();
        async move || {
            let mut line = Line::pseudo_terminal(&path)?;
            receive(&mut line.stream, patience + lasts).await
        }
    });
    near(&path, async |mut line| {
        Ok(send(&mut line, lasts, None).await?)
    })?;
    let to_the_device = ended(receives)?;

    let mut table = Table::new(&[
        "3 Mbaud on a pseudo-terminal",
        "seconds",
        "bytes a second",
        "to 3 Mbaud (300,000)",
        "blocks of 256 bytes",
        "lost",
        "bytes garbled",
    ]);
    for (way, received) in [("to the box", to_the_box), ("to the device", to_the_device)] {
        let cells = [
            received.lasted.as_secs_f64(),
            received.rate(),
            received.rate() / THREE_MBAUD,
            received.blocks as f64,
            received.lost as f64,
            received.garbled_bytes as f64,
        ];
        table.row(way, cells.map(number));
    }
    Ok(table)
}

/// The far end, on a thread of its own, as a device has a processor of its own.
fn apart<T: Send + 'static, F: Future<Output = anyhow::Result<T>>>(
    work: impl FnOnce() -> F + Send + 'static,
) -> JoinHandle<anyhow::Result<T>> {
    std::thread::spawn(|| alone()?.block_on(work()))
}

fn ended<T>(far: JoinHandle<anyhow::Result<T>>) -> anyhow::Result<T> {
    far.join()
        .map_err(|_| anyhow::anyhow!("the far end panicked"))?
}

/// The box's end, once the far end is there.
fn near<T, F: Future<Output = anyhow::Result<T>>>(
    path: &Path,
    work: impl FnOnce(tokio_serial::SerialStream) -> F,
) -> anyhow::Result<T> {
    alone()?.block_on(async {
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        work(serial::open(path, LineFormat::at(BAUD))?).await
    })
}

fn alone() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}
