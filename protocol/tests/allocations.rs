//! In a steady state nothing is allocated for a message, at either end, where the driver gives its events back.
#![expect(unsafe_code, reason = "an allocator cannot be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use autoglm_protocol::{
    Config, Device, DeviceEvent, Host, HostEvent, Instant, LinkKind, Reply, Request, RequestId,
    Value,
};

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes on to the system's allocator; counting touches a thread-local cell that needs no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(block, layout) }
    }
}

struct Pair {
    host: Host,
    device: Device,
    line: Vec<u8>,
    now: Instant,
    heard: usize,
}

impl Pair {
    fn new(link: LinkKind) -> Self {
        let mut pair = Self {
            host: Host::new(Config::default(), link, 1, 0),
            device: Device::new(Config::default(), link, 2, 0, b"{}"),
            line: Vec::new(),
            now: Instant::ZERO,
            heard: 0,
        };
        pair.pass();
        assert_eq!(pair.heard, 1, "connected");
        pair
    }

    /// Passes all that both ends have to send and does what a Thing would, until nothing moves any more.
    fn pass(&mut self) {
        loop {
            let mut is_idle = true;
            while self.host.poll_transmit(self.now, &mut self.line) {
                self.device.handle_input(self.now, &self.line);
                self.line.clear();
                is_idle = false;
            }
            while let Some(event) = self.device.poll_event() {
                if let DeviceEvent::Read { id, .. }
                | DeviceEvent::Write { id, .. }
                | DeviceEvent::Invoke { id, .. } = &event
                {
                    let answered = self.device.respond(self.now, *id, Ok(Value::Int(5)));
                    answered.expect("it is running");
                }
                self.device.recycle(event);
            }
            while self.device.poll_transmit(self.now, &mut self.line) {
                self.host.handle_input(self.now, &self.line);
                self.line.clear();
                is_idle = false;
            }
            while let Some(event) = self.host.poll_event() {
                self.heard += usize::from(!matches!(event, HostEvent::Accepted { .. }));
                if let HostEvent::Reply { result, .. } = &event {
                    assert!(matches!(result, Ok(Reply::Value(_) | Reply::Done(_))));
                }
                self.host.recycle(event);
            }
            if is_idle {
                return;
            }
        }
    }

    /// Time goes on, with the timers that it sets off.
    fn wait(&mut self) {
        self.now = self.now + Duration::from_millis(30);
        self.host.handle_timeout(self.now);
        self.device.handle_timeout(self.now);
        self.pass();
    }
}

#[test]
fn a_steady_state_allocates_nothing() {
    let property = || String::from("level");
    let requests = [
        Request::Read {
            property: property(),
        },
        Request::Write {
            property: property(),
            value: Value::Text("bright".into()),
        },
        Request::Invoke {
            action: "dim".into(),
            input: Value::Int(7),
        },
    ];
    let observe = Request::Observe {
        property: property(),
    };
    let deadline = Duration::from_secs(60);
    for link in [
        LinkKind::Stream,
        LinkKind::Datagram { mtu: 20 },
        LinkKind::ReliableStream,
    ] {
        let mut pair = Pair::new(link);
        let asked = pair
            .host
            .request(pair.now, RequestId(0), &observe, deadline);
        asked.expect("connected");
        pair.pass();
        let mut before = 0;
        for round in 0..600u64 {
            if round == 400 {
                (before, pair.heard) = (COUNT.get(), 0);
            }
            for (at, request) in requests.iter().enumerate() {
                let id = RequestId(1 + round * 3 + at as u64);
                let asked = pair.host.request(pair.now, id, request, deadline);
                asked.expect("connected and not busy");
                pair.pass();
            }
            let now = pair.now;
            let told = [
                pair.device.property_changed(now, "level", round as i64),
                pair.device.event(now, "sample", &[7; 200][..]),
                pair.device.event(now, "said", "words"),
            ];
            assert_eq!(told, [Ok(()); 3]);
            pair.pass();
            pair.wait();
        }
        let allocated = COUNT.get() - before;
        assert_eq!(pair.heard, 200 * 6, "{link:?}");
        assert_eq!(allocated, 0, "{link:?}");
    }
}
