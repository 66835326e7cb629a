//! Two whole machines: windows, acknowledgements, reassembly, events, and sealing where there is a key.
//!
//! They are driven as a driver would that gives events back ([`Host::recycle`]), at a time that stands still.

use std::time::Duration;

use autoglm_protocol::{
    Config, Device, DeviceEvent, Host, HostEvent, Instant, LinkKind, Reply, Request, RequestId,
    SecretKey, Security, Value,
};

use super::Contender;

const NOW: Instant = Instant::ZERO;
const DEADLINE: Duration = Duration::from_secs(60);

/// What goes over the line for one thing done.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Exchange {
    Event,
    PropertyChange,
    Read,
    Write,
    Invoke,
}

impl Exchange {
    pub(crate) const ALL: [Self; 5] = [
        Self::Event,
        Self::PropertyChange,
        Self::Read,
        Self::Write,
        Self::Invoke,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Event => "event with 32 bytes",
            Self::PropertyChange => "change of an observed number",
            Self::Read => "read a number",
            Self::Write => "write a number",
            Self::Invoke => "invoke with a number, answered by one",
        }
    }
}

/// The link below and what protects it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Below {
    Stream,
    ReliableStream,
    SealedStream,
}

impl Below {
    pub(crate) const ALL: [Self; 3] = [Self::Stream, Self::ReliableStream, Self::SealedStream];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stream => "ours: whole machines",
            Self::ReliableStream => "ours: whole machines, reliable link",
            Self::SealedStream => "ours: whole machines, sealed",
        }
    }

    fn link(self) -> LinkKind {
        match self {
            Self::Stream | Self::SealedStream => LinkKind::Stream,
            Self::ReliableStream => LinkKind::ReliableStream,
        }
    }

    fn security(self, seed: u8) -> Security {
        match self {
            Self::Stream | Self::ReliableStream => Security::None,
            Self::SealedStream => Security::Psk {
                key: SecretKey::new([1; 32]),
                seed: SecretKey::new([seed; 32]),
            },
        }
    }
}

pub(crate) struct Stack {
    below: Below,
    host: Host,
    device: Device,
    line: Vec<u8>,
    bytes: usize,
    next_id: u64,
    requests: [Request; 3],
}

impl Stack {
    pub(crate) fn new(below: Below) -> Self {
        // One segment a message, as with the others.
        let config = Config {
            stream_mtu: 8_192,
            ..Config::default()
        };
        let link = below.link();
        let (host, device) = (below.security(2), below.security(3));
        let property = String::from("level");
        let number = Value::Int(42);
        let mut stack = Self {
            below,
            host: Host::with_security(config.clone(), link, 1, 0, host),
            device: Device::with_security(config, link, 2, 0, b"{}", device),
            line: Vec::new(),
            bytes: 0,
            next_id: 0,
            requests: [
                Request::Read {
                    property: property.clone(),
                },
                Request::Write {
                    property: property.clone(),
                    value: number.clone(),
                },
                Request::Invoke {
                    action: "dim".into(),
                    input: number,
                },
            ],
        };
        while stack.pass() > 0 {}
        let connected = stack.host.poll_event();
        assert!(matches!(connected, Some(HostEvent::Connected { .. })));
        stack.ask(&Request::Observe { property });
        stack
    }

    /// Does it once; gives the bytes that went over the line, both ways.
    pub(crate) fn exchange(&mut self, exchange: Exchange, payload: &[u8]) -> usize {
        self.bytes = 0;
        match exchange {
            Exchange::Event => {
                let sent = self.device.event(NOW, "sample", payload);
                sent.expect("there is room");
                self.pass();
                let data = self.hear(|event| match event {
                    HostEvent::Event {
                        data: Value::Bytes(data),
                        ..
                    } => Some(data.len()),
                    _ => None,
                });
                assert_eq!(data, payload.len());
            }
            Exchange::PropertyChange => {
                let sent = self.device.property_changed(NOW, "level", Value::Int(7));
                sent.expect("there is room");
                self.pass();
                self.hear(|event| matches!(event, HostEvent::PropertyChanged { .. }).then_some(()));
            }
            Exchange::Read | Exchange::Write | Exchange::Invoke => {
                let which = exchange as usize - Exchange::Read as usize;
                let requests =
                    core::mem::replace(&mut self.requests, [const { Request::Describe }; 3]);
                self.ask(&requests[which]);
                self.requests = requests;
            }
        }
        self.bytes
    }

    fn ask(&mut self, request: &Request) {
        self.next_id += 1;
        let id = RequestId(self.next_id);
        let asked = self.host.request(NOW, id, request, DEADLINE);
        asked.expect("connected and not busy");
        while self.pass() > 0 {}
        self.hear(|event| match event {
            HostEvent::Reply { result, .. } => {
                assert!(matches!(result, Ok(Reply::Value(_) | Reply::Done(_))));
                Some(())
            }
            _ => None,
        });
    }

    /// Takes all events and gives what `wanted` finds in the first of them that has it.
    fn hear<T>(&mut self, wanted: impl Fn(&HostEvent) -> Option<T>) -> T {
        let mut found = None;
        while let Some(event) = self.host.poll_event() {
            found = found.or_else(|| wanted(&event));
            self.host.recycle(event);
        }
        found.expect("the event that was waited for")
    }

    /// Passes what both ends have to send, and answers what the device is asked; gives how many bytes that was.
    fn pass(&mut self) -> usize {
        let before = self.bytes;
        while self.device.poll_transmit(NOW, &mut self.line) {
            self.host.handle_input(NOW, &self.line);
            self.bytes += self.line.len();
            self.line.clear();
        }
        while self.host.poll_transmit(NOW, &mut self.line) {
            self.device.handle_input(NOW, &self.line);
            self.bytes += self.line.len();
            self.line.clear();
        }
        while let Some(event) = self.device.poll_event() {
            if let DeviceEvent::Read { id, .. }
            | DeviceEvent::Write { id, .. }
            | DeviceEvent::Invoke { id, .. } = &event
            {
                let answered = self.device.respond(NOW, *id, Ok(Value::Int(43)));
                answered.expect("it is running");
            }
            self.device.recycle(event);
        }
        self.bytes - before
    }
}

impl Contender for Stack {
    fn name(&self) -> &'static str {
        self.below.name()
    }

    fn carry(&mut self, payload: &[u8]) -> usize {
        self.exchange(Exchange::Event, payload)
    }
}
