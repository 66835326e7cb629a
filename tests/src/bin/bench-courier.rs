//! How fast what waits for the fleet's broker gets there: from the outbox on disk to the broker's acknowledgement and out of the outbox again,
//! beside our MQTT client alone and a bare rumqttc publisher.
//!
//! All publish at quality 1 to one mosquitto on loopback, one after the other in each round, so that a drift of the machine meets all. The courier
//! must make durable that messages are gone; the two others keep nothing. `--delay-ms` lets the broker's answers
//! take longer, as over a real network.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use autoglm_drivers::backoff::Backoff;
use autoglm_drivers::mqtt::{self, BrokerState, ClientConfig, Publication, PublishOptions};
use autoglm_edge::control::fleet::courier::Courier;
use autoglm_edge::store::outbox::{Lane, LaneQuota, Limits, Message, Outbox};
use autoglm_edge::store::{ExportPolicy, Store, StoreConfig};
use autoglm_tests::bench::{
    statistics::Sample,
    table::{Table, number},
};
use autoglm_tests::mosquitto::Mosquitto;
use clap::Parser;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

#[derive(Debug, Parser)]
struct Options {
    /// Rounds, of which the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Messages in one round of one way.
    #[arg(long, default_value_t = 2_000)]
    messages: usize,
    /// Milliseconds by which the network delays each answer of the broker.
    #[arg(long, value_delimiter = ',', default_value = "0,20")]
    delay_ms: Vec<u64>,
    /// Directory on the disk to be measured; a temporary directory in it is used.
    #[arg(long, default_value = ".")]
    directory: std::path::PathBuf,
}

/// Bytes of a message, about those of a command's result.
const MESSAGE_BYTES: usize = 300;
/// What each way has unacknowledged at a time, so that the floor does not win by a larger window.
const WINDOW: u16 = 8;
const PATIENCE: Duration = Duration::from_secs(120);
const TOPIC: &str = "bench/courier";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let directory = tempfile::tempdir_in(&options.directory)?;
    let port = Mosquitto::free_port()?;
    let _broker = Mosquitto::start(
        directory.path(),
        port,
        "allow_anonymous true\nlog_type none\nmax_inflight_messages 0",
    )?;
    let mut table = Table::new(&[
        "messages/s to the broker's acknowledgement",
        "rumqttc alone",
        "our client",
        "to rumqttc",
        "outbox, courier, outbox",
        "to rumqttc",
        "messages a commit",
        "commits/s",
    ]);
    for delay_ms in &options.delay_ms {
        let near = delayed(port, Duration::from_millis(*delay_ms)).await?;
        let mut rates: [Sample; 3] = Default::default();
        let (mut each_commit, mut commits) = (Sample::default(), Sample::default());
        for round in 0..options.rounds {
            let place = directory.path().join(format!("{delay_ms}-{round}"));
            let [bare, client, courier] = &mut rates;
            // Less where each has to wait for the network.
            let count = match delay_ms {
                0 => options.messages,
                _ => options.messages / 10,
            };
            let rate = |elapsed: Duration| count as f64 / elapsed.as_secs_f64();
            bare.push(rate(publish_bare(near, count).await?));
            client.push(rate(publish_by_client(near, count).await?));
            let (elapsed, groups) = carry(near, count, &place).await?;
            courier.push(rate(elapsed));
            each_commit.push(count as f64 / groups as f64);
            commits.push(groups as f64 / elapsed.as_secs_f64());
        }
        let [bare, client, courier] = &rates;
        let cells = [
            bare.p50(),
            client.p50(),
            client.over(bare).p50(),
            courier.p50(),
            courier.over(bare).p50(),
            each_commit.p50(),
            commits.p50(),
        ];
        table.row(
            &format!("broker answers after {delay_ms} ms"),
            cells.map(number),
        );
    }
    println!(
        "Messages of {MESSAGE_BYTES} bytes, {WINDOW} unacknowledged at a time; medians of {} rounds.\n\n{table}",
        options.rounds
    );
    Ok(())
}

/// A port that leads to the broker and lets its answers take longer.
async fn delayed(broker: u16, delay: Duration) -> anyhow::Result<u16> {
    if delay.is_zero() {
        return Ok(broker);
    }
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let far = TcpStream::connect(("127.0.0.1", broker)).await?;
                near.set_nodelay(true)?;
                far.set_nodelay(true)?;
                let (mut near_in, mut near_out) = near.into_split();
                let (mut far_in, mut far_out) = far.into_split();
                let (later, mut due) = tokio::sync::mpsc::unbounded_channel();
                tokio::spawn(async move {
                    while let Some((at, bytes)) = due.recv().await {
                        tokio::time::sleep_until(at).await;
                        let bytes: Vec<u8> = bytes;
                        if near_out.write_all(&bytes).await.is_err() {
                            return;
                        }
                    }
                });
                tokio::spawn(async move {
                    let mut bytes = [0; 16 * 1024];
                    while let Ok(count @ 1..) = far_in.read(&mut bytes).await {
                        let at = tokio::time::Instant::now() + delay;
                        let _ = later.send((at, bytes[..count].to_vec()));
                    }
                });
                tokio::io::copy(&mut near_in, &mut far_out).await
            });
        }
    });
    Ok(port)
}

