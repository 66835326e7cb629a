//! How connections begin, end and begin again.

mod support;

use std::time::Duration;

use autoglm_protocol::wire::{
    Close, CloseReason, Hello, Identity, Kind, Role, Token, VersionRange,
};
use autoglm_protocol::{
    Config, DeliveryState, Device, DeviceEvent, Host, HostEvent, Instant, LinkKind, LostReason,
    Reply, Request, RequestError, RequestFailure, RequestId, Value,
};
use support::{DESCRIPTION, End, Faults, Pair};

const DATAGRAM: LinkKind = LinkKind::Datagram { mtu: 244 };
const LINKS: [LinkKind; 2] = [LinkKind::Stream, DATAGRAM];

fn count(pair: &Pair, is_wanted: impl Fn(&HostEvent) -> bool) -> usize {
    pair.host_events
        .iter()
        .filter(|event| is_wanted(event))
        .count()
}

fn is_connected_event(event: &HostEvent) -> bool {
    matches!(event, HostEvent::Connected { .. })
}

#[test]
fn a_rebooted_device_is_connected_again_within_two_round_trips() {
    for link in LINKS {
        let mut pair = Pair::new(link, Faults::NONE, 3);
        pair.connect();
        pair.device = Device::new(Config::default(), link, 0xD0D0_0002, 1, DESCRIPTION);
        let rebooted_at = pair.now;
        pair.run_until("reconnect", Duration::from_secs(5), |pair| {
            count(pair, is_connected_event) == 2
        });
        assert!(
            pair.now - rebooted_at <= Duration::from_millis(25),
            "took {:?}",
            pair.now - rebooted_at
        );
        assert_eq!(
            count(&pair, |event| *event
                == HostEvent::Lost {
                    reason: LostReason::PeerRestarted
                }),
            1
        );
        let read = pair.ask(
            1,
            Request::Read {
                property: "p".into(),
            },
        );
        assert_eq!(read, Ok(Reply::Value("value of p".into())));
    }
}

#[test]
fn a_restarted_host_is_connected_again_at_once() {
    for link in LINKS {
        let mut pair = Pair::new(link, Faults::NONE, 3);
        pair.connect();
        pair.host = Host::new(Config::default(), link, 0xA0A0_0001, 2);
        pair.run_until("reconnect", Duration::from_secs(1), |pair| {
            count(pair, is_connected_event) == 2
        });
        let lost = DeviceEvent::Lost {
            reason: LostReason::PeerRestarted,
        };
        assert_eq!(
            pair.device_events
                .iter()
                .filter(|event| **event == lost)
                .count(),
            1
        );
    }
}

#[test]
fn packets_of_an_earlier_connection_are_counted_and_change_nothing() {
    for link in LINKS {
        let mut pair = Pair::new(link, Faults::NONE, 3);
        pair.connect();
        pair.device
            .event(pair.now, "old", Value::Null)
            .expect("room");
        pair.run_for(Duration::from_secs(1));
        let old: Vec<_> = pair.sent.clone();
        pair.device = Device::new(Config::default(), link, 0xD0D0_0002, 1, DESCRIPTION);
        pair.run_until("reconnect", Duration::from_secs(5), |pair| {
            count(pair, is_connected_event) == 2
        });
        let events = pair.host_events.len();
        let stale = pair.host.stats().stale;
        let mut replayed = 0;
        for (from, frame) in old {
            if from == End::Device {
                replayed += 1;
                pair.host.handle_input(pair.now, &frame);
            }
        }
        pair.run_for(Duration::from_secs(60));
        assert_eq!(
            pair.host_events.len(),
            events,
            "new events: {:?}",
            &pair.host_events[events..]
        );
        assert_eq!(pair.host.stats().stale - stale, replayed);
    }
}

#[test]
fn a_silent_peer_is_lost_after_three_keep_alive_intervals() {
    let mut pair = Pair::new(LinkKind::Stream, Faults::NONE, 3);
    pair.connect();
    pair.run_for(Duration::from_secs(1));
    pair.faults.loss = 1.0;
    pair.cut();
    let silent_since = pair.now;
    let lost = HostEvent::Lost {
        reason: LostReason::Silent,
    };
    pair.run_until("lost", Duration::from_secs(60), |pair| {
        pair.host_events.contains(&lost)
    });
    let silence = pair.now - silent_since;
    assert!(
        (Duration::from_secs(28)..=Duration::from_secs(30)).contains(&silence),
        "lost after {silence:?}"
    );
    pair.faults.loss = 0.0;
    pair.run_until("back", Duration::from_secs(10), |pair| {
        count(pair, is_connected_event) == 2
    });
    let Some(HostEvent::Connected { peer }) = pair.host_events.last() else {
        panic!("last event is {:?}", pair.host_events.last())
    };
    assert_eq!(
        peer.epoch, 2,
        "the device gave up too, and began a new epoch"
    );
}

