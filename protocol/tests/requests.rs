//! What a device promises about requests: at most once, remembered, observed.

mod support;

use std::time::Duration;

use autoglm_protocol::message::Message;
use autoglm_protocol::{
    Config, DeliveryState, Device, DeviceEvent, Fault, FaultCode, Host, HostEvent, LinkKind,
    LogLevel, Reply, Request, RequestError, RequestFailure, RequestId, SendError, Value,
};
use support::{Faults, Pair};

const DATAGRAM: LinkKind = LinkKind::Datagram { mtu: 244 };
const DEADLINE: Duration = Duration::from_secs(30);

fn invoke(text: &str) -> Request {
    Request::Invoke {
        action: "echo".into(),
        input: text.into(),
    }
}

fn fault(code: FaultCode) -> Option<Result<Reply, RequestFailure>> {
    Some(Err(RequestFailure::Fault(Fault::new(code, ""))))
}

/// Ends the connection from the host's side as a restart of the port does, and connects again.
fn reconnect(pair: &mut Pair, epoch: u32) {
    pair.host = Host::new(Config::default(), pair.link, 0xA0A0_0001, epoch);
    pair.cut();
    pair.host_events.clear();
    pair.connect();
}

fn invocations(pair: &Pair) -> usize {
    pair.device_events
        .iter()
        .filter(|event| matches!(event, DeviceEvent::Invoke { .. }))
        .count()
}

#[test]
fn a_request_repeated_after_a_reconnection_gets_the_remembered_result() {
    let mut pair = Pair::new(DATAGRAM, Faults::NONE, 1);
    pair.connect();
    assert_eq!(pair.ask(1, invoke("a")), Ok(Reply::Done("a".into())));
    reconnect(&mut pair, 2);
    assert_eq!(pair.ask(1, invoke("a")), Ok(Reply::Done("a".into())));
    assert_eq!(invocations(&pair), 1);
    assert_eq!(pair.device.stats().repeated_requests, 1);
}

#[test]
fn a_request_still_running_at_the_reconnection_is_answered_to_the_one_who_asks_again() {
    let mut pair = Pair::new(DATAGRAM, Faults::NONE, 1);
    pair.answers = false;
    pair.connect();
    pair.host
        .request(pair.now, RequestId(1), invoke("a"), DEADLINE)
        .expect("taken");
    pair.run_until("invoked", DEADLINE, |pair| invocations(pair) == 1);
    reconnect(&mut pair, 2);
    pair.host
        .request(pair.now, RequestId(1), invoke("a"), DEADLINE)
        .expect("taken");
    pair.run_for(Duration::from_secs(1));
    pair.device
        .respond(pair.now, RequestId(1), Ok(Value::Int(7)))
        .expect("running");
    pair.run_until("reply", DEADLINE, |pair| pair.reply(RequestId(1)).is_some());
    assert_eq!(
        pair.reply(RequestId(1)),
        Some(Ok(Reply::Done(Value::Int(7))))
    );
    assert_eq!(invocations(&pair), 1);
}

#[test]
fn a_result_given_while_nobody_is_connected_waits() {
    let mut pair = Pair::new(DATAGRAM, Faults::NONE, 1);
    pair.answers = false;
    pair.connect();
    pair.host
        .request(pair.now, RequestId(1), invoke("a"), DEADLINE)
        .expect("taken");
    pair.run_until("invoked", DEADLINE, |pair| invocations(pair) == 1);
    pair.host.close(pair.now);
    pair.run_for(Duration::from_secs(1));
    pair.device
        .respond(pair.now, RequestId(1), Ok(Value::Int(7)))
        .expect("running");
    reconnect(&mut pair, 2);
    pair.answers = true;
    assert_eq!(pair.ask(1, invoke("a")), Ok(Reply::Done(Value::Int(7))));
    assert_eq!(invocations(&pair), 1);
}

#[test]
fn an_id_used_for_another_request_is_refused_unexecuted() {
    let mut pair = Pair::new(DATAGRAM, Faults::NONE, 1);
    pair.connect();
    pair.ask(1, invoke("a")).expect("answered");
    assert_eq!(Some(pair.ask(1, invoke("b"))), fault(FaultCode::IdReused));
    assert_eq!(invocations(&pair), 1);
}

