//! Two machines on a bad line: what is promised holds for every seed.

mod support;

use std::time::Duration;

use autoglm_protocol::{
    Config, Device, DeviceEvent, Host, HostEvent, LinkKind, Reply, Request, RequestId, Value,
};
use rand::Rng;
use support::{DESCRIPTION, Faults, Pair};

#[test]
fn a_good_line_connects_and_every_kind_of_request_is_answered() {
    for link in [
        LinkKind::Stream,
        LinkKind::Datagram { mtu: 20 },
        LinkKind::Datagram { mtu: 65_536 },
    ] {
        let mut pair = Pair::new(link, Faults::NONE, 1);
        pair.connect();
        let Some(HostEvent::Connected { peer }) = pair.host_events.first().cloned() else {
            panic!("first event is {:?}", pair.host_events.first())
        };
        assert_eq!((peer.boot_id, peer.version), (0xD0D0_0001, 1));

        let Ok(Reply::Description { hash, document }) = pair.ask(1, Request::Describe) else {
            panic!("no description")
        };
        assert_eq!(document, DESCRIPTION);
        assert_eq!(Some(hash), peer.description_hash);

        let read = pair.ask(
            2,
            Request::Read {
                property: "brightness".into(),
            },
        );
        assert_eq!(read, Ok(Reply::Value("value of brightness".into())));
        let write = pair.ask(
            3,
            Request::Write {
                property: "brightness".into(),
                value: Value::Int(40),
            },
        );
        assert_eq!(write, Ok(Reply::Done(Value::Null)));
        let input = Value::Map(vec![("level".into(), Value::Int(40))]);
        let invoke = pair.ask(
            4,
            Request::Invoke {
                action: "echo".into(),
                input: input.clone(),
            },
        );
        assert_eq!(invoke, Ok(Reply::Done(input)));
        assert_eq!(pair.executed.get(&RequestId(3)), Some(&1));
        assert_eq!(pair.executed.get(&RequestId(4)), Some(&1));
        pair.run_for(Duration::from_secs(100));
        assert!(
            pair.is_connected(),
            "an idle connection lives on: {:?}",
            pair.host_events
        );
    }
}

const BAD_STREAM: Faults = Faults {
    loss: 0.1,
    duplication: 0.05,
    corruption: 0.1,
    delay: Duration::from_millis(8),
    jitter: Duration::ZERO,
    bytes_per_second: Some(11_520),
};

const BAD_DATAGRAMS: Faults = Faults {
    loss: 0.15,
    duplication: 0.1,
    corruption: 0.0,
    delay: Duration::from_millis(10),
    jitter: Duration::from_millis(60),
    bytes_per_second: None,
};

/// Requests one way, events the other, a description in bulk, all at once; everything arrives once and in order.
#[track_caller]
fn check_delivery(link: LinkKind, faults: Faults, seed: u64) {
    const EVENTS: usize = 40;
    const REQUESTS: u64 = 20;
    let document = vec![b'x'; 3_000];
    let host = Host::new(Config::default(), link, 7, 1);
    let device = Device::new(Config::default(), link, 9, 1, &document);
    let mut pair = Pair::with_machines(host, device, link, faults, seed);
    println!("seed {seed} on {link:?}");
    pair.connect();

    let deadline = Duration::from_secs(600);
    pair.host
        .request(pair.now, RequestId(1000), Request::Describe, deadline)
        .expect("taken");
    for id in 0..REQUESTS {
        let text = "i".repeat(pair.rng.random_range(0..200));
        let request = Request::Invoke {
            action: "echo".into(),
            input: Value::Text(format!("{id} {text}")),
        };
        pair.host
            .request(pair.now, RequestId(id), request, deadline)
            .expect("taken");
    }
    for number in 0..EVENTS {
        let text = "e".repeat(pair.rng.random_range(0..300));
        let data = Value::Array(vec![Value::Int(number as i64), Value::Text(text)]);
        pair.device
            .event(pair.now, "numbered", data)
            .expect("there is room");
    }
    let events = |pair: &Pair| -> Vec<i64> {
        let number = |event: &HostEvent| match event {
            HostEvent::Event {
                data: Value::Array(items),
                ..
            } => match items[0] {
                Value::Int(number) => Some(number),
                _ => None,
            },
            _ => None,
        };
        pair.host_events.iter().filter_map(number).collect()
    };
    pair.run_until(
        &format!("seed {seed}: everything arrives"),
        Duration::from_secs(300),
        |pair| {
            let replies = pair
                .host_events
                .iter()
                .filter(|event| matches!(event, HostEvent::Reply { .. }));
            replies.count() as u64 > REQUESTS && events(pair).len() >= EVENTS
        },
    );
    // Late copies must change nothing.
    pair.run_for(Duration::from_secs(5));
    assert_eq!(
        events(&pair),
        (0..EVENTS as i64).collect::<Vec<_>>(),
        "seed {seed}: events once and in order"
    );
    for id in 0..REQUESTS {
        let Some(Ok(Reply::Done(Value::Text(text)))) = pair.reply(RequestId(id)) else {
            panic!(
                "seed {seed}: request {id} ended as {:?}",
                pair.reply(RequestId(id))
            )
        };
        assert!(
            text.starts_with(&format!("{id} ")),
            "seed {seed}: request {id} got the answer {text}"
        );
        assert_eq!(
            pair.executed.get(&RequestId(id)),
            Some(&1),
            "seed {seed}: executions of {id}"
        );
    }
    let order = pair.device_events.iter().filter_map(|event| match event {
        DeviceEvent::Invoke { id, .. } => Some(id.0),
        _ => None,
    });
    assert_eq!(
        order.collect::<Vec<_>>(),
        (0..REQUESTS).collect::<Vec<_>>(),
        "seed {seed}: requests in order"
    );
    let Some(Ok(Reply::Description { document: seen, .. })) = pair.reply(RequestId(1000)) else {
        panic!(
            "seed {seed}: description ended as {:?}",
            pair.reply(RequestId(1000))
        )
    };
    assert_eq!(seen, document, "seed {seed}");
    assert_eq!(
        pair.host.stats().connections,
        1,
        "seed {seed}: the connection held"
    );
}

#[test]
fn a_bad_serial_line_delivers_once_and_in_order() {
    for seed in 0..150 {
        check_delivery(LinkKind::Stream, BAD_STREAM, seed);
    }
}

#[test]
fn bad_datagrams_of_20_bytes_deliver_once_and_in_order() {
    for seed in 0..100 {
        check_delivery(LinkKind::Datagram { mtu: 20 }, BAD_DATAGRAMS, seed);
    }
}

#[test]
fn bad_datagrams_of_64_kib_deliver_once_and_in_order() {
    for seed in 0..100 {
        check_delivery(LinkKind::Datagram { mtu: 65_536 }, BAD_DATAGRAMS, seed);
    }
}
