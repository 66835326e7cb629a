//! Who has the key is served; nobody else is, by no trick.

mod support;

use std::time::Duration;

use autoglm_protocol::wire::{Close, CloseReason, Hello, Kind};
use autoglm_protocol::{
    Config, Device, DeviceEvent, Host, HostEvent, LinkKind, LostReason, Reply, Request, SecretKey,
    Security, Value,
};
use support::{DESCRIPTION, End, Faults, Pair};

const LINK: LinkKind = LinkKind::Datagram { mtu: 64 };
/// A word that is easily found in what goes over the line.
const WORD: &str = "find me if you can";

fn psk(key: u8, seed: u8) -> Security {
    Security::Psk {
        key: SecretKey::new([key; 32]),
        seed: SecretKey::new([seed; 32]),
    }
}

fn mutual(private: u8, peer: u8, seed: u8) -> Security {
    Security::Mutual {
        key: SecretKey::new([1; 32]),
        private: SecretKey::new([private; 32]),
        peer: SecretKey::new([peer; 32]).to_public(),
        seed: SecretKey::new([seed; 32]),
    }
}

fn pair(link: LinkKind, faults: Faults, host: Security, device: Security, seed: u64) -> Pair {
    let host = Host::with_security(Config::default(), link, 7, 1, host);
    let device = Device::with_security(Config::default(), link, 9, 1, DESCRIPTION, device);
    Pair::with_machines(host, device, link, faults, seed)
}

fn echo(pair: &mut Pair, id: u64) -> bool {
    let input = Value::Text(format!("{WORD} {id}"));
    let invoke = Request::Invoke {
        action: "echo".into(),
        input: input.clone(),
    };
    pair.ask(id, invoke) == Ok(Reply::Done(input))
}

fn has_word_on_line(pair: &Pair) -> bool {
    // Messages of this length are split over packets of 64 bytes, so look for a part.
    let part = &WORD.as_bytes()[..8];
    pair.sent
        .iter()
        .any(|(_, bytes)| bytes.windows(part.len()).any(|window| window == part))
}

#[test]
fn with_a_key_everything_works_and_nothing_is_readable() {
    let kinds = [(psk(1, 2), psk(1, 3)), (mutual(4, 5, 2), mutual(5, 4, 3))];
    for (host, device) in kinds {
        for link in [LinkKind::Stream, LINK, LinkKind::Datagram { mtu: 20 }] {
            let mut pair = pair(link, Faults::NONE, host.clone(), device.clone(), 1);
            pair.connect();
            assert!((0..5).all(|id| echo(&mut pair, id)));
            let Ok(Reply::Description { document, .. }) = pair.ask(100, Request::Describe) else {
                panic!("no description")
            };
            assert_eq!(document, DESCRIPTION);
            assert!(!has_word_on_line(&pair), "{link:?}");
        }
    }
    let mut clear = pair(LINK, Faults::NONE, Security::None, Security::None, 1);
    clear.connect();
    assert!(
        echo(&mut clear, 1) && has_word_on_line(&clear),
        "the search finds what is there"
    );
}

#[test]
fn keys_outlive_three_thousand_messages_on_a_bad_link() {
    let faults = Faults {
        loss: 0.1,
        duplication: 0.1,
        jitter: Duration::from_millis(10),
        ..Faults::NONE
    };
    let mut pair = pair(LINK, faults, psk(1, 2), psk(1, 3), 5);
    pair.connect();
    for number in 0..3_000 {
        let data = Value::Int(number);
        pair.device
            .event(pair.now, "numbered", data)
            .expect("there is room");
        pair.run_for(Duration::from_millis(5));
    }
    let numbers = |pair: &Pair| {
        let event = |event: &&HostEvent| matches!(event, HostEvent::Event { .. });
        pair.host_events.iter().filter(event).count()
    };
    pair.run_until("all", Duration::from_secs(60), |pair| {
        numbers(pair) == 3_000
    });
    assert_eq!(pair.host.stats().connections, 1);
}

#[track_caller]
fn check_refused(host: Security, device: Security) {
    let mut pair = pair(LINK, Faults::NONE, host, device, 1);
    pair.run_for(Duration::from_secs(60));
    let is_connected = |event: &HostEvent| matches!(event, HostEvent::Connected { .. });
    assert!(
        !pair.host_events.iter().any(is_connected),
        "{:?}",
        pair.host_events
    );
    let is_connected = |event: &DeviceEvent| matches!(event, DeviceEvent::Connected { .. });
    assert!(
        !pair.device_events.iter().any(is_connected),
        "{:?}",
        pair.device_events
    );
    let is_told = |reason: &LostReason| {
        matches!(
            reason,
            LostReason::Unauthenticated | LostReason::ClosedByPeer(CloseReason::Unauthenticated)
        )
    };
    let host_told =
        |event: &HostEvent| matches!(event, HostEvent::Lost { reason } if is_told(reason));
    let device_told =
        |event: &DeviceEvent| matches!(event, DeviceEvent::Lost { reason } if is_told(reason));
    assert!(
        pair.host_events.iter().any(host_told) && pair.device_events.iter().any(device_told),
        "both are told: {:?} {:?}",
        pair.host_events,
        pair.device_events
    );
    assert!(
        pair.sent.len() < 400,
        "{} packets a minute: they argue",
        pair.sent.len()
    );
}

