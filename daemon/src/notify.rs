//! systemd's notification protocol (sd_notify(3)): readiness, status line and watchdog.
//!
//! The watchdog is fed by a real check of liveness: the task that feeds it first asks the store's owner thread and goes through
//! the async runtime, so a daemon whose runtime or store hangs is restarted.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::control::dbus::service::DoorState;
use crate::status::StatusSource;
use crate::store::{Key, StoreError, StoreHandle, Tree};

/// A line in `systemctl status` is refreshed at this pace when no watchdog sets another.
const STATUS_EVERY: Duration = Duration::from_secs(10);

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}

/// The daemon serves.
pub fn ready(status: &StatusSource, door: &DoorState) {
    tell(&[NotifyState::Ready, NotifyState::Status(&line(status, door))]);
}

/// The status line. It alone can say that the bus is missing, since everybody else would ask over it.
fn line(status: &StatusSource, door: &DoorState) -> String {
    match door {
        DoorState::Open => status.line(),
        DoorState::Starting => format!("{}; not on the message bus yet", status.line()),
        DoorState::Closed { cause } => {
            format!("{}; not on the message bus: {cause}", status.line())
        }
    }
}

/// The daemon stops.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Feeds the watchdog and refreshes the status line until cancelled.
pub async fn feed(
    status: StatusSource,
    mut door: watch::Receiver<DoorState>,
    store: StoreHandle,
    cancel: CancellationToken,
) {
    let watchdog = sd_notify::watchdog_enabled();
    // A third of systemd's limit, so that one missed turn is no restart.
    let pace = watchdog.map_or(STATUS_EVERY, |limit| limit / 3);
    let mut tick = tokio::time::interval(pace);
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            // The bus came or went: that is said at once.
            Ok(()) = door.changed() => {
                let line = line(&status, &door.borrow_and_update());
                tell(&[NotifyState::Status(&line)]);
            }
            _ = tick.tick() => {
                let answers = match Key::new("liveness") {
                    // An unavailable store answers, and the daemon lives without it; only silence is death.
                    Ok(key) => match tokio::time::timeout(pace, store.read(Tree::Ledger, key)).await {
                        Ok(Ok(_) | Err(StoreError::Unavailable { .. })) => true,
                        Ok(Err(_)) | Err(_) => false,
                    },
                    Err(_) => false,
                };
                let line = line(&status, &door.borrow());
                if watchdog.is_some() && answers {
                    tell(&[NotifyState::Watchdog, NotifyState::Status(&line)]);
                } else {
                    tell(&[NotifyState::Status(&line)]);
                }
                if !answers {
                    tracing::error!("the store's thread does not answer; the watchdog is not fed");
                }
            }
        }
    }
}
