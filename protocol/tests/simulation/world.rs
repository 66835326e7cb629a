//! A link with faults and two clocks that step; everything in it follows from one seed.

use std::collections::BTreeMap;
use std::time::Duration;

use autoglm_protocol::{Config, Device, Host, Instant, LinkKind, SecretKey, Security};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// What a seed's link is like.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) kind: LinkKind,
    /// Which ends were told that the link loses nothing and keeps the order. Both are only where it does.
    pub(crate) is_trusted_by: [bool; 2],
    pub(crate) loss: f64,
    pub(crate) duplication: f64,
    /// Streams only; packet links check themselves.
    pub(crate) corruption: f64,
    pub(crate) delay: Duration,
    /// Packet links only: added at random, so that packets overtake each other.
    pub(crate) jitter: Duration,
    pub(crate) bytes_per_second: Option<u64>,
    /// How much the driver lets wait on the line.
    pub(crate) buffered: Duration,
    /// From when to when nothing passes.
    pub(crate) cuts: Vec<(Instant, Instant)>,
    /// When, at which end, and how far a clock jumps ahead.
    pub(crate) steps: Vec<(Instant, usize, Duration)>,
    /// When both ends go on to which other link.
    pub(crate) moves: Vec<(Instant, LinkKind)>,
}

impl Link {
    fn draw(rng: &mut StdRng) -> (Self, usize) {
        let is_stream = rng.random_bool(0.5);
        let mtu = match is_stream {
            true => *[64, 128, 512, 1024].choose(rng).expect("some"),
            false => *[20, 33, 64, 244, 1200, 65_536].choose(rng).expect("some"),
        };
        let millis = |rng: &mut StdRng, max: u64| Duration::from_millis(rng.random_range(0..=max));
        let mut cuts = Vec::new();
        let mut steps = Vec::new();
        if rng.random_bool(0.4) {
            for _ in 0..rng.random_range(1..=3) {
                let from = Instant::from_millis(rng.random_range(0..30_000));
                cuts.push((from, from + millis(rng, 45_000)));
            }
        }
        if rng.random_bool(0.3) {
            let at = Instant::from_millis(rng.random_range(0..20_000));
            steps.push((at, rng.random_range(0..2), millis(rng, 60_000)));
        }
        let bytes_per_second = *[None, Some(960), Some(11_520), Some(92_160)]
            .choose(rng)
            .expect("some");
        let mut link = Self {
            is_trusted_by: *[[false, false], [false, false], [true, false], [false, true]]
                .choose(rng)
                .expect("some"),
            kind: match is_stream {
                true => LinkKind::Stream,
                false => LinkKind::Datagram { mtu },
            },
            loss: *[0.0, 0.01, 0.05, 0.2, 0.3].choose(rng).expect("some"),
            duplication: *[0.0, 0.02, 0.2].choose(rng).expect("some"),
            corruption: match is_stream {
                true => *[0.0, 0.01, 0.1].choose(rng).expect("some"),
                false => 0.0,
            },
            delay: millis(rng, 200),
            jitter: match !is_stream && rng.random_bool(0.5) {
                true => millis(rng, 200),
                false => Duration::ZERO,
            },
            bytes_per_second,
            buffered: *[
                Duration::ZERO,
                Duration::from_millis(500),
                Duration::from_secs(5),
            ]
            .choose(rng)
            .expect("some"),
            cuts,
            steps,
            moves: Vec::new(),
        };
        if rng.random_bool(0.2) {
            link = Self {
                is_trusted_by: [true, rng.random_bool(0.9)],
                loss: 0.0,
                duplication: 0.0,
                corruption: 0.0,
                jitter: Duration::ZERO,
                cuts: Vec::new(),
                ..link
            };
        }
        (link, mtu)
    }

    /// The link as an end was told of it.
    fn as_told_to(&self, end: usize) -> LinkKind {
        match self.kind {
            LinkKind::Stream if self.is_trusted_by[end] => LinkKind::ReliableStream,
            LinkKind::Datagram { mtu } if self.is_trusted_by[end] => {
                LinkKind::ReliableDatagram { mtu }
            }
            kind => kind,
        }
    }

