//! Round-trip estimation and the retransmission time-out, by RFC 6298.

use core::time::Duration;

use super::Config;

/// RFC 6298 §2: SRTT, RTTVAR and RTO. Invariant: `rto_min <= rto <= rto_max`.
#[derive(Debug)]
pub(crate) struct RttEstimator {
    smoothed: Option<Duration>,
    variation: Duration,
    least: Option<Duration>,
    rto: Duration,
    rto_min: Duration,
    rto_max: Duration,
}

impl RttEstimator {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            smoothed: None,
            variation: Duration::ZERO,
            least: None,
            rto: config.rto_initial,
            rto_min: config.rto_min,
            rto_max: config.rto_max,
        }
    }

    /// Takes a round trip measured on a packet that was sent once (Karn's rule, RFC 6298 §3).
    pub(crate) fn on_sample(&mut self, rtt: Duration) {
        self.least = Some(self.least.map_or(rtt, |least| least.min(rtt)));
        let smoothed = match self.smoothed {
            // §2.2
            None => {
                self.variation = rtt / 2;
                rtt
            }
            // §2.3, alpha = 1/8, beta = 1/4
            Some(smoothed) => {
                self.variation = (self.variation * 3 + smoothed.abs_diff(rtt)) / 4;
                (smoothed * 7 + rtt) / 8
            }
        };
        self.smoothed = Some(smoothed);
        self.rto = (smoothed + self.variation * 4).clamp(self.rto_min, self.rto_max);
    }

    /// RFC 6298 §5.5.
    pub(crate) fn back_off(&mut self) {
        self.rto = (self.rto * 2).min(self.rto_max);
    }

    pub(crate) fn rto(&self) -> Duration {
        self.rto
    }

    pub(crate) fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// The least round trip seen; zero before the first.
    pub(crate) fn least(&self) -> Duration {
        self.least.unwrap_or_default()
    }
}
