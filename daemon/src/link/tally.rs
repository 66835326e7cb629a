//! What was counted on a device's links, link by link. Pure.

use std::time::{Duration, Instant};

use autoglm_drivers::port::{LinkIndex, LinkQuality};
use autoglm_protocol::Standing;

use super::board::Quality;
use super::quality::Measured;

/// How often the quality of links is shown anew: it costs a copy of the board.
const SHOWN_EVERY: Duration = Duration::from_secs(3);

/// The counts of one device's links.
#[derive(Debug)]
pub struct Tally {
    qualities: Vec<Quality>,
    /// The port's counts when they were taken over last; they begin anew with each use of a link.
    counted: LinkQuality,
    shown: Vec<Quality>,
    shown_at: Option<Instant>,
}

impl Tally {
    /// Nothing was counted on any of `links` links.
    #[must_use]
    pub fn new(links: usize) -> Self {
        Self {
            qualities: vec![Quality::default(); links],
            counted: LinkQuality::default(),
            shown: vec![Quality::default(); links],
            shown_at: None,
        }
    }

    /// Takes over what the port has counted; gives what that says of the link below, if it says anything.
    pub fn on_counted(&mut self, now: LinkQuality, at: Instant) -> Option<(LinkIndex, Measured)> {
        let before = std::mem::replace(&mut self.counted, now);
        let link = now.link?;
        let is_same_use = before.link == Some(link) && now.bytes_sent >= before.bytes_sent;
        let before = match is_same_use {
            true => before,
            false => LinkQuality::default(),
        };
        let quality = self.qualities.get_mut(link.0)?;
        quality.bytes_sent += now.bytes_sent - before.bytes_sent;
        quality.bytes_received += now.bytes_received.saturating_sub(before.bytes_received);
        quality.loss = now.loss().or(quality.loss);
        let rtt = now.rtt.filter(|_| now.standing == Standing::Connected)?;
        quality.rtt = Some(rtt);
        let loss = now.loss().unwrap_or_default();
        Some((link, Measured { rtt, loss, at }))
    }

    /// The qualities to be shown, by link: a little old, so that traffic alone does not make observers busy.
    pub fn shown(&mut self, now: Instant) -> &[Quality] {
        let is_old = |at: Instant| now.saturating_duration_since(at) >= SHOWN_EVERY;
        if self.shown_at.is_none_or(is_old) {
            self.shown.clone_from(&self.qualities);
            self.shown_at = Some(now);
        }
        &self.shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(link: usize, sent: u64, repeated: u64) -> LinkQuality {
        LinkQuality {
            link: Some(LinkIndex(link)),
            standing: Standing::Connected,
            rtt: Some(Duration::from_millis(20)),
            packets: sent,
            repeated,
            bytes_sent: sent * 10,
            bytes_received: sent,
        }
    }

    #[test]
    fn bytes_add_up_over_several_uses_of_a_link() {
        let (mut tally, now) = (Tally::new(2), Instant::now());
        for step in [
            counted(0, 30, 0),
            counted(0, 50, 0),
            counted(1, 10, 0),
            counted(0, 20, 0),
        ] {
            tally.on_counted(step, now);
        }
        let shown = tally.shown(now);
        assert_eq!((shown[0].bytes_sent, shown[0].bytes_received), (700, 70));
        assert_eq!(shown[1].bytes_sent, 100);
    }

    #[test]
    fn loss_is_said_only_of_enough_packets() {
        let (mut tally, now) = (Tally::new(1), Instant::now());
        let (_, measured) = tally.on_counted(counted(0, 5, 1), now).unwrap();
        assert_eq!((measured.loss, tally.shown(now)[0].loss), (0.0, None));
        let (_, measured) = tally.on_counted(counted(0, 40, 10), now).unwrap();
        assert_eq!(measured.loss, 0.25);
        let later = now + SHOWN_EVERY;
        assert_eq!(tally.shown(now)[0].loss, None, "not shown yet");
        assert_eq!(tally.shown(later)[0].loss, Some(0.25));
    }

    #[test]
    fn an_interrupted_connection_measures_nothing() {
        let mut tally = Tally::new(1);
        let interrupted = LinkQuality {
            standing: Standing::Interrupted,
            ..counted(0, 40, 40)
        };
        assert_eq!(tally.on_counted(interrupted, Instant::now()), None);
    }
}
