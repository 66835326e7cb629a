//! A recorder on standard input and output, which keeps what the host gives it and dumps it on demand.
//!
//! `recorder KEY|- [LINE...]` speaks by a pre-shared key of 64 hexadecimal digits, or in the clear. When its line ends it goes on
//! to the next LINE, a terminal's path, and resumes its connection there. `tests/python` runs it on pseudo-terminals.

mod terminal;

use std::fs::File;
use std::io::Write;
use std::sync::mpsc;
use std::time::Duration;

use autoglm_protocol::transfer::{Offer, TransferDigest, TransferEvent, TransferId};
use autoglm_protocol::{
    Config, Device, DeviceEvent, Fault, FaultCode, Instant, LinkKind, TimeSample, Value,
};

const DESCRIPTION: &[u8] = br#"{"@context":"https://www.w3.org/2022/wot/td/v1.1","id":"urn:dev:example-recorder","title":"Recorder","securityDefinitions":{"none":{"scheme":"nosec"}},"security":"none","properties":{"time":{"readOnly":true,"forms":[{"href":"time"}]}},"actions":{"press":{"forms":[{"href":"press"}]},"dump":{"forms":[{"href":"dump"}]}}}"#;

#[derive(Default)]
struct Recorder {
    presses: i64,
    time: Option<TimeSample>,
    tape: Vec<u8>,
    /// The dump that is offered, and how far it is written.
    dump: Option<(TransferId, usize)>,
}

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let key = arguments.next().filter(|key| key != "-");
    let config = Config {
        resume_window: Duration::from_secs(60),
        transfer_bytes_max: 1 << 20,
        ..Config::default()
    };
    let boot_id = u32::from_le_bytes(terminal::random()?);
    let security = terminal::security(key.as_deref())?;
    let link = LinkKind::Stream;
    let mut device = Device::with_security(config, link, boot_id, 0, DESCRIPTION, security);
    let mut recorder = Recorder::default();
    let mut bytes = terminal::bytes_of(std::io::stdin());
    let mut line: Box<dyn Write> = Box::new(std::io::stdout());
    let origin = std::time::Instant::now();
    let now = || Instant::from_micros(origin.elapsed().as_micros() as u64);
    let mut frames = Vec::new();
    loop {
        while let Some(event) = device.poll_event() {
            serve(&mut device, &mut recorder, now(), event);
        }
        carry(&mut device, &mut recorder, now());
        while device.poll_transmit(now(), &mut frames) {
            // A line that is gone is noticed by its reader.
            let _ = line.write_all(&frames).and_then(|()| line.flush());
            frames.clear();
        }
        let pause = device
            .poll_timeout()
            .map_or(Duration::MAX, |at| at.saturating_duration_since(now()));
        match bytes.recv_timeout(pause.min(Duration::from_secs(3600))) {
            Ok(bytes) => device.handle_input(now(), &bytes),
            Err(mpsc::RecvTimeoutError::Timeout) => device.handle_timeout(now()),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let Some(path) = arguments.next() else {
                    return Ok(());
                };
                let next = File::options().read(true).write(true).open(path)?;
                bytes = terminal::bytes_of(next.try_clone()?);
                line = Box::new(next);
                device.change_link(now(), link);
            }
        }
    }
}

fn serve(device: &mut Device, recorder: &mut Recorder, now: Instant, event: DeviceEvent) {
    let (id, result) = match event {
        DeviceEvent::Read { id, property } if property == "time" => (id, time(recorder, now)),
        DeviceEvent::Invoke { id, action, .. } if action == "press" => {
            recorder.presses += 1;
            (id, Ok(Value::Int(recorder.presses)))
        }
        DeviceEvent::Invoke { id, action, .. } if action == "dump" => {
            (id, offer_dump(device, recorder, now))
        }
        DeviceEvent::Read { id, .. }
        | DeviceEvent::Write { id, .. }
        | DeviceEvent::Invoke { id, .. } => (id, Err(Fault::new(FaultCode::UnknownAffordance, ""))),
        DeviceEvent::TimeSync(sample) => {
            recorder.time = Some(sample);
            return;
        }
        DeviceEvent::Lost { reason } => return eprintln!("the host is gone: {reason}"),
        _ => return,
    };
    // The request was surfaced a moment ago, so it is running.
    let _ = device.respond(now, id, result);
}

/// Unix time now and how far it may be wrong, in microseconds.
fn time(recorder: &Recorder, now: Instant) -> Result<Value, Fault> {
    let nobody_told = || Fault::new(FaultCode::NotReady, "nobody told it");
    let sample = recorder.time.ok_or_else(nobody_told)?;
    let parts = [sample.unix_micros_at(now), sample.uncertainty_micros];
    Ok(Value::Array(
        parts.map(|micros| Value::Int(micros as i64)).into(),
    ))
}

fn offer_dump(device: &mut Device, recorder: &mut Recorder, now: Instant) -> Result<Value, Fault> {
    let whole = digest(&recorder.tape);
    let offer = Offer {
        name: "dump".into(),
        length: whole.length(),
        hash: whole.hash(),
    };
    match device.transfers().offer(now, &offer) {
        Ok(id) => {
            recorder.dump = Some((id, recorder.tape.len()));
            Ok(Value::Null)
        }
        Err(error) => Err(Fault::new(FaultCode::Busy, error.to_string())),
    }
}

/// What is too large for a message: a recording comes in, a dump goes out.
fn carry(device: &mut Device, recorder: &mut Recorder, now: Instant) {
    let mut transfers = device.transfers();
    while let Some(event) = transfers.poll() {
        // An answer to what has just ended comes too late, and harms nothing.
        let _ = match event {
            // The tape is not recorded on while it is dumped.
            TransferEvent::Offered { id, offer }
                if offer.name == "recording" && recorder.dump.is_none() =>
            {
                // What is there of an earlier try; without any, all is wanted.
                transfers.accept(now, id, digest(&recorder.tape))
            }
            TransferEvent::Offered { id, .. } => {
                transfers.refuse(now, id, Fault::new(FaultCode::Denied, "recordings only"))
            }
            TransferEvent::Part { offset, bytes, .. } => {
                recorder.tape.truncate(offset as usize);
                recorder.tape.extend(bytes);
                Ok(())
            }
            TransferEvent::Complete { id } => transfers.confirm(now, id),
            TransferEvent::Wanted { id, offset } => {
                recorder.dump = Some((id, offset as usize));
                Ok(())
            }
            TransferEvent::Ended { .. } => Ok(()),
            TransferEvent::Finished { .. } | TransferEvent::Interrupted { .. } => {
                recorder.dump = None;
                Ok(())
            }
        };
    }
    while let Some((id, written)) = &mut recorder.dump
        && let Ok(taken @ 1..) = transfers.write(now, *id, &recorder.tape[*written..])
    {
        *written += taken;
    }
}

fn digest(tape: &[u8]) -> TransferDigest {
    let mut digest = TransferDigest::new();
    digest.update(tape);
    digest
}
