//! A peer that breaks the rules, played by hand: what it does is named, counted and without effect.

use autoglm_protocol::frame::crc32c;
use autoglm_protocol::message::{Message, Value};
use autoglm_protocol::segment::{ArrivedSegment, Buffers, Channel, Reassembly, ReassemblyError};
use autoglm_protocol::wire::{
    AckBody, Close, CloseReason, Flags, Header, Hello, Identity, Kind, Role, Token, VersionRange,
};
use autoglm_protocol::{Config, Device, DeviceEvent, Instant, LinkKind, LostReason};

const NOW: Instant = Instant::ZERO;
const DEVICE: Identity = Identity {
    boot_id: 5,
    epoch: 1,
};

/// A device, and a host that is nothing but bytes.
struct ByHand {
    device: Device,
    host: Identity,
}

impl ByHand {
    /// A connected pair; the connection's own packets are through.
    fn connected() -> Self {
        let config = Config {
            receive_window: 8,
            max_message_log2: 8,
            ..Config::default()
        };
        let link = LinkKind::Datagram { mtu: 512 };
        let device = Device::new(config, link, DEVICE.boot_id, DEVICE.epoch, b"{}");
        let mut by_hand = Self {
            device,
            host: Identity {
                boot_id: 7,
                epoch: 20,
            },
        };
        by_hand.hello(by_hand.host);
        assert!(matches!(
            by_hand.device.poll_event(),
            Some(DeviceEvent::Connected { .. })
        ));
        by_hand.packets();
        by_hand
    }

    fn hello(&mut self, host: Identity) {
        let hello = Hello {
            role: Role::Host,
            established: true,
            resume: false,
            reliable: false,
            versions: VersionRange::OURS,
            features: 0,
            identity: host,
            mtu: 512,
            window: 8,
            max_message_log2: 16,
            heard: DEVICE.token(),
        };
        let mut bytes = Vec::new();
        hello.encode(&mut bytes);
        self.device.handle_input(NOW, &bytes);
    }

    fn key(&self) -> u32 {
        let words = [
            self.host.boot_id,
            self.host.epoch,
            DEVICE.boot_id,
            DEVICE.epoch,
        ];
        crc32c(&words.map(u32::to_le_bytes).concat())
    }

    fn packet(&mut self, kind: Kind, seq: u16, ack: u16, flags: Flags, body: &[u8]) {
        let first = self.key() as u16;
        let header = Header {
            kind,
            flags,
            tag: (self.key() >> 24) as u8,
            seq: first.wrapping_add(seq),
            ack: first.wrapping_add(ack),
        };
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        bytes.extend_from_slice(body);
        self.device.handle_input(NOW, &bytes);
    }

    fn data(&mut self, seq: u16, channel_seq: u8, (start, end): (bool, bool), payload: &[u8]) {
        let flags = Flags {
            start,
            end,
            channel: Channel::Command,
        };
        self.packet(
            Kind::Data,
            seq,
            0,
            flags,
            &[&[channel_seq], payload].concat(),
        );
    }

    fn packets(&mut self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        let mut out = Vec::new();
        while self.device.poll_transmit(NOW, &mut out) {
            packets.push(std::mem::take(&mut out));
        }
        packets
    }

    #[track_caller]
    fn ends_by_violation(&mut self, error: ReassemblyError) {
        let lost = DeviceEvent::Lost {
            reason: LostReason::Violation(error),
        };
        assert_eq!(self.device.poll_event(), Some(lost));
        let packets = self.packets();
        let close = Close::decode(&packets[0]).expect("the first packet is a Close");
        assert_eq!(close.reason, CloseReason::ProtocolViolation);
        assert_eq!((close.from, close.to), (DEVICE.token(), self.host.token()));
        let hello = Hello::decode(&packets[1]).expect("then it seeks anew");
        assert_eq!(
            (hello.identity.epoch, hello.heard),
            (DEVICE.epoch + 1, Token::NOBODY)
        );
    }
}

#[test]
fn a_segment_that_continues_nothing_ends_the_connection() {
    let mut by_hand = ByHand::connected();
    by_hand.data(0, 0, (false, true), b"tail");
    by_hand.ends_by_violation(ReassemblyError::OutOfPlace);
}

#[test]
fn a_message_begun_inside_another_ends_the_connection() {
    let mut by_hand = ByHand::connected();
    by_hand.data(0, 0, (true, false), b"head");
    by_hand.data(1, 1, (true, false), b"head");
    by_hand.ends_by_violation(ReassemblyError::OutOfPlace);
}

#[test]
fn a_message_beyond_the_announced_limit_ends_the_connection() {
    let mut by_hand = ByHand::connected();
    by_hand.data(0, 0, (true, false), &[0; 256]);
    assert_eq!(by_hand.device.poll_event(), None);
    by_hand.data(1, 1, (false, true), &[0]);
    by_hand.ends_by_violation(ReassemblyError::MessageTooLong { limit: 256 });
}

#[test]
fn a_channel_number_that_contradicts_the_packet_number_ends_the_connection() {
    let mut by_hand = ByHand::connected();
    by_hand.data(0, 200, (true, true), b"?");
    by_hand.ends_by_violation(ReassemblyError::BadChannelSeq { channel_seq: 200 });
}

