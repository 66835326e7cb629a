//! The policy's promises, by example and over random histories.

use proptest::prelude::*;

use super::*;

const BACKOFF: Backoff = Backoff {
    min: Duration::from_millis(100),
    max: Duration::from_secs(2),
    healthy_after: Duration::from_secs(30),
};
const SERIAL: LinkIndex = LinkIndex(0);
const BROKER: LinkIndex = LinkIndex(1);

fn policy() -> Policy {
    Policy::new([LinkClass::Serial, LinkClass::Mqtt], BACKOFF)
}

/// A device that is reached by `link` since `now`.
fn reached_by(policy: &mut Policy, link: LinkIndex, now: Instant) {
    assert_eq!(policy.step(now), Step::Open(link));
    policy.on_opened(link, now);
    policy.on_carrying(link, now);
}

fn measured(rtt_ms: u64, loss: f64, at: Instant) -> Measured {
    let rtt = Duration::from_millis(rtt_ms);
    Measured { rtt, loss, at }
}

#[test]
fn the_line_is_tried_first_and_the_broker_as_soon_as_the_line_is_missing() {
    let (mut policy, now) = (policy(), Instant::now());
    assert_eq!(policy.step(now), Step::Open(SERIAL));
    assert_eq!(policy.state(SERIAL).name(), "connecting");
    policy.on_open_failed(SERIAL, now, "no such port".into(), 0.5);
    assert_eq!(policy.state(SERIAL).cause(), Some("no such port"));
    assert_eq!(policy.step(now), Step::Open(BROKER));
}

#[test]
fn a_break_moves_the_connection_at_once() {
    let (mut policy, now) = (policy(), Instant::now());
    reached_by(&mut policy, SERIAL, now);
    let later = now + Duration::from_secs(60);
    policy.on_broken(SERIAL, later, "unplugged".into(), 0.5);
    reached_by(&mut policy, BROKER, later);
    assert_eq!(policy.carrying(), Some(BROKER));
}

#[test]
fn the_line_gets_the_connection_back_after_it_has_promised_for_a_while() {
    let (mut policy, now) = (policy(), Instant::now());
    policy.on_open_failed(SERIAL, now, "no such port".into(), 0.0);
    reached_by(&mut policy, BROKER, now);
    policy.on_measured(BROKER, measured(25, 0.0, now));
    let returned = now + Duration::from_secs(20);
    policy.on_announced(SERIAL, returned);
    assert_eq!(policy.step(returned), Step::Wait(Some(returned + HOLD)));
    assert_eq!(policy.carrying(), Some(BROKER));
    assert_eq!(policy.step(returned + HOLD), Step::Open(SERIAL));
    // It carries on until the line is really open.
    assert_eq!(policy.carrying(), Some(BROKER));
}

#[test]
fn a_line_on_which_nobody_answers_gives_the_connection_back_and_is_left_alone_for_long() {
    let (mut policy, mut now) = (policy(), Instant::now());
    policy.on_open_failed(SERIAL, now, "no such port".into(), 0.0);
    reached_by(&mut policy, BROKER, now);
    now += Duration::from_secs(20);
    assert_eq!(policy.step(now), Step::Wait(Some(now + HOLD)));
    now += HOLD;
    assert_eq!(policy.step(now), Step::Open(SERIAL));
    policy.on_opened(SERIAL, now);
    now += PATIENCE_BESIDES;
    assert_eq!(policy.step(now), Step::GiveUp(SERIAL));
    policy.on_broken(SERIAL, now, "silent".into(), 0.0);
    reached_by(&mut policy, BROKER, now);
    let Step::Wait(Some(until)) = policy.step(now) else {
        panic!("it waits")
    };
    assert!(until >= now + DETOUR.min, "{:?}", until - now);
    // A loose plug, which comes and goes, does not shorten that.
    policy.on_announced(SERIAL, now + Duration::from_secs(1));
    assert_eq!(
        policy.step(now + Duration::from_secs(1)),
        Step::Wait(Some(until))
    );
}

