//! What is done at a level: pure.
//!
//! Fewer threads where processors or cool air are short, and only for the chat model, which computes for seconds where the others compute for milliseconds. Where
//! more is asked than it can answer, fewer threads would make it worse, and where memory is short, they would not help. The smaller bundle
//! serves while the box is strained, whatever is short. Background work of the chat and generic models rests then (the embedding
//! model's does not: without it a new device is not understood), and who may be answered elsewhere is
//! (`inference/upstream/dispatch.rs`).

use std::{num::NonZeroUsize, sync::Arc};

use super::{
    machine::Causes,
    reading::{Kind, Level},
};

/// What may be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Measures {
    /// Threads of the chat model while the box is eased; `None`: half of what it has otherwise, rounded up.
    pub eased_threads: Option<NonZeroUsize>,
    /// And while it is strained; `None`: one.
    pub strained_threads: Option<NonZeroUsize>,
    /// The bundle that serves in place of the chat model while the box is strained.
    pub smaller: Option<Arc<str>>,
}

/// How the chat model is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Threads inside an operator, where it runs on the CPU.
    pub threads: NonZeroUsize,
    /// The bundle that serves in place of the one configured.
    pub instead: Option<Arc<str>>,
}

impl Wish {
    /// At `level` for want of `causes`; `full` threads are what it has when nothing is short.
    pub(super) fn at(
        level: Level,
        causes: Causes,
        full: NonZeroUsize,
        measures: &Measures,
    ) -> Self {
        let fewer = match level {
            Level::Normal => None,
            _ if !causes.has(Kind::Cpu) && !causes.has(Kind::Heat) => None,
            Level::Eased => Some(measures.eased_threads.unwrap_or_else(|| {
                NonZeroUsize::new(full.get().div_ceil(2)).unwrap_or(NonZeroUsize::MIN)
            })),
            Level::Strained => Some(measures.strained_threads.unwrap_or(NonZeroUsize::MIN)),
        };
        Self {
            threads: fewer.map_or(full, |fewer| fewer.min(full)),
            instead: (level == Level::Strained)
                .then(|| measures.smaller.clone())
                .flatten(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::{
        super::{
            machine::{Machine, Timing},
            reading::{Reading, Step},
        },
        *,
    };

    /// What is short when this was measured long enough.
    fn causes(values: &[(Kind, f64)]) -> (Level, Causes) {
        let timing = Timing {
            rise: Duration::ZERO,
            dwell: Duration::from_secs(1),
            dwell_max: Duration::from_secs(1),
        };
        let mut machine = Machine::new(timing, Instant::now());
        let step = |limit| Step {
            enter: limit,
            leave: limit,
        };
        let readings: Vec<Reading> = values
            .iter()
            .map(|&(kind, value)| Reading {
                kind,
                value,
                eased: step(1.0),
                strained: step(2.0),
                words: "it".into(),
            })
            .collect();
        machine.observe(Instant::now(), &readings);
        (machine.level(), machine.causes())
    }

    fn some(count: usize) -> NonZeroUsize {
        NonZeroUsize::new(count).unwrap()
    }

    #[test]
    fn threads_go_for_processors_and_heat_the_bundle_for_anything() {
        let measures = Measures {
            smaller: Some("small".into()),
            ..Measures::default()
        };
        for (values, threads, instead) in [
            (&[(Kind::Cpu, 0.0)][..], 6, false),
            (&[(Kind::Cpu, 1.0)], 3, false),
            (&[(Kind::Heat, 2.0)], 1, true),
            (&[(Kind::Memory, 1.0)], 6, false),
            (&[(Kind::Demand, 2.0)], 6, true),
            (&[(Kind::Demand, 2.0), (Kind::Cpu, 1.0)], 1, true),
        ] {
            let (level, causes) = causes(values);
            let wish = Wish::at(level, causes, some(6), &measures);
            assert_eq!(
                (wish.threads.get(), wish.instead.is_some()),
                (threads, instead),
                "{values:?}"
            );
        }
        let (level, causes) = causes(&[(Kind::Cpu, 2.0)]);
        assert_eq!(
            Wish::at(level, causes, some(6), &Measures::default()).instead,
            None
        );
    }

    proptest! {
        #[test]
        fn there_is_always_a_thread_and_never_one_more_than_without(
            full in 1usize..64, eased in 0usize..80, strained in 0usize..80, at in prop::array::uniform4(0f64..3.0),
        ) {
            let measures = Measures {
                eased_threads: NonZeroUsize::new(eased),
                strained_threads: NonZeroUsize::new(strained),
                smaller: None,
            };
            let values = [0, 1, 2, 3].map(|kind| (Kind::ALL[kind], at[kind]));
            let (level, causes) = causes(&values);
            let wish = Wish::at(level, causes, some(full), &measures);
            prop_assert!(wish.threads.get() >= 1 && wish.threads.get() <= full);
            prop_assert!(level != Level::Normal || wish.threads.get() == full);
        }
    }
}