#[test]
fn a_lost_connection_tells_how_far_each_request_got() {
    let mut pair = Pair::new(DATAGRAM, Faults::NONE, 3);
    pair.answers = false;
    pair.connect();
    let invoke = || Request::Invoke {
        action: "echo".into(),
        input: Value::Null,
    };
    let deadline = Duration::from_secs(600);
    pair.host
        .request(pair.now, RequestId(1), invoke(), deadline)
        .expect("taken");
    pair.run_until("accepted", Duration::from_secs(1), |pair| {
        pair.host_events
            .contains(&HostEvent::Accepted { id: RequestId(1) })
    });
    pair.faults.loss = 1.0;
    pair.host
        .request(pair.now, RequestId(2), invoke(), deadline)
        .expect("taken");
    pair.drain();
    pair.host
        .request(pair.now, RequestId(3), invoke(), deadline)
        .expect("taken");
    pair.host.close(pair.now);
    pair.drain();
    for (id, delivered) in [
        (1, DeliveryState::Delivered),
        (2, DeliveryState::Sent),
        (3, DeliveryState::NotSent),
    ] {
        let failure = RequestFailure::ConnectionLost { delivered };
        assert_eq!(
            pair.reply(RequestId(id)),
            Some(Err(failure)),
            "request {id}"
        );
    }
    let refused = pair
        .host
        .request(pair.now, RequestId(4), invoke(), deadline);
    assert_eq!(refused, Err(RequestError::NotConnected));
}

#[test]
fn close_is_told_to_the_peer_and_ends_the_machine() {
    let mut pair = Pair::new(LinkKind::Stream, Faults::NONE, 3);
    pair.connect();
    pair.host.close(pair.now);
    pair.run_for(Duration::from_secs(20));
    let lost = DeviceEvent::Lost {
        reason: LostReason::ClosedByPeer(CloseReason::Goodbye),
    };
    assert!(
        pair.device_events.contains(&lost),
        "{:?}",
        pair.device_events
    );
    assert_eq!(
        pair.host_events.last(),
        Some(&HostEvent::Lost {
            reason: LostReason::ClosedHere
        })
    );
    assert_eq!(pair.host.poll_timeout(), None);
    assert_eq!(pair.host.stats().connections, 1);
}

#[test]
fn an_unknown_version_is_told_once_and_answered_by_a_close_that_names_ours() {
    let mut host = Host::new(Config::default(), DATAGRAM, 1, 1);
    let mut now = Instant::ZERO;
    let theirs = VersionRange { min: 2, max: 3 };
    let hello = Hello {
        role: Role::Device,
        established: false,
        resume: false,
        reliable: false,
        versions: theirs,
        features: 0xff,
        identity: Identity {
            boot_id: 5,
            epoch: 5,
        },
        mtu: 20,
        window: 4,
        max_message_log2: 8,
        heard: Token::NOBODY,
    };
    let mut bytes = Vec::new();
    hello.encode(&mut bytes);
    // A later version may append fields.
    bytes.extend_from_slice(b"later");
    let mut closes = Vec::new();
    for _ in 0..3 {
        host.handle_input(now, &bytes);
        let mut packet = Vec::new();
        while host.poll_transmit(now, &mut packet) {
            if Kind::of(&packet) == Ok(Kind::Close) {
                closes.push(Close::decode(&packet).expect("our own packet"));
            }
            packet.clear();
        }
        now = now + Duration::from_secs(1);
    }
    let events: Vec<_> = std::iter::from_fn(|| host.poll_event()).collect();
    assert_eq!(events, [HostEvent::IncompatibleVersion { theirs }]);
    let expected = Close {
        reason: CloseReason::IncompatibleVersion,
        versions: VersionRange::OURS,
        from: Identity {
            boot_id: 1,
            epoch: 1,
        }
        .token(),
        to: hello.identity.token(),
    };
    assert_eq!(closes, [expected; 3]);

    // The other end learns it from the Close alone.
    let mut device = Device::new(Config::default(), DATAGRAM, 5, 5, b"{}");
    let theirs = VersionRange { min: 4, max: 4 };
    let mut bytes = Vec::new();
    Close {
        versions: theirs,
        ..expected
    }
    .encode(&mut bytes);
    device.handle_input(now, &bytes);
    device.handle_input(now, &bytes);
    let events: Vec<_> = std::iter::from_fn(|| device.poll_event()).collect();
    assert_eq!(events, [DeviceEvent::IncompatibleVersion { theirs }]);
}

