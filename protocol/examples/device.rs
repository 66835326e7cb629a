//! A lamp on standard input and output: what firmware does, with a thread where firmware has an interrupt.
//!
//! `device [KEY]` speaks in the clear, or by a pre-shared key of 64 hexadecimal digits. Connect it to anything that carries
//! bytes both ways; `tests/python` runs it on a pseudo-terminal. It never reads the protocol's bytes itself. `recorder` beside it is
//! the one to read for transfers, time and going on to another line.

mod terminal;

use std::io::Write;
use std::sync::mpsc;
use std::time::Duration;

use autoglm_protocol::{
    Config, Device, DeviceEvent, Fault, FaultCode, Instant, LinkKind, RequestId, Value,
};

const DESCRIPTION: &[u8] = br#"{"@context":"https://www.w3.org/2022/wot/td/v1.1","id":"urn:dev:example-lamp","title":"Lamp","securityDefinitions":{"none":{"scheme":"nosec"}},"security":"none","properties":{"brightness":{"type":"integer","minimum":0,"maximum":100,"forms":[{"href":"brightness"}]}},"actions":{"fade":{"input":{"type":"integer"},"forms":[{"href":"fade"}]},"echo":{"forms":[{"href":"echo"}]}},"events":{"overheated":{"forms":[{"href":"overheated"}]}}}"#;

/// The lamp itself, which knows nothing of protocols.
struct Lamp {
    brightness: i64,
}

impl Lamp {
    fn set(&mut self, value: &Value) -> Result<Value, Fault> {
        match value {
            Value::Int(level @ 0..=100) => self.brightness = *level,
            Value::Int(_) => return Err(Fault::new(FaultCode::OutOfRange, "0 to 100")),
            _ => return Err(Fault::new(FaultCode::WrongType, "an integer is wanted")),
        }
        Ok(Value::Int(self.brightness))
    }
}

fn main() -> std::io::Result<()> {
    let key = std::env::args().nth(1);
    let mut device = Device::with_security(
        Config::default(),
        LinkKind::Stream,
        u32::from_le_bytes(terminal::random()?),
        0,
        DESCRIPTION,
        terminal::security(key.as_deref())?,
    );
    let mut lamp = Lamp { brightness: 0 };
    let bytes = terminal::bytes_of(std::io::stdin());
    let origin = std::time::Instant::now();
    let now = || Instant::from_micros(origin.elapsed().as_micros() as u64);
    let mut frames = Vec::new();
    loop {
        while let Some(event) = device.poll_event() {
            serve(&mut device, &mut lamp, now(), event);
        }
        while device.poll_transmit(now(), &mut frames) {
            std::io::stdout().write_all(&frames)?;
            frames.clear();
        }
        std::io::stdout().flush()?;
        let pause = device
            .poll_timeout()
            .map_or(Duration::MAX, |at| at.saturating_duration_since(now()));
        match bytes.recv_timeout(pause.min(Duration::from_secs(3600))) {
            Ok(bytes) => device.handle_input(now(), &bytes),
            Err(mpsc::RecvTimeoutError::Timeout) => device.handle_timeout(now()),
            Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

fn serve(device: &mut Device, lamp: &mut Lamp, now: Instant, event: DeviceEvent) {
    let (id, result) = match event {
        DeviceEvent::Read { id, property } if property == "brightness" => {
            (id, Ok(Value::Int(lamp.brightness)))
        }
        DeviceEvent::Write {
            id,
            property,
            value,
        } if property == "brightness" => {
            let result = lamp.set(&value);
            // Whoever observes it is told; without room the next change tells more.
            let _ = device.property_changed(now, &property, Value::Int(lamp.brightness));
            (id, result.map(|_| Value::Null))
        }
        DeviceEvent::Invoke {
            id, action, input, ..
        } => (id, invoke(device, lamp, now, id, &action, input)),
        DeviceEvent::Read { id, .. } | DeviceEvent::Write { id, .. } => {
            (id, Err(Fault::new(FaultCode::UnknownAffordance, "")))
        }
        DeviceEvent::Connected { .. }
        | DeviceEvent::Cancel { .. }
        | DeviceEvent::TimeSync(_)
        | DeviceEvent::IncompatibleVersion { .. } => return,
        DeviceEvent::Lost { reason } => return eprintln!("the host is gone: {reason}"),
    };
    // The request was surfaced a moment ago, so it is running.
    let _ = device.respond(now, id, result);
}

fn invoke(
    device: &mut Device,
    lamp: &mut Lamp,
    now: Instant,
    id: RequestId,
    action: &str,
    input: Value,
) -> Result<Value, Fault> {
    match action {
        "fade" => {
            let _ = device.progress(now, id, Value::Float(0.5));
            let result = lamp.set(&input);
            if lamp.brightness > 90 {
                let _ = device.event(now, "overheated", Value::Int(lamp.brightness));
            }
            result
        }
        "echo" => Ok(input),
        _ => Err(Fault::new(FaultCode::UnknownAffordance, "fade or echo")),
    }
}
