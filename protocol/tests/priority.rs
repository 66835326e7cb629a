//! What bulk data may cost the others: one segment, and no waiting for its repairs.

mod support;

use std::time::Duration;

use autoglm_protocol::segment::Channel;
use autoglm_protocol::wire::{Header, Kind};
use autoglm_protocol::{
    Config, Device, DeviceEvent, Host, HostEvent, LinkKind, Reply, Request, RequestId, Value,
};
use support::{Faults, Pair};

const MTU: usize = 100;

/// A connected pair whose device has an invocation open and a long description to send, none of it sent yet.
fn pair_with_bulk_waiting() -> Pair {
    let link = LinkKind::Datagram { mtu: MTU };
    let host = Host::new(Config::default(), link, 7, 1);
    let device = Device::new(Config::default(), link, 9, 1, &vec![b'd'; 50_000]);
    let mut pair = Pair::with_machines(host, device, link, Faults::NONE, 0);
    pair.answers = false;
    pair.connect();
    let invoke = Request::Invoke {
        action: "echo".into(),
        input: Value::Null,
    };
    pair.host
        .request(pair.now, RequestId(1), invoke, Duration::from_secs(60))
        .expect("taken");
    pair.run_until("invoked", Duration::from_secs(1), |pair| {
        pair.device_events
            .iter()
            .any(|event| matches!(event, DeviceEvent::Invoke { .. }))
    });
    pair.host
        .request(
            pair.now,
            RequestId(2),
            Request::Describe,
            Duration::from_secs(60),
        )
        .expect("taken");
    while let Some(packet) = next(&mut pair.host, pair.now) {
        pair.device.handle_input(pair.now, &packet);
    }
    pair
}

fn next(host: &mut Host, now: autoglm_protocol::Instant) -> Option<Vec<u8>> {
    let mut packet = Vec::new();
    host.poll_transmit(now, &mut packet).then_some(packet)
}

fn next_data_channel(pair: &mut Pair) -> Option<Channel> {
    let mut packet = Vec::new();
    while pair.device.poll_transmit(pair.now, &mut packet) {
        let (header, _) = Header::decode(&packet).expect("our own packet");
        if header.kind == Kind::Data {
            return Some(header.flags.channel);
        }
        packet.clear();
    }
    None
}

#[test]
fn a_result_goes_before_all_waiting_bulk_segments() {
    let mut pair = pair_with_bulk_waiting();
    let mut bulk_segments = 0;
    while let Some(channel) = next_data_channel(&mut pair) {
        assert_eq!(channel, Channel::Bulk);
        bulk_segments += 1;
    }
    assert!(
        bulk_segments >= 4,
        "only {bulk_segments} bulk segments may be on their way"
    );
    pair.device
        .respond(pair.now, RequestId(1), Ok(Value::Null))
        .expect("running");
    assert_eq!(
        next_data_channel(&mut pair),
        Some(Channel::Command),
        "although bulk waits and has taken what it may"
    );
}

#[test]
fn a_result_goes_before_the_repeats_of_lost_bulk_segments() {
    let mut pair = pair_with_bulk_waiting();
    while next_data_channel(&mut pair).is_some() {}
    // Nothing is acknowledged: the oldest bulk segment is due again.
    pair.now = pair.device.poll_timeout().expect("a retransmission is due");
    pair.device.handle_timeout(pair.now);
    pair.device
        .respond(pair.now, RequestId(1), Ok(Value::Null))
        .expect("running");
    assert_eq!(next_data_channel(&mut pair), Some(Channel::Command));
    assert_eq!(
        next_data_channel(&mut pair),
        Some(Channel::Bulk),
        "the repeat comes next"
    );
}

#[test]
fn a_result_does_not_wait_for_a_lost_bulk_segment() {
    let mut pair = pair_with_bulk_waiting();
    let mut packet = Vec::new();
    assert_eq!(
        next_data_channel(&mut pair),
        Some(Channel::Bulk),
        "this one is lost"
    );
    pair.device
        .respond(pair.now, RequestId(1), Ok(Value::Int(5)))
        .expect("running");
    assert!(pair.device.poll_transmit(pair.now, &mut packet));
    pair.host.handle_input(pair.now, &packet);
    let mut events = std::iter::from_fn(|| pair.host.poll_event());
    let wanted = HostEvent::Reply {
        id: RequestId(1),
        result: Ok(Reply::Done(Value::Int(5))),
    };
    assert!(
        events.any(|event| event == wanted),
        "the result stands behind the gap and is told at once"
    );
}
