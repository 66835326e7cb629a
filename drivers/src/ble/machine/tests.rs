//! The machine against a shell in virtual time, each claim by name. Whole random lives: [`life`](super::life).

use std::time::{Duration, Instant};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

pub(super) fn device(number: u8) -> DeviceAddress {
    DeviceAddress::from([0xC0, 0, 0, 0, 0, number])
}

/// An adapter with nobody behind it: actions are looked at, and answered by hand.
struct Bench {
    machine: Machine,
    now: Instant,
}

impl Bench {
    /// Switched on and scanning, since somebody listens.
    fn scanning() -> Self {
        let mut bench = Self {
            machine: Machine::new(),
            now: Instant::now(),
        };
        bench.tell(Input::Listeners(true));
        assert_eq!(bench.tell(Input::Power(Power::On)), [Action::StartScan]);
        assert_eq!(bench.tell(Input::ScanChanged(Ok(()))), []);
        bench
    }

    fn tell(&mut self, input: Input) -> Vec<Action> {
        self.machine.handle_input(self.now, input);
        self.drain()
    }

    fn wait(&mut self, time: Duration) -> Vec<Action> {
        self.now += time;
        self.machine.handle_timeout(self.now);
        self.drain()
    }

    fn drain(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.machine.poll_action()).collect()
    }

    fn hear(&mut self, number: u8) -> Vec<Action> {
        self.tell(Input::Heard {
            device: device(number),
            name: Some(format!("device {number}")),
            services: vec![Uuid::from_u128(1)],
        })
    }

    fn ask(&mut self, ticket: u64, number: u8) -> Vec<Action> {
        let job = Job::Connect(Target::Address(device(number)));
        let ticket = Ticket(ticket);
        self.tell(Input::Ask { ticket, job })
    }

    /// Connects a device that was heard.
    fn connect(&mut self, ticket: u64, number: u8) {
        self.hear(number);
        assert_eq!(self.ask(ticket, number), [Action::StopScan]);
        assert_eq!(
            self.tell(Input::ScanChanged(Ok(()))),
            [connecting(ticket, number)]
        );
        assert_eq!(
            self.tell(Input::Done(Ok(()))),
            [granted(ticket, number), Action::StartScan]
        );
        self.tell(Input::ScanChanged(Ok(())));
    }
}

fn connecting(ticket: u64, number: u8) -> Action {
    Action::Connect {
        ticket: Ticket(ticket),
        device: device(number),
        within: CONNECT,
    }
}

fn granted(ticket: u64, number: u8) -> Action {
    Action::Grant {
        ticket: Ticket(ticket),
        device: device(number),
    }
}

fn refused(ticket: u64, why: Refusal) -> Action {
    Action::Refuse {
        ticket: Ticket(ticket),
        why,
    }
}

#[test]
fn the_scan_rests_while_a_device_connects() {
    Bench::scanning().connect(1, 1);
}

#[test]
fn a_device_that_was_not_heard_is_not_connected() {
    let mut bench = Bench::scanning();
    assert_eq!(bench.ask(1, 1), []);
    assert_eq!(bench.wait(SEEK - SECOND), []);
    assert_eq!(bench.wait(SECOND), [refused(1, Refusal::NotHeard)]);
}

#[test]
fn a_silent_device_does_not_hold_up_the_one_behind_it() {
    let mut bench = Bench::scanning();
    bench.ask(1, 1);
    bench.hear(2);
    assert_eq!(bench.ask(2, 2), [Action::StopScan]);
    assert_eq!(bench.tell(Input::ScanChanged(Ok(()))), [connecting(2, 2)]);
    // Its patience counts from the scan that follows, however long the connection took.
    bench.now += SEEK * 2;
    assert_eq!(
        bench.tell(Input::Done(Ok(()))),
        [granted(2, 2), Action::StartScan]
    );
    assert_eq!(bench.tell(Input::ScanChanged(Ok(()))), []);
    assert_eq!(bench.wait(SEEK), [refused(1, Refusal::NotHeard)]);
}

