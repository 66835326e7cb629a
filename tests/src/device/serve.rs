//! The device's loop: ways to it, protocol machine, model, and the state file that the world may look at.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use autoglm_protocol::{
    Config, Device, DeviceEvent, Fault, FaultCode, Instant, RequestId, Security, Value,
};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::inbox::{self, Inbox};
use super::model::{Model, read, unknown};
use super::noise::Noise;
use super::ways::{Arrival, Ways};

/// How often the simulated world moves on.
const TICK: Duration = Duration::from_secs(1);

/// How a device is run.
#[derive(Debug)]
pub struct Options {
    /// Where its state is written for the world to see; nowhere when `None`.
    pub state: Option<PathBuf>,
    /// Where each executed action is noted, a line of JSON each; nowhere when `None`. It outlives the device's power-ups.
    pub executions: Option<PathBuf>,
    /// Time that each command takes.
    pub delay: Duration,
    /// An action that always fails.
    pub fails: Option<String>,
    /// The cable.
    pub noise: Noise,
    /// Its power-up identity.
    pub boot_id: u32,
    /// How it protects its connection.
    pub security: Security,
    /// How long it keeps an interrupted connection.
    pub resume: Duration,
    /// How often it raises the event `tick` with a growing number; never when `None`.
    pub tick: Option<Duration>,
}

/// What the device counts since power-up, for the world to compare.
#[derive(Debug, Default)]
struct Counts {
    /// Actions carried out.
    executed: u64,
    /// `tick` events that its machine took for sending.
    ticks: i64,
    /// Connections, those that resumed another not counted.
    connections: u64,
    /// What was carried to it.
    inbox: Inbox,
}

/// A command that the device is carrying out.
struct Working {
    id: RequestId,
    action: String,
    input: Value,
    done_at: tokio::time::Instant,
}

