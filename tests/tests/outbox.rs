//! Nothing that was put into the outbox is lost and nothing is doubled, whoever is killed: a real daemon, a real mosquitto, a simulated
//! device that counts its events, and a subscriber that counts what arrives.
//!
//! `AUTOGLM_KILLS` sets the number of kills (12), `AUTOGLM_SEED` repeats a run's choices.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use autoglm_edge::store::outbox::{self, Lane};
use autoglm_edge::store::{ExportPolicy, Store, StoreConfig};
use autoglm_tests::edge_box::{EdgeBox, LAMP, PATIENCE};
use autoglm_tests::fleet::Operator;
use autoglm_tests::mosquitto::Mosquitto;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectProperties, Packet};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use serde_json::{Value, json};

/// The broker's state survives its own death as far as mosquitto can: saved on each change, nothing held back from a subscriber that is
/// there. What it has acknowledged and lost all the same would be its fault, and count as ours here.
const DURABLE: &str = "allow_anonymous true\npersistence true\nautosave_on_changes true\nautosave_interval 1\nmax_inflight_messages 0\nmax_queued_messages 0";

/// What arrived, by message id.
#[derive(Debug, Default)]
struct Arrived {
    /// The payload, and how often it came.
    messages: BTreeMap<String, (Value, usize)>,
    connections: usize,
}

/// A subscriber with a session of its own at the broker.
#[derive(Debug, Clone, Default)]
struct Subscriber(Arc<Mutex<Arrived>>);

