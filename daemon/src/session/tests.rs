//! Conversations over a real store in a temporary directory.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::json;

use super::*;
use crate::store::tests::Fixture;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn id(text: &str) -> SessionId {
    SessionId::new(text).unwrap()
}

fn turn(speaker: Speaker, text: &str) -> NewTurn {
    NewTurn {
        speaker,
        text: text.to_owned(),
        call: Some(json!({"thing": "lamp", "affordance": "brightness", "value": 40})),
        outcome: TurnOutcome::Done,
        latency: Some(Duration::from_millis(12)),
        trace_id: Some("t1".to_owned()),
        origin: None,
    }
}

fn texts(turns: &[TurnRecord]) -> Vec<&str> {
    turns.iter().map(|turn| turn.text.as_str()).collect()
}

#[tokio::test]
async fn conversation_and_focus_survive_a_restart() {
    let fixture = Fixture::new();
    let sessions = Sessions::new(fixture.handle(), Retention::default());
    let said = vec![
        turn(Speaker::User, "set the desk lamp to 40 percent"),
        turn(Speaker::Device, "brightness 40"),
    ];
    let focus = json!({"things": ["lamp"], "question": null});
    let _ = sessions
        .append(&id("a"), said, Some(focus.clone()), at(5))
        .await
        .unwrap();

    let fixture = fixture.reopen();
    let sessions = Sessions::new(fixture.handle(), Retention::default());
    let session = sessions.load(&id("a"), at(9)).await.unwrap();
    assert_eq!(session.record.focus, Some(focus));
    assert_eq!(session.record.title, "set the desk lamp to 40 percent");
    assert_eq!(
        (
            session.record.created_unix_ms,
            session.record.updated_unix_ms
        ),
        (5_000, 5_000)
    );
    assert_eq!(
        texts(&session.turns),
        ["set the desk lamp to 40 percent", "brightness 40"]
    );
    assert_eq!(session.turns[1].speaker, Speaker::Device);
    assert_eq!(session.turns[1].latency_ms, Some(12));
}

#[tokio::test]
async fn loading_an_unknown_session_writes_nothing() {
    let fixture = Fixture::new();
    let sessions = Sessions::new(fixture.handle(), Retention::default());
    let session = sessions.load(&id("a"), at(1)).await.unwrap();
    assert_eq!((session.record.next_seq, session.turns.len()), (0, 0));
    assert!(sessions.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn oldest_turns_go_and_numbers_go_on() {
    let fixture = Fixture::new();
    let retention = Retention {
        turns_max: 3,
        ..Retention::default()
    };
    let sessions = Sessions::new(fixture.handle(), retention);
    for number in 0..5 {
        let said = vec![turn(Speaker::User, &format!("turn {number}"))];
        let _ = sessions
            .append(&id("a"), said, None, at(number))
            .await
            .unwrap();
    }
    let turns = sessions.last_turns(&id("a"), 10).await.unwrap();
    assert_eq!(texts(&turns), ["turn 2", "turn 3", "turn 4"]);
    assert_eq!(turns[2].seq, 4);
    let left = fixture
        .handle()
        .scan(Scan::first(Tree::Turns, "", 100))
        .await
        .unwrap();
    assert_eq!(left.len(), 3, "what was dropped is gone from the store too");
    let more = (5..10)
        .map(|number| turn(Speaker::User, &format!("turn {number}")))
        .collect();
    let _ = sessions.append(&id("a"), more, None, at(9)).await.unwrap();
    assert_eq!(
        texts(&sessions.last_turns(&id("a"), 2).await.unwrap()),
        ["turn 8", "turn 9"]
    );
    assert_eq!(
        fixture
            .handle()
            .scan(Scan::first(Tree::Turns, "", 100))
            .await
            .unwrap()
            .len(),
        3
    );
}

#[tokio::test]
async fn beginning_one_session_too_many_forgets_the_one_that_was_quiet_longest() {
    let fixture = Fixture::new();
    let retention = Retention {
        sessions_max: 2,
        ..Retention::default()
    };
    let sessions = Sessions::new(fixture.handle(), retention);
    for (name, when) in [("a", 1), ("b", 2), ("a", 3), ("c", 4)] {
        let _ = sessions
            .append(&id(name), vec![turn(Speaker::User, name)], None, at(when))
            .await
            .unwrap();
    }
    let names: Vec<_> = sessions
        .list()
        .await
        .unwrap()
        .into_iter()
        .map(|record| record.id)
        .collect();
    assert_eq!(names, ["c", "a"]);
    assert!(sessions.last_turns(&id("b"), 9).await.unwrap().is_empty());
    let month = Retention::default().age_max.as_secs();
    assert_eq!(sessions.retain(at(month + 4)).await.unwrap(), ["a"]);
    assert_eq!(
        fixture
            .handle()
            .scan(Scan::first(Tree::Turns, "", 9))
            .await
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn sessions_whose_names_share_a_beginning_do_not_share_turns() {
    let fixture = Fixture::new();
    let sessions = Sessions::new(fixture.handle(), Retention::default());
    for name in ["a", "a.b", "a-b", "ab"] {
        let _ = sessions
            .append(&id(name), vec![turn(Speaker::User, name)], None, at(1))
            .await
            .unwrap();
    }
    assert_eq!(
        texts(&sessions.last_turns(&id("a"), 9).await.unwrap()),
        ["a"]
    );
    let deleted = sessions.delete(&id("a")).await.unwrap();
    assert!(deleted.is_some());
    assert!(sessions.delete(&id("a")).await.unwrap().is_none());
    assert_eq!(sessions.list().await.unwrap().len(), 3);
    assert_eq!(
        texts(&sessions.last_turns(&id("a.b"), 9).await.unwrap()),
        ["a.b"]
    );
}

#[tokio::test]
async fn concurrent_appends_to_one_session_all_stay_without_gaps() {
    let fixture = Fixture::new();
    let sessions = Sessions::new(fixture.handle(), Retention::default());
    let tasks: Vec<_> = (0..8)
        .map(|number| {
            let sessions = sessions.clone();
            tokio::spawn(async move {
                let said = vec![
                    turn(Speaker::User, &format!("{number}")),
                    turn(Speaker::Assistant, "yes"),
                ];
                sessions
                    .append(&id("a"), said, None, at(number))
                    .await
                    .map(drop)
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let turns = sessions.last_turns(&id("a"), 99).await.unwrap();
    let numbers: Vec<u64> = turns.iter().map(|turn| turn.seq).collect();
    assert_eq!(numbers, (0..16).collect::<Vec<_>>());
    for pair in turns.chunks(2) {
        assert_eq!(
            (pair[0].speaker, pair[1].speaker),
            (Speaker::User, Speaker::Assistant),
            "turns of one append stay together"
        );
    }
}
