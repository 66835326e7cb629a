//! Whole random lives of the machine, against a shell that carries out its actions when the test says so and checks its promises.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::tests::device;
use super::*;

/// What happens in a random life.
#[derive(Debug, Clone)]
enum Event {
    Ask(u8),
    Pair(u8),
    Forget(u8),
    GiveBack(usize, bool),
    Hear(u8),
    Disconnect(u8),
    Power(Power),
    Listeners(bool),
    /// The oldest piece of work under way ends so.
    End(Option<Fault>),
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let fault = prop_oneof![
        Just(Fault::TimedOut),
        Just(Fault::Busy),
        Just(Fault::ServicesMissing),
        Just(Fault::Authentication),
        Just(Fault::Unknown),
        Just(Fault::Failed),
    ];
    let power = prop_oneof![Just(Power::Absent), Just(Power::Off), Just(Power::On)];
    prop_oneof![
        4 => (0..4u8).prop_map(Event::Ask),
        1 => (0..4u8).prop_map(Event::Pair),
        1 => (0..4u8).prop_map(Event::Forget),
        2 => any::<(usize, bool)>().prop_map(|(at, is_silent)| Event::GiveBack(at, is_silent)),
        6 => (0..4u8).prop_map(Event::Hear),
        2 => (0..4u8).prop_map(Event::Disconnect),
        1 => power.prop_map(Event::Power),
        1 => any::<bool>().prop_map(Event::Listeners),
        8 => prop_oneof![3 => Just(None), 1 => fault.prop_map(Some)].prop_map(Event::End),
        4 => (1..40_000u64).prop_map(Event::Pass),
    ]
}

/// A shell that carries out actions when the test says so, and checks the machine's promises.
struct Life {
    machine: Machine,
    now: Instant,
    power: Power,
    is_scanning: bool,
    scan_change: Option<Action>,
    operation: Option<Action>,
    asked: BTreeSet<Ticket>,
    given_back: BTreeSet<Ticket>,
    granted: BTreeMap<Ticket, DeviceAddress>,
    tickets: u64,
}

impl Life {
    fn new() -> Self {
        Self {
            machine: Machine::new(),
            now: Instant::now(),
            power: Power::Absent,
            is_scanning: false,
            scan_change: None,
            operation: None,
            asked: BTreeSet::new(),
            given_back: BTreeSet::new(),
            granted: BTreeMap::new(),
            tickets: 0,
        }
    }

    fn tell(&mut self, input: Input) {
        self.machine.handle_input(self.now, input);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(action) = self.machine.poll_action() {
            match &action {
                Action::StartScan | Action::StopScan => {
                    assert_eq!(self.scan_change, None, "two changes of the scan at a time");
                    assert_eq!(self.power, Power::On, "{action:?} while not on");
                    self.scan_change = Some(action);
                }
                Action::Connect { .. } | Action::Pair { .. } => {
                    assert!(!self.is_scanning, "{action:?} while scanning");
                    assert_eq!(self.scan_change, None, "{action:?} while the scan changes");
                    self.begin(action);
                }
                Action::Disconnect(_)
                | Action::Forget(_)
                | Action::DropCache(_)
                | Action::PowerCycle => {
                    self.begin(action);
                }
                Action::Grant { ticket, device } => {
                    assert!(self.asked.remove(ticket), "{ticket:?} answered twice");
                    self.granted.insert(*ticket, *device);
                }
                Action::Refuse { ticket, .. } => {
                    assert!(self.asked.remove(ticket), "{ticket:?} answered twice");
                }
                Action::Lost { ticket, .. } => {
                    assert!(
                        self.granted.remove(ticket).is_some(),
                        "{ticket:?} lost twice"
                    );
                }
                Action::ListenAnew | Action::Announce(_) => {}
            }
        }
        if let Some(due) = self.machine.poll_timeout() {
            assert!(self.power == Power::On, "a deadline while not on");
            assert!(
                due >= self.now,
                "an overdue deadline that nothing was done about"
            );
        }
    }

    fn begin(&mut self, action: Action) {
        assert_eq!(self.operation, None, "two operations at a time");
        assert_eq!(self.power, Power::On, "{action:?} while not on");
        self.operation = Some(action);
    }

    fn ask(&mut self, job: Job) {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.asked.insert(ticket);
        self.tell(Input::Ask { ticket, job });
    }

    /// Ends the work under way; says whether there was any.
    fn end(&mut self, fault: Option<Fault>) -> bool {
        let result = fault.map_or(Ok(()), Err);
        if let Some(change) = self.scan_change.take() {
            self.is_scanning =
                change == Action::StartScan && result.is_ok() && self.power == Power::On;
            self.tell(Input::ScanChanged(result.map_err(|_| ())));
        } else if let Some(operation) = self.operation.take() {
            // A paired ticket holds nothing.
            self.tell(Input::Done(result));
            if let Action::Pair { ticket, .. } = operation {
                self.granted.remove(&ticket);
            }
        } else {
            return false;
        }
        true
    }

    fn live(&mut self, event: Event) {
        match event {
            Event::Ask(number) => self.ask(Job::Connect(Target::Address(device(number)))),
            Event::Pair(number) => self.ask(Job::Pair(Target::Address(device(number)))),
            Event::Forget(number) => self.ask(Job::Forget(device(number))),
            Event::GiveBack(at, is_silent) => {
                let all: Vec<_> = self
                    .asked
                    .iter()
                    .chain(self.granted.keys())
                    .copied()
                    .collect();
                if let Some(ticket) = all.get(at % all.len().max(1)).copied() {
                    self.asked.remove(&ticket);
                    self.granted.remove(&ticket);
                    self.given_back.insert(ticket);
                    if is_silent {
                        self.tell(Input::Silent(ticket));
                    } else {
                        self.tell(Input::Spoke(device(at as u8 % 4)));
                    }
                    self.tell(Input::GiveBack(ticket));
                }
            }
            Event::Hear(number) => self.tell(Input::Heard {
                device: device(number),
                name: None,
                services: Vec::new(),
            }),
            Event::Disconnect(number) => self.tell(Input::Disconnected(device(number))),
            Event::Power(power) => {
                self.power = power;
                self.is_scanning &= power == Power::On;
                self.tell(Input::Power(power));
            }
            Event::Listeners(any) => self.tell(Input::Listeners(any)),
            Event::End(fault) => drop(self.end(fault)),
            Event::Pass(millis) => {
                self.now += Duration::from_millis(millis);
                self.machine.handle_timeout(self.now);
                self.drain();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_life_keeps_the_promises(events in prop::collection::vec(event(), 1..120)) {
        let mut life = Life::new();
        life.live(Event::Power(Power::On));
        for event in events {
            life.live(event);
        }
        // However it went: on a working adapter all who still wait are answered, within bounded time.
        life.live(Event::Power(Power::On));
        for _ in 0..400 {
            if life.asked.is_empty() {
                break;
            }
            if !life.end(None) {
                let due = life.machine.poll_timeout().expect("somebody waits, and nothing will ever happen");
                life.live(Event::Pass(u64::try_from((due - life.now).as_millis()).unwrap() + 1));
            }
        }
        prop_assert!(life.asked.is_empty(), "never answered: {:?}", life.asked);
    }
}
