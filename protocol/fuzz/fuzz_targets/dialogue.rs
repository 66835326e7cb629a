//! Any well-formed messages in any order, to either role, by a peer that keeps the transport's rules and no others: no panic,
//! no gap in what is transferred, nothing complete that does not match its hash.
#![no_main]

use std::borrow::Cow;
use std::time::Duration;

use autoglm_protocol::frame::crc32c;
use autoglm_protocol::message::{Data, LogLevel, Message, Value};
use autoglm_protocol::transfer::{EndReason, Offer, TransferDigest, TransferEvent, Transfers};
use autoglm_protocol::wire::{Flags, Header, Hello, Identity, Kind, Role, VersionRange};
use autoglm_protocol::{
    Config, Device, DeviceEvent, Fault, FaultCode, Host, Instant, LinkKind, Request, RequestId,
};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};

const OURS: Identity = Identity {
    boot_id: 1,
    epoch: 1,
};
const MTU: usize = 4096;
const LINK: LinkKind = LinkKind::Datagram { mtu: MTU };

/// The peer, who plays the other role.
struct Peer {
    tag: u8,
    next_seq: u16,
    next_channel_seq: [u8; 4],
    /// The next packet that the machine will send.
    ack: u16,
}

impl Peer {
    fn new(plays: Role) -> (Self, Vec<u8>) {
        let mut hello = Vec::new();
        Hello {
            role: plays,
            established: true,
            resume: false,
            reliable: false,
            versions: VersionRange::OURS,
            features: 0,
            identity: OURS,
            mtu: MTU,
            window: 64,
            max_message_log2: 12,
            heard: OURS.token(),
        }
        .encode(&mut hello);
        let words = [OURS.boot_id, OURS.epoch, OURS.boot_id, OURS.epoch];
        let key = crc32c(&words.map(u32::to_le_bytes).concat());
        let tag = (key >> 24) as u8;
        let peer = Self {
            tag: if plays == Role::Host { tag } else { !tag },
            next_seq: key as u16,
            next_channel_seq: [0; 4],
            ack: key as u16,
        };
        (peer, hello)
    }

    fn packet(&mut self, message: &Message<'_>) -> Vec<u8> {
        let channel = message.channel();
        let channel_seq = &mut self.next_channel_seq[channel as usize];
        let (start, end) = (true, true);
        let flags = Flags {
            start,
            end,
            channel,
        };
        let mut packet = Vec::new();
        Header {
            kind: Kind::Data,
            flags,
            tag: self.tag,
            seq: self.next_seq,
            ack: self.ack,
        }
        .encode(&mut packet);
        packet.push(*channel_seq);
        packet.extend(message.to_bytes());
        *channel_seq = channel_seq.wrapping_add(1);
        self.next_seq = self.next_seq.wrapping_add(1);
        packet
    }

    fn on_packet(&mut self, packet: &[u8]) {
        if let Ok((header, _)) = Header::decode(packet)
            && header.kind == Kind::Data
        {
            self.ack = header.seq.wrapping_add(1);
        }
    }
}

fn message(kind: u8, id: u8, number: u16, bytes: Vec<u8>) -> Message<'static> {
    let hash: [u8; 32] = Sha256::digest(&bytes).into();
    let word = String::from(["a", "b", "c"][usize::from(id) % 3]);
    let text = (!bytes.is_empty()).then(|| word.clone());
    let value: Data<'_> = Value::Bytes(bytes.clone()).into();
    let offset = u32::from(number);
    let deadline_ms = offset;
    let owned = || Cow::Owned(word.clone());
    let (property, action, name) = (owned(), owned(), owned());
    let id = u64::from(id % 4);
    match kind {
        0 => Message::Announce {
            hash: hash.into(),
            length: offset,
        },
        1 => Message::Describe { id, offset },
        2 => Message::Description {
            id,
            hash: hash.into(),
            length: bytes.len() as u32,
            offset,
            bytes: bytes.into(),
        },
        3 => Message::Read {
            id,
            property,
            deadline_ms,
        },
        4 => Message::Write {
            id,
            property,
            deadline_ms,
            value,
        },
        5 => Message::Observe {
            id,
            property,
            deadline_ms,
        },
        6 => Message::Unobserve { id, property },
        7 => Message::Invoke {
            id,
            action,
            deadline_ms,
            input: value,
        },
        8 => Message::Result {
            id,
            code: number % 20,
            value,
            text,
        },
        9 => Message::Progress { id, value },
        10 => Message::Cancel { id },
        11 => Message::PropertyChanged { property, value },
        12 => Message::Event { name, data: value },
        13 => Message::Log {
            level: LogLevel::Info,
            text: word.into(),
        },
        14 => Message::TimeSync {
            unix_micros: offset.into(),
        },
        15 => Message::TransferOffer {
            id,
            name,
            length: bytes.len() as u32,
            hash: hash.into(),
        },
        16 => Message::TransferWanted { id, offset },
        17 => Message::TransferPart {
            id,
            offset,
            bytes: bytes.into(),
        },
        18 => Message::TransferDone {
            id,
            code: number % 20,
            text,
        },
        19 => Message::TransferAbort { id },
        20 => Message::TimeRequest {
            asked: u64::MAX - id,
        },
        _ => Message::TimeReply {
            asked: offset.into(),
            received: id << 62,
            sent: u64::from(number) << 48,
        },
    }
}