#[test]
fn a_packet_beyond_the_window_is_counted_and_not_acknowledged() {
    let mut by_hand = ByHand::connected();
    let cancel = Message::Cancel { id: 1 }.to_bytes();
    by_hand.data(7, 7, (true, true), &cancel);
    by_hand.data(8, 8, (true, true), &cancel);
    assert_eq!(by_hand.device.stats().out_of_window, 1);
    let packets = by_hand.packets();
    let (header, body) = Header::decode(&packets[0]).expect("an Ack");
    assert_eq!((header.kind, header.ack), (Kind::Ack, by_hand.key() as u16));
    assert_eq!(
        AckBody::decode(body),
        Ok(AckBody {
            credit: 8,
            received: 1 << 6
        })
    );
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_is_counted_and_ignored() {
    let mut by_hand = ByHand::connected();
    // The device has sent one Data packet, its announcement.
    by_hand.packet(Kind::Ping, 0, 2, Flags::NONE, &[]);
    by_hand.packet(Kind::Ack, 0, 0, Flags::NONE, &[8, 1]);
    assert_eq!(by_hand.device.stats().bad_ack, 2);
    by_hand.packet(Kind::Ack, 0, 1, Flags::NONE, &[8]);
    assert_eq!(by_hand.device.stats().bad_ack, 2);
}

#[test]
fn an_older_epoch_of_the_same_boot_is_stale_even_if_never_seen() {
    let mut by_hand = ByHand::connected();
    by_hand.hello(Identity {
        boot_id: 7,
        epoch: 3,
    });
    assert_eq!(by_hand.device.stats().stale, 1);
    assert_eq!(by_hand.device.poll_event(), None, "the connection stands");
    by_hand.hello(Identity {
        boot_id: 7,
        epoch: 21,
    });
    let lost = DeviceEvent::Lost {
        reason: LostReason::PeerRestarted,
    };
    assert_eq!(by_hand.device.poll_event(), Some(lost));
}

#[test]
fn a_close_from_or_to_another_identity_is_stale() {
    let mut by_hand = ByHand::connected();
    let close = Close {
        reason: CloseReason::Goodbye,
        versions: VersionRange::OURS,
        from: by_hand.host.token(),
        to: DEVICE.token(),
    };
    for wrong in [
        Close {
            from: Token(1),
            ..close
        },
        Close {
            to: Token(1),
            ..close
        },
    ] {
        let mut bytes = Vec::new();
        wrong.encode(&mut bytes);
        by_hand.device.handle_input(NOW, &bytes);
    }
    assert_eq!(by_hand.device.stats().stale, 2);
    assert_eq!(by_hand.device.poll_event(), None, "the connection stands");
}

#[test]
fn messages_that_a_device_does_not_expect_are_counted_and_answered_where_they_name_a_request() {
    let mut by_hand = ByHand::connected();
    let answer = |by_hand: &mut ByHand| {
        let packets = by_hand.packets();
        let data = packets
            .iter()
            .find(|packet| Kind::of(packet) == Ok(Kind::Data))?;
        Some(data[8..].to_vec())
    };
    let fault = |id, code| {
        let answer = Message::Result {
            id,
            code,
            value: Value::Null.into(),
            text: None,
        };
        Some(answer.to_bytes())
    };
    by_hand.data(0, 0, (true, true), &[0x82, 0x18, 99, 0xa1, 0, 9]);
    assert_eq!(
        answer(&mut by_hand),
        fault(9, 10),
        "a kind of a later version"
    );
    by_hand.data(1, 1, (true, true), &[0x82, 4, 0xa1, 0, 8]);
    assert_eq!(
        answer(&mut by_hand),
        fault(8, 16),
        "a Write without its fields"
    );
    by_hand.data(2, 2, (true, true), b"nonsense");
    assert_eq!(answer(&mut by_hand), None);
    let mut write = Message::Write {
        id: 3,
        property: "p".into(),
        deadline_ms: 0,
        value: Value::Null.into(),
    };
    by_hand.data(3, 3, (true, true), &write.to_bytes());
    assert_eq!(answer(&mut by_hand), fault(3, 9), "a deadline of zero");
    by_hand.data(4, 4, (true, true), &fault(1, 0).expect("made above"));
    assert_eq!(answer(&mut by_hand), None, "a host does not answer");
    assert_eq!(by_hand.device.poll_event(), None);
    let stats = by_hand.device.stats();
    assert_eq!((stats.bad_messages, stats.unexpected_messages), (2, 2));
    if let Message::Write { deadline_ms, .. } = &mut write {
        *deadline_ms = 1;
    }
    by_hand.data(5, 5, (true, true), &write.to_bytes());
    assert!(matches!(
        by_hand.device.poll_event(),
        Some(DeviceEvent::Write { .. })
    ));
}

#[test]
fn a_segment_twice_on_one_channel_number_is_refused() {
    let mut channel = Reassembly::new(256);
    let (mut messages, mut buffers) = (Vec::new(), Buffers::new(256));
    let mut take = |channel_seq, payload| {
        let segment = ArrivedSegment {
            channel_seq,
            start: true,
            end: true,
            payload,
        };
        channel.on_segment(&segment, &mut messages, &mut buffers)
    };
    assert_eq!(take(1, b"b"), Ok(()));
    let twice = take(1, b"b");
    assert_eq!(
        twice,
        Err(ReassemblyError::BadChannelSeq { channel_seq: 1 })
    );
    assert_eq!(take(0, b"a"), Ok(()));
    assert_eq!(messages, [b"a".to_vec(), b"b".to_vec()]);
}