impl Subscriber {
    fn start(port: u16, filter: &'static str) -> Self {
        let subscriber = Self::default();
        let this = subscriber.clone();
        tokio::spawn(async move {
            loop {
                // A fresh event loop for each connection, see the product's own client.
                let mut options = MqttOptions::new("subscriber", "127.0.0.1", port);
                options
                    .set_clean_start(false)
                    .set_keep_alive(Duration::from_secs(5))
                    // With acknowledgements of its own a broken connection takes away what was read with them.
                    .set_manual_acks(true);
                options.set_connect_properties(ConnectProperties {
                    session_expiry_interval: Some(3_600),
                    receive_maximum: Some(u16::MAX),
                    max_packet_size: Some(1 << 20),
                    ..ConnectProperties::new()
                });
                let (client, mut events) = AsyncClient::new(options, 1_000);
                if client.subscribe(filter, QoS::AtLeastOnce).await.is_err() {
                    return;
                }
                while let Ok(event) = events.poll().await {
                    this.take(event, &client);
                }
                // rumqttc reports the end before what it had read until then.
                for event in std::mem::take(&mut events.state.events) {
                    this.take(event, &client);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        subscriber
    }

    fn take(&self, event: Event, client: &AsyncClient) {
        let mut arrived = self.0.lock().unwrap();
        match event {
            Event::Incoming(Packet::Publish(publish)) => {
                let payload: Value = serde_json::from_slice(&publish.payload).unwrap_or_default();
                let id = payload["id"].as_str().unwrap_or_default().to_owned();
                arrived.messages.entry(id).or_insert((payload, 0)).1 += 1;
                let _ = client.try_ack(&publish);
            }
            Event::Incoming(Packet::SubAck(_)) => arrived.connections += 1,
            _ => {}
        }
    }

    async fn wait_for(
        &self,
        what: &str,
        mut is_so: impl FnMut(&Arrived) -> bool,
    ) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        while !is_so(&self.0.lock().unwrap()) {
            anyhow::ensure!(Instant::now() < until, "waited in vain for {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().messages.len()
    }

    fn connections(&self) -> usize {
        self.0.lock().unwrap().connections
    }
}

/// A box without models, which only cost time here.
fn box_without_models(more: &str) -> anyhow::Result<EdgeBox> {
    let mut edge_box = EdgeBox::new()?;
    edge_box.start_bus()?;
    edge_box.write_config(more)?;
    edge_box.edit_config(|text| {
        let lines = text.lines().filter(|line| !line.starts_with("runtime = "));
        let lines = lines.map(|line| match line.starts_with("model_dirs = ") {
            true => "model_dirs = []".to_owned(),
            false => line.to_owned(),
        });
        let text: Vec<String> = lines.collect();
        text.join("\n")
    })?;
    Ok(edge_box)
}

/// What the daemon had on disk when it was killed.
async fn on_disk(edge_box: &EdgeBox) -> anyhow::Result<Vec<(Lane, String)>> {
    let config = StoreConfig {
        state_directory: edge_box.path("state"),
        export: ExportPolicy::default(),
    };
    let store =
        tokio::task::spawn_blocking(move || Store::open(config, SystemTime::now())).await??;
    let ids = outbox::ids(&store.handle()).await?;
    tokio::task::spawn_blocking(move || store.shutdown()).await?;
    Ok(ids)
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_event_is_lost_and_none_doubled_over_kills_of_the_daemon_and_of_the_broker() {
    let kills = variable("AUTOGLM_KILLS").unwrap_or(12);
    let seed = variable("AUTOGLM_SEED").unwrap_or_else(rand::random);
    println!("seed {seed}, {kills} kills");
    if let Err(error) = survive(kills, seed).await {
        panic!("seed {seed}: {error:#}");
    }
}

async fn survive(kills: u64, seed: u64) -> anyhow::Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut edge_box = box_without_models("")?;
    let port = edge_box.broker_port();
    let files = tempfile::tempdir()?;
    let mut broker = Mosquitto::start(files.path(), port, DURABLE)?;
    let subscriber = Subscriber::start(port, "autoglm/test-box/event/#");
    subscriber
        .wait_for("the subscription", |arrived| arrived.connections > 0)
        .await?;
    edge_box.start_device("lamp", &["--tick-ms", "5"])?;
    edge_box.start_daemon()?;
    let (mut owed, mut daemon_kills, mut broker_kills) = (BTreeSet::new(), 0, 0);
    println!(
        "{:>4} {:<7} {:>8} {:>8} {:>9}",
        "kill", "whom", "after ms", "arrived", "on disk"
    );
    for kill in 1..=kills {
        // Each life is long enough for something to happen in it.
        let before = subscriber.count();
        subscriber
            .wait_for("more events", |arrived| arrived.messages.len() > before)
            .await?;
        let after = random.random_range(0..600);
        // The moment of the kill is the test's input, not a wait for something.
        tokio::time::sleep(Duration::from_millis(after)).await;
        let whom = if random.random::<bool>() {
            "daemon"
        } else {
            "broker"
        };
        let mut left = 0;
        if whom == "daemon" {
            edge_box.daemon()?.kill();
            daemon_kills += 1;
            let ids = on_disk(&edge_box).await?;
            left = ids.len();
            owed.extend(
                ids.into_iter()
                    .filter(|(lane, _)| *lane == Lane::Events)
                    .map(|(_, id)| id),
            );
            edge_box.start_daemon()?;
        } else {
            let connections = subscriber.connections();
            broker.kill();
            broker_kills += 1;
            // Something piles up meanwhile.
            tokio::time::sleep(Duration::from_millis(random.random_range(0..400))).await;
            broker.start_again()?;
            subscriber
                .wait_for("the subscriber's return", |arrived| {
                    arrived.connections > connections
                })
                .await?;
        }
        println!(
            "{kill:>4} {whom:<7} {after:>8} {:>8} {left:>9}",
            subscriber.count()
        );
    }
    // No new events; what waits gets through.
    edge_box.pull_device("lamp");
    edge_box
        .wait_for_status("an empty outbox", |status| {
            status["fleet"]["outbox"]["events"]["waiting"] == 0
                && status["fleet"]["state"] == "connected"
        })
        .await?;
    let arrived_all = |arrived: &Arrived| owed.iter().all(|id| arrived.messages.contains_key(id));
    let all = subscriber.wait_for("what was on disk", arrived_all).await;
    let arrived = subscriber.0.lock().unwrap();
    let lost: Vec<&String> = owed
        .iter()
        .filter(|id| !arrived.messages.contains_key(*id))
        .collect();
    let numbers: Vec<i64> = arrived
        .messages
        .values()
        .filter_map(|(payload, _)| payload["data"].as_i64())
        .collect();
    let distinct: HashSet<i64> = numbers.iter().copied().collect();
    let doubled = numbers.len() - distinct.len();
    let repeats: usize = arrived.messages.values().map(|(_, count)| count - 1).sum();
    let mut sorted: Vec<i64> = distinct.into_iter().collect();
    sorted.sort_unstable();
    let gaps: Vec<(i64, i64)> = sorted
        .windows(2)
        .filter(|pair| pair[1] != pair[0] + 1)
        .map(|pair| (pair[0], pair[1]))
        .collect();
    let under_way: i64 = gaps.iter().map(|(before, after)| after - before - 1).sum();
    println!(
        "events arrived {}, killed: daemon {daemon_kills}, broker {broker_kills}; on disk at a kill {}, of them lost {}; doubled by id {doubled}; \
         repeats recognised by id {repeats}; on the line at a kill of the daemon, and so never taken: {under_way} in {} gaps",
        numbers.len(),
        owed.len(),
        lost.len(),
        gaps.len()
    );
    all.with_context(|| format!("lost: {lost:?}"))?;
    anyhow::ensure!(doubled == 0, "{doubled} events came under two ids");
    anyhow::ensure!(
        gaps.len() <= daemon_kills,
        "events are missing elsewhere than where the daemon was killed: {gaps:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_outbox_refuses_events_drops_old_values_and_says_both() {
    let more = "[fleet.outbox]\nevents_max = 50\ntelemetry = \"every\"\ntelemetry_max = 16";
    let mut edge_box = box_without_models(more).unwrap();
    edge_box.start_device("lamp", &["--tick-ms", "2"]).unwrap();
    edge_box.start_daemon().unwrap();
    for level in 1..=40 {
        edge_box
            .wait_for_status("the lamp", |status| status["things"]["online"] == 1)
            .await
            .unwrap();
        edge_box
            .invoke(LAMP, "set_brightness", Some(&json!({"level": level})))
            .await
            .unwrap();
    }
    let status = edge_box
        .wait_for_status("a full outbox", |status| {
            let outbox = &status["fleet"]["outbox"];
            outbox["events"]["refused"].as_i64() > Some(0)
                && outbox["telemetry"]["dropped"].as_i64() > Some(0)
        })
        .await
        .unwrap();
    let outbox = &status["fleet"]["outbox"];
    assert_eq!(outbox["events"]["waiting"], 50, "{outbox}");
    assert_eq!(outbox["telemetry"]["waiting"], 16, "{outbox}");
    edge_box.pull_device("lamp");

    // The broker comes: the first fifty events arrive in their order, and the newest values.
    let files = tempfile::tempdir().unwrap();
    let port = edge_box.broker_port();
    let _broker = Mosquitto::start(files.path(), port, "allow_anonymous true").unwrap();
    let subscriber = Subscriber::start(port, "autoglm/test-box/#");
    edge_box
        .wait_for_status("an empty outbox", |status| {
            status["fleet"]["outbox"]["events"]["waiting"] == 0
        })
        .await
        .unwrap();
    // Events are not retained: they may have left before the subscription. Values are.
    let brightness = |arrived: &Arrived| {
        arrived
            .messages
            .values()
            .any(|(payload, _)| payload["property"] == "brightness" && payload["value"] == 40)
    };
    subscriber
        .wait_for("the newest brightness", brightness)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn results_wait_for_a_broker_that_went_away_and_survive_the_daemon() {
    let mut edge_box = box_without_models("").unwrap();
    let port = edge_box.broker_port();
    let files = tempfile::tempdir().unwrap();
    let mut broker = Mosquitto::start(files.path(), port, DURABLE).unwrap();
    edge_box
        .start_device("lamp", &["--delay-ms", "400"])
        .unwrap();
    edge_box.start_daemon().unwrap();
    edge_box
        .wait_for_status("lamp and broker", |status| {
            status["things"]["online"] == 1 && status["fleet"]["state"] == "connected"
        })
        .await
        .unwrap();
    let subscriber = Subscriber::start(port, "autoglm/test-box/result");
    subscriber
        .wait_for("the subscription", |arrived| arrived.connections > 0)
        .await
        .unwrap();
    let operator = Operator::connect(port, "test-box").await.unwrap();
    let command =
        json!({"id": "c-1", "thing": LAMP, "action": "set_brightness", "input": {"level": 40}});
    operator
        .publish_without_reply(command.to_string().as_bytes())
        .await
        .unwrap();
    // The broker goes while the device is at work.
    let until = Instant::now() + PATIENCE;
    while edge_box.device("lamp").unwrap()["working"].is_null() {
        assert!(Instant::now() < until, "the lamp never began");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    broker.kill();
    edge_box
        .wait_for_status("the result in the outbox", |status| {
            status["fleet"]["outbox"]["results"]["waiting"] == 1
        })
        .await
        .unwrap();
    edge_box.daemon().unwrap().kill();
    let stored = on_disk(&edge_box).await.unwrap();
    assert!(
        stored.contains(&(Lane::Results, "result:c-1".to_owned())),
        "{stored:?}"
    );
    broker.start_again().unwrap();
    edge_box.start_daemon().unwrap();
    subscriber
        .wait_for("the result", |arrived| arrived.messages.contains_key("c-1"))
        .await
        .unwrap();
    assert_eq!(
        subscriber.0.lock().unwrap().messages["c-1"].0["status"],
        "SUCCEEDED"
    );
    assert_eq!(edge_box.device("lamp").unwrap()["executed"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_forgot_everything_is_told_the_state_again() {
    let mut edge_box = box_without_models("").unwrap();
    let port = edge_box.broker_port();
    let files = tempfile::tempdir().unwrap();
    let mut broker = Mosquitto::start(files.path(), port, "allow_anonymous true").unwrap();
    edge_box.start_device("lamp", &[]).unwrap();
    edge_box.start_daemon().unwrap();
    edge_box
        .wait_for_status("a told state", |status| {
            let telemetry = &status["fleet"]["outbox"]["telemetry"];
            status["things"]["online"] == 1
                && telemetry["waiting"] == 0
                && telemetry["delivered"].as_i64() >= Some(3)
        })
        .await
        .unwrap();
    // Without persistence a restart forgets sessions and retained messages.
    broker.stop().unwrap();
    broker.start_again().unwrap();
    let subscriber = Subscriber::start(port, "autoglm/test-box/#");
    let is_told = |arrived: &Arrived| {
        let has = |key: &str, value: Value| {
            arrived
                .messages
                .values()
                .any(|(payload, _)| payload[key] == value)
        };
        has("property", json!("on"))
            && has("property", json!("brightness"))
            && has("state", json!("online"))
    };
    subscriber
        .wait_for("presence, values and what is online", is_told)
        .await
        .unwrap();
    // Commands arrive again, too.
    let mut operator = Operator::connect(port, "test-box").await.unwrap();
    let command = json!({"thing": LAMP, "action": "set_brightness", "input": {"level": 40}});
    let reply = operator
        .command("c-1", command.to_string().as_bytes())
        .await
        .unwrap();
    assert_eq!(reply["status"], "SUCCEEDED", "{reply}");
}
