//! No message that the outbox took is lost when the power goes.
//!
//! `AUTOGLM_POWER_CUTS` sets the number of cuts (10), `AUTOGLM_SEED` repeats a run's moments, and `AUTOGLM_REQUIRE_POWER_CUT=1` turns a
//! skip (no root, no nbdkit, ...) into a failure.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use autoglm_edge::store::{ExportPolicy, Origin, Store, StoreConfig, StoreHealth};
use autoglm_tests::outbox_check::{Owed, found};
use autoglm_tests::power_cut::{CuttableDisk, Unflushed, end, is_possible_here, variable};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

/// Size of the disk; the store stays far below.
const DISK_BYTES: u64 = 256 * 1024 * 1024;
/// The power goes this long after the writer's first acknowledgement, in milliseconds.
const CUT_AFTER_MS: std::ops::Range<u64> = 20..900;
/// How long a writer may take to come up.
const WRITER_TIMEOUT: Duration = Duration::from_secs(60);

#[test]
fn messages_in_the_outbox_survive_power_cuts() -> anyhow::Result<()> {
    if !is_possible_here() {
        return Ok(());
    }
    let cuts = variable("AUTOGLM_POWER_CUTS")?.unwrap_or(10);
    let seed = variable("AUTOGLM_SEED")?.unwrap_or_else(rand::random);
    println!("seed {seed}, {cuts} cuts");
    let mut random = StdRng::seed_from_u64(seed);
    let directory = tempfile::tempdir()?;
    let mut disk = CuttableDisk::new(directory.path(), DISK_BYTES)?;
    let state = disk.mount_point().join("state");
    let mut owed = Owed::default();
    let (mut acknowledged, mut lost, mut rebuilt) = (0, 0, 0);
    println!(
        "{:>4} {:>8} {:>12} {:>8} {:>5}",
        "cut", "after ms", "acknowledged", "waiting", "lost"
    );
    for cut in 0..=cuts {
        // Every other cut keeps some of what was not flushed.
        disk.power_on(match cut % 2 {
            0 => Unflushed::Lost,
            _ => Unflushed::KeptByChance {
                seed: random.random(),
            },
        })?;
        let found = look(&state, &mut rebuilt)?;
        let missing = owed.missing(&found);
        lost += missing.len();
        if cut > 0 {
            println!(" {:>8} {:>5}", found.len(), missing.len());
        }
        // What is lost is owed no longer, so that it counts once.
        owed.forget(&missing);
        if cut < cuts {
            let before = owed.acknowledged();
            let after = Duration::from_millis(random.random_range(CUT_AFTER_MS));
            let start = owed.next().max(found.last().map_or(0, |last| last + 1));
            write_until_cut(&mut disk, &state, start, after, &mut owed)?;
            let new = owed.acknowledged() - before;
            print!("{:>4} {:>8} {new:>12}", cut + 1, after.as_millis());
            acknowledged += new;
        }
        disk.clear()?;
    }
    println!("acknowledged {acknowledged}, lost {lost}, stores rebuilt {rebuilt}");
    assert!(
        acknowledged > 0,
        "a run without acknowledgements shows nothing"
    );
    assert_eq!((lost, rebuilt), (0, 0), "lost, rebuilt; seed {seed}");
    Ok(())
}

/// The messages on disk.
fn look(state: &Path, rebuilt: &mut usize) -> anyhow::Result<BTreeSet<u64>> {
    let config = StoreConfig {
        state_directory: state.to_owned(),
        export: ExportPolicy::default(),
    };
    let store = Store::open(config, SystemTime::now())?;
    let StoreHealth::Ready { origin } = store.handle().health() else {
        anyhow::bail!("the store is not in use: {:?}", store.handle().health());
    };
    *rebuilt += usize::from(matches!(origin, Origin::Rebuilt { .. }));
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let found = runtime.block_on(found(&store.handle()))?;
    store.shutdown();
    Ok(found)
}

/// Runs a writer, cuts the power some time after its first acknowledgement, and notes what it owes.
fn write_until_cut(
    disk: &mut CuttableDisk,
    state: &Path,
    start: u64,
    after: Duration,
    owed: &mut Owed,
) -> anyhow::Result<()> {
    let before = owed.acknowledged();
    let mut writer = Command::new(env!("CARGO_BIN_EXE_store-writer"))
        .arg(state)
        .args(["--outbox", "--start", &start.to_string()])
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
    while owed.acknowledged() == before {
        let line = received
            .recv_timeout(WRITER_TIMEOUT)
            .context("the writer acknowledged nothing")?;
        owed.take(&line);
    }
    // The moment of the cut is the test's input, not a wait for something.
    thread::sleep(after);
    disk.cut()?;
    end(&mut writer)?;
    reader
        .join()
        .map_err(|_| anyhow::anyhow!("the reader of the pipe panicked"))?;
    for line in received.iter() {
        owed.take(&line);
    }
    Ok(())
}
