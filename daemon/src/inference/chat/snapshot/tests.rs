//! The shelves of two models over one keeper, on a real store and file system; what is kept are any bytes.

use std::time::{Duration, Instant, SystemTime};

use super::*;
use crate::store::{ExportPolicy, Scan, Store, StoreConfig, Tree};

const PATIENCE: Duration = Duration::from_secs(60);

struct Site {
    directory: tempfile::TempDir,
    store: Store,
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = StoreConfig {
            state_directory: directory.path().join("state"),
            export: ExportPolicy::default(),
        };
        fs::create_dir(&config.state_directory).unwrap();
        let store = Store::open(config, SystemTime::now()).unwrap();
        Self { directory, store }
    }

    fn snapshots(&self, bytes_max: u64) -> Snapshots {
        Snapshots::new(SnapshotConfig {
            directory: self.directory.path().join("contexts"),
            bytes_max,
            store: self.store.handle(),
        })
    }

    fn records(&self) -> usize {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let scan = Scan::first(Tree::Snapshots, "", 100);
        runtime
            .block_on(self.store.handle().scan(scan))
            .unwrap()
            .len()
    }
}

/// Waits until a shelf holds so many of the tokens.
fn holds(shelf: &Shelf, tokens: &[u32], count: usize) {
    let until = Instant::now() + PATIENCE;
    while shelf.kept(tokens) != count {
        assert!(Instant::now() < until, "{} of {count}", shelf.kept(tokens));
        thread::sleep(Duration::from_millis(10));
    }
}

fn story(number: u32) -> Vec<u32> {
    (0..64).map(|token| number * 1000 + token).collect()
}

#[test]
fn what_was_used_last_stays_also_over_a_restart() {
    let site = Site::new();
    let snapshots = site.snapshots(1 << 20);
    let shelf = snapshots.open("a model".into()).unwrap();
    for number in [1, 2, 3] {
        shelf.offer(&story(number), 0, vec![0; 1000]);
        holds(&shelf, &story(number), 64);
    }
    // The oldest is needed again, and only that.
    assert_eq!(shelf.chain(&story(1)).len(), 1);
    drop((shelf, snapshots));

    // One file, which ends with its 64 tokens.
    let snapshots = site.snapshots(1000 + 64 * 4);
    let shelf = snapshots.open("a model".into()).unwrap();
    holds(&shelf, &story(1), 64);
    assert_eq!(
        shelf.kept(&story(3)),
        0,
        "it was written last, and used less recently"
    );
    assert_eq!(site.records(), 1);
    drop((shelf, snapshots));
    site.store.shutdown();
}

#[test]
fn two_models_of_a_swap_share_one_keeper_and_neither_deletes_what_the_other_has() {
    let site = Site::new();
    let snapshots = site.snapshots(1 << 20);
    let old = snapshots.open("a model".into()).unwrap();
    old.offer(&story(1), 0, vec![1; 1000]);
    let new = snapshots.open("a model".into()).unwrap();
    let other = snapshots.open("another model".into()).unwrap();
    // While the new one is there already, the old one ends an answer.
    old.offer(&story(2), 0, vec![2; 1000]);
    other.offer(&story(2), 0, vec![3; 1000]);
    holds(&new, &story(1), 64);
    holds(&new, &story(2), 64);
    holds(&other, &story(2), 64);
    drop(old);
    for (shelf, number, byte) in [(&new, 1, 1), (&new, 2, 2), (&other, 2, 3)] {
        let chain = shelf.chain(&story(number));
        let (id, segment) = &chain[0];
        let kept = shelf.read(*id, segment).unwrap();
        assert_eq!(kept.bytes, vec![byte; 1000]);
        assert_eq!(kept.tokens, story(number));
        assert!(shelf.is_there(*id, segment) && shelf.is_of(*id, &kept.tokens));
    }
    assert_eq!(site.records(), 3);
    drop((new, other, snapshots));
    site.store.shutdown();
}
