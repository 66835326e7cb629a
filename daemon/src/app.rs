//! The daemon put together: the only module that knows every other, and that nobody imports.
//!
//! Start: store, inference (models load in the background), registry, router, doors, links, READY: sinks before sources. Stop: links and
//! doors take nothing more in, commands and answers in progress drain, inference stops, the store commits and closes. After
//! the grace period stragglers are named and left to the end of the process.

use std::os::unix::fs::DirBuilderExt as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use autoglm_drivers::backoff::Backoff;
use autoglm_drivers::ble::Radio;
use autoglm_drivers::link::{LinkAddress, LinkClass, Opener};
use autoglm_drivers::mqtt::device::{Brokers, End};
use autoglm_drivers::serial::TtyWatch;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bluetooth::Bluetooth;
use crate::config::adapt::AdaptSettings;
use crate::config::providers::PolicySettings;
use crate::config::{Bus, Class, Config, OutboxConfig};
use crate::control::dbus::service::{Door, DoorState};
use crate::control::fleet::reporter::REPORTS;
use crate::control::fleet::service::{FleetDoor, FleetParts};
use crate::foreign;
use crate::inference::adapt::{self, AdaptConfig};
use crate::inference::budget::MemoryLimits;
use crate::inference::chat::SnapshotConfig;
use crate::inference::providers::{Policy, ProvidersConfig, Selector, candidate};
use crate::inference::threads::Threads;
use crate::inference::upstream::{Dispatcher, DispatcherConfig};
use crate::inference::{Inference, InferenceConfig};
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
use crate::store::outbox::{LaneQuota, Limits, Outbox};
use crate::store::verdicts::Verdicts;
use crate::store::{ExportPolicy, Store, StoreConfig, StoreHandle, StoreHealth};
use crate::things::registry::{DeviceName, registry};
use crate::understanding::catalogue::Catalogue;
use crate::understanding::wording::Wording;

/// READY waits so long for the message bus; then it is sent all the same, with the status line saying what is missing.
const BUS_PATIENCE: Duration = Duration::from_secs(10);
/// Fleet commands wait so long for the links to be tried for the first time: a device on a slow line introduces itself within a
/// second, and one that is silent must not hold up the others.
const FIRST_TRY: Duration = Duration::from_secs(5);
/// The doors get so long to stop taking in. The limits on stopping add up to 4.5 s, so that a stop takes under 5 s with the store's last commit.
const CLOSING: Duration = Duration::from_millis(500);
/// Commands and answers in progress get so long to end.
const DRAIN: Duration = Duration::from_millis(2500);
/// Devices and owners get so long; beside them and the devices' brokers, models stop.
const GRACE: Duration = Duration::from_millis(1000);
/// Rests between connections to a broker by which devices are reached: short at first, since devices wait, and jittered, since all
/// boxes of a broker that restarts come back at once.
const BROKER_BACKOFF: Backoff = Backoff {
    min: Duration::from_millis(250),
    max: Duration::from_secs(30),
    healthy_after: Duration::from_secs(60),
};
/// Pace of upkeep: exports, retention, pruning of the ledger.
const UPKEEP: Duration = Duration::from_secs(60);
/// Pace at which a store that cannot be used is tried again: no command is carried out until it is back. Each try may copy the whole
/// store, and what is missing (space, mostly) comes back by hand, so it is not shorter.
const STORE_RETRY: Duration = Duration::from_secs(5);

