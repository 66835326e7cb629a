//! Any sequence of operations on two machines, with whatever the line does: no panic, no endless sending, nothing doubled.
#![no_main]

use std::time::Duration;

use autoglm_protocol::transfer::{Offer, TransferDigest, TransferEvent, TransferId, Transfers};
use autoglm_protocol::{
    Config, Device, DeviceEvent, Host, HostEvent, Instant, LinkKind, Request, RequestId, SecretKey,
    Security, Value,
};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};

/// How far unix time is ahead of the machines' clock.
const UNIX_AHEAD: u64 = 1_800_000_000_000_000;

/// What one end offers, and what came of it at the other.
#[derive(Default)]
struct Direction {
    offered: Vec<u8>,
    id: Option<TransferId>,
    next: Option<usize>,
    stored: Vec<u8>,
    completed: bool,
}

impl Direction {
    /// The owner of one machine, which offers `self` and takes `other`.
    fn serve(&mut self, now: Instant, machine: &mut Transfers<'_>, other: &mut Self) {
        while let Some(event) = machine.poll() {
            match event {
                TransferEvent::Offered { id, offer } => {
                    assert_eq!(offer.length as usize, other.offered.len());
                    other.completed = false;
                    let mut stored = TransferDigest::new();
                    stored.update(&other.stored);
                    machine.accept(now, id, stored).expect("just offered");
                }
                TransferEvent::Part { offset, bytes, .. } => {
                    assert_eq!(offset as usize, other.stored.len(), "a gap");
                    other.stored.extend(bytes);
                }
                TransferEvent::Complete { id } => {
                    assert!(!other.completed, "completed twice");
                    assert!(other.stored == other.offered, "another content");
                    other.completed = true;
                    machine.confirm(now, id).expect("just complete");
                }
                TransferEvent::Ended { .. } => {}
                TransferEvent::Wanted { offset, .. } => self.next = Some(offset as usize),
                TransferEvent::Finished { result, .. } => {
                    assert_eq!(result, Ok(()));
                    (self.id, self.next) = (None, None);
                }
                TransferEvent::Interrupted { .. } => (self.id, self.next) = (None, None),
            }
        }
    }

    fn offer(&mut self, now: Instant, machine: &mut Transfers<'_>, length: usize) {
        if self.offered.is_empty() {
            self.offered = (0..length.max(1)).map(|at| (at * 31 / 7) as u8).collect();
        }
        let offer = Offer {
            name: String::from("f"),
            length: self.offered.len() as u32,
            hash: Sha256::digest(&self.offered).into(),
        };
        if let Ok(id) = machine.offer(now, &offer) {
            self.id = Some(id);
        }
    }

    fn write(&mut self, now: Instant, machine: &mut Transfers<'_>) {
        while let (Some(id), Some(next)) = (self.id, self.next)
            && let taken @ 1.. = machine
                .write(now, id, &self.offered[next..])
                .expect("wanted")
        {
            self.next = Some(next + taken);
        }
    }

    fn abort(&mut self, now: Instant, machine: &mut Transfers<'_>) {
        if let Some(id) = self.id.take() {
            machine.abort(now, id);
            self.next = None;
        }
    }
}

struct Pair {
    /// From the host to the device, and from the device to the host.
    down: Direction,
    up: Direction,
    told_time: bool,
    host: Host,
    device: Device,
    now: Instant,
    surfaced: Vec<RequestId>,
    seen: Vec<i64>,
}

fn security(is_wanted: bool, seed: u8) -> Security {
    if !is_wanted {
        return Security::None;
    }
    Security::Psk {
        key: SecretKey::new([1; 32]),
        seed: SecretKey::new([seed; 32]),
    }
}

