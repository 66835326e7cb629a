//! The MQTT client of the drivers against a real mosquitto that comes and goes.

use std::time::Duration;

use autoglm_drivers::backoff::Backoff;
use autoglm_drivers::mqtt::{
    self, BrokerState, Client, ClientConfig, Incoming, Publication, PublishError, PublishOptions,
    Will,
};
use autoglm_tests::edge_box::{EdgeBox, PATIENCE};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const BACKOFF: Backoff = Backoff {
    min: Duration::from_millis(20),
    max: Duration::from_millis(200),
    healthy_after: Duration::from_secs(5),
};

struct Side {
    client: Client,
    incoming: mpsc::Receiver<Incoming>,
    cancel: CancellationToken,
    tasks: TaskTracker,
}

fn side(port: u16, name: &str, subscriptions: &[&str]) -> Side {
    let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
    let topic = format!("{name}/presence");
    let config = ClientConfig {
        broker: format!("mqtt://127.0.0.1:{port}").parse().unwrap(),
        client_id: name.to_owned(),
        subscriptions: subscriptions
            .iter()
            .map(|filter| (*filter).to_owned())
            .collect(),
        birth: Some(Publication {
            topic: topic.clone(),
            payload: b"online".to_vec(),
            retain: true,
            correlation: None,
        }),
        will: Some(Will {
            topic,
            payload: b"offline".to_vec(),
            delay: Duration::ZERO,
        }),
        session_expiry: Duration::from_secs(600),
        backoff: BACKOFF,
    };
    let (client, incoming) = mqtt::spawn(config, &tasks, cancel.clone());
    Side {
        client,
        incoming,
        cancel,
        tasks,
    }
}

async fn is_connected(side: &Side) {
    let mut state = side.client.state();
    tokio::time::timeout(
        PATIENCE,
        state.wait_for(|state| *state == BrokerState::Connected),
    )
    .await
    .unwrap()
    .unwrap();
}

async fn next(side: &mut Side) -> (String, String) {
    let incoming = tokio::time::timeout(PATIENCE, side.incoming.recv())
        .await
        .expect("a message")
        .expect("the client lives");
    let message = (
        incoming.topic().to_owned(),
        String::from_utf8_lossy(incoming.payload()).into_owned(),
    );
    incoming.acknowledge().await;
    message
}