    /// The chance that a frame passes.
    pub(crate) fn passes(&self) -> f64 {
        (1.0 - self.loss) * (1.0 - self.corruption)
    }

    /// When the last cut and the last step are over.
    pub(crate) fn calm_from(&self) -> Instant {
        let cuts = self.cuts.iter().map(|(_, to)| *to);
        let steps = self.steps.iter().map(|(at, ..)| *at);
        let moves = self.moves.iter().map(|(at, _)| *at);
        cuts.chain(steps).chain(moves).max().unwrap_or_default()
    }

    fn is_cut(&self, at: Instant) -> bool {
        self.cuts
            .iter()
            .any(|(from, to)| (*from..*to).contains(&at))
    }
}

pub(crate) const HOST: usize = 0;
pub(crate) const DEVICE: usize = 1;

pub(crate) struct World {
    pub(crate) link: Link,
    pub(crate) config: Config,
    pub(crate) mtu: usize,
    pub(crate) host: Host,
    pub(crate) device: Device,
    pub(crate) now: Instant,
    pub(crate) rng: StdRng,
    pub(crate) turns: u64,
    /// How far each end's clock is ahead of `now`.
    ahead: [Duration; 2],
    in_flight: BTreeMap<(Instant, u64), (usize, Vec<u8>)>,
    line_free_at: [Instant; 2],
    serial: u64,
}