#[test]
fn an_attempt_that_took_too_long_is_ended_before_anything_else() {
    let mut bench = Bench::scanning();
    bench.hear(1);
    bench.ask(1, 1);
    bench.tell(Input::ScanChanged(Ok(())));
    assert_eq!(
        bench.tell(Input::Done(Err(Fault::TimedOut))),
        [Action::Disconnect(device(1))]
    );
    assert_eq!(
        bench.tell(Input::Done(Ok(()))),
        [
            refused(1, Refusal::Fault(Fault::TimedOut)),
            Action::StartScan
        ]
    );
    bench.tell(Input::ScanChanged(Ok(())));
    // That it was heard before the attempt proves nothing now.
    assert_eq!(bench.ask(2, 1), []);
}

#[test]
fn an_operation_in_progress_is_ended_and_tried_once_more() {
    let mut bench = Bench::scanning();
    for attempt in 0..2 {
        bench.hear(1);
        if attempt == 0 {
            bench.ask(1, 1);
        }
        assert_eq!(bench.tell(Input::ScanChanged(Ok(()))), [connecting(1, 1)]);
        assert_eq!(
            bench.tell(Input::Done(Err(Fault::Busy))),
            [Action::Disconnect(device(1))]
        );
        let after = bench.tell(Input::Done(Ok(())));
        if attempt == 0 {
            assert_eq!(after, [Action::StartScan]);
            bench.tell(Input::ScanChanged(Ok(())));
        } else {
            assert_eq!(after[0], refused(1, Refusal::Fault(Fault::Busy)));
        }
    }
}

#[test]
fn missing_services_drop_the_cache_once_and_are_then_believed() {
    let mut bench = Bench::scanning();
    bench.hear(1);
    bench.ask(1, 1);
    bench.tell(Input::ScanChanged(Ok(())));
    assert_eq!(
        bench.tell(Input::Done(Err(Fault::ServicesMissing))),
        [Action::DropCache(device(1))]
    );
    assert_eq!(bench.tell(Input::Done(Ok(()))), [Action::StartScan]);
    bench.tell(Input::ScanChanged(Ok(())));
    assert_eq!(
        bench.hear(1),
        [Action::Announce(device(1)), Action::StopScan]
    );
    assert_eq!(bench.tell(Input::ScanChanged(Ok(()))), [connecting(1, 1)]);
    assert_eq!(
        bench.tell(Input::Done(Err(Fault::ServicesMissing))),
        [Action::Disconnect(device(1))]
    );
    assert_eq!(
        bench.tell(Input::Done(Ok(())))[0],
        refused(1, Refusal::Fault(Fault::ServicesMissing))
    );
}

#[test]
fn a_device_that_said_nothing_is_let_go_with_its_cache_once() {
    let mut bench = Bench::scanning();
    for (ticket, let_go) in [
        (1, Action::DropCache(device(1))),
        // It was not the cache.
        (2, Action::Disconnect(device(1))),
    ] {
        bench.connect(ticket, 1);
        assert_eq!(bench.tell(Input::Silent(Ticket(ticket))), []);
        assert_eq!(bench.tell(Input::GiveBack(Ticket(ticket))), [let_go]);
        bench.tell(Input::Done(Ok(())));
        bench.tell(Input::Disconnected(device(1)));
    }
    // One that has spoken since may have changed again.
    bench.tell(Input::Spoke(device(1)));
    bench.connect(3, 1);
    bench.tell(Input::Silent(Ticket(3)));
    // One that left by itself said enough.
    bench.tell(Input::Disconnected(device(1)));
    assert_eq!(bench.tell(Input::GiveBack(Ticket(3))), []);
    bench.connect(4, 1);
    bench.tell(Input::Silent(Ticket(4)));
    assert_eq!(
        bench.tell(Input::GiveBack(Ticket(4))),
        [Action::DropCache(device(1))]
    );
}

