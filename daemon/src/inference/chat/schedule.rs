//! Who has a row and who waits for one: pure, no model, no clock.
//!
//! `rows` answers are under way at a time. A free row goes to the waiting request that is most urgent by now ([`Class::risen`]), of
//! those the one that came first. While no row is free, a request takes that of an answer of a less urgent class: that answer is
//! *parked*, keeps its cache, and waits with the others. An answer counts for this as what it had risen to when it got its row, so that one
//! that waited for a minute is not sent away again by the next thing that somebody types. At most `rows` are parked.
//!
//! Memory may be short although a row is free ([`Schedule::note_blocked`]). Then less urgent answers are parked, which sets free what was
//! reserved for them, and nobody overtakes, as long as somebody runs who will give memory back. If nobody runs, the others are
//! tried in turn: one of the parked can always go on, since what it needs was free when the last of them got its row.
//!
//! The rule about starvation: a free row goes to nobody but a voice before it goes to a request that has waited for two times
//! [`RISE`](super::super::class::RISE), except to those that came before it.

use std::{collections::BTreeMap, time::Instant};

use super::{super::class::Class, cache::slots::SequenceId};

/// What is waiting and running.
#[derive(Debug)]
pub(super) struct Schedule {
    rows: usize,
    entries: BTreeMap<SequenceId, Entry>,
}

#[derive(Debug)]
struct Entry {
    class: Class,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Waiting {
        since: Instant,
        is_parked: bool,
        blocked: Blocked,
    },
    /// Counts as of this class.
    Running(Class),
}

/// Whether there was no memory for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blocked {
    No,
    /// Parking others may help.
    Yes,
    /// Only the end of others helps.
    Stuck,
}

/// Give `id` a row, having parked `instead_of`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) id: SequenceId,
    pub(super) instead_of: Option<SequenceId>,
}

impl Schedule {
    pub(super) fn new(rows: usize) -> Self {
        Self {
            rows,
            entries: BTreeMap::new(),
        }
    }

    /// A new request. Ids grow with the time of arrival; it waits since `since`.
    pub(super) fn arrive(&mut self, id: SequenceId, class: Class, since: Instant) {
        let state = State::Waiting {
            since,
            is_parked: false,
            blocked: Blocked::No,
        };
        self.entries.insert(id, Entry { class, state });
    }

    /// Who gets a row now, if anybody. The answer to it is [`note_seated`](Self::note_seated) or [`note_blocked`](Self::note_blocked).
    pub(super) fn next(&self, now: Instant) -> Option<Turn> {
        let running = self.running().count();
        if running < self.rows {
            let mut order: Vec<_> = self
                .waiting()
                .map(|(id, class, since, blocked)| {
                    let waited = now.saturating_duration_since(since);
                    (class.risen(waited), id, class, blocked)
                })
                .collect();
            order.sort_unstable_by_key(|&(risen, id, ..)| (risen, id));
            for (_, id, class, blocked) in order {
                let instead_of = match blocked {
                    Blocked::No => None,
                    Blocked::Yes => self.victim(class),
                    Blocked::Stuck => None,
                };
                if blocked == Blocked::No || instead_of.is_some() {
                    return Some(Turn { id, instead_of });
                }
                if running > 0 {
                    return None;
                }
            }
            return None;
        }
        let (id, class, _, blocked) = self.waiting().min_by_key(|&(id, class, ..)| (class, id))?;
        if blocked == Blocked::Stuck {
            // A row would not help it, and nobody overtakes it.
            return None;
        }
        let victim = self.victim(class)?;
        Some(Turn {
            id,
            instead_of: Some(victim),
        })
    }

