//! The smallest whole device: a lamp with one property, on standard input and output.

use alloc::vec::Vec;
use core::time::Duration;

#[cfg(feature = "secure")]
use autoglm_protocol::SecretKey;
use autoglm_protocol::{
    Config, Device, DeviceEvent, Fault, FaultCode, Instant, LinkKind, Security, Value,
};

use crate::system;

const DESCRIPTION: &[u8] = br#"{"@context":"https://www.w3.org/2022/wot/td/v1.1","id":"urn:dev:freestanding-lamp","title":"Lamp","securityDefinitions":{"none":{"scheme":"nosec"}},"security":"none","properties":{"brightness":{"type":"integer","minimum":0,"maximum":100,"forms":[{"href":"brightness"}]}}}"#;

/// A real device would have its key from its making, and its seed from a source of randomness.
fn security() -> Security {
    #[cfg(feature = "secure")]
    return Security::Psk {
        key: SecretKey::new([0x42; 32]),
        seed: SecretKey::new(system::random()),
    };
    #[cfg(not(feature = "secure"))]
    Security::None
}

pub(crate) fn run() {
    let now = || Instant::from_micros(system::micros());
    let boot_id = system::micros() as u32;
    let mut device = Device::with_security(
        Config::constrained(),
        LinkKind::Stream,
        boot_id,
        0,
        DESCRIPTION,
        security(),
    );
    let mut brightness = 0;
    let mut out = Vec::new();
    let mut buffer = [0; 256];
    loop {
        while let Some(event) = device.poll_event() {
            let (id, result) = match event {
                DeviceEvent::Read { id, .. } => (id, Ok(Value::Int(brightness))),
                DeviceEvent::Write {
                    id,
                    value: Value::Int(level @ 0..=100),
                    ..
                } => {
                    brightness = level;
                    (id, Ok(Value::Null))
                }
                DeviceEvent::Write { id, .. } => (id, Err(Fault::new(FaultCode::OutOfRange, ""))),
                DeviceEvent::Invoke { id, .. } => {
                    (id, Err(Fault::new(FaultCode::UnknownAffordance, "")))
                }
                _ => continue,
            };
            // The request was surfaced a moment ago, so it is running.
            let _ = device.respond(now(), id, result);
        }
        while device.poll_transmit(now(), &mut out) {
            system::write(&out);
            out.clear();
        }
        let pause = device
            .poll_timeout()
            .map_or(Duration::from_secs(60), |at| at - now());
        if system::wait(pause.as_millis().min(60_000) as i32 + 1) {
            let got = system::read(&mut buffer);
            if got == 0 {
                return;
            }
            device.handle_input(now(), &buffer[..got]);
        }
        device.handle_timeout(now());
    }
}
