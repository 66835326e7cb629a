//! A connection that is interrupted goes on, on the same link or another, with nothing lost and nothing doubled.

mod support;

use std::time::Duration;

use autoglm_protocol::{
    Config, Device, DeviceEvent, Host, HostEvent, LinkKind, LostReason, Reply, Request, RequestId,
    SecretKey, Security, Standing, Value,
};
use rand::Rng;
use support::{DESCRIPTION, Faults, Pair};

const LINKS: [LinkKind; 4] = [
    LinkKind::Stream,
    LinkKind::Datagram { mtu: 20 },
    LinkKind::Datagram { mtu: 244 },
    LinkKind::Datagram { mtu: 65_536 },
];

const FAR: Duration = Duration::from_secs(1_000);

fn pair(window: Duration, is_secure: bool, faults: Faults, seed: u64) -> Pair {
    let config = Config {
        resume_window: window,
        ..Config::default()
    };
    let security = |seed| match is_secure {
        false => Security::None,
        true => Security::Psk {
            key: SecretKey::new([1; 32]),
            seed: SecretKey::new([seed; 32]),
        },
    };
    let link = LinkKind::Stream;
    let host = Host::with_security(config.clone(), link, 7, 1, security(1));
    let device = Device::with_security(config, link, 9, 1, DESCRIPTION, security(2));
    Pair::with_machines(host, device, link, faults, seed)
}

fn losses(pair: &Pair) -> (Vec<LostReason>, Vec<LostReason>) {
    let host = pair.host_events.iter().filter_map(|event| match event {
        HostEvent::Lost { reason } => Some(*reason),
        _ => None,
    });
    let device = pair.device_events.iter().filter_map(|event| match event {
        DeviceEvent::Lost { reason } => Some(*reason),
        _ => None,
    });
    (host.collect(), device.collect())
}

/// Everything on the line is gone, and both ends find themselves on another one.
fn move_to(pair: &mut Pair, link: LinkKind) {
    pair.cut();
    pair.link = link;
    pair.host.change_link(pair.now, link);
    pair.device.change_link(pair.now, link);
}

