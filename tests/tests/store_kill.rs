//! `kill -9` takes no acknowledged record, and a command that ran then is never run again.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use autoglm_edge::store::{
    ExportPolicy, Key, Origin, Store, StoreConfig, StoreHealth, Tree,
    ledger::{Begin, Ledger},
};
use autoglm_tests::stored_records::{RECORDS_KEPT, Text, record_key, record_text};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

/// Rounds of writing and killing; each takes some tenths of a second.
const ROUNDS: u64 = 12;

#[test]
fn acknowledged_records_survive_kill_9() -> anyhow::Result<()> {
    let seed = std::env::var("AUTOGLM_SEED")
        .ok()
        .map_or_else(|| Ok(rand::random()), |text| text.parse())?;
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let state = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let mut start = 0;
    for round in 0..ROUNDS {
        let mut writer = Command::new(env!("CARGO_BIN_EXE_store-writer"))
            .arg(state.path())
            .args(["--start", &start.to_string()])
            .stdout(Stdio::piped())
            .spawn()?;
        let output = BufReader::new(writer.stdout.take().context("stdout is piped")?);
        let enough = random.random_range(1..400);
        let mut acknowledged = Vec::new();
        for line in output.lines() {
            acknowledged.extend(
                line?
                    .strip_prefix("ACK ")
                    .and_then(|number| number.parse::<u64>().ok()),
            );
            if acknowledged.len() == enough {
                // What was printed before the kill arrives is still read: it counts too.
                writer.kill()?;
            }
        }
        writer.wait()?;
        let store = open(&state)?;
        let StoreHealth::Ready { origin } = store.handle().health() else {
            anyhow::bail!("not in use: {:?}", store.handle().health());
        };
        assert_eq!(origin, Origin::Opened, "round {round}, seed {seed}");
        let newest = acknowledged
            .iter()
            .copied()
            .max()
            .context("nothing was acknowledged")?;
        for number in acknowledged
            .iter()
            .copied()
            .filter(|number| number + RECORDS_KEPT > newest + 64)
        {
            for (tree, which) in [(Tree::Twin, Text::Record), (Tree::Turns, Text::Index)] {
                let found =
                    runtime.block_on(store.handle().read(tree, Key::new(record_key(number))?))?;
                let text: Option<String> = found.map(|value| value.decode()).transpose()?;
                assert_eq!(
                    text,
                    Some(record_text(number, which)),
                    "record {number}, round {round}, seed {seed}"
                );
            }
        }
        println!(
            "round {round}: {} acknowledged, all there",
            acknowledged.len()
        );
        start = newest + 64;
        store.shutdown();
    }
    Ok(())
}

#[test]
fn command_that_ran_during_kill_9_is_interrupted_and_finished_ones_keep_their_outcome()
-> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let mut runner = Command::new(env!("CARGO_BIN_EXE_store-writer"))
        .arg(state.path())
        .arg("--ledger")
        .stdout(Stdio::piped())
        .spawn()?;
    let output = BufReader::new(runner.stdout.take().context("stdout is piped")?);
    let (mut begun, mut finished) = (Vec::new(), Vec::new());
    for line in output.lines() {
        let line = line?;
        begun.extend(line.strip_prefix("BEGUN ").map(str::to_owned));
        finished.extend(line.strip_prefix("FINISHED ").map(str::to_owned));
        if begun.len() == 50 {
            runner.kill()?;
        }
    }
    runner.wait()?;
    let store = open(&state)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        let (ledger, interrupted) = Ledger::open(store.handle()).await?;
        println!(
            "{} begun, {} finished, interrupted: {interrupted:?}",
            begun.len(),
            finished.len()
        );
        let now = SystemTime::now();
        for id in &begun {
            let again = ledger
                .begin(id, "digest", now + Duration::from_secs(60), now)
                .await?;
            match again {
                Begin::Done(outcome) => assert_eq!(outcome, serde_json::json!(id)),
                // Finished, but killed before or after that was noted.
                Begin::Interrupted => assert!(!finished.contains(id), "{id} was finished"),
                other => panic!("{id} would be {other:?}"),
            }
        }
        anyhow::Ok(())
    })
}

fn open(state: &tempfile::TempDir) -> anyhow::Result<Store> {
    let config = StoreConfig {
        state_directory: state.path().to_owned(),
        export: ExportPolicy::default(),
    };
    Ok(Store::open(config, SystemTime::now())?)
}
