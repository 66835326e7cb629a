//! Frames off a byte stream: whatever the portions and whatever the noise.

use autoglm_protocol::frame::{StreamDecoder, crc32c, encode_stream};
use proptest::collection::vec;
use proptest::prelude::*;

const MTU: usize = 64;

fn decode(decoder: &mut StreamDecoder, mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    while let Some((packet, rest)) = decoder.next_packet(bytes) {
        packets.push(packet);
        bytes = rest;
    }
    packets
}

fn packets() -> impl Strategy<Value = Vec<Vec<u8>>> {
    // Zeros are what COBS is about: make them common.
    let byte = prop_oneof![Just(0u8), Just(0xff), any::<u8>()];
    vec(vec(byte, 1..=MTU), 1..6)
}

proptest! {
    #[test]
    fn any_split_gives_the_same_packets(packets in packets(), cuts in vec(any::<prop::sample::Index>(), 0..12)) {
        let mut stream = Vec::new();
        packets.iter().for_each(|packet| encode_stream(packet, &mut stream));
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let mut decoder = StreamDecoder::new(MTU);
        let mut seen = Vec::new();
        for ends in cuts.windows(2) {
            seen.extend(decode(&mut decoder, &stream[ends[0]..ends[1]]));
        }
        prop_assert_eq!(seen, packets);
    }

    #[test]
    fn any_garbage_followed_by_a_delimiter_costs_no_packet(
        garbage in vec(any::<u8>(), 0..400), packets in packets(),
    ) {
        let mut stream = garbage.clone();
        stream.push(0);
        packets.iter().for_each(|packet| encode_stream(packet, &mut stream));
        let seen = decode(&mut StreamDecoder::new(MTU), &stream);
        prop_assert!(seen.ends_with(&packets), "{:?} does not end with {:?}", seen, packets);
    }

    #[test]
    fn one_changed_byte_never_gives_another_packet(
        packet in vec(any::<u8>(), 1..=MTU), at in any::<prop::sample::Index>(), change in 1..=255u8,
    ) {
        let mut stream = Vec::new();
        encode_stream(&packet, &mut stream);
        let at = at.index(stream.len());
        stream[at] ^= change;
        // Whatever follows may be swallowed with it; one delimiter ends that.
        stream.push(0);
        let seen = decode(&mut StreamDecoder::new(MTU), &stream);
        prop_assert!(seen.iter().all(|seen| *seen == packet), "{:?} from {:?}", seen, packet);
    }

    #[test]
    fn a_frame_has_no_zero_but_its_last_byte(packet in vec(any::<u8>(), 1..2_000)) {
        let mut stream = Vec::new();
        encode_stream(&packet, &mut stream);
        prop_assert_eq!(stream.iter().position(|byte| *byte == 0), Some(stream.len() - 1));
        let overhead = stream.len() - packet.len();
        prop_assert!(overhead <= 4 + (packet.len() + 4).div_ceil(254) + 1, "overhead {}", overhead);
    }
}

#[test]
fn every_kind_of_bad_input_has_its_counter() {
    let mut decoder = StreamDecoder::new(MTU);
    let mut stream = vec![5, 1, 2, 0]; // announces more bytes than there are
    stream.extend([2, 7, 0]); // one byte: no room for a checksum
    stream.extend([7, 1, 2, 3, 4, 5, 6, 0]); // a wrong checksum
    stream.extend([1; 500]);
    stream.push(0);
    stream.extend([0, 0, 0]); // delimiters alone are no fault
    encode_stream(b"good", &mut stream);
    encode_stream(&[1; MTU], &mut stream);
    encode_stream(&[1; MTU + 8], &mut stream);
    encode_stream(b"good", &mut stream);
    let seen = decode(&mut decoder, &stream);
    assert_eq!(seen, [b"good".to_vec(), vec![1; MTU], b"good".to_vec()]);
    let stats = decoder.stats();
    assert_eq!(
        (
            stats.bad_cobs,
            stats.too_short,
            stats.bad_crc,
            stats.too_long
        ),
        (1, 1, 1, 2)
    );
    assert_eq!(stats.packets, 3);
}

proptest! {
    /// Long runs without a zero, and zeros at the ends of blocks, are where COBS goes wrong.
    #[test]
    fn frames_are_those_of_the_cobs_crate(runs in vec((0usize..600, 0usize..3), 0..8)) {
        let packet: Vec<u8> = runs
            .iter()
            .flat_map(|&(length, zeros)| [vec![0xA5; length], vec![0; zeros]].concat())
            .collect();
        let checked = [packet.clone(), crc32c(&packet).to_le_bytes().to_vec()].concat();
        let mut frame = Vec::new();
        encode_stream(&packet, &mut frame);
        prop_assert_eq!(frame.pop(), Some(0));
        prop_assert_eq!(cobs::encode_vec(&checked), frame);
    }
}