async fn publish_bare(port: u16, count: usize) -> anyhow::Result<Duration> {
    let name = format!("bare-{:08x}", rand::random::<u32>());
    let mut options = MqttOptions::new(name, "127.0.0.1", port);
    options.set_outgoing_inflight_upper_limit(WINDOW);
    let mut network = rumqttc::NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    let (client, mut events) = AsyncClient::new(options, 64);
    let connected = async {
        while !matches!(events.poll().await?, Event::Incoming(Packet::ConnAck(_))) {}
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, connected).await??;
    let begun = Instant::now();
    tokio::spawn(async move {
        for _ in 0..count {
            let payload = vec![b'x'; MESSAGE_BYTES];
            let sent = client.publish(TOPIC, QoS::AtLeastOnce, false, payload);
            if sent.await.is_err() {
                return;
            }
        }
        // Its event loop would end with the last handle.
        std::future::pending::<()>().await;
    });
    let mut acknowledged = 0;
    while acknowledged < count {
        let event = tokio::time::timeout(PATIENCE, events.poll()).await??;
        acknowledged += usize::from(matches!(event, Event::Incoming(Packet::PubAck(_))));
    }
    Ok(begun.elapsed())
}

/// Our client on a connection of its own.
async fn connect(port: u16) -> anyhow::Result<(mqtt::Client, CancellationToken, TaskTracker)> {
    let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
    let config = ClientConfig {
        broker: format!("mqtt://127.0.0.1:{port}").parse()?,
        client_id: format!("ours-{:08x}", rand::random::<u32>()),
        subscriptions: Vec::new(),
        birth: None,
        will: None,
        session_expiry: Duration::ZERO,
        backoff: Backoff {
            min: Duration::from_millis(100),
            max: Duration::from_secs(1),
            healthy_after: Duration::from_secs(1),
        },
    };
    let (client, _) = mqtt::spawn(config, &tasks, cancel.clone());
    let mut state = client.state();
    let connected = state.wait_for(|state| *state == BrokerState::Connected);
    tokio::time::timeout(PATIENCE, connected)
        .await
        .context("the broker does not answer")??;
    Ok((client, cancel, tasks))
}

async fn publish_by_client(port: u16, count: usize) -> anyhow::Result<Duration> {
    let (client, cancel, tasks) = connect(port).await?;
    let begun = Instant::now();
    let (mut sent, mut under_way) = (0, FuturesUnordered::new());
    while sent < count || !under_way.is_empty() {
        while sent < count && under_way.len() < usize::from(WINDOW) * 2 {
            let publication = Publication {
                topic: TOPIC.to_owned(),
                payload: vec![b'x'; MESSAGE_BYTES],
                ..Publication::default()
            };
            under_way.push(client.submit(publication, PublishOptions::default())?);
            sent += 1;
        }
        under_way.next().await.context("there is one")??;
    }
    let elapsed = begun.elapsed();
    cancel.cancel();
    tasks.close();
    tasks.wait().await;
    Ok(elapsed)
}

/// Fills an outbox, and takes the time until it is empty and that is durable; gives also the commits that it took.
async fn carry(port: u16, count: usize, place: &Path) -> anyhow::Result<(Duration, u64)> {
    std::fs::create_dir(place)?;
    let config = StoreConfig {
        state_directory: place.to_owned(),
        export: ExportPolicy::default(),
    };
    let store =
        tokio::task::spawn_blocking(move || Store::open(config, SystemTime::now())).await??;
    let quota = LaneQuota {
        entries_max: 30_000,
        bytes_max: 12 << 20,
    };
    let limits = Limits {
        results: quota,
        events: quota,
        telemetry: quota,
    };
    let outbox = Outbox::new(store.handle(), limits);
    outbox.load().await?;
    let messages: Vec<Message> = (0..count)
        .map(|number| Message {
            lane: Lane::Events,
            id: number.to_string(),
            topic: TOPIC.to_owned(),
            payload: serde_json::Value::String("x".repeat(MESSAGE_BYTES)),
            retain: false,
            correlation: None,
            lifetime: Some(Duration::from_secs(3600)),
            is_latest_only: false,
        })
        .collect();
    for some in messages.chunks(100) {
        outbox.put(some).await?;
    }
    let (client, cancel, tasks) = connect(port).await?;
    let mut stats = outbox.stats();
    let groups = || store.handle().stats().groups;
    let before = groups();
    let begun = Instant::now();
    tasks.spawn(Courier::new(outbox.clone(), client).run(cancel.clone()));
    let empty = stats.wait_for(|lanes| lanes.iter().all(|lane| lane.waiting == 0));
    tokio::time::timeout(PATIENCE, empty)
        .await
        .context("the outbox does not empty")??;
    let (elapsed, groups) = (begun.elapsed(), groups() - before);
    cancel.cancel();
    tasks.close();
    tasks.wait().await;
    tokio::task::spawn_blocking(move || store.shutdown()).await?;
    Ok((elapsed, groups))
}