impl World {
    pub(crate) fn new(seed: u64, document: impl FnOnce(&mut StdRng) -> Vec<u8>) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut link, mtu) = Link::draw(&mut rng);
        let mut config = Config {
            stream_mtu: mtu,
            receive_window: *[4, 8, 32, 64].choose(&mut rng).expect("some"),
            max_message_log2: rng.random_range(9..=13),
            transfer_bytes_max: 8_000,
            ..Config::default()
        };
        let document = document(&mut rng);
        let mut mtu = mtu;
        if rng.random_bool(0.5) {
            config.resume_window = Duration::from_secs(1_000);
            for _ in 0..rng.random_range(0..4) {
                let at = Instant::from_millis(rng.random_range(0..20_000));
                let other = match rng.random_range(0..3) {
                    0 => LinkKind::Stream,
                    1 => LinkKind::Datagram { mtu: 20 },
                    _ => LinkKind::Datagram { mtu: 244 },
                };
                if let LinkKind::Datagram { mtu: other } = other {
                    mtu = mtu.min(other);
                }
                link.moves.push((at, other));
            }
            link.moves.sort_by_key(|(at, _)| *at);
        }
        let is_secure = rng.random_bool(0.3);
        let security = |seed| match is_secure {
            false => Security::None,
            true => Security::Psk {
                key: SecretKey::new([1; 32]),
                seed: SecretKey::new([seed; 32]),
            },
        };
        let clock = |rng: &mut StdRng| Duration::from_secs(rng.random_range(0..1_000_000));
        Self {
            host: Host::with_security(
                config.clone(),
                link.as_told_to(HOST),
                rng.random(),
                1,
                security(1),
            ),
            device: Device::with_security(
                config.clone(),
                link.as_told_to(DEVICE),
                rng.random(),
                1,
                &document,
                security(2),
            ),
            now: Instant::from_millis(1),
            ahead: [clock(&mut rng), clock(&mut rng)],
            link,
            config,
            mtu,
            rng,
            turns: 0,
            in_flight: BTreeMap::new(),
            line_free_at: [Instant::ZERO; 2],
            serial: 0,
        }
    }

    /// An end's own time.
    pub(crate) fn clock(&self, end: usize) -> Instant {
        self.now + self.ahead[end]
    }

    /// Sends what the line takes now.
    pub(crate) fn transmit(&mut self) {
        for end in [HOST, DEVICE] {
            while self.line_free_at[end] <= self.now + self.link.buffered {
                let mut bytes = Vec::new();
                let clock = self.clock(end);
                let has_sent = match end {
                    HOST => self.host.poll_transmit(clock, &mut bytes),
                    _ => self.device.poll_transmit(clock, &mut bytes),
                };
                if !has_sent {
                    break;
                }
                self.put_on_line(end, bytes);
            }
        }
    }

    /// Lets the next thing happen.
    pub(crate) fn step(&mut self) {
        self.turns += 1;
        let arrival = self.in_flight.keys().next().map(|(at, _)| *at);
        let timeouts = [self.host.poll_timeout(), self.device.poll_timeout()];
        let due = [HOST, DEVICE].into_iter().filter_map(|end| {
            let ahead = Instant::ZERO + self.ahead[end];
            timeouts[end].map(|at| Instant::ZERO + (at - ahead))
        });
        let line = self
            .line_free_at
            .iter()
            .copied()
            .filter(|at| *at > self.now + self.link.buffered);
        let room = line.map(|at| Instant::ZERO + (at - (Instant::ZERO + self.link.buffered)));
        let clock_step = self.link.steps.first().map(|(at, ..)| *at);
        let link_move = self.link.moves.first().map(|(at, _)| *at);
        let next = arrival
            .into_iter()
            .chain(due)
            .chain(room)
            .chain(clock_step)
            .chain(link_move)
            .min();
        self.now = self
            .now
            .max(next.expect("an open connection waits for something"));
        if let Some(&(at, end, ahead)) = self.link.steps.first()
            && at <= self.now
        {
            self.link.steps.remove(0);
            self.ahead[end] += ahead;
        }
        if let Some(&(at, kind)) = self.link.moves.first()
            && at <= self.now
        {
            self.link.moves.remove(0);
            self.link.kind = kind;
            self.in_flight.clear();
            self.line_free_at = [Instant::ZERO; 2];
            let told = [HOST, DEVICE].map(|end| self.link.as_told_to(end));
            self.host.change_link(self.clock(HOST), told[HOST]);
            self.device.change_link(self.clock(DEVICE), told[DEVICE]);
        } else if arrival.is_some_and(|at| at <= self.now) {
            let (_, (from, bytes)) = self.in_flight.pop_first().expect("just seen");
            self.deliver(from, &bytes);
        }
        self.host.handle_timeout(self.clock(HOST));
        self.device.handle_timeout(self.clock(DEVICE));
    }

    fn deliver(&mut self, from: usize, bytes: &[u8]) {
        let at = match self.link.kind.is_stream() {
            true => self.rng.random_range(0..=bytes.len()),
            false => bytes.len(),
        };
        let clock = self.clock(1 - from);
        for part in [&bytes[..at], &bytes[at..]] {
            match from {
                _ if part.is_empty() => {}
                HOST => self.device.handle_input(clock, part),
                _ => self.host.handle_input(clock, part),
            }
        }
    }

    fn put_on_line(&mut self, from: usize, mut bytes: Vec<u8>) {
        let mut departs = self.now;
        if let Some(rate) = self.link.bytes_per_second {
            let takes = Duration::from_micros(bytes.len() as u64 * 1_000_000 / rate);
            departs = departs.max(self.line_free_at[from]) + takes;
            self.line_free_at[from] = departs;
        }
        if self.rng.random_bool(self.link.loss) || self.link.is_cut(departs) {
            return;
        }
        let is_stream = self.link.kind.is_stream();
        if is_stream && self.rng.random_bool(self.link.corruption) {
            let at = self.rng.random_range(0..bytes.len());
            match self.rng.random_range(0..3) {
                0 => bytes[at] ^= self.rng.random_range(1..=255u8),
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, self.rng.random()),
            }
        }
        let copies = 1 + u32::from(self.rng.random_bool(self.link.duplication));
        for _ in 0..copies {
            let jitter = match is_stream {
                true => Duration::ZERO,
                false => self.link.jitter.mul_f64(self.rng.random()),
            };
            self.serial += 1;
            let key = (departs + self.link.delay + jitter, self.serial);
            self.in_flight.insert(key, (from, bytes.clone()));
        }
    }
}
