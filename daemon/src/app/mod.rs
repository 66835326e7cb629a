//! The daemon put together: the only module that knows every other, and that nobody imports.
//!
//! Start: store, inference (models load in the background), registry, router, doors, links, READY: sinks before sources. Stop: links and
//! doors take nothing more in, commands and answers in progress drain, inference stops, the store commits and closes. After
//! the grace period stragglers are named and left to the end of the process.
//!
//! [`run`] is the whole order; [`tasks`] how it stops, [`inference`] what the engine is given, [`transports`] by what devices are
//! reached, [`storage`] the store's life.

mod inference;
mod storage;
mod tasks;
mod transports;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use autoglm_drivers::link::Opener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::tasks::Tasks;
use crate::bluetooth::Bluetooth;
use crate::config::{Bus, Config};
use crate::control::dbus::service::{Door, DoorState};
use crate::control::fleet::reporter::REPORTS;
use crate::control::fleet::service::{FleetDoor, FleetParts};
use crate::control::metrics;
use crate::foreign;
use crate::inference::Inference;
use crate::inference::upstream::Dispatcher;
use crate::link::adapters::Adapters;
use crate::link::board::{LinkBoard, all_tried};
use crate::link::memory::Memory;
use crate::link::supervisor::{Supervisor, Surroundings};
use crate::notify;
use crate::router::command::Commands;
use crate::router::comprehension::comprehension;
use crate::router::conversation::Conversations;
use crate::router::speech::Speech;
use crate::session::{Retention, Sessions};
use crate::status::{FleetStatus, StatusSource};
use crate::store::ledger::Ledger;
use crate::things::registry::{DeviceName, registry};
use crate::understanding::catalogue::Catalogue;
use crate::understanding::wording::Wording;

/// READY waits so long for the message bus; then it is sent all the same, with the status line saying what is missing.
const BUS_PATIENCE: Duration = Duration::from_secs(10);
/// Fleet commands wait so long for the links to be tried for the first time: a device on a slow line introduces itself within a
/// second, and one that is silent must not hold up the others.
const FIRST_TRY: Duration = Duration::from_secs(5);

