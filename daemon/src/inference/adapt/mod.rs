//! Less is done while the box is under strain, and why is said: fewer threads, a smaller bundle, background work rests, conversations go elsewhere.
//!
//! [`watch`] is the thread that looks every two seconds: at the kernel's [`sensors`] ([`pressure`], [`thermal`]), at the chat model's own
//! [`demand`], and at how many processors are lent. [`machine`] makes a level of what was measured, with distance between coming and going, and a
//! dwell, so that it never flaps; [`plan`] says what is done at a level. All but the thread and the sensors is pure. An input that is not
//! there is absent and said so; nothing is guessed.
//!
//! A session of ONNX Runtime has the threads that it was made with. So fewer threads, like another bundle, are a model that is loaded beside the
//! one that serves and takes over ([`slot`](super::slot)): what was begun is ended by the old one with the old threads, bit for bit.

use std::{
    num::NonZeroUsize,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

mod demand;
mod machine;
mod plan;
mod pressure;
mod reading;
mod sensors;
mod thermal;
pub(super) mod watch;

pub use self::{
    machine::Timing,
    plan::{Measures, Wish},
    reading::Level,
    sensors::{Absent, Limits},
};

/// How the box adapts.
#[derive(Debug, Clone, PartialEq)]
pub struct AdaptConfig {
    /// Below which the kernel's `proc` and `sys` are: `/`.
    pub root: PathBuf,
    /// How often is looked. The kernel's averages change every two seconds.
    pub period: Duration,
    /// How quickly the level follows.
    pub timing: Timing,
    /// What strain is.
    pub limits: Limits,
    /// What is done about it.
    pub measures: Measures,
}

impl Default for AdaptConfig {
    fn default() -> Self {
        Self {
            root: "/".into(),
            period: Duration::from_secs(2),
            timing: Timing {
                rise: Duration::from_secs(10),
                dwell: Duration::from_secs(60),
                dwell_max: Duration::from_secs(900),
            },
            limits: Limits {
                cpu_percent: [40.0, 75.0],
                memory_percent: [10.0, 30.0],
                zone_c: None,
                slower_times: [2.0, 4.0],
            },
            measures: Measures::default(),
        }
    }
}

/// How the box stands, and what is done about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Adaptation {
    /// Whether anybody looks.
    pub is_on: bool,
    /// How hard the box has it.
    pub level: Level,
    /// Since when.
    pub since: Instant,
    /// Why it came to this level; empty before the first change.
    pub reason: String,
    /// Changes of the level since the start.
    pub changes: u64,
    /// What was measured last, in words.
    pub inputs: Vec<String>,
    /// What cannot be measured here, and why.
    pub absent: Vec<Absent>,
    /// Threads that the configuration asks for, for each model.
    pub threads_asked: Option<NonZeroUsize>,
    /// Processors that the machine lends.
    pub threads_lent: NonZeroUsize,
    /// How the chat model is to run; how it does run, its own state says.
    pub wish: Wish,
    /// Whether background work rests.
    pub background_rests: bool,
}

impl Adaptation {
    /// Why an answer is made in another way than usual, while the box is strained.
    #[must_use]
    pub fn strain(&self) -> Option<String> {
        (self.level == Level::Strained).then(|| format!("the box is strained: {}", self.reason))
    }

    /// Whether observers are woken: not for every value that sways.
    fn is_news(&self, before: &Self) -> bool {
        let told = |it: &Self| {
            (
                it.level,
                it.changes,
                it.reason.clone(),
                it.threads_lent,
                it.wish.clone(),
                it.background_rests,
            )
        };
        let absent =
            |it: &Self| -> Vec<String> { it.absent.iter().map(|one| one.what.clone()).collect() };
        told(self) != told(before) || absent(self) != absent(before)
    }
}

/// How the chat model's supervisor learns what is wished.
pub(super) type Wishes = Arc<std::sync::Mutex<Wish>>;
