//! Round-trip estimation and the retransmission time-out, by RFC 6298.

use core::time::Duration;

use super::Config;

/// How often the time-out is doubled at most. RFC 6298 §5.5 doubles it without end for the sake of a shared network; on one hop
/// silence is noise or a cut, and a packet that is tried too seldom lets a noisy connection pass for a lost one.
const BACK_OFFS_MAX: u32 = 2;

/// RFC 6298 §2: SRTT, RTTVAR and RTO. Invariants: `rto_min <= rto <= rto_max`, `back_offs <= BACK_OFFS_MAX`.
#[derive(Debug)]
pub(crate) struct RttEstimator {
    smoothed: Option<Duration>,
    variation: Duration,
    least: Option<Duration>,
    rto: Duration,
    back_offs: u32,
    /// The largest packet that a round trip was measured on.
    measured_bytes: usize,
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
            back_offs: 0,
            measured_bytes: usize::MAX,
            rto_min: config.rto_min,
            rto_max: config.rto_max,
        }
    }

    /// Takes a round trip measured on a packet of `bytes` that was sent once (Karn's rule, RFC 6298 §3).
    ///
    /// A sample of a packet far larger than all before begins the estimate anew: on a slow line a round trip is
    /// transmission time, which grows with the packet.
    pub(crate) fn on_sample(&mut self, rtt: Duration, bytes: usize) {
        self.least = Some(self.least.map_or(rtt, |least| least.min(rtt)));
        if self.smoothed.is_none() || bytes > self.measured_bytes.saturating_mul(2) {
            self.smoothed = None;
            self.measured_bytes = 0;
        }
        self.measured_bytes = self.measured_bytes.max(bytes);
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
        self.back_offs = 0;
        self.rto = (smoothed + self.variation * 4).clamp(self.rto_min, self.rto_max);
    }

    /// Takes a bound before the first sample: an answer of `bytes` came which may be to any of several packets, the first of them sent
    /// `rtt_max` ago. That is no sample, but the first time-out need not be longer than one sample of that length gives (§2.2).
    pub(crate) fn on_bound(&mut self, rtt_max: Duration, bytes: usize) {
        let rto = rtt_max.saturating_mul(3).max(self.rto_min);
        if self.smoothed.is_none() && rto < self.rto {
            self.rto = rto;
            self.measured_bytes = bytes;
        }
    }

    /// RFC 6298 §5.5.
    pub(crate) fn back_off(&mut self) {
        self.back_offs = (self.back_offs + 1).min(BACK_OFFS_MAX);
    }

    /// The time-out of a packet of `bytes`. One larger than any measured is given as many times longer: were the round trip all
    /// transmission time, it would take so long.
    pub(crate) fn rto(&self, bytes: usize) -> Duration {
        let times = bytes.div_ceil(self.measured_bytes.max(1)).max(1);
        let times = u32::try_from(times)
            .unwrap_or(u32::MAX)
            .saturating_mul(1 << self.back_offs);
        self.rto.saturating_mul(times).min(self.rto_max)
    }

    pub(crate) fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// The least round trip seen; zero before the first.
    pub(crate) fn least(&self) -> Duration {
        self.least.unwrap_or_default()
    }
}
