//! What goes on in a world, and what must hold in it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use autoglm_protocol::{DeviceEvent, HostEvent, Reply, Request, RequestFailure, RequestId, Value};
use rand::Rng;

use super::carriage::{self, Carriage};
use super::live_bytes;
use super::timekeeping::Timekeeping;
use super::world::{DEVICE, HOST, World};

const REQUESTS: u64 = 12;
const EVENTS: u64 = 20;
const DESCRIBE: RequestId = RequestId(1_000);
/// Requests that the host has open at a time.
const OPEN_MAX: usize = 6;
const DEADLINE: Duration = Duration::from_secs(100_000);

/// What came of a seed.
#[derive(Debug)]
#[expect(dead_code, reason = "printed")]
pub(crate) struct Outcome {
    world: String,
    took: Duration,
    bound: Duration,
    bytes_peak: usize,
    totals: Totals,
}

/// Sums over seeds.
#[derive(Debug, Default, Clone)]
pub(crate) struct Totals {
    pub(crate) segments: u64,
    pub(crate) retransmissions: u64,
    pub(crate) duplicates: u64,
    pub(crate) lost_connections: u64,
    pub(crate) resumptions: u64,
    /// Worlds whose link both ends trust.
    pub(crate) trusting: u64,
    pub(crate) turns: u64,
    pub(crate) transferred_bytes: u64,
    pub(crate) interrupted_transfers: u64,
    pub(crate) time_samples: u64,
    pub(crate) bytes_peak: usize,
    /// The largest part of its bound that any seed took.
    pub(crate) bound_share: f64,
}

impl Totals {
    pub(crate) fn add(&mut self, outcome: &Outcome) {
        self.merge(&outcome.totals);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.segments += other.segments;
        self.retransmissions += other.retransmissions;
        self.duplicates += other.duplicates;
        self.lost_connections += other.lost_connections;
        self.resumptions += other.resumptions;
        self.trusting += other.trusting;
        self.turns += other.turns;
        self.transferred_bytes += other.transferred_bytes;
        self.interrupted_transfers += other.interrupted_transfers;
        self.time_samples += other.time_samples;
        self.bytes_peak = self.bytes_peak.max(other.bytes_peak);
        self.bound_share = self.bound_share.max(other.bound_share);
    }
}

/// Runs a seed's world to its end; panics where a promise is broken.
pub(crate) fn run(seed: u64) -> Outcome {
    let (mut outcome, bytes_peak) = live_bytes::peak_of(|| {
        let mut play = Play::new(seed);
        let outcome = play.run();
        let limit = play.memory_bound();
        (outcome, limit)
    });
    let limit = outcome.1;
    assert!(
        bytes_peak <= limit,
        "{bytes_peak} bytes held, {limit} allowed"
    );
    outcome.0.bytes_peak = bytes_peak;
    outcome.0.totals.bytes_peak = bytes_peak;
    outcome.0
}

struct Play {
    world: World,
    document: Vec<u8>,
    /// What each request carries.
    inputs: BTreeMap<RequestId, Request>,
    to_ask: VecDeque<RequestId>,
    open: usize,
    answered: BTreeMap<RequestId, u32>,
    /// Requests as the device was told of them.
    surfaced: Vec<RequestId>,
    /// What the events carry, and the next to be raised.
    events: Vec<Value>,
    next_event: usize,
    /// Events accepted since the device last heard of a new connection.
    accepted: VecDeque<usize>,
    seen: Vec<usize>,
    connected: [bool; 2],
    lost: [u64; 2],
    /// Of these, connections that the other end counted as established at the time.
    lost_by_both: u64,
    payload_bytes: usize,
    /// From the host to the device, and from the device to the host.
    down: Carriage,
    up: Carriage,
    time: Timekeeping,
}

