//! What waits in the outbox, without its content: order, quotas, coalescing and deadlines. Pure; time comes in as milliseconds since 1970.
//!
//! The index runs ahead of the disk: a message gets its place here before it is committed (`Writing`), and is sent only when it is
//! durable (`Waiting`). What is removed leaves the index when its removal is decided; if that removal is never committed, the message
//! is found again at the next start and sent again, which its id tells.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// Before this (2025-01-01) no clock of a box can be right: it has not been set yet. Lifetimes of what was taken then begin anew when
/// the clock is set, or a box that starts in 1970 would drop everything at once when it learns the time.
const CLOCK_UNSET_BEFORE_MS: u64 = 1_735_689_600_000;

/// A class of messages: which goes first, and what happens when there is no more room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Outcomes of commands. Full: whoever has one waits, and takes no further commands.
    Results,
    /// Events of devices. Full: new ones are refused and counted; what happened first explains the rest.
    Events,
    /// Values of properties and what is online. Full: the oldest is dropped and counted; the newest is worth most.
    Telemetry,
}

impl Lane {
    /// All, the most urgent first.
    pub const ALL: [Lane; 3] = [Lane::Results, Lane::Events, Lane::Telemetry];

    /// Its name in status and configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Lane::Results => "results",
            Lane::Events => "events",
            Lane::Telemetry => "telemetry",
        }
    }

    pub(super) fn from_digit(digit: &str) -> Option<Lane> {
        Lane::ALL
            .into_iter()
            .find(|lane| lane.at().to_string() == digit)
    }

    pub(super) const fn at(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// How much one lane may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneQuota {
    /// Messages.
    pub entries_max: u64,
    /// Bytes of keys and records together.
    pub bytes_max: u64,
}

/// Quotas by lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// [`Lane::Results`]
    pub results: LaneQuota,
    /// [`Lane::Events`]
    pub events: LaneQuota,
    /// [`Lane::Telemetry`]
    pub telemetry: LaneQuota,
}

impl Limits {
    fn of(&self, lane: Lane) -> LaneQuota {
        match lane {
            Lane::Results => self.results,
            Lane::Events => self.events,
            Lane::Telemetry => self.telemetry,
        }
    }
}

/// Counters of one lane since the daemon started, and what it holds now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaneStats {
    /// Messages that wait now.
    pub waiting: u64,
    /// Bytes that they take.
    pub bytes: u64,
    /// Acknowledged by the broker.
    pub delivered: u64,
    /// Replaced by a newer value of the same topic before they left.
    pub coalesced: u64,
    /// Dropped because their deadline passed.
    pub expired: u64,
    /// Dropped for want of room (telemetry).
    pub dropped: u64,
    /// Not taken, for want of room or of a store.
    pub refused: u64,
    /// Given up because this broker can never take them (too large, not a topic) or the record is damaged.
    pub undeliverable: u64,
}

/// Where a message lies: its lane and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Its lane.
    pub lane: Lane,
    /// Its number; unique while it waits, smaller is older.
    pub number: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Its commit is under way.
    Writing,
    /// Durable.
    Waiting,
    /// Handed to the broker's connection.
    InFlight,
}

/// What the index needs to know of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) bytes: u64,
    pub(super) accepted_ms: u64,
    /// `None`: for ever.
    pub(super) lifetime_ms: Option<u64>,
    /// Only the newest message under this name is worth sending.
    pub(super) latest_of: Option<String>,
}

#[derive(Debug)]
struct Entry {
    header: Header,
    phase: Phase,
}

impl Entry {
    /// Milliseconds left at `now_ms`; a clock that was set back does not make it older.
    fn left_ms(&self, now_ms: u64) -> Option<u64> {
        let lifetime = self.header.lifetime_ms?;
        Some(lifetime.saturating_sub(now_ms.saturating_sub(self.header.accepted_ms)))
    }
}

#[derive(Debug, Default)]
struct LaneIndex {
    entries: BTreeMap<u64, Entry>,
    /// The message that a newer one of the same name replaces.
    latest: HashMap<String, u64>,
    bytes: u64,
    stats: LaneStats,
}

