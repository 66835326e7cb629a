use proptest::prelude::*;

use super::*;

fn run(slots: &mut Slots, id: SequenceId, ids: &[u32]) -> Claim {
    let claim = slots.claim(id, ids, ids.len(), ids.len() + 10).unwrap();
    slots.extend(claim.slot, &ids[claim.reused..]);
    claim
}

#[test]
fn the_next_turn_gets_its_own_slot_back_and_copies_nothing() {
    let mut slots = Slots::new(3, 100, 300);
    let first = run(&mut slots, 1, &[1, 2, 3, 4]);
    slots.free(first.slot);
    let second = run(&mut slots, 2, &[1, 2, 3, 4, 5, 6]);
    assert_eq!(
        (second.slot, second.reused, second.copy_from),
        (first.slot, 4, None)
    );
}

#[test]
fn a_shared_system_prompt_is_copied_and_both_conversations_stay() {
    let mut slots = Slots::new(3, 100, 300);
    let mut long = vec![1, 2];
    long.extend(10..30);
    let one = run(&mut slots, 1, &long);
    slots.free(one.slot);
    let other = run(&mut slots, 2, &[1, 2, 20, 21]);
    assert_ne!(other.slot, one.slot);
    assert_eq!((other.reused, other.copy_from), (2, Some(one.slot)));
    assert_eq!(slots.tokens(one.slot), long);
    // Also while the source is in use.
    let third = run(&mut slots, 3, &[1, 2, 20, 30]);
    assert_eq!((third.reused, third.copy_from), (3, Some(other.slot)));
}

#[test]
fn a_beginning_from_elsewhere_takes_an_empty_slot_and_nobodys_room() {
    let mut slots = Slots::new(2, 100, 130);
    let one = slots.place(&[1; 50]).unwrap();
    assert_eq!(slots.place(&[2; 101]), None, "longer than a slot");
    assert_eq!(slots.place(&[2; 90]), None, "more than the memory left");
    let other = slots.place(&[2; 60]).unwrap();
    assert_ne!(one, other);
    assert_eq!(slots.place(&[3]), None, "as many as there are rows");
    // It serves as any other, and goes as any other: the one placed first goes first.
    let next = run(&mut slots, 1, &[2; 70]);
    assert_eq!((next.slot, next.reused), (other, 60));
    let third = slots.claim(2, &[3; 20], 20, 30).unwrap();
    assert_eq!((third.slot, third.reused), (one, 0));
}

#[test]
fn the_least_recently_used_beginning_goes_first() {
    let mut slots = Slots::new(2, 100, 200);
    for (id, ids) in [(1, [1; 40]), (2, [2; 40])] {
        let claim = run(&mut slots, id, &ids);
        slots.free(claim.slot);
    }
    let third = run(&mut slots, 3, &[3; 40]);
    slots.free(third.slot);
    assert_eq!(slots.longest(&[1; 40]), 0);
    assert_eq!(slots.longest(&[2; 40]), 40);
}

#[test]
fn memory_beyond_the_budget_is_taken_from_idle_slots_and_else_waited_for() {
    let mut slots = Slots::new(3, 100, 100);
    let idle = run(&mut slots, 1, &[7; 60]);
    slots.free(idle.slot);
    let next = slots.claim(2, &[8; 30], 30, 80).unwrap();
    assert_eq!(next.released, [idle.slot]);
    assert!(
        slots.claim(3, &[9; 30], 30, 60).is_none(),
        "a running one needs it"
    );
    slots.free(next.slot);
    assert!(slots.claim(3, &[9; 30], 30, 60).is_some());
}

#[test]
fn rows_become_neighbours_by_the_cheapest_exchange() {
    let mut slots = Slots::new(4, 100, 400);
    for (slot, length) in [(0, 50), (1, 0), (2, 3), (3, 0)] {
        slots.extend(slot, &vec![1; length]);
    }
    assert_eq!(slots.gather(&[0, 2]), [(2, 1, 3)]);
    assert!(slots.gather(&[2, 1]).is_empty());
    assert!(slots.gather(&[3]).is_empty());
}

