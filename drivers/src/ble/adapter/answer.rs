//! What the machine's decisions mean to those who asked: a lease, the reason why there is none, or the end of one.
//!
//! A caller who no longer listens is no fault: what it would have got is given back.

use tokio::sync::watch;

use super::{AdapterTask, Appearance, Wanted};
use crate::ble::address::{AdapterSelector, DeviceAddress};
use crate::ble::gatt::{Lease, Returned};
use crate::ble::machine::{Loss, Refusal, SEEK, Ticket};
use crate::ble::types::BleError;

impl AdapterTask {
    pub(super) fn grant(&mut self, ticket: Ticket, device: DeviceAddress) {
        let reached = self.reached.take().filter(|(of, _)| *of == ticket);
        let Some(wanted) = self.asked.remove(&ticket) else {
            let _ = self.returns.send(Returned {
                ticket,
                device,
                was_heard: None,
            });
            return;
        };
        let reached = match (&wanted, reached) {
            (Wanted::Packets { .. } | Wanted::Gatt { .. }, Some((_, reached))) => reached,
            _ => {
                return match wanted {
                    Wanted::Pair { reply, .. } | Wanted::Forget { reply, .. } => {
                        drop(reply.send(Ok(device)));
                    }
                    other => other.refuse(BleError::NotConnected { device }),
                };
            }
        };
        self.taps.insert(device, reached.tap.clone());
        let (loss, told) = watch::channel(None);
        self.leases.insert(ticket, (device, loss));
        let lease = Lease {
            ticket,
            device,
            returns: self.returns.clone(),
            loss: told,
            was_heard: None,
        };
        // An answer that nobody takes is dropped, and gives the lease back.
        match wanted {
            Wanted::Packets { reply, .. } => drop(
                reply.send(
                    reached
                        .into_packets(lease)
                        .ok_or(BleError::NotConnected { device }),
                ),
            ),
            Wanted::Gatt { reply, .. } => drop(reply.send(Ok(reached.into_client(lease)))),
            Wanted::Pair { .. } | Wanted::Forget { .. } => {}
        }
    }

    pub(super) fn refuse(&mut self, ticket: Ticket, why: Refusal) {
        let failed = self.failed.take().filter(|(of, _)| *of == ticket);
        let Some(wanted) = self.asked.remove(&ticket) else {
            return;
        };
        let adapter = self.parts.name.clone();
        let target = wanted.target();
        wanted.refuse(match (why, failed) {
            (Refusal::Fault(_), Some((_, error))) => error,
            (Refusal::Absent, _) => BleError::NoAdapter(AdapterSelector::Name(adapter)),
            (Refusal::Off, _) => BleError::AdapterOff { adapter },
            (Refusal::ScanFailed, _) => BleError::ScanFailed { adapter },
            (Refusal::QueueFull, _) => BleError::QueueFull { adapter },
            (Refusal::NotHeard | Refusal::Fault(_), _) => BleError::NotHeard {
                target,
                after: SEEK,
            },
        });
    }

    pub(super) fn lose(&mut self, ticket: Ticket, why: Loss) {
        if let Some((device, loss)) = self.leases.remove(&ticket) {
            loss.send_replace(Some(why));
            if let Some(tap) = self.taps.get(&device)
                && !self.leases.values().any(|(other, _)| *other == device)
            {
                tap.hang_up();
            }
        }
    }

    pub(super) fn announce(&self, device: DeviceAddress) {
        let appearance = Appearance {
            adapter: self.parts.name.clone(),
            device,
            awaited: self.machine.awaited(device),
        };
        // Full: the device is announced again when it was away, and its link tries by itself.
        let _ = self.parts.appearances.try_send(appearance);
    }
}
