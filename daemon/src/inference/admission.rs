//! Whether a request can begin, and end, in time: an estimate from what is before it and how long answers took lately. What a request is
//! measured by is its model's affair: bytes of text, or milliseconds of sound.
//!
//! Shared between the handles, which ask and take tickets, and the model's thread, which reports. Nothing here looks at a
//! clock. Before the first answer nothing is known, and nothing is refused on a guess.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::class::Class;

/// Weight of the latest answer in the running means, as a divisor: 1/4 follows a change within a few answers, and one
/// long story does not shut the door.
const NEWEST: u64 = 4;

/// How busy the model is.
#[derive(Debug)]
pub(super) struct Load {
    /// Answers that are under way at a time.
    rows: NonZeroUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Waiting or under way, by class.
    classes: [Before; Class::ALL.len()],
    pace: Pace,
}

#[derive(Debug, Clone, Copy, Default)]
struct Before {
    requests: usize,
    /// What they will take, by the estimate at their arrival.
    work: Duration,
}

/// How long things take, as the clock on the wall goes: what others take meanwhile is in it.
#[derive(Debug, Default)]
struct Pace {
    /// Until the first token, per byte of the request. What caches hold is in it, too.
    begin_ns_per_byte: Mean,
    decode_ns_per_token: Mean,
    answer_tokens: Mean,
}

#[derive(Debug, Default)]
struct Mean(Option<u64>);

impl Mean {
    fn report(&mut self, value: u64) {
        self.0 = Some(match self.0 {
            None => value,
            Some(mean) => mean - mean / NEWEST + value / NEWEST,
        });
    }

    fn get(&self) -> u64 {
        self.0.unwrap_or(0)
    }
}

impl Pace {
    fn of(&self, bytes: usize, max_tokens: usize) -> Duration {
        let tokens = self.answer_tokens.get().min(max_tokens as u64);
        let begin = self.begin_ns_per_byte.get().saturating_mul(bytes as u64);
        let decode = self.decode_ns_per_token.get().saturating_mul(tokens);
        Duration::from_nanos(begin.saturating_add(decode))
    }
}

/// What a request would meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Estimate {
    /// Until it begins.
    pub(super) wait: Duration,
    /// From then to the end of its answer.
    pub(super) answer: Duration,
    /// Requests of its class, waiting or under way.
    pub(super) before: usize,
}

/// What one answer took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spent {
    /// Of the request.
    pub(super) bytes: usize,
    /// Up to the first token, without waiting.
    pub(super) begin: Duration,
    /// From there on.
    pub(super) decode: Duration,
    /// Of the answer.
    pub(super) tokens: usize,
}

/// Counts as in flight until dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    load: Arc<Load>,
    class: Class,
    work: Duration,
}

impl Load {
    pub(super) fn new(rows: NonZeroUsize) -> Self {
        Self {
            rows,
            state: Mutex::default(),
        }
    }

    /// Nothing that can panic is done under the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a new request would meet. It waits until enough of those that are at least as urgent have ended, side by side; less urgent
    /// ones make room at once.
    pub(super) fn estimate(&self, class: Class, bytes: usize, max_tokens: usize) -> Estimate {
        let state = self.lock();
        let before = &state.classes[..=class as usize];
        let requests: usize = before.iter().map(|class| class.requests).sum();
        let work: Duration = before.iter().map(|class| class.work).sum();
        let rows = self.rows.get();
        let to_end = (requests + 1).saturating_sub(rows);
        let share = u128::try_from(to_end).unwrap_or(0);
        let each = work.as_nanos() / requests.max(1) as u128;
        let wait_ns = each.saturating_mul(share) / rows as u128;
        Estimate {
            wait: Duration::from_nanos(u64::try_from(wait_ns).unwrap_or(u64::MAX)),
            answer: state.pace.of(bytes, max_tokens),
            before: state.classes[class as usize].requests,
        }
    }

    /// Requests of a class, waiting or under way.
    pub(super) fn in_flight(&self, class: Class) -> usize {
        self.lock().classes[class as usize].requests
    }

