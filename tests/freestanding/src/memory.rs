//! What one connection of the device role costs in memory, measured at its own allocator.

use alloc::string::String;
use alloc::vec::Vec;
use core::mem::size_of;
use core::time::Duration;

use autoglm_protocol::{
    Config, Device, DeviceEvent, Host, HostEvent, Instant, LinkKind, Request, RequestId, SecretKey,
    Security, Value,
};

use crate::{HEAP, system};

/// A host and a device on a perfect line; every byte that the device asks of the heap is its own.
struct Pair {
    now: Instant,
    host: Host,
    device: Device,
    /// Bytes that the device holds, and the most it ever held.
    held: usize,
    held_peak: usize,
    replies: usize,
}

impl Pair {
    fn new(config: Config, link: LinkKind, security: fn(u8) -> Security) -> Self {
        let host = Host::with_security(Config::default(), link, 1, 0, security(1));
        let before = HEAP.count().bytes;
        let device =
            Device::with_security(config, link, 2, 0, b"{\"title\":\"lamp\"}", security(2));
        let held = HEAP.count().bytes - before;
        Self {
            now: Instant::ZERO,
            host,
            device,
            held,
            held_peak: held,
            replies: 0,
        }
    }

    /// Charges what the closure takes and gives back to the device.
    fn charge<T>(&mut self, run: impl FnOnce(&mut Self) -> T) -> T {
        HEAP.reset_peak();
        let before = HEAP.count().bytes;
        let result = run(self);
        self.held_peak = self
            .held_peak
            .max(self.held + HEAP.count().bytes_peak - before);
        self.held = self.held + HEAP.count().bytes - before;
        result
    }

    /// Passes frames both ways until nothing moves, answering what is asked.
    fn settle(&mut self) {
        loop {
            let mut moved = false;
            let mut frame = Vec::with_capacity(2048);
            while self.host.poll_transmit(self.now, &mut frame) {
                self.charge(|pair| {
                    pair.device.handle_input(pair.now, &frame);
                    while let Some(event) = pair.device.poll_event() {
                        if let DeviceEvent::Invoke { id, .. } = event {
                            let _ = pair.device.respond(pair.now, id, Ok(Value::Null));
                        }
                    }
                });
                frame.clear();
                moved = true;
            }
            // The frame's buffer stands for the UART's own and is there before.
            while self.charge(|pair| pair.device.poll_transmit(pair.now, &mut frame)) {
                self.host.handle_input(self.now, &frame);
                frame.clear();
                moved = true;
            }
            while let Some(event) = self.host.poll_event() {
                self.replies += usize::from(matches!(event, HostEvent::Reply { .. }));
            }
            if !moved {
                return;
            }
        }
    }

    fn invoke(&mut self, id: u64, bytes: usize) {
        let input = Value::Text(String::from_utf8(alloc::vec![b'x'; bytes]).expect("ASCII"));
        let request = Request::Invoke {
            action: "echo".into(),
            input,
        };
        self.host
            .request(self.now, RequestId(id), request, Duration::from_secs(5))
            .expect("connected and not busy");
        self.settle();
        // The delayed acknowledgement.
        self.now = self.now + Duration::from_millis(50);
        self.host.handle_timeout(self.now);
        self.charge(|pair| pair.device.handle_timeout(pair.now));
        self.settle();
    }
}

fn print_row(
    name: &str,
    config: Config,
    link: LinkKind,
    security: fn(u8) -> Security,
    large: usize,
) {
    let mut pair = Pair::new(config, link, security);
    let idle = pair.held;
    pair.settle();
    let connected = pair.held;
    for id in 0..200 {
        pair.invoke(id, 32);
    }
    let (busy, busy_peak) = (pair.held, pair.held_peak);
    pair.invoke(1000, large);
    assert_eq!(pair.replies, 201, "every request was answered");
    system::print(format_args!(
        "{name:<34} {:>6} {idle:>8} {connected:>9} {busy:>9} {busy_peak:>9} {large:>6} {:>9}\n",
        size_of::<Device>(),
        pair.held_peak
    ));
}

pub(crate) fn print_table() {
    system::print(format_args!(
        "device role, bytes of RAM (64-bit)   fixed  created connected full-mem. peak 32 B  large peak large\n"
    ));
    let clear = |_| Security::None;
    let psk = |seed| Security::Psk {
        key: SecretKey::new([9; 32]),
        seed: SecretKey::new([seed; 32]),
    };
    let (small, packets) = (Config::constrained, LinkKind::Datagram { mtu: 20 });
    let stream = LinkKind::Stream;
    print_row("constrained, stream", small(), stream, clear, 200);
    print_row("constrained, stream, key", small(), stream, psk, 200);
    print_row(
        "constrained, packets of 20",
        small(),
        packets,
        clear,
        200,
    );
    print_row(
        "constrained, packets of 20, key",
        small(),
        packets,
        psk,
        200,
    );
    print_row(
        "default, stream",
        Config::default(),
        stream,
        clear,
        4096,
    );
    print_row(
        "default, stream, key",
        Config::default(),
        stream,
        psk,
        4096,
    );
}
