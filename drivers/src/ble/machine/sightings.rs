//! Who was heard, and when: the only proof that a device is there.
//!
//! BlueZ lists devices of its cache beside those that are present; only an advertisement that arrives proves presence.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::ble::address::{DeviceAddress, Target};

/// How long a device counts as there after it was heard: three times the longest advertising interval (10.24 s).
const FRESH: Duration = Duration::from_secs(30);
/// After so long a silence a device that is heard again counts as having appeared.
const AWAY: Duration = Duration::from_secs(10);
/// Devices remembered; the one silent for longest makes room. A busy place has some hundred.
pub(super) const DEVICES_MAX: usize = 256;

#[derive(Debug)]
struct Sighting {
    heard_at: Option<Instant>,
    name: Option<String>,
    services: Vec<Uuid>,
}

/// All that was heard.
#[derive(Debug, Default)]
pub(super) struct Sightings(BTreeMap<DeviceAddress, Sighting>);

impl Sightings {
    /// Notes a device; says whether it has just appeared.
    pub(super) fn on_heard(
        &mut self,
        now: Instant,
        device: DeviceAddress,
        name: Option<String>,
        services: Vec<Uuid>,
    ) -> bool {
        if !self.0.contains_key(&device) && self.0.len() >= DEVICES_MAX {
            let oldest = self.0.iter().min_by_key(|(_, sighting)| sighting.heard_at);
            if let Some((&oldest, _)) = oldest {
                self.0.remove(&oldest);
            }
        }
        let sighting = self.0.entry(device).or_insert(Sighting {
            heard_at: None,
            name: None,
            services: Vec::new(),
        });
        // An advertisement and its scan response come apart: what one does not say, the other may have.
        sighting.name = name.or(sighting.name.take());
        if !services.is_empty() {
            sighting.services = services;
        }
        let before = sighting.heard_at.replace(now);
        before.is_none_or(|before| now.saturating_duration_since(before) >= AWAY)
    }

    /// A device that fits and is there; one of which `is_taken` only if its address was asked for.
    pub(super) fn find(
        &self,
        now: Instant,
        target: &Target,
        is_taken: impl Fn(DeviceAddress) -> bool,
    ) -> Option<DeviceAddress> {
        let is_fresh = |sighting: &Sighting| {
            sighting
                .heard_at
                .is_some_and(|at| now.saturating_duration_since(at) <= FRESH)
        };
        match target {
            Target::Address(device) => self
                .0
                .get(device)
                .filter(|sighting| is_fresh(sighting))
                .map(|_| *device),
            Target::Name(_) | Target::Service(_) => self
                .0
                .iter()
                .find(|(device, sighting)| {
                    is_fresh(sighting) && fits(sighting, target) && !is_taken(**device)
                })
                .map(|(device, _)| *device),
        }
    }

    /// It may be gone: it must be heard again to count.
    pub(super) fn forget_presence(&mut self, device: DeviceAddress) {
        if let Some(sighting) = self.0.get_mut(&device) {
            sighting.heard_at = None;
        }
    }

    /// All may be gone.
    pub(super) fn forget_presence_of_all(&mut self) {
        for sighting in self.0.values_mut() {
            sighting.heard_at = None;
        }
    }
}

fn fits(sighting: &Sighting, target: &Target) -> bool {
    match target {
        Target::Address(_) => false,
        Target::Name(name) => sighting.name.as_ref() == Some(name),
        Target::Service(service) => sighting.services.contains(service),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(number: u16) -> DeviceAddress {
        let [high, low] = number.to_be_bytes();
        DeviceAddress::from([0xC0, 0, 0, 0, high, low])
    }

    #[test]
    fn a_device_appears_once_until_it_was_away() {
        let mut sightings = Sightings::default();
        let start = Instant::now();
        let mut hear = |at: u64| {
            sightings.on_heard(start + Duration::from_secs(at), device(1), None, Vec::new())
        };
        assert!(hear(0));
        assert!(!hear(5));
        assert!(!hear(14));
        assert!(hear(24));
    }

    #[test]
    fn the_longest_silent_device_makes_room() {
        let mut sightings = Sightings::default();
        let start = Instant::now();
        for number in 0..=DEVICES_MAX as u16 {
            sightings.on_heard(
                start + Duration::from_millis(u64::from(number)),
                device(number),
                None,
                Vec::new(),
            );
        }
        let find = |number| sightings.find(start, &Target::Address(device(number)), |_| false);
        assert_eq!(sightings.0.len(), DEVICES_MAX);
        assert_eq!(find(0), None);
        assert_eq!(find(1), Some(device(1)));
    }

    #[test]
    fn a_name_in_the_scan_response_and_a_service_in_the_advertisement_both_count() {
        let mut sightings = Sightings::default();
        let now = Instant::now();
        let service = Uuid::from_u128(7);
        sightings.on_heard(now, device(1), Some("Lamp".into()), Vec::new());
        sightings.on_heard(now, device(1), None, vec![service]);
        let find = |target| sightings.find(now, &target, |_| false);
        assert_eq!(find(Target::Name("Lamp".into())), Some(device(1)));
        assert_eq!(find(Target::Service(service)), Some(device(1)));
        assert_eq!(find(Target::Name("lamp".into())), None);
    }

    #[test]
    fn what_was_heard_long_ago_is_not_there() {
        let mut sightings = Sightings::default();
        let now = Instant::now();
        sightings.on_heard(now, device(1), None, Vec::new());
        let find = |later| sightings.find(now + later, &Target::Address(device(1)), |_| false);
        assert_eq!(find(FRESH), Some(device(1)));
        assert_eq!(find(FRESH + Duration::from_secs(1)), None);
    }
}
