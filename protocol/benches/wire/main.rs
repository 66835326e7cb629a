//! What a message costs beside what others pay, and what comes over a slow line: `cargo bench -p autoglm-protocol` (`-- codec` for the
//! first part alone).
//!
//! Everything is measured here and now, contenders in turn within each round; nothing is compared with remembered numbers.
//! The line is simulated in virtual time, so its figures are the same on every machine.

mod allocations;
mod codec;
mod line;
mod stack;

use std::hint::black_box;
use std::time::Instant;

use codec::{Ours, OursBelowMessages, PlainCobsCrc, PostcardRpc};
use stack::Stack;

/// Rounds of which the median is taken.
const ROUNDS: usize = 31;
/// How long a contender runs in a round; chosen so that the clock's resolution does not matter.
const ROUND_MICROS: u128 = 4_000;

/// Carries a payload from one end to the other, all in memory.
trait Contender {
    fn name(&self) -> &'static str;
    /// Gives the bytes that went over the line.
    fn carry(&mut self, payload: &[u8]) -> usize;
}

fn main() {
    for size in [32, 256, 4096] {
        compare(size);
    }
    if std::env::args().all(|argument| argument != "codec") {
        line::print_tables();
    }
}

fn compare(size: usize) {
    // A pattern in which every 256th byte is zero, as in random data.
    let payload: Vec<u8> = (0..size).map(|at| (at * 167 + 13) as u8).collect();
    let mut contenders: Vec<Box<dyn Contender>> = vec![
        Box::new(Ours::default()),
        Box::new(PostcardRpc::default()),
        Box::new(PlainCobsCrc),
        Box::new(OursBelowMessages::default()),
        Box::new(Stack::clear()),
        Box::new(Stack::secure()),
    ];
    let mut nanos: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
    let mut facts = Vec::new();
    for contender in &mut contenders {
        // The first messages fill buffers that the later ones use again.
        for _ in 0..500 {
            black_box(contender.carry(&payload));
        }
        let before = allocations::count();
        let wire: usize = (0..1_000).map(|_| contender.carry(&payload)).sum();
        let allocated = allocations::count() - before;
        facts.push((
            allocated as f64 / 1_000.0,
            wire as f64 / 1_000.0 - size as f64,
        ));
    }
    for _ in 0..ROUNDS {
        for (contender, nanos) in contenders.iter_mut().zip(&mut nanos) {
            let (started, mut messages) = (Instant::now(), 0u32);
            while started.elapsed().as_micros() < ROUND_MICROS {
                for _ in 0..16 {
                    black_box(contender.carry(black_box(&payload)));
                }
                messages += 16;
            }
            nanos.push(started.elapsed().as_nanos() as f64 / f64::from(messages));
        }
    }
    // Each round gives a ratio of its own, so that a slow moment of the machine spoils both sides of it.
    let ratio_to = |other: usize, which: usize| {
        median(
            nanos[which]
                .iter()
                .zip(&nanos[other])
                .map(|(a, b)| a / b)
                .collect(),
        )
    };
    println!("\n{size} bytes of payload, encoded and decoded; median of {ROUNDS} rounds");
    println!(
        "{:<34} {:>9} {:>15} {:>13} {:>11} {:>10}",
        "", "ns", "/ postcard-rpc", "/ cobs + crc", "allocations", "overhead B"
    );
    for (which, contender) in contenders.iter().enumerate() {
        println!(
            "{:<34} {:>9.0} {:>15.2} {:>13.2} {:>11.2} {:>10.1}",
            contender.name(),
            median(nanos[which].clone()),
            ratio_to(1, which),
            ratio_to(2, which),
            facts[which].0,
            facts[which].1,
        );
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