/// Serves until told to stop.
///
/// # Errors
/// When its only way or the state file fails.
pub async fn serve(
    mut ways: Ways,
    description: &str,
    model: &mut dyn Model,
    mut options: Options,
) -> anyhow::Result<()> {
    let origin = tokio::time::Instant::now();
    let clock =
        || Instant::from_micros(u64::try_from(origin.elapsed().as_micros()).unwrap_or(u64::MAX));
    let config = Config {
        resume_window: options.resume,
        transfer_bytes_max: inbox::BYTES_MAX,
        ..Config::default()
    };
    let mut device = Device::with_security(
        config,
        ways.kind(),
        options.boot_id,
        1,
        description.as_bytes(),
        options.security.clone(),
    );
    let mut terminate = signal(SignalKind::terminate())?;
    let mut tick = tokio::time::interval(TICK);
    let mut working: Option<Working> = None;
    let mut counts = Counts::default();
    let mut next_event = options.tick.map(|pace| origin + pace);
    let mut told = model.properties();
    publish(&options, &told, &counts, None)?;

    loop {
        while let Some(event) = device.poll_event() {
            let now = clock();
            match event {
                DeviceEvent::Read { id, property } => device
                    .respond(now, id, read(model, &property))
                    .unwrap_or(()),
                DeviceEvent::Write { id, property, .. } => device
                    .respond(now, id, Err(unknown(&property)))
                    .unwrap_or(()),
                DeviceEvent::Invoke {
                    id, action, input, ..
                } => {
                    if working.is_some() {
                        let busy = Fault::new(FaultCode::Busy, "one thing at a time");
                        device.respond(now, id, Err(busy)).unwrap_or(());
                    } else {
                        let done_at = tokio::time::Instant::now() + options.delay;
                        publish(&options, &model.properties(), &counts, Some(&action))?;
                        working = Some(Working {
                            id,
                            action,
                            input,
                            done_at,
                        });
                    }
                }
                DeviceEvent::Connected { .. } => {
                    eprintln!("host connected");
                    counts.connections += 1;
                }
                DeviceEvent::Lost { reason } => eprintln!("host lost: {reason}"),
                DeviceEvent::Cancel { .. } | DeviceEvent::TimeSync { .. } => {}
                DeviceEvent::IncompatibleVersion { theirs } => {
                    eprintln!("the host speaks protocol {theirs}")
                }
            }
        }
        let complete = counts.inbox.complete;
        counts.inbox.advance(clock(), &mut device);
        if counts.inbox.complete != complete {
            publish(
                &options,
                &model.properties(),
                &counts,
                working.as_ref().map(|work| work.action.as_str()),
            )?;
        }
        if working
            .as_ref()
            .is_some_and(|work| work.done_at <= tokio::time::Instant::now())
            && let Some(work) = working.take()
        {
            let result = if options.fails.as_deref() == Some(work.action.as_str()) {
                Err(Fault::new(FaultCode::Failed, "the relay is stuck"))
            } else {
                counts.executed += 1;
                note_execution(&options, &work)?;
                model.invoke(&work.action, &work.input)
            };
            // The world sees the new state before the host hears of it: who reads the answer may look at once.
            publish(&options, &model.properties(), &counts, None)?;
            device.respond(clock(), work.id, result).unwrap_or(());
        }
        for (property, value) in model.properties() {
            if !told.contains(&(property, value.clone())) {
                device
                    .property_changed(clock(), property, value)
                    .unwrap_or(());
            }
        }
        told = model.properties();

        if let (Some(at), Some(pace)) = (next_event, options.tick)
            && at <= tokio::time::Instant::now()
        {
            // Only what the machine took counts: without a connection, or room, there is nobody to tell.
            let number = Value::Int(counts.ticks);
            if device.event(clock(), "tick", number).is_ok() {
                counts.ticks += 1;
            }
            next_event = Some(at.max(tokio::time::Instant::now()) + pace);
        }

        if ways.has_room() {
            let mut output = Vec::new();
            if ways.kind().is_stream() {
                while output.len() < 4096 && device.poll_transmit(clock(), &mut output) {}
                options.noise.spoil(&mut output);
            } else {
                device.poll_transmit(clock(), &mut output);
            }
            ways.send(output);
        }
        let timeout = device
            .poll_timeout()
            .map(|at| origin + Duration::from_micros(at.as_micros()));
        tokio::select! {
            arrival = ways.turn() => match arrival.context("nobody can reach the device any more")? {
                Arrival::Bytes(mut bytes) => {
                    if ways.kind().is_stream() {
                        options.noise.spoil(&mut bytes);
                    }
                    device.handle_input(clock(), &bytes);
                }
                Arrival::Moved(link, bytes) => {
                    eprintln!("going on over {link:?}");
                    device.change_link(clock(), link);
                    if !bytes.is_empty() {
                        device.handle_input(clock(), &bytes);
                    }
                }
                Arrival::Nothing => {}
            },
            () = sleep_until(next_event) => {}
            () = sleep_until(timeout) => device.handle_timeout(clock()),
            () = sleep_until(working.as_ref().map(|work| work.done_at)) => {}
            _ = tick.tick() => {
                model.pass(TICK.as_secs_f64());
                publish(&options, &model.properties(), &counts, working.as_ref().map(|work| work.action.as_str()))?;
            }
            _ = terminate.recv() => return Ok(()),
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Adds a line to the file of executions, so that who asked can be held against what was done, and how often.
fn note_execution(options: &Options, work: &Working) -> anyhow::Result<()> {
    let Some(path) = &options.executions else {
        return Ok(());
    };
    let line = json!({"action": work.action, "input": plain(&work.input)});
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    std::io::Write::write_all(&mut file, format!("{line}\n").as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))
}

/// A value as the world reads it.
fn plain(value: &Value) -> serde_json::Value {
    match value {
        Value::Bool(truth) => json!(truth),
        Value::Int(number) => json!(number),
        Value::Float(number) => json!(number),
        Value::Text(text) => json!(text),
        Value::Map(members) => members
            .iter()
            .map(|(name, value)| (name.clone(), plain(value)))
            .collect(),
        other => json!(format!("{other:?}")),
    }
}

/// Writes the state file in one step, so that a reader never sees half of it: properties, what was counted since power-up, and
/// which action is being worked on.
fn publish(
    options: &Options,
    properties: &[(&'static str, Value)],
    counts: &Counts,
    working: Option<&str>,
) -> anyhow::Result<()> {
    let Some(path) = &options.state else {
        return Ok(());
    };
    let mut state = serde_json::Map::new();
    for (name, value) in properties {
        state.insert((*name).to_owned(), plain(value));
    }
    state.insert("executed".to_owned(), json!(counts.executed));
    state.insert("ticks".to_owned(), json!(counts.ticks));
    state.insert("connections".to_owned(), json!(counts.connections));
    state.insert("carried_bytes".to_owned(), json!(counts.inbox.bytes));
    state.insert("offers".to_owned(), json!(counts.inbox.offers));
    state.insert("complete".to_owned(), json!(counts.inbox.complete));
    state.insert("working".to_owned(), json!(working));
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, serde_json::to_vec(&state)?)
        .and_then(|()| std::fs::rename(&fresh, path))
        .with_context(|| format!("cannot write {}", path.display()))
}
