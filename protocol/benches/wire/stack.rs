//! Two whole machines: windows, acknowledgements, reassembly, events, and sealing where there is a key.

use autoglm_protocol::{
    Config, Device, Host, HostEvent, Instant, LinkKind, SecretKey, Security, Value,
};

use super::Contender;

pub(crate) struct Stack {
    name: &'static str,
    host: Host,
    device: Device,
    line: Vec<u8>,
}

impl Stack {
    pub(crate) fn clear() -> Self {
        Self::new("ours: whole machines", Security::None, Security::None)
    }

    pub(crate) fn secure() -> Self {
        let end = |seed| Security::Psk {
            key: SecretKey::new([1; 32]),
            seed: SecretKey::new([seed; 32]),
        };
        Self::new("ours: whole machines, sealed", end(2), end(3))
    }

    fn new(name: &'static str, host: Security, device: Security) -> Self {
        // One segment a message, as with the others.
        let config = Config {
            stream_mtu: 8_192,
            ..Config::default()
        };
        let link = LinkKind::Stream;
        let mut stack = Self {
            name,
            host: Host::with_security(config.clone(), link, 1, 0, host),
            device: Device::with_security(config, link, 2, 0, b"{}", device),
            line: Vec::new(),
        };
        while stack.pass() > 0 {}
        let connected = stack.host.poll_event();
        assert!(matches!(connected, Some(HostEvent::Connected { .. })));
        stack
    }

    /// Passes what both ends have to send; gives how many bytes that was.
    fn pass(&mut self) -> usize {
        let (now, mut bytes) = (Instant::ZERO, 0);
        while self.device.poll_transmit(now, &mut self.line) {
            self.host.handle_input(now, &self.line);
            bytes += self.line.len();
            self.line.clear();
        }
        while self.host.poll_transmit(now, &mut self.line) {
            self.device.handle_input(now, &self.line);
            bytes += self.line.len();
            self.line.clear();
        }
        while self.device.poll_event().is_some() {}
        bytes
    }
}

impl Contender for Stack {
    fn name(&self) -> &'static str {
        self.name
    }

    fn carry(&mut self, payload: &[u8]) -> usize {
        self.device
            .event(Instant::ZERO, "sample", payload)
            .expect("there is room");
        let bytes = self.pass();
        let event = self.host.poll_event().expect("an event");
        let HostEvent::Event {
            data: Value::Bytes(data),
            ..
        } = &event
        else {
            panic!("another event")
        };
        assert_eq!(data.len(), payload.len());
        self.host.recycle(event);
        bytes
    }
}
