//! Every codec gives back what it was given, and no bytes make one panic.

use std::time::Duration;

use autoglm_protocol::frame::crc32c;
use autoglm_protocol::message::{
    LogLevel, Message, MessageError, VALUE_DEPTH_MAX, VALUE_ITEMS_MAX, Value,
};
use autoglm_protocol::segment::Channel;
use autoglm_protocol::wire::{
    AckBody, Close, CloseReason, Flags, Header, Hello, Identity, Kind, Role, Token, VersionRange,
};
use autoglm_protocol::{Config, Device, FaultCode, Host, Instant, LinkKind, Stats};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        // NaN is not equal to itself; the vectors cover it.
        prop::num::f64::ANY
            .prop_filter("NaN", |n| !n.is_nan())
            .prop_map(Value::Float),
        ".{0,12}".prop_map(Value::Text),
        vec(any::<u8>(), 0..12).prop_map(Value::Bytes),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::Array),
            btree_map(".{0,6}", inner, 0..6).prop_map(|map| Value::Map(map.into_iter().collect())),
        ]
    })
}

fn name() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9_ü]{0,40}"
}

fn message() -> impl Strategy<Value = Message<'static>> {
    let hash = any::<[u8; 32]>();
    let level = prop_oneof![
        Just(LogLevel::Error),
        Just(LogLevel::Warn),
        Just(LogLevel::Info),
        Just(LogLevel::Debug)
    ];
    let id = any::<u64>();
    let short = any::<u32>();
    prop_oneof![
        (hash, short).prop_map(|(hash, length)| Message::Announce {
            hash: hash.into(),
            length
        }),
        (id, short).prop_map(|(id, offset)| Message::Describe { id, offset }),
        (id, hash, short, short, vec(any::<u8>(), 0..300)).prop_map(
            |(id, hash, length, offset, bytes)| {
                Message::Description {
                    id,
                    hash: hash.into(),
                    length,
                    offset,
                    bytes: bytes.into(),
                }
            }
        ),
        (id, name(), short).prop_map(|(id, property, deadline_ms)| Message::Read {
            id,
            property: property.into(),
            deadline_ms
        }),
        (id, name(), short, value()).prop_map(|(id, property, deadline_ms, value)| {
            Message::Write {
                id,
                property: property.into(),
                deadline_ms,
                value: value.into(),
            }
        }),
        (id, name(), short).prop_map(|(id, property, deadline_ms)| Message::Observe {
            id,
            property: property.into(),
            deadline_ms
        }),
        (id, name()).prop_map(|(id, property)| Message::Unobserve {
            id,
            property: property.into()
        }),
        (id, name(), short, value()).prop_map(|(id, action, deadline_ms, input)| Message::Invoke {
            id,
            action: action.into(),
            deadline_ms,
            input: input.into()
        }),
        (id, any::<u16>(), value(), prop::option::of(".{0,40}")).prop_map(
            |(id, code, value, text)| Message::Result {
                id,
                code,
                value: value.into(),
                text
            }
        ),
        (id, value()).prop_map(|(id, value)| Message::Progress {
            id,
            value: value.into()
        }),
        id.prop_map(|id| Message::Cancel { id }),
        (name(), value()).prop_map(|(property, value)| Message::PropertyChanged {
            property: property.into(),
            value: value.into()
        }),
        (name(), value()).prop_map(|(name, data)| Message::Event {
            name: name.into(),
            data: data.into()
        }),
        (level, ".{0,40}").prop_map(|(level, text)| Message::Log {
            level,
            text: text.into()
        }),
        id.prop_map(|unix_micros| Message::TimeSync { unix_micros }),
        (id, name(), any::<u32>(), any::<[u8; 32]>()).prop_map(|(id, name, length, hash)| {
            Message::TransferOffer {
                id,
                name: name.into(),
                length,
                hash: hash.into(),
            }
        }),
        (id, any::<u32>()).prop_map(|(id, offset)| Message::TransferWanted { id, offset }),
        (id, any::<u32>(), vec(any::<u8>(), 0..100)).prop_map(|(id, offset, bytes)| {
            Message::TransferPart {
                id,
                offset,
                bytes: bytes.into(),
            }
        }),
        (id, any::<u16>(), prop::option::of(".{0,40}"))
            .prop_map(|(id, code, text)| Message::TransferDone { id, code, text }),
        id.prop_map(|id| Message::TransferAbort { id }),
        id.prop_map(|asked| Message::TimeRequest { asked }),
        any::<[u64; 3]>().prop_map(|[asked, received, sent]| Message::TimeReply {
            asked,
            received,
            sent,
        }),
    ]
}

