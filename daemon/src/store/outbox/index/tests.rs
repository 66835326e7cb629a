use proptest::prelude::*;

use super::*;

const QUOTA: LaneQuota = LaneQuota {
    entries_max: 3,
    bytes_max: 100,
};
const LIMITS: Limits = Limits {
    results: QUOTA,
    events: QUOTA,
    telemetry: QUOTA,
};
const NOW: u64 = CLOCK_UNSET_BEFORE_MS + 1_000_000;

fn header(latest_of: Option<&str>) -> Header {
    Header {
        bytes: 10,
        accepted_ms: NOW,
        lifetime_ms: Some(1_000),
        latest_of: latest_of.map(str::to_owned),
    }
}

fn add(index: &mut Index, lane: Lane, latest_of: Option<&str>) -> Option<(u64, Vec<u64>)> {
    match index.admit(lane, header(latest_of)) {
        Admission::Taken { place, instead_of } => {
            index.written(place);
            let gone = instead_of.iter().map(|place| place.number).collect();
            Some((place.number, gone))
        }
        Admission::Full => None,
    }
}

fn taken(index: &mut Index, limit: usize) -> Vec<(Lane, u64)> {
    let taken = index.take_next(NOW, limit, |_| true);
    taken
        .iter()
        .map(|(place, _)| (place.lane, place.number))
        .collect()
}

#[test]
fn urgent_lanes_go_first_and_each_lane_in_its_order() {
    let mut index = Index::new(LIMITS);
    add(&mut index, Lane::Telemetry, None);
    add(&mut index, Lane::Events, None);
    add(&mut index, Lane::Events, None);
    add(&mut index, Lane::Results, None);
    assert_eq!(
        taken(&mut index, 3),
        [(Lane::Results, 3), (Lane::Events, 1), (Lane::Events, 2)]
    );
    assert_eq!(taken(&mut index, 3), [(Lane::Telemetry, 0)]);
    index.give_back(Place {
        lane: Lane::Events,
        number: 1,
    });
    assert_eq!(taken(&mut index, 3), [(Lane::Events, 1)]);
}

#[test]
fn what_is_not_durable_yet_is_not_sent_and_holds_back_its_lane() {
    let mut index = Index::new(LIMITS);
    let Admission::Taken { place, .. } = index.admit(Lane::Events, header(None)) else {
        panic!("there is room")
    };
    add(&mut index, Lane::Events, None);
    assert!(taken(&mut index, 9).is_empty());
    index.written(place);
    assert_eq!(taken(&mut index, 9), [(Lane::Events, 0), (Lane::Events, 1)]);
}

#[test]
fn full_results_and_events_are_refused_and_full_telemetry_drops_its_oldest() {
    let mut index = Index::new(LIMITS);
    for lane in Lane::ALL {
        for _ in 0..3 {
            assert!(add(&mut index, lane, None).is_some());
        }
    }
    assert_eq!(add(&mut index, Lane::Results, None), None);
    assert_eq!(add(&mut index, Lane::Events, None), None);
    assert_eq!(add(&mut index, Lane::Telemetry, None), Some((9, vec![6])));
    let [results, events, telemetry] = index.stats();
    assert_eq!((results.refused, events.refused), (1, 1));
    assert_eq!((telemetry.dropped, telemetry.waiting), (1, 3));
}

#[test]
fn newest_value_replaces_the_one_that_waits_but_not_the_one_under_way() {
    let mut index = Index::new(LIMITS);
    add(&mut index, Lane::Telemetry, Some("lamp/on"));
    assert_eq!(
        add(&mut index, Lane::Telemetry, Some("lamp/on")),
        Some((1, vec![0]))
    );
    assert_eq!(taken(&mut index, 1), [(Lane::Telemetry, 1)]);
    assert_eq!(
        add(&mut index, Lane::Telemetry, Some("lamp/on")),
        Some((2, vec![]))
    );
    index.delivered(&[Place {
        lane: Lane::Telemetry,
        number: 1,
    }]);
    // The newest still replaces the one that waits, though an older one of its name was cleared in between.
    assert_eq!(
        add(&mut index, Lane::Telemetry, Some("lamp/on")),
        Some((3, vec![2]))
    );
    assert_eq!(taken(&mut index, 9), [(Lane::Telemetry, 3)]);
    assert_eq!(index.stats()[2].coalesced, 2);
}

#[test]
fn value_that_comes_back_after_a_newer_one_left_is_not_sent_again() {
    let mut index = Index::new(LIMITS);
    for _ in 0..2 {
        add(&mut index, Lane::Telemetry, Some("lamp/on"));
        taken(&mut index, 9);
    }
    let place = |number| Place {
        lane: Lane::Telemetry,
        number,
    };
    index.delivered(&[place(1)]);
    assert!(!index.give_back(place(0)));
    assert_eq!(index.stats()[2].waiting, 0);
}

#[test]
fn expired_messages_go_and_those_in_flight_stay() {
    let mut index = Index::new(LIMITS);
    add(&mut index, Lane::Events, None);
    add(&mut index, Lane::Events, None);
    assert_eq!(taken(&mut index, 1), [(Lane::Events, 0)]);
    assert!(index.expire(NOW + 999, 9).is_empty());
    let expired = index.expire(NOW + 1_000, 9);
    assert_eq!(expired.len(), 1);
    assert_eq!((expired[0].lane, expired[0].number), (Lane::Events, 1));
    assert_eq!(index.stats()[1].expired, 1);
}

#[test]
fn clock_that_is_set_after_the_start_expires_nothing_early() {
    let mut index = Index::new(LIMITS);
    let early = Header {
        accepted_ms: 5_000,
        ..header(None)
    };
    let Admission::Taken { place, .. } = index.admit(Lane::Events, early) else {
        panic!("there is room")
    };
    index.written(place);
    assert!(index.expire(5_999, 9).is_empty());
    assert!(index.expire(NOW, 9).is_empty(), "the clock was set");
    assert!(index.expire(NOW + 999, 9).is_empty());
    assert_eq!(index.expire(NOW + 1_000, 9).len(), 1);
}

proptest! {
    /// Whatever is done, the sums agree with the entries and no quota is exceeded.
    #[test]
    fn sums_are_right_and_quotas_hold(steps in proptest::collection::vec((0..3_usize, 0..6_u8, 1..60_u64, 0..3_u8), 0..200)) {
        let mut index = Index::new(LIMITS);
        let mut under_way: Vec<Place> = Vec::new();
        for (lane, step, bytes, name) in steps {
            let lane = Lane::ALL[lane];
            match step {
                0..=2 => {
                    let latest_of = (name > 0 && lane == Lane::Telemetry).then(|| name.to_string());
                    let header = Header { bytes, accepted_ms: NOW, lifetime_ms: Some(u64::from(name)), latest_of };
                    if let Admission::Taken { place, .. } = index.admit(lane, header) {
                        index.written(place);
                    }
                }
                3 => under_way.extend(index.take_next(NOW, usize::from(name), |_| true).iter().map(|(place, _)| *place)),
                4 => if let Some(place) = under_way.pop() { index.delivered(&[place]); },
                _ => { index.expire(NOW + u64::from(name), 2); }
            }
            for lane in &index.lanes {
                prop_assert_eq!(lane.bytes, lane.entries.values().map(|entry| entry.header.bytes).sum::<u64>());
                prop_assert!(lane.bytes <= 100 && lane.entries.len() <= 3);
                for (name, number) in &lane.latest {
                    prop_assert_eq!(lane.entries[number].header.latest_of.as_ref(), Some(name));
                }
            }
        }
    }
}
