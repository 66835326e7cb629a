//! Repeats cost a slow line dearly: where nothing is lost, next to nothing is repeated.

mod support;

use std::time::Duration;

use autoglm_protocol::{Config, Device, Host, LinkKind, Request, RequestId};
use support::{DESCRIPTION, Faults, Pair};

/// Fetches a description of 30,000 bytes; gives how many segments the device sent, and how many of them again.
fn fetch(link: LinkKind, faults: Faults, seed: u64) -> (u64, u64) {
    let host = Host::new(Config::default(), link, 7, 1);
    let document = DESCRIPTION.repeat(30_000 / DESCRIPTION.len());
    let device = Device::new(Config::default(), link, 9, 1, &document);
    let mut pair = Pair::with_machines(host, device, link, faults, seed);
    pair.connect();
    pair.host
        .request(
            pair.now,
            RequestId(1),
            Request::Describe,
            Duration::from_secs(600),
        )
        .expect("taken");
    pair.run_until("fetched", Duration::from_secs(600), |pair| {
        pair.reply(RequestId(1)).is_some()
    });
    let stats = pair.device.stats();
    (stats.segments_sent, stats.retransmissions)
}

/// This driver lets the line's buffer take everything, as drivers of operating systems do.
#[test]
fn a_slow_line_with_a_deep_buffer_repeats_nothing() {
    for bytes_per_second in [240, 960, 11_520, 92_160] {
        let faults = Faults {
            bytes_per_second: Some(bytes_per_second),
            ..Faults::NONE
        };
        let (segments, repeats) = fetch(LinkKind::Stream, faults, 1);
        assert_eq!(repeats, 0, "{bytes_per_second} B/s, {segments} segments");
    }
}

#[test]
fn a_link_that_reorders_repeats_little() {
    for seed in 0..20 {
        let faults = Faults {
            delay: Duration::from_millis(10),
            jitter: Duration::from_millis(60),
            ..Faults::NONE
        };
        let (segments, repeats) = fetch(LinkKind::Datagram { mtu: 100 }, faults, seed);
        println!("seed {seed}: {repeats} of {segments} segments repeated");
        assert!(
            repeats * 20 <= segments,
            "seed {seed}: {repeats} of {segments} segments repeated in vain"
        );
    }
}
