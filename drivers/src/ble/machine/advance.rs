//! What an idle adapter does next: whom it lets go, whom it connects, whether it scans.

use std::time::Instant;

use super::watchdog::Rescue;
use super::{Action, CONNECT, Job, Machine, Operation, PAIR, Power, Refusal, Scan, Then, Waiting};
use crate::ble::address::{DeviceAddress, Target};

impl Machine {
    /// Starts what can be started now.
    pub(super) fn advance(&mut self, now: Instant) {
        if self.power != Power::On || self.operation.is_some() {
            return;
        }
        if self.scan == Scan::On {
            self.refuse_those_unheard(now, |waiting| {
                (waiting.expires <= now).then_some(Refusal::NotHeard)
            });
        }
        if let Some(device) = self.leaving.pop_first() {
            self.operation = Some(Operation::Clearing(Then::Rest));
            // BlueZ believes its cache of an attribute table before it has asked whether it still holds. What was written to
            // handles of an older table is confirmed, or lost without a word.
            return match self.silent.remove(&device) && self.may_drop_cache(now, device) {
                true => self.drop_cache(now, device),
                false => self.actions.push_back(Action::Disconnect(device)),
            };
        }
        if let Some((at, device)) = self.next_job(now) {
            return self.begin(at, device);
        }
        if self.scan == Scan::On && self.watchdog.due().is_some_and(|due| due <= now) {
            return self.rescue(now);
        }
        match (self.scan, self.is_scan_wanted()) {
            (Scan::Idle, true) if self.scan_retry_at.is_none_or(|at| at <= now) => {
                self.scan = Scan::Starting;
                self.actions.push_back(Action::StartScan);
            }
            (Scan::On, false) => self.stop_scan(),
            _ => {}
        }
    }

    pub(super) fn is_scan_wanted(&self) -> bool {
        let is_met = |target: &Target| self.held.values().any(|held| held.target == *target);
        self.has_listeners || !self.waiting.is_empty() || !self.interests.iter().all(is_met)
    }

    fn stop_scan(&mut self) {
        self.scan = Scan::Stopping;
        self.actions.push_back(Action::StopScan);
    }

    pub(super) fn refuse_those_unheard(
        &mut self,
        now: Instant,
        why: impl Fn(&Waiting) -> Option<Refusal>,
    ) {
        let refused: Vec<_> = self
            .waiting
            .iter()
            .filter(|waiting| self.device_for(now, &waiting.job).is_none())
            .filter_map(|waiting| Some((waiting.ticket, why(waiting)?)))
            .collect();
        for (ticket, why) in refused {
            self.waiting.retain(|waiting| waiting.ticket != ticket);
            self.refuse(ticket, why);
        }
    }

    /// The device that a job is about, if it can be worked on now.
    fn device_for(&self, now: Instant, job: &Job) -> Option<DeviceAddress> {
        match job {
            Job::Forget(device) => Some(*device),
            // Connected, it does not advertise.
            Job::Connect(Target::Address(device)) | Job::Pair(Target::Address(device))
                if self.is_held(*device) =>
            {
                Some(*device)
            }
            Job::Connect(target) | Job::Pair(target) => {
                self.sightings
                    .find(now, target, |device| self.is_held(device))
            }
        }
    }

    /// The first job in the queue that can be done; those whose device is silent do not block it.
    fn next_job(&self, now: Instant) -> Option<(usize, DeviceAddress)> {
        self.waiting
            .iter()
            .enumerate()
            .find_map(|(at, waiting)| Some((at, self.device_for(now, &waiting.job)?)))
    }

    fn begin(&mut self, at: usize, device: DeviceAddress) {
        let is_forgetting = matches!(self.waiting[at].job, Job::Forget(_));
        if !is_forgetting && self.scan != Scan::Idle {
            // The radio must be quiet first.
            if self.scan == Scan::On {
                self.stop_scan();
            }
            return;
        }
        let Some(waiting) = self.waiting.remove(at) else {
            return;
        };
        let ticket = waiting.ticket;
        self.leaving.remove(&device);
        self.silent.remove(&device);
        match waiting.job {
            Job::Forget(_) => {
                self.on_disconnected(device);
                self.operation = Some(Operation::Clearing(Then::Answer(ticket, device)));
                return self.actions.push_back(Action::Forget(device));
            }
            Job::Connect(_) => self.actions.push_back(Action::Connect {
                ticket,
                device,
                within: CONNECT,
            }),
            Job::Pair(_) => self.actions.push_back(Action::Pair {
                ticket,
                device,
                within: PAIR,
            }),
        }
        self.operation = Some(Operation::Reaching {
            waiting,
            device,
            is_wanted: true,
        });
    }

    fn rescue(&mut self, now: Instant) {
        match self.watchdog.rescue(now, self.held.is_empty()) {
            Rescue::Restart => {}
            Rescue::ListenAnew => self.actions.push_back(Action::ListenAnew),
            Rescue::PowerCycle => {
                self.operation = Some(Operation::Cycling);
                self.scan = Scan::Idle;
                return self.actions.push_back(Action::PowerCycle);
            }
        }
        self.stop_scan();
    }
}
