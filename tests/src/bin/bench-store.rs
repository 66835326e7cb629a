//! What an acknowledgement costs: the store's commits against the floor of the same disk in the same run.
//!
//! For each number of concurrent writers three ways are taken in turn (interleaved, so that a drift of the machine meets all of them), each
//! for a fixed number of acknowledgements a round: `write+fsync` of one plain file (the floor; writers take turns), `sled.flush()` alone
//! (not durable under power cuts) and `StoreHandle::commit`. Printed are medians over the rounds, and each way's rate relative to the floor.

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;
use autoglm_edge::store::{Batch, ExportPolicy, Key, Store, StoreConfig, Tree, Versioned, Write};
use clap::Parser;

#[derive(Debug, Parser)]
struct Options {
    /// Directory on the disk to be measured; a temporary directory in it is used.
    #[arg(long, default_value = ".")]
    directory: PathBuf,
    /// Rounds, of which the median counts.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Acknowledgements in one round of one way.
    #[arg(long, default_value_t = 640)]
    acknowledgements: usize,
}

/// Bytes of one record, about those of a turn.
const RECORD_BYTES: usize = 300;

/// Measures one way in an empty directory, with so many writers and so many acknowledgements each.
type Measure = fn(&Path, usize, usize) -> anyhow::Result<Round>;

/// What one round of one way showed.
#[derive(Debug, Clone, Copy)]
struct Round {
    per_second: f64,
    p50: Duration,
    p99: Duration,
    syncs_each: Option<f64>,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let directory = tempfile::tempdir_in(&options.directory)?;
    let ways: [(&str, Measure); 3] = [
        ("write+fsync", file_sync),
        ("sled flush", sled_flush),
        ("commit", store_commit),
    ];
    println!(
        "{} acknowledgements of {RECORD_BYTES} bytes a round, median of {} rounds",
        options.acknowledgements, options.rounds
    );
    println!(
        "{:>7} {:<12} {:>9} {:>9} {:>9} {:>11} {:>9}",
        "writers", "way", "acks/s", "p50 ms", "p99 ms", "syncs/ack", "to floor"
    );
    for writers in [1, 8, 64] {
        let mut rounds: [Vec<Round>; 3] = Default::default();
        for number in 0..options.rounds {
            for (way, (name, measure)) in ways.iter().enumerate() {
                let place = directory.path().join(format!("{writers}-{number}-{way}"));
                std::fs::create_dir(&place)?;
                let round = measure(&place, writers, options.acknowledgements / writers)
                    .with_context(|| name.to_string())?;
                rounds[way].push(round);
            }
        }
        let floor = median(rounds[0].iter().map(|round| round.per_second))?;
        for ((name, _), rounds) in ways.iter().zip(&rounds) {
            let rate = median(rounds.iter().map(|round| round.per_second))?;
            let ms = |value: fn(&Round) -> Duration| {
                median(rounds.iter().map(|round| value(round).as_secs_f64() * 1e3))
            };
            let syncs = rounds
                .iter()
                .map(|round| round.syncs_each)
                .collect::<Option<Vec<f64>>>();
            let syncs = syncs.map(|syncs| median(syncs.into_iter())).transpose()?;
            let syncs = syncs.map_or("-".to_owned(), |syncs| format!("{syncs:.3}"));
            println!(
                "{writers:>7} {name:<12} {rate:>9.0} {:>9.3} {:>9.3} {syncs:>11} {:>8.2}x",
                ms(|r| r.p50)?,
                ms(|r| r.p99)?,
                rate / floor
            );
        }
    }
    Ok(())
}

fn file_sync(place: &Path, writers: usize, each: usize) -> anyhow::Result<Round> {
    let file = Mutex::new(File::create(place.join("log"))?);
    let record = [b'x'; RECORD_BYTES];
    in_threads(writers, each, Some(1.0), |_| {
        let mut file = file.lock().expect("no writer panics with the lock");
        file.write_all(&record)?;
        Ok(file.sync_data()?)
    })
}

fn sled_flush(place: &Path, writers: usize, each: usize) -> anyhow::Result<Round> {
    let db = sled::Config::new()
        .path(place)
        .cache_capacity(8 << 20)
        .flush_every_ms(None)
        .open()?;
    let record = [b'x'; RECORD_BYTES];
    in_threads(writers, each, None, |number| {
        db.insert(format!("{number:020}"), record.as_slice())?;
        db.flush()?;
        Ok(())
    })
}

fn store_commit(place: &Path, writers: usize, each: usize) -> anyhow::Result<Round> {
    let config = StoreConfig {
        state_directory: place.to_owned(),
        export: ExportPolicy::default(),
    };
    let store = Store::open(config, SystemTime::now())?;
    let handle = store.handle();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()?;
    let record = Arc::new("x".repeat(RECORD_BYTES));
    let begun = Instant::now();
    let latencies: anyhow::Result<Vec<Duration>> = runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..writers {
            let (handle, record) = (handle.clone(), record.clone());
            tasks.spawn(async move {
                let mut latencies = Vec::with_capacity(each);
                for number in 0..each {
                    let key = Key::new(format!("{:020}", writer * each + number))?;
                    let batch = Batch::new(vec![Write::put(
                        Tree::Turns,
                        key,
                        Versioned::encode(1, &*record)?,
                    )])?;
                    let asked = Instant::now();
                    let _ = handle.commit(batch).await?;
                    latencies.push(asked.elapsed());
                }
                anyhow::Ok(latencies)
            });
        }
        let mut all = Vec::new();
        while let Some(task) = tasks.join_next().await {
            all.extend(task??);
        }
        Ok(all)
    });
    let elapsed = begun.elapsed();
    let stats = handle.stats();
    summarise(
        latencies?,
        elapsed,
        Some(stats.syncs as f64 / stats.batches as f64),
    )
}

fn in_threads(
    writers: usize,
    each: usize,
    syncs_each: Option<f64>,
    acknowledge: impl Fn(usize) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<Round> {
    let begun = Instant::now();
    let latencies = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..writers)
            .map(|writer| {
                let acknowledge = &acknowledge;
                scope.spawn(move || {
                    let time = |number| {
                        let asked = Instant::now();
                        acknowledge(writer * each + number).map(|()| asked.elapsed())
                    };
                    (0..each).map(time).collect::<anyhow::Result<Vec<_>>>()
                })
            })
            .collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(
                thread
                    .join()
                    .map_err(|_| anyhow::anyhow!("a writer panicked"))??,
            );
        }
        anyhow::Ok(all)
    })?;
    summarise(latencies, begun.elapsed(), syncs_each)
}

fn summarise(
    mut latencies: Vec<Duration>,
    elapsed: Duration,
    syncs_each: Option<f64>,
) -> anyhow::Result<Round> {
    latencies.sort();
    let at = |percent: usize| {
        latencies
            .get(latencies.len() * percent / 100)
            .copied()
            .context("no acknowledgement")
    };
    Ok(Round {
        per_second: latencies.len() as f64 / elapsed.as_secs_f64(),
        p50: at(50)?,
        p99: at(99)?,
        syncs_each,
    })
}

fn median(values: impl Iterator<Item = f64>) -> anyhow::Result<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().context("no rounds")
}