/// Runs the daemon until `stop` is cancelled.
///
/// # Errors
/// When it cannot start: the state directory is in use or cannot be made, or the wording file is not usable.
pub async fn run(config: Config, own_uid: u32, stop: CancellationToken) -> anyhow::Result<()> {
    let boot_id: u32 = rand::random();
    let wording = Arc::new(wording(&config)?);
    let store = storage::open(&config).await?;
    let ledger = Ledger::new(store.handle());
    storage::recover(&ledger).await;
    let inference = Inference::start(inference::engine(&config, &store));
    let tasks = Tasks::default();

    let (registry, mut registry_task) = registry();
    let reports = config.fleet.as_ref().map(|_| mpsc::channel(REPORTS));
    if let Some((reports, _)) = &reports {
        registry_task = registry_task.reporting_to(reports.clone());
    }
    tasks.owners.spawn(|cancel| registry_task.run(cancel));
    // Before anybody asks for them: who is away is known, and answered for as away.
    let memory = Memory::new(store.handle());
    let names = config.devices.iter().map(|device| &device.name);
    let configured = names.map(|name| DeviceName(name.clone())).collect();
    for (_, known) in memory.recall(&configured).await {
        registry.recall(known.description, known.schemas).await;
    }
    let catalogue = Catalogue::new(Wording::clone(&wording));
    let (comprehension, comprehension_task) =
        comprehension(catalogue, registry.clone(), inference.handle());
    tasks.owners.spawn(|cancel| comprehension_task.run(cancel));
    let retention = Retention {
        turns_max: config.sessions.turns_max,
        sessions_max: config.sessions.sessions_max,
        age_max: config.sessions.age_max,
    };
    let sessions = Sessions::new(store.handle(), retention);
    let understood = comprehension.understood();
    let commands = Commands::new(
        registry.clone(),
        ledger.clone(),
        config.command_deadline,
        tasks.running.clone(),
    );
    let speech = Speech::new(
        wording,
        config.sessions.context_turns,
        config.inference.answer_tokens_max,
    );
    let dispatcher = Dispatcher::new(inference.handle(), inference::elsewhere(&config));
    let conversations = Conversations::new(
        commands.clone(),
        comprehension,
        dispatcher.clone(),
        registry.clone(),
        sessions.clone(),
        speech,
        tasks.running.clone(),
    );

    let board = LinkBoard::new();
    let outbox = config
        .fleet
        .as_ref()
        .map(|fleet| storage::outbox(store.handle(), &fleet.outbox));
    let fleet = match (&config.fleet, &outbox, reports) {
        (Some(fleet), Some(outbox), Some((_, reports))) => {
            let parts = FleetParts {
                outbox: outbox.clone(),
                reports,
                registry: registry.clone(),
                boot_id,
            };
            Some(FleetDoor::connect(
                fleet,
                &config.box_id,
                parts,
                &tasks.owners.tasks,
                tasks.owners.cancel.clone(),
            ))
        }
        _ => None,
    };
    let ttys = transports::serial_ports();
    let radio = transports::device_radio(&config, &tasks.brokers);
    let foreign = foreign::start(
        &config.foreign,
        &config.box_id,
        foreign::Surroundings {
            ttys: ttys.as_ref(),
            registry: &registry,
            store: &store.handle(),
            radio: radio.as_ref(),
        },
        &tasks.owners.tasks,
        &tasks.owners.cancel,
    );
    let status = StatusSource::new(
        &config.box_id,
        store.handle(),
        inference.handle(),
        board.subscribe(),
        registry.clone(),
        understood,
        fleet
            .as_ref()
            .zip(outbox)
            .map(|(door, outbox)| FleetStatus {
                broker: door.state(),
                outbox: outbox.stats(),
            }),
        foreign.sources,
        dispatcher,
    );
    if let Some(address) = config.metrics {
        let status = status.clone();
        tasks
            .sources
            .spawn(|cancel| metrics::serve(address, status, cancel));
    }
    let (door_state, mut door) = watch::channel(DoorState::Starting);
    if config.bus == Bus::Off {
        door_state.send_replace(DoorState::Closed {
            cause: "switched off".to_owned(),
        });
    } else {
        let door = Door {
            bus: config.bus,
            own_uid,
            commands: commands.clone(),
            conversations,
            sessions: sessions.clone(),
            status: status.clone(),
            registry: registry.clone(),
            links: board.subscribe(),
            inference: inference.handle(),
            bluetooth: Bluetooth::new(
                radio.clone(),
                foreign.counters,
                tasks.brokers.tasks.clone(),
                tasks.brokers.cancel.clone(),
            ),
        };
        tasks.sources.spawn(|cancel| door.run(door_state, cancel));
    }
    if let Some(fleet) = fleet {
        // What waited at the broker while we were away comes at once, and would find no device.
        let tried = tokio::time::timeout(
            FIRST_TRY,
            all_tried(board.subscribe(), config.devices.len()),
        );
        let running = tasks.running.clone();
        tasks.sources.spawn(|cancel| async move {
            if cancel.run_until_cancelled(tried).await.is_some() {
                fleet.run(commands, running, cancel).await;
            }
        });
    }
    tasks
        .owners
        .spawn(|cancel| storage::upkeep(store.handle(), ledger, sessions, cancel));
    let opener = Opener::new(transports::device_brokers(&config, &tasks.brokers), radio);
    let around = Surroundings {
        opener: match ttys {
            Some(ttys) => opener.with_ttys(ttys),
            None => opener,
        },
        adapters: Adapters::default(),
        backoff: config.link_backoff,
        registry: registry.clone(),
        board: board.clone(),
        memory,
    };
    for device in config.devices {
        let supervisor = Supervisor::new(device, around.clone());
        tasks.owners.spawn(|cancel| supervisor.run(cancel));
    }

    let _ = tokio::time::timeout(
        BUS_PATIENCE,
        door.wait_for(|state| *state != DoorState::Starting),
    )
    .await;
    notify::ready(&status, &door.borrow().clone());
    tasks
        .owners
        .spawn(|cancel| notify::feed(status, door, store.handle(), cancel));
    tracing::info!(box_id = %config.box_id, version = env!("CARGO_PKG_VERSION"), "ready");

    stop.cancelled().await;
    tracing::info!("stopping");
    notify::stopping();
    tasks.stop(inference).await;
    tokio::task::spawn_blocking(move || store.shutdown())
        .await
        .context("the store did not close")?;
    tracing::info!("stopped");
    Ok(())
}

fn wording(config: &Config) -> anyhow::Result<Wording> {
    match &config.wording {
        None => Ok(Wording::english()),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("{}: cannot read the wording", path.display()))?;
            Wording::parse(&text).with_context(|| format!("{}: not a wording", path.display()))
        }
    }
}
