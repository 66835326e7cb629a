//! Whom an adapter connects, in which order, and when it scans: a pure machine.
//!
//! BlueZ connects one device at a time and dislikes connecting while it scans (`InProgress`), so there is one [`Operation`] at a
//! time, and the radio is quiet while one of them connects or pairs. A device is connected only after it was heard: an
//! attempt to reach an absent one blocks the adapter for half a minute.
//!
//! ```text
//!            ask                    heard, scan stopped          done
//!  (ticket) ----> waiting ------------------------> operation ----------> granted ---> lost
//!                    |  not heard in time              | fault               | given back
//!                    v                                 v                     v
//!                 refused                     clearing -> refused | waiting  clearing
//! ```
//!
//! The machine is given one input, then drained by [`Machine::poll_action`]; each action that starts work ends with
//! [`Input::Done`] or [`Input::ScanChanged`], whatever happens: deadlines of single calls are the shell's. `now` is an argument.
//! Read
//! [`mod@advance`] for what comes first, [`outcome`] for what becomes of it, [`sightings`] for what "heard" means and [`watchdog`]
//! for silent scans.

mod advance;
#[cfg(test)]
mod life;
mod outcome;
mod sightings;
#[cfg(test)]
mod tests;
mod vocabulary;
mod watchdog;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use uuid::Uuid;

use self::sightings::Sightings;
pub(super) use self::vocabulary::{Action, Fault, Input, Job, Loss, Power, Refusal, Ticket};
use self::watchdog::Watchdog;
use super::address::{DeviceAddress, Target};

/// How long a wanted device is listened for before its asker is told that it is not there, and may take another link. Most
/// devices advertise at least every second; one that does so seldom (every 10.24 s at the longest, Core 5.4 Vol 6 Part B
/// §4.4.2.2.1) is announced when it is heard, since the scan goes on for it.
pub(super) const SEEK: Duration = Duration::from_secs(4);
/// The most that one connection attempt may take, services included. BlueZ gives up after 30 s or more, and blocks all others
/// for as long; a device that was just heard connects within two seconds, and
/// tells its services within ten, or not at all.
pub(super) const CONNECT: Duration = Duration::from_secs(20);
/// The same for pairing, where a person may have to press a button.
pub(super) const PAIR: Duration = Duration::from_secs(45);
/// Jobs that may wait at an adapter; more are refused at once. Twice what usual controllers can hold connected.
pub(super) const WAITING_MAX: usize = 32;
/// The first and the longest pause after a scan that could not be started.
const SCAN_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    job: Job,
    expires: Instant,
    attempts: u32,
}

#[derive(Debug)]
struct Held {
    device: DeviceAddress,
    target: Target,
}

/// The one thing that an adapter is busy with.
#[derive(Debug)]
enum Operation {
    /// Connecting or pairing.
    Reaching {
        waiting: Waiting,
        device: DeviceAddress,
        is_wanted: bool,
    },
    /// Ending a connection or an attempt, or forgetting a device.
    Clearing(Then),
    Cycling,
}

#[derive(Debug)]
enum Then {
    Rest,
    Answer(Ticket, DeviceAddress),
    Refuse(Ticket, Refusal),
    Again(Waiting),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scan {
    Idle,
    Starting,
    On,
    Stopping,
}

/// The machine of one adapter.
#[derive(Debug)]
pub(super) struct Machine {
    power: Power,
    scan: Scan,
    scan_retry: Duration,
    scan_retry_at: Option<Instant>,
    watchdog: Watchdog,
    sightings: Sightings,
    has_listeners: bool,
    interests: BTreeSet<Target>,
    packet_services: BTreeSet<Uuid>,
    waiting: VecDeque<Waiting>,
    operation: Option<Operation>,
    held: BTreeMap<Ticket, Held>,
    /// Connected, but nobody's any more.
    leaving: BTreeSet<DeviceAddress>,
    /// Of those, the ones that said nothing: BlueZ may have written to handles of an older table.
    silent: BTreeSet<DeviceAddress>,
    forgotten_at: BTreeMap<DeviceAddress, Instant>,
    actions: VecDeque<Action>,
}

impl Machine {
    /// An adapter that is not there yet.
    pub(super) fn new() -> Self {
        Self {
            power: Power::Absent,
            scan: Scan::Idle,
            scan_retry: SCAN_RETRY.0,
            scan_retry_at: None,
            watchdog: Watchdog::default(),
            sightings: Sightings::default(),
            has_listeners: false,
            interests: BTreeSet::new(),
            packet_services: BTreeSet::new(),
            waiting: VecDeque::new(),
            operation: None,
            held: BTreeMap::new(),
            leaving: BTreeSet::new(),
            silent: BTreeSet::new(),
            forgotten_at: BTreeMap::new(),
            actions: VecDeque::new(),
        }
    }

