//! The store against a map: whatever is written, read in pages, reopened, exported and rebuilt, both hold the same.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// What a user can do to a store.
#[derive(Debug, Clone)]
enum Act {
    Commit(Vec<(Tree, String, Option<String>)>),
    Reopen,
    RebuildFromExport,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let tree = prop_oneof![Just(Tree::Twin), Just(Tree::Turns)];
    let write = (
        tree,
        "[a-c/]{1,3}|[äß€]{1,2}",
        proptest::option::of("\\PC{0,40}"),
    );
    let act = prop_oneof![
        8 => proptest::collection::vec(write, 0..8).prop_map(Act::Commit),
        1 => Just(Act::Reopen),
        1 => Just(Act::RebuildFromExport),
    ];
    proptest::collection::vec(act, 1..12)
}

async fn content(store: &StoreHandle) -> BTreeMap<(Tree, String), String> {
    let mut found = BTreeMap::new();
    for tree in [Tree::Twin, Tree::Turns] {
        let mut scan = Scan::first(tree, "", 3);
        loop {
            let page = store.scan(scan.clone()).await.unwrap();
            let Some((last, _)) = page.last() else { break };
            scan = scan.after(last.clone());
            for (key, value) in page {
                found.insert((tree, key.as_str().to_owned()), value.decode().unwrap());
            }
        }
    }
    found
}

async fn play(acts: Vec<Act>) {
    let mut fixture = Fixture::new();
    let mut model = BTreeMap::new();
    for act in acts {
        match act {
            Act::Commit(writes) => {
                let mut batch = Vec::new();
                for (tree, name, value) in writes {
                    batch.push(match &value {
                        Some(value) => put(tree, &name, value),
                        None => Write::remove(tree, key(&name)),
                    });
                    match value {
                        Some(value) => model.insert((tree, name), value),
                        None => model.remove(&(tree, name)),
                    };
                }
                let _ = fixture
                    .handle()
                    .commit(Batch::new(batch).unwrap())
                    .await
                    .unwrap();
            }
            Act::Reopen => {
                fixture = fixture.reopen();
                let health = fixture.handle().health();
                assert!(
                    !matches!(
                        health,
                        StoreHealth::Ready {
                            origin: Origin::Created
                        }
                    ),
                    "{health:?}"
                );
                let is_false_alarm = matches!(
                    &health,
                    StoreHealth::Ready {
                        origin: Origin::Rebuilt {
                            set_aside: Some(_),
                            ..
                        }
                    }
                );
                assert!(!is_false_alarm, "{health:?}");
            }
            Act::RebuildFromExport => {
                let _ = fixture.handle().export(at(1_000)).await.unwrap();
                let directory = fixture.close();
                fs::remove_dir_all(directory.path().join("store")).unwrap();
                fixture = Fixture::open_in(directory);
            }
        }
        assert_eq!(content(&fixture.handle()).await, model);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn store_holds_what_a_map_would_hold(acts in acts()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(play(acts));
    }
}
