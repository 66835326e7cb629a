//! What a BLE link carries: the protocol beside bluer's bare notifications and writes, over one connection, in turns.
//!
//! In the lab (tests/lab/README.md, "BLE"), where two virtual controllers are linked: `bench-ble serve hci1` beside
//! `simulated-device lamp --ble hci1 --description LARGE`, then `bench-ble measure hci0 ADDRESS-OF-HCI1`. The emulated processor is the
//! limit there, so the ratios count and not the bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use autoglm_drivers::ble::{BleAddress, Radio};
use autoglm_drivers::link::Link;
use autoglm_drivers::port::{LinkIndex, Port, PortEvent, port};
use autoglm_protocol::transfer::Offer;
use autoglm_protocol::{Config, Reply, Request, RequestId, Security};
use autoglm_tests::bench::statistics::Sample;
use autoglm_tests::bench::table::{Table, number};
use bluer::gatt::local::{
    Application, Characteristic, CharacteristicNotify, CharacteristicNotifyMethod,
    CharacteristicRead, CharacteristicWrite, CharacteristicWriteMethod, Service,
};
use bluer::gatt::remote;
use clap::Parser;
use futures_util::FutureExt as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const SERVICE: bluer::Uuid = bluer::Uuid::from_u128(0xb1e0_0000_b5a3_f393_e0a9_e50e_24dc_ca9e);
/// Written: counted. Read: how many bytes were.
const SINK: bluer::Uuid = bluer::Uuid::from_u128(0xb1e0_0001_b5a3_f393_e0a9_e50e_24dc_ca9e);
/// Notifies [`BURST`] times, as fast as it is taken.
const SOURCE: bluer::Uuid = bluer::Uuid::from_u128(0xb1e0_0002_b5a3_f393_e0a9_e50e_24dc_ca9e);
const PATIENCE: Duration = Duration::from_secs(120);
/// Notifications that each who listens is sent.
const BURST: u32 = 200;
/// Descriptions that are asked for at once.
const AT_ONCE: usize = 8;

/// Measures a BLE link in the lab.
#[derive(Parser)]
enum Arguments {
    /// Be the bare peer on this controller.
    Serve {
        /// As in hci1.
        controller: String,
    },
    /// Measure by this controller to that device, which must be a simulated device and the bare peer.
    Measure {
        /// As in hci0.
        controller: String,
        /// Its address.
        address: String,
        /// Bytes down in one round.
        #[arg(long, default_value_t = 40_000, value_parser = clap::value_parser!(u32).range(1_000..=45_000))]
        bytes: u32,
        /// Rounds.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Arguments::parse() {
        Arguments::Serve { controller } => serve(&controller).await,
        Arguments::Measure {
            controller,
            address,
            bytes,
            rounds,
        } => measure(&controller, &address, bytes as usize, rounds).await,
    }
}