#[test]
fn an_echoing_line_is_counted_and_never_connects() {
    let mut host = Host::new(Config::default(), LinkKind::Stream, 1, 1);
    let mut now = Instant::ZERO;
    for _ in 0..100 {
        let mut bytes = Vec::new();
        while host.poll_transmit(now, &mut bytes) {}
        host.handle_input(now, &bytes);
        now = host.poll_timeout().expect("it goes on seeking");
        host.handle_timeout(now);
    }
    assert_eq!(host.poll_event(), None);
    assert_eq!(host.stats().own_role, 100);
}

#[test]
fn a_driver_that_fetches_no_events_pauses_the_peer_and_loses_nothing() {
    let config = Config {
        receive_backlog_bytes: 4 * 1024,
        ..Config::default()
    };
    let link = LinkKind::Datagram { mtu: 128 };
    let mut pair = Pair::with_config(link, Faults::NONE, 3, config);
    pair.connect();
    pair.run_for(Duration::from_secs(1));
    let mut numbers = 0..200i64;
    let mut next = numbers.next();
    let (mut host_out, mut device_out) = (Vec::new(), Vec::new());
    // The host's events are left where they are for three minutes.
    for _ in 0..180_000 {
        while let Some(number) = next {
            if pair
                .device
                .event(pair.now, "n", Value::Int(number))
                .is_err()
            {
                break;
            }
            next = numbers.next();
        }
        while pair.device.poll_transmit(pair.now, &mut device_out) {
            pair.host.handle_input(pair.now, &device_out);
            device_out.clear();
        }
        while pair.host.poll_transmit(pair.now, &mut host_out) {
            pair.device.handle_input(pair.now, &host_out);
            host_out.clear();
        }
        pair.now = pair.now + Duration::from_millis(1);
        pair.host.handle_timeout(pair.now);
        pair.device.handle_timeout(pair.now);
    }
    let seen_before = pair.host.stats().messages_received;
    assert!(
        seen_before < 150,
        "the peer was asked to pause, yet {seen_before} messages came"
    );
    // Every 8 s, the greatest RTO; keep-alive alone would ask 18 times.
    let asked = pair.device.stats().pings_sent;
    assert!(
        asked > 20,
        "a paused peer asks from time to time, not {asked} times"
    );
    pair.run_until("all events", Duration::from_secs(60), |pair| {
        count(pair, |event| matches!(event, HostEvent::Event { .. })) == 200
    });
    let expected: Vec<_> = (0..200)
        .map(|n| HostEvent::Event {
            name: "n".into(),
            data: Value::Int(n),
        })
        .collect();
    let seen: Vec<_> = pair
        .host_events
        .iter()
        .filter(|event| matches!(event, HostEvent::Event { .. }))
        .cloned()
        .collect();
    assert_eq!(seen, expected);
    assert_eq!(pair.host.stats().connections, 1);
}

#[test]
fn reboots_on_a_bad_line_never_mix_connections() {
    for seed in 0..100 {
        println!("seed {seed}");
        let faults = Faults {
            loss: 0.1,
            duplication: 0.2,
            jitter: Duration::from_millis(400),
            ..Faults::NONE
        };
        let mut pair = Pair::new(DATAGRAM, faults, seed);
        for boot in 0..6u32 {
            pair.device = Device::new(
                Config::default(),
                DATAGRAM,
                boot.wrapping_mul(0x9E37_79B9),
                1,
                DESCRIPTION,
            );
            pair.run_until("the new boot connects", Duration::from_secs(60), |pair| {
                let last = pair.host_events.iter().rev().find_map(|event| match event {
                    HostEvent::Connected { peer } => Some(peer.boot_id),
                    HostEvent::Lost { .. } => Some(u32::MAX),
                    _ => None,
                });
                last == Some(boot.wrapping_mul(0x9E37_79B9))
            });
            let from = pair.host_events.len();
            for number in 0..5 {
                let data = Value::Array(vec![Value::Int(boot.into()), Value::Int(number)]);
                // The device may not know yet that it is connected.
                pair.run_until("event taken", Duration::from_secs(60), |pair| {
                    pair.device.event(pair.now, "n", data.clone()).is_ok()
                });
            }
            let numbers = |pair: &Pair| -> Vec<_> {
                let data = |event: &HostEvent| match event {
                    HostEvent::Event { data, .. } => Some(data.clone()),
                    _ => None,
                };
                pair.host_events[from..].iter().filter_map(data).collect()
            };
            pair.run_until("events arrive", Duration::from_secs(60), |pair| {
                numbers(pair).len() >= 5
            });
            let expected: Vec<_> = (0..5)
                .map(|n| Value::Array(vec![Value::Int(boot.into()), Value::Int(n)]))
                .collect();
            assert_eq!(numbers(&pair), expected, "seed {seed}, boot {boot}");
        }
        assert_eq!(pair.host.stats().connections, 6, "seed {seed}");
    }
}
