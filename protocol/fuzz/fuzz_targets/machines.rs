//! Any packets, right after a handshake or not, at any pace: no panic, no endless sending.
#![no_main]

use std::time::Duration;

use autoglm_protocol::wire::{Hello, Identity, Role, VersionRange};
use autoglm_protocol::{Config, Device, Host, Instant, LinkKind};
use libfuzzer_sys::fuzz_target;

const IDENTITY: Identity = Identity {
    boot_id: 1,
    epoch: 1,
};

fn hello(role: Role) -> Vec<u8> {
    let mut bytes = Vec::new();
    Hello {
        role,
        established: true,
        resume: false,
            reliable: false,
        versions: VersionRange::OURS,
        features: 0,
        identity: IDENTITY,
        mtu: 64,
        window: 8,
        max_message_log2: 8,
        heard: IDENTITY.token(),
    }
    .encode(&mut bytes);
    bytes
}

fuzz_target!(|packets: Vec<(u16, Vec<u8>)>| {
    let link = LinkKind::Datagram { mtu: 64 };
    let mut host = Host::new(Config::default(), link, IDENTITY.boot_id, IDENTITY.epoch);
    let mut device = Device::new(
        Config::default(),
        link,
        IDENTITY.boot_id,
        IDENTITY.epoch,
        b"{}",
    );
    let mut now = Instant::ZERO;
    host.handle_input(now, &hello(Role::Device));
    device.handle_input(now, &hello(Role::Host));
    for (millis, packet) in packets {
        now = now + Duration::from_millis(millis.into());
        host.handle_timeout(now);
        device.handle_timeout(now);
        host.handle_input(now, &packet);
        device.handle_input(now, &packet);
        while host.poll_event().is_some() || device.poll_event().is_some() {}
        let mut sent = 0;
        let mut out = Vec::new();
        while host.poll_transmit(now, &mut out) || device.poll_transmit(now, &mut out) {
            assert!(out.len() <= 64);
            out.clear();
            sent += 1;
            assert!(sent < 1_000, "it goes on sending");
        }
    }
});
