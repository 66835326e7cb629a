//! Both directions of a line at full speed for a while, opened as the daemon opens it: bytes a second, and what was lost or garbled.

use std::path::Path;
use std::time::Duration;

use autoglm_drivers::serial::{self, LineFormat};
use autoglm_tests::bench::table::{Table, number};
use autoglm_tests::device::line::Line;
use autoglm_tests::stream::{Received, receive, send};

/// Bytes a second of 3 Mbaud at 8N1, ten bits to a byte.
const THREE_MBAUD: f64 = 300_000.0;
const BAUD: u32 = 3_000_000;

/// The table of what arrived, each way.
pub(crate) fn measure(directory: &Path, seconds: u64) -> anyhow::Result<Table> {
    let lasts = Duration::from_secs(seconds);
    // The far end has a thread of its own, as a device has a processor of its own.
    let path = directory.join("sustained");
    let far = |role: fn(Line, Duration) -> anyhow::Result<Option<Received>>| {
        let path = path.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let _entered = runtime.enter();
            role(Line::pseudo_terminal(&path)?, lasts)
        })
    };
    let sends = far(|mut line, lasts| {
        tokio::runtime::Handle::current().block_on(send(&mut line.stream, lasts, None))?;
        // What is on its way would be gone with the pseudo-terminal.
        std::thread::sleep(Duration::from_secs(7));
        Ok(None)
    });
    let to_the_box = near(&path, |mut line| async move {
        receive(&mut line, Duration::from_secs(60)).await
    })?;
    let _ = sends.join();
    let receives = far(|mut line, lasts| {
        let patience = Duration::from_secs(60) + lasts;
        let received = receive(&mut line.stream, patience);
        tokio::runtime::Handle::current()
            .block_on(received)
            .map(Some)
    });
    near(&path, |mut line| async move {
        Ok(send(&mut line, lasts, None).await?)
    })?;
    let received = receives.join();
    let to_the_device = received.map_err(|_| anyhow::anyhow!("the far end panicked"))??;

    let mut table = Table::new(&[
        "3 Mbaud on a pseudo-terminal",
        "seconds",
        "bytes a second",
        "to 3 Mbaud (300,000)",
        "blocks of 256 bytes",
        "lost",
        "bytes garbled",
    ]);
    for (way, received) in [
        ("to the box", Some(to_the_box)),
        ("to the device", to_the_device),
    ] {
        let received = received.unwrap_or_default();
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

/// The box's end, once the far end is there.
fn near<T, F: Future<Output = anyhow::Result<T>>>(
    path: &Path,
    work: impl FnOnce(tokio_serial::SerialStream) -> F,
) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        work(serial::open(path, LineFormat::at(BAUD))?).await
    })
}
