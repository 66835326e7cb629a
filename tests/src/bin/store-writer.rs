//! The process whose store loses its disk: writes records, and prints a number only once the record is acknowledged.
//!
//! Every batch of record `n` puts a value into two trees that must live or die together, and removes an older record, so that the
//! engine reuses space. Values follow from `n`, so that a reader knows what must be there. Prints `READY` after opening,
//! `ACK <n>` for each acknowledgement, and `END <why>` when a commit fails.
//!
//! `--check` looks at what a writer left. `--unsafe-flush-only` acknowledges after sled's own `flush()`, as the store must not: it shows that the test can fail.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use autoglm_edge::store::{
    Batch, Committed, ExportPolicy, Key, Store, StoreConfig, StoreHandle, StoreHealth, Tree,
    Versioned, Write,
    ledger::{Begin, Ledger},
    outbox::{self, Outbox, OutboxStats},
};
use autoglm_tests::outbox_check::{outbox_limits, outbox_message};
use autoglm_tests::stored_records::{RECORDS_KEPT, Stored, Text, record_key, record_text};
use clap::Parser;
use sled::Transactional as _;

#[derive(Debug, Parser)]
struct Options {
    /// State directory of the store.
    directory: PathBuf,
    /// Number of the first record.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Tasks that commit at the same time.
    #[arg(long, default_value_t = 4)]
    writers: u64,
    /// Acknowledge after `sled::Db::flush` alone.
    #[arg(long)]
    unsafe_flush_only: bool,
    /// Begin and finish commands in the ledger instead; prints `BEGUN <id>` and `FINISHED <id>`.
    #[arg(long, conflicts_with = "unsafe_flush_only")]
    ledger: bool,
    /// Fill and empty the outbox instead: prints `ACK <n>` when message n is durable, and `CLEARING <n>` before it is removed.
    #[arg(long, conflicts_with_all = ["unsafe_flush_only", "ledger"])]
    outbox: bool,
    /// Print `HAS <n>` for each message in the outbox, and end: what to compare with the lines of `--outbox` after a crash.
    #[arg(long, conflicts_with_all = ["unsafe_flush_only", "ledger", "outbox"])]
    list_outbox: bool,
    /// Look at what is there instead, and hold it against the numbers on stdin, one a line, that were acknowledged; prints
    /// `CHECK lost <n> torn <n> wrong <n> next <n> <how the store was opened>`.
    #[arg(long, conflicts_with_all = ["unsafe_flush_only", "ledger"])]
    check: bool,
}

/// What is held back in the outbox, so that a cut finds something and space is used again.
const WAITING: u64 = 200;
/// Removed in one commit.
const CLEARED_AT_ONCE: usize = 50;

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if options.list_outbox {
        return list_outbox(&options);
    }
    if options.check {
        return check(&options);
    }
    let why = if options.unsafe_flush_only {
        write_flush_only(&options)
    } else if options.ledger {
        run_commands(&options)
    } else if options.outbox {
        fill_outbox(&options)
    } else {
        write_store(&options)
    };
    say(&format!(
        "END {:#}",
        why.err().context("writing never ends by itself")?
    ));
    // Closing a database whose device is gone may hang or panic; the power is off anyway.
    std::process::exit(0)
}

/// The store, leaked because dropping it would wait for a device that is gone.
fn open(options: &Options) -> anyhow::Result<StoreHandle> {
    let config = StoreConfig {
        state_directory: options.directory.clone(),
        export: ExportPolicy::default(),
    };
    let store = Box::leak(Box::new(Store::open(config, SystemTime::now())?)).handle();
    if let StoreHealth::Unavailable { cause } = store.health() {
        anyhow::bail!("store is unavailable: {cause}");
    }
    say("READY");
    Ok(store)
}

#[tokio::main]
async fn check(options: &Options) -> anyhow::Result<()> {
    let store = open(options)?;
    let StoreHealth::Ready { origin } = store.health() else {
        anyhow::bail!("the store went away");
    };
    let found = Stored::read(&store).await?;
    let mut lost = 0;
    for line in io::stdin().lines() {
        lost += usize::from(found.is_lost(line?.trim().parse()?));
    }
    let next = found.present.last().map_or(0, |last| last + 1);
    say(&format!(
        "CHECK lost {lost} torn {} wrong {} next {next} {origin:?}",
        found.torn, found.wrong
    ));
    Ok(())
}