async fn serve(controller: &str) -> anyhow::Result<()> {
    let session = bluer::Session::new().await?;
    let adapter = session.adapter(controller)?;
    let written = Arc::new(AtomicUsize::new(0));
    let (count, told) = (Arc::clone(&written), written);
    let sink = Characteristic {
        uuid: SINK,
        write: Some(CharacteristicWrite {
            write_without_response: true,
            method: CharacteristicWriteMethod::Fun(Box::new(move |bytes, _| {
                count.fetch_add(bytes.len(), Ordering::Relaxed);
                async { Ok(()) }.boxed()
            })),
            ..Default::default()
        }),
        read: Some(CharacteristicRead {
            read: true,
            fun: Box::new(move |_| {
                let count = told.load(Ordering::Relaxed) as u64;
                async move { Ok(count.to_le_bytes().to_vec()) }.boxed()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let source = Characteristic {
        uuid: SOURCE,
        notify: Some(CharacteristicNotify {
            notify: true,
            method: CharacteristicNotifyMethod::Fun(Box::new(|mut notifier| {
                async move {
                    tokio::spawn(async move {
                        // Not for ever: BlueZ would queue them, and be busy with them long after they were wanted.
                        for number in 0..BURST {
                            let mut packet = vec![0u8; 244];
                            packet[..4].copy_from_slice(&number.to_le_bytes());
                            if notifier.is_stopped() || notifier.notify(packet).await.is_err() {
                                return;
                            }
                        }
                    });
                }
                .boxed()
            })),
            ..Default::default()
        }),
        ..Default::default()
    };
    let application = Application {
        services: vec![Service {
            uuid: SERVICE,
            primary: true,
            characteristics: vec![sink, source],
            ..Default::default()
        }],
        ..Default::default()
    };
    let _served = adapter.serve_gatt_application(application).await?;
    eprintln!("serving");
    std::future::pending().await
}

async fn measure(
    controller: &str,
    address: &str,
    bytes: usize,
    rounds: usize,
) -> anyhow::Result<()> {
    let (tracker, cancel) = (TaskTracker::new(), CancellationToken::new());
    let radio = Radio::spawn(&tracker, cancel.clone());
    let place: BleAddress = format!("ble://{controller}/{address}?mtu=244").parse()?;
    let began = Instant::now();
    let link = loop {
        match radio.open(&place).await {
            Ok(link) => break link,
            Err(error) if began.elapsed() < PATIENCE => eprintln!("not yet: {error}"),
            Err(error) => return Err(error.into()),
        }
    };
    let mtu = link.mtu_bytes;
    let (up, mut events) = mpsc::channel(64);
    let (control, task) = port(up);
    let config = Config::default();
    tokio::spawn(task.run(config, Security::None, rand::random(), cancel.clone()));
    control.use_link(LinkIndex(0), Link::Packets(link)).await;
    let port = loop {
        match tokio::time::timeout(PATIENCE, events.recv()).await? {
            Some(PortEvent::Connected { port, .. }) => break port,
            Some(_) => {}
            None => anyhow::bail!("the port ended"),
        }
    };
    tokio::spawn(async move { while events.recv().await.is_some() {} });

    let session = bluer::Session::new().await?;
    let device = session.adapter(controller)?.device(address.parse()?)?;
    let (sink, source) = (bare(&device, SINK).await?, bare(&device, SOURCE).await?);
    let [mut down, mut bare_down, mut up, mut bare_up]: [Sample; 4] = Default::default();
    let mut overtaken = (0, 0);
    for round in 0..rounds {
        down.push(carry(&port, bytes, round).await?);
        bare_down.push(write(&sink, bytes, mtu).await?);
        up.push(describe(&port).await?);
        bare_up.push(listen(&source, bytes, &mut overtaken).await?);
        eprintln!("round {} of {rounds}", round + 1);
    }
    let mut table = Table::new(&["kB/s", "bare", "protocol", "ratio"]);
    let row = |ours: &Sample, floor: &Sample| {
        [floor.p50(), ours.p50(), ours.over(floor).p50()].map(number)
    };
    table.row(
        "down (a transfer; writes without response)",
        row(&down, &bare_down),
    );
    table.row(
        "up (8 descriptions at once; notifications)",
        row(&up, &bare_up),
    );
    println!("packets of {mtu} bytes, {bytes} bytes a round, {rounds} rounds\n{table}");
    let (jumps, notifications) = overtaken;
    println!("{jumps} of {notifications} bare notifications came before one that was sent earlier");
    cancel.cancel();
    Ok(())
}

async fn bare(device: &bluer::Device, uuid: bluer::Uuid) -> anyhow::Result<remote::Characteristic> {
    for service in device.services().await? {
        if service.uuid().await? == SERVICE {
            for characteristic in service.characteristics().await? {
                if characteristic.uuid().await? == uuid {
                    return Ok(characteristic);
                }
            }
        }
    }
    anyhow::bail!("the device has no {uuid}: is `bench-ble serve` running there?")
}

fn rate(bytes: usize, began: Instant) -> f64 {
    bytes as f64 / 1000.0 / began.elapsed().as_secs_f64()
}

/// To the device, acknowledged as stored.
async fn carry(port: &Port, bytes: usize, round: usize) -> anyhow::Result<f64> {
    let content: Arc<[u8]> = (0..bytes).map(|at| (at * 31 + round) as u8).collect();
    let offer = Offer {
        name: format!("round-{round}"),
        length: u32::try_from(bytes)?,
        hash: Sha256::digest(&content).into(),
    };
    let began = Instant::now();
    tokio::time::timeout(PATIENCE, port.carry(offer, content)).await??;
    Ok(rate(bytes, began))
}

/// Written without response, until the peer has counted all; what the radio lost is written again.
async fn write(sink: &remote::Characteristic, bytes: usize, mtu: usize) -> anyhow::Result<f64> {
    let counted = async || -> anyhow::Result<usize> {
        let count = sink.read().await?;
        let count = <[u8; 8]>::try_from(count.as_slice()).context("eight bytes are a count")?;
        Ok(u64::from_le_bytes(count) as usize)
    };
    let goal = counted().await? + bytes;
    let packet = vec![7u8; mtu];
    let began = Instant::now();
    let writer = sink.write_io().await?;
    loop {
        let missing = goal.saturating_sub(counted().await?);
        if missing == 0 {
            return Ok(rate(bytes, began));
        }
        for _ in 0..missing.div_ceil(mtu) {
            writer.send(&packet).await?;
        }
    }
}

async fn describe(port: &Port) -> anyhow::Result<f64> {
    let began = Instant::now();
    let asked =
        (0..AT_ONCE).map(|_| port.request(RequestId(rand::random()), Request::Describe, PATIENCE));
    let mut bytes = 0;
    for answer in futures_util::future::join_all(asked).await {
        let Reply::Description { document, .. } = answer?.reply else {
            anyhow::bail!("no description came");
        };
        bytes += document.len();
    }
    Ok(rate(bytes, began))
}

async fn listen(
    source: &remote::Characteristic,
    bytes: usize,
    overtaken: &mut (usize, usize),
) -> anyhow::Result<f64> {
    let reader = source.notify_io().await?;
    // The first shows that it has begun.
    reader.recv().await?;
    let (began, mut heard, mut last) = (Instant::now(), 0, 0);
    while heard < bytes {
        let packet = tokio::time::timeout(PATIENCE, reader.recv()).await??;
        let number = packet
            .first_chunk()
            .map_or(0, |first| u32::from_le_bytes(*first));
        overtaken.0 += usize::from(number < last);
        overtaken.1 += 1;
        (heard, last) = (heard + packet.len(), number);
    }
    Ok(rate(heard, began))
}
