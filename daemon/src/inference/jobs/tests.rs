use std::{thread, time::Duration};

use super::{super::slot::events, *};

fn queue_of(jobs: &[(Class, u32)]) -> (Arc<Queue<u32>>, Jobs<u32>) {
    let queue = Queue::new(events().0);
    let served = queue.serve();
    for &(class, job) in jobs {
        queue.try_push(class, job, Instant::now()).unwrap();
    }
    (queue, served)
}

#[test]
fn the_most_urgent_comes_first_and_the_oldest_of_its_class() {
    let (queue, jobs) = queue_of(&[
        (Class::Background, 1),
        (Class::Fleet, 2),
        (Class::Local, 3),
        (Class::Voice, 4),
        (Class::Voice, 5),
    ]);
    queue.close();
    let order: Vec<u32> = std::iter::from_fn(|| jobs.blocking_recv()).collect();
    assert_eq!(order, [4, 5, 3, 2, 1]);
}

#[test]
fn what_goes_along_is_of_the_same_class_and_nothing_once_another_serves() {
    let (queue, jobs) = queue_of(&[(Class::Local, 1), (Class::Background, 2), (Class::Local, 3)]);
    assert_eq!(jobs.blocking_recv_classed(), Some((Class::Local, 1)));
    assert_eq!(jobs.try_recv(Class::Local), Some(3));
    assert_eq!(jobs.try_recv(Class::Local), None);
    let next = queue.serve();
    assert_eq!(jobs.try_recv(Class::Background), None);
    assert_eq!(next.try_recv(Class::Background), Some(2));
}

#[test]
fn only_what_is_more_urgent_goes_before_what_was_taken() {
    let (_queue, jobs) = queue_of(&[
        (Class::Background, 1),
        (Class::Fleet, 2),
        (Class::Local, 3),
        (Class::Voice, 4),
    ]);
    let before = |class| jobs.try_recv_before(class);
    assert_eq!(before(Class::Voice), None);
    assert_eq!(before(Class::Fleet), Some(4));
    assert_eq!(before(Class::Fleet), Some(3));
    assert_eq!(before(Class::Fleet), None);
    assert_eq!(before(Class::Background), Some(2));
}

#[test]
fn what_has_waited_for_a_minute_is_as_urgent_as_what_is_typed() {
    let queue = Queue::new(events().0);
    let jobs = queue.serve();
    let minute_ago = Instant::now().checked_sub(Duration::from_secs(61)).unwrap();
    queue.try_push(Class::Background, 1, minute_ago).unwrap();
    queue.try_push(Class::Local, 2, Instant::now()).unwrap();
    queue.try_push(Class::Voice, 3, Instant::now()).unwrap();
    let order: Vec<Option<u32>> = (0..3).map(|_| jobs.blocking_recv()).collect();
    assert_eq!(order, [Some(3), Some(1), Some(2)]);
}

#[test]
fn a_full_class_refuses_and_the_others_go_on() {
    let (queue, jobs) = queue_of(&[]);
    for job in 0..8 {
        queue.try_push(Class::Voice, job, Instant::now()).unwrap();
    }
    let refused = queue.try_push(Class::Voice, 9, Instant::now());
    assert!(matches!(refused, Err(NotTaken::Full)));
    queue.try_push(Class::Local, 10, Instant::now()).unwrap();
    let taken = jobs.take(2, |_| true).unwrap();
    let refused = queue.try_push(Class::Voice, 9, Instant::now());
    assert!(matches!(refused, Err(NotTaken::Full)), "it has not begun");
    drop(taken.place);
    queue.try_push(Class::Voice, 9, Instant::now()).unwrap();
}

