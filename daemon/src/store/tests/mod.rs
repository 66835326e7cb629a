//! The store as its callers see it, on a real database in a temporary directory.

mod damage;
mod model;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tempfile::TempDir;

use super::*;

/// A store in a directory of its own.
pub(crate) struct Fixture {
    directory: TempDir,
    store: Store,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::open_in(tempfile::tempdir().unwrap())
    }

    fn open_in(directory: TempDir) -> Self {
        let store = Store::open(config(directory.path()), at(1_000)).unwrap();
        Self { directory, store }
    }

    pub(crate) fn handle(&self) -> StoreHandle {
        self.store.handle()
    }

    pub(crate) fn reopen(self) -> Self {
        Self::open_in(self.close())
    }

    fn close(self) -> TempDir {
        self.store.shutdown();
        self.directory
    }
}

fn config(directory: &Path) -> StoreConfig {
    StoreConfig {
        state_directory: directory.to_owned(),
        export: ExportPolicy::default(),
    }
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn put(tree: Tree, name: &str, text: &str) -> Write {
    Write::put(tree, key(name), Versioned::encode(1, &text).unwrap())
}

fn batch<const N: usize>(writes: [Write; N]) -> Batch {
    Batch::new(writes.to_vec()).unwrap()
}

async fn commit<const N: usize>(store: &StoreHandle, writes: [Write; N]) {
    let _ = store.commit(batch(writes)).await.unwrap();
}

async fn text(store: &StoreHandle, tree: Tree, name: &str) -> Option<String> {
    let value = store.read(tree, key(name)).await.unwrap();
    value.map(|value| value.decode().unwrap())
}

fn set_aside_stores(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.display().to_string().contains("store.damaged-"))
        .collect()
}

#[tokio::test]
async fn committed_batches_are_there_after_reopening_and_removed_ones_are_not() {
    let fixture = Fixture::new();
    assert_eq!(
        fixture.handle().health(),
        StoreHealth::Ready {
            origin: Origin::Created
        }
    );
    commit(
        &fixture.handle(),
        [
            put(Tree::Twin, "lamp", "on"),
            put(Tree::Sessions, "lamp", "other tree"),
        ],
    )
    .await;
    commit(
        &fixture.handle(),
        [
            put(Tree::Twin, "fan", "off"),
            Write::remove(Tree::Twin, key("lamp")),
        ],
    )
    .await;
    let fixture = fixture.reopen();
    assert_eq!(
        fixture.handle().health(),
        StoreHealth::Ready {
            origin: Origin::Opened
        }
    );
    let store = fixture.handle();
    assert_eq!(text(&store, Tree::Twin, "lamp").await, None);
    assert_eq!(
        text(&store, Tree::Twin, "fan").await.as_deref(),
        Some("off")
    );
    assert_eq!(
        text(&store, Tree::Sessions, "lamp").await.as_deref(),
        Some("other tree")
    );
}

#[tokio::test]
async fn broken_expectation_writes_nothing() {
    let fixture = Fixture::new();
    let store = fixture.handle();
    commit(&store, [put(Tree::Twin, "a", "1")]).await;
    let old = store.read(Tree::Twin, key("a")).await.unwrap().unwrap();
    let guarded = batch([put(Tree::Twin, "a", "2"), put(Tree::Twin, "b", "2")])
        .expecting(Expect::unchanged(Tree::Twin, key("a"), old));
    let _ = store.commit(guarded.clone()).await.unwrap();
    commit(&store, [Write::remove(Tree::Twin, key("b"))]).await;
    let refused = store.commit(guarded).await;
    assert!(
        matches!(refused, Err(StoreError::Conflict { .. })),
        "{refused:?}"
    );
    assert_eq!(text(&store, Tree::Twin, "b").await, None);
    let absent = batch([put(Tree::Twin, "a", "3")]).expecting(Expect::absent(Tree::Twin, key("a")));
    assert!(matches!(
        store.commit(absent).await,
        Err(StoreError::Conflict { .. })
    ));
    assert_eq!(text(&store, Tree::Twin, "a").await.as_deref(), Some("2"));
}

