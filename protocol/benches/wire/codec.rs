//! Message to bytes on the line and back: our formats, postcard-rpc's COBS wire, and the least that anybody could do.
//!
//! postcard-rpc is run as its serial client runs it (`host_client/serial.rs`, release 0.12): header and body in one vector,
//! COBS into a second, and its own accumulator at the other end. It has no checksum.

use autoglm_protocol::frame::{StreamDecoder, encode_stream};
use autoglm_protocol::message::{Data, Message};
use autoglm_protocol::segment::Channel;
use autoglm_protocol::wire::{Flags, Header, Kind, SegmentHeader};
use postcard_rpc::accumulator::raw::{CobsAccumulator, FeedResult};
use postcard_rpc::header::{VarHeader, VarKey, VarSeq};
use serde::{Deserialize, Serialize, Serializer};

use super::Contender;

const NAME: &str = "sample";

pub(crate) struct Ours {
    packet: Vec<u8>,
    line: Vec<u8>,
    decoder: StreamDecoder,
}

impl Default for Ours {
    fn default() -> Self {
        Self {
            packet: Vec::new(),
            line: Vec::new(),
            decoder: StreamDecoder::new(8_192),
        }
    }
}

impl Contender for Ours {
    fn name(&self) -> &'static str {
        "ours: message, packet, frame"
    }

    fn carry(&mut self, payload: &[u8]) -> usize {
        let message = Message::Event {
            name: NAME.into(),
            data: payload.into(),
        };
        self.packet.clear();
        self.line.clear();
        put_header(&mut self.packet);
        message.encode_into(&mut self.packet);
        encode_stream(&self.packet, &mut self.line);

        let (packet, _) = self.decoder.next_packet(&self.line).expect("a whole frame");
        let (_, body) = Header::decode(&packet).expect("our header");
        let (_, body) = SegmentHeader::decode(body).expect("our segment");
        let message = Message::from_bytes(body).expect("our message");
        let Message::Event {
            name,
            data: Data::Bytes(data),
        } = message
        else {
            panic!("another message")
        };
        assert_eq!((name.len(), data.len()), (NAME.len(), payload.len()));
        self.decoder.recycle(packet);
        self.line.len()
    }
}

/// Packet and frame alone: what the plain loop is to be compared with.
#[derive(Default)]
pub(crate) struct OursBelowMessages(Ours);

impl Contender for OursBelowMessages {
    fn name(&self) -> &'static str {
        "ours: packet, frame"
    }

    fn carry(&mut self, payload: &[u8]) -> usize {
        let ours = &mut self.0;
        ours.packet.clear();
        ours.line.clear();
        put_header(&mut ours.packet);
        ours.packet.extend_from_slice(payload);
        encode_stream(&ours.packet, &mut ours.line);

        let (packet, _) = ours.decoder.next_packet(&ours.line).expect("a whole frame");
        let (_, body) = Header::decode(&packet).expect("our header");
        let (_, body) = SegmentHeader::decode(body).expect("our segment");
        assert_eq!(body.len(), payload.len());
        ours.decoder.recycle(packet);
        ours.line.len()
    }
}

fn put_header(packet: &mut Vec<u8>) {
    let flags = Flags {
        start: true,
        end: true,
        channel: Channel::Event,
    };
    let kind = Kind::Data;
    let (tag, seq, ack) = (1, 2, 3);
    Header {
        kind,
        flags,
        tag,
        seq,
        ack,
    }
    .encode(packet);
    packet.push(4);
}

/// Bytes as postcard writes them fastest.
struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

#[derive(Serialize)]
struct Outgoing<'a> {
    name: &'a str,
    data: Bytes<'a>,
}

#[derive(Deserialize)]
struct Incoming<'a> {
    name: &'a str,
    data: &'a [u8],
}

pub(crate) struct PostcardRpc {
    accumulator: Box<CobsAccumulator<8_192>>,
}

impl Default for PostcardRpc {
    fn default() -> Self {
        Self {
            accumulator: Box::new(CobsAccumulator::new()),
        }
    }
}

impl Contender for PostcardRpc {
    fn name(&self) -> &'static str {
        "postcard-rpc 0.12 (no checksum)"
    }

    fn carry(&mut self, payload: &[u8]) -> usize {
        let header = VarHeader {
            key: VarKey::Key8(postcard_rpc::Key::for_path::<u8>(NAME)),
            seq_no: VarSeq::Seq2(7),
        };
        let mut head = [0; 16];
        let (used, _) = header.write_to_slice(&mut head).expect("it fits");
        let body = Outgoing {
            name: NAME,
            data: Bytes(payload),
        };
        let data = postcard::to_extend(&body, used.to_vec()).expect("it is encodable");
        let mut line = cobs::encode_vec(&data);
        line.push(0);

        let FeedResult::Success { data, .. } = self.accumulator.feed(&line) else {
            panic!("no frame")
        };
        let (_, body) = VarHeader::take_from_slice(data).expect("its header");
        let body: Incoming<'_> = postcard::from_bytes(body).expect("its body");
        assert_eq!(
            (body.name.len(), body.data.len()),
            (NAME.len(), payload.len())
        );
        line.len()
    }
}

/// Payload and CRC-32C in COBS, by the crates of those names, and nothing else.
pub(crate) struct PlainCobsCrc;

static CRC: crc::Crc<u32, crc::Table<16>> =
    crc::Crc::<u32, crc::Table<16>>::new(&crc::CRC_32_ISCSI);

impl Contender for PlainCobsCrc {
    fn name(&self) -> &'static str {
        "plain cobs + crc"
    }

    fn carry(&mut self, payload: &[u8]) -> usize {
        let mut checked = Vec::with_capacity(payload.len() + 4);
        checked.extend_from_slice(payload);
        checked.extend_from_slice(&CRC.checksum(payload).to_le_bytes());
        let mut line = cobs::encode_vec(&checked);
        line.push(0);

        let wire = line.len();
        let end = line.iter().position(|byte| *byte == 0).expect("delimited");
        line.truncate(end);
        let decoded = cobs::decode_in_place(&mut line).expect("ours");
        line.truncate(decoded);
        let (data, check) = line.split_at(decoded - 4);
        assert_eq!(CRC.checksum(data).to_le_bytes(), check);
        wire
    }
}
