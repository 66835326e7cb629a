//! What a link costs: the delay that a message has to expect on it. Pure.
//!
//! `rtt + loss / (1 - loss) * (2 rtt + 100 ms)`: a round trip, and for each repetition that the loss makes likely a time-out, as
//! the protocol sets it (RFC 6298, with its least of 100 ms). A link that was not measured lately has the delay that its class
//! usually has. The classes weigh differently besides, for what the delay does not show.

use std::time::{Duration, Instant};

use autoglm_drivers::link::LinkClass;

/// After so long without use a measurement says nothing more: whoever moved a cable has moved it by then.
const MEASURED_FOR: Duration = Duration::from_secs(120);
/// The protocol's least retransmission time-out.
const RTO_MIN: Duration = Duration::from_millis(100);
/// Loss beyond this counts as this, so that the cost stays finite.
const LOSS_MAX: f64 = 0.95;

/// A measurement of a link in use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// The smoothed round-trip time.
    pub rtt: Duration,
    /// The share of packets that were sent again, 0 to 1.
    pub loss: f64,
    /// When.
    pub at: Instant,
}

impl Measured {
    fn delay(&self) -> Duration {
        let loss = self.loss.clamp(0.0, LOSS_MAX);
        self.rtt + (self.rtt * 2 + RTO_MIN).mul_f64(loss / (1.0 - loss))
    }

    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < MEASURED_FOR
    }
}

/// The cost of a link, to be compared with others'.
#[must_use]
pub fn cost(class: LinkClass, measured: Option<Measured>, now: Instant) -> Duration {
    let delay = match measured.filter(|measured| measured.is_fresh(now)) {
        Some(measured) => measured.delay(),
        None => usual(class),
    };
    delay * weight(class)
}

/// A round trip as it usually is, the peer's delay of acknowledgements (20 ms) included.
fn usual(class: LinkClass) -> Duration {
    match class {
        // One segment of 512 bytes at 115,200 baud takes 45 ms, a short message a tenth of it.
        LinkClass::Serial => Duration::from_millis(30),
        // Two connection intervals of 7.5 to 50 ms (Bluetooth Core 5.4 Vol 6 Part B §4.5.1; phones and BlueZ choose so).
        LinkClass::Ble => Duration::from_millis(80),
        // Two hops and a broker, as likely on a radio as on a wire.
        LinkClass::Mqtt => Duration::from_millis(60),
    }
}

/// A broker is another machine that must run and be paid for, so a line is worth twice its delay.
fn weight(class: LinkClass) -> u32 {
    match class {
        // A radio shares its air and empties batteries, but needs nobody else.
        LinkClass::Serial | LinkClass::Ble => 1,
        LinkClass::Mqtt => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(rtt_ms: u64, loss: f64, at: Instant) -> Option<Measured> {
        let rtt = Duration::from_millis(rtt_ms);
        Some(Measured { rtt, loss, at })
    }

    #[test]
    fn loss_costs_time_outs() {
        let now = Instant::now();
        let clean = cost(LinkClass::Serial, measured(20, 0.0, now), now);
        let half = cost(LinkClass::Serial, measured(20, 0.5, now), now);
        assert_eq!(clean, Duration::from_millis(20));
        assert_eq!(half, Duration::from_millis(20 + 140));
        let all = cost(LinkClass::Serial, measured(20, 1.0, now), now);
        assert!(all > half && all < Duration::from_secs(10), "{all:?}");
    }

    #[test]
    fn an_old_measurement_is_forgotten() {
        let now = Instant::now();
        let later = now + MEASURED_FOR;
        let bad = measured(900, 0.3, now);
        assert!(cost(LinkClass::Serial, bad, now) > cost(LinkClass::Mqtt, None, now));
        assert_eq!(
            cost(LinkClass::Serial, bad, later),
            cost(LinkClass::Serial, None, later)
        );
    }

    #[test]
    fn a_line_is_preferred_to_a_broker_of_the_same_delay() {
        let now = Instant::now();
        let same = measured(25, 0.0, now);
        assert!(cost(LinkClass::Serial, same, now) < cost(LinkClass::Mqtt, same, now));
    }
}