#[tokio::test]
async fn scan_is_bounded_by_prefix_limit_and_page_from_both_ends() {
    let fixture = Fixture::new();
    let store = fixture.handle();
    commit(
        &store,
        ["a", "p/1", "p/2", "p/3", "p/ü", "q"].map(|name| put(Tree::Turns, name, name)),
    )
    .await;
    let scanned = async |scan| -> Vec<String> {
        let found = store.scan(scan).await.unwrap();
        found
            .into_iter()
            .map(|(key, _)| key.as_str().to_owned())
            .collect()
    };
    assert_eq!(
        scanned(Scan::first(Tree::Turns, "p/", 2)).await,
        ["p/1", "p/2"]
    );
    assert_eq!(
        scanned(Scan::first(Tree::Turns, "p/", 9).after(key("p/2"))).await,
        ["p/3", "p/ü"]
    );
    assert_eq!(
        scanned(Scan::last(Tree::Turns, "p/", 2)).await,
        ["p/ü", "p/3"]
    );
    assert_eq!(scanned(Scan::first(Tree::Turns, "", 99)).await.len(), 6);
    assert!(
        scanned(Scan::first(Tree::Turns, "p/", 9).after(key("q")))
            .await
            .is_empty()
    );
    assert_eq!(
        scanned(Scan::first(Tree::Turns, "p/", 9).after(key("a")))
            .await
            .len(),
        4
    );
}

#[tokio::test]
async fn full_tree_refuses_the_whole_batch_and_still_lets_records_go() {
    let fixture = Fixture::new();
    let store = fixture.handle();
    let quota = Tree::Sessions.quota();
    for page in 0..quota.entries_max / 500 {
        let writes = (0..500)
            .map(|n| put(Tree::Sessions, &format!("{}", page * 500 + n), "x"))
            .collect();
        let _ = store.commit(Batch::new(writes).unwrap()).await.unwrap();
    }
    let refused = store
        .commit(batch([
            put(Tree::Twin, "lamp", "on"),
            put(Tree::Sessions, "more", "x"),
        ]))
        .await;
    assert!(
        matches!(
            refused,
            Err(StoreError::QuotaExceeded {
                tree: Tree::Sessions,
                ..
            })
        ),
        "{refused:?}"
    );
    assert_eq!(
        text(&store, Tree::Twin, "lamp").await,
        None,
        "the other tree's write is refused with it"
    );
    commit(&store, [put(Tree::Sessions, "1", "replaced")]).await;
    commit(
        &store,
        [
            Write::remove(Tree::Sessions, key("0")),
            put(Tree::Sessions, "more", "x"),
        ],
    )
    .await;
    let fixture = fixture.reopen();
    let refused = fixture
        .handle()
        .commit(batch([put(Tree::Sessions, "again", "x")]))
        .await;
    assert!(
        matches!(refused, Err(StoreError::QuotaExceeded { .. })),
        "counted anew after opening: {refused:?}"
    );
}

#[tokio::test]
async fn largest_values_never_become_blob_files() {
    let fixture = Fixture::new();
    let store = fixture.handle();
    let large = "x".repeat(VALUE_BYTES_MAX - 3);
    let long = |n: u32| format!("{n:0>width$}", width = KEY_BYTES_MAX);
    for round in 0..8 {
        let writes = (0..64)
            .map(|n| put(Tree::Turns, &long(round * 8 + n), &large))
            .collect();
        let _ = store.commit(Batch::new(writes).unwrap()).await.unwrap();
    }
    let blobs = fs::read_dir(fixture.directory.path().join("store/blobs"))
        .unwrap()
        .count();
    assert_eq!(blobs, 0);
}

