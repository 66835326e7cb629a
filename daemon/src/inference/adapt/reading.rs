//! What was measured at one moment, and from which values on it means strain: data only.

use std::fmt;

/// How hard the box has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Nothing to spare.
    #[default]
    Normal,
    /// Somebody waits, or it gets warm: fewer threads.
    Eased,
    /// It cannot go on like this: what can wait rests, what can go elsewhere goes.
    Strained,
}

impl Level {
    /// Its name in the status and on the bus.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Eased => "eased",
            Self::Strained => "strained",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    /// Time on a processor: others want it as well, or a quota is used up.
    Cpu,
    /// Cold air.
    Heat,
    /// Memory.
    Memory,
    /// The model's own time: more is asked of it than it can answer.
    Demand,
}

impl Kind {
    /// All of them; the position of each is `kind as usize`.
    pub(super) const ALL: [Self; 4] = [Self::Cpu, Self::Heat, Self::Memory, Self::Demand];
}

/// From which value on a level is reached, and below which it is left again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Step {
    /// Reached at this value or above.
    pub enter: f64,
    /// Left below this value. At most `enter`.
    pub leave: f64,
}

/// One thing that was measured.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reading {
    /// What is short if this is high.
    pub kind: Kind,
    /// The value. One that is no number is none of the levels.
    pub value: f64,
    /// From when on it is [`Level::Eased`].
    pub eased: Step,
    /// From when on it is [`Level::Strained`].
    pub strained: Step,
    /// What, how much and where the limit is, for people.
    pub words: String,
}

impl Reading {
    /// The level that it asks for, while the box is at `now`: limits that were passed are left with some distance.
    pub(super) fn level(&self, now: Level) -> Level {
        let is_at = |level: Level, step: Step| {
            let limit = if now >= level { step.leave } else { step.enter };
            self.value >= limit
        };
        if is_at(Level::Strained, self.strained) {
            Level::Strained
        } else if is_at(Level::Eased, self.eased) {
            Level::Eased
        } else {
            Level::Normal
        }
    }
}