/// Runs the daemon until `stop` is cancelled.
///
/// # Errors
/// When it cannot start: the state directory is in use or cannot be made, or the wording file is not usable.
pub async fn run(config: Config, own_uid: u32, stop: CancellationToken) -> anyhow::Result<()> {
    let boot_id: u32 = rand::random();
    let wording = Arc::new(wording(&config)?);
    let store = open_store(&config).await?;
    let ledger = Ledger::new(store.handle());
    recover(&ledger).await;
    let inference = Inference::start(InferenceConfig {
        runtime_path: config.inference.runtime.clone(),
        model_dirs: config.inference.model_dirs.clone(),
        embedding: config.inference.embedding.clone(),
        chat: config.inference.chat.clone(),
        vad: config.inference.vad.clone(),
        stt: config.inference.stt.clone(),
        tts: config.inference.tts.clone(),
        espeak_ng: config.inference.espeak_ng.clone(),
        generic: config.inference.generic.clone(),
        context_tokens: config.inference.context_tokens,
        chat_sessions: config.inference.chat_sessions,
        threads: Threads {
            asked: config.inference.threads,
            lent: None,
        },
        snapshots: (config.inference.context_cache_bytes > 0).then(|| SnapshotConfig {
            directory: config.state_dir.join("contexts"),
            bytes_max: config.inference.context_cache_bytes,
            store: store.handle(),
        }),
        providers: providers(&config, &store),
        memory: MemoryLimits {
            bytes_max: config.inference.memory_bytes,
            ..MemoryLimits::default()
        },
        adapt: config.inference.adapt.as_ref().map(adapt),
    });

    // Two trees of tasks: sources and doors stop first, what they started drains, then the owners stop.
    let (sources, owners) = (CancellationToken::new(), CancellationToken::new());
    let (source_tasks, running, owner_tasks) =
        (TaskTracker::new(), TaskTracker::new(), TaskTracker::new());

    let (registry, mut registry_task) = registry();
    let reports = config.fleet.as_ref().map(|_| mpsc::channel(REPORTS));
    if let Some((reports, _)) = &reports {
        registry_task = registry_task.reporting_to(reports.clone());
    }
    owner_tasks.spawn(registry_task.run(owners.clone()));
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
    owner_tasks.spawn(comprehension_task.run(owners.clone()));
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
        running.clone(),
    );
    let speech = Speech::new(
        wording,
        config.sessions.context_turns,
        config.inference.answer_tokens_max,
    );
    let dispatcher = Dispatcher::new(inference.handle(), elsewhere(&config));
    let conversations = Conversations::new(
        commands.clone(),
        comprehension,
        dispatcher.clone(),
        registry.clone(),
        sessions.clone(),
        speech,
        running.clone(),
    );

    let board = LinkBoard::new();
    let outbox = config
        .fleet
        .as_ref()
        .map(|fleet| outbox(store.handle(), &fleet.outbox));
    let fleet = match (&config.fleet, &outbox, reports) {
        (Some(fleet), Some(outbox), Some((_, reports))) => {
            let parts = FleetParts {
                outbox: outbox.clone(),
                reports,
                registry: registry.clone(),
                boot_id,
            };
            let cancel = owners.clone();
            Some(FleetDoor::connect(
                fleet,
                &config.box_id,
                parts,
                &owner_tasks,
                cancel,
            ))
        }
        _ => None,
    };
    let ttys = serial_ports();
    // Devices' brokers and the radio stop after the devices, who take their leave by them.
    let (broker_tasks, brokers) = (TaskTracker::new(), CancellationToken::new());
    let radio = device_radio(&config, &broker_tasks, &brokers);
    // Foreign devices serve what is still running, as links do, so they stop after it has drained.
    let foreign = foreign::start(
        &config.foreign,
        &config.box_id,
        foreign::Surroundings {
            ttys: ttys.as_ref(),
            registry: &registry,
            store: &store.handle(),
            radio: radio.as_ref(),
        },
        &owner_tasks,
        &owners,
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
                broker_tasks.clone(),
                brokers.clone(),
            ),
        };
        source_tasks.spawn(door.run(door_state, sources.clone()));
    }
    if let Some(fleet) = fleet {
        // What waited at the broker while we were away comes at once, and would find no device.
        let tried = tokio::time::timeout(
            FIRST_TRY,
            all_tried(board.subscribe(), config.devices.len()),
        );
        let (running, sources) = (running.clone(), sources.clone());
        source_tasks.spawn(async move {
            if sources.run_until_cancelled(tried).await.is_some() {
                fleet.run(commands, running, sources).await;
            }
        });
    }
    owner_tasks.spawn(upkeep(store.handle(), ledger, sessions, owners.clone()));
    let opener = Opener::new(device_brokers(&config, &broker_tasks, &brokers), radio);
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
        // Devices serve what is still running, so they stop after it has drained.
        owner_tasks.spawn(supervisor.run(owners.clone()));
    }

    let _ = tokio::time::timeout(
        BUS_PATIENCE,
        door.wait_for(|state| *state != DoorState::Starting),
    )
    .await;
    notify::ready(&status, &door.borrow().clone());
    owner_tasks.spawn(notify::feed(status, door, store.handle(), owners.clone()));
    tracing::info!(box_id = %config.box_id, version = env!("CARGO_PKG_VERSION"), "ready");

    stop.cancelled().await;
    tracing::info!("stopping");
    notify::stopping();
    sources.cancel();
    drain("doors", source_tasks, CLOSING).await;
    drain("commands and answers in progress", running, DRAIN).await;
    owners.cancel();
    let devices = async {
        drain("devices and owners", owner_tasks, GRACE).await;
        // Devices take their leave through them.
        brokers.cancel();
        drain("devices' brokers and radio", broker_tasks, CLOSING).await;
    };
    let ((), models) = tokio::join!(devices, inference.stop(GRACE + CLOSING));
    if let Err(stragglers) = models {
        tracing::warn!(?stragglers, "models did not stop in time");
    }
    tokio::task::spawn_blocking(move || store.shutdown())
        .await
        .context("the store did not close")?;
    tracing::info!("stopped");
    Ok(())
}