#[test]
fn a_large_result_is_given_once_and_then_known_as_forgotten() {
    let mut pair = Pair::new(DATAGRAM, Faults::NONE, 1);
    pair.connect();
    let large = "x".repeat(2_000);
    assert_eq!(
        pair.ask(1, invoke(&large)),
        Ok(Reply::Done(large.as_str().into()))
    );
    assert_eq!(
        Some(pair.ask(1, invoke(&large))),
        fault(FaultCode::ResultForgotten)
    );
    assert_eq!(invocations(&pair), 1);
}

#[test]
fn a_host_that_was_restarted_and_asks_again_gets_the_remembered_result() {
    let mut pair = Pair::new(DATAGRAM, Faults::NONE, 1);
    pair.connect();
    assert_eq!(pair.ask(1, invoke("a")), Ok(Reply::Done("a".into())));
    let write = || Request::Write {
        property: "level".into(),
        value: Value::Int(3),
    };
    assert_eq!(pair.ask(2, write()), Ok(Reply::Done(Value::Null)));
    for boot_id in [0xA0A0_0002, 0xA0A0_0003] {
        pair.host = Host::new(Config::default(), pair.link, boot_id, 1);
        pair.cut();
        pair.host_events.clear();
        pair.connect();
        assert_eq!(pair.ask(1, invoke("a")), Ok(Reply::Done("a".into())));
        assert_eq!(pair.ask(2, write()), Ok(Reply::Done(Value::Null)));
    }
    assert!(pair.executed.values().all(|times| *times == 1));
    assert_eq!(pair.executed.len(), 2);
    assert_eq!(pair.device.stats().repeated_requests, 4);
}

#[test]
fn a_result_of_the_greatest_remembered_size_is_kept_and_one_byte_more_is_not() {
    let limit = Config::default().remembered_result_bytes;
    let size = |text: &str| {
        let (id, value) = (1, text.into());
        let (code, text) = (0, None);
        let result = Message::Result {
            id,
            code,
            value,
            text,
        };
        result.to_bytes().len()
    };
    let overhead = size(&"x".repeat(500)) - 500;
    for (bytes, is_kept) in [(limit - overhead, true), (limit - overhead + 1, false)] {
        let mut pair = Pair::new(DATAGRAM, Faults::NONE, 1);
        pair.connect();
        let text = "x".repeat(bytes);
        assert_eq!(size(&text) <= limit, is_kept);
        let done = Ok(Reply::Done(text.as_str().into()));
        assert_eq!(pair.ask(1, invoke(&text)), done);
        reconnect(&mut pair, 2);
        let expected = match is_kept {
            true => Some(done),
            false => fault(FaultCode::ResultForgotten),
        };
        assert_eq!(Some(pair.ask(1, invoke(&text))), expected);
        assert_eq!(invocations(&pair), 1);
    }
}

#[test]
fn a_memory_full_of_what_nobody_heard_refuses_news_and_still_answers_what_it_has() {
    let config = Config {
        request_memory_max: 4,
        ..Config::default()
    };
    let mut pair = Pair::with_config(DATAGRAM, Faults::NONE, 1, config);
    pair.answers = false;
    pair.connect();
    for id in 1..=4 {
        pair.host
            .request(pair.now, RequestId(id), invoke("a"), DEADLINE)
            .expect("taken");
    }
    pair.run_until("invoked", DEADLINE, |pair| invocations(pair) == 4);
    // The host is gone before any answer; then another start of it asks for old and new.
    pair.cut();
    pair.host = Host::new(Config::default(), pair.link, 0xA0A0_0002, 1);
    for id in 1..=4 {
        pair.device
            .respond(pair.now, RequestId(id), Ok(Value::Int(id as i64)))
            .expect("running");
    }
    pair.host_events.clear();
    pair.connect();
    assert_eq!(Some(pair.ask(5, invoke("a"))), fault(FaultCode::Busy));
    for id in 1..=4 {
        let remembered = Ok(Reply::Done(Value::Int(id as i64)));
        assert_eq!(pair.ask(id, invoke("a")), remembered);
    }
    pair.answers = true;
    assert_eq!(
        pair.ask(6, invoke("a")),
        Ok(Reply::Done("a".into())),
        "heard answers make room"
    );
    assert_eq!(invocations(&pair), 5);
}

