//! No acknowledged record is lost when the power goes, and neither is one torn.
//!
//! `AUTOGLM_POWER_CUTS` sets the number of cuts (30), `AUTOGLM_SEED` repeats a run's moments, and `AUTOGLM_REQUIRE_POWER_CUT=1`
//! turns a skip (no root, no nbdkit, ...) into a failure. `AUTOGLM_UNSAFE_FLUSH_ONLY=1` runs the same against sled's `flush()` alone
//! and then demands losses: the proof that this test can see them.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;
use autoglm_edge::store::{ExportPolicy, Origin, Store, StoreConfig, StoreHandle, StoreHealth};
use autoglm_tests::power_cut::{CuttableDisk, Unflushed, end, is_possible_here, variable};
use autoglm_tests::stored_records::Stored;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

/// Size of the disk; the store stays far below.
const DISK_BYTES: u64 = 256 * 1024 * 1024;

/// The power goes this long after the writer's first acknowledgement, in milliseconds.
const CUT_AFTER_MS: std::ops::Range<u64> = 20..900;

/// How long a writer may take to come up, or to end when its disk is gone.
const WRITER_TIMEOUT: Duration = Duration::from_secs(30);

/// What the writer waits for before it acknowledges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AcknowledgedBy {
    Commit,
    FlushAlone,
}

#[derive(Debug, Default)]
struct Tally {
    acknowledged: usize,
    lost: usize,
    torn: usize,
    wrong: usize,
    rebuilt: usize,
}

#[test]
fn acknowledged_records_survive_power_cuts() -> anyhow::Result<()> {
    if !is_possible_here() {
        return Ok(());
    }
    let cuts = variable("AUTOGLM_POWER_CUTS")?.unwrap_or(30);
    let seed = variable("AUTOGLM_SEED")?.unwrap_or_else(rand::random);
    let by = match std::env::var_os("AUTOGLM_UNSAFE_FLUSH_ONLY") {
        Some(_) => AcknowledgedBy::FlushAlone,
        None => AcknowledgedBy::Commit,
    };
    println!("seed {seed}, {cuts} cuts, acknowledged by {by:?}");
    let tally = cut_power(cuts, seed, by)?;
    println!("{tally:?}");
    assert!(
        tally.acknowledged > 0,
        "a run without acknowledgements shows nothing"
    );
    if by == AcknowledgedBy::FlushAlone {
        assert!(
            tally.lost > 0,
            "flush alone lost nothing: the cuts do not cut"
        );
    } else {
        let seen = (tally.lost, tally.torn, tally.wrong, tally.rebuilt);
        assert_eq!(
            seen,
            (0, 0, 0, 0),
            "lost, torn, wrong, rebuilt; seed {seed}"
        );
    }
    Ok(())
}

