//! A full disk: commits are refused with a typed error, nothing acknowledged is lost, and the store comes back when there is space.
//!
//! The disk is a tmpfs of a few MiB, so it needs root; see `power_cut` for what a skip does.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

use autoglm_edge::store::{
    Batch, ExportPolicy, Key, Store, StoreConfig, StoreError, StoreHealth, Tree, Versioned, Write,
};
use autoglm_tests::power_cut::missing_requirement;
use autoglm_tests::stored_records::{Text, record_key, record_text};

/// Size of the disk, and of the file that fills most of it until it is removed.
const DISK_MIB: usize = 12;
const BALLAST_MIB: usize = 8;

struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[tokio::test]
async fn full_disk_refuses_commits_and_freed_space_brings_the_store_back() -> anyhow::Result<()> {
    if let Some(missing) = missing_requirement() {
        println!("SKIPPED: no disk can be made here: {missing}");
        assert!(
            std::env::var_os("AUTOGLM_REQUIRE_POWER_CUT").is_none(),
            "required, but: {missing}"
        );
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let size = format!("size={DISK_MIB}m");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
        .arg(directory.path())
        .status()?;
    assert!(mounted.success());
    let _mounted = Mounted(directory.path());
    let ballast = directory.path().join("ballast");
    fs::write(&ballast, vec![0; BALLAST_MIB << 20])?;

    let config = StoreConfig {
        state_directory: directory.path().to_owned(),
        export: ExportPolicy {
            interval: Duration::ZERO,
        },
    };
    let store = Store::open(config, SystemTime::now())?;
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

fn batch(number: u64) -> anyhow::Result<Batch> {
    let value = Versioned::encode(1, &record_text(number, Text::Record))?;
    Ok(Batch::new(vec![Write::put(
        Tree::Twin,
        Key::new(record_key(number))?,
        value,
    )])?)
}
