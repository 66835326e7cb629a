//! From readings to a level that stays for a while: pure, time is passed in.
//!
//! Up it goes when a reading has asked for more than the present level for [`Timing::rise`] without a break, and then to the least that was asked
//! for meanwhile. Down it goes when all readings have asked for less for a whole *dwell* since the last change, and then to the most
//! that was asked for meanwhile. A dwell is [`Timing::dwell`] at first; each rise within a dwell after a descent doubles it up to
//! [`Timing::dwell_max`], since the calm was then of our own making, and a rise after a longer calm begins with the first again.
//!
//! So within any time T there are at most `T / dwell + 1` descents and two rises for each and two more, whatever is measured. What is
//! short (its [`Kind`]) is remembered until the level is normal again, since it decides what is done: a kind that comes later counts from when it
//! has lasted for [`Timing::rise`].

use std::time::{Duration, Instant};

use super::reading::{Kind, Level, Reading};

/// How quickly the level follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long more must be asked for before the level rises.
    pub rise: Duration,
    /// How long less must be asked for before it falls, at first.
    pub dwell: Duration,
    /// And at most. Not less than `dwell`.
    pub dwell_max: Duration,
}

/// What is short, as long as the level is not normal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Causes([bool; Kind::ALL.len()]);

impl Causes {
    /// Whether this is among it.
    #[must_use]
    pub(super) fn has(self, kind: Kind) -> bool {
        self.0[kind as usize]
    }

    fn add(&mut self, kind: Kind) -> bool {
        !std::mem::replace(&mut self.0[kind as usize], true)
    }
}

/// A change, for whoever acts on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    /// The level before; the same as `to` where another kind of strain came along.
    pub from: Level,
    /// The level from now on.
    pub to: Level,
    /// Why, in words.
    pub reason: String,
}

/// The level and its history.
#[derive(Debug)]
pub(super) struct Machine {
    timing: Timing,
    level: Level,
    causes: Causes,
    changed: Instant,
    /// More is asked for since then, and at least this.
    rising: Option<(Instant, Level)>,
    /// Less is asked for since then, and at most this.
    falling: Option<(Instant, Level)>,
    /// Each kind asks for more than nothing since then.
    lasting: [Option<Instant>; Kind::ALL.len()],
    dwell: Duration,
    /// When it went down last.
    fell: Option<Instant>,
}

impl Machine {
    /// A box at rest.
    #[must_use]
    pub(super) fn new(timing: Timing, now: Instant) -> Self {
        Self {
            timing,
            level: Level::Normal,
            causes: Causes::default(),
            changed: now,
            rising: None,
            falling: None,
            lasting: [None; Kind::ALL.len()],
            dwell: timing.dwell,
            fell: None,
        }
    }

    /// The level now.
    #[must_use]
    pub(super) fn level(&self) -> Level {
        self.level
    }

    /// What is short now.
    #[must_use]
    pub(super) fn causes(&self) -> Causes {
        self.causes
    }

    /// Since when.
    #[must_use]
    pub(super) fn since(&self) -> Instant {
        self.changed
    }

    /// Takes in what was measured at `now`, which is not before the last call's.
    pub(super) fn observe(&mut self, now: Instant, readings: &[Reading]) -> Option<Change> {
        self.note_kinds(now, readings);
        let asked = |reading: &Reading| reading.level(self.level);
        let wanted = readings.iter().map(asked).max().unwrap_or_default();
        let (mut change, lasted) = (None, |since: Instant| now.saturating_duration_since(since));
        if wanted > self.level {
            self.falling = None;
            let (since, least) = self.rising.unwrap_or((now, wanted));
            let least = least.min(wanted);
            self.rising = Some((since, least));
            if lasted(since) >= self.timing.rise {
                change = Some(self.rise(now, least, readings));
            }
        } else {
            self.rising = None;
            if wanted < self.level {
                let (since, most) = self.falling.unwrap_or((now, wanted));
                let most = most.max(wanted);
                self.falling = Some((since, most));
                if lasted(since) >= self.dwell {
                    change = Some(self.fall(now, most, readings));
                }
            } else {
                self.falling = None;
            }
        }
        change.or_else(|| self.join(now, readings))
    }

    fn rise(&mut self, now: Instant, to: Level, readings: &[Reading]) -> Change {
        if let Some(fell) = self.fell {
            let calm = now.saturating_duration_since(fell);
            self.dwell = match calm < self.dwell {
                true => (self.dwell * 2).min(self.timing.dwell_max),
                false => self.timing.dwell,
            };
        }
        for reading in readings {
            if reading.level(Level::Normal) > Level::Normal {
                self.causes.add(reading.kind);
            }
        }
        let reason = words(readings, self.level, to);
        self.go(now, to, reason)
    }