fn cut_power(cuts: u64, seed: u64, by: AcknowledgedBy) -> anyhow::Result<Tally> {
    let mut random = StdRng::seed_from_u64(seed);
    let directory = tempfile::tempdir()?;
    let mut disk = CuttableDisk::new(directory.path(), DISK_BYTES)?;
    let state = disk.mount_point().join("state");
    let mut tally = Tally::default();
    // Numbers that were acknowledged and must still be there, unless they were removed as planned.
    let mut owed = BTreeSet::new();
    let mut start = 0;
    println!(
        "{:>4} rest {:>8} {:>6} {:>5} {:>5} {:>6} {:>10}  origin",
        "cut", "after ms", "acks", "lost", "torn", "wrong", "reopen ms"
    );
    for cut in 0..=cuts {
        // Every other cut keeps some of what was not flushed.
        let unflushed = match cut % 2 {
            0 => Unflushed::Lost,
            _ => Unflushed::KeptByChance {
                seed: random.random(),
            },
        };
        disk.power_on(unflushed)?;
        let begun = Instant::now();
        let store = open(&state)?;
        let reopened = begun.elapsed();
        let StoreHealth::Ready { origin } = store.handle().health() else {
            anyhow::bail!(
                "store is not in use after cut {cut}: {:?}",
                store.handle().health()
            );
        };
        let found = inspect(&store.handle(), &mut owed)?;
        store.shutdown();
        let rebuilt = usize::from(matches!(origin, Origin::Rebuilt { .. }));
        if cut > 0 {
            println!(
                "{:>5} {:>5} {:>6} {:>10.1}  {origin:?}",
                found.lost,
                found.torn,
                found.wrong,
                reopened.as_secs_f64() * 1e3
            );
        }
        tally.lost += found.lost;
        tally.torn += found.torn;
        tally.wrong += found.wrong;
        tally.rebuilt += rebuilt;
        start = start.max(found.next);
        if cut < cuts {
            let after = Duration::from_millis(random.random_range(CUT_AFTER_MS));
            let acknowledged = write_until_cut(&mut disk, &state, start, after, by)?;
            let rest = match unflushed {
                Unflushed::Lost => "lost",
                Unflushed::KeptByChance { .. } => "part",
            };
            print!(
                "{:>4} {rest} {:>8} {:>6} ",
                cut + 1,
                after.as_millis(),
                acknowledged.len()
            );
            tally.acknowledged += acknowledged.len();
            start = start.max(acknowledged.last().map_or(0, |last| last + 1));
            owed.extend(acknowledged);
        }
        disk.clear()?;
    }
    Ok(tally)
}

fn open(state: &Path) -> anyhow::Result<Store> {
    let config = StoreConfig {
        state_directory: state.to_owned(),
        export: ExportPolicy::default(),
    };
    Ok(Store::open(config, SystemTime::now())?)
}

struct Found {
    lost: usize,
    torn: usize,
    wrong: usize,
    next: u64,
}

/// Compares what is there with what is owed; what is lost is owed no longer, so that it counts once.
fn inspect(store: &StoreHandle, owed: &mut BTreeSet<u64>) -> anyhow::Result<Found> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let found = runtime.block_on(Stored::read(store))?;
    let lost: Vec<u64> = owed
        .iter()
        .copied()
        .filter(|number| found.is_lost(*number))
        .collect();
    owed.retain(|number| found.present.contains(number));
    if !lost.is_empty() {
        eprintln!(
            "lost: {} records from {:?} to {:?}",
            lost.len(),
            lost.first(),
            lost.last()
        );
    }
    Ok(Found {
        lost: lost.len(),
        torn: found.torn,
        wrong: found.wrong,
        next: found.present.last().map_or(0, |last| last + 1),
    })
}

/// Runs a writer, cuts the power some time after its first acknowledgement, and returns all that it acknowledged.
fn write_until_cut(
    disk: &mut CuttableDisk,
    state: &Path,
    start: u64,
    after: Duration,
    by: AcknowledgedBy,
) -> anyhow::Result<BTreeSet<u64>> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_store-writer"));
    command.arg(state).args(["--start", &start.to_string()]);
    if by == AcknowledgedBy::FlushAlone {
        command.arg("--unsafe-flush-only");
    }
    let mut writer = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let output = writer.stdout.take().context("stdout is piped")?;
    let (lines, received) = mpsc::channel();
    let reader = thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                break;
            }
        }
    });
    let mut acknowledged = BTreeSet::new();
    while acknowledged.is_empty() {
        let line = received
            .recv_timeout(WRITER_TIMEOUT)
            .context("the writer acknowledged nothing")?;
        acknowledged.extend(acknowledgement(&line));
    }
    // The moment of the cut is the test's input, not a wait for something.
    thread::sleep(after);
    disk.cut()?;
    end(&mut writer)?;
    reader
        .join()
        .map_err(|_| anyhow::anyhow!("the reader of the pipe panicked"))?;
    acknowledged.extend(received.iter().filter_map(|line| acknowledgement(&line)));
    Ok(acknowledged)
}

fn acknowledgement(line: &str) -> Option<u64> {
    line.strip_prefix("ACK ")?.parse().ok()
}