/// What models run on, as the engine takes it.
fn providers(config: &Config, store: &Store) -> ProvidersConfig {
    let settings = &config.inference.providers;
    let policy = |settings: &PolicySettings| {
        let defaults = match settings.is_required {
            true => Policy::required(),
            false => Policy::default(),
        };
        // The configuration's check lets nothing through that is no selector.
        let picks = |picks: &[String]| -> Vec<Selector> {
            picks.iter().filter_map(|pick| pick.parse().ok()).collect()
        };
        let options = settings.options.iter().map(|(provider, options)| {
            let name = candidate::short(provider).to_ascii_lowercase();
            (name, options.clone())
        });
        Policy {
            wanted: picks(&settings.wanted),
            allow: picks(&settings.allow),
            nodes_min: settings.nodes_min.unwrap_or(defaults.nodes_min),
            tolerance: settings.tolerance.unwrap_or(defaults.tolerance),
            time_max: settings.time_max.unwrap_or(defaults.time_max),
            options: options.collect(),
            ..defaults
        }
    };
    ProvidersConfig {
        dir: settings.dir.clone(),
        cache_dir: config.state_dir.join("compiled"),
        cache_bytes_max: settings.compiled_bytes_max,
        trial_time_max: settings.trial_time_max,
        trial_memory_bytes: settings.trial_memory_bytes,
        program: None,
        policy: policy(&settings.policy),
        policies: settings
            .models
            .iter()
            .map(|(name, settings)| (name.clone(), policy(settings)))
            .collect(),
        verdicts: Some(Verdicts::new(store.handle())),
        fixed: None,
    }
}

/// What strain is, as the engine takes it.
fn adapt(settings: &AdaptSettings) -> AdaptConfig {
    AdaptConfig {
        timing: adapt::Timing {
            rise: settings.rise,
            dwell: settings.dwell,
            dwell_max: settings.dwell_max,
        },
        limits: adapt::Limits {
            cpu_percent: settings.cpu_percent,
            memory_percent: settings.memory_percent,
            zone_c: settings.zone_c,
            slower_times: settings.slower_times,
        },
        measures: adapt::Measures {
            eased_threads: settings.eased_threads,
            strained_threads: settings.strained_threads,
            smaller: settings.smaller_chat.as_deref().map(Into::into),
        },
        ..AdaptConfig::default()
    }
}

/// Who else may answer conversations.
fn elsewhere(config: &Config) -> DispatcherConfig {
    let inference = &config.inference;
    DispatcherConfig {
        chat: inference.chat.clone(),
        upstream: inference.upstreams.get(&inference.chat).cloned(),
        bundled_in: inference
            .is_bundle_upstream_allowed
            .then(|| inference.model_dirs.clone()),
    }
}