impl Pair {
    fn drain(&mut self) {
        while let Some(event) = self.device.poll_event() {
            match event {
                DeviceEvent::Invoke { id, input, .. } => {
                    assert!(!self.surfaced.contains(&id), "{id:?} is executed twice");
                    self.surfaced.push(id);
                    self.device
                        .respond(self.now, id, Ok(input))
                        .expect("running");
                }
                DeviceEvent::TimeSync(sample) => {
                    assert!(self.told_time);
                    // Both clocks are `now` here, UNIX_AHEAD apart.
                    let truth = sample.at.as_micros() + UNIX_AHEAD;
                    let error = sample.unix_micros.abs_diff(truth);
                    assert!(error <= sample.uncertainty_micros, "{sample:?}");
                }
                _ => {}
            }
        }
        while let Some(event) = self.host.poll_event() {
            if let HostEvent::Event {
                data: Value::Int(number),
                ..
            } = event
            {
                assert!(
                    self.seen.last().is_none_or(|last| *last < number),
                    "doubled or out of order"
                );
                self.seen.push(number);
            }
        }
        let now = self.now;
        self.up
            .serve(now, &mut self.device.transfers(), &mut self.down);
        self.down
            .serve(now, &mut self.host.transfers(), &mut self.up);
    }

    /// Passes what waits, doing to each frame what the line does.
    fn pass(&mut self, line: &[u8]) {
        let mut faults = line.iter().copied();
        for _ in 0..64 {
            let mut frame = Vec::new();
            let is_from_host = self.host.poll_transmit(self.now, &mut frame);
            if !is_from_host && !self.device.poll_transmit(self.now, &mut frame) {
                return self.drain();
            }
            let fault = faults.next().unwrap_or(0);
            match fault {
                1..=50 => continue,
                51..=100 => {
                    let at = usize::from(fault) * 7 % frame.len();
                    frame[at] ^= fault;
                }
                _ => {}
            }
            for _ in 0..1 + usize::from(fault > 200) {
                match is_from_host {
                    true => self.device.handle_input(self.now, &frame),
                    false => self.host.handle_input(self.now, &frame),
                }
            }
            self.drain();
        }
    }
}

fuzz_target!(|input: (bool, bool, Vec<(u8, u16, Vec<u8>)>)| {
    let (is_secure, resumes, operations) = input;
    let config = Config {
        resume_window: Duration::from_secs(if resumes { 60 } else { 0 }),
        transfer_bytes_max: u32::MAX,
        ..Config::constrained()
    };
    let link = LinkKind::Stream;
    let mut pair = Pair {
        down: Direction::default(),
        up: Direction::default(),
        told_time: false,
        host: Host::with_security(config.clone(), link, 1, 0, security(is_secure, 1)),
        device: Device::with_security(config, link, 2, 0, b"{}", security(is_secure, 2)),
        now: Instant::ZERO,
        surfaced: Vec::new(),
        seen: Vec::new(),
    };
    let mut number = 0;
    for (operation, argument, bytes) in operations {
        number += 1;
        let now = pair.now;
        let id = RequestId(u64::from(argument % 32));
        match operation % 16 {
            0..=3 => pair.pass(&bytes),
            4 => {
                pair.now = now + Duration::from_millis(argument.into());
                pair.host.handle_timeout(pair.now);
                pair.device.handle_timeout(pair.now);
            }
            5 => {
                let (action, input) = (String::from("a"), Value::Bytes(bytes));
                let asked = Request::Invoke { action, input };
                // An id is never given to a second request.
                let id = RequestId(1_000 + number as u64);
                let _ = pair.host.request(now, id, asked, Duration::from_secs(100));
            }
            6 => drop(pair.device.event(now, "e", Value::Int(number))),
            7 => pair.host.cancel(now, id),
            8 => {
                let link = match argument % 3 {
                    0 => LinkKind::Stream,
                    1 => LinkKind::Datagram { mtu: 20 },
                    _ => LinkKind::Datagram { mtu: 244 },
                };
                pair.host.change_link(now, link);
                pair.device.change_link(now, link);
            }
            9 => pair
                .down
                .offer(now, &mut pair.host.transfers(), argument.into()),
            10 => pair
                .up
                .offer(now, &mut pair.device.transfers(), argument.into()),
            11 => {
                pair.down.write(now, &mut pair.host.transfers());
                pair.up.write(now, &mut pair.device.transfers());
            }
            12 => pair.down.abort(now, &mut pair.host.transfers()),
            13 => pair.up.abort(now, &mut pair.device.transfers()),
            _ => {
                pair.told_time = true;
                let _ = pair.host.time_sync(now, now.as_micros() + UNIX_AHEAD);
            }
        }
        pair.drain();
    }
});
