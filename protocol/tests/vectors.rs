//! The golden vectors fix the format: they were written by another encoder (`vectors/vectors.py`) and must never change
//! within a version.

use autoglm_protocol::frame::{StreamDecoder, encode_stream};
use autoglm_protocol::message::Message;
use autoglm_protocol::wire::{AckBody, Close, Header, Hello, Kind, SegmentHeader, WireError};

/// The lines `hex | meaning` of a vector file.
fn rows(file: &str) -> Vec<(Vec<u8>, String)> {
    let path = format!("{}/tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).expect("the vector file is there");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let rows: Vec<_> = lines
        .map(|line| line.split_once(" | ").expect("a line is `hex | meaning`"))
        .map(|(hex, meaning)| (bytes(hex), meaning.to_owned()))
        .collect();
    assert!(rows.len() > 5, "{file} has only {} rows", rows.len());
    rows
}

fn bytes(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hex"))
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

#[test]
fn packets_mean_what_the_vectors_say_and_encode_to_them() {
    for (packet, meaning) in rows("packets.txt") {
        assert_eq!(
            reencode(&packet),
            Ok((meaning, packet.clone())),
            "{packet:02x?}"
        );
    }
}

#[test]
fn bytes_that_are_no_packet_are_refused_as_the_vectors_say() {
    for (packet, error) in rows("rejected.txt") {
        let seen = reencode(&packet).map_err(|error| format!("{error:?}"));
        assert_eq!(seen, Err(error), "{packet:02x?}");
    }
}

#[test]
fn messages_mean_what_the_vectors_say_and_encode_to_them() {
    let rows = rows("messages.txt");
    for (message, meaning) in &rows {
        let seen = Message::from_bytes(message).expect(meaning);
        assert_eq!(&format!("{seen:?}"), meaning);
        assert_eq!(&seen.to_bytes(), message, "{meaning}");
    }
    for kind in 0..=Message::KIND_MAX {
        assert!(
            rows.iter()
                .any(|(message, _)| u64::from(message[1]) == kind),
            "kind {kind} has no vector"
        );
    }
}

#[test]
fn frames_hold_what_the_vectors_say_and_encode_to_them() {
    for (frame, packet) in rows("frames.txt") {
        let packet = bytes(&packet);
        let mut decoder = StreamDecoder::new(1024);
        assert_eq!(decoder.next_packet(&frame), Some((packet.clone(), &[][..])));
        let mut out = Vec::new();
        encode_stream(&packet, &mut out);
        assert_eq!(out, frame, "{packet:02x?}");
    }
}