/// The outbox with its configured limits.
fn outbox(store: StoreHandle, config: &OutboxConfig) -> Outbox {
    let quota = |class: Class| LaneQuota {
        entries_max: class.entries_max,
        bytes_max: class.bytes_max,
    };
    let limits = Limits {
        results: quota(config.results),
        events: quota(config.events),
        telemetry: quota(config.telemetry_class),
    };
    Outbox::new(store, limits)
}

/// Looks through the commands of the last run. Until that has succeeded, commands are refused and devices still served.
async fn recover(ledger: &Ledger) {
    match ledger.recover().await {
        Ok(interrupted) if interrupted.is_empty() => {}
        Ok(interrupted) => tracing::warn!(
            count = interrupted.len(),
            "commands were running when the daemon stopped; they are marked as interrupted"
        ),
        Err(error) => tracing::error!(%error, "no command is carried out until the store is back"),
    }
}

/// One connection for each broker by which devices are reached.
fn device_brokers(config: &Config, tasks: &TaskTracker, cancel: &CancellationToken) -> Brokers {
    let links = config.devices.iter().flat_map(|device| &device.links);
    let places = links.filter_map(|link| match &link.address {
        LinkAddress::Mqtt { broker, topic } => Some((broker.clone(), topic.clone())),
        LinkAddress::Serial { .. } | LinkAddress::Ble(_) => None,
    });
    Brokers::spawn(
        places,
        End::Box,
        &config.box_id,
        BROKER_BACKOFF,
        tasks,
        cancel,
    )
}

/// What watches the serial ports. Without it they are looked for again and again.
fn serial_ports() -> Option<TtyWatch> {
    TtyWatch::start()
        .inspect_err(|error| tracing::error!(%error, "serial ports cannot be watched"))
        .ok()
}

/// Bluetooth, if a device is reached by it: without one, nothing on the box is asked for it.
fn device_radio(config: &Config, tasks: &TaskTracker, cancel: &CancellationToken) -> Option<Radio> {
    let mut links = config.devices.iter().flat_map(|device| &device.links);
    let is_wanted =
        config.foreign.ble.is_some() || links.any(|link| link.address.class() == LinkClass::Ble);
    is_wanted.then(|| Radio::spawn(tasks, cancel.clone()))
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

async fn open_store(config: &Config) -> anyhow::Result<Store> {
    let directory = config.state_dir.clone();
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory)
        .with_context(|| {
            format!(
                "{}: the state directory cannot be made (box.state_dir)",
                directory.display()
            )
        })?;
    let store = StoreConfig {
        state_directory: directory,
        export: ExportPolicy::default(),
    };
    Ok(tokio::task::spawn_blocking(move || Store::open(store, SystemTime::now())).await??)
}

/// Waits for the tasks; names what did not end.
async fn drain(what: &str, tasks: TaskTracker, grace: Duration) {
    tasks.close();
    if tokio::time::timeout(grace, tasks.wait()).await.is_err() {
        tracing::warn!(
            what,
            count = tasks.len(),
            grace_ms = grace.as_millis() as u64,
            "did not stop in time"
        );
    }
}

/// Exports, retention and pruning, and bringing back a store that could not be used.
async fn upkeep(store: StoreHandle, ledger: Ledger, sessions: Sessions, cancel: CancellationToken) {
    let mut health = store.watch_health();
    let is_away = |health: &StoreHealth| matches!(health, StoreHealth::Unavailable { .. });
    loop {
        let now = SystemTime::now();
        if let Err(error) = store.maintain(now).await {
            tracing::debug!(%error, "the store needs attention");
        }
        let was_away = is_away(&store.health());
        if !was_away {
            recover(&ledger).await;
            if let Err(error) = ledger.settle().await {
                tracing::debug!(%error, "what a failure of the store left could not be put right yet");
            }
            if let Err(error) = ledger.prune(now).await {
                tracing::debug!(%error, "the ledger was not pruned");
            }
            if let Err(error) = sessions.retain(now).await {
                tracing::debug!(%error, "old conversations were not deleted");
            }
        }
        let rest = if was_away { STORE_RETRY } else { UPKEEP };
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(rest) => {}
            // It has just failed: it is tried again at once, and then at its own pace.
            Ok(_) = health.wait_for(is_away), if !was_away => {}
        }
    }
}