#[test]
fn a_full_memory_refuses_before_it_forgets_what_runs_or_was_not_received() {
    let config = Config {
        request_memory_max: 4,
        ..Config::default()
    };
    let mut pair = Pair::with_config(DATAGRAM, Faults::NONE, 1, config);
    pair.answers = false;
    pair.connect();
    for id in 1..=5 {
        pair.host
            .request(pair.now, RequestId(id), invoke("a"), DEADLINE)
            .expect("taken");
    }
    pair.run_for(Duration::from_secs(1));
    assert_eq!(invocations(&pair), 4);
    assert_eq!(pair.reply(RequestId(5)), fault(FaultCode::Busy));
    for id in 1..=4 {
        pair.device
            .respond(pair.now, RequestId(id), Ok(Value::Int(id as i64)))
            .expect("running");
    }
    pair.run_for(Duration::from_secs(1));
    // Received answers make room, the oldest first.
    pair.answers = true;
    pair.ask(6, invoke("a")).expect("answered");
    assert_eq!(
        pair.ask(4, invoke("a")),
        Ok(Reply::Done(Value::Int(4))),
        "remembered"
    );
    assert_eq!(pair.device.stats().repeated_requests, 1);
}

#[test]
fn more_requests_than_the_memory_holds_are_all_executed_once_one_after_the_other() {
    let mut pair = Pair::new(
        DATAGRAM,
        Faults {
            loss: 0.2,
            ..Faults::NONE
        },
        11,
    );
    pair.connect();
    for id in 0..300 {
        assert_eq!(
            pair.ask(id, invoke("a")),
            Ok(Reply::Done("a".into())),
            "request {id}"
        );
    }
    assert!(pair.executed.values().all(|times| *times == 1));
    assert_eq!(pair.executed.len(), 300);
}

#[test]
fn an_observed_property_is_told_and_an_unobserved_one_is_not() {
    let mut pair = Pair::new(LinkKind::Stream, Faults::NONE, 1);
    pair.connect();
    let changes = |pair: &Pair| {
        pair.host_events
            .iter()
            .filter(|event| matches!(event, HostEvent::PropertyChanged { .. }))
            .count()
    };
    pair.device
        .property_changed(pair.now, "p", Value::Int(1))
        .expect("nothing to do");
    pair.run_for(Duration::from_secs(1));
    assert_eq!(changes(&pair), 0);
    let first = pair.ask(
        1,
        Request::Observe {
            property: "p".into(),
        },
    );
    assert_eq!(first, Ok(Reply::Value("value of p".into())));
    pair.device
        .property_changed(pair.now, "p", Value::Int(2))
        .expect("room");
    pair.device
        .property_changed(pair.now, "q", Value::Int(2))
        .expect("nothing to do");
    pair.run_for(Duration::from_secs(1));
    assert_eq!(changes(&pair), 1);
    pair.ask(
        2,
        Request::Unobserve {
            property: "p".into(),
        },
    )
    .expect("done");
    pair.device
        .property_changed(pair.now, "p", Value::Int(3))
        .expect("nothing to do");
    pair.run_for(Duration::from_secs(1));
    assert_eq!(changes(&pair), 1);
}

#[test]
fn a_refused_observation_does_not_observe() {
    let mut pair = Pair::new(LinkKind::Stream, Faults::NONE, 1);
    pair.answers = false;
    pair.connect();
    pair.host
        .request(
            pair.now,
            RequestId(1),
            Request::Observe {
                property: "p".into(),
            },
            DEADLINE,
        )
        .expect("taken");
    pair.run_for(Duration::from_secs(1));
    let refusal = Fault::new(FaultCode::UnknownAffordance, "no such property");
    pair.device
        .respond(pair.now, RequestId(1), Err(refusal.clone()))
        .expect("running");
    pair.device
        .property_changed(pair.now, "p", Value::Int(3))
        .expect("nothing to do");
    pair.run_for(Duration::from_secs(1));
    assert_eq!(
        pair.reply(RequestId(1)),
        Some(Err(RequestFailure::Fault(refusal)))
    );
    assert!(
        !pair
            .host_events
            .iter()
            .any(|event| matches!(event, HostEvent::PropertyChanged { .. }))
    );
}

