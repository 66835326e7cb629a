//! A serial line in virtual time: what gets through at which loss, and how long a command waits behind bulk data.
//!
//! The driver is the one that the crate asks for: it fetches a frame when the line takes one. The line carries ten bits a byte,
//! both ways at once, with 1 ms of delay; frames get lost at random in both directions, acknowledgements included.

use std::collections::VecDeque;
use std::time::Duration;

use autoglm_protocol::{
    Config, Device, DeviceEvent, Host, HostEvent, Instant, LinkKind, Request, RequestId, Value,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const BAUDS: [u64; 2] = [115_200, 921_600];
const LOSSES: [f64; 4] = [0.0, 0.01, 0.05, 0.2];
const DELAY: Duration = Duration::from_millis(1);
const PAYLOAD: usize = 256;

struct Direction {
    free_at: Instant,
    /// Frames under way, each with its arrival.
    frames: VecDeque<(Instant, Vec<u8>)>,
    data_frames: u64,
    data_bytes: u64,
}

struct Line {
    host: Host,
    device: Device,
    now: Instant,
    /// To the host, to the device.
    directions: [Direction; 2],
    baud: u64,
    loss: f64,
    rng: StdRng,
}

impl Line {
    fn new(baud: u64, loss: f64, seed: u64, document: &[u8]) -> Self {
        let direction = || Direction {
            free_at: Instant::ZERO,
            frames: VecDeque::new(),
            data_frames: 0,
            data_bytes: 0,
        };
        let mut line = Self {
            host: Host::new(Config::default(), LinkKind::Stream, 1, 0),
            device: Device::new(Config::default(), LinkKind::Stream, 2, 0, document),
            now: Instant::ZERO,
            directions: [direction(), direction()],
            baud,
            loss,
            rng: StdRng::seed_from_u64(seed),
        };
        let mut is_connected = false;
        while !is_connected {
            line.turn();
            while let Some(event) = line.host.poll_event() {
                is_connected |= matches!(event, HostEvent::Connected { .. });
            }
        }
        line
    }

    fn turn(&mut self) {
        for to in 0..2 {
            let direction = &mut self.directions[to];
            if direction.free_at <= self.now {
                let mut frame = Vec::new();
                let has_sent = match to {
                    0 => self.device.poll_transmit(self.now, &mut frame),
                    _ => self.host.poll_transmit(self.now, &mut frame),
                };
                if has_sent {
                    let micros = (frame.len() as u64 * 10_000_000).div_ceil(self.baud);
                    direction.free_at = self.now + Duration::from_micros(micros);
                    if frame.len() > PAYLOAD {
                        direction.data_frames += 1;
                        direction.data_bytes += frame.len() as u64;
                    }
                    if !self.rng.random_bool(self.loss) {
                        direction
                            .frames
                            .push_back((direction.free_at + DELAY, frame));
                    }
                }
            }
        }
        let arrivals = self
            .directions
            .iter()
            .filter_map(|direction| direction.frames.front());
        let next = arrivals
            .map(|(at, _)| *at)
            .chain(self.directions.iter().map(|direction| direction.free_at))
            .filter(|at| *at > self.now)
            .chain(self.host.poll_timeout())
            .chain(self.device.poll_timeout())
            .min()
            .expect("an open connection waits for something");
        self.now = self.now.max(next);
        for to in 0..2 {
            while self.directions[to]
                .frames
                .front()
                .is_some_and(|(at, _)| *at <= self.now)
            {
                let Some((_, frame)) = self.directions[to].frames.pop_front() else {
                    break;
                };
                match to {
                    0 => self.host.handle_input(self.now, &frame),
                    _ => self.device.handle_input(self.now, &frame),
                }
            }
        }
        self.host.handle_timeout(self.now);
        self.device.handle_timeout(self.now);
    }
}

pub(crate) fn print_tables(seconds: u64, reads: usize) {
    println!(
        "\n### Goodput of {PAYLOAD}-byte payloads over a simulated line, {seconds} s of virtual time\n"
    );
    println!("| baud | loss | B/s | bound B/s | of bound | repeats / lost |");
    println!("| ---: | ---: | ---: | ---: | ---: | ---: |");
    for baud in BAUDS {
        for loss in LOSSES {
            print_goodput(baud, loss, seconds);
        }
    }
    println!("\n### A property read while the device sends bulk data without end, {reads} reads\n");
    println!("| baud | loss | p50 ms | p99 ms | one segment, ms |");
    println!("| ---: | ---: | ---: | ---: | ---: |");
    for baud in BAUDS {
        for loss in LOSSES {
            print_latency(baud, loss, reads);
        }
    }
}

fn print_goodput(baud: u64, loss: f64, seconds: u64) {
    let mut line = Line::new(baud, loss, 1, b"{}");
    let from = line.now;
    let (frames, bytes) = (
        line.directions[0].data_frames,
        line.directions[0].data_bytes,
    );
    let end = from + Duration::from_secs(seconds);
    let mut payload = 0u64;
    let data: Vec<u8> = (0..PAYLOAD).map(|at| (at * 167 + 13) as u8).collect();
    while line.now < end {
        while line
            .device
            .event(line.now, "s", Value::Bytes(data.clone()))
            .is_ok()
        {}
        line.turn();
        while let Some(event) = line.host.poll_event() {
            if matches!(event, HostEvent::Event { .. }) {
                payload += PAYLOAD as u64;
            }
        }
    }
    let seconds = line.now.saturating_duration_since(from).as_secs_f64();
    let frames = line.directions[0].data_frames - frames;
    let frame_bytes = (line.directions[0].data_bytes - bytes) as f64 / frames as f64;
    let bound = baud as f64 / 10.0 * (1.0 - loss) * PAYLOAD as f64 / frame_bytes;
    let goodput = payload as f64 / seconds;
    let stats = line.device.stats();
    println!(
        "| {baud} | {:.0} % | {goodput:.0} | {bound:.0} | {:.1} % | {:.2} |",
        loss * 100.0,
        100.0 * goodput / bound,
        stats.retransmissions as f64 / (frames as f64 * loss).max(1.0),
    );
}

fn print_latency(baud: u64, loss: f64, reads: usize) {
    // Descriptions travel on the channel of bulk data; the host asks for the next part as soon as it has one.
    let document = vec![b'd'; 1_000_000];
    let mut line = Line::new(baud, loss, 2, &document);
    let far = Duration::from_secs(1_000_000);
    let (mut describing, mut id) = (0u64, 1_000_000u64);
    let (mut asked_at, mut next_ask) = (None, line.now);
    let mut waits = Vec::new();
    let mut is_described = true;
    while waits.len() < reads {
        if is_described {
            describing += 1;
            is_described = false;
            let id = RequestId(describing);
            line.host
                .request(line.now, id, Request::Describe, far)
                .expect("connected and not busy");
        }
        if asked_at.is_none() && line.now >= next_ask {
            id += 1;
            let property = String::from("level");
            line.host
                .request(line.now, RequestId(id), Request::Read { property }, far)
                .expect("connected and not busy");
            asked_at = Some(line.now);
        }
        line.turn();
        while let Some(event) = line.device.poll_event() {
            if let DeviceEvent::Read { id, .. } = event {
                line.device
                    .respond(line.now, id, Ok(Value::Int(1)))
                    .expect("it is running");
            }
        }
        while let Some(event) = line.host.poll_event() {
            match event {
                HostEvent::Reply { id: done, .. } if done.0 == id => {
                    let asked = asked_at.take().expect("it was asked");
                    waits.push(line.now.saturating_duration_since(asked).as_secs_f64() * 1e3);
                    // At any phase of the bulk data's frames.
                    next_ask =
                        line.now + Duration::from_micros(line.rng.random_range(50_000..400_000));
                }
                HostEvent::Reply { .. } => is_described = true,
                _ => {}
            }
        }
    }
    waits.sort_by(f64::total_cmp);
    let segment = 524.0 * 10_000.0 / baud as f64;
    println!(
        "| {baud} | {:.0} % | {:.1} | {:.1} | {segment:.1} |",
        loss * 100.0,
        waits[waits.len() / 2],
        waits[waits.len() * 99 / 100],
    );
}