impl Play {
    fn new(seed: u64) -> Self {
        let mut document = Vec::new();
        let mut world = World::new(seed, |rng| {
            document = vec![b'x'; rng.random_range(0..4_000)];
            document.clone()
        });
        let limit = (1usize << world.config.max_message_log2) - 64;
        let text = |rng: &mut rand::rngs::StdRng| {
            let size = match rng.random_bool(0.2) {
                true => rng.random_range(0..limit),
                false => rng.random_range(0..100),
            };
            Value::Text("t".repeat(size))
        };
        let mut inputs = BTreeMap::from([(DESCRIBE, Request::Describe)]);
        for id in 0..REQUESTS {
            let input = text(&mut world.rng);
            inputs.insert(
                RequestId(id),
                Request::Invoke {
                    action: "echo".into(),
                    input,
                },
            );
        }
        let events: Vec<_> = (0..EVENTS).map(|_| text(&mut world.rng)).collect();
        let mut carriage = || {
            let rng = &mut world.rng;
            let bytes = match rng.random_range(0..4) {
                0 => 0,
                1 => rng.random_range(1..8_000),
                _ => rng.random_range(1..600),
            };
            Carriage::new((0..bytes).map(|_| rng.random()).collect())
        };
        let (down, up) = (carriage(), carriage());
        let size = |value: &Value| match value {
            Value::Text(text) => text.len(),
            _ => 0,
        };
        let asked = inputs.values().map(|request| match request {
            Request::Invoke { input, .. } => 2 * size(input),
            _ => document.len(),
        });
        Self {
            payload_bytes: asked.sum::<usize>()
                + events.iter().map(size).sum::<usize>()
                + down.bytes()
                + up.bytes(),
            to_ask: inputs.keys().copied().collect(),
            world,
            document,
            inputs,
            open: 0,
            answered: BTreeMap::new(),
            surfaced: Vec::new(),
            events,
            next_event: 0,
            accepted: VecDeque::new(),
            seen: Vec::new(),
            connected: [false; 2],
            lost: [0; 2],
            lost_by_both: 0,
            down,
            up,
            time: Timekeeping::default(),
        }
    }

    /// How long it may take once the link is calm. All of it is arithmetic on the link: noticing that the peer is gone
    /// and finding it again, each frame's time on the line as often as it must be sent, a round trip for each flight, a
    /// time-out for each loss where a flight is too short to tell of losses itself, and one packet's repeats at the
    /// longest time-out.
    fn bound(&self) -> Duration {
        let (world, link) = (&self.world, &self.world.link);
        let tries = 1.0 / (link.passes() * link.passes());
        let message_bytes = (1 << world.config.max_message_log2) - 64;
        let parts = (self.down.bytes() + self.up.bytes()) / message_bytes;
        // Each transfer has an offer and two answers, each exchange of the time three messages.
        let messages = (self.inputs.len() * 2 + self.events.len() + parts + 2 * 4 + 3) as f64;
        let segment_bytes = world.mtu.min(1_024) - 8;
        let segments = messages * 2.0 + self.payload_bytes as f64 / segment_bytes as f64;
        let wire_bytes = self.payload_bytes as f64 + segments * 40.0;
        let on_line = link
            .bytes_per_second
            .map_or(0.0, |rate| wire_bytes / rate as f64);
        let frame_time = link
            .bytes_per_second
            .map_or(0.0, |rate| segment_bytes as f64 / rate as f64);
        let round_trip = 2.0 * (link.delay + link.jitter + link.buffered).as_secs_f64();
        let round_trip = round_trip + 2.0 * frame_time + 0.02;
        // What the narrowest channel may have on its way: the window less the slots kept free, and no more than the pace.
        let window = f64::from(world.config.receive_window);
        let flight = (window - 3.0 * (window / 8.0).max(1.0)).min(4.0);
        let time_out = (5.0 * round_trip).clamp(0.1, 8.0);
        let per_flight = round_trip + 2.0 * time_out * (tries - 1.0);
        let finding = 34.0 + 4.0 * 12.0 * tries + 2.0 * link.buffered.as_secs_f64();
        let transfer = 2.0 * on_line * tries + segments / flight * per_flight;
        Duration::from_secs_f64(finding + transfer + 20.0 * 8.0)
    }

    /// What both ends and the line may hold at most: the stated limits, twice, and what this test itself keeps.
    fn memory_bound(&self) -> usize {
        let (config, world) = (&self.world.config, &self.world);
        let window =
            usize::from(config.receive_window) * world.mtu.min(1 << config.max_message_log2);
        let messages = 8 << config.max_message_log2;
        let machine =
            config.send_queue_bytes + config.receive_backlog_bytes + 2 * window + messages;
        2 * machine + 8 * self.payload_bytes + (1 << 20)
    }

