//! A device learns the time within the bound that it is told, however unequal the two ways are and whichever clock steps.

use std::collections::BTreeMap;
use std::time::Duration;

use autoglm_protocol::{
    Config, Device, DeviceEvent, Host, HostEvent, Instant, LinkKind, TimeSample,
};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const HOST: usize = 0;
const DEVICE: usize = 1;

/// A link whose two ways differ, and two clocks that know nothing of each other.
struct World {
    host: Host,
    device: Device,
    /// True time in microseconds.
    now: u64,
    /// What each machine's clock shows at true time 0.
    origin: [u64; 2],
    /// Unix time less the host's own clock.
    unix_ahead: u64,
    /// The greatest delay of each way in microseconds; each packet has its own up to it.
    delay_max: [u64; 2],
    loss: f64,
    rng: StdRng,
    in_flight: BTreeMap<(u64, u64), (usize, Vec<u8>)>,
    serial: u64,
    is_connected: bool,
    samples: Vec<TimeSample>,
}

impl World {
    fn new(seed: u64, delay_max: [u64; 2], loss: f64) -> Self {
        let link = LinkKind::Datagram { mtu: 64 };
        let mut rng = StdRng::seed_from_u64(seed);
        Self {
            host: Host::new(Config::default(), link, 1, 1),
            device: Device::new(Config::default(), link, 2, 1, b"{}"),
            now: 0,
            origin: [rng.random_range(0..1 << 40), rng.random_range(0..1 << 40)],
            unix_ahead: rng.random_range(1 << 50..1 << 51),
            delay_max,
            loss,
            rng,
            in_flight: BTreeMap::new(),
            serial: 0,
            is_connected: false,
            samples: Vec::new(),
        }
    }

    fn clock(&self, end: usize) -> Instant {
        Instant::from_micros(self.now + self.origin[end])
    }

    /// What the host's wall clock shows when the device's clock shows `at`.
    fn unix_at(&self, at: Instant) -> u64 {
        let true_time = at.as_micros() - self.origin[DEVICE];
        true_time + self.origin[HOST] + self.unix_ahead
    }

    fn drain(&mut self) {
        for end in [HOST, DEVICE] {
            let (clock, mut packet) = (self.clock(end), Vec::new());
            while match end {
                HOST => self.host.poll_transmit(clock, &mut packet),
                _ => self.device.poll_transmit(clock, &mut packet),
            } {
                let packet = std::mem::take(&mut packet);
                if self.rng.random_bool(self.loss) {
                    continue;
                }
                let arrives = self.now + self.rng.random_range(0..=self.delay_max[end]);
                self.serial += 1;
                self.in_flight.insert((arrives, self.serial), (end, packet));
            }
        }
        while let Some(event) = self.host.poll_event() {
            self.is_connected |= matches!(event, HostEvent::Connected { .. });
        }
        while let Some(event) = self.device.poll_event() {
            match event {
                DeviceEvent::Lost { reason } => panic!("lost: {reason}"),
                DeviceEvent::TimeSync(sample) => self.samples.push(sample),
                _ => {}
            }
        }
    }

    /// Runs until `done` holds.
    fn run_until(&mut self, done: impl Fn(&Self) -> bool) {
        self.drain();
        while !done(self) {
            let arrival = self.in_flight.keys().next().map(|(at, _)| *at);
            let own = |at: Instant, end: usize| at.as_micros().saturating_sub(self.origin[end]);
            let due = [
                self.host.poll_timeout().map(|at| own(at, HOST)),
                self.device.poll_timeout().map(|at| own(at, DEVICE)),
            ];
            let next = arrival.into_iter().chain(due.into_iter().flatten()).min();
            self.now = self.now.max(next.expect("something is due"));
            assert!(self.now < 3_600_000_000, "no end within an hour");
            if arrival.is_some_and(|at| at <= self.now) {
                let (_, (from, packet)) = self.in_flight.pop_first().expect("just seen");
                match from {
                    HOST => self.device.handle_input(self.clock(DEVICE), &packet),
                    _ => self.host.handle_input(self.clock(HOST), &packet),
                }
            }
            self.host.handle_timeout(self.clock(HOST));
            self.device.handle_timeout(self.clock(DEVICE));
            self.drain();
        }
    }