fn numbered(number: u32) -> Publication {
    Publication {
        topic: "numbers".into(),
        payload: number.to_string().into_bytes(),
        ..Publication::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_arrives_though_the_broker_restarts_in_between() {
    let mut edge_box = EdgeBox::new().unwrap();
    edge_box.start_broker().unwrap();
    let port = edge_box.broker_port();
    let mut listener = side(port, "listener", &["numbers"]);
    let speaker = side(port, "speaker", &[]);
    is_connected(&listener).await;
    is_connected(&speaker).await;

    let client = speaker.client.clone();
    let publishing = tokio::spawn(async move {
        for number in 0..60 {
            // One after the other, so that the order at the listener is the order of the numbers.
            client.publish(numbered(number)).await.unwrap();
        }
    });
    let mut seen = Vec::new();
    while seen.len() < 15 {
        seen.push(next(&mut listener).await.1);
    }
    edge_box.stop_broker().unwrap();
    tokio::time::timeout(
        PATIENCE,
        listener
            .client
            .state()
            .wait_for(|state| matches!(state, BrokerState::Waiting { .. })),
    )
    .await
    .unwrap()
    .unwrap();
    edge_box.start_broker().unwrap();
    while seen.last().is_none_or(|last| last != "59") {
        let message = tokio::time::timeout(Duration::from_secs(15), listener.incoming.recv()).await;
        let Ok(message) = message else {
            panic!(
                "after {seen:?}: listener {:?}, speaker {:?}, published {}",
                *listener.client.state().borrow(),
                *speaker.client.state().borrow(),
                publishing.is_finished()
            )
        };
        let message = message.expect("the client lives");
        seen.push(String::from_utf8_lossy(message.payload()).into_owned());
        message.acknowledge().await;
    }
    publishing.await.unwrap();
    // QoS 1 may repeat what was under way at the cut, but loses nothing.
    seen.dedup();
    for number in 0..60 {
        assert!(
            seen.contains(&number.to_string()),
            "{number} is missing in {seen:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_is_online_while_connected_and_offline_after_a_sudden_end() {
    let mut edge_box = EdgeBox::new().unwrap();
    edge_box.start_broker().unwrap();
    let port = edge_box.broker_port();
    let mut watcher = side(port, "watcher", &["box/presence"]);
    is_connected(&watcher).await;
    // In a runtime of its own, so that it can end as a killed process does: without a goodbye.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let subject = runtime
        .spawn(async move { side(port, "box", &[]) })
        .await
        .unwrap();
    assert_eq!(
        next(&mut watcher).await,
        ("box/presence".into(), "online".into())
    );
    runtime.shutdown_background();
    assert_eq!(
        next(&mut watcher).await,
        ("box/presence".into(), "offline".into())
    );
    drop(subject);
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_is_offline_after_an_orderly_end_too() {
    let mut edge_box = EdgeBox::new().unwrap();
    edge_box.start_broker().unwrap();
    let port = edge_box.broker_port();
    let mut watcher = side(port, "watcher", &["box/presence"]);
    is_connected(&watcher).await;
    let subject = side(port, "box", &[]);
    assert_eq!(
        next(&mut watcher).await,
        ("box/presence".into(), "online".into())
    );
    // A clean disconnect: the broker forgets the last will, so it is said by ourselves.
    subject.cancel.cancel();
    assert_eq!(
        next(&mut watcher).await,
        ("box/presence".into(), "offline".into())
    );
    // Retained: whoever comes later hears it, too.
    let mut late = side(port, "late", &["box/presence"]);
    assert_eq!(next(&mut late).await.1, "offline");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unacknowledged_message_comes_again_and_an_acknowledged_one_does_not() {
    let mut edge_box = EdgeBox::new().unwrap();
    edge_box.start_broker().unwrap();
    let port = edge_box.broker_port();
    let mut first = side(port, "worker", &["numbers"]);
    let speaker = side(port, "speaker", &[]);
    is_connected(&first).await;
    for number in 1..=2 {
        speaker.client.publish(numbered(number)).await.unwrap();
    }
    assert_eq!(next(&mut first).await.1, "1");
    let dropped = tokio::time::timeout(PATIENCE, first.incoming.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(dropped.payload(), b"2");
    drop(dropped);
    first.cancel.cancel();
    first.tasks.close();
    tokio::time::timeout(PATIENCE, first.tasks.wait())
        .await
        .unwrap();

    let mut second = side(port, "worker", &["numbers"]);
    assert_eq!(next(&mut second).await.1, "2", "the broker kept it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_is_said_and_a_full_queue_refuses_at_once() {
    let edge_box = EdgeBox::new().unwrap();
    let speaker = side(edge_box.broker_port(), "speaker", &[]);
    let mut state = speaker.client.state();
    let waiting = tokio::time::timeout(
        PATIENCE,
        state.wait_for(|state| matches!(state, BrokerState::Waiting { .. })),
    )
    .await
    .unwrap()
    .unwrap();
    let BrokerState::Waiting { cause, .. } = &*waiting else {
        panic!()
    };
    assert!(cause.contains("refused"), "{cause}");
    drop(waiting);
    // Far more than the queue holds: those that fit wait for the broker, the others are refused at once.
    let (results, mut refused) = mpsc::unbounded_channel();
    for number in 0..1000 {
        let (client, results) = (speaker.client.clone(), results.clone());
        tokio::spawn(async move { results.send(client.publish(numbered(number)).await) });
    }
    let first = tokio::time::timeout(PATIENCE, refused.recv())
        .await
        .unwrap();
    assert_eq!(first, Some(Err(PublishError::Busy)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_time_is_over_does_not_leave_when_the_broker_returns() {
    let mut edge_box = EdgeBox::new().unwrap();
    edge_box.start_broker().unwrap();
    let port = edge_box.broker_port();
    let speaker = side(port, "speaker", &[]);
    is_connected(&speaker).await;
    edge_box.stop_broker().unwrap();
    let away = |state: &BrokerState| matches!(state, BrokerState::Waiting { .. });
    tokio::time::timeout(PATIENCE, speaker.client.state().wait_for(away))
        .await
        .unwrap()
        .unwrap();
    let client = speaker.client.clone();
    let until = std::time::Instant::now();
    let options = PublishOptions {
        expires: Some(until),
        ..PublishOptions::default()
    };
    let late = client.submit(numbered(1), options).unwrap();
    edge_box.start_broker().unwrap();
    let mut listener = side(port, "listener", &[]);
    is_connected(&listener).await;
    // Wanted only now, on a connection that is there already.
    listener.client.want(["numbers".to_owned()].into());
    assert_eq!(late.await, Err(PublishError::Expired));
    // What is still in time arrives, and nothing before it. It is sent until the new subscription has taken effect.
    let client = speaker.client.clone();
    let sending = tokio::spawn(async move {
        loop {
            client.publish(numbered(2)).await.unwrap();
        }
    });
    assert_eq!(next(&mut listener).await.1, "2");
    sending.abort();
}
