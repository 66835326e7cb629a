//! Two machines and a virtual link between them, in virtual time: everything follows from one seed.
#![allow(dead_code, reason = "each test file uses its part of the pair")]

use std::collections::BTreeMap;
use std::time::Duration;

use autoglm_protocol::{
    Config, Device, DeviceEvent, Fault, FaultCode, Host, HostEvent, Instant, LinkKind, Reply,
    Request, RequestFailure, RequestId, Value,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// What the line does to what is sent on it; each probability is per frame, 0 to 1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Faults {
    pub(crate) loss: f64,
    pub(crate) duplication: f64,
    /// Streams only: a byte of the frame is changed, dropped or inserted.
    pub(crate) corruption: f64,
    pub(crate) delay: Duration,
    /// Added at random to the delay; on datagram links this reorders.
    pub(crate) jitter: Duration,
    /// Streams only: line speed, so that frames queue behind each other.
    pub(crate) bytes_per_second: Option<u64>,
}

impl Faults {
    pub(crate) const NONE: Self = Self {
        loss: 0.0,
        duplication: 0.0,
        corruption: 0.0,
        delay: Duration::from_millis(5),
        jitter: Duration::ZERO,
        bytes_per_second: None,
    };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Host,
    Device,
}

pub(crate) struct Pair {
    pub(crate) host: Host,
    pub(crate) device: Device,
    pub(crate) now: Instant,
    pub(crate) link: LinkKind,
    pub(crate) faults: Faults,
    pub(crate) rng: StdRng,
    pub(crate) host_events: Vec<HostEvent>,
    pub(crate) device_events: Vec<DeviceEvent>,
    /// Every frame or packet handed to the line, with its sender.
    pub(crate) sent: Vec<(End, Vec<u8>)>,
    /// The device answers requests by itself, as a small Thing would.
    pub(crate) answers: bool,
    /// How often each non-idempotent request was executed.
    pub(crate) executed: BTreeMap<RequestId, u32>,
    in_flight: BTreeMap<(Instant, u64), (End, Vec<u8>)>,
    line_free_at: [Instant; 2],
    serial: u64,
}

pub(crate) const DESCRIPTION: &[u8] =
    br#"{"title":"Test lamp","properties":{"brightness":{"type":"integer"}}}"#;

impl Pair {
    pub(crate) fn new(link: LinkKind, faults: Faults, seed: u64) -> Self {
        Self::with_config(link, faults, seed, Config::default())
    }

    pub(crate) fn with_config(link: LinkKind, faults: Faults, seed: u64, config: Config) -> Self {
        Self::with_machines(
            Host::new(config.clone(), link, 0xA0A0_0001, 1),
            Device::new(config, link, 0xD0D0_0001, 1, DESCRIPTION),
            link,
            faults,
            seed,
        )
    }

    pub(crate) fn with_machines(
        host: Host,
        device: Device,
        link: LinkKind,
        faults: Faults,
        seed: u64,
    ) -> Self {
        Self {
            host,
            device,
            now: Instant::from_millis(1),
            link,
            faults,
            rng: StdRng::seed_from_u64(seed),
            host_events: Vec::new(),
            device_events: Vec::new(),
            sent: Vec::new(),
            answers: true,
            executed: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            line_free_at: [Instant::ZERO; 2],
            serial: 0,
        }
    }

    /// Runs until `done` holds, or fails after `limit` of virtual time.
    #[track_caller]
    pub(crate) fn run_until(
        &mut self,
        what: &str,
        limit: Duration,
        mut done: impl FnMut(&mut Self) -> bool,
    ) {
        let end = self.now + limit;
        loop {
            self.drain();
            if done(self) {
                return;
            }
            let more = self.step(end);
            assert!(
                more,
                "{what}: not within {limit:?}; host {:#?}\ndevice {:#?}\nlast host events {:#?}",
                self.host.stats(),
                self.device.stats(),
                self.host_events.iter().rev().take(5).collect::<Vec<_>>()
            );
        }
    }

