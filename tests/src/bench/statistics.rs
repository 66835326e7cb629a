//! Quantiles of measurements.

use std::time::Duration;

/// Measurements of one thing in one unit, in the order in which they were taken. An empty one has NaN for every statistic.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    values: Vec<f64>,
}

impl Sample {
    /// Adds a measurement.
    pub fn push(&mut self, value: f64) {
        self.values.push(value);
    }

    /// Adds a duration, in milliseconds.
    pub fn push_ms(&mut self, duration: Duration) {
        self.push(ms(duration));
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether nothing was measured.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The sum of all.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.values.iter().sum()
    }

    /// The measurement that this part of all (0 to 1) does not exceed, by the nearest rank: always one that was measured.
    #[must_use]
    pub fn quantile(&self, part: f64) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (part * sorted.len() as f64).ceil() as usize;
        sorted
            .get(rank.saturating_sub(1))
            .copied()
            .unwrap_or(f64::NAN)
    }

    /// The middle one.
    #[must_use]
    pub fn p50(&self) -> f64 {
        self.quantile(0.5)
    }

    /// What 19 of 20 do not exceed.
    #[must_use]
    pub fn p95(&self) -> f64 {
        self.quantile(0.95)
    }

    /// The largest.
    #[must_use]
    pub fn max(&self) -> f64 {
        self.quantile(1.0)
    }

    /// The quotients of the pairs that were measured together. Their median says more than the quotient of the medians:
    /// the two of a pair met the same load.
    #[must_use]
    pub fn over(&self, floor: &Self) -> Self {
        let pairs = self.values.iter().zip(&floor.values);
        pairs.map(|(ours, floor)| ours / floor).collect()
    }
}

impl FromIterator<f64> for Sample {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self {
            values: values.into_iter().collect(),
        }
    }
}

/// In milliseconds.
#[must_use]
pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_measurements_in_whatever_order_they_came() {
        let sample: Sample = (1..=100).rev().map(f64::from).collect();
        assert_eq!(
            (sample.p50(), sample.p95(), sample.max()),
            (50.0, 95.0, 100.0)
        );
        let few = Sample::from_iter([3.0, 1.0]);
        assert_eq!((few.p50(), few.p95(), few.quantile(0.0)), (1.0, 3.0, 1.0));
        assert!(Sample::default().p50().is_nan());
    }

    #[test]
    fn ratios_are_of_pairs() {
        let ours = Sample::from_iter([2.0, 30.0, 400.0]);
        let floor = Sample::from_iter([1.0, 10.0, 100.0]);
        assert_eq!(ours.over(&floor), Sample::from_iter([2.0, 3.0, 4.0]));
    }
}
