//! Stores that are broken, missing or too new: the daemon starts all the same, and nothing is destroyed.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{Seek, SeekFrom, Write as _},
};

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::*;
use crate::store::disk::{Disk, Opened};

/// Overwrites the middle of every log segment of the database, so that it is broken for certain.
fn spoil(directory: &Path) {
    let mut data = OpenOptions::new()
        .write(true)
        .open(directory.join("store/db"))
        .unwrap();
    let length = data.metadata().unwrap().len();
    for offset in (0..length).step_by(512) {
        data.seek(SeekFrom::Start(offset)).unwrap();
        data.write_all(&[0xA5; 32]).unwrap();
    }
    for entry in fs::read_dir(directory.join("store")).unwrap() {
        let path = entry.unwrap().path();
        if path
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("snap.")
        {
            fs::write(path, [0xA5; 64]).unwrap();
        }
    }
}

#[tokio::test]
async fn damaged_store_is_kept_aside_and_rebuilt_from_the_last_export() {
    let fixture = Fixture::new();
    commit(
        &fixture.handle(),
        [
            put(Tree::Twin, "lamp", "on"),
            put(Tree::Ledger, "c1", "ü \"quoted\""),
        ],
    )
    .await;
    let exported = fixture.handle().export(at(1_500)).await.unwrap();
    assert_eq!((exported.records, exported.complete), (2, true));
    commit(
        &fixture.handle(),
        [put(Tree::Twin, "late", "after the export")],
    )
    .await;
    let directory = fixture.close();
    spoil(directory.path());

    let fixture = Fixture::open_in(directory);
    let StoreHealth::Ready {
        origin:
            Origin::Rebuilt {
                set_aside,
                cause,
                restored,
            },
    } = fixture.handle().health()
    else {
        panic!("not rebuilt: {:?}", fixture.handle().health());
    };
    println!("cause: {cause}");
    assert_eq!(
        restored.map(|report| (report.records, report.left_out, report.complete)),
        Some((2, 0, true))
    );
    let kept = set_aside.unwrap();
    assert!(kept.ends_with("store.damaged-1000"), "{kept:?}");
    assert!(
        kept.join("db").metadata().unwrap().len() > 0,
        "the damaged store is kept"
    );
    let store = fixture.handle();
    assert_eq!(
        text(&store, Tree::Ledger, "c1").await.as_deref(),
        Some("ü \"quoted\"")
    );
    assert_eq!(
        text(&store, Tree::Twin, "late").await,
        None,
        "only what was exported can come back"
    );
    commit(&store, [put(Tree::Twin, "lamp", "off")]).await;
    let fixture = fixture.reopen();
    assert_eq!(
        text(&fixture.handle(), Tree::Twin, "lamp").await.as_deref(),
        Some("off")
    );
}

#[tokio::test]
async fn every_damage_is_survived_and_two_in_one_second_are_both_kept() {
    let mut fixture = Fixture::new();
    for round in 1..=2 {
        commit(&fixture.handle(), [put(Tree::Twin, "lamp", "on")]).await;
        let directory = fixture.close();
        spoil(directory.path());
        fixture = Fixture::open_in(directory);
        assert!(matches!(
            fixture.handle().health(),
            StoreHealth::Ready { .. }
        ));
        assert_eq!(set_aside_stores(fixture.directory.path()).len(), round);
    }
}

#[tokio::test]
async fn random_damage_never_stops_the_daemon_from_starting_nor_goes_unnoticed() {
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut origins = BTreeMap::new();
    for _ in 0..12 {
        let fixture = Fixture::new();
        for n in 0..60 {
            let name = format!("{n}");
            commit(
                &fixture.handle(),
                [
                    put(Tree::Twin, &name, &"v".repeat(40)),
                    put(Tree::Ledger, &name, &name),
                ],
            )
            .await;
        }
        let directory = fixture.close();
        let path = directory.path().join("store/db");
        let mut bytes = fs::read(&path).unwrap();
        match random.random_range(0..3) {
            0 => bytes.truncate(random.random_range(0..bytes.len())),
            1 => {
                let start = random.random_range(0..20_000.min(bytes.len()));
                let end = (start + random.random_range(1..4096)).min(bytes.len());
                random.fill(&mut bytes[start..end]);
            }
            _ => {
                for _ in 0..8 {
                    let place = random.random_range(0..20_000.min(bytes.len()));
                    bytes[place] ^= 1 << random.random_range(0..8);
                }
            }
        }
        fs::write(&path, bytes).unwrap();
        let fixture = Fixture::open_in(directory);
        let StoreHealth::Ready { origin } = fixture.handle().health() else {
            panic!("not in use: {:?}", fixture.handle().health());
        };
        let left = fixture
            .handle()
            .scan(Scan::first(Tree::Twin, "", 99))
            .await
            .unwrap()
            .len();
        let was_noticed = matches!(origin, Origin::Rebuilt { .. });
        assert!(
            was_noticed || left == 60,
            "{left} of 60 records are left and nobody was told; seed {seed}"
        );
        *origins.entry((was_noticed, left)).or_insert(0) += 1;
        commit(&fixture.handle(), [put(Tree::Twin, "after", "works")]).await;
    }
    println!("(rebuilt, records left): times: {origins:?}");
}

#[tokio::test]
async fn missing_store_is_rebuilt_from_its_export() {
    let fixture = Fixture::new();
    commit(&fixture.handle(), [put(Tree::Twin, "lamp", "on")]).await;
    let _ = fixture.handle().export(at(1_500)).await.unwrap();
    let directory = fixture.close();
    fs::rename(
        directory.path().join("store"),
        directory.path().join("store.damaged-7"),
    )
    .unwrap();
    fs::create_dir(directory.path().join("store.building")).unwrap();
    let fixture = Fixture::open_in(directory);
    assert!(matches!(
        fixture.handle().health(),
        StoreHealth::Ready {
            origin: Origin::Rebuilt {
                set_aside: None,
                ..
            }
        }
    ));
    assert_eq!(
        text(&fixture.handle(), Tree::Twin, "lamp").await.as_deref(),
        Some("on")
    );
}

#[tokio::test]
async fn store_of_a_newer_schema_is_left_alone_and_refuses_commits() {
    let fixture = Fixture::new();
    commit(&fixture.handle(), [put(Tree::Twin, "lamp", "on")]).await;
    let directory = fixture.close();
    let Opened::Current(disk) = Disk::open(&directory.path().join("store")).unwrap() else {
        panic!()
    };
    disk.forge_schema(99);
    drop(disk);
    let fixture = Fixture::open_in(directory);
    let StoreHealth::Unavailable { cause } = fixture.handle().health() else {
        panic!()
    };
    assert!(cause.contains("99"), "{cause}");
    let refused = fixture
        .handle()
        .commit(batch([put(Tree::Twin, "lamp", "off")]))
        .await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable { .. })),
        "{refused:?}"
    );
    assert!(
        !fixture
            .handle()
            .maintain(at(2_000))
            .await
            .unwrap_or_default()
            .recovered
    );
    assert!(set_aside_stores(fixture.directory.path()).is_empty());
}