#[test]
fn a_device_is_disconnected_when_its_last_holder_gives_it_back() {
    let mut bench = Bench::scanning();
    bench.connect(1, 1);
    bench.ask(2, 1);
    bench.tell(Input::ScanChanged(Ok(())));
    assert_eq!(bench.tell(Input::Done(Ok(())))[0], granted(2, 1));
    bench.tell(Input::ScanChanged(Ok(())));
    assert_eq!(bench.tell(Input::GiveBack(Ticket(1))), []);
    assert_eq!(
        bench.tell(Input::GiveBack(Ticket(2))),
        [Action::Disconnect(device(1))]
    );
}

#[test]
fn a_device_that_is_connected_is_paired_where_it_is_and_stays_connected() {
    let mut bench = Bench::scanning();
    bench.connect(1, 1);
    // It does not advertise, and was heard too long ago to count.
    bench.wait(SECOND * 16);
    bench.hear(2);
    bench.wait(SECOND * 16);
    let job = Job::Pair(Target::Address(device(1)));
    let ticket = Ticket(2);
    assert_eq!(bench.tell(Input::Ask { ticket, job }), [Action::StopScan]);
    let pairing = Action::Pair {
        ticket,
        device: device(1),
        within: PAIR,
    };
    assert_eq!(bench.tell(Input::ScanChanged(Ok(()))), [pairing]);
    assert_eq!(
        bench.tell(Input::Done(Ok(()))),
        [granted(2, 1), Action::StartScan]
    );
    assert_eq!(bench.machine.connected(), 1);
}

#[test]
fn whoever_gave_up_while_connecting_holds_nothing() {
    let mut bench = Bench::scanning();
    bench.hear(1);
    bench.ask(1, 1);
    bench.tell(Input::ScanChanged(Ok(())));
    assert_eq!(bench.tell(Input::GiveBack(Ticket(1))), []);
    assert_eq!(
        bench.tell(Input::Done(Ok(()))),
        [Action::Disconnect(device(1))]
    );
}

#[test]
fn an_adapter_that_is_switched_off_loses_all_and_refuses_all() {
    let mut bench = Bench::scanning();
    bench.connect(1, 1);
    bench.ask(2, 2);
    let lost = Action::Lost {
        ticket: Ticket(1),
        why: Loss::Off,
    };
    assert_eq!(
        bench.tell(Input::Power(Power::Off)),
        [refused(2, Refusal::Off), lost]
    );
    assert_eq!(bench.ask(3, 1), [refused(3, Refusal::Off)]);
    assert_eq!(bench.machine.poll_timeout(), None);
    assert_eq!(bench.tell(Input::Power(Power::On)), [Action::StartScan]);
}

#[test]
fn a_device_that_returns_is_announced_by_its_first_advertisement() {
    let mut bench = Bench::scanning();
    bench.connect(1, 1);
    let lost = Action::Lost {
        ticket: Ticket(1),
        why: Loss::Disconnected,
    };
    assert_eq!(bench.tell(Input::Disconnected(device(1))), [lost]);
    assert_eq!(bench.hear(1), [Action::Announce(device(1))]);
    assert_eq!(bench.hear(1), []);
}

#[test]
fn the_scan_rests_when_all_who_are_awaited_are_connected() {
    let mut bench = Bench {
        machine: Machine::new(),
        now: Instant::now(),
    };
    assert_eq!(bench.tell(Input::Power(Power::On)), []);
    let target = Target::Address(device(1));
    let service = Uuid::from_u128(1);
    assert_eq!(
        bench.tell(Input::Interest { target, service }),
        [Action::StartScan]
    );
    bench.tell(Input::ScanChanged(Ok(())));
    bench.hear(1);
    bench.ask(1, 1);
    bench.tell(Input::ScanChanged(Ok(())));
    assert_eq!(bench.tell(Input::Done(Ok(()))), [granted(1, 1)]);
    assert_eq!(
        bench.tell(Input::Disconnected(device(1))).last(),
        Some(&Action::StartScan)
    );
}

