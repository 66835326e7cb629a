//! What came of an action: of a scan that was started or stopped, and of the one operation.

use std::time::{Duration, Instant};

use super::{
    Action, Fault, Held, Job, Machine, Operation, Power, Refusal, SCAN_RETRY, SEEK, Scan, Then,
    Waiting,
};
use crate::ble::address::DeviceAddress;

/// Attempts of one job, the first included, where BlueZ was busy or its cache stale.
const ATTEMPTS_MAX: u32 = 2;
/// How long a device's cache is not dropped again for missing services or silence, unless the device has spoken since: once
/// shows whether it was the cause.
const STALE_AGAIN: Duration = Duration::from_secs(600);

impl Machine {
    pub(super) fn on_scan_changed(&mut self, now: Instant, result: Result<(), ()>) {
        let was = self.scan;
        self.scan = Scan::Idle;
        match (was, result) {
            (Scan::Starting, Ok(())) if self.power == Power::On => {
                self.scan = Scan::On;
                self.scan_retry = SCAN_RETRY.0;
                self.scan_retry_at = None;
                self.watchdog.on_scan(now);
                // Nobody could be heard before: the patience of all who wait begins now.
                for waiting in &mut self.waiting {
                    waiting.expires = waiting.expires.max(now + SEEK);
                }
            }
            (Scan::Starting, Err(())) => {
                self.scan_retry_at = Some(now + self.scan_retry);
                self.scan_retry = (self.scan_retry * 2).min(SCAN_RETRY.1);
                // Waiting for what cannot be heard would be in vain.
                self.refuse_those_unheard(now, |_| Some(Refusal::ScanFailed));
            }
            // A stop that failed has stopped: BlueZ refuses it only where there is no scan of ours.
            _ => self.watchdog.on_rest(),
        }
    }

    pub(super) fn on_done(&mut self, now: Instant, result: Result<(), Fault>) {
        match self.operation.take() {
            Some(Operation::Reaching {
                waiting,
                device,
                is_wanted,
            }) => self.on_reached(now, waiting, device, is_wanted, result),
            Some(Operation::Clearing(Then::Answer(ticket, device))) => match result {
                // Forgetting what is not known is done.
                Ok(()) | Err(Fault::Unknown) => {
                    self.actions.push_back(Action::Grant { ticket, device });
                }
                Err(fault) => self.refuse(ticket, Refusal::Fault(fault)),
            },
            Some(Operation::Clearing(Then::Refuse(ticket, why))) => self.refuse(ticket, why),
            Some(Operation::Clearing(Then::Again(waiting))) => self.wait_again(now, waiting),
            Some(Operation::Clearing(Then::Rest) | Operation::Cycling) | None => {}
        }
    }

    fn on_reached(
        &mut self,
        now: Instant,
        waiting: Waiting,
        device: DeviceAddress,
        is_wanted: bool,
        result: Result<(), Fault>,
    ) {
        let ticket = waiting.ticket;
        let fault = match (result, waiting.job) {
            (Ok(()), _) if self.power != Power::On => {
                let why = match self.power {
                    Power::Absent => Refusal::Absent,
                    Power::Off | Power::On => Refusal::Off,
                };
                return if is_wanted {
                    self.refuse(ticket, why);
                };
            }
            (Ok(()), Job::Connect(target)) if is_wanted => {
                self.held.insert(ticket, Held { device, target });
                return self.actions.push_back(Action::Grant { ticket, device });
            }
            (Ok(()), _) => {
                if is_wanted {
                    self.actions.push_back(Action::Grant { ticket, device });
                }
                if !self.is_held(device) {
                    self.leaving.insert(device);
                }
                return;
            }
            (Err(fault), job) => (fault, job),
        };
        let (fault, job) = fault;
        self.sightings.forget_presence(device);
        let is_stale = fault == Fault::ServicesMissing && self.may_drop_cache(now, device);
        let again =
            is_wanted && waiting.attempts + 1 < ATTEMPTS_MAX && (is_stale || fault == Fault::Busy);
        let then = match (is_wanted, again) {
            (false, _) => Then::Rest,
            (true, true) => Then::Again(Waiting {
                job,
                attempts: waiting.attempts + 1,
                ..waiting
            }),
            (true, false) => Then::Refuse(ticket, Refusal::Fault(fault)),
        };
        if self.power != Power::On || self.is_held(device) || fault == Fault::Unknown {
            // Nothing to clear, or others are connected through it.
            return match then {
                Then::Refuse(ticket, why) => self.refuse(ticket, why),
                Then::Again(waiting) => self.wait_again(now, waiting),
                Then::Rest | Then::Answer(..) => {}
            };
        }
        self.operation = Some(Operation::Clearing(then));
        if is_stale {
            self.drop_cache(now, device);
        } else {
            self.actions.push_back(Action::Disconnect(device));
        }
    }

    pub(super) fn may_drop_cache(&self, now: Instant, device: DeviceAddress) -> bool {
        self.forgotten_at
            .get(&device)
            .is_none_or(|at| now.saturating_duration_since(*at) >= STALE_AGAIN)
    }

    pub(super) fn drop_cache(&mut self, now: Instant, device: DeviceAddress) {
        self.forgotten_at
            .retain(|_, at| now.saturating_duration_since(*at) < STALE_AGAIN);
        self.forgotten_at.insert(device, now);
        // BlueZ does not know it until it is heard again.
        self.sightings.forget_presence(device);
        self.actions.push_back(Action::DropCache(device));
    }

    fn wait_again(&mut self, now: Instant, waiting: Waiting) {
        match self.power {
            Power::On => self.waiting.push_back(Waiting {
                expires: now + SEEK,
                ..waiting
            }),
            Power::Off => self.refuse(waiting.ticket, Refusal::Off),
            Power::Absent => self.refuse(waiting.ticket, Refusal::Absent),
        }
    }
}