    fn fall(&mut self, now: Instant, to: Level, readings: &[Reading]) -> Change {
        let calm = format!("less for {} s", self.dwell.as_secs_f32().round());
        let reason = match words(readings, self.level, Level::Eased) {
            still if to > Level::Normal && !still.is_empty() => format!("{calm}, still {still}"),
            _ => calm,
        };
        self.fell = Some(now);
        if to == Level::Normal {
            self.causes = Causes::default();
        }
        self.go(now, to, reason)
    }

    fn go(&mut self, now: Instant, to: Level, reason: String) -> Change {
        let from = std::mem::replace(&mut self.level, to);
        self.changed = now;
        (self.rising, self.falling) = (None, None);
        Change { from, to, reason }
    }

    /// A kind of strain that has lasted joins those that are known, while the level stays.
    fn join(&mut self, now: Instant, readings: &[Reading]) -> Option<Change> {
        if self.level == Level::Normal {
            return None;
        }
        let kind = Kind::ALL.into_iter().find(|&kind| {
            let since = self.lasting[kind as usize];
            !self.causes.has(kind)
                && since
                    .is_some_and(|since| now.saturating_duration_since(since) >= self.timing.rise)
        })?;
        self.causes.add(kind);
        let of_kind = readings.iter().filter(|reading| reading.kind == kind);
        let reason = of_kind
            .max_by_key(|reading| reading.level(Level::Normal))
            .map(|reading| reading.words.clone())?;
        Some(Change {
            from: self.level,
            to: self.level,
            reason,
        })
    }

    fn note_kinds(&mut self, now: Instant, readings: &[Reading]) {
        for kind in Kind::ALL {
            let mut of_kind = readings.iter().filter(|reading| reading.kind == kind);
            let since = &mut self.lasting[kind as usize];
            *since = match of_kind.any(|reading| reading.level(Level::Normal) > Level::Normal) {
                true => since.or(Some(now)),
                false => None,
            };
        }
    }
}

