//! The handshakes and sealed messages of `tests/vectors/secure.txt`, which another implementation wrote.
extern crate std;

use alloc::vec::Vec;
use std::collections::BTreeMap;

use super::{Ciphers, EphemeralSource, Handshake, SecretKey, Security};
use crate::segment::Channel;
use crate::wire::Role;

const VECTORS: &str = include_str!("../../tests/vectors/secure.txt");
/// The messages of a channel that the vectors hold.
const NUMBERS: [u64; 5] = [0, 1, 1023, 1024, 2048];

fn vectors() -> BTreeMap<&'static str, Vec<u8>> {
    let lines = VECTORS.lines().filter(|line| !line.starts_with('#'));
    let row = |line: &'static str| {
        let (what, hex) = line.split_once(" | ").expect("`what | hex`");
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
        (what, (0..hex.len()).step_by(2).map(byte).collect())
    };
    lines.map(row).collect()
}

fn bytes(vectors: &BTreeMap<&str, Vec<u8>>, what: &str) -> [u8; 32] {
    vectors[what].as_slice().try_into().expect("32 bytes")
}

#[test]
fn handshakes_and_sealed_messages_are_those_of_the_vectors() {
    let vectors = vectors();
    let key = |what: &str| SecretKey::new(bytes(&vectors, what));
    let security = |kind: &str, end: &str, other: &str| match kind {
        "psk" => Security::Psk {
            key: key("psk"),
            seed: key(&std::format!("{end} seed")),
        },
        _ => Security::Mutual {
            key: key("psk"),
            private: key(&std::format!("{end} private")),
            peer: key(&std::format!("{other} private")).to_public(),
            seed: key(&std::format!("{end} seed")),
        },
    };
    for kind in ["psk", "mutual"] {
        let begin = |security: &Security, role| {
            Handshake::new(
                security,
                role,
                &mut EphemeralSource::new(),
                &vectors["prologue"],
            )
            .expect("with security there is a handshake")
        };
        let mut host = begin(&security(kind, "host", "device"), Role::Host);
        let mut device = begin(&security(kind, "device", "host"), Role::Device);
        let first = host.write().expect("written");
        assert_eq!(first, vectors[&*std::format!("{kind} first")]);
        device.read(&first).expect("genuine");
        let second = device.write().expect("written");
        assert_eq!(second, vectors[&*std::format!("{kind} second")]);
        host.read(&second).expect("genuine");
        let (mut host, mut device) = (host.finish(Role::Host), device.finish(Role::Device));
        check_sealed(kind, "host", &mut host, &mut device, &vectors);
        check_sealed(kind, "device", &mut device, &mut host, &vectors);
    }
}

fn check_sealed(
    kind: &str,
    from: &str,
    sealer: &mut Ciphers,
    opener: &mut Ciphers,
    vectors: &BTreeMap<&str, Vec<u8>>,
) {
    for channel in Channel::ALL {
        for number in 0..=2048 {
            let text = std::format!("{from} {} {number}", channel as u8);
            let mut message = text.clone().into_bytes();
            sealer.seal(channel, &mut message);
            if NUMBERS.contains(&number) {
                let what = std::format!("{kind} sealed {text}");
                assert_eq!(message, vectors[&*what], "{what}");
            }
            opener.open(channel, &mut message).expect("genuine");
            assert_eq!(message, text.into_bytes());
        }
    }
}
