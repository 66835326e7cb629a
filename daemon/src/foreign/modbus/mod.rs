//! The owner of one Modbus bus: opens its line or connection, asks its units one at a time, serves their Things' requests.
//!
//! Requests come before polls. A read that meets silence is asked once more, since reading changes nothing; a write only where writing
//! twice is writing once ([`exchange`]; [`serving`] answers requests, [`polling`] reads what is observed). A unit that was silent [`MISSES_MAX`] times in a row is away and is looked for at growing intervals, so that it
//! does not take the line from the others. A write is answered by reading back what the unit then holds.

mod exchange;
mod polling;
mod serving;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use autoglm_drivers::backoff::Backoff;
use autoglm_drivers::modbus::{self, BusError, BusPlace, OpenBus};
use autoglm_drivers::port::Command;
use autoglm_drivers::serial::{Arrivals, TtyWatch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{StreamExt as _, StreamMap};
use tokio_util::sync::CancellationToken;

use super::roster::{Berth, Complaints};
use super::{Board, SourceStatus, until};
use crate::config::foreign::ModbusConfig;
use crate::things::binding::modbus::{ModbusThing, Point};
use crate::things::registry::Registry;

/// Silences in a row after which a unit is away. One can be noise; three are not.
const MISSES_MAX: u32 = 3;
/// How a unit that is away is looked for: each look costs the line a time-out.
const LOOK: Backoff = Backoff {
    min: Duration::from_secs(1),
    max: Duration::from_secs(30),
    healthy_after: Duration::from_secs(30),
};
/// How a line that cannot be opened is tried again.
const OPEN: Backoff = Backoff {
    min: Duration::from_millis(200),
    max: Duration::from_secs(5),
    healthy_after: Duration::from_secs(30),
};

/// The owner task's state.
#[derive(Debug)]
pub(super) struct Owner {
    config: ModbusConfig,
    ttys: Option<TtyWatch>,
    units: Vec<Unit>,
    commands: StreamMap<usize, ReceiverStream<Command>>,
    complaints: Complaints,
    board: Board,
}

#[derive(Debug)]
struct Unit {
    thing: ModbusThing,
    berth: Berth,
    presence: Presence,
    /// When each observed property is due.
    polls: BTreeMap<String, Instant>,
}

#[derive(Debug, Clone, Copy)]
enum Presence {
    /// There; so many silences in a row.
    Here { misses: u32 },
    /// Looked for again at that moment; so many looks were in vain.
    Away { look: Instant, attempt: u32 },
}

impl Owner {
    pub(super) fn new(
        config: ModbusConfig,
        things: Vec<ModbusThing>,
        ttys: Option<TtyWatch>,
        registry: Registry,
        board: Board,
    ) -> Self {
        let now = Instant::now();
        let units = things
            .into_iter()
            .map(|thing| Unit {
                berth: Berth::new(&config.name, thing.described.clone(), registry.clone()),
                presence: Presence::Away {
                    look: now,
                    attempt: 0,
                },
                polls: BTreeMap::new(),
                thing,
            })
            .collect();
        Self {
            config,
            ttys,
            units,
            commands: StreamMap::new(),
            complaints: Complaints::default(),
            board,
        }
    }

    /// Owns the bus until cancelled.
    #[tracing::instrument(name = "modbus", skip_all, fields(bus = %self.config.name))]
    pub(super) async fn run(mut self, cancel: CancellationToken) {
        for unit in &self.units {
            unit.berth.introduce().await;
        }
        let mut arrivals = match &self.config.place {
            BusPlace::Serial { place, .. } => Some(Arrivals::new(place.clone(), self.ttys.clone())),
            BusPlace::Tcp(_) => None,
        };
        let mut attempt = 0;
        let mut known = String::new();
        while !cancel.is_cancelled() {
            let opened = Instant::now();
            let open = modbus::open(&self.config.place, self.ttys.as_ref());
            let Some(open) = cancel.run_until_cancelled(open).await else {
                return;
            };
            let cause = match open {
                Ok(bus) => {
                    tracing::info!(units = self.units.len(), "bus opened");
                    known.clear();
                    let served = cancel.run_until_cancelled(self.serve(bus)).await;
                    self.lose_all().await;
                    match served {
                        None => return,
                        Some(error) => error.to_string(),
                    }
                }
                Err(error) => error.to_string(),
            };
            attempt = OPEN.attempt_after(attempt, opened.elapsed());
            let rest = OPEN.delay(attempt.saturating_sub(1), rand::random());
            if known != cause {
                tracing::warn!(%cause, rest_ms = rest.as_millis() as u64, "bus lost; it is tried again until it returns");
                known.clone_from(&cause);
            }
            self.publish("waiting", cause);
            tokio::select! {
                () = cancel.cancelled() => {}
                () = tokio::time::sleep(rest) => {}
                // It was plugged in: there is nothing more to be waited for.
                () = plugged_in(&mut arrivals) => attempt = 0,
            }
        }
    }

    fn publish(&self, state: &'static str, detail: String) {
        let online = self
            .units
            .iter()
            .filter(|unit| matches!(unit.presence, Presence::Here { .. }))
            .count();
        let status = SourceStatus {
            kind: "modbus",
            address: self.config.place.to_string(),
            state,
            detail,
            things: self.units.len(),
            online,
            errors: self.complaints.count(),
        };
        self.board.publish(&self.config.name, status);
    }

    /// Serves until the line is lost.
    async fn serve(&mut self, mut bus: OpenBus) -> BusError {
        loop {
            self.publish("connected", String::new());
            let due = self
                .units
                .iter()
                .enumerate()
                .filter_map(|(index, unit)| Some((unit.due()?, index)))
                .min();
            let lost = tokio::select! {
                biased;
                Some((index, command)) = self.commands.next(), if !self.commands.is_empty() => {
                    self.on_command(&mut bus, index, command).await
                }
                () = until(due.map(|(at, _)| at)) => {
                    let index = due.map_or(0, |(_, index)| index);
                    self.on_due(&mut bus, index).await
                }
            };
            if let Err(error) = lost {
                return error;
            }
        }
    }

    fn name(&self, index: usize) -> String {
        self.units.get(index).map_or_else(String::new, Unit::name)
    }

    fn heard(&mut self, index: usize) {
        if let Some(Unit {
            presence: Presence::Here { misses },
            ..
        }) = self.units.get_mut(index)
        {
            *misses = 0;
        }
    }

    /// A unit was silent. True when that makes it away.
    async fn missed(&mut self, index: usize) -> bool {
        let Some(unit) = self.units.get_mut(index) else {
            return false;
        };
        let Presence::Here { misses } = &mut unit.presence else {
            return true;
        };
        *misses += 1;
        if *misses < MISSES_MAX {
            return false;
        }
        tracing::warn!(thing = %unit.thing.described.description.id, unit = unit.thing.unit, "unit away");
        unit.presence = Presence::Away {
            look: Instant::now() + LOOK.delay(0, rand::random()),
            attempt: 1,
        };
        self.commands.remove(&index);
        unit.berth.detach().await;
        true
    }

    async fn appear(&mut self, index: usize) {
        let Some(unit) = self.units.get_mut(index) else {
            return;
        };
        let now = Instant::now();
        unit.presence = Presence::Here { misses: 0 };
        let polled = unit
            .thing
            .properties
            .iter()
            .filter(|(_, property)| property.poll.is_some() && property.read.is_some());
        unit.polls = polled.map(|(name, _)| (name.clone(), now)).collect();
        tracing::info!(thing = %unit.thing.described.description.id, unit = unit.thing.unit, "unit there");
        self.commands
            .insert(index, ReceiverStream::new(unit.berth.attach().await));
    }

    /// The line is lost, and all units with it.
    async fn lose_all(&mut self) {
        self.commands.clear();
        for unit in &mut self.units {
            if let Presence::Here { .. } = unit.presence {
                unit.presence = Presence::Away {
                    look: Instant::now(),
                    attempt: 0,
                };
                unit.berth.detach().await;
            }
        }
    }
}

impl Unit {
    fn name(&self) -> String {
        format!(
            "{} (unit {})",
            self.thing.described.description.title, self.thing.unit
        )
    }

    /// What to read to find out whether it is there.
    fn probe(&self) -> Option<&Point> {
        self.thing
            .properties
            .values()
            .find_map(|property| property.read.as_ref())
    }

    fn due(&self) -> Option<Instant> {
        match self.presence {
            Presence::Away { look, .. } => Some(look),
            Presence::Here { .. } => self.polls.values().min().copied(),
        }
    }
}

/// Waits until the bus's adapter is plugged in; for ever, where it has none.
async fn plugged_in(arrivals: &mut Option<Arrivals>) {
    match arrivals {
        Some(arrivals) => arrivals.next().await,
        None => std::future::pending().await,
    }
}
