//! Any sequence of operations on two machines, with whatever the line does: no panic, no endless sending, nothing doubled.
#![no_main]

use std::time::Duration;

use autoglm_protocol::transfer::{Offer, TransferDigest, TransferId};
use autoglm_protocol::{
    Config, Device, DeviceEvent, Host, HostEvent, Instant, LinkKind, Request, RequestId, SecretKey,
    Security, Value,
};
use libfuzzer_sys::fuzz_target;

struct Pair {
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
            if let DeviceEvent::Invoke { id, input, .. } = event {
                assert!(!self.surfaced.contains(&id), "{id:?} is executed twice");
                self.surfaced.push(id);
                self.device
                    .respond(self.now, id, Ok(input))
                    .expect("running");
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
        while self.device.poll_transfer().is_some() || self.host.poll_transfer().is_some() {}
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
        ..Config::constrained()
    };
    let link = LinkKind::Stream;
    let mut pair = Pair {
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
        let transfer = TransferId(u64::from(argument % 3));
        match operation % 12 {
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
            9 => {
                let (name, length) = (String::from("f"), argument.into());
                let offer = Offer {
                    name,
                    length,
                    hash: [0; 32],
                };
                let _ = pair.host.offer_transfer(now, transfer, &offer);
            }
            10 => {
                let _ = pair
                    .device
                    .accept_transfer(now, transfer, TransferDigest::new());
                let _ = pair.host.write_transfer(now, transfer, &bytes);
            }
            _ => pair.host.abort_transfer(now, transfer),
        }
        pair.drain();
    }
});