#[tokio::main]
async fn run_commands(options: &Options) -> anyhow::Result<()> {
    let (ledger, _) = Ledger::open(open(options)?).await?;
    let mut runners = tokio::task::JoinSet::new();
    for runner in 0..options.writers {
        let (ledger, start) = (ledger.clone(), options.start);
        runners.spawn(async move {
            for number in start.. {
                let id = format!("{runner}-{number}");
                let now = SystemTime::now();
                let begin = ledger
                    .begin(&id, "digest", now + Duration::from_secs(60), now)
                    .await?;
                anyhow::ensure!(matches!(begin, Begin::Fresh(_)), "{id} is {begin:?}");
                say(&format!("BEGUN {id}"));
                let _ = ledger.finish(&id, serde_json::json!(id)).await?;
                say(&format!("FINISHED {id}"));
            }
            Ok(())
        });
    }
    let first = runners
        .join_next()
        .await
        .context("there is at least one runner")?;
    first?
}

#[tokio::main]
async fn list_outbox(options: &Options) -> anyhow::Result<()> {
    let store = open(options)?;
    for (_, id) in outbox::ids(&store).await? {
        say(&format!("HAS {id}"));
    }
    Ok(())
}

#[tokio::main]
async fn fill_outbox(options: &Options) -> anyhow::Result<()> {
    let outbox = Outbox::new(open(options)?, outbox_limits());
    outbox.load().await?;
    let next = Arc::new(AtomicU64::new(options.start));
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..options.writers {
        let (outbox, next) = (outbox.clone(), next.clone());
        writers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let committed = outbox.put_waiting(outbox_message(number)).await?;
                acknowledge(number, committed);
            }
        });
    }
    let mut stats = outbox.stats();
    writers.spawn(async move {
        loop {
            let is_full = |stats: &OutboxStats| stats[1].waiting >= WAITING;
            stats.wait_for(is_full).await?;
            let parcels = outbox.take(CLEARED_AT_ONCE, |_| true).await?;
            let places: Vec<_> = parcels.iter().map(|parcel| parcel.place).collect();
            for parcel in &parcels {
                say(&format!("CLEARING {}", parcel.message.id));
            }
            outbox.clear(&places).await?;
        }
    });
    let first = writers
        .join_next()
        .await
        .context("there is at least one writer")?;
    first?
}

#[tokio::main]
async fn write_store(options: &Options) -> anyhow::Result<()> {
    let store = open(options)?;
    let next = Arc::new(AtomicU64::new(options.start));
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..options.writers {
        let (store, next) = (store.clone(), next.clone());
        writers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let committed = store.commit(batch(number)?).await?;
                acknowledge(number, committed);
            }
        });
    }
    let first = writers
        .join_next()
        .await
        .context("there is at least one writer")?;
    first?
}

/// Only with a receipt of the store can a number be acknowledged.
fn acknowledge(number: u64, _receipt: Committed) {
    say(&format!("ACK {number}"));
}

fn batch(number: u64) -> anyhow::Result<Batch> {
    let key = || Key::new(record_key(number));
    let mut writes = vec![
        Write::put(
            Tree::Twin,
            key()?,
            Versioned::encode(1, &record_text(number, Text::Record))?,
        ),
        Write::put(
            Tree::Turns,
            key()?,
            Versioned::encode(1, &record_text(number, Text::Index))?,
        ),
    ];
    if let Some(old) = number.checked_sub(RECORDS_KEPT) {
        for tree in [Tree::Twin, Tree::Turns] {
            writes.push(Write::remove(tree, Key::new(record_key(old))?));
        }
    }
    Ok(Batch::new(writes)?)
}

fn write_flush_only(options: &Options) -> anyhow::Result<()> {
    std::fs::create_dir_all(&options.directory)?;
    let db = sled::Config::new()
        .path(options.directory.join("store"))
        .cache_capacity(8 << 20)
        .flush_every_ms(None)
        .open()?;
    let (records, index) = (db.open_tree("twin")?, db.open_tree("turns")?);
    db.flush()?;
    say("READY");
    for number in options.start.. {
        let key = record_key(number);
        let value = |text| format!("\u{1}\"{}\"", record_text(number, text)).into_bytes();
        let old = number.checked_sub(RECORDS_KEPT).map(record_key);
        (&records, &index)
            .transaction(|(records, index)| {
                records.insert(key.as_str(), value(Text::Record))?;
                index.insert(key.as_str(), value(Text::Index))?;
                if let Some(old) = &old {
                    records.remove(old.as_str())?;
                    index.remove(old.as_str())?;
                }
                Ok::<_, sled::transaction::ConflictableTransactionError<()>>(())
            })
            .map_err(|error| anyhow::anyhow!("{error:?}"))?;
        db.flush()?;
        say(&format!("ACK {number}"));
    }
    Ok(())
}

/// One write a line, so that what the reader has is whole and what is acknowledged is out.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    // A reader that is gone wants nothing more.
    let _ = out
        .write_all(format!("{line}\n").as_bytes())
        .and_then(|()| out.flush());
}