/// The owner of a machine takes whatever it is offered.
fn take(now: Instant, mut machine: Transfers<'_>, stored: &mut Vec<u8>, hash: &mut [u8; 32]) {
    while let Some(event) = machine.poll() {
        match event {
            TransferEvent::Offered { id, offer } => {
                *hash = offer.hash;
                let mut digest = TransferDigest::new();
                digest.update(stored);
                if offer.name == "c" {
                    let fault = Fault::new(FaultCode::Other(offer.length as u16), "no");
                    // It may have ended since.
                    let _ = machine.refuse(now, id, fault);
                } else if machine.accept(now, id, digest).is_ok()
                    && stored.len() > offer.length as usize
                {
                    stored.clear();
                }
            }
            TransferEvent::Part { offset, bytes, .. } => {
                assert_eq!(offset as usize, stored.len());
                stored.extend(bytes);
            }
            TransferEvent::Complete { id } => {
                assert_eq!(<[u8; 32]>::from(Sha256::digest(&*stored)), *hash);
                let _ = machine.confirm(now, id);
            }
            TransferEvent::Ended { reason, .. } => {
                if reason == EndReason::HashMismatch {
                    stored.clear();
                }
            }
            TransferEvent::Wanted { id, offset } => {
                let left = 300 - offset;
                let _ = machine.write(now, id, &vec![1; left as usize]);
            }
            TransferEvent::Finished { .. } | TransferEvent::Interrupted { .. } => {}
        }
    }
}

fuzz_target!(|said: Vec<(u8, u8, u16, Vec<u8>)>| {
    let config = Config {
        transfer_bytes_max: 1_000,
        ..Config::constrained()
    };
    let mut host = Host::new(config.clone(), LINK, OURS.boot_id, OURS.epoch);
    let mut device = Device::new(config, LINK, OURS.boot_id, OURS.epoch, &[b'd'; 3_000]);
    let mut now = Instant::ZERO;
    let (mut to_host, hello) = Peer::new(Role::Device);
    host.handle_input(now, &hello);
    let (mut to_device, hello) = Peer::new(Role::Host);
    device.handle_input(now, &hello);
    let (mut at_host, mut at_device) = ((Vec::new(), [0; 32]), (Vec::new(), [0; 32]));
    let offer = Offer {
        name: "up".into(),
        length: 300,
        hash: [0; 32],
    };
    for (operation, id, number, bytes) in said {
        match operation % 29 {
            kind @ ..=21 => {
                let message = message(kind, id, number, bytes);
                if message.to_bytes().len() > 512 {
                    continue;
                }
                if id < 128 {
                    host.handle_input(now, &to_host.packet(&message));
                } else {
                    device.handle_input(now, &to_device.packet(&message));
                }
            }
            22 => {
                let request = match number % 3 {
                    0 => Request::Describe,
                    1 => Request::Read {
                        property: "a".into(),
                    },
                    _ => Request::Invoke {
                        action: "a".into(),
                        input: Value::Null,
                    },
                };
                let deadline = Duration::from_millis(number.into());
                let _ = host.request(now, RequestId(u64::from(id % 4)), request, deadline);
            }
            23 => host.cancel(now, RequestId(u64::from(id % 4))),
            24 => drop(host.transfers().offer(now, &offer)),
            25 => drop(device.transfers().offer(now, &offer)),
            26 => drop(host.time_sync(now, number.into())),
            27 => {
                let _ = device.property_changed(now, "a", Value::Bytes(bytes));
            }
            _ => now = now + Duration::from_millis(number.into()),
        }
        host.handle_timeout(now);
        device.handle_timeout(now);
        while host.poll_event().is_some() {}
        while let Some(event) = device.poll_event() {
            if let DeviceEvent::Write { id, .. }
            | DeviceEvent::Invoke { id, .. }
            | DeviceEvent::Read { id, .. } = event
                && number % 3 > 0
            {
                device.respond(now, id, Ok(Value::Null)).expect("running");
            }
        }
        take(now, host.transfers(), &mut at_host.0, &mut at_host.1);
        take(now, device.transfers(), &mut at_device.0, &mut at_device.1);
        let (mut packet, mut sent) = (Vec::new(), 0);
        while host.poll_transmit(now, &mut packet) {
            to_host.on_packet(&std::mem::take(&mut packet));
            sent += 1;
        }
        while device.poll_transmit(now, &mut packet) {
            to_device.on_packet(&std::mem::take(&mut packet));
            sent += 1;
        }
        assert!(sent < 1_000, "it goes on sending");
    }
});