#[track_caller]
fn check_moves(is_secure: bool, seed: u64) {
    const REQUESTS: u64 = 40;
    const EVENTS: i64 = 60;
    let faults = Faults {
        loss: 0.1,
        duplication: 0.05,
        jitter: Duration::from_millis(20),
        bytes_per_second: Some(11_520),
        ..Faults::NONE
    };
    println!("seed {seed}");
    let mut pair = pair(Duration::from_secs(300), is_secure, faults, seed);
    pair.connect();
    let (mut asked, mut raised) = (0, 0);
    for round in 0..12 {
        while asked < REQUESTS * (round + 1) / 12 {
            let text = format!("{asked} {}", "i".repeat(pair.rng.random_range(0..900)));
            let input = Value::Text(text);
            let action = "echo".into();
            let request = Request::Invoke { action, input };
            // Taken on a connection that is interrupted at the moment, too.
            pair.host
                .request(pair.now, RequestId(asked), request, FAR)
                .expect("taken");
            asked += 1;
        }
        while raised < EVENTS * (round as i64 + 1) / 12 {
            let text = Value::Text("e".repeat(pair.rng.random_range(0..900)));
            let data = Value::Array(vec![Value::Int(raised), text]);
            pair.device
                .event(pair.now, "numbered", data)
                .expect("there is room");
            raised += 1;
        }
        let pause = Duration::from_millis(pair.rng.random_range(0..800));
        pair.run_for(pause);
        let link = LINKS[pair.rng.random_range(0..LINKS.len())];
        move_to(&mut pair, link);
    }
    let numbers = |pair: &Pair| -> Vec<i64> {
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
    let replies = |pair: &Pair| {
        let is_good = |event: &&HostEvent| {
            matches!(
                event,
                HostEvent::Reply {
                    result: Ok(Reply::Done(_)),
                    ..
                }
            )
        };
        pair.host_events.iter().filter(is_good).count() as u64
    };
    pair.run_until("everything arrives", Duration::from_secs(250), |pair| {
        replies(pair) >= REQUESTS && numbers(pair).len() as i64 >= EVENTS
    });
    pair.run_for(Duration::from_secs(5));
    assert_eq!(losses(&pair), (vec![], vec![]), "seed {seed}");
    assert_eq!(replies(&pair), REQUESTS, "seed {seed}");
    assert_eq!(
        numbers(&pair),
        (0..EVENTS).collect::<Vec<_>>(),
        "seed {seed}"
    );
    assert!(
        pair.executed.len() as u64 == REQUESTS && pair.executed.values().all(|count| *count == 1),
        "seed {seed}: {:?}",
        pair.executed
    );
    let stats = pair.host.stats();
    assert_eq!(stats.connections, 1, "seed {seed}");
    assert!(stats.resumptions > 0, "seed {seed}");
}

#[test]
fn moving_from_link_to_link_loses_and_doubles_nothing() {
    for seed in 0..60 {
        check_moves(false, seed);
    }
}

#[test]
fn moving_from_link_to_link_under_a_key_loses_and_doubles_nothing() {
    for seed in 0..20 {
        check_moves(true, seed);
    }
}

#[test]
fn a_link_that_falls_silent_and_returns_goes_on() {
    for is_secure in [false, true] {
        let mut pair = pair(Duration::from_secs(300), is_secure, Faults::NONE, 1);
        pair.connect();
        pair.faults.loss = 1.0;
        let read = Request::Read {
            property: "level".into(),
        };
        pair.host
            .request(pair.now, RequestId(1), read, FAR)
            .expect("taken");
        pair.run_for(Duration::from_secs(100));
        pair.faults.loss = 0.0;
        pair.run_until("the answer", Duration::from_secs(20), |pair| {
            pair.reply(RequestId(1)).is_some()
        });
        assert_eq!(losses(&pair), (vec![], vec![]));
        assert!(matches!(pair.reply(RequestId(1)), Some(Ok(_))));
    }
}

#[test]
fn what_is_not_resumed_in_time_is_lost_for_the_first_reason() {
    let mut pair = pair(Duration::from_secs(20), false, Faults::NONE, 1);
    pair.connect();
    pair.faults.loss = 1.0;
    pair.run_for(Duration::from_secs(100));
    let silent = vec![LostReason::Silent];
    assert_eq!(losses(&pair), (silent.clone(), silent));
    pair.faults.loss = 0.0;
    pair.run_for(Duration::from_secs(10));
    assert!(pair.is_connected(), "and found anew");
    assert_eq!(pair.host.stats().resumptions, 0);
}

#[test]
fn a_device_that_began_anew_is_not_resumed() {
    let mut pair = pair(Duration::from_secs(300), false, Faults::NONE, 1);
    pair.connect();
    let config = Config {
        resume_window: Duration::from_secs(300),
        ..Config::default()
    };
    pair.device = Device::new(config, LinkKind::Stream, 10, 1, DESCRIPTION);
    pair.run_for(Duration::from_secs(5));
    let reason = LostReason::PeerRestarted;
    assert_eq!(losses(&pair).0, [reason]);
    assert!(pair.is_connected());
}

#[test]
fn one_end_alone_resumes_nothing() {
    let mut pair = pair(Duration::ZERO, false, Faults::NONE, 1);
    let config = Config {
        resume_window: Duration::from_secs(300),
        ..Config::default()
    };
    pair.device = Device::new(config, LinkKind::Stream, 10, 1, DESCRIPTION);
    pair.connect();
    move_to(&mut pair, LinkKind::Datagram { mtu: 20 });
    pair.run_for(Duration::from_secs(5));
    let reason = LostReason::LinkChanged;
    assert_eq!(losses(&pair), (vec![reason], vec![reason]));
    assert!(pair.is_connected());
}

/// A packet that overtakes the Hello which makes its connection known is lost; it must not cost the second that is waited where
/// nothing is known of the round trip, or links that live shorter than that never carry a message.
#[test]
fn a_link_of_half_a_second_is_enough_where_packets_overtake_hellos() {
    const LIFE: Duration = Duration::from_millis(500);
    let faults = Faults {
        jitter: Duration::from_millis(30),
        ..Faults::NONE
    };
    for seed in 0..500 {
        let mut pair = pair(Duration::from_secs(60), false, faults, seed);
        pair.connect();
        move_to(&mut pair, LinkKind::Datagram { mtu: 244 });
        pair.run_for(LIFE);
        let standing = pair.host.standing();
        assert_eq!(standing, Standing::Connected, "seed {seed}");
    }
}