#[test]
fn like_links_do_not_take_the_connection_from_each_other() {
    let now = Instant::now();
    let mut policy = Policy::new([LinkClass::Serial, LinkClass::Serial], BACKOFF);
    reached_by(&mut policy, LinkIndex(0), now);
    // A quarter worse than the other is expected to be: not worth a move.
    for second in 0..600 {
        let now = now + Duration::from_secs(second);
        policy.on_measured(LinkIndex(0), measured(38, 0.0, now));
        assert!(matches!(policy.step(now), Step::Wait(_)), "at {second} s");
    }
}

#[test]
fn a_line_that_loses_much_hands_over_to_the_broker() {
    let (mut policy, now) = (policy(), Instant::now());
    reached_by(&mut policy, SERIAL, now);
    let mut opened = None;
    for second in 0..30 {
        let now = now + Duration::from_secs(second);
        policy.on_measured(SERIAL, measured(60, 0.5, now));
        if let Step::Open(link) = policy.step(now) {
            opened = Some((link, second));
            break;
        }
    }
    assert_eq!(opened, Some((BROKER, DWELL.as_secs())));
}

#[test]
fn rests_grow_while_a_link_stays_away_and_start_small_after_health() {
    let mut policy = Policy::new([LinkClass::Serial], BACKOFF);
    let mut now = Instant::now();
    let mut rests = Vec::new();
    for _ in 0..6 {
        assert_eq!(policy.step(now), Step::Open(SERIAL));
        policy.on_open_failed(SERIAL, now, "no such port".into(), 0.99);
        let Step::Wait(Some(until)) = policy.step(now) else {
            panic!("it rests")
        };
        rests.push(until - now);
        now = until;
    }
    assert!(rests.windows(2).all(|pair| pair[0] <= pair[1]), "{rests:?}");
    assert!(
        rests[5] <= BACKOFF.max && rests[5] > BACKOFF.min * 10,
        "{rests:?}"
    );
    reached_by(&mut policy, SERIAL, now);
    now += BACKOFF.healthy_after;
    policy.on_broken(SERIAL, now, "unplugged".into(), 0.99);
    assert_eq!(policy.step(now), Step::Wait(Some(now + BACKOFF.min)));
}

#[test]
fn an_announced_line_does_not_finish_its_rest() {
    let mut policy = Policy::new([LinkClass::Serial], BACKOFF);
    let now = Instant::now();
    policy.on_open_failed(SERIAL, now, "no such port".into(), 0.99);
    assert!(matches!(policy.step(now), Step::Wait(Some(_))));
    policy.on_announced(SERIAL, now);
    assert_eq!(policy.step(now), Step::Open(SERIAL));
}

#[test]
fn the_breaker_opens_at_the_third_refusal_and_believes_no_peers_word() {
    let mut policy = Policy::new([LinkClass::Mqtt], BACKOFF);
    let (link, mut now) = (LinkIndex(0), Instant::now());
    for refusal in 1..=REFUSALS {
        assert_eq!(policy.step(now), Step::Open(link));
        policy.on_opened(link, now);
        let opens = policy.on_refused(link, now, "wrong key".into(), 0.0);
        assert_eq!(opens, refusal == REFUSALS);
        policy.on_announced(link, now);
        let Step::Wait(Some(until)) = policy.step(now) else {
            panic!("it rests")
        };
        let least = match refusal == REFUSALS {
            true => BREAKER.min,
            false => REFUSED,
        };
        assert!(until - now >= least, "{refusal}: {:?}", until - now);
        assert_eq!(policy.state(link).name(), "refused");
        now = until;
    }
    // The key was mended.
    reached_by(&mut policy, link, now);
    assert_eq!(policy.state(link).name(), "connected");
}

#[test]
fn one_refused_link_does_not_keep_the_others_from_being_tried() {
    let (mut policy, now) = (policy(), Instant::now());
    assert_eq!(policy.step(now), Step::Open(SERIAL));
    policy.on_opened(SERIAL, now);
    policy.on_refused(SERIAL, now, "wrong key".into(), 0.5);
    assert_eq!(policy.step(now), Step::Open(BROKER));
}