    fn run(&mut self) -> Outcome {
        let bound = self.bound();
        let world = format!("{:?} {:?}", self.world.link, self.world.config);
        let calm_from = self.world.link.calm_from();
        while !self.is_done() {
            self.turn();
            self.world.step();
            assert!(
                self.world.now < calm_from + bound,
                "no end after {bound:?}: to ask {:?}, open {}, answered {:?}, seen {:?} of {:?}, {:?}\n{world}\nhost {:#?}\ndevice {:#?}",
                self.to_ask,
                self.open,
                self.answered.keys(),
                self.seen.len(),
                self.accepted.len(),
                (self.down.is_done(), self.up.is_done(), &self.time),
                self.world.host.stats(),
                self.world.device.stats()
            );
        }
        let took = self.world.now.saturating_duration_since(calm_from);
        self.stay_quiet();
        self.check(&world);
        let (host, device) = (self.world.host.stats(), self.world.device.stats());
        let totals = Totals {
            segments: host.segments_sent + device.segments_sent,
            retransmissions: host.retransmissions + device.retransmissions,
            duplicates: host.duplicates + device.duplicates,
            lost_connections: self.lost[HOST],
            resumptions: host.resumptions,
            trusting: u64::from(self.world.link.is_trusted_by == [true; 2]),
            turns: self.world.turns,
            transferred_bytes: (self.down.bytes() + self.up.bytes()) as u64,
            interrupted_transfers: u64::from(self.down.interruptions + self.up.interruptions),
            time_samples: self.time.samples,
            bytes_peak: 0,
            bound_share: took.as_secs_f64() / bound.as_secs_f64(),
        };
        Outcome {
            world,
            took,
            bound,
            bytes_peak: 0,
            totals,
        }
    }

    fn is_done(&self) -> bool {
        self.answered.len() == self.inputs.len()
            && self.next_event == self.events.len()
            && self.down.is_done()
            && self.up.is_done()
            && self.time.is_done()
            && self
                .accepted
                .iter()
                .all(|number| self.seen.contains(number))
    }

    /// Late copies change nothing, and nobody goes on talking.
    fn stay_quiet(&mut self) {
        let packets = |play: &Self| {
            play.world.host.stats().packets_sent + play.world.device.stats().packets_sent
        };
        let (end, before) = (self.world.now + Duration::from_secs(20), packets(self));
        let in_flight = before.min(400);
        while self.world.now < end {
            self.turn();
            self.world.step();
        }
        let sent = packets(self) - before;
        assert!(sent <= 200 + in_flight, "{sent} packets in 20 idle seconds");
    }

    /// Both ends do what their owners would, and the line takes what it can.
    fn turn(&mut self) {
        while let Some(event) = self.world.device.poll_event() {
            self.on_device_event(event);
        }
        while let Some(event) = self.world.host.poll_event() {
            self.on_host_event(event);
        }
        self.ask();
        self.raise();
        let clocks = [self.world.clock(HOST), self.world.clock(DEVICE)];
        let (host, device) = (&mut self.world.host, &mut self.world.device);
        carriage::serve(clocks[HOST], host.transfers(), &mut self.down, &mut self.up);
        carriage::serve(
            clocks[DEVICE],
            device.transfers(),
            &mut self.up,
            &mut self.down,
        );
        self.time.turn(&mut self.world);
        self.world.transmit();
    }

    fn ask(&mut self) {
        while self.open < OPEN_MAX
            && let Some(&id) = self.to_ask.front()
        {
            let (clock, request) = (self.world.clock(HOST), self.inputs[&id].clone());
            match self.world.host.request(clock, id, request, DEADLINE) {
                Ok(()) => {
                    self.to_ask.pop_front();
                    self.open += 1;
                }
                Err(error) if error.is_retryable() => return,
                Err(error) => panic!("{id:?}: {error}"),
            }
        }
    }

    fn raise(&mut self) {
        while let Some(value) = self.events.get(self.next_event) {
            let data = Value::Array(vec![Value::Int(self.next_event as i64), value.clone()]);
            let clock = self.world.clock(DEVICE);
            if self.world.device.event(clock, "numbered", data).is_err() {
                return;
            }
            self.accepted.push_back(self.next_event);
            self.next_event += 1;
        }
    }

