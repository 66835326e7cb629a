//! When to look again for what is missing: a pure policy, without a clock.

use std::time::Duration;

/// First pause. Chosen because a person who has just copied a model waits at the status line.
const FIRST: Duration = Duration::from_secs(1);

/// Longest pause. Chosen because a look costs a handful of `stat` calls, and eight seconds is still "by itself".
const LONGEST: Duration = Duration::from_secs(8);

/// Doubling pauses from 1 s to 8 s. Without jitter: it looks at a local disk, there is no herd to scatter.
#[derive(Debug, Clone, Default)]
pub(super) struct Recheck {
    looks: u32,
}

impl Recheck {
    /// The pause before the next look.
    pub(super) fn next_pause(&mut self) -> Duration {
        let pause = FIRST.saturating_mul(1 << self.looks.min(8)).min(LONGEST);
        self.looks = self.looks.saturating_add(1);
        pause
    }

    /// Something happened: start again with short pauses.
    pub(super) fn reset(&mut self) {
        self.looks = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_one_to_eight_seconds_and_start_again_after_a_reset() {
        let mut recheck = Recheck::default();
        let seconds: Vec<u64> = (0..6).map(|_| recheck.next_pause().as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 8, 8]);
        recheck.reset();
        assert_eq!(recheck.next_pause().as_secs(), 1);
    }
}