#[test]
fn progress_log_and_events_come_in_order_and_progress_before_the_result() {
    let mut pair = Pair::new(
        LinkKind::Stream,
        Faults {
            loss: 0.3,
            ..Faults::NONE
        },
        5,
    );
    pair.answers = false;
    pair.connect();
    pair.host
        .request(pair.now, RequestId(1), invoke("a"), DEADLINE)
        .expect("taken");
    pair.run_until("invoked", DEADLINE, |pair| invocations(pair) == 1);
    pair.device
        .log(pair.now, LogLevel::Warn, &"ü".repeat(1_000))
        .expect("room");
    for percent in [10, 50] {
        pair.device
            .progress(pair.now, RequestId(1), Value::Int(percent))
            .expect("room");
    }
    pair.device
        .respond(pair.now, RequestId(1), Ok(Value::Null))
        .expect("running");
    pair.run_for(DEADLINE);
    let about_request: Vec<_> = pair
        .host_events
        .iter()
        .filter(|event| !matches!(event, HostEvent::Connected { .. } | HostEvent::Log { .. }))
        .cloned()
        .collect();
    let id = RequestId(1);
    assert_eq!(
        about_request,
        [
            HostEvent::Accepted { id },
            HostEvent::Progress {
                id,
                value: Value::Int(10)
            },
            HostEvent::Progress {
                id,
                value: Value::Int(50)
            },
            HostEvent::Reply {
                id,
                result: Ok(Reply::Done(Value::Null))
            },
        ]
    );
    let log = HostEvent::Log {
        level: LogLevel::Warn,
        text: "ü".repeat(512),
    };
    assert!(pair.host_events.contains(&log), "{:?}", pair.host_events);
}

#[test]
fn a_deadline_that_passes_says_that_the_device_has_the_request_and_cancels_it() {
    let mut pair = Pair::new(LinkKind::Stream, Faults::NONE, 5);
    pair.answers = false;
    pair.connect();
    pair.host
        .request(pair.now, RequestId(1), invoke("a"), Duration::from_secs(2))
        .expect("taken");
    let asked_at = pair.now;
    pair.run_until("reply", DEADLINE, |pair| pair.reply(RequestId(1)).is_some());
    assert_eq!(pair.now - asked_at, Duration::from_secs(2));
    let failure = RequestFailure::DeadlineExceeded {
        delivered: DeliveryState::Delivered,
    };
    assert_eq!(pair.reply(RequestId(1)), Some(Err(failure)));
    pair.run_for(Duration::from_secs(1));
    assert!(
        pair.device_events
            .contains(&DeviceEvent::Cancel { id: RequestId(1) })
    );
    pair.device
        .respond(pair.now, RequestId(1), Ok(Value::Null))
        .expect("running");
    pair.run_for(Duration::from_secs(1));
    assert_eq!(pair.host.stats().late_replies, 1);
}

#[test]
fn a_request_cancelled_before_it_was_sent_never_reaches_the_device() {
    let mut pair = Pair::new(LinkKind::Stream, Faults::NONE, 5);
    pair.connect();
    pair.host
        .request(pair.now, RequestId(1), invoke("a"), DEADLINE)
        .expect("taken");
    pair.host.cancel(pair.now, RequestId(1));
    pair.run_for(DEADLINE);
    assert_eq!(
        pair.reply(RequestId(1)),
        Some(Err(RequestFailure::Cancelled))
    );
    assert_eq!(invocations(&pair), 0);
}

