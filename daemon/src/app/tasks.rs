//! The trees of tasks, and how they stop: what takes in first, then what that has begun, then what it was served by.
//!
//! Nothing is aborted: who does not stop in time is named and left to the end of the process.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::inference::Inference;

/// The doors get so long to stop taking in. The limits on stopping add up to 4.5 s, so that a stop takes under 5 s with the store's last commit.
const CLOSING: Duration = Duration::from_millis(500);
/// Commands and answers in progress get so long to end.
const DRAIN: Duration = Duration::from_millis(2500);
/// Devices and owners get so long; beside them and the devices' brokers, models stop.
const GRACE: Duration = Duration::from_millis(1000);

/// Tasks that are told to stop together.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) tasks: TaskTracker,
    pub(super) cancel: CancellationToken,
}

impl Tree {
    /// Starts what runs until it is cancelled.
    pub(super) fn spawn<F>(&self, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(task(self.cancel.clone()));
    }
}

/// All tasks of the daemon but those of its models and its store.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    /// What takes in: the doors.
    pub(super) sources: Tree,
    /// Commands and answers in progress. They end by themselves.
    pub(super) running: TaskTracker,
    /// Devices and owners of state. They serve what is still running, so they stop after it has drained.
    pub(super) owners: Tree,
    /// Devices' brokers and the radio. They stop after the devices, who take their leave by them.
    pub(super) brokers: Tree,
}

impl Tasks {
    /// Stops them in order, and beside devices and owners the models.
    pub(super) async fn stop(self, inference: Inference) {
        let Self {
            sources,
            running,
            owners,
            brokers,
        } = self;
        sources.cancel.cancel();
        drain("doors", sources.tasks, CLOSING).await;
        drain("commands and answers in progress", running, DRAIN).await;
        owners.cancel.cancel();
        let devices = async {
            drain("devices and owners", owners.tasks, GRACE).await;
            brokers.cancel.cancel();
            drain("devices' brokers and radio", brokers.tasks, CLOSING).await;
        };
        let ((), models) = tokio::join!(devices, inference.stop(GRACE + CLOSING));
        if let Err(stragglers) = models {
            tracing::warn!(?stragglers, "models did not stop in time");
        }
    }
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
