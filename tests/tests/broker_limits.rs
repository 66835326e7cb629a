//! What a broker may ask of us: smaller windows and packets, silence, refusals. A real mosquitto, but for the refusals that it cannot
//! be made to give: those come from a stand-in that answers CONNECT with one reason code.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use autoglm_drivers::backoff::Backoff;
use autoglm_drivers::mqtt::{
    self, Access, Broker, BrokerState, Client, ClientConfig, Incoming, Publication, PublishError,
    PublishOptions, Transport,
};
use autoglm_tests::edge_box::PATIENCE;
use autoglm_tests::mosquitto::Mosquitto;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

const BACKOFF: Backoff = Backoff {
    min: Duration::from_millis(20),
    max: Duration::from_millis(200),
    healthy_after: Duration::from_secs(5),
};

struct Side {
    client: Client,
    incoming: mpsc::Receiver<Incoming>,
    _ends: DropGuard,
}

fn side(port: u16, name: &str, subscriptions: &[&str], backoff: Backoff) -> Side {
    let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
    let config = ClientConfig {
        broker: Broker {
            host: "127.0.0.1".to_owned(),
            port,
            access: Box::new(Access {
                transport: Transport::Clear,
                login: None,
                keep_alive: Duration::from_secs(5),
            }),
        },
        client_id: name.to_owned(),
        subscriptions: subscriptions
            .iter()
            .map(|filter| (*filter).to_owned())
            .collect(),
        birth: None,
        will: None,
        session_expiry: Duration::from_secs(600),
        backoff,
    };
    let (client, incoming) = mqtt::spawn(config, &tasks, cancel.clone());
    Side {
        client,
        incoming,
        _ends: cancel.drop_guard(),
    }
}

async fn reaches(side: &Side, what: &str, is_so: impl FnMut(&BrokerState) -> bool) -> BrokerState {
    let mut state = side.client.state();
    let reached = tokio::time::timeout(PATIENCE, state.wait_for(is_so)).await;
    match reached {
        Ok(state) => state.unwrap().clone(),
        Err(_) => panic!("{what}: {:?}", *side.client.state().borrow()),
    }
}

async fn connected(side: &Side) {
    reaches(side, "connected", |state| *state == BrokerState::Connected).await;
}

async fn cause(side: &Side) -> String {
    let is_waiting = |state: &BrokerState| matches!(state, BrokerState::Waiting { .. });
    match reaches(side, "waiting", is_waiting).await {
        BrokerState::Waiting { cause, .. } => cause,
        _ => unreachable!("it waited for that"),
    }
}