#[test]
fn a_scan_that_cannot_start_refuses_those_who_wait_and_is_tried_again() {
    let mut bench = Bench {
        machine: Machine::new(),
        now: Instant::now(),
    };
    bench.tell(Input::Power(Power::On));
    assert_eq!(bench.ask(1, 1), [Action::StartScan]);
    assert_eq!(
        bench.tell(Input::ScanChanged(Err(()))),
        [refused(1, Refusal::ScanFailed)]
    );
    bench.tell(Input::Listeners(true));
    assert_eq!(bench.wait(SCAN_RETRY.0), [Action::StartScan]);
}

#[test]
fn a_silent_scan_is_started_anew() {
    let mut bench = Bench::scanning();
    let due = bench.machine.poll_timeout().unwrap();
    assert_eq!(bench.wait(due - bench.now), [Action::StopScan]);
    assert_eq!(bench.tell(Input::ScanChanged(Ok(()))), [Action::StartScan]);
}

#[test]
fn forgetting_needs_no_sighting_and_ends_the_connection() {
    let mut bench = Bench::scanning();
    bench.connect(1, 1);
    let ticket = Ticket(2);
    let job = Job::Forget(device(1));
    let lost = Action::Lost {
        ticket: Ticket(1),
        why: Loss::Disconnected,
    };
    assert_eq!(
        bench.tell(Input::Ask { ticket, job }),
        [lost, Action::Forget(device(1))]
    );
    assert_eq!(
        bench.tell(Input::Done(Err(Fault::Unknown))),
        [granted(2, 1)]
    );
}

#[test]
fn names_and_services_find_a_device_that_nobody_holds() {
    let mut bench = Bench::scanning();
    bench.connect(1, 1);
    bench.hear(2);
    let ticket = Ticket(2);
    let job = Job::Connect(Target::Service(Uuid::from_u128(1)));
    bench.tell(Input::Ask { ticket, job });
    assert_eq!(bench.tell(Input::ScanChanged(Ok(()))), [connecting(2, 2)]);
}

#[test]
fn a_full_queue_refuses_at_once() {
    let mut bench = Bench::scanning();
    for ticket in 0..WAITING_MAX as u64 {
        assert_eq!(bench.ask(ticket, 1), []);
    }
    assert_eq!(bench.ask(99, 1), [refused(99, Refusal::QueueFull)]);
}

#[test]
fn a_device_left_connected_is_taken_by_its_address_and_else_made_to_advertise() {
    let mut bench = Bench::scanning();
    let left = |number, service| Input::LeftConnected {
        device: device(number),
        name: Some("GAP name".into()),
        services: vec![Uuid::from_u128(service)],
    };
    let service = Uuid::from_u128(1);
    for target in [Target::Address(device(1)), Target::Name("Lamp".into())] {
        bench.tell(Input::Interest { target, service });
    }
    assert_eq!(bench.tell(left(1, 1)), [Action::Announce(device(1))]);
    assert_eq!(bench.tell(left(2, 1)), [Action::Disconnect(device(2))]);
    bench.tell(Input::Done(Ok(())));
    // Somebody else's headphones.
    assert_eq!(bench.tell(left(3, 2)), []);
}

#[test]
fn eight_devices_that_appear_at_once_are_connected_one_after_the_other() {
    let mut bench = Bench::scanning();
    for number in 1..=8 {
        bench.hear(number);
    }
    let mut actions = Vec::new();
    for number in 1..=8 {
        actions.extend(bench.ask(u64::from(number), number));
    }
    assert_eq!(actions, [Action::StopScan]);
    actions = bench.tell(Input::ScanChanged(Ok(())));
    for number in 1..=8 {
        let ticket = u64::from(number);
        assert_eq!(actions.pop(), Some(connecting(ticket, number)));
        actions = bench.tell(Input::Done(Ok(())));
        assert_eq!(actions.remove(0), granted(ticket, number));
    }
    assert_eq!(actions, [Action::StartScan]);
    assert_eq!(bench.machine.connected(), 8);
}
