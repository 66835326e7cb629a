//! A full disk: commits are refused with a typed error, nothing acknowledged is lost, and the store comes back when there is space.
//!
//! The disk is a tmpfs of a few MiB, so it needs root; see `power_cut` for what a skip does.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, SystemTime},
};

use autoglm_edge::store::ledger::{Begin, Ledger, LedgerError};
use autoglm_edge::store::{
    Batch, ExportPolicy, Key, Store, StoreConfig, StoreError, StoreHealth, Tree, Versioned, Write,
};
use autoglm_tests::power_cut::is_possible_here;
use autoglm_tests::stored_records::{Text, record_key, record_text};

/// Size of the disk, and of the file that fills most of it until it is removed.
const DISK_MIB: usize = 40;
const BALLAST_MIB: usize = 34;

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// A disk that is nearly full, and a store on it; `None` where no disk can be made.
struct FullDisk {
    store: Store,
    ballast: PathBuf,
    _mounted: Mounted,
    _directory: tempfile::TempDir,
}

fn full_disk() -> anyhow::Result<Option<FullDisk>> {
    if !is_possible_here() {
        return Ok(None);
    }
    let directory = tempfile::tempdir()?;
    let size = format!("size={DISK_MIB}m");
    let status = Command::new("mount")
        .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
        .arg(directory.path())
        .status()?;
    assert!(status.success());
    let mounted = Mounted(directory.path().to_owned());
    let ballast = directory.path().join("ballast");
    fs::write(&ballast, vec![0; BALLAST_MIB << 20])?;
    let config = StoreConfig {
        state_directory: directory.path().to_owned(),
        export: ExportPolicy {
            interval: Duration::ZERO,
        },
    };
    Ok(Some(FullDisk {
        store: Store::open(config, SystemTime::now())?,
        ballast,
        _mounted: mounted,
        _directory: directory,
    }))
}

#[tokio::test]
async fn full_disk_refuses_commits_and_freed_space_brings_the_store_back() -> anyhow::Result<()> {
    let Some(FullDisk {
        store,
        ballast,
        _mounted,
        _directory,
    }) = full_disk()?
    else {
        return Ok(());
    };
    let handle = store.handle();
    let mut acknowledged = 0;
    let refused = loop {
        match handle.commit(batch(acknowledged)?).await {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    println!("{acknowledged} acknowledged, then: {refused:?}");
    assert!(acknowledged > 0);
    assert!(
        matches!(refused, StoreError::Unavailable { .. }),
        "{refused:?}"
    );
    assert!(matches!(handle.health(), StoreHealth::Unavailable { .. }));
    let still = handle.commit(batch(acknowledged)?).await;
    assert!(
        matches!(still, Err(StoreError::Unavailable { .. })),
        "{still:?}"
    );
    assert!(
        !handle
            .maintain(SystemTime::now())
            .await
            .is_ok_and(|done| done.recovered),
        "there is still no space"
    );

    fs::remove_file(ballast)?;
    let done = handle.maintain(SystemTime::now()).await?;
    println!("{:?}", handle.health());
    assert!(done.recovered);
    for number in 0..acknowledged {
        let found = handle
            .read(Tree::Twin, Key::new(record_key(number))?)
            .await?;
        let text: Option<String> = found.map(|value| value.decode()).transpose()?;
        assert_eq!(
            text,
            Some(record_text(number, Text::Record)),
            "record {number}"
        );
    }
    let _ = handle.commit(batch(acknowledged)?).await?;
    store.shutdown();
    Ok(())
}

#[tokio::test]
async fn a_command_that_met_the_full_disk_does_not_seem_to_run_for_ever() -> anyhow::Result<()> {
    let Some(FullDisk {
        store,
        ballast,
        _mounted,
        _directory,
    }) = full_disk()?
    else {
        return Ok(());
    };
    let now = SystemTime::now();
    let expiry = now + Duration::from_secs(600);
    let (ledger, _) = Ledger::open(store.handle()).await?;
    // Begun while there is space, and finished with answers that fill the rest of it.
    let answer = |number: u64| serde_json::json!(format!("{number}:{}", "x".repeat(4_000)));
    let commands = 4_000;
    for number in 0..commands {
        let begun = ledger
            .begin(&format!("c{number}"), "d", expiry, now)
            .await?;
        assert!(matches!(begun, Begin::Fresh(_)), "{begun:?}");
    }
    let mut met = None;
    for number in 0..commands {
        if let Err(error) = ledger.finish(&format!("c{number}"), answer(number)).await {
            println!("the answer of command {number}: {error}");
            met = Some(number);
            break;
        }
    }
    let met = met.expect("4,000 answers of 4 kB do not fit on the disk");
    let late = ledger.begin("late", "d", expiry, now).await;
    assert!(matches!(late, Err(LedgerError::Store(_))), "{late:?}");

    fs::remove_file(ballast)?;
    assert!(store.handle().maintain(SystemTime::now()).await?.recovered);
    ledger.settle().await?;
    let again = |id: String| {
        let ledger = ledger.clone();
        async move { ledger.begin(&id, "d", expiry, now).await }
    };
    assert_eq!(again(format!("c{met}")).await?, Begin::Done(answer(met)));
    // Somebody still works on this one.
    assert_eq!(again(format!("c{}", met + 1)).await?, Begin::Running);
    // It was refused: it may count as interrupted, and must not seem to run.
    let late = again("late".to_owned()).await?;
    assert!(
        matches!(late, Begin::Fresh(_) | Begin::Interrupted),
        "{late:?}"
    );
    store.shutdown();
    Ok(())
}

fn batch(number: u64) -> anyhow::Result<Batch> {
    let value = Versioned::encode(1, &record_text(number, Text::Record))?;
    Ok(Batch::new(vec![Write::put(
        Tree::Twin,
        Key::new(record_key(number))?,
        value,
    )])?)
}
