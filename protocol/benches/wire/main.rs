//! What a message costs beside what others pay, and what comes over a slow line: `cargo bench -p autoglm-protocol`.
//!
//! `-- --short` measures for a shorter time; `-- codec` prints the first table alone; `-- carry WHO SIZE COUNT` carries COUNT messages and
//! prints nothing, to be counted by a tool such as callgrind where the machine is too busy for a clock.
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
use stack::{Below, Exchange, Stack};

/// How much is measured.
#[derive(Debug, Clone, Copy)]
struct Effort {
    /// Rounds of which the median is taken.
    rounds: usize,
    /// How long a contender runs in a round: far longer than the clock's resolution, and shorter than a scheduler's slice, so that on a
    /// busy machine most rounds are left alone.
    round_micros: u128,
    /// Virtual seconds of each goodput.
    line_seconds: u64,
    /// Reads of each latency.
    line_reads: usize,
}

const FULL: Effort = Effort {
    rounds: 501,
    round_micros: 400,
    line_seconds: 120,
    line_reads: 400,
};

const SHORT: Effort = Effort {
    rounds: 151,
    round_micros: 400,
    line_seconds: 30,
    line_reads: 150,
};

/// Carries a payload from one end to the other, all in memory.
trait Contender {
    fn name(&self) -> &'static str;
    /// Gives the bytes that went over the line.
    fn carry(&mut self, payload: &[u8]) -> usize;
}

/// Ours first, then those that it is compared with.
fn contenders() -> Vec<Box<dyn Contender>> {
    let mut contenders: Vec<Box<dyn Contender>> = vec![
        Box::new(Ours::default()),
        Box::new(PostcardRpc::default()),
        Box::new(PlainCobsCrc),
        Box::new(OursBelowMessages::default()),
    ];
    contenders.extend(Below::ALL.map(|below| Box::new(Stack::new(below)) as Box<dyn Contender>));
    contenders
}

/// A pattern in which every 256th byte is zero, as in random data.
fn payload(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at * 167 + 13) as u8).collect()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |wanted: &str| arguments.iter().any(|argument| argument == wanted);
    if let [verb, who, size, count, ..] = &arguments[..]
        && verb == "carry"
    {
        return carry(who, size, count);
    }
    let effort = if has("--short") { SHORT } else { FULL };
    println!(
        "### A message there and back (encode, frame, deframe, decode), median of {} rounds\n",
        effort.rounds
    );
    println!("| payload | | ns | / postcard-rpc | / cobs + crc | allocations | overhead B |");
    println!("| ---: | --- | ---: | ---: | ---: | ---: | ---: |");
    for size in [32, 256, 4096] {
        compare(size, effort);
    }
    if has("codec") {
        return;
    }
    print_exchanges();
    line::print_tables(effort.line_seconds, effort.line_reads);
}

fn carry(who: &str, size: &str, count: &str) {
    let number = |text: &str| text.parse().expect("a number");
    let mut contenders = contenders();
    let contender = contenders.get_mut(number(who)).expect("0 to 6, as printed");
    let payload = payload(number(size));
    for _ in 0..number(count) {
        black_box(contender.carry(black_box(&payload)));
    }
}

fn compare(size: usize, effort: Effort) {
    let payload = payload(size);
    let mut contenders = contenders();
    let mut nanos: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
    let mut facts = Vec::new();
    for contender in &mut contenders {
        let (allocated, wire) = per_turn(|| contender.carry(&payload));
        facts.push((allocated, wire - size as f64));
    }
    for _ in 0..effort.rounds {
        for (contender, nanos) in contenders.iter_mut().zip(&mut nanos) {
            let (started, mut messages) = (Instant::now(), 0u32);
            while started.elapsed().as_micros() < effort.round_micros {
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
        let rounds = nanos[which].iter().zip(&nanos[other]);
        median(rounds.map(|(a, b)| a / b).collect())
    };
    for (which, contender) in contenders.iter().enumerate() {
        println!(
            "| {size} | {} | {:.0} | {:.2} | {:.2} | {:.2} | {:.1} |",
            contender.name(),
            median(nanos[which].clone()),
            ratio_to(1, which),
            ratio_to(2, which),
            facts[which].0,
            facts[which].1,
        );
    }
}

fn print_exchanges() {
    println!(
        "\n### Whole machines in a steady state: allocations of both ends together, and bytes on the line both ways\n"
    );
    println!(
        "| | allocations | bytes | reliable link: allocations | bytes | sealed: allocations | bytes |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    let payload = payload(32);
    for exchange in Exchange::ALL {
        let cells = Below::ALL.map(|below| {
            let mut stack = Stack::new(below);
            let (allocated, wire) = per_turn(|| stack.exchange(exchange, &payload));
            format!("{allocated:.2} | {wire:.1}")
        });
        println!("| {} | {} |", exchange.name(), cells.join(" | "));
    }
}

/// The allocations of a turn, and the bytes that it gives, once the first turns have filled what the later ones use again.
fn per_turn(mut turn: impl FnMut() -> usize) -> (f64, f64) {
    const TURNS: u32 = 1_000;
    for _ in 0..500 {
        black_box(turn());
    }
    let before = allocations::count();
    let wire: usize = (0..TURNS).map(|_| turn()).sum();
    let allocated = allocations::count() - before;
    let turns = f64::from(TURNS);
    (allocated as f64 / turns, wire as f64 / turns)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