#[test]
fn a_request_cancelled_on_its_way_is_still_answered_by_the_device() {
    let mut pair = Pair::new(LinkKind::Stream, Faults::NONE, 5);
    pair.answers = false;
    pair.connect();
    pair.host
        .request(pair.now, RequestId(1), invoke("a"), DEADLINE)
        .expect("taken");
    pair.drain();
    pair.host.cancel(pair.now, RequestId(1));
    pair.run_for(Duration::from_secs(1));
    assert_eq!(
        pair.device_events.last(),
        Some(&DeviceEvent::Cancel { id: RequestId(1) })
    );
    let refusal = Err(Fault::new(FaultCode::Cancelled, ""));
    pair.device
        .respond(pair.now, RequestId(1), refusal)
        .expect("running");
    pair.run_for(Duration::from_secs(1));
    assert_eq!(pair.reply(RequestId(1)), fault(FaultCode::Cancelled));
}

#[test]
fn a_description_longer_than_a_message_comes_in_parts_and_is_checked() {
    let document: Vec<u8> = (0..5_000u32).flat_map(u32::to_le_bytes).collect();
    let small = Config {
        max_message_log2: 8,
        ..Config::default()
    };
    let host = Host::new(small, DATAGRAM, 1, 1);
    let device = Device::new(Config::default(), DATAGRAM, 2, 1, &document);
    let mut pair = Pair::with_machines(
        host,
        device,
        DATAGRAM,
        Faults {
            loss: 0.1,
            ..Faults::NONE
        },
        9,
    );
    pair.connect();
    let Ok(Reply::Description { document: seen, .. }) = pair.ask(1, Request::Describe) else {
        panic!("no description")
    };
    assert_eq!(seen, document);
    let accepted = pair
        .host_events
        .iter()
        .filter(|event| matches!(event, HostEvent::Accepted { .. }))
        .count();
    assert_eq!(accepted, 1);
}

#[test]
fn a_description_above_the_hosts_limit_is_refused_by_name() {
    let small = Config {
        description_bytes_max: 1_000,
        ..Config::default()
    };
    let host = Host::new(small, DATAGRAM, 1, 1);
    let device = Device::new(Config::default(), DATAGRAM, 2, 1, &[0; 1_001]);
    let mut pair = Pair::with_machines(host, device, DATAGRAM, Faults::NONE, 9);
    pair.connect();
    let refusal = RequestFailure::DescriptionTooLarge {
        length: 1_001,
        limit: 1_000,
    };
    assert_eq!(pair.ask(1, Request::Describe), Err(refusal));
}

#[test]
fn a_device_sends_what_its_small_queue_can_hold_and_says_so_of_what_it_cannot() {
    let document = vec![b'd'; 20_000];
    let host_takes = Config {
        description_bytes_max: 20_000,
        ..Config::default()
    };
    let link = LinkKind::Stream;
    let host = Host::new(host_takes, link, 7, 1);
    let device = Device::new(Config::constrained(), link, 9, 1, &document);
    let mut pair = Pair::with_machines(host, device, link, Faults::NONE, 1);
    pair.connect();
    let described = pair.ask(1, Request::Describe);
    assert!(
        matches!(&described, Ok(Reply::Description { document: seen, .. }) if *seen == document),
        "the host would take it in one part, the device has no room for that: {described:?}"
    );
    pair.answers = false;
    let (now, id) = (pair.now, RequestId(2));
    pair.host
        .request(now, id, invoke("x"), Duration::from_secs(60))
        .expect("taken");
    pair.run_until("invoked", Duration::from_secs(5), |pair| {
        invocations(pair) > 0
    });
    let (now, long) = (pair.now, Value::Text("r".repeat(5_000)));
    let raised = pair.device.event(now, "e", long.clone());
    assert!(matches!(raised, Err(SendError::TooLarge { .. })));
    pair.device.respond(now, id, Ok(long)).expect("running");
    pair.run_until("answered", Duration::from_secs(5), |pair| {
        pair.reply(id).is_some()
    });
    assert_eq!(pair.reply(id), fault(FaultCode::ResultTooLarge));
}

#[test]
fn a_result_above_the_hosts_message_limit_becomes_a_fault() {
    let small = Config {
        max_message_log2: 8,
        ..Config::default()
    };
    let host = Host::new(small, DATAGRAM, 1, 1);
    let device = Device::new(Config::default(), DATAGRAM, 2, 1, b"{}");
    let mut pair = Pair::with_machines(host, device, DATAGRAM, Faults::NONE, 9);
    pair.connect();
    let result = pair.ask(1, invoke(&"x".repeat(300)));
    assert_eq!(Some(result), fault(FaultCode::ResultTooLarge));
}

