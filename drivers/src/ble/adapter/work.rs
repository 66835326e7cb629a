//! The pieces of work that an adapter's task starts, each in a task of its own, each within its time limit, and what came of them.

use std::sync::Arc;
use std::time::Duration;

use btleplug::api::{Central as _, Peripheral as _};
use btleplug::platform::PeripheralId;

use super::{AdapterTask, Wanted};
use crate::ble::address::DeviceAddress;
use crate::ble::bluez::device_id;
use crate::ble::fault::OperationError;
use crate::ble::gatt::{DISCONNECT, Purpose, Reached, reach};
use crate::ble::machine::{Fault, Input, Ticket};
use crate::ble::pairing::{Credential, pair};
use crate::ble::tap::Tap;
use crate::ble::types::Step;

/// How long an adapter stays off when it is switched off and on.
const OFF_PAUSE: Duration = Duration::from_secs(1);

/// What came of a piece of work.
#[derive(Debug)]
pub(super) enum Outcome {
    Scan(Result<(), ()>),
    Reached(Ticket, Result<Reached, OperationError>),
    Paired(Ticket, Result<(), OperationError>),
    Done(Result<(), Fault>),
}

/// Of which kind a piece of work is: what it reports if it dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DyingWord {
    Scan,
    Operation,
}

impl AdapterTask {
    pub(super) fn on_outcome(&mut self, outcome: Result<Outcome, tokio::task::JoinError>) -> Input {
        let outcome = outcome.unwrap_or_else(|error| {
            tracing::error!(%error, "a Bluetooth operation died");
            // At most one of each kind runs, and an operation is what can die.
            match self.dying.contains(&DyingWord::Operation) {
                true => Outcome::Done(Err(Fault::Failed)),
                false => Outcome::Scan(Err(())),
            }
        });
        let word = match &outcome {
            Outcome::Scan(_) => DyingWord::Scan,
            _ => DyingWord::Operation,
        };
        self.dying.retain(|running| *running != word);
        let (ticket, result) = match outcome {
            Outcome::Scan(result) => return Input::ScanChanged(result),
            Outcome::Done(result) => return Input::Done(result),
            Outcome::Reached(ticket, result) => {
                let result = result.map(|reached| {
                    self.reached = Some((ticket, reached));
                });
                (ticket, result)
            }
            Outcome::Paired(ticket, result) => (ticket, result),
        };
        Input::Done(result.map_err(|failed| {
            let error = &failed.error;
            tracing::debug!(%error, source = ?std::error::Error::source(error), "operation failed");
            self.failed = Some((ticket, failed.error));
            failed.fault
        }))
    }

    fn start(&mut self, word: DyingWord, work: impl Future<Output = Outcome> + Send + 'static) {
        self.dying.push(word);
        self.work.push(tokio::spawn(work));
    }

    pub(super) fn start_scan(&mut self) {
        let (bluez, name) = (self.parts.bluez.clone(), self.parts.name.clone());
        self.start(DyingWord::Scan, async move {
            let mut started = bluez.start_scan(&name).await;
            if started.is_err() {
                // A scan of ours that was thought to be over.
                let _ = bluez.stop_scan(&name).await;
                started = bluez.start_scan(&name).await;
            }
            Outcome::Scan(started.map_err(|error| {
                tracing::warn!(%error, "the scan could not be started; it is tried again");
            }))
        });
    }

    pub(super) fn stop_scan(&mut self) {
        let (bluez, name) = (self.parts.bluez.clone(), self.parts.name.clone());
        self.start(DyingWord::Scan, async move {
            let stopped = bluez.stop_scan(&name).await;
            Outcome::Scan(stopped.map_err(|error| tracing::debug!(%error, "stopping the scan")))
        });
    }

