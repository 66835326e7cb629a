//! What the chat model itself shows of strain: conversations that it could not begin in time, and how much longer a token takes than at its best. Pure.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    reading::{Kind, Reading, Step},
    sensors::LEAVE,
};

/// Refusals are counted over so long. Chosen because whoever was refused tries again within it.
const WINDOW: Duration = Duration::from_secs(30);

/// Refusals within the window from which on the box is eased, and strained: one may be a rush of a moment, five are none.
const REFUSED: [f64; 2] = [1.0, 5.0];

/// What was seen lately.
#[derive(Debug, Default)]
pub(super) struct Demand {
    /// How many had been refused at which time.
    history: VecDeque<(Instant, u64)>,
    /// How many had been refused before the window; of what was before the first look nothing is known.
    before: Option<u64>,
}

impl Demand {
    /// What the two say now. `refused` counts since the start, `slower` is `None` where nothing was answered lately.
    pub(super) fn readings(
        &mut self,
        now: Instant,
        refused: u64,
        slower: Option<f64>,
        slower_times: [f64; 2],
    ) -> Vec<Reading> {
        while let Some(&(at, count)) = self.history.front()
            && now.saturating_duration_since(at) > WINDOW
        {
            self.before = Some(count);
            self.history.pop_front();
        }
        let before = *self.before.get_or_insert(refused);
        self.history.push_back((now, refused));
        let count = refused.saturating_sub(before);
        let step = |enter| Step {
            enter,
            leave: REFUSED[0],
        };
        let mut readings = vec![Reading {
            kind: Kind::Demand,
            value: count as f64,
            eased: step(REFUSED[0]),
            strained: step(REFUSED[1]),
            words: format!(
                "{count} conversations refused or too late within {} s",
                WINDOW.as_secs()
            ),
        }];
        // Contexts and rows of a run are compared with their like, so what is left is others' work, heat, or a processor that saves power.
        let slow = |enter: f64| Step {
            enter,
            leave: enter * LEAVE,
        };
        readings.extend(slower.map(|times| Reading {
            kind: Kind::Demand,
            value: times,
            eased: slow(slower_times[0]),
            strained: slow(slower_times[1]),
            words: format!(
                "a token of the chat model takes {times:.1} times as long as at its best"
            ),
        }));
        readings
    }
}

#[cfg(test)]
mod tests {
    use super::{super::reading::Level, *};

    #[test]
    fn refusals_count_for_half_a_minute() {
        let mut demand = Demand::default();
        let begin = Instant::now();
        let mut level = |second, refused| {
            let now = begin + Duration::from_secs(second);
            demand.readings(now, refused, None, [2.0, 4.0])[0].level(Level::Normal)
        };
        assert_eq!(level(0, 7), Level::Normal, "those before the first look");
        assert_eq!(level(2, 8), Level::Eased);
        assert_eq!(level(4, 12), Level::Strained);
        assert_eq!(level(32, 12), Level::Strained);
        assert_eq!(level(40, 12), Level::Normal);
    }
}
