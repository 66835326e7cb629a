//! The device's loop: line, protocol machine, model, and the state file that the world may look at.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use autoglm_protocol::{
    Config, Device, DeviceEvent, Fault, FaultCode, Instant, LinkKind, RequestId, Value,
};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::signal::unix::{SignalKind, signal};

use super::line::Line;
use super::model::{Model, read, unknown};
use super::noise::Noise;

/// How often the simulated world moves on.
const TICK: Duration = Duration::from_secs(1);

/// How a device is run.
#[derive(Debug)]
pub struct Options {
    /// Where its state is written for the world to see; nowhere when `None`.
    pub state: Option<PathBuf>,
    /// Time that each command takes.
    pub delay: Duration,
    /// An action that always fails.
    pub fails: Option<String>,
    /// An event that it raises again and again.
    pub counting: Option<Counting>,
    /// The cable.
    pub noise: Noise,
    /// Its power-up identity.
    pub boot_id: u32,
}

/// An event with a running number, from 1. A number is used up only when the connection has taken the event, so that a gap at the
/// other end is an event that was lost on the way.
#[derive(Debug)]
pub struct Counting {
    /// Its name.
    pub event: String,
    /// Time between two.
    pub every: Duration,
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
/// When the line or the state file fails.
pub async fn serve(
    mut line: Line,
    description: &str,
    model: &mut dyn Model,
    mut options: Options,
) -> anyhow::Result<()> {
    let origin = tokio::time::Instant::now();
    let clock =
        || Instant::from_micros(u64::try_from(origin.elapsed().as_micros()).unwrap_or(u64::MAX));
    let mut device = Device::new(
        Config::default(),
        LinkKind::Stream,
        options.boot_id,
        1,
        description.as_bytes(),
    );
    let mut terminate = signal(SignalKind::terminate())?;
    let mut tick = tokio::time::interval(TICK);
    let mut working: Option<Working> = None;
    let mut executed: u64 = 0;
    let mut told = model.properties();
    let mut counted: i64 = 0;
    let mut count = options.counting.as_ref().map(|counting| {
        let mut interval = tokio::time::interval(counting.every);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        interval
    });
    let mut input = [0u8; 4096];
    publish(&options, &told, executed, None)?;

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
                        publish(&options, &model.properties(), executed, Some(&action))?;
                        working = Some(Working {
                            id,
                            action,
                            input,
                            done_at,
                        });
                    }
                }
                DeviceEvent::Connected { .. } => eprintln!("host connected"),
                DeviceEvent::Lost { reason } => eprintln!("host lost: {reason}"),
                DeviceEvent::Cancel { .. } | DeviceEvent::TimeSync { .. } => {}
                DeviceEvent::IncompatibleVersion { theirs } => {
                    eprintln!("the host speaks protocol {theirs}")
                }
            }
        }
        if working
            .as_ref()
            .is_some_and(|work| work.done_at <= tokio::time::Instant::now())
            && let Some(work) = working.take()
        {
            let result = if options.fails.as_deref() == Some(work.action.as_str()) {
                Err(Fault::new(FaultCode::Failed, "the relay is stuck"))
            } else {
                executed += 1;
                model.invoke(&work.action, &work.input)
            };
            // The world sees the new state before the host hears of it: who reads the answer may look at once.
            publish(&options, &model.properties(), executed, None)?;
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

        let mut output = Vec::new();
        while device.poll_transmit(clock(), &mut output) {}
        options.noise.spoil(&mut output);
        if !output.is_empty() {
            line.stream
                .write_all(&output)
                .await
                .context("the line failed")?;
        }
        let timeout = device
            .poll_timeout()
            .map(|at| origin + Duration::from_micros(at.as_micros()));
        tokio::select! {
            count = line.stream.read(&mut input) => {
                let mut bytes = input[..count.context("the line failed")?].to_vec();
                anyhow::ensure!(!bytes.is_empty(), "the line is gone");
                options.noise.spoil(&mut bytes);
                device.handle_input(clock(), &bytes);
            }
            () = sleep_until(timeout) => device.handle_timeout(clock()),
            () = sleep_until(working.as_ref().map(|work| work.done_at)) => {}
            () = next_tick(&mut count) => if let Some(counting) = &options.counting
                && device.event(clock(), &counting.event, Value::Int(counted + 1)).is_ok() {
                counted += 1;
            },
            _ = tick.tick() => {
                model.pass(TICK.as_secs_f64());
                publish(&options, &model.properties(), executed, working.as_ref().map(|work| work.action.as_str()))?;
            }
            _ = terminate.recv() => return Ok(()),
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

async fn next_tick(interval: &mut Option<tokio::time::Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Writes the state file in one step, so that a reader never sees half of it: properties, how many actions were executed
/// since power-up, and which one is being worked on.
fn publish(
    options: &Options,
    properties: &[(&'static str, Value)],
    executed: u64,
    working: Option<&str>,
) -> anyhow::Result<()> {
    let Some(path) = &options.state else {
        return Ok(());
    };
    let mut state = serde_json::Map::new();
    for (name, value) in properties {
        let value = match value {
            Value::Bool(truth) => json!(truth),
            Value::Int(number) => json!(number),
            Value::Float(number) => json!(number),
            Value::Text(text) => json!(text),
            other => json!(format!("{other:?}")),
        };
        state.insert((*name).to_owned(), value);
    }
    state.insert("executed".to_owned(), json!(executed));
    state.insert("working".to_owned(), json!(working));
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, serde_json::to_vec(&state)?)
        .and_then(|()| std::fs::rename(&fresh, path))
        .with_context(|| format!("cannot write {}", path.display()))
}
