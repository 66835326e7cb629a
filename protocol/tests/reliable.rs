//! A link that both ends were told loses nothing and keeps the order: nothing is repeated there, and what is missing all the same
//! ends the connection. Where only one end was told so, what is lost is repeated.

mod support;

use std::time::Duration;

use autoglm_protocol::segment::ReassemblyError;
use autoglm_protocol::wire::{CloseReason, Header, Kind};
use autoglm_protocol::{
    Config, Device, Host, HostEvent, LinkKind, LostReason, Reply, Request, Value,
};
use support::{DESCRIPTION, End, Faults, Pair};

const MTU: usize = 128;
const RELIABLE: LinkKind = LinkKind::ReliableDatagram { mtu: MTU };
const PLAIN: LinkKind = LinkKind::Datagram { mtu: MTU };

fn pair(host: LinkKind, device: LinkKind) -> Pair {
    let mut pair = Pair::with_machines(
        Host::new(Config::default(), host, 7, 1),
        Device::new(Config::default(), device, 9, 1, DESCRIPTION),
        PLAIN,
        Faults::NONE,
        0,
    );
    pair.connect();
    pair.run_for(Duration::from_secs(1));
    pair.sent.clear();
    pair.host_events.clear();
    pair.device_events.clear();
    pair
}

fn count(pair: &Pair, from: End, kind: Kind) -> usize {
    let packets = pair.sent.iter().filter(|(end, _)| *end == from);
    packets
        .filter(|(_, packet)| Kind::of(packet) == Ok(kind))
        .count()
}

fn lost(pair: &Pair) -> Option<LostReason> {
    pair.host_events.iter().find_map(|event| match event {
        HostEvent::Lost { reason } => Some(*reason),
        _ => None,
    })
}

/// Loses the next packet that `device` sends, which carries an event.
fn lose_an_event(pair: &mut Pair) -> u16 {
    pair.device
        .event(pair.now, "lost", Value::Null)
        .expect("there is room");
    let mut packet = Vec::new();
    assert!(pair.device.poll_transmit(pair.now, &mut packet));
    let (header, _) = Header::decode(&packet).expect("our own packet");
    assert_eq!(header.kind, Kind::Data);
    header.seq
}

#[test]
fn acknowledgements_are_few_and_nothing_is_repeated_however_long_they_take() {
    let mut trusting = pair(RELIABLE, RELIABLE);
    let mut repeating = pair(RELIABLE, PLAIN);
    for pair in [&mut trusting, &mut repeating] {
        // Far above any time-out.
        pair.faults.delay = Duration::from_secs(3);
        for number in 0..100 {
            pair.device
                .event(pair.now, "numbered", Value::Int(number))
                .expect("there is room");
        }
        pair.run_until("events", Duration::from_secs(300), |pair| {
            let is_event = |event: &&HostEvent| matches!(event, HostEvent::Event { .. });
            pair.host_events.iter().filter(is_event).count() == 100
        });
        pair.run_for(Duration::from_secs(9));
    }
    assert_eq!(trusting.device.stats().retransmissions, 0);
    assert_eq!(trusting.device.stats().timeouts, 0);
    // Ten packets an acknowledgement, with the default window, and one for the rest of each flight.
    let acknowledgements = count(&trusting, End::Host, Kind::Ack);
    assert!(acknowledgements <= 20, "{acknowledgements}");
    assert_eq!(count(&trusting, End::Device, Kind::Data), 100);
    assert!(
        repeating.device.stats().retransmissions > 0,
        "the link was slow enough"
    );
}

#[test]
fn a_missing_packet_ends_the_connection_as_a_violation_at_both_ends() {
    let mut pair = pair(RELIABLE, RELIABLE);
    let expected = lose_an_event(&mut pair);
    pair.device
        .event(pair.now, "next", Value::Null)
        .expect("there is room");
    pair.run_until("end", Duration::from_secs(1), |pair| lost(pair).is_some());
    let seq = expected.wrapping_add(1);
    let gap = ReassemblyError::Gap { expected, seq };
    assert_eq!(lost(&pair), Some(LostReason::Violation(gap)));
    let reason = LostReason::ClosedByPeer(CloseReason::ProtocolViolation);
    pair.run_until("close", Duration::from_secs(1), |pair| {
        let event = autoglm_protocol::DeviceEvent::Lost { reason };
        pair.device_events.contains(&event)
    });
    pair.connect();
}

#[test]
fn the_last_packet_is_missed_within_a_keep_alive_interval_and_a_round_trip() {
    let mut pair = pair(RELIABLE, RELIABLE);
    let expected = lose_an_event(&mut pair);
    let limit = Config::default().keep_alive + Duration::from_secs(1);
    let seq = expected.wrapping_add(1);
    let reason = LostReason::Violation(ReassemblyError::Gap { expected, seq });
    let event = autoglm_protocol::DeviceEvent::Lost { reason };
    pair.run_until("end", limit, |pair| pair.device_events.contains(&event));
}

#[test]
fn what_is_lost_is_repeated_where_one_end_was_not_told() {
    for (host, device) in [(RELIABLE, PLAIN), (PLAIN, RELIABLE)] {
        let mut pair = pair(host, device);
        lose_an_event(&mut pair);
        pair.run_until("the event", Duration::from_secs(10), |pair| {
            let is_event = |event: &HostEvent| matches!(event, HostEvent::Event { .. });
            pair.host_events.iter().any(is_event)
        });
        assert_eq!(lost(&pair), None);
    }
}

#[test]
fn every_window_is_acknowledged_in_time_for_the_next_segments() {
    for receive_window in [4, 8, 32, 64] {
        let config = Config {
            receive_window,
            ..Config::default()
        };
        let mut pair = Pair::with_machines(
            Host::new(config.clone(), RELIABLE, 7, 1),
            Device::new(config, RELIABLE, 9, 1, &vec![b'd'; 50_000]),
            PLAIN,
            Faults::NONE,
            0,
        );
        pair.connect();
        let from = pair.now;
        let reply = pair.ask(1, Request::Describe);
        assert!(matches!(reply, Ok(Reply::Description { .. })));
        // 420 segments of the least urgent channel, a round trip of 10 ms for each half of its window: were a single
        // acknowledgement to wait for its timer, each would take 500 ms.
        let took = pair.now.saturating_duration_since(from);
        let flight = u32::from((receive_window - 3 * (receive_window / 8).max(1)).div_ceil(2));
        let bound = Duration::from_millis(10) * (440 / flight) + Duration::from_millis(400);
        assert!(
            took <= bound,
            "window {receive_window}: {took:?}, {bound:?}"
        );
    }
}
