use serde_json::json;

use super::*;
use crate::store::tests::Fixture;

const QUOTA: LaneQuota = LaneQuota {
    entries_max: 4,
    bytes_max: 100_000,
};
const LIMITS: Limits = Limits {
    results: QUOTA,
    events: QUOTA,
    telemetry: QUOTA,
};

fn numbered(lane: Lane, number: u32) -> Message {
    Message {
        lane,
        id: format!("{lane}-{number}"),
        topic: format!("box/{lane}"),
        payload: json!({"number": number}),
        retain: false,
        correlation: Some(vec![0, 255]),
        lifetime: Some(Duration::from_secs(60)),
        is_latest_only: false,
    }
}

async fn taken(outbox: &Outbox) -> Vec<Parcel> {
    outbox.take(99, |_| true).await.unwrap()
}

fn ids_of(parcels: &[Parcel]) -> Vec<&str> {
    parcels
        .iter()
        .map(|parcel| parcel.message.id.as_str())
        .collect()
}

#[tokio::test]
async fn what_was_not_cleared_is_found_after_a_restart_in_its_order_and_unchanged() {
    let fixture = Fixture::new();
    let outbox = Outbox::new(fixture.handle(), LIMITS);
    let messages = [
        numbered(Lane::Events, 1),
        numbered(Lane::Events, 2),
        numbered(Lane::Results, 3),
    ];
    let put = outbox.put(&messages).await.unwrap();
    assert!(put.committed.is_some() && put.refused == 0);
    let first = taken(&outbox).await;
    assert_eq!(ids_of(&first), ["results-3", "events-1", "events-2"]);
    outbox.clear(&[first[1].place]).await.unwrap();
    drop(outbox);

    let fixture = fixture.reopen();
    let outbox = Outbox::new(fixture.handle(), LIMITS);
    outbox.load().await.unwrap();
    let again = taken(&outbox).await;
    assert_eq!(ids_of(&again), ["results-3", "events-2"]);
    let left = again[1].message.lifetime.unwrap();
    assert!(left <= Duration::from_secs(60), "{left:?}");
    let lifetime = messages[1].lifetime;
    let message = Message {
        lifetime,
        ..again[1].message.clone()
    };
    assert_eq!(message, messages[1]);
    outbox.put(&[numbered(Lane::Events, 4)]).await.unwrap();
    assert_eq!(ids_of(&taken(&outbox).await), ["events-4"]);
}

#[tokio::test]
async fn a_result_waits_for_room_and_takes_the_place_of_the_first_that_is_cleared() {
    let fixture = Fixture::new();
    let outbox = Outbox::new(fixture.handle(), LIMITS);
    for number in 0..4 {
        outbox
            .put(&[numbered(Lane::Results, number)])
            .await
            .unwrap();
    }
    let refused = outbox.put(&[numbered(Lane::Results, 4)]).await.unwrap();
    assert_eq!((refused.committed, refused.refused), (None, 1));
    let waiting = outbox.clone();
    let waiting =
        tokio::spawn(async move { waiting.put_waiting(numbered(Lane::Results, 5)).await });
    let mut stats = outbox.stats();
    // It has tried in vain once more.
    stats
        .wait_for(|stats| stats[Lane::Results.at()].refused == 2)
        .await
        .unwrap();
    let first = outbox.take(1, |_| true).await.unwrap();
    outbox.clear(&[first[0].place]).await.unwrap();
    let _ = waiting.await.unwrap().unwrap();
    assert_eq!(
        ids_of(&taken(&outbox).await),
        ["results-1", "results-2", "results-3", "results-5"]
    );
}

#[tokio::test]
async fn only_the_newest_value_of_a_topic_is_on_disk() {
    let fixture = Fixture::new();
    let outbox = Outbox::new(fixture.handle(), LIMITS);
    for number in 0..20 {
        let message = Message {
            is_latest_only: true,
            ..numbered(Lane::Telemetry, number)
        };
        outbox.put(&[message]).await.unwrap();
    }
    let stored = ids(&fixture.handle()).await.unwrap();
    assert_eq!(stored, [(Lane::Telemetry, "telemetry-19".to_owned())]);
    assert_eq!(outbox.stats().borrow()[2].coalesced, 19);
}

#[tokio::test]
async fn expired_messages_are_gone_from_disk_and_counted() {
    let fixture = Fixture::new();
    let outbox = Outbox::new(fixture.handle(), LIMITS);
    outbox.put(&[numbered(Lane::Events, 1)]).await.unwrap();
    let later = SystemTime::now() + Duration::from_secs(61);
    assert_eq!(outbox.expire(later).await.unwrap(), 1);
    assert!(ids(&fixture.handle()).await.unwrap().is_empty());
    assert_eq!(outbox.stats().borrow()[1].expired, 1);
}

#[tokio::test]
async fn message_too_large_for_a_record_is_refused_by_name_and_takes_no_room() {
    let fixture = Fixture::new();
    let outbox = Outbox::new(fixture.handle(), LIMITS);
    let large = Message {
        payload: json!("x".repeat(7_000)),
        ..numbered(Lane::Events, 1)
    };
    let refused = outbox.put(&[large]).await;
    assert!(
        matches!(&refused, Err(OutboxError::TooLarge { topic, .. }) if topic == "box/events"),
        "{refused:?}"
    );
    assert_eq!(outbox.stats().borrow()[1].waiting, 0);
}
