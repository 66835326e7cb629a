//! Any bytes in any two portions give the same packets as in one.
#![no_main]

use autoglm_protocol::frame::StreamDecoder;
use libfuzzer_sys::fuzz_target;

fn packets(decoder: &mut StreamDecoder, mut bytes: &[u8], packets: &mut Vec<Vec<u8>>) {
    while let Some((packet, rest)) = decoder.next_packet(bytes) {
        packets.push(packet);
        bytes = rest;
    }
}

fuzz_target!(|input: (u8, &[u8])| {
    let (cut, bytes) = input;
    let (head, tail) = bytes.split_at(usize::from(cut).min(bytes.len()));
    let (mut whole, mut parts) = (Vec::new(), Vec::new());
    packets(&mut StreamDecoder::new(64), bytes, &mut whole);
    let mut decoder = StreamDecoder::new(64);
    packets(&mut decoder, head, &mut parts);
    packets(&mut decoder, tail, &mut parts);
    assert_eq!(whole, parts);
});
