//! The golden vectors checked without a standard library: the test beside it and the freestanding program share this.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use autoglm_protocol::frame::{StreamDecoder, encode_stream};
use autoglm_protocol::message::{FaultCode, Message};
use autoglm_protocol::wire::{AckBody, Close, Header, Hello, Kind, SegmentHeader, WireError};

pub(crate) const PACKETS: &str = include_str!("packets.txt");
pub(crate) const REJECTED: &str = include_str!("rejected.txt");
pub(crate) const MESSAGES: &str = include_str!("messages.txt");
pub(crate) const REJECTED_MESSAGES: &str = include_str!("rejected_messages.txt");
pub(crate) const FRAMES: &str = include_str!("frames.txt");

/// The lines `hex | meaning` of a vector file.
pub(crate) fn rows(text: &str) -> Vec<(Vec<u8>, String)> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let rows: Vec<_> = lines
        .map(|line| line.split_once(" | ").expect("a line is `hex | meaning`"))
        .map(|(hex, meaning)| (bytes(hex), meaning.to_owned()))
        .collect();
    assert!(rows.len() > 5, "a vector file has only {} rows", rows.len());
    rows
}

fn bytes(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2);
    pairs
        .map(|pair| {
            u8::from_str_radix(core::str::from_utf8(pair).expect("ASCII"), 16).expect("hex")
        })
        .collect()
}

/// Decodes any packet; gives its meaning and its encoding anew.
fn reencode(packet: &[u8]) -> Result<(String, Vec<u8>), WireError> {
    let mut out = Vec::new();
    let meaning = match Kind::of(packet)? {
        Kind::Hello => {
            let hello = Hello::decode(packet)?;
            hello.encode(&mut out);
            format!("{hello:?}")
        }
        Kind::Close => {
            let close = Close::decode(packet)?;
            close.encode(&mut out);
            format!("{close:?}")
        }
        _ => {
            let (header, body) = Header::decode(packet)?;
            header.encode(&mut out);
            match header.kind {
                Kind::Data => {
                    let (segment, payload) = SegmentHeader::decode(body)?;
                    out.push(segment.channel_seq);
                    out.extend_from_slice(payload);
                    format!(
                        "{header:?} channel_seq {} payload {payload:?}",
                        segment.channel_seq
                    )
                }
                Kind::Ack | Kind::Pong => {
                    let body = AckBody::decode(body)?;
                    body.encode(&mut out);
                    format!("{header:?} {body:?}")
                }
                _ => format!("{header:?}"),
            }
        }
    };
    Ok((meaning, out))
}

/// Packets mean what the vectors say and encode to them; gives how many.
pub(crate) fn packets() -> usize {
    let rows = rows(PACKETS);
    for (packet, meaning) in &rows {
        assert_eq!(
            reencode(packet),
            Ok((meaning.clone(), packet.clone())),
            "{packet:02x?}"
        );
    }
    rows.len()
}

/// Bytes that are no packet are refused as the vectors say; gives how many.
pub(crate) fn rejected() -> usize {
    let rows = rows(REJECTED);
    for (packet, error) in &rows {
        let seen = reencode(packet).map_err(|error| format!("{error:?}"));
        assert_eq!(seen, Err(error.clone()), "{packet:02x?}");
    }
    rows.len()
}

/// A kind below 24 stands in one byte.
fn kind_of(message: &[u8]) -> u64 {
    u64::from(message[1])
}

/// Messages mean what the vectors say and encode to them, and every kind and every fault has one; gives how many.
pub(crate) fn messages() -> usize {
    let rows = rows(MESSAGES);
    for (message, meaning) in &rows {
        let seen = Message::from_bytes(message).expect(meaning);
        assert_eq!(&format!("{seen:?}"), meaning);
        assert_eq!(&seen.to_bytes(), message, "{meaning}");
    }
    for kind in 0..=Message::KIND_MAX {
        assert!(
            rows.iter().any(|(message, _)| kind_of(message) == kind),
            "kind {kind} has no vector"
        );
    }
    for code in FaultCode::NAMED {
        let code = format!("code: {},", code.to_u16());
        assert!(
            rows.iter().any(|(_, meaning)| meaning.contains(&code)),
            "the fault of {code} has no vector"
        );
    }
    rows.len()
}

/// Bytes that are no message are refused as the vectors say; gives how many.
pub(crate) fn rejected_messages() -> usize {
    let rows = rows(REJECTED_MESSAGES);
    for (message, error) in &rows {
        let seen = Message::from_bytes(message).map_err(|error| format!("{error:?}"));
        assert_eq!(seen, Err(error.clone()), "{message:02x?}");
    }
    rows.len()
}

/// Frames hold what the vectors say and encode to them; gives how many.
pub(crate) fn frames() -> usize {
    let rows = rows(FRAMES);
    for (frame, packet) in &rows {
        let packet = bytes(packet);
        let mut decoder = StreamDecoder::new(1024);
        assert_eq!(decoder.next_packet(frame), Some((packet.clone(), &[][..])));
        let mut out = Vec::new();
        encode_stream(&packet, &mut out);
        assert_eq!(&out, frame, "{packet:02x?}");
    }
    rows.len()
}