    pub(super) fn connect(&mut self, ticket: Ticket, device: DeviceAddress, within: Duration) {
        let purpose = match self.asked.get(&ticket) {
            Some(Wanted::Packets { purpose, .. } | Wanted::Gatt { purpose, .. }) => purpose.clone(),
            _ => Purpose::Gatt(Arc::default()),
        };
        let tap = self.taps.get(&device).cloned();
        let (adapter, name) = (self.parts.adapter.clone(), self.parts.name.clone());
        self.start(DyingWord::Operation, async move {
            let tapped = async {
                match tap {
                    Some(tap) => Ok(tap),
                    None => {
                        Tap::open(adapter.peripheral(&peripheral_id(&name, device)?).await?).await
                    }
                }
            };
            let reached = match tokio::time::timeout(within, tapped).await {
                Ok(Ok(tap)) => reach(tap, device, purpose, within).await,
                Ok(Err(error)) => Err(OperationError::from_btleplug(device, Step::Connect, error)),
                Err(_) => Err(OperationError::timed_out(device, Step::Connect, within)),
            };
            Outcome::Reached(ticket, reached)
        });
    }

    pub(super) fn pair(&mut self, ticket: Ticket, device: DeviceAddress, within: Duration) {
        let credential = match self.asked.get(&ticket) {
            Some(Wanted::Pair { credential, .. }) => credential.clone(),
            _ => Credential::None,
        };
        let (bluez, name) = (self.parts.bluez.clone(), self.parts.name.clone());
        self.start(DyingWord::Operation, async move {
            Outcome::Paired(
                ticket,
                pair(&bluez, &name, device, credential, within).await,
            )
        });
    }

    /// Through btleplug, whose connection asked for it; BlueZ also takes it as the end of an attempt that goes on.
    pub(super) fn disconnect(&mut self, device: DeviceAddress) {
        let tap = self.taps.get(&device).cloned();
        let (adapter, name) = (self.parts.adapter.clone(), self.parts.name.clone());
        self.start(DyingWord::Operation, async move {
            let work = async {
                match tap {
                    Some(tap) => tap.peripheral.disconnect().await,
                    None => {
                        let id = peripheral_id(&name, device)?;
                        adapter.peripheral(&id).await?.disconnect().await
                    }
                }
            };
            Outcome::Done(match tokio::time::timeout(DISCONNECT, work).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => {
                    Err(OperationError::from_btleplug(device, Step::Connect, error).fault)
                }
                Err(_) => Err(Fault::TimedOut),
            })
        });
    }

    pub(super) fn forget(&mut self, device: DeviceAddress) {
        let (bluez, name) = (self.parts.bluez.clone(), self.parts.name.clone());
        self.start(DyingWord::Operation, async move {
            let removed = bluez.remove_device(&name, device).await;
            Outcome::Done(
                removed
                    .map_err(|error| OperationError::from_zbus(device, Step::Forget, error).fault),
            )
        });
    }

    /// A bond takes a person to make, so a bonded device keeps its cache, too; its own word (Service Changed) renews that.
    pub(super) fn drop_cache(&mut self, device: DeviceAddress) {
        let (bluez, name) = (self.parts.bluez.clone(), self.parts.name.clone());
        self.start(DyingWord::Operation, async move {
            let dropped = async {
                match bluez.is_paired(&name, device).await? {
                    true => bluez.disconnect(&name, device).await,
                    false => {
                        tracing::info!(%device, "BlueZ's cache of it is dropped: what it has may be other than what was cached");
                        bluez.remove_device(&name, device).await
                    }
                }
            };
            Outcome::Done(
                dropped
                    .await
                    .map_err(|error| OperationError::from_zbus(device, Step::Forget, error).fault),
            )
        });
    }

    pub(super) fn power_cycle(&mut self) {
        tracing::warn!("nobody was heard for long: the adapter is switched off and on");
        let (bluez, name) = (self.parts.bluez.clone(), self.parts.name.clone());
        self.start(DyingWord::Operation, async move {
            let off = bluez.switch_off(&name).await;
            tokio::time::sleep(OFF_PAUSE).await;
            let on = bluez.switch_on(&name).await;
            Outcome::Done(off.and(on).map_err(|error| {
                tracing::warn!(%error, "switching the adapter");
                Fault::Failed
            }))
        });
    }
}

fn peripheral_id(adapter: &str, device: DeviceAddress) -> btleplug::Result<PeripheralId> {
    let id: bluez_async::DeviceId = device_id(adapter, device)
        .parse()
        .map_err(|error| btleplug::Error::Other(Box::new(error) as Box<_>))?;
    Ok(id.into())
}
