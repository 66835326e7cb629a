//! What a bus's owner asks by itself: whether a unit that is away is back, and what is observed of those that are there.

use std::time::Instant;

use autoglm_drivers::modbus::{BusError, OpenBus};

use super::exchange::read;
use super::{LOOK, Owner, Presence};
use crate::things::binding::modbus::{Batch, Block, Data, Point, PointError, batches};

impl Owner {
    /// A unit is to be looked for, or its properties read.
    pub(super) async fn on_due(&mut self, bus: &mut OpenBus, index: usize) -> Result<(), BusError> {
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
    async fn poll(&mut self, bus: &mut OpenBus, index: usize) -> Result<(), BusError> {
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
}