fn text(topic: &str, payload: &str) -> Publication {
    Publication {
        topic: topic.to_owned(),
        payload: payload.as_bytes().to_vec(),
        ..Publication::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receive_maximum_of_one_is_kept_and_the_order_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let port = Mosquitto::free_port().unwrap();
    let lines = "allow_anonymous true\nmax_inflight_messages 1";
    let broker = Mosquitto::start(directory.path(), port, lines).unwrap();
    let mut listener = side(port, "listener", &["numbers"], BACKOFF);
    let speaker = side(port, "speaker", &[], BACKOFF);
    connected(&listener).await;
    connected(&speaker).await;
    let receipts: Vec<_> = (0..50)
        .map(|number| {
            let publication = text("numbers", &number.to_string());
            speaker
                .client
                .submit(publication, PublishOptions::default())
                .unwrap()
        })
        .collect();
    for number in 0..50 {
        let incoming = tokio::time::timeout(PATIENCE, listener.incoming.recv()).await;
        let incoming = incoming.unwrap().unwrap();
        assert_eq!(incoming.payload(), number.to_string().as_bytes());
        incoming.acknowledge().await;
    }
    for receipt in receipts {
        receipt.await.unwrap();
    }
    // It would have ended the connection of a client that sends more at a time (MQTT 5 §3.3.4, reason 0x93).
    assert!(
        !broker.log().contains("receive maximum"),
        "{}",
        broker.log()
    );
    assert_eq!(
        *speaker.client.fresh_sessions().borrow(),
        1,
        "one connection did it all"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_the_brokers_packet_size_is_refused_and_holds_up_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let port = Mosquitto::free_port().unwrap();
    let lines = "allow_anonymous true\nmax_packet_size 1000";
    let _broker = Mosquitto::start(directory.path(), port, lines).unwrap();
    let speaker = side(port, "speaker", &[], BACKOFF);
    connected(&speaker).await;
    let refused = speaker.client.publish(text("t", &"x".repeat(2_000))).await;
    assert!(
        matches!(refused, Err(PublishError::TooLarge { limit: 1000, .. })),
        "{refused:?}"
    );
    speaker.client.publish(text("t", "small")).await.unwrap();
    let refused = speaker.client.publish(text("a/#", "x")).await;
    assert_eq!(refused, Err(PublishError::InvalidTopic));
    assert_eq!(
        *speaker.client.fresh_sessions().borrow(),
        1,
        "one connection did it all"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_not_authorised_is_refused_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let port = Mosquitto::free_port().unwrap();
    let rights = directory.path().join("rights");
    std::fs::write(&rights, "topic readwrite allowed/#\n").unwrap();
    let lines = format!("allow_anonymous true\nacl_file {}", rights.display());
    let _broker = Mosquitto::start(directory.path(), port, &lines).unwrap();
    let speaker = side(port, "speaker", &[], BACKOFF);
    connected(&speaker).await;
    let refused = speaker.client.publish(text("forbidden", "x")).await;
    assert_eq!(refused, Err(PublishError::Refused("not authorised")));
    speaker
        .client
        .publish(text("allowed/t", "x"))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_without_qos_1_or_retained_messages_is_none_for_us() {
    for (line, what) in [
        ("max_qos 0", "QoS 1"),
        ("retain_available false", "retained"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let port = Mosquitto::free_port().unwrap();
        let lines = format!("{line}\nallow_anonymous true");
        let broker = Mosquitto::start(directory.path(), port, &lines).unwrap();
        let speaker = side(port, "speaker", &[], BACKOFF);
        let cause = cause(&speaker).await;
        assert!(cause.contains(what), "{line}: {cause}\n{}", broker.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_message_is_not_sent_and_a_live_one_carries_what_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let port = Mosquitto::free_port().unwrap();
    let _broker = Mosquitto::start(directory.path(), port, "allow_anonymous true").unwrap();
    let mut listener = side(port, "listener", &["t"], BACKOFF);
    let speaker = side(port, "speaker", &[], BACKOFF);
    connected(&listener).await;
    connected(&speaker).await;
    let submit = |payload: &str, expires: Instant| {
        let options = PublishOptions {
            expires: Some(expires),
            properties: vec![("message-id".to_owned(), payload.to_owned())],
        };
        speaker.client.submit(text("t", payload), options).unwrap()
    };
    let now = Instant::now();
    assert_eq!(submit("late", now).await, Err(PublishError::Expired));
    submit("in time", now + Duration::from_secs(100))
        .await
        .unwrap();
    let incoming = tokio::time::timeout(PATIENCE, listener.incoming.recv()).await;
    let incoming = incoming.unwrap().unwrap();
    assert_eq!(incoming.payload(), b"in time");
    let left = incoming.expires_in().unwrap();
    assert!((40..=100).contains(&left.as_secs()), "{left:?}");
    assert_eq!(
        incoming.properties(),
        [("message-id".to_owned(), "in time".to_owned())]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_connection_is_noticed_and_what_was_under_way_arrives_afterwards() {
    let directory = tempfile::tempdir().unwrap();
    let port = Mosquitto::free_port().unwrap();
    let broker = Mosquitto::start(directory.path(), port, "allow_anonymous true").unwrap();
    let speaker = side(port, "speaker", &[], BACKOFF);
    connected(&speaker).await;
    broker.freeze().unwrap();
    let frozen = Instant::now();
    let receipt = speaker
        .client
        .submit(text("t", "x"), PublishOptions::default())
        .unwrap();
    let cause = cause(&speaker).await;
    // The keep-alive is 5 s; shown, not judged, since the machine may be busy.
    println!(
        "noticed after {:.1} s: {cause}",
        frozen.elapsed().as_secs_f64()
    );
    assert!(cause.contains("keep-alive"), "{cause}");
    broker.thaw().unwrap();
    tokio::time::timeout(PATIENCE, receipt)
        .await
        .unwrap()
        .unwrap();
}

/// Answers each CONNECT with a reason code and closes; counts them. Stands in for brokers that refuse in ways in which mosquitto does not.
fn refusing_broker(code: u8) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            counted.fetch_add(1, Ordering::SeqCst);
            let mut connect = [0; 1024];
            let _ = stream.read(&mut connect);
            // CONNACK: no session, the code, no properties.
            let _ = stream.write_all(&[0x20, 3, 0, code, 0]);
        }
    });
    (port, count)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_is_named_with_its_remedy_and_rests_long_at_once() {
    // A minute at most: a client that rests as for a broker that is away would come back after 20 ms.
    let patient = Backoff {
        max: Duration::from_secs(60),
        ..BACKOFF
    };
    for (code, words) in [
        (0x86, "password"),
        (0x87, "authorised"),
        (0x85, "client id"),
        (0x89, "busy"),
        (0x97, "quota"),
        (0x9C, "another"),
        (0x9F, "no more connections"),
    ] {
        let (port, count) = refusing_broker(code);
        let refused = side(port, "box", &[], patient);
        let cause = cause(&refused).await;
        assert!(cause.contains(words), "{code:#x}: {cause}");
        // Time enough for fifty tries of the usual kind; the moment is the test's input.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(count.load(Ordering::SeqCst), 1, "{code:#x}");
    }
}