/// The readings that ask for `to` or more at the level `from`.
fn words(readings: &[Reading], from: Level, to: Level) -> String {
    let asking = readings.iter().filter(|reading| reading.level(from) >= to);
    let words: Vec<&str> = asking.map(|reading| reading.words.as_str()).collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::reading::Step, *};

    const SECOND: Duration = Duration::from_secs(1);
    const TIMING: Timing = Timing {
        rise: Duration::from_secs(10),
        dwell: Duration::from_secs(60),
        dwell_max: Duration::from_secs(900),
    };

    fn reading(kind: Kind, value: f64) -> Reading {
        Reading {
            kind,
            value,
            eased: Step {
                enter: 40.0,
                leave: 30.0,
            },
            strained: Step {
                enter: 75.0,
                leave: 60.0,
            },
            words: format!("{kind:?} {value}"),
        }
    }

    /// A clock and a machine that is fed every 2 s.
    struct Fed {
        machine: Machine,
        now: Instant,
        changes: Vec<(u64, Level)>,
        begin: Instant,
    }

    impl Fed {
        fn new() -> Self {
            let now = Instant::now();
            Self {
                machine: Machine::new(TIMING, now),
                now,
                changes: Vec::new(),
                begin: now,
            }
        }

        /// Feeds a value for so many seconds.
        fn feed(&mut self, seconds: u64, value: f64) -> &mut Self {
            for _ in 0..seconds / 2 {
                self.now += 2 * SECOND;
                let readings = [reading(Kind::Cpu, value)];
                if let Some(change) = self.machine.observe(self.now, &readings) {
                    assert_eq!(change.to, self.machine.level());
                    let at = (self.now - self.begin).as_secs();
                    self.changes.push((at, change.to));
                }
            }
            self
        }
    }

    #[test]
    fn it_rises_after_ten_seconds_and_falls_after_a_minute_of_calm() {
        let mut fed = Fed::new();
        fed.feed(10, 80.0).feed(2, 80.0).feed(62, 5.0);
        assert_eq!(fed.changes, [(12, Level::Strained), (74, Level::Normal)]);
    }

    #[test]
    fn a_peak_is_no_strain_and_between_the_limits_nothing_changes() {
        let mut fed = Fed::new();
        fed.feed(8, 99.0)
            .feed(2, 39.0)
            .feed(8, 99.0)
            .feed(100, 39.0);
        assert_eq!(fed.changes, []);
        // It came to 41 and goes back to 31, which would not have brought it there.
        fed.feed(12, 41.0).feed(600, 31.0);
        assert_eq!(fed.changes.len(), 1, "{:?}", fed.changes);
    }

    #[test]
    fn it_goes_to_what_was_asked_for_all_the_time() {
        let mut fed = Fed::new();
        fed.feed(6, 80.0).feed(6, 50.0).feed(2, 80.0);
        assert_eq!(fed.changes, [(12, Level::Eased)]);
        fed.feed(10, 80.0).feed(40, 5.0).feed(22, 45.0);
        assert_eq!(
            fed.changes[1..],
            [(24, Level::Strained), (86, Level::Eased)]
        );
    }

    #[test]
    fn calm_of_our_own_making_is_waited_for_longer_each_time() {
        let mut fed = Fed::new();
        let mut lasted = Vec::new();
        for _ in 0..6 {
            fed.feed(12, 80.0);
            let (rose, _) = *fed.changes.last().unwrap();
            while fed.machine.level() != Level::Normal {
                fed.feed(2, 5.0);
            }
            lasted.push(fed.changes.last().unwrap().0 - rose);
        }
        assert_eq!(lasted, [62, 122, 242, 482, 902, 902]);
        fed.feed(1000, 5.0).feed(12, 80.0).feed(62, 5.0);
        assert_eq!(fed.machine.level(), Level::Normal, "as at first");
    }

    #[test]
    fn what_is_short_is_known_until_all_is_well_and_a_second_kind_is_told() {
        let mut machine = Machine::new(TIMING, Instant::now());
        let mut now = machine.since();
        let mut told = Vec::new();
        for step in 0..30 {
            now += SECOND;
            let heat = if step < 15 { 0.0 } else { 50.0 };
            let readings = [reading(Kind::Demand, 80.0), reading(Kind::Heat, heat)];
            told.extend(machine.observe(now, &readings));
        }
        let words: Vec<&str> = told.iter().map(|change| change.reason.as_str()).collect();
        assert_eq!(words, ["Demand 80", "Heat 50"]);
        assert_eq!(
            (told[1].from, told[1].to),
            (Level::Strained, Level::Strained)
        );
        let causes = machine.causes();
        let has = Kind::ALL.map(|kind| causes.has(kind));
        assert_eq!(has, [false, true, false, true]);
        for _ in 0..70 {
            now += SECOND;
            machine.observe(now, &[]);
        }
        assert_eq!(machine.causes(), Causes::default());
    }

    #[test]
    fn what_is_no_number_asks_for_nothing() {
        let mut fed = Fed::new();
        fed.feed(100, f64::NAN);
        assert_eq!(fed.changes, []);
        fed.feed(12, f64::INFINITY).feed(62, f64::NAN);
        assert_eq!(fed.machine.level(), Level::Normal);
    }

    proptest! {
        /// Whatever is measured and however often, changes are rare, and calm ends it.
        #[test]
        fn it_never_flaps_and_always_comes_back(
            inputs in prop::collection::vec((0u64..30_000, prop::array::uniform4(0f64..100.0)), 1..400),
        ) {
            let begin = Instant::now();
            let (mut machine, mut now) = (Machine::new(TIMING, begin), begin);
            let (mut rises, mut falls, mut joins, mut last_fall) = (0u32, 0u32, 0u32, begin);
            for (millis, values) in inputs {
                now += Duration::from_millis(millis);
                let readings = [0, 1, 2, 3].map(|at| reading(Kind::ALL[at], values[at]));
                let before = machine.level();
                let asked = readings.iter().map(|it| it.level(before)).max().unwrap();
                let Some(change) = machine.observe(now, &readings) else {
                    prop_assert_eq!(before, machine.level());
                    continue;
                };
                prop_assert_eq!((change.from, change.to), (before, machine.level()));
                prop_assert!(!change.reason.is_empty());
                match change.to.cmp(&change.from) {
                    std::cmp::Ordering::Greater => {
                        rises += 1;
                        prop_assert!(asked >= change.to, "nobody asked for it");
                    }
                    std::cmp::Ordering::Less => {
                        falls += 1;
                        prop_assert!(now - last_fall >= TIMING.dwell);
                        last_fall = now;
                    }
                    std::cmp::Ordering::Equal => joins += 1,
                }
            }
            let dwells = u32::try_from((now - begin).as_secs() / TIMING.dwell.as_secs()).unwrap();
            prop_assert!(falls <= dwells + 1 && rises <= 2 * falls + 2, "{} and {} in {} dwells", falls, rises, dwells);
            prop_assert!(joins <= 3 * (falls + 1));

            let calm = now;
            while machine.level() != Level::Normal {
                now += 2 * SECOND;
                machine.observe(now, &[]);
                prop_assert!(now - calm <= TIMING.dwell_max + 2 * SECOND, "it does not come back");
            }
            prop_assert_eq!(machine.causes(), Causes::default());
        }
    }
}