impl LaneIndex {
    fn insert(&mut self, number: u64, entry: Entry) {
        self.bytes += entry.header.bytes;
        if let Some(name) = &entry.header.latest_of {
            self.latest.insert(name.clone(), number);
        }
        self.entries.insert(number, entry);
    }

    fn remove(&mut self, number: u64) -> Option<Entry> {
        let entry = self.entries.remove(&number)?;
        self.bytes -= entry.header.bytes;
        if let Some(name) = &entry.header.latest_of
            && self.latest.get(name) == Some(&number)
        {
            self.latest.remove(name);
        }
        Some(entry)
    }

    fn has_room(&self, bytes: u64, quota: LaneQuota) -> bool {
        (self.entries.len() as u64) < quota.entries_max && self.bytes + bytes <= quota.bytes_max
    }
}

/// What the index decided about a message that is to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Admission {
    /// It has a place; the messages in `instead_of` go, in the same commit.
    Taken {
        place: Place,
        instead_of: Vec<Place>,
    },
    /// There is no room.
    Full,
}

#[derive(Debug)]
pub(super) struct Index {
    limits: Limits,
    lanes: [LaneIndex; 3],
    next: u64,
}

impl Index {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            lanes: Default::default(),
            next: 0,
        }
    }

    /// Forgets what waits, for it to be read from disk again; counters stay.
    pub(super) fn clear(&mut self) {
        for lane in &mut self.lanes {
            *lane = LaneIndex {
                stats: lane.stats,
                ..LaneIndex::default()
            };
        }
    }

    /// Takes a message that was found on disk.
    pub(super) fn found(&mut self, place: Place, header: Header) {
        self.next = self.next.max(place.number + 1);
        let phase = Phase::Waiting;
        self.lanes[place.lane.at()].insert(place.number, Entry { header, phase });
    }

    /// Finds a place for a message; it is not sent before [`Index::written`].
    pub(super) fn admit(&mut self, lane: Lane, header: Header) -> Admission {
        let quota = self.limits.of(lane);
        let index = &mut self.lanes[lane.at()];
        let mut gone: Vec<(u64, Entry)> = Vec::new();
        let replaced = header
            .latest_of
            .as_ref()
            .and_then(|name| index.latest.get(name).copied())
            .filter(|number| index.entries.get(number).is_some_and(is_replaceable));
        let coalesced = u64::from(replaced.is_some());
        if let Some(number) = replaced {
            gone.extend(index.remove(number).map(|entry| (number, entry)));
        }
        while !index.has_room(header.bytes, quota) {
            let oldest = match lane {
                Lane::Telemetry => index
                    .entries
                    .iter()
                    .find(|(_, entry)| is_replaceable(entry))
                    .map(|(number, _)| *number),
                Lane::Results | Lane::Events => None,
            };
            let Some(number) = oldest else {
                for (number, entry) in gone {
                    index.insert(number, entry);
                }
                index.stats.refused += 1;
                return Admission::Full;
            };
            gone.extend(index.remove(number).map(|entry| (number, entry)));
        }
        index.stats.coalesced += coalesced;
        index.stats.dropped += gone.len() as u64 - coalesced;
        let instead_of = gone.into_iter().map(|(number, _)| Place { lane, number });
        let instead_of = instead_of.collect();
        let number = self.next;
        self.next += 1;
        let phase = Phase::Writing;
        index.insert(number, Entry { header, phase });
        Admission::Taken {
            place: Place { lane, number },
            instead_of,
        }
    }

    /// Counts a message that could not even be offered a place.
    pub(super) fn refused(&mut self, lane: Lane) {
        self.lanes[lane.at()].stats.refused += 1;
    }

    /// A message is durable now, and may be sent; false when it is not known.
    pub(super) fn written(&mut self, place: Place) -> bool {
        self.set_phase(place, Phase::Waiting)
    }

    /// Takes a message that was to be sent back into the queue, at its old place. False when it is not wanted any more, and is to be
    /// removed: a newer value of its topic went its way meanwhile, and must stay the last one.
    pub(super) fn give_back(&mut self, place: Place) -> bool {
        let lane = &mut self.lanes[place.lane.at()];
        let Some(entry) = lane.entries.get_mut(&place.number) else {
            return true;
        };
        let name = entry.header.latest_of.as_ref();
        if name.is_some_and(|name| lane.latest.get(name) != Some(&place.number)) {
            lane.remove(place.number);
            lane.stats.coalesced += 1;
            return false;
        }
        entry.phase = Phase::Waiting;
        true
    }

    fn set_phase(&mut self, place: Place, phase: Phase) -> bool {
        let entry = self.lanes[place.lane.at()].entries.get_mut(&place.number);
        entry.map(|entry| entry.phase = phase).is_some()
    }

    /// The next messages to send, the most urgent lane first and the oldest first in each; they count as in flight from now on.
    /// With each the milliseconds that it has left.
    pub(super) fn take_next(
        &mut self,
        now_ms: u64,
        limit: usize,
        is_open: impl Fn(Lane) -> bool,
    ) -> Vec<(Place, Option<u64>)> {
        let mut taken = Vec::new();
        for lane in Lane::ALL.into_iter().filter(|lane| is_open(*lane)) {
            for (number, entry) in &mut self.lanes[lane.at()].entries {
                if taken.len() == limit {
                    return taken;
                }
                match entry.phase {
                    Phase::InFlight => {}
                    // One that is not durable yet holds back the later ones of its lane, for their order's sake.
                    Phase::Writing => break,
                    Phase::Waiting => {
                        entry.phase = Phase::InFlight;
                        let place = Place {
                            lane,
                            number: *number,
                        };
                        taken.push((place, entry.left_ms(now_ms)));
                    }
                }
            }
        }
        taken
    }

    /// The broker has these: they are forgotten.
    pub(super) fn delivered(&mut self, places: &[Place]) {
        for place in places {
            let lane = &mut self.lanes[place.lane.at()];
            if lane.remove(place.number).is_some() {
                lane.stats.delivered += 1;
            }
        }
    }

    /// Gives up a message that can never be delivered.
    pub(super) fn undeliverable(&mut self, place: Place) {
        let lane = &mut self.lanes[place.lane.at()];
        if lane.remove(place.number).is_some() {
            lane.stats.undeliverable += 1;
        }
    }

    /// Removes up to `limit` messages whose deadline has passed and that are not in flight.
    pub(super) fn expire(&mut self, now_ms: u64, limit: usize) -> Vec<Place> {
        let mut expired = Vec::new();
        for lane in Lane::ALL {
            let index = &mut self.lanes[lane.at()];
            for entry in index.entries.values_mut() {
                if entry.header.accepted_ms < CLOCK_UNSET_BEFORE_MS
                    && now_ms >= CLOCK_UNSET_BEFORE_MS
                {
                    entry.header.accepted_ms = now_ms;
                }
            }
            let numbers: Vec<u64> = index
                .entries
                .iter()
                .filter(|(_, entry)| {
                    entry.phase == Phase::Waiting && entry.left_ms(now_ms) == Some(0)
                })
                .map(|(number, _)| *number)
                .take(limit - expired.len())
                .collect();
            for number in numbers {
                index.remove(number);
                index.stats.expired += 1;
                expired.push(Place { lane, number });
            }
        }
        expired
    }

    /// What the lanes hold and what became of messages, by lane.
    pub(super) fn stats(&self) -> [LaneStats; 3] {
        let mut stats = [LaneStats::default(); 3];
        for (stats, lane) in stats.iter_mut().zip(&self.lanes) {
            *stats = LaneStats {
                waiting: lane.entries.len() as u64,
                bytes: lane.bytes,
                ..lane.stats
            };
        }
        stats
    }
}

/// What is in flight may arrive, so replacing it would neither save nor lose anything; what is being written has a commit under way.
fn is_replaceable(entry: &Entry) -> bool {
    entry.phase == Phase::Waiting
}

#[cfg(test)]
mod tests;
