//! Which packets in flight count as lost, told by what arrived after them (RACK, RFC 8985).
//!
//! On a stream one later arrival proves it. A packet link may reorder, so there a packet also gets time: until the order was
//! seen to change, three later arrivals prove a loss as well (RFC 8985 §6.2 step 4); after that only time does.

use core::time::Duration;

use crate::Instant;

use super::LinkKind;

/// RFC 9002 §6.1.1, kPacketThreshold.
const REORDER_PACKETS: u64 = 3;

/// RFC 8985 §6.2 step 4: the reordering window begins at a quarter of the least round trip; a repeat that proves needless
/// doubles it, up to one smoothed round trip. The multiplier ends where that limit has long been reached.
const REORDER_MULTIPLIER_MAX: u32 = 64;

/// A transmission as the detector sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transmission {
    /// Its number, over all packets and repeats.
    pub(crate) number: u64,
    pub(crate) sent_at: Instant,
    /// Whether the packet was sent before.
    pub(crate) is_repeat: bool,
}

#[derive(Debug, Clone, Copy)]
struct Latest {
    number: u64,
    round_trip: Duration,
}

/// What the detector knows of the link.
#[derive(Debug)]
pub(crate) struct LossDetector {
    may_reorder: bool,
    has_reordered: bool,
    multiplier: u32,
    latest: Option<Latest>,
}

/// What is thought of a packet that has not arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Flying,
    /// Lost, unless it arrives before this.
    LostAt(Instant),
    Lost,
}

impl LossDetector {
    pub(crate) fn new(link: LinkKind) -> Self {
        Self {
            may_reorder: !link.is_stream(),
            has_reordered: false,
            multiplier: 1,
            latest: None,
        }
    }

    /// Notes the arrival of a packet by its latest transmission; `least` is the least round trip seen.
    pub(crate) fn on_arrival(&mut self, now: Instant, arrived: Transmission, least: Duration) {
        let round_trip = now.saturating_duration_since(arrived.sent_at);
        if arrived.is_repeat && round_trip < least {
            // RFC 8985 §6.2 step 2: so soon after a repeat it is the original that arrived, so the repeat was needless.
            // It proves nothing about others.
            self.has_reordered |= self.may_reorder;
            self.multiplier = (self.multiplier * 2).min(REORDER_MULTIPLIER_MAX);
            return;
        }
        match self.latest {
            Some(latest) if arrived.number < latest.number => {
                self.has_reordered |= self.may_reorder && !arrived.is_repeat;
            }
            _ => {
                self.latest = Some(Latest {
                    number: arrived.number,
                    round_trip,
                });
            }
        }
    }

    /// What to think of a flying packet now.
    pub(crate) fn judge(
        &self,
        now: Instant,
        flying: Transmission,
        least: Duration,
        smoothed: Duration,
    ) -> Verdict {
        let Some(latest) = self.latest.filter(|latest| flying.number < latest.number) else {
            return Verdict::Flying;
        };
        let is_proved = match self.may_reorder {
            false => true,
            true => !self.has_reordered && flying.number + REORDER_PACKETS <= latest.number,
        };
        if is_proved {
            return Verdict::Lost;
        }
        let patience = (least / 4 * self.multiplier).min(smoothed);
        match flying.sent_at + latest.round_trip.max(smoothed) + patience {
            at if at <= now => Verdict::Lost,
            at => Verdict::LostAt(at),
        }
    }
}