#[tokio::test]
async fn second_daemon_is_told_who_holds_the_directory_and_damages_nothing() {
    let fixture = Fixture::new();
    commit(&fixture.handle(), [put(Tree::Twin, "lamp", "on")]).await;
    let second = Store::open(config(fixture.directory.path()), at(2_000));
    let own = std::process::id();
    assert!(
        matches!(second, Err(StoreOpenError::InUse { process: Some(id), .. }) if id == own),
        "{second:?}"
    );
    assert!(set_aside_stores(fixture.directory.path()).is_empty());
    assert_eq!(
        text(&fixture.handle(), Tree::Twin, "lamp").await.as_deref(),
        Some("on")
    );
}

#[tokio::test]
async fn export_is_made_when_due_and_only_after_a_change() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path());
    config.export.interval = Duration::from_secs(100);
    let store = Store::open(config, at(1_000)).unwrap();
    let handle = store.handle();
    let maintain = async |now| {
        handle
            .maintain(at(now))
            .await
            .unwrap()
            .exported
            .map(|report| report.records)
    };
    assert_eq!(maintain(1_000).await, None, "nothing to export yet");
    commit(&handle, [put(Tree::Twin, "lamp", "on")]).await;
    assert_eq!(maintain(1_001).await, Some(1));
    assert_eq!(maintain(1_500).await, None, "nothing changed");
    commit(&handle, [put(Tree::Twin, "fan", "on")]).await;
    assert_eq!(maintain(1_100).await, None, "not due");
    assert_eq!(maintain(1_101).await, Some(2));
    assert!(directory.path().join("export.previous.jsonl").exists());
}

#[tokio::test]
async fn commits_that_wait_together_share_one_sync() {
    let fixture = Fixture::new();
    let store = fixture.handle();
    let tasks: Vec<_> = (0..200)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                store
                    .commit(batch([put(Tree::Twin, &format!("{n}"), "x")]))
                    .await
                    .map(drop)
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let stats = store.stats();
    println!("{stats:?}");
    assert_eq!(stats.batches, 200);
    assert!(stats.groups < 200 && stats.syncs < 200, "{stats:?}");
}

#[tokio::test]
async fn telemetry_never_waits_drops_the_oldest_and_counts() {
    let shared = Shared::default();
    let mut nudges = 0;
    let surplus = 7;
    for n in 0..queue::TELEMETRY_QUEUE + surplus {
        nudges += u32::from(shared.post_telemetry(batch([put(Tree::Twin, &format!("{n}"), "x")])));
    }
    assert_eq!(nudges, 1, "one nudge while nobody takes");
    assert_eq!(
        shared.counters.telemetry_dropped.load(Ordering::Relaxed),
        surplus as u64
    );

    let fixture = Fixture::new();
    let store = fixture.handle();
    store.post(batch([put(Tree::Twin, "lamp", "on")]));
    commit(&store, [put(Tree::Twin, "fan", "on")]).await;
    assert_eq!(
        text(&store, Tree::Twin, "lamp").await.as_deref(),
        Some("on")
    );
}

#[tokio::test]
async fn shutdown_carries_out_what_waits_and_then_says_closed() {
    let fixture = Fixture::new();
    let store = fixture.handle();
    let waiting: Vec<_> = (0..50)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                store
                    .commit(batch([put(Tree::Twin, &format!("{n}"), "x")]))
                    .await
                    .is_ok()
            })
        })
        .collect();
    tokio::task::yield_now().await;
    let directory = tokio::task::spawn_blocking(move || fixture.close())
        .await
        .unwrap();
    let mut acknowledged = 0;
    for task in waiting {
        acknowledged += usize::from(task.await.unwrap());
    }
    let refused = store.commit(batch([put(Tree::Twin, "late", "x")])).await;
    assert!(matches!(refused, Err(StoreError::Closed)), "{refused:?}");
    let fixture = Fixture::open_in(directory);
    let found = fixture
        .handle()
        .scan(Scan::first(Tree::Twin, "", 99))
        .await
        .unwrap();
    assert!(
        found.len() >= acknowledged,
        "{} found, {acknowledged} acknowledged",
        found.len()
    );
    println!("{acknowledged} acknowledged while stopping");
}
