//! The box: ports over serial links, and what a process with many of them costs.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use autoglm_drivers::link::Link;
use autoglm_drivers::port::{LinkControl, LinkIndex, Port, PortEvent, port};
use autoglm_drivers::serial::{self, LineFormat};
use autoglm_protocol::{Config, Request, RequestId, Security};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::peer;

/// Longer than any device here needs, on a loaded machine too.
const PATIENCE: Duration = Duration::from_secs(60);
const BAUD: u32 = 115_200;
/// A churn of so many seconds says on the way how it goes.
const CHURN_TOLD: u64 = 300;

/// One device as the box has it.
pub(crate) struct Connected {
    control: LinkControl,
    /// The port of the present connection.
    port: watch::Receiver<Option<Port>>,
}

impl Connected {
    /// A device on a new port, once it has presented itself.
    pub(crate) async fn open(path: &Path) -> anyhow::Result<Self> {
        let (up, mut events) = mpsc::channel(64);
        let (control, task) = port(up);
        let cancel = CancellationToken::new();
        tokio::spawn(task.run(Config::default(), Security::None, rand::random(), cancel));
        let (publish, port) = watch::channel(None);
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                if let PortEvent::Connected { port, .. } = event {
                    publish.send_replace(Some(port));
                }
            }
        });
        let connected = Self { control, port };
        connected.use_line(path).await?;
        Ok(connected)
    }

    async fn use_line(&self, path: &Path) -> anyhow::Result<()> {
        let link = Link::Stream(Box::new(serial::open(path, LineFormat::at(BAUD))?));
        self.control.use_link(LinkIndex(0), link).await;
        Ok(())
    }

    /// Reads a property over the present connection, waiting for one.
    pub(crate) async fn read(&self) -> anyhow::Result<()> {
        let port = self.present().await?;
        let property = "level".to_owned();
        let request = Request::Read { property };
        port.request(RequestId(rand::random()), request, PATIENCE)
            .await?;
        Ok(())
    }

    /// The port of the present connection, once there is one.
    pub(crate) async fn present(&self) -> anyhow::Result<Port> {
        let mut port = self.port.clone();
        let is_there = |port: &Option<Port>| port.as_ref().is_some_and(|port| !port.is_closed());
        let found = tokio::time::timeout(PATIENCE, port.wait_for(is_there)).await;
        let found = found.context("a device does not answer")??.clone();
        found.context("there is a port")
    }

    async fn reopen(&self, path: &Path) -> anyhow::Result<()> {
        let old = self.present().await?;
        self.control.leave_link().await;
        // Nothing is kept over the break, so that the connection is a new one.
        while !old.is_closed() {
            tokio::task::yield_now().await;
        }
        self.use_line(path).await?;
        self.read().await
    }
}

/// How often memory is looked at while links churn.
const LOOKS: u32 = 10;

/// What a box with many links costs. It travels from the box's process to the bench as a line of numbers.
#[derive(Debug, Default)]
pub(crate) struct Cost {
    /// Resident memory of each link, in KiB.
    pub(crate) kib_each: f64,
    /// Share of a core while nothing is asked, in percent.
    pub(crate) idle: f64,
    /// Share of a core with a read a second on each link, in percent.
    pub(crate) reading: f64,
    /// Links closed and opened again so far, and by how many KiB each link had grown then.
    pub(crate) growth: Vec<(f64, f64)>,
}

impl Cost {
    /// Reads it back.
    pub(crate) fn parse(line: &str) -> anyhow::Result<Self> {
        let figures: Result<Vec<f64>, _> = line.split_whitespace().map(str::parse).collect();
        let figures = figures.context("the box printed no figures")?;
        let [kib_each, idle, reading, growth @ ..] = &figures[..] else {
            anyhow::bail!("the box printed too few figures: {line}");
        };
        let growth = growth.chunks_exact(2).map(|pair| (pair[0], pair[1]));
        Ok(Self {
            kib_each: *kib_each,
            idle: *idle,
            reading: *reading,
            growth: growth.collect(),
        })
    }

    fn print(&self) {
        print!("{} {} {}", self.kib_each, self.idle, self.reading);
        for (opened, kib) in &self.growth {
            print!(" {opened} {kib}");
        }
        println!();
    }
}

/// Prints the figures of a box with so many links, for the bench that started it.
pub(crate) fn run(directory: &Path, links: usize, seconds: u64, churn: u64) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let before = resident_kib()?;
        let mut devices = Vec::with_capacity(links);
        for number in 0..links {
            devices.push(Connected::open(&peer::path(directory, number)).await?);
        }
        for _ in 0..20 {
            read_all(&devices).await?;
        }
        let settled = resident_kib()?;
        let each = |kib: f64| kib / links as f64;

        let idle = processor_share(async {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            Ok(())
        });
        let idle = idle.await?;
        let reading = processor_share(async {
            let mut pace = tokio::time::interval(Duration::from_secs(1));
            for _ in 0..seconds {
                pace.tick().await;
                read_all(&devices).await?;
            }
            pace.tick().await;
            Ok(())
        });
        let reading = reading.await?;

        let mut cost = Cost {
            kib_each: each(settled - before),
            idle,
            reading,
            growth: Vec::new(),
        };
        let (begun, mut opened) = (Instant::now(), 0u32);
        for look in 1..=LOOKS {
            let until = begun + Duration::from_secs(churn) * look / LOOKS;
            while Instant::now() < until {
                // In turn, so that each link is opened as often as any other.
                let number = opened as usize % links;
                let path = peer::path(directory, number);
                devices[number].reopen(&path).await?;
                opened += 1;
            }
            let growth = each(resident_kib()? - settled);
            cost.growth.push((f64::from(opened), growth));
            if churn >= CHURN_TOLD {
                let minutes = begun.elapsed().as_secs_f64() / 60.0;
                eprintln!("{links} links, {minutes:.1} min: {opened} opened anew, {growth:.1} KiB each more");
            }
        }
        cost.print();
        Ok(())
    })
}

async fn read_all(devices: &[Connected]) -> anyhow::Result<()> {
    futures_util::future::try_join_all(devices.iter().map(Connected::read)).await?;
    Ok(())
}

/// The share of one core that this process takes while `work` lasts, in percent.
async fn processor_share(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<f64> {
    let (begun, before) = (Instant::now(), processor_seconds()?);
    work.await?;
    Ok((processor_seconds()? - before) / begun.elapsed().as_secs_f64() * 100.0)
}

/// proc_pid_stat(5), fields 14 and 15, in clock ticks: 100 a second on every Linux that Rust's standard library runs on.
fn processor_seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').context("/proc/self/stat is odd")?;
    let ticks: f64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    Ok(ticks / 100.0)
}

fn resident_kib() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.context("/proc/self/status has no VmRSS")?.parse()?)
}