    /// The next thing to do, or `None`.
    pub(super) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Machine::handle_timeout`].
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        // An operation that is under way comes first, and says itself when it is over.
        if self.power != Power::On || self.operation.is_some() {
            return None;
        }
        let is_scanning = self.scan == Scan::On;
        let seeking = is_scanning
            .then(|| self.waiting.iter().map(|waiting| waiting.expires).min())
            .flatten();
        let retry = (self.scan == Scan::Idle && self.is_scan_wanted())
            .then_some(self.scan_retry_at)
            .flatten();
        let watchdog = is_scanning.then(|| self.watchdog.due()).flatten();
        [seeking, retry, watchdog].into_iter().flatten().min()
    }

    /// Whether the adapter scans at present.
    pub(super) fn is_scanning(&self) -> bool {
        self.scan == Scan::On
    }

    /// Those who are waited for and may be this device.
    pub(super) fn awaited(&self, device: DeviceAddress) -> Vec<Target> {
        let fits = |target: &&Target| self.sightings.fits(device, target);
        self.interests.iter().filter(fits).cloned().collect()
    }

    /// Devices that are held connected.
    pub(super) fn connected(&self) -> usize {
        let devices: BTreeSet<_> = self.held.values().map(|held| held.device).collect();
        devices.len()
    }

    /// Says that the time of [`Machine::poll_timeout`] has come; harmless at any time.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
    }

    /// Takes one input.
    pub(super) fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Power(power) => self.on_power(power),
            Input::Heard {
                device,
                name,
                services,
            } => {
                self.watchdog.on_heard(now);
                if self.sightings.on_heard(now, device, name, services) {
                    self.actions.push_back(Action::Announce(device));
                }
            }
            Input::Listeners(has_listeners) => self.has_listeners = has_listeners,
            Input::Interest { target, service } => {
                self.interests.insert(target);
                self.packet_services.insert(service);
            }
            Input::LeftConnected {
                device,
                name,
                services,
            } => self.on_left_connected(now, device, name, services),
            Input::Ask { ticket, job } => self.on_ask(now, ticket, job),
            Input::Silent(ticket) => {
                let device = self.held.get(&ticket).map(|held| held.device);
                self.silent.extend(device);
            }
            Input::Spoke(device) => drop(self.forgotten_at.remove(&device)),
            Input::GiveBack(ticket) => self.on_give_back(ticket),
            Input::ScanChanged(result) => self.on_scan_changed(now, result),
            Input::Done(result) => self.on_done(now, result),
            Input::Disconnected(device) => self.on_disconnected(device),
        }
        self.advance(now);
    }

    fn on_power(&mut self, power: Power) {
        if std::mem::replace(&mut self.power, power) == power || power == Power::On {
            return;
        }
        let (why, loss) = match power {
            Power::Absent => (Refusal::Absent, Loss::Absent),
            Power::Off | Power::On => (Refusal::Off, Loss::Off),
        };
        // A start or stop that is under way is answered all the same.
        if self.scan == Scan::On {
            self.scan = Scan::Idle;
        }
        self.watchdog.on_rest();
        self.sightings.forget_presence_of_all();
        self.leaving.clear();
        self.silent.clear();
        for waiting in std::mem::take(&mut self.waiting) {
            self.refuse(waiting.ticket, why);
        }
        for ticket in std::mem::take(&mut self.held).into_keys() {
            self.actions.push_back(Action::Lost { ticket, why: loss });
        }
    }

    fn on_ask(&mut self, now: Instant, ticket: Ticket, job: Job) {
        let refusal = match self.power {
            Power::Absent => Some(Refusal::Absent),
            Power::Off => Some(Refusal::Off),
            Power::On => (self.waiting.len() >= WAITING_MAX).then_some(Refusal::QueueFull),
        };
        match refusal {
            Some(why) => self.refuse(ticket, why),
            None => self.waiting.push_back(Waiting {
                ticket,
                job,
                expires: now + SEEK,
                attempts: 0,
            }),
        }
    }

    fn on_give_back(&mut self, ticket: Ticket) {
        self.waiting.retain(|waiting| waiting.ticket != ticket);
        match &mut self.operation {
            Some(Operation::Reaching {
                waiting, is_wanted, ..
            }) if waiting.ticket == ticket => *is_wanted = false,
            Some(Operation::Clearing(then)) if then.ticket() == Some(ticket) => *then = Then::Rest,
            _ => {}
        }
        if let Some(held) = self.held.remove(&ticket) {
            if self.is_held(held.device) {
                self.silent.remove(&held.device);
            } else {
                self.leaving.insert(held.device);
            }
        }
    }

    /// It does not advertise, so it is taken as heard if it is known by its address. The name that a connected device has in BlueZ
    /// is that of its GAP service, often another than it advertises: one that carries packets of ours and is
    /// nobody's is disconnected, and advertises again.
    fn on_left_connected(
        &mut self,
        now: Instant,
        device: DeviceAddress,
        name: Option<String>,
        services: Vec<Uuid>,
    ) {
        let is_ours = services
            .iter()
            .any(|service| self.packet_services.contains(service));
        if self.interests.contains(&Target::Address(device)) {
            self.handle_input(
                now,
                Input::Heard {
                    device,
                    name,
                    services,
                },
            );
        } else if is_ours && self.power == Power::On && !self.is_held(device) {
            self.leaving.insert(device);
        }
    }

    fn on_disconnected(&mut self, device: DeviceAddress) {
        // Only what it says from now on proves that it is there.
        self.sightings.forget_presence(device);
        self.leaving.remove(&device);
        self.silent.remove(&device);
        let lost: Vec<_> = self
            .held
            .extract_if(.., |_, held| held.device == device)
            .map(|(ticket, _)| ticket)
            .collect();
        self.actions
            .extend(lost.into_iter().map(|ticket| Action::Lost {
                ticket,
                why: Loss::Disconnected,
            }));
    }

    fn refuse(&mut self, ticket: Ticket, why: Refusal) {
        self.actions.push_back(Action::Refuse { ticket, why });
    }

    fn is_held(&self, device: DeviceAddress) -> bool {
        self.held.values().any(|held| held.device == device)
    }
}

impl Then {
    fn ticket(&self) -> Option<Ticket> {
        match self {
            Self::Rest => None,
            Self::Answer(ticket, _) | Self::Refuse(ticket, _) => Some(*ticket),
            Self::Again(waiting) => Some(waiting.ticket),
        }
    }
}