#[derive(Debug, Clone)]
enum Act {
    Claim(Vec<u32>, usize),
    Extend(usize, usize),
    Free(usize),
    Park(usize),
    Resume(usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let ids = prop::collection::vec(0u32..3, 1..12);
    prop::collection::vec(
        prop_oneof![
            (ids, 0usize..20).prop_map(|(ids, more)| Act::Claim(ids, more)),
            (0usize..4, 1usize..4).prop_map(|(at, count)| Act::Extend(at, count)),
            (0usize..4).prop_map(Act::Free),
            (0usize..4).prop_map(Act::Park),
            (0usize..4).prop_map(Act::Resume),
        ],
        0..60,
    )
}

proptest! {
    #[test]
    fn the_budget_holds_and_what_is_reused_is_what_was_asked(acts in acts(), budget in 20usize..90) {
        let mut slots = Slots::new(4, 24, budget);
        let mut running: Vec<(usize, usize)> = Vec::new();
        let mut parked: Vec<(usize, usize, Vec<u32>)> = Vec::new();
        for (id, act) in (0u64..).zip(acts) {
            match act {
                Act::Claim(ids, more) => {
                    if running.len() == 4 {
                        continue;
                    }
                    let usable = ids.len().saturating_sub(1);
                    let before: Vec<Vec<u32>> = slots.slots.iter().map(|slot| slot.tokens.clone()).collect();
                    let Some(claim) = slots.claim(id, &ids, usable, ids.len() + more) else {
                        prop_assert!(!running.is_empty() || !parked.is_empty(), "alone there is always room");
                        continue;
                    };
                    prop_assert!(running.iter().all(|(slot, _)| *slot != claim.slot && !claim.released.contains(slot)));
                    let source = claim.copy_from.unwrap_or(claim.slot);
                    prop_assert!(claim.reused <= usable);
                    prop_assert_eq!(&before[source][..claim.reused], &ids[..claim.reused]);
                    prop_assert!(claim.reused == 0 || !claim.released.contains(&source));
                    slots.extend(claim.slot, &ids[claim.reused..]);
                    running.push((claim.slot, (ids.len() + more).min(24) - ids.len().min(24)));
                }
                Act::Extend(at, count) => if let Some((slot, room)) = running.get_mut(at) {
                    let count = count.min(*room);
                    *room -= count;
                    slots.extend(*slot, &vec![9; count]);
                },
                Act::Free(at) => if at < running.len() {
                    slots.free(running.remove(at).0);
                },
                Act::Park(at) => if at < running.len() && parked.len() < 4 {
                    let (slot, room) = running.remove(at);
                    slots.park(slot);
                    parked.push((slot, room, slots.tokens(slot).to_vec()));
                },
                Act::Resume(at) => if at < parked.len() && running.len() < 4 {
                    if slots.resume(parked[at].0).is_some() {
                        let (slot, room, _) = parked.remove(at);
                        running.push((slot, room));
                    } else {
                        // Of those that ran last one can go on as soon as nobody else runs.
                        prop_assert!(!running.is_empty() || parked.len() > 1);
                    }
                },
            }
            slots.surplus();
            for (slot, _, tokens) in &parked {
                prop_assert_eq!(slots.tokens(*slot), tokens, "what is parked stays");
            }
            let held = slots.slots.iter().filter(|slot| slot.owner.is_some() || slot.touched > 0).count();
            prop_assert!(held <= 4 + parked.len(), "{} are held", held);
            prop_assert!(slots.cost() <= budget.max(24), "{} of {}", slots.cost(), budget);
        }
    }

    #[test]
    fn gathered_rows_are_neighbours(rows in prop::sample::subsequence((0usize..8).collect::<Vec<_>>(), 1..8)) {
        let slots = Slots::new(8, 10, 80);
        let mut places = rows.clone();
        for (row, at, _) in slots.gather(&rows) {
            prop_assert!(!places.contains(&at));
            places.iter_mut().filter(|place| **place == row).for_each(|place| *place = at);
        }
        places.sort_unstable();
        prop_assert!(places.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{:?}", places);
    }
}
