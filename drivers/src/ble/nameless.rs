//! Devices that were heard and have no name yet: whom to ask BlueZ about again, and when. Pure.
//!
//! A device may say its name in its scan response alone, so whoever hears it in a passive scan (BlueZ's own, between ours) hears
//! it without. The name comes later, and bluez-async 0.8 passes no change of it on.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// When BlueZ is asked again, after the time before. A scan response comes some milliseconds after its advertisement, and
/// most devices advertise at least every second.
const AGAIN: [Duration; 3] = [
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
];
/// Devices that are asked about again. More are not: they are asked about when they are heard again.
const WAITING_MAX: usize = 64;
/// The least time between two questions for one device that is heard again and again.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// The devices, of whatever identity.
#[derive(Debug)]
pub(super) struct Nameless<Id> {
    waiting: VecDeque<(Instant, usize, Id)>,
}

impl<Id> Default for Nameless<Id> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
        }
    }
}

impl<Id: PartialEq> Nameless<Id> {
    /// A device was heard for the first time, without a name.
    pub(super) fn on_heard(&mut self, now: Instant, id: Id) {
        if !self.waiting.iter().any(|(.., known)| *known == id) {
            self.wait(now, 0, id);
        }
    }

    /// When [`Nameless::due`] has something.
    pub(super) fn next(&self) -> Option<Instant> {
        self.waiting.iter().map(|(at, ..)| *at).min()
    }

    /// One that is to be asked about now.
    pub(super) fn due(&mut self, now: Instant) -> Option<(Id, Asked)> {
        let at = self.waiting.iter().position(|(at, ..)| *at <= now)?;
        let (_, asked, id) = self.waiting.remove(at)?;
        Some((id, Asked(asked)))
    }

    /// It still has none.
    pub(super) fn on_still_nameless(&mut self, now: Instant, id: Id, asked: Asked) {
        self.wait(now, asked.0 + 1, id);
    }

    fn wait(&mut self, now: Instant, asked: usize, id: Id) {
        if let Some(pause) = AGAIN.get(asked)
            && self.waiting.len() < WAITING_MAX
        {
            self.waiting.push_back((now + *pause, asked, id));
        }
    }
}

/// How often it was asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked(usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_without_a_name_is_asked_about_three_times_and_then_left() {
        let (mut nameless, mut now) = (Nameless::default(), Instant::now());
        let began = now;
        nameless.on_heard(now, 7);
        nameless.on_heard(now, 7);
        let mut times = Vec::new();
        while let Some(next) = nameless.next() {
            assert_eq!(nameless.due(now), None, "not before its time");
            now = next;
            let (id, asked) = nameless.due(now).unwrap();
            times.push((now - began).as_millis());
            nameless.on_still_nameless(now, id, asked);
        }
        assert_eq!(times, [300, 1300, 4300]);
    }

    #[test]
    fn a_crowd_of_nameless_devices_takes_bounded_memory() {
        let (mut nameless, now) = (Nameless::default(), Instant::now());
        for id in 0..10_000 {
            nameless.on_heard(now, id);
        }
        let mut asked = 0;
        while nameless.due(now + AGAIN[0]).is_some() {
            asked += 1;
        }
        assert_eq!(asked, WAITING_MAX);
    }
}