#[test]
fn another_key_is_refused() {
    check_refused(psk(1, 2), psk(9, 3));
}

#[test]
fn another_static_key_is_refused() {
    check_refused(mutual(4, 5, 2), mutual(6, 4, 3));
    check_refused(mutual(4, 5, 2), mutual(5, 6, 3));
}

#[test]
fn nobody_with_a_key_talks_to_one_without() {
    check_refused(psk(1, 2), Security::None);
    check_refused(Security::None, psk(1, 3));
    check_refused(psk(1, 2), mutual(4, 5, 3));
}

/// Both ends have the key, and somebody between them changes Hellos on their way.
#[track_caller]
fn check_no_downgrade(change: impl Fn(&mut Hello)) {
    let mut pair = pair(LINK, Faults::NONE, psk(1, 2), psk(1, 3), 1);
    for _ in 0..200 {
        let mut packet = Vec::new();
        let forged = |packet: &[u8]| match Kind::of(packet) {
            Ok(Kind::Hello) => {
                let mut hello = Hello::decode(packet).expect("our own");
                change(&mut hello);
                let mut out = Vec::new();
                hello.encode(&mut out);
                out
            }
            _ => packet.to_vec(),
        };
        while pair.host.poll_transmit(pair.now, &mut packet) {
            pair.device.handle_input(pair.now, &forged(&packet));
            packet.clear();
        }
        while pair.device.poll_transmit(pair.now, &mut packet) {
            pair.host.handle_input(pair.now, &forged(&packet));
            packet.clear();
        }
        pair.now = pair.now + Duration::from_millis(100);
        pair.host.handle_timeout(pair.now);
        pair.device.handle_timeout(pair.now);
        while let Some(event) = pair.host.poll_event() {
            assert!(
                !matches!(event, HostEvent::Connected { .. }),
                "connected nevertheless"
            );
        }
    }
    assert!(pair.host.stats().packets_sent > 2, "they did try");
}

#[test]
fn a_changed_hello_breaks_the_handshake() {
    check_no_downgrade(|hello| hello.features = 0);
    check_no_downgrade(|hello| hello.versions.max = 2);
    check_no_downgrade(|hello| hello.window = 4);
    check_no_downgrade(|hello| hello.max_message_log2 = 8);
}

#[test]
fn a_recorded_connection_played_again_is_refused() {
    let mut first = pair(LINK, Faults::NONE, psk(1, 2), psk(1, 3), 1);
    first.connect();
    assert!(echo(&mut first, 1));
    let recorded: Vec<_> = first
        .sent
        .iter()
        .filter(|(from, _)| *from == End::Host)
        .map(|(_, packet)| packet.clone())
        .collect();
    // The device after its next start: another boot id and another seed, the same key.
    let mut device = Device::with_security(Config::default(), LINK, 10, 1, DESCRIPTION, psk(1, 4));
    let mut now = first.now;
    for packet in &recorded {
        device.handle_input(now, packet);
        now = now + Duration::from_millis(20);
        device.handle_timeout(now);
        while device.poll_transmit(now, &mut Vec::new()) {}
    }
    while let Some(event) = device.poll_event() {
        assert!(!matches!(event, DeviceEvent::Connected { .. }), "{event:?}");
    }
    // Even the very same device, which knows all identities of the recording, takes none of it.
    let before = first.device_events.len();
    for packet in recorded {
        first.inject(End::Host, packet);
    }
    first.run_for(Duration::from_secs(1));
    let news = &first.device_events[before..];
    assert!(news.is_empty(), "{news:?}");
    assert!(echo(&mut first, 2), "and the connection lives");
}

#[test]
fn a_changed_byte_of_a_sealed_message_ends_the_connection_with_its_reason() {
    let mut pair = pair(LINK, Faults::NONE, psk(1, 2), psk(1, 3), 1);
    pair.connect();
    pair.cut();
    pair.device
        .event(pair.now, "numbered", Value::Int(1))
        .expect("there is room");
    let mut packet = Vec::new();
    while pair.device.poll_transmit(pair.now, &mut packet) {
        if Kind::of(&packet) == Ok(Kind::Data) {
            *packet.last_mut().expect("not empty") ^= 1;
        }
        pair.host.handle_input(pair.now, &packet);
        packet.clear();
    }
    let events: Vec<_> = std::iter::from_fn(|| pair.host.poll_event()).collect();
    let reason = LostReason::Unauthenticated;
    assert_eq!(
        events.last(),
        Some(&HostEvent::Lost { reason }),
        "{events:?}"
    );
    assert!(pair.host.poll_transmit(pair.now, &mut packet));
    let close = Close::decode(&packet).map(|close| close.reason);
    assert_eq!(close, Ok(CloseReason::Unauthenticated));
}

#[test]
fn no_formatting_shows_a_key() {
    let security = mutual(0xAB, 0xCD, 0xEF);
    let host = Host::with_security(Config::default(), LINK, 7, 1, security.clone());
    let device = Device::with_security(Config::default(), LINK, 9, 1, b"{}", security.clone());
    let mut pair = Pair::with_machines(host, device, LINK, Faults::NONE, 1);
    pair.run_for(Duration::from_secs(1));
    let shown = format!("{security:?} {:?} {:?}", pair.host, pair.device);
    for secret in ["171, 171", "239, 239", "abab", "efef"] {
        assert!(
            !shown.to_lowercase().contains(secret),
            "{secret} in {shown}"
        );
    }
}
