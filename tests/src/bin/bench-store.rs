//! What an acknowledgement costs: the store's commits against the floor of the same disk in the same run.
//!
//! For each number of concurrent writers three ways are taken in turn (interleaved, so that a drift of the machine meets all of them), each
//! for a fixed number of acknowledgements a round: `write+fsync` of one plain file that need not grow (the floor; writers take turns), `sled.flush()` alone
//! (not durable under power cuts) and `StoreHandle::commit`. Printed are medians over the rounds, and each way's rate relative to the floor.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;
use autoglm_edge::store::{Batch, ExportPolicy, Key, Store, StoreConfig, Tree, Versioned, Write};
use autoglm_tests::bench::{
    floor::SyncedFile,
    statistics::{Sample, ms},
    table::{Table, number},
};
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
#[derive(Debug)]
struct Round {
    per_second: f64,
    latencies: Sample,
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
        "- {} acknowledgements of {RECORD_BYTES} bytes a round, medians of {} rounds\n",
        options.acknowledgements, options.rounds
    );
    let mut table = Table::new(&[
        "way, writers",
        "acks/s",
        "p50 ms",
        "p99 ms",
        "syncs/ack",
        "to floor",
    ]);
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
        let rates =
            |rounds: &[Round]| -> Sample { rounds.iter().map(|round| round.per_second).collect() };
        let floor = rates(&rounds[0]);
        for ((name, _), rounds) in ways.iter().zip(&rounds) {
            let rate = rates(rounds);
            let median = |value: fn(&Round) -> f64| {
                let values: Sample = rounds.iter().map(value).collect();
                number(values.p50())
            };
            let cells = [
                format!("{:.0}", rate.p50()),
                median(|round| round.latencies.p50()),
                median(|round| round.latencies.quantile(0.99)),
                median(|round| round.syncs_each.unwrap_or(f64::NAN)),
                format!("{:.2}x", rate.over(&floor).p50()),
            ];
            table.row(&format!("{name}, {writers}"), cells);
        }
    }
    println!("{table}");
    Ok(())
}

fn file_sync(place: &Path, writers: usize, each: usize) -> anyhow::Result<Round> {
    let bytes = writers * each * RECORD_BYTES;
    let file = Mutex::new(SyncedFile::create(&place.join("log"), bytes)?);
    let record = [b'x'; RECORD_BYTES];
    in_threads(writers, each, Some(1.0), |_| {
        let mut file = file.lock().expect("no writer panics with the lock");
        Ok(file.write(&record)?)
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
    let syncs_each = stats.syncs as f64 / stats.batches as f64;
    Ok(summarise(latencies?, elapsed, Some(syncs_each)))
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
    Ok(summarise(latencies, begun.elapsed(), syncs_each))
}

fn summarise(latencies: Vec<Duration>, elapsed: Duration, syncs_each: Option<f64>) -> Round {
    Round {
        per_second: latencies.len() as f64 / elapsed.as_secs_f64(),
        latencies: latencies.into_iter().map(ms).collect(),
        syncs_each,
    }
}