fn hello() -> impl Strategy<Value = Hello> {
    let sides = (
        any::<bool>(),
        any::<bool>(),
        1..=15u8,
        0..=14u8,
        any::<u8>(),
    );
    let numbers = (any::<[u32; 3]>(), 20..=65_536usize, 4..=64u8, 8..=20u8);
    (sides, numbers).prop_map(
        |((is_device, established, min, more, features), (words, mtu, window, log2))| Hello {
            role: if is_device { Role::Device } else { Role::Host },
            established,
            resume: more % 2 == 1,
            reliable: more % 3 == 1,
            versions: VersionRange {
                min,
                max: (min + more).min(15),
            },
            features,
            identity: Identity {
                boot_id: words[0],
                epoch: words[1],
            },
            mtu,
            window,
            max_message_log2: log2,
            heard: Token(words[2]),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn messages_round_trip(message in message()) {
        let bytes = message.to_bytes();
        prop_assert_eq!(Message::from_bytes(&bytes), Ok(message));
    }

    #[test]
    fn hellos_round_trip(hello in hello()) {
        let mut bytes = Vec::new();
        hello.encode(&mut bytes);
        prop_assert_eq!(bytes.len(), Hello::BYTES);
        prop_assert_eq!(Kind::of(&bytes), Ok(Kind::Hello));
        prop_assert_eq!(Hello::decode(&bytes), Ok(hello));
    }

    #[test]
    fn closes_round_trip(reason: u8, from: u32, to: u32, min in 1..=15u8) {
        let close = Close {
            reason: CloseReason::from_u8(reason),
            versions: VersionRange { min, max: 15 },
            from: Token(from),
            to: Token(to),
        };
        let mut bytes = Vec::new();
        close.encode(&mut bytes);
        prop_assert_eq!(Close::decode(&bytes), Ok(close));
    }

    #[test]
    fn headers_round_trip(kind in 2..=5u8, start: bool, end: bool, bits: u8, tag: u8, seq: u16, ack: u16, rest: [u8; 3]) {
        let kind = [Kind::Data, Kind::Ack, Kind::Ping, Kind::Pong][usize::from(kind - 2)];
        let flags = Flags { start, end, channel: Channel::from_bits(bits) };
        let header = Header { kind, flags, tag, seq, ack };
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        bytes.extend_from_slice(&rest);
        prop_assert_eq!(Header::decode(&bytes), Ok((header, &rest[..])));
    }

    #[test]
    fn acks_round_trip(credit in 0..=64u8, received: u64) {
        let body = AckBody { credit, received };
        let mut bytes = Vec::new();
        body.encode(&mut bytes);
        prop_assert_eq!(AckBody::decode(&bytes), Ok(body));
    }

    #[test]
    fn fault_codes_round_trip(code: u16) {
        prop_assert_eq!(FaultCode::from_u16(code).to_u16(), code);
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in vec(any::<u8>(), 0..80)) {
        let _ = Message::from_bytes(&bytes);
        let _ = Hello::decode(&bytes);
        let _ = Close::decode(&bytes);
        let _ = Header::decode(&bytes);
        let _ = AckBody::decode(&bytes);
    }

    /// Bytes that begin like a message reach deeper than random ones.
    #[test]
    fn no_damaged_message_makes_a_decoder_panic(
        message in message(), damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = message.to_bytes();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(message) = Message::from_bytes(&bytes) {
            prop_assert!(message.is_within_bounds());
        }
    }

    /// Packets with any fields, of the machine's own connection and near its window, in any state that they lead to.
    #[test]
    fn no_packets_make_a_machine_panic(
        hello in hello(),
        packets in vec((1..=6u8, 0..32u8, 0..40u16, 0..6u16, vec(any::<u8>(), 0..30)), 0..60),
        messages in vec(message(), 0..4),
    ) {
        let link = LinkKind::Datagram { mtu: 128 };
        let ours = Identity { boot_id: 1, epoch: 1 };
        for role in [Role::Host, Role::Device] {
            let (peer_role, host_id, device_id) = match role {
                Role::Host => (Role::Device, ours, hello.identity),
                Role::Device => (Role::Host, hello.identity, ours),
            };
            // SPEC.md, "Tag and first sequence number".
            let identities = [host_id.boot_id, host_id.epoch, device_id.boot_id, device_id.epoch];
            let key = crc32c(&identities.map(u32::to_le_bytes).concat());
            let from_host = (key >> 24) as u8;
            let tag = if role == Role::Host { !from_host } else { from_host };
            let mut machine = match role {
                Role::Host => Machine::Host(Host::new(Config::default(), link, 1, 1)),
                Role::Device => Machine::Device(Device::new(Config::default(), link, 1, 1, b"{}")),
            };
            let mut now = Instant::ZERO;
            let mut bytes = Vec::new();
            let versions = VersionRange { min: 1, max: 1 };
            Hello { role: peer_role, versions, features: 0, heard: ours.token(), ..hello }.encode(&mut bytes);
            machine.input(now, &bytes);
            prop_assert_eq!(machine.stats().connections, 1);
            let segments = messages.iter().enumerate().map(|(at, message)| {
                // Whole messages, each the first of its channel as far as this test cares.
                let flags = 3 | (message.channel() as u8) << 2;
                (2, flags, at as u16, 0, [vec![0], message.to_bytes()].concat())
            });
            for (kind, flags, seq, ack, body) in segments.chain(packets.iter().cloned()) {
                let version = if kind == 1 || kind == 6 { 0 } else { 0x10 };
                let mut bytes = vec![version | kind, flags, tag];
                bytes.extend((key as u16).wrapping_add(seq).to_le_bytes());
                bytes.extend((key as u16).wrapping_add(ack).to_le_bytes());
                bytes.extend(body);
                machine.input(now, &bytes);
                now = now + Duration::from_millis(300);
                machine.timeout(now);
                prop_assert!(machine.drain(now) < 1_000, "it goes on sending");
            }
        }
    }
}

enum Machine {
    Host(Host),
    Device(Device),
}

impl Machine {
    fn input(&mut self, now: Instant, bytes: &[u8]) {
        match self {
            Self::Host(host) => host.handle_input(now, bytes),
            Self::Device(device) => device.handle_input(now, bytes),
        }
    }

    fn timeout(&mut self, now: Instant) {
        match self {
            Self::Host(host) => host.handle_timeout(now),
            Self::Device(device) => device.handle_timeout(now),
        }
    }

    fn stats(&self) -> Stats {
        match self {
            Self::Host(host) => host.stats(),
            Self::Device(device) => device.stats(),
        }
    }

    /// How many packets it had to send, at most 1,000.
    fn drain(&mut self, now: Instant) -> usize {
        match self {
            Self::Host(host) => while host.poll_event().is_some() {},
            Self::Device(device) => while device.poll_event().is_some() {},
        }
        let sent = |_: &usize| {
            let mut out = Vec::new();
            let more = match self {
                Self::Host(host) => host.poll_transmit(now, &mut out),
                Self::Device(device) => device.poll_transmit(now, &mut out),
            };
            assert!(out.len() <= 128, "a packet of {} bytes", out.len());
            more
        };
        (0..1_000).take_while(sent).count()
    }
}

/// An invocation whose input is `input`, raw.
fn invoke_with(input: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x82, 7, 0xa4, 0, 1, 1, 0x61, b'a', 2, 1, 3];
    bytes.extend_from_slice(input);
    bytes
}

#[test]
fn a_value_within_the_bounds_is_taken_and_one_beyond_is_not() {
    let malformed = Err(MessageError::Malformed { id: Some(1) });
    let nested = |depth: usize| {
        let mut input = vec![0x81; depth];
        input.push(0xf6);
        Message::from_bytes(&invoke_with(&input)).map(drop)
    };
    assert!(nested(VALUE_DEPTH_MAX).is_ok());
    assert_eq!(nested(VALUE_DEPTH_MAX + 1), malformed);
    assert_eq!(nested(60_000), malformed);

    let wide = |items: u16| {
        let mut input = vec![0x99];
        input.extend(items.to_be_bytes());
        input.extend(vec![0xf6; items.into()]);
        Message::from_bytes(&invoke_with(&input)).map(drop)
    };
    let items_max = VALUE_ITEMS_MAX as u16;
    assert!(wide(items_max - 1).is_ok());
    assert_eq!(wide(items_max), malformed);
}

#[test]
fn values_outside_our_part_of_cbor_are_refused() {
    for (what, input) in [
        (
            "an array of 2^64 - 1 announced items",
            &[0x9b, 255, 255, 255, 255, 255, 255, 255, 255][..],
        ),
        (
            "a text of 2^63 announced bytes",
            &[0x7b, 0x80, 0, 0, 0, 0, 0, 0, 0],
        ),
        ("an indefinite array", &[0x9f, 0xff]),
        ("an indefinite text", &[0x7f, 0x61, b'a', 0xff]),
        ("a tag", &[0xc1, 0]),
        ("undefined", &[0xf7]),
        (
            "a whole number above 2^63 - 1",
            &[0x1b, 0x80, 0, 0, 0, 0, 0, 0, 0],
        ),
        ("a map with a number for a name", &[0xa1, 1, 1]),
        (
            "a map with a name twice",
            &[0xa2, 0x61, b'a', 1, 0x61, b'a', 2],
        ),
        ("text that is not UTF-8", &[0x61, 0xff]),
        ("bytes after the message", &[0xf6, 0]),
    ] {
        let message = invoke_with(input);
        let seen = Message::from_bytes(&message);
        assert_eq!(seen, Err(MessageError::Malformed { id: Some(1) }), "{what}");
    }
    // Shorter floats and longer integers than needed are other encoders' right.
    for (input, value) in [
        (&[0xf9, 0x3c, 0][..], Value::Float(1.0)),
        (&[0xfa, 0x3f, 0x80, 0, 0], Value::Float(1.0)),
        (&[0x1b, 0, 0, 0, 0, 0, 0, 0, 5], Value::Int(5)),
        (
            &[0x3b, 0x7f, 255, 255, 255, 255, 255, 255, 255],
            Value::Int(i64::MIN),
        ),
    ] {
        let message = invoke_with(input);
        let Ok(Message::Invoke { input: seen, .. }) = Message::from_bytes(&message) else {
            panic!("{input:02x?} is refused")
        };
        assert_eq!(seen.into_value(), value);
    }
}

#[test]
fn a_message_of_a_later_version_is_told_apart_from_nonsense() {
    let id = Some(9);
    assert_eq!(
        Message::from_bytes(&[0x82, 0x18, 40, 0xa1, 0, 9]),
        Err(MessageError::UnknownKind { kind: 40, id })
    );
    // A field that we do not know is skipped.
    assert_eq!(
        Message::from_bytes(&[0x82, 10, 0xa2, 0, 9, 0x18, 99, 0x80]),
        Ok(Message::Cancel { id: 9 })
    );
    assert_eq!(
        Message::from_bytes(&[]),
        Err(MessageError::Malformed { id: None })
    );
    assert_eq!(
        Message::from_bytes(&[0x82, 10, 0xa0]),
        Err(MessageError::Malformed { id: None })
    );
    let long_name = Message::Unobserve {
        id: 9,
        property: "n".repeat(129).into(),
    }
    .to_bytes();
    assert_eq!(
        Message::from_bytes(&long_name),
        Err(MessageError::TooLong { limit: 128, id })
    );
}