/// What can happen to a policy.
#[derive(Debug, Clone)]
enum Happening {
    Pass(u64),
    Opened(bool),
    Answered,
    Broken(usize),
    Refused,
    Announced(usize),
    Measured(u64, f64),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => (1u64..20_000).prop_map(Happening::Pass),
        4 => any::<bool>().prop_map(Happening::Opened),
        4 => Just(Happening::Answered),
        1 => (0usize..3).prop_map(Happening::Broken),
        1 => Just(Happening::Refused),
        2 => (0usize..3).prop_map(Happening::Announced),
        3 => ((1u64..2000), (0.0..1.0)).prop_map(|(rtt, loss)| Happening::Measured(rtt, loss)),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_one_link_carries_rests_are_kept_and_nothing_flaps(
        history in prop::collection::vec(happening(), 1..200),
        random in 0.0..1.0f64,
    ) {
        let classes = [LinkClass::Serial, LinkClass::Mqtt, LinkClass::Serial];
        let mut policy = Policy::new(classes, BACKOFF);
        let mut now = Instant::now();
        let mut opening: Option<LinkIndex> = None;
        let mut below: Option<LinkIndex> = None;
        let mut carrying_since: Option<Instant> = None;
        for happening in history {
            match happening {
                Happening::Pass(millis) => now += Duration::from_millis(millis),
                Happening::Opened(true) => if let Some(link) = opening.take() {
                    policy.on_opened(link, now);
                    below = Some(link);
                    carrying_since = None;
                },
                Happening::Opened(false) => if let Some(link) = opening.take() {
                    policy.on_open_failed(link, now, "closed".into(), random);
                },
                Happening::Answered => if let Some(link) = below {
                    policy.on_carrying(link, now);
                    carrying_since.get_or_insert(now);
                },
                Happening::Broken(link) => {
                    policy.on_broken(LinkIndex(link), now, "broken".into(), random);
                    if below == Some(LinkIndex(link)) {
                        (below, carrying_since) = (None, None);
                    }
                }
                Happening::Refused => if let Some(link) = below.take() {
                    policy.on_refused(link, now, "wrong key".into(), random);
                    carrying_since = None;
                },
                Happening::Announced(link) => policy.on_announced(LinkIndex(link), now),
                Happening::Measured(rtt, loss) => if let Some(link) = below {
                    policy.on_measured(link, measured(rtt, loss, now));
                },
            }
            let states: Vec<LinkState> = (0..3).map(|link| policy.state(LinkIndex(link))).collect();
            let connected = states.iter().filter(|state| state.name() == "connected").count();
            prop_assert!(connected <= 1);
            match policy.step(now) {
                Step::Open(link) => {
                    prop_assert_eq!(opening, None, "one is opened at a time");
                    prop_assert_ne!(Some(link), below, "the link below is not opened again");
                    if let LinkState::Reconnecting { retry_at, .. } | LinkState::Refused { retry_at, .. } = &states[link.0] {
                        prop_assert!(*retry_at <= now, "a resting link is left alone");
                    }
                    if let Some(since) = carrying_since {
                        prop_assert!(now >= since + DWELL, "a working link is kept for a while");
                    } else {
                        prop_assert_eq!(below, None, "nothing is opened beside a link that is being tried");
                    }
                    opening = Some(link);
                }
                Step::GiveUp(link) => {
                    prop_assert_eq!(Some(link), below);
                    prop_assert!(carrying_since.is_none(), "a link that works is not given up");
                    policy.on_broken(link, now, "silent".into(), random);
                    below = None;
                }
                Step::Wait(Some(until)) => prop_assert!(until > now, "waiting never spins"),
                Step::Wait(None) => prop_assert!(
                    opening.is_some() || below.is_some(),
                    "it never sleeps for ever without a link"
                ),
            }
        }
    }
}