    pub(super) fn enter(self: &Arc<Self>, class: Class, bytes: usize, max_tokens: usize) -> Ticket {
        let mut state = self.lock();
        let work = state.pace.of(bytes, max_tokens);
        let entered = &mut state.classes[class as usize];
        entered.requests += 1;
        entered.work = entered.work.saturating_add(work);
        Ticket {
            load: Arc::clone(self),
            class,
            work,
        }
    }

    /// An answer came to its end.
    pub(super) fn report(&self, spent: &Spent) {
        let each = |took: Duration, count: usize| {
            u64::try_from(took.as_nanos() / count.max(1) as u128).unwrap_or(u64::MAX)
        };
        let pace = &mut self.lock().pace;
        pace.begin_ns_per_byte
            .report(each(spent.begin, spent.bytes));
        pace.decode_ns_per_token
            .report(each(spent.decode, spent.tokens));
        pace.answer_tokens.report(spent.tokens as u64);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let left = &mut self.load.lock().classes[self.class as usize];
        left.requests = left.requests.saturating_sub(1);
        left.work = left.work.saturating_sub(self.work);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn load(rows: usize) -> Arc<Load> {
        Arc::new(Load::new(NonZeroUsize::new(rows).unwrap()))
    }

    /// 100 bytes and 10 tokens took `ms` each for the beginning and the rest.
    fn report(load: &Load, ms: u32) {
        load.report(&Spent {
            bytes: 100,
            begin: MS * ms,
            decode: MS * ms,
            tokens: 10,
        });
    }

    #[test]
    fn the_wait_grows_with_what_is_in_flight_and_falls_when_it_is_done() {
        let load = load(1);
        let wait = || load.estimate(Class::Local, 100, 99).wait;
        let first = load.enter(Class::Local, 100, 99);
        assert_eq!(wait(), Duration::ZERO, "nothing is refused on a guess");
        drop(first);
        report(&load, 100);
        let tickets = [(); 2].map(|()| load.enter(Class::Local, 100, 99));
        assert_eq!(wait(), 400 * MS);
        drop(tickets);
        assert_eq!(wait(), Duration::ZERO);
    }

    #[test]
    fn only_what_is_as_urgent_or_more_is_waited_for() {
        let load = load(1);
        report(&load, 100);
        let _local = load.enter(Class::Local, 100, 99);
        let wait = |class| load.estimate(class, 100, 99).wait;
        assert_eq!(wait(Class::Voice), Duration::ZERO);
        assert_eq!(wait(Class::Local), 200 * MS);
        let _voice = load.enter(Class::Voice, 50, 5);
        assert_eq!(
            wait(Class::Voice),
            100 * MS,
            "half of it, as it is half as long"
        );
        assert_eq!(wait(Class::Background), 300 * MS);
    }

    #[test]
    fn an_answer_is_estimated_by_its_lengths() {
        let load = load(1);
        report(&load, 100);
        let answer = |bytes, tokens| load.estimate(Class::Local, bytes, tokens).answer;
        assert_eq!(answer(1000, 5), 1050 * MS);
        assert_eq!(answer(0, 1000), 100 * MS, "answers end before they must");
    }

    #[test]
    fn nobody_waits_while_a_row_is_free() {
        let load = load(4);
        report(&load, 200);
        let tickets = [(); 3].map(|()| load.enter(Class::Local, 100, 99));
        let wait = || load.estimate(Class::Local, 100, 99).wait;
        assert_eq!(wait(), Duration::ZERO);
        let fourth = load.enter(Class::Local, 100, 99);
        assert_eq!(wait(), 100 * MS);
        drop((tickets, fourth));
    }

    #[test]
    fn the_means_follow_a_change_within_a_few_answers() {
        let load = load(1);
        report(&load, 50);
        (0..8).for_each(|_| report(&load, 250));
        let answer = load.estimate(Class::Local, 100, 99).answer;
        assert!(answer > 440 * MS && answer <= 500 * MS, "{answer:?}");
    }
}