    fn on_device_event(&mut self, event: DeviceEvent) {
        match event {
            DeviceEvent::Invoke { id, input, .. } => {
                self.surfaced.push(id);
                let clock = self.world.clock(DEVICE);
                self.world
                    .device
                    .respond(clock, id, Ok(input))
                    .expect("it is running");
            }
            DeviceEvent::TimeSync(sample) => self.time.on_sample(&self.world, sample),
            DeviceEvent::Connected { .. } => self.connected[DEVICE] = true,
            DeviceEvent::Lost { .. } if self.connected[DEVICE] => {
                self.connected[DEVICE] = false;
                self.lost_by_both += u64::from(self.connected[HOST]);
                self.lost[DEVICE] += 1;
                // What the device's transport had not brought over is gone with the connection.
                self.accepted.clear();
            }
            _ => {}
        }
    }

    fn on_host_event(&mut self, event: HostEvent) {
        match event {
            HostEvent::Reply { id, result } => {
                self.open -= 1;
                match (result, &self.inputs[&id]) {
                    (Err(RequestFailure::ConnectionLost { .. }), _) => self.to_ask.push_back(id),
                    (Ok(Reply::Done(value)), Request::Invoke { input, .. }) if value == *input => {
                        *self.answered.entry(id).or_default() += 1;
                    }
                    // The device could keep no answer of this size over a lost connection; it says so.
                    (Err(RequestFailure::Fault(fault)), _)
                        if fault.code == autoglm_protocol::FaultCode::ResultForgotten
                            && self.lost[DEVICE] > 0 =>
                    {
                        *self.answered.entry(id).or_default() += 1;
                    }
                    (Ok(Reply::Description { document, .. }), Request::Describe)
                        if document == self.document =>
                    {
                        *self.answered.entry(id).or_default() += 1;
                    }
                    (result, _) => panic!("{id:?} ended as {result:?}"),
                }
            }
            HostEvent::Event {
                data: Value::Array(items),
                ..
            } => {
                let Value::Int(number) = items[0] else {
                    panic!("another event: {items:?}")
                };
                assert_eq!(
                    items[1], self.events[number as usize],
                    "event {number} came whole"
                );
                self.seen.push(number as usize);
            }
            HostEvent::Connected { .. } => {
                self.connected[HOST] = true;
                self.time.on_connected();
            }
            HostEvent::Lost { .. } if self.connected[HOST] => {
                self.connected[HOST] = false;
                self.lost_by_both += u64::from(self.connected[DEVICE]);
                self.lost[HOST] += 1;
            }
            _ => {}
        }
    }

    fn check(&self, world: &str) {
        assert!(
            self.seen.is_sorted_by(|a, b| a < b),
            "events once and in order: {:?}\n{world}",
            self.seen
        );
        assert!(
            self.answered.values().all(|count| *count == 1),
            "answers once: {:?}",
            self.answered
        );
        let mut executed = self.surfaced.clone();
        executed.sort_unstable();
        let asked: Vec<_> = self
            .inputs
            .keys()
            .copied()
            .filter(|id| *id != DESCRIBE)
            .collect();
        assert_eq!(executed, asked, "each request executed once\n{world}");
        if !self.world.config.resume_window.is_zero() {
            let lost = self.lost_by_both;
            assert_eq!(lost, 0, "what both ends had is resumed\n{world}");
        }
        if self.world.link.is_trusted_by == [true; 2] {
            let repeats = [self.world.host.stats(), self.world.device.stats()]
                .map(|stats| stats.retransmissions + stats.duplicates + stats.timeouts);
            assert_eq!(repeats, [0; 2], "nothing is repeated\n{world}");
        }
        let was_interrupted = self.lost != [0, 0];
        self.down.check(was_interrupted, world);
        self.up.check(was_interrupted, world);
        if !was_interrupted {
            assert_eq!(self.surfaced, asked, "requests in order\n{world}");
            assert_eq!(
                self.seen.len(),
                self.events.len(),
                "every event arrived\n{world}"
            );
        }
    }
}
