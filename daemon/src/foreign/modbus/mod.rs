//! The owner of one Modbus bus: opens its line, asks its units one at a time, serves their Things' requests.
//!
//! Requests come before polls. A read that meets silence is asked once more, since reading changes nothing; a write only where writing
//! twice is writing once ([`exchange`]). A unit that was silent [`MISSES_MAX`] times in a row is away and is looked for at growing intervals, so that it
//! does not take the line from the others. A write is answered by reading back what the unit then holds.

mod exchange;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use autoglm_drivers::backoff::Backoff;
use autoglm_drivers::modbus::{self, BusError, SerialBus};
use autoglm_drivers::port::{Answer, Command, PortError};
use autoglm_drivers::serial::{Arrivals, TtyWatch};
use autoglm_protocol::{DeliveryState, Fault, FaultCode, Request, RequestFailure};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{StreamExt as _, StreamMap};
use tokio_util::sync::CancellationToken;

use self::exchange::{AskError, Refusal, carry_out, exception, read};
use super::roster::{Berth, Complaints};
use super::{Board, SourceStatus, until};
use crate::config::foreign::ModbusConfig;
use crate::things::binding::modbus::{Batch, Block, Data, ModbusThing, Point, PointError, batches};
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
        let mut arrivals = Arrivals::new(self.config.place.clone(), self.ttys.clone());
        let mut attempt = 0;
        let mut known = String::new();
        while !cancel.is_cancelled() {
            let opened = Instant::now();
            let open = modbus::open(&self.config.place, self.config.format, self.ttys.as_ref());
            let cause = match open.await {
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
                () = arrivals.next() => attempt = 0,
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
            address: format!(
                "serial://{}?baud={}",
                self.config.place, self.config.format.baud
            ),
            state,
            detail,
            things: self.units.len(),
            online,
            errors: self.complaints.count(),
        };
        self.board.publish(&self.config.name, status);
    }

    /// Serves until the line is lost.
    async fn serve(&mut self, mut bus: SerialBus) -> BusError {
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

    /// A unit is to be looked for, or its properties read.
    async fn on_due(&mut self, bus: &mut SerialBus, index: usize) -> Result<(), BusError> {
        let Some(unit) = self.units.get_mut(index) else {
            return Ok(());
        };
        match unit.presence {
            Presence::Away { attempt, .. } => {
                let heard = match unit.probe() {
                    None => Ok(true),
                    Some(point) => match read(
                        bus,
                        &self.config,
                        unit.thing.unit,
                        point.block,
                        point.timeout,
                    )
                    .await
                    {
                        Ok(_) => Ok(true),
                        Err(error) if error.is_refusal() => Ok(true),
                        Err(error) if error.is_line() => Err(error),
                        Err(error) => {
                            self.complaints.say(&unit.name(), &error);
                            Ok(false)
                        }
                    },
                }?;
                if heard {
                    self.appear(index).await;
                } else {
                    unit.presence = Presence::Away {
                        look: Instant::now() + LOOK.delay(attempt, rand::random()),
                        attempt: attempt.saturating_add(1),
                    };
                }
                Ok(())
            }
            Presence::Here { .. } => self.poll(bus, index).await,
        }
    }

    /// Reads what is due of a unit, adjacent entries at once.
    async fn poll(&mut self, bus: &mut SerialBus, index: usize) -> Result<(), BusError> {
        let Some(unit) = self.units.get_mut(index) else {
            return Ok(());
        };
        let now = Instant::now();
        let mut due = Vec::new();
        for (name, property) in &unit.thing.properties {
            let (Some(point), Some(at)) = (&property.read, unit.polls.get_mut(name)) else {
                continue;
            };
            let interval = property
                .poll
                .filter(|poll| !poll.is_zero())
                .unwrap_or(self.config.poll);
            // What is due within a tenth of its interval comes along, so that neighbours stay together.
            if *at <= now + interval / 10 {
                *at = now + interval;
                due.push((name.clone(), point.clone()));
            }
        }
        let blocks = due
            .iter()
            .enumerate()
            .map(|(at, (_, point))| (at, point.block));
        let mut asked: Vec<(Vec<usize>, Block)> = batches(blocks)
            .into_iter()
            .map(|batch| {
                (
                    batch.members.iter().map(|(at, _)| *at).collect(),
                    batch.block,
                )
            })
            .collect();
        while let Some((members, block)) = asked.pop() {
            let timeout = members
                .iter()
                .filter_map(|at| due.get(*at)?.1.timeout)
                .max();
            let Some(unit) = self.units.get(index) else {
                return Ok(());
            };
            match read(bus, &self.config, unit.thing.unit, block, timeout).await {
                Ok(answer) => {
                    self.heard(index);
                    for (name, point) in members.iter().filter_map(|at| due.get(*at)) {
                        self.report(index, name, point, block, &answer).await;
                    }
                }
                Err(error) if error.is_refusal() && members.len() > 1 => {
                    // One of them is refused; asked one by one it shows which.
                    self.heard(index);
                    asked.extend(
                        members
                            .iter()
                            .filter_map(|at| Some((vec![*at], due.get(*at)?.1.block))),
                    );
                }
                Err(error) if error.is_line() => return Err(error),
                Err(error) => {
                    let names: Vec<&str> = members
                        .iter()
                        .filter_map(|at| Some(due.get(*at)?.0.as_str()))
                        .collect();
                    self.complaints.say(
                        &format!("{}: {}", self.name(index), names.join(", ")),
                        &error,
                    );
                    if error.is_refusal() {
                        self.heard(index);
                    } else if self.missed(index).await {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    async fn report(
        &mut self,
        index: usize,
        name: &str,
        point: &Point,
        whole: Block,
        answer: &Data,
    ) {
        let part = Batch {
            block: whole,
            members: vec![((), point.block)],
        }
        .part(point.block, answer);
        let value = part
            .ok_or(PointError::Shape)
            .and_then(|part| point.decode(&part));
        let Some(unit) = self.units.get(index) else {
            return;
        };
        match value {
            Ok(value) => unit.berth.report(name.to_owned(), value).await,
            Err(error) => {
                let about = format!("{}: {name}", unit.name());
                self.complaints.say(&about, &error);
            }
        }
    }

    /// Serves one request. An error is the line's.
    async fn on_command(
        &mut self,
        bus: &mut SerialBus,
        index: usize,
        command: Command,
    ) -> Result<(), BusError> {
        let asked = Instant::now();
        let Some(unit) = self.units.get(index) else {
            return Ok(());
        };
        let is_read = matches!(
            command.request,
            Request::Read { .. } | Request::Observe { .. }
        );
        let result = carry_out(bus, &self.config, unit, command.request, command.deadline).await;
        let (answer, lost) = match result {
            Ok(reply) => {
                self.heard(index);
                (Ok(reply), Ok(()))
            }
            Err(Refusal::Fault(fault)) => {
                (Err(PortError::Failed(RequestFailure::Fault(fault))), Ok(()))
            }
            Err(Refusal::Ask(AskError::Point(error))) => {
                self.heard(index);
                let code = if matches!(error, PointError::Encode(_)) {
                    FaultCode::OutOfRange
                } else {
                    FaultCode::Failed
                };
                (Err(fault(code, error.to_string())), Ok(()))
            }
            Err(Refusal::Ask(AskError::Bus(BusError::Exception(code)))) => {
                if matches!(code, 10 | 11) {
                    self.missed(index).await;
                } else {
                    self.heard(index);
                }
                (
                    Err(PortError::Failed(RequestFailure::Fault(exception(code)))),
                    Ok(()),
                )
            }
            Err(Refusal::Ask(AskError::Bus(error))) => {
                self.complaints.say(&self.name(index), &error);
                let delivered = if is_read {
                    DeliveryState::NotSent
                } else {
                    DeliveryState::Sent
                };
                if error.is_line() {
                    (
                        Err(PortError::Failed(RequestFailure::ConnectionLost {
                            delivered,
                        })),
                        Err(error),
                    )
                } else {
                    self.missed(index).await;
                    // It was sent, and nobody knows whether it was heard.
                    (
                        Err(PortError::Failed(RequestFailure::DeadlineExceeded {
                            delivered: DeliveryState::Sent,
                        })),
                        Ok(()),
                    )
                }
            }
        };
        let took = asked.elapsed();
        // Whoever asked may have given up waiting; the unit acted all the same.
        let _ = command.reply.send(answer.map(|reply| Answer {
            reply,
            written_after: Duration::ZERO,
            answered_after: took,
        }));
        lost
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

fn fault(code: FaultCode, words: String) -> PortError {
    PortError::Failed(RequestFailure::Fault(Fault::new(code, words)))
}