    fn prompt(&mut self) {
        let clock = self.clock(HOST);
        let unix_micros = clock.as_micros() + self.unix_ahead;
        self.host.time_sync(clock, unix_micros).expect("connected");
    }

    fn connected(seed: u64, delay_max: [u64; 2], loss: f64) -> Self {
        let mut world = Self::new(seed, delay_max, loss);
        world.run_until(|world| world.is_connected);
        world
    }

    fn exchange(&mut self) -> TimeSample {
        let before = self.samples.len();
        self.prompt();
        self.run_until(|world| world.samples.len() > before);
        self.samples[before]
    }
}

fn error_of(sample: TimeSample, truth: u64) -> u64 {
    sample.unix_micros.abs_diff(truth)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_true_time_is_always_within_the_stated_bound(
        seed: u64,
        to_device in 0..2_000_000u64,
        to_host in 0..2_000_000u64,
        loss in 0.0..0.2,
    ) {
        let mut world = World::connected(seed, [to_device, to_host], loss);
        for _ in 0..5 {
            let asked_after = world.now;
            let sample = world.exchange();
            let (error, bound) = (error_of(sample, world.unix_at(sample.at)), sample.uncertainty_micros);
            prop_assert!(error <= bound, "wrong by {} µs, told {} µs", error, bound);
            // And the bound is no wider than the exchange took: half of it, rounded up, and one.
            prop_assert!(bound <= (world.now - asked_after).div_ceil(2) + 1);
            // It is told of another moment as exactly.
            let later = Instant::from_micros(sample.at.as_micros() + 12_345);
            prop_assert!(sample.unix_micros_at(later).abs_diff(world.unix_at(later)) <= bound);
            let sooner = Instant::from_micros(sample.at.as_micros() - 12_345);
            prop_assert!(sample.unix_micros_at(sooner).abs_diff(world.unix_at(sooner)) <= bound);
        }
    }

    #[test]
    fn a_step_of_either_clock_is_within_the_bound_or_told_by_the_next_exchange(
        seed: u64,
        who in 0..3usize,
        step in 1..100_000_000u64,
        is_before_request in any::<bool>(),
    ) {
        let mut world = World::connected(seed, [50_000, 300_000], 0.0);
        world.prompt();
        let heard = world.device.stats().messages_received;
        let asked = world.host.stats().messages_received;
        match is_before_request {
            // The device has been prompted, the host not asked yet.
            true => world.run_until(|world| world.device.stats().messages_received > heard),
            // The host has answered, the device has not heard it.
            false => world.run_until(|world| world.host.stats().messages_received > asked),
        }
        let unix_before = world.unix_ahead + world.origin[HOST];
        match who {
            // A machine that slept: its own clock jumped, and for the host the wall clock with it.
            HOST | DEVICE => world.origin[who] += step,
            // Somebody set the wall clock back.
            _ => {
                world.unix_ahead -= step;
                world.prompt();
            }
        }
        let count = world.samples.len();
        world.run_until(|world| world.samples.len() > count);
        let sample = world.samples[count];
        let true_time = sample.at.as_micros() - world.origin[DEVICE];
        let truths = [true_time + unix_before, world.unix_at(sample.at)];
        let bound = sample.uncertainty_micros;
        prop_assert!(
            truths.iter().any(|truth| error_of(sample, *truth) <= bound),
            "{:?} holds for neither {:?}", sample, truths
        );
        // Let what was prompted twice come to its end.
        let until = world.now + 5_000_000;
        world.run_until(|world| world.now >= until);
        let sample = world.exchange();
        prop_assert!(error_of(sample, world.unix_at(sample.at)) <= sample.uncertainty_micros);
        prop_assert!(sample.uncertainty_micros < 1_000_000, "and precise again: {:?}", sample);
    }
}

#[test]
fn a_short_way_gives_a_narrow_bound_and_every_prompt_one_sample() {
    let mut world = World::connected(1, [1_000, 1_000], 0.0);
    for _ in 0..10 {
        assert!(world.exchange().uncertainty_micros <= 1_001);
    }
    assert_eq!(world.samples.len(), 10);
}

#[test]
fn nobody_is_told_the_time_who_was_not_prompted() {
    let mut world = World::connected(1, [1_000, 1_000], 0.0);
    let until = world.now + Duration::from_secs(100).as_micros() as u64;
    world.run_until(|world| world.now >= until);
    assert_eq!(world.samples, []);
}
