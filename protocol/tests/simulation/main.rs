//! Two machines on every bad link that a seed can invent, in virtual time: what is promised holds on each.
//!
//! `SEED=n` runs one seed and tells what its world was like, `SEEDS=n` runs the first n. A failing seed prints its command.

mod carriage;
mod live_bytes;
mod scenario;
mod timekeeping;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// What a run in CI takes.
const SEEDS: u64 = 10_000;

fn from_environment(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().expect("a number"))
}

#[test]
fn every_seeds_world_gets_all_its_messages_and_transfers_once_and_in_order() {
    if let Some(seed) = from_environment("SEED") {
        let outcome = scenario::run(seed);
        println!("{outcome:#?}");
        return;
    }
    let seeds = from_environment("SEEDS").unwrap_or(SEEDS);
    let started = Instant::now();
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let worker = || {
        let mut sum = scenario::Totals::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return sum;
            }
            let outcome = catch_unwind(AssertUnwindSafe(|| scenario::run(seed)));
            match outcome {
                Ok(outcome) => sum.add(&outcome),
                Err(panic) => {
                    println!(
                        "replay with: SEED={seed} cargo test -p autoglm-protocol --test simulation -- --nocapture"
                    );
                    next.store(seeds, Ordering::Relaxed);
                    std::panic::resume_unwind(panic);
                }
            }
        }
    };
    let totals = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        let mut totals = scenario::Totals::default();
        for worker in workers {
            match worker.join() {
                Ok(sum) => totals.merge(&sum),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        totals
    });
    println!("{seeds} seeds in {:.1?}: {totals:#?}", started.elapsed());
    let kinds = [
        totals.lost_connections,
        totals.resumptions,
        totals.retransmissions,
        totals.duplicates,
        totals.interrupted_transfers,
        totals.time_samples,
        totals.trusting,
    ];
    assert!(!kinds.contains(&0), "the worlds were too kind");
}