    /// It has a row.
    pub(super) fn note_seated(&mut self, id: SequenceId, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&id)
            && let State::Waiting { since, .. } = entry.state
        {
            let waited = now.saturating_duration_since(since);
            entry.state = State::Running(entry.class.risen(waited));
        }
    }

    /// Its row is taken from it.
    pub(super) fn note_parked(&mut self, id: SequenceId, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.state = State::Waiting {
                since: now,
                is_parked: true,
                blocked: Blocked::No,
            };
        }
    }

    /// There was no memory for it.
    pub(super) fn note_blocked(&mut self, id: SequenceId) {
        let Some(class) = self.entries.get(&id).map(|entry| entry.class) else {
            return;
        };
        let now_blocked = match self.victim(class) {
            Some(_) => Blocked::Yes,
            None => Blocked::Stuck,
        };
        if let Some(Entry {
            state: State::Waiting { blocked, .. },
            ..
        }) = self.entries.get_mut(&id)
        {
            *blocked = now_blocked;
        }
    }

    /// It is over, wherever it was.
    pub(super) fn remove(&mut self, id: SequenceId) {
        self.entries.remove(&id);
        for entry in self.entries.values_mut() {
            if let State::Waiting { blocked, .. } = &mut entry.state {
                *blocked = Blocked::No;
            }
        }
    }

    /// Whoever waits although nobody runs and nobody may begin: there is no memory for any of them.
    pub(super) fn stuck(&self, now: Instant) -> Option<SequenceId> {
        if self.running().next().is_some() || self.next(now).is_some() {
            return None;
        }
        self.waiting().map(|(id, ..)| id).next()
    }

    fn running(&self) -> impl Iterator<Item = (SequenceId, Class)> {
        self.entries
            .iter()
            .filter_map(|(&id, entry)| match entry.state {
                State::Running(class) => Some((id, class)),
                State::Waiting { .. } => None,
            })
    }

    fn waiting(&self) -> impl Iterator<Item = (SequenceId, Class, Instant, Blocked)> {
        self.entries
            .iter()
            .filter_map(|(&id, entry)| match entry.state {
                State::Waiting { since, blocked, .. } => Some((id, entry.class, since, blocked)),
                State::Running(_) => None,
            })
    }

    /// Whose row one of `class` may take: the least urgent, the youngest of those.
    fn victim(&self, class: Class) -> Option<SequenceId> {
        let parked = self.entries.values().filter(|entry| {
            matches!(
                entry.state,
                State::Waiting {
                    is_parked: true,
                    ..
                }
            )
        });
        if parked.count() >= self.rows {
            return None;
        }
        let (victim, as_class) = self.running().max_by_key(|&(id, class)| (class, id))?;
        (as_class > class).then_some(victim)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// Carries out what is said, until nothing is; `memory` says who fits.
    fn settle(
        schedule: &mut Schedule,
        now: Instant,
        fits: impl Fn(&Schedule, SequenceId) -> bool,
    ) -> Vec<Turn> {
        let mut turns = Vec::new();
        while let Some(turn) = schedule.next(now) {
            turns.push(turn);
            assert!(turns.len() < 1000, "it does not settle: {turns:?}");
            if let Some(out) = turn.instead_of {
                schedule.note_parked(out, now);
            }
            if fits(schedule, turn.id) {
                schedule.note_seated(turn.id, now);
            } else {
                schedule.note_blocked(turn.id);
            }
        }
        turns
    }

    fn ids(turns: &[Turn]) -> Vec<(SequenceId, Option<SequenceId>)> {
        turns
            .iter()
            .map(|turn| (turn.id, turn.instead_of))
            .collect()
    }

    #[test]
    fn a_voice_takes_the_row_of_the_least_urgent_and_that_goes_on_afterwards() {
        let now = Instant::now();
        let mut schedule = Schedule::new(2);
        schedule.arrive(1, Class::Background, now);
        schedule.arrive(2, Class::Local, now);
        settle(&mut schedule, now, |_, _| true);
        schedule.arrive(3, Class::Local, now);
        assert_eq!(
            ids(&settle(&mut schedule, now, |_, _| true)),
            [(3, Some(1))]
        );
        schedule.arrive(4, Class::Fleet, now);
        assert_eq!(schedule.next(now), None, "nobody is less urgent");
        schedule.arrive(5, Class::Voice, now);
        assert_eq!(
            ids(&settle(&mut schedule, now, |_, _| true)),
            [(5, Some(3))]
        );
        schedule.remove(5);
        assert_eq!(ids(&settle(&mut schedule, now, |_, _| true)), [(3, None)]);
        schedule.remove(2);
        schedule.remove(3);
        assert_eq!(
            ids(&settle(&mut schedule, now, |_, _| true)),
            [(4, None), (1, None)]
        );
    }

    #[test]
    fn who_has_waited_for_a_minute_keeps_its_row_against_all_but_a_voice() {
        let now = Instant::now();
        let mut schedule = Schedule::new(1);
        schedule.arrive(1, Class::Local, now);
        settle(&mut schedule, now, |_, _| true);
        schedule.arrive(2, Class::Background, now);
        let later = now + Duration::from_secs(60);
        schedule.arrive(3, Class::Local, later);
        schedule.remove(1);
        assert_eq!(ids(&settle(&mut schedule, later, |_, _| true)), [(2, None)]);
        schedule.arrive(4, Class::Voice, later);
        assert_eq!(
            ids(&settle(&mut schedule, later, |_, _| true)),
            [(4, Some(2))]
        );
    }

    #[derive(Debug, Clone)]
    struct Arrival {
        at_s: u64,
        class: Class,
        /// Seconds of work in a row.
        work: u64,
        /// Of the memory.
        need: usize,
    }

    fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
        let one =
            (0u64..200, 0usize..4, 1u64..40, 1usize..6).prop_map(|(at_s, class, work, need)| {
                Arrival {
                    at_s,
                    class: Class::ALL[class],
                    work,
                    need,
                }
            });
        prop::collection::vec(one, 1..40).prop_map(|mut all| {
            all.sort_by_key(|arrival| arrival.at_s);
            all
        })
    }

    /// Half of what is needed is written at once, and is all that a parked one keeps.
    fn kept(need: usize) -> usize {
        need.div_ceil(2)
    }

    proptest! {
        /// A box with some rows and some memory, second by second. Ids are positions in `arrivals`.
        #[test]
        fn no_row_stays_empty_nobody_is_passed_by_the_less_urgent_and_all_come_to_their_end(
            arrivals in arrivals(), rows in 1usize..4, memory in 6usize..20,
        ) {
            let start = Instant::now();
            let mut schedule = Schedule::new(rows);
            let mut left: BTreeMap<SequenceId, u64> = BTreeMap::new();
            let mut waits: BTreeMap<SequenceId, u64> = BTreeMap::new();
            let mut done = 0;
            for second in 0u64.. {
                prop_assert!(second < 5000, "it does not end: {:?}", schedule);
                let now = start + Duration::from_secs(second);
                for (id, arrival) in (0u64..).zip(&arrivals).filter(|(_, arrival)| arrival.at_s == second) {
                    schedule.arrive(id, arrival.class, now);
                    left.insert(id, arrival.work);
                    waits.insert(id, second);
                }
                let need = |id: SequenceId| arrivals[usize::try_from(id).unwrap()].need;
                let fits = |schedule: &Schedule, id: SequenceId| {
                    let others = schedule.entries.iter().filter(|(other, _)| **other != id);
                    let taken: usize = others.map(|(&other, entry)| match entry.state {
                        State::Running(_) => need(other),
                        State::Waiting { is_parked: true, .. } => kept(need(other)),
                        State::Waiting { .. } => 0,
                    }).sum();
                    taken + need(id) <= memory
                };
                let turns = settle(&mut schedule, now, fits);
                let running: Vec<(SequenceId, Class)> = schedule.running().collect();
                prop_assert!(running.len() <= rows);
                for turn in &turns {
                    let Some(out) = turn.instead_of else { continue };
                    let class = |id: SequenceId| arrivals[usize::try_from(id).unwrap()].class;
                    prop_assert!(class(turn.id) < class(out), "a row was taken by the less urgent");
                    waits.insert(out, second);
                }
                let parked = schedule.entries.values().filter(|entry| matches!(entry.state, State::Waiting { is_parked: true, .. })).count();
                prop_assert!(parked <= rows, "{} parked", parked);
                prop_assert!(schedule.stuck(now).is_none(), "nobody runs: {:?}", schedule);
                let plenty = arrivals.iter().map(|arrival| arrival.need).sum::<usize>() <= memory;
                for (id, class, ..) in schedule.waiting() {
                    if plenty {
                        prop_assert_eq!(running.len(), rows, "a row is empty, and somebody waits");
                        if parked < rows {
                            prop_assert!(running.iter().all(|(_, other)| *other <= class), "{} waits behind the less urgent", id);
                        }
                    }
                }
                // Nobody but a voice passes by who has waited for a minute, unless it came first.
                for turn in &turns {
                    let began = arrivals[usize::try_from(turn.id).unwrap()].class;
                    let is_running = running.iter().any(|(id, _)| *id == turn.id);
                    if began == Class::Voice || !is_running || turn.instead_of.is_some() || !plenty {
                        continue;
                    }
                    for (id, ..) in schedule.waiting() {
                        prop_assert!(second - waits[&id] < 60 || turn.id < id, "{} passed {} by", turn.id, id);
                    }
                }
                for (id, _) in running {
                    let left = left.get_mut(&id).unwrap();
                    *left -= 1;
                    if *left == 0 {
                        schedule.remove(id);
                        done += 1;
                    }
                }
                if done == arrivals.len() {
                    break;
                }
            }
        }
    }
}