#[test]
fn what_cannot_be_asked_is_refused_at_once() {
    let config = Config {
        requests_max: 1,
        max_message_log2: 8,
        ..Config::default()
    };
    let mut pair = Pair::with_config(DATAGRAM, Faults::NONE, 1, config);
    let ask = |pair: &mut Pair, id, request| {
        pair.host
            .request(pair.now, RequestId(id), request, DEADLINE)
    };
    assert_eq!(
        ask(&mut pair, 1, invoke("a")),
        Err(RequestError::NotConnected)
    );
    pair.connect();
    let long_name = Request::Read {
        property: "n".repeat(129),
    };
    assert_eq!(ask(&mut pair, 1, long_name), Err(RequestError::OutOfBounds));
    let twice = Value::Map(vec![("a".into(), Value::Null), ("a".into(), Value::Null)]);
    let request = Request::Invoke {
        action: "echo".into(),
        input: twice,
    };
    assert_eq!(ask(&mut pair, 1, request), Err(RequestError::OutOfBounds));
    let too_large = ask(&mut pair, 1, invoke(&"x".repeat(300)));
    assert!(
        matches!(too_large, Err(RequestError::TooLarge { limit: 256, .. })),
        "{too_large:?}"
    );
    assert_eq!(ask(&mut pair, 1, invoke("a")), Ok(()));
    assert_eq!(
        ask(&mut pair, 1, invoke("a")),
        Err(RequestError::DuplicateId(RequestId(1)))
    );
    assert_eq!(ask(&mut pair, 2, invoke("a")), Err(RequestError::Busy));
}

#[test]
fn a_device_full_of_events_still_takes_a_progress_report_and_delivers_all_it_took() {
    let config = Config {
        send_queue_bytes: 4 * 1024,
        ..Config::default()
    };
    let mut pair = Pair::with_config(LinkKind::Stream, Faults::NONE, 5, config);
    pair.answers = false;
    pair.connect();
    pair.host
        .request(pair.now, RequestId(1), invoke("a"), DEADLINE)
        .expect("taken");
    pair.run_until("invoked", DEADLINE, |pair| invocations(pair) == 1);
    let mut taken = 0;
    while pair.device.event(pair.now, "e", Value::Int(taken)).is_ok() {
        taken += 1;
    }
    assert!(taken > 10, "only {taken} events were taken");
    assert_eq!(
        pair.device.event(pair.now, "e", Value::Null),
        Err(SendError::QueueFull)
    );
    assert_eq!(
        pair.device.progress(pair.now, RequestId(1), Value::Int(1)),
        Ok(())
    );
    pair.run_for(Duration::from_secs(5));
    let events = pair
        .host_events
        .iter()
        .filter(|event| matches!(event, HostEvent::Event { .. }))
        .count();
    assert_eq!(events as i64, taken);
}

#[test]
fn an_answer_that_nobody_received_is_kept_until_its_deadline_and_no_longer() {
    let config = Config {
        request_memory_max: 1,
        ..Config::default()
    };
    let mut pair = Pair::with_config(DATAGRAM, Faults::NONE, 1, config);
    pair.answers = false;
    pair.connect();
    pair.host
        .request(pair.now, RequestId(1), invoke("a"), DEADLINE)
        .expect("taken");
    pair.run_until("invoked", DEADLINE, |pair| invocations(pair) == 1);
    pair.host.close(pair.now);
    pair.run_for(Duration::from_secs(1));
    pair.device
        .respond(pair.now, RequestId(1), Ok(Value::Null))
        .expect("running");
    pair.answers = true;
    reconnect(&mut pair, 2);
    assert_eq!(Some(pair.ask(2, invoke("b"))), fault(FaultCode::Busy));
    pair.run_for(DEADLINE);
    assert_eq!(pair.ask(3, invoke("b")), Ok(Reply::Done("b".into())));
}
