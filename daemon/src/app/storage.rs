//! The store's life in the daemon: opened, looked through for the commands of the last run, kept in order, tried again when it could not be used.
//!
//! What is in it is its users'; how it is durable says [`crate::store`].

use std::os::unix::fs::DirBuilderExt as _;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use crate::config::{Class, Config, OutboxConfig};
use crate::session::Sessions;
use crate::store::ledger::Ledger;
use crate::store::outbox::{LaneQuota, Limits, Outbox};
use crate::store::{ExportPolicy, Store, StoreConfig, StoreHandle, StoreHealth};

/// Pace of upkeep: exports, retention, pruning of the ledger.
const UPKEEP: Duration = Duration::from_secs(60);
/// Pace at which a store that cannot be used is tried again: no command is carried out until it is back. Each try may copy the whole
/// store, and what is missing (space, mostly) comes back by hand, so it is not shorter.
const STORE_RETRY: Duration = Duration::from_secs(5);

/// Opens the store in the state directory, which is made where it is not there.
///
/// # Errors
/// When the directory cannot be made, or another process uses the store.
pub(super) async fn open(config: &Config) -> anyhow::Result<Store> {
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

/// Looks through the commands of the last run. Until that has succeeded, commands are refused and devices still served.
pub(super) async fn recover(ledger: &Ledger) {
    match ledger.recover().await {
        Ok(interrupted) if interrupted.is_empty() => {}
        Ok(interrupted) => tracing::warn!(
            count = interrupted.len(),
            "commands were running when the daemon stopped; they are marked as interrupted"
        ),
        Err(error) => tracing::error!(%error, "no command is carried out until the store is back"),
    }
}

/// The outbox with its configured limits.
pub(super) fn outbox(store: StoreHandle, config: &OutboxConfig) -> Outbox {
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

/// Exports, retention and pruning, and bringing back a store that could not be used.
pub(super) async fn upkeep(
    store: StoreHandle,
    ledger: Ledger,
    sessions: Sessions,
    cancel: CancellationToken,
) {
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