#[test]
fn what_is_taken_in_advance_is_limited_and_never_stands_in_the_way_of_the_more_urgent() {
    let (queue, jobs) = queue_of(&[(Class::Local, 1), (Class::Local, 2), (Class::Local, 3)]);
    let first = jobs.take(2, |_| true).unwrap();
    let _second = jobs.take(2, |_| true).unwrap();
    let other = queue.serve();
    let waiter = thread::spawn(move || {
        let urgent = other.take(2, |_| true).map(|taken| taken.job);
        let third = other.take(2, |_| true).map(|taken| taken.job);
        (urgent, third)
    });
    queue.try_push(Class::Voice, 4, Instant::now()).unwrap();
    drop(first);
    assert_eq!(waiter.join().unwrap(), (Some(4), Some(3)));
}

#[test]
fn who_takes_over_gets_what_waits_and_the_first_one_nothing_more() {
    let (queue, first) = queue_of(&[(Class::Local, 1)]);
    let second = queue.serve();
    assert_eq!(first.blocking_recv(), None);
    assert_eq!(second.blocking_recv(), Some(1));
    second.resign();
    queue.try_push(Class::Local, 2, Instant::now()).unwrap();
    assert_eq!(second.blocking_recv(), None);
    assert_eq!(queue.serve().blocking_recv(), Some(2));
}

#[test]
fn work_that_nobody_serves_wakes_the_supervisor() {
    let (supervisor, woken) = events();
    let queue = Queue::new(supervisor);
    let jobs = queue.serve();
    queue.try_push(Class::Local, 1, Instant::now()).unwrap();
    assert!(woken.try_recv().is_err());
    queue.vacate();
    assert_eq!(jobs.blocking_recv(), None);
    queue.try_push(Class::Fleet, 2, Instant::now()).unwrap();
    assert!(matches!(woken.try_recv(), Ok(Event::Wake)));
    assert!(queue.has_waiting());
    assert_eq!(queue.last().map(|(_, class)| class), Some(Class::Fleet));
    assert_eq!(queue.take_waiting(), [1, 2]);
    assert!(!queue.has_waiting());
}

#[tokio::test]
async fn a_later_part_waits_for_room_and_is_told_when_there_will_be_none() {
    let (queue, jobs) = queue_of(&[]);
    for job in 0..8 {
        queue.try_push(Class::Voice, job, Instant::now()).unwrap();
    }
    let pushing = Arc::clone(&queue);
    let pushed = tokio::spawn(async move {
        (
            pushing.push(Class::Voice, 8).await,
            pushing.push(Class::Voice, 9).await,
        )
    });
    tokio::task::yield_now().await;
    assert_eq!(jobs.blocking_recv(), Some(0));
    while queue.queued(Class::Voice) < 8 {
        tokio::task::yield_now().await;
    }
    queue.abandon();
    assert_eq!(pushed.await.unwrap(), (true, false));
    assert_eq!(jobs.blocking_recv(), None);
    let refused = queue.try_push(Class::Local, 1, Instant::now());
    assert!(matches!(refused, Err(NotTaken::Closed(1))));
}

#[test]
fn background_work_rests_in_its_places_and_is_taken_up_again() {
    let (queue, jobs) = queue_of(&[(Class::Background, 1), (Class::Fleet, 2)]);
    queue.rest_background(true);
    assert_eq!(jobs.blocking_recv(), Some(2));
    assert_eq!(jobs.try_recv(Class::Background), None);
    assert!(!queue.has_waiting() && queue.queued(Class::Background) == 1);
    assert!(jobs.background_rests());
    thread::scope(|scope| {
        let taken = scope.spawn(|| jobs.blocking_recv());
        queue.rest_background(false);
        assert_eq!(taken.join().unwrap(), Some(1));
    });
    // Who is replaced ends what it has begun, and at the end everything is answered.
    queue
        .try_push(Class::Background, 3, Instant::now())
        .unwrap();
    queue.rest_background(true);
    let next = queue.serve();
    assert!(next.background_rests() && !jobs.background_rests());
    queue.close();
    assert_eq!(next.blocking_recv(), Some(3));
}
