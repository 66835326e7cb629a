use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::store::tests::Fixture;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

#[tokio::test]
async fn duplicate_gets_the_stored_outcome_and_another_content_is_a_conflict() {
    let fixture = Fixture::new();
    let (ledger, interrupted) = Ledger::open(fixture.handle()).await.unwrap();
    assert!(interrupted.is_empty());
    let begin = async |digest| ledger.begin("c1", digest, at(100), at(1)).await.unwrap();
    assert!(matches!(begin("a").await, Begin::Fresh(_)));
    assert_eq!(begin("a").await, Begin::Running);
    let _ = ledger
        .finish("c1", json!({"state": "succeeded"}))
        .await
        .unwrap();
    assert_eq!(begin("a").await, Begin::Done(json!({"state": "succeeded"})));
    assert_eq!(begin("b").await, Begin::Conflict);
    let again = ledger.finish("c1", json!(2)).await;
    assert!(
        matches!(again, Err(LedgerError::NotRunning { .. })),
        "{again:?}"
    );
}

#[tokio::test]
async fn running_command_is_interrupted_after_a_restart() {
    let fixture = Fixture::new();
    let (ledger, _) = Ledger::open(fixture.handle()).await.unwrap();
    let _ = ledger.begin("c1", "a", at(100), at(1)).await.unwrap();
    let _ = ledger.begin("c2", "a", at(100), at(1)).await.unwrap();
    let _ = ledger.finish("c2", json!(1)).await.unwrap();
    let fixture = fixture.reopen();
    let (ledger, interrupted) = Ledger::open(fixture.handle()).await.unwrap();
    assert_eq!(interrupted, ["c1"]);
    assert_eq!(
        ledger.begin("c1", "a", at(100), at(2)).await.unwrap(),
        Begin::Interrupted
    );
    assert_eq!(
        ledger.begin("c2", "a", at(100), at(2)).await.unwrap(),
        Begin::Done(json!(1))
    );
}

#[tokio::test]
async fn of_many_concurrent_beginnings_exactly_one_is_fresh() {
    let fixture = Fixture::new();
    let (ledger, _) = Ledger::open(fixture.handle()).await.unwrap();
    let tasks: Vec<_> = (0..32)
        .map(|_| {
            let ledger = ledger.clone();
            tokio::spawn(async move { ledger.begin("c1", "a", at(100), at(1)).await.unwrap() })
        })
        .collect();
    let mut fresh = 0;
    for task in tasks {
        match task.await.unwrap() {
            Begin::Fresh(_) => fresh += 1,
            other => assert_eq!(other, Begin::Running),
        }
    }
    assert_eq!(fresh, 1);
}

#[tokio::test]
async fn entries_are_forgotten_after_expiry_and_margin_but_never_while_running() {
    let fixture = Fixture::new();
    let (ledger, _) = Ledger::open(fixture.handle()).await.unwrap();
    for id in ["done", "running"] {
        let _ = ledger.begin(id, "a", at(100), at(1)).await.unwrap();
    }
    let _ = ledger.finish("done", json!(1)).await.unwrap();
    let margin = EXPIRY_MARGIN.as_secs();
    assert_eq!(ledger.prune(at(100 + margin)).await.unwrap(), 0);
    assert_eq!(ledger.prune(at(101 + margin)).await.unwrap(), 1);
    let late = ledger.begin("done", "a", at(100), at(101 + margin)).await;
    assert!(matches!(late, Err(LedgerError::Expired)), "{late:?}");
    assert_eq!(
        ledger
            .begin("running", "a", at(9_999), at(2))
            .await
            .unwrap(),
        Begin::Running
    );
}

proptest! {
    /// What makes forgetting safe: whatever may be forgotten is refused as expired if it comes again.
    #[test]
    fn what_is_forgettable_is_refused(expiry in 0_u64..1_000_000, now in 0_u64..2_000_000) {
        let entry = Entry {
            digest: String::new(),
            expires_unix_ms: unix_ms(at(expiry)),
            progress: Progress::Interrupted,
        };
        if is_forgettable(&entry, at(now)) {
            prop_assert!(matches!(check_expiry(at(expiry), at(now)), Err(LedgerError::Expired)));
        }
    }
}