    /// Runs for `span` of virtual time.
    pub(crate) fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        self.drain();
        while self.step(end) {
            self.drain();
        }
        self.now = end;
    }

    #[track_caller]
    pub(crate) fn connect(&mut self) {
        self.run_until("connect", Duration::from_secs(120), |pair| {
            pair.is_connected()
        });
    }

    pub(crate) fn is_connected(&self) -> bool {
        let change = |event: &&HostEvent| {
            matches!(event, HostEvent::Connected { .. } | HostEvent::Lost { .. })
        };
        matches!(
            self.host_events.iter().rev().find(change),
            Some(HostEvent::Connected { .. })
        )
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, id: u64, request: Request) -> Result<Reply, RequestFailure> {
        let id = RequestId(id);
        let from = self.host_events.len();
        self.host
            .request(self.now, id, request, Duration::from_secs(60))
            .expect("request is taken");
        self.run_until("reply", Duration::from_secs(61), |pair| {
            pair.reply_after(from, id).is_some()
        });
        self.reply_after(from, id).expect("just seen")
    }

    pub(crate) fn reply(&self, id: RequestId) -> Option<Result<Reply, RequestFailure>> {
        self.reply_after(0, id)
    }

    fn reply_after(&self, from: usize, wanted: RequestId) -> Option<Result<Reply, RequestFailure>> {
        self.host_events[from..]
            .iter()
            .find_map(|event| match event {
                HostEvent::Reply { id, result } if *id == wanted => Some(result.clone()),
                _ => None,
            })
    }

    /// Forgets what is on the line.
    pub(crate) fn cut(&mut self) {
        self.in_flight.clear();
    }

    /// Puts raw bytes on the line to `end`'s peer.
    pub(crate) fn inject(&mut self, from: End, bytes: Vec<u8>) {
        self.schedule(from, bytes, self.faults.delay);
    }

    pub(crate) fn drain(&mut self) {
        while let Some(event) = self.host.poll_event() {
            self.host_events.push(event);
        }
        while let Some(event) = self.device.poll_event() {
            if self.answers {
                self.answer(&event);
            }
            self.device_events.push(event);
        }
        let mut out = Vec::new();
        while self.host.poll_transmit(self.now, &mut out) {
            self.transmit(End::Host, std::mem::take(&mut out));
        }
        while self.device.poll_transmit(self.now, &mut out) {
            self.transmit(End::Device, std::mem::take(&mut out));
        }
        // Sending may have produced events.
        while let Some(event) = self.host.poll_event() {
            self.host_events.push(event);
        }
    }

    fn answer(&mut self, event: &DeviceEvent) {
        let (id, result) = match event {
            DeviceEvent::Read { id, property } => {
                (*id, Ok(Value::Text(format!("value of {property}"))))
            }
            DeviceEvent::Write { id, .. } => {
                *self.executed.entry(*id).or_default() += 1;
                (*id, Ok(Value::Null))
            }
            DeviceEvent::Invoke {
                id, action, input, ..
            } => {
                *self.executed.entry(*id).or_default() += 1;
                let known = action == "echo";
                (
                    *id,
                    if known {
                        Ok(input.clone())
                    } else {
                        Err(Fault::new(FaultCode::UnknownAffordance, ""))
                    },
                )
            }
            _ => return,
        };
        self.device
            .respond(self.now, id, result)
            .expect("the request is running");
    }

    fn step(&mut self, end: Instant) -> bool {
        let arrival = self.in_flight.keys().next().map(|(at, _)| *at);
        let timeouts = [self.host.poll_timeout(), self.device.poll_timeout()];
        let Some(next) = arrival
            .into_iter()
            .chain(timeouts.into_iter().flatten())
            .min()
        else {
            return false;
        };
        if next > end {
            return false;
        }
        self.now = self.now.max(next);
        if arrival.is_some_and(|at| at <= self.now) {
            let (_, (from, bytes)) = self.in_flight.pop_first().expect("just seen");
            self.deliver(from, &bytes);
        }
        self.host.handle_timeout(self.now);
        self.device.handle_timeout(self.now);
        true
    }

    fn deliver(&mut self, from: End, bytes: &[u8]) {
        let mut input = |bytes: &[u8]| match from {
            End::Host => self.device.handle_input(self.now, bytes),
            End::Device => self.host.handle_input(self.now, bytes),
        };
        if self.link.is_stream() && bytes.len() > 1 {
            let (head, tail) = bytes.split_at(self.rng.random_range(0..bytes.len()));
            input(head);
            input(tail);
        } else {
            input(bytes);
        }
    }

    fn transmit(&mut self, from: End, mut bytes: Vec<u8>) {
        self.sent.push((from, bytes.clone()));
        if self.rng.random_bool(self.faults.loss) {
            return;
        }
        let is_stream = self.link.is_stream();
        if is_stream && self.rng.random_bool(self.faults.corruption) {
            let at = self.rng.random_range(0..bytes.len());
            match self.rng.random_range(0..3) {
                0 => bytes[at] ^= self.rng.random_range(1..=255u8),
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, self.rng.random()),
            }
        }
        let copies = 1 + u32::from(self.rng.random_bool(self.faults.duplication));
        for _ in 0..copies {
            let jitter = match is_stream {
                true => Duration::ZERO,
                false => self.faults.jitter.mul_f64(self.rng.random()),
            };
            self.schedule(from, bytes.clone(), self.faults.delay + jitter);
        }
    }

    fn schedule(&mut self, from: End, bytes: Vec<u8>, delay: Duration) {
        let free_at = &mut self.line_free_at[from as usize];
        let mut departs = self.now;
        if let Some(rate) = self.faults.bytes_per_second {
            departs = departs.max(*free_at)
                + Duration::from_micros(bytes.len() as u64 * 1_000_000 / rate);
            *free_at = departs;
        }
        self.serial += 1;
        self.in_flight
            .insert((departs + delay, self.serial), (from, bytes));
    }
}
