//! The owner thread: the only holder of the database, and the only place where a write is acknowledged.
//!
//! Each turn takes all requests that wait, applies their batches, flushes and syncs once for all of them (a group commit),
//! and only then sends each caller its [`Committed`]. Reads are answered by the same thread after the turn's commit, so
//! that nobody sees what a power cut could still take back; a read waits for at most one commit.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::SystemTime,
};

use tokio::sync::{mpsc, watch};

use super::{
    StoreHealth,
    batch::Batch,
    disk::{ApplyError, Disk},
    durable::Mark,
    error::{DiskError, StoreError},
    export::{self, ExportPolicy, TransferReport, export_due},
    queue::{QUEUE, Reply, Request, Shared},
    recovery::{self, DirectoryLock, Layout, Origin, with_sources},
    schema::SCHEMA,
};

/// Proof that a batch is on the medium. Only the owner thread makes one, after the sync: whatever acknowledges
/// something to the outside asks for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "this is what entitles to acknowledge"]
pub struct Committed {
    group: u64,
}

impl Committed {
    /// Number of the group commit since the store was opened, from 1; several batches may share one.
    pub fn group(self) -> u64 {
        self.group
    }
}

/// What a maintenance call did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Maintenance {
    /// The export that was due and was written.
    pub exported: Option<TransferReport>,
    /// Whether a store that could not commit is in use again.
    pub recovered: bool,
}

/// The owner's state; `run` is the thread.
#[derive(Debug)]
pub(super) struct Owner {
    layout: Layout,
    policy: ExportPolicy,
    queue: mpsc::Receiver<Request>,
    shared: Arc<Shared>,
    health: watch::Sender<StoreHealth>,
    state: State,
    /// Absent where it cannot be opened: then a loss of the store's end goes unnoticed, and nothing else changes.
    mark: Option<Mark>,
    /// When the last export was made.
    exported: Option<SystemTime>,
    /// Whether anything may have been committed since then.
    is_export_stale: bool,
    _lock: DirectoryLock,
}

/// Whether the owner has a database that it trusts.
#[derive(Debug)]
enum State {
    Ready(Disk),
    /// It never opened.
    NeverOpened(Arc<DiskError>),
    /// It failed while in use. After a failed sync the system may have dropped the pages that it could not write, and
    /// reads the old ones back as if all were well; so nothing more is acknowledged on these files, they are only copied from.
    Failed(Arc<DiskError>),
}

impl Owner {
    /// Opens the store and makes the owner of it.
    pub(super) fn open(
        state_directory: PathBuf,
        policy: ExportPolicy,
        now: SystemTime,
        lock: DirectoryLock,
        queue: mpsc::Receiver<Request>,
        shared: Arc<Shared>,
        health: watch::Sender<StoreHealth>,
    ) -> Self {
        let layout = Layout::new(&state_directory);
        let (state, report) = match recovery::open(&layout, now) {
            Ok((disk, origin)) => (State::Ready(disk), StoreHealth::Ready { origin }),
            Err(error) => {
                let cause = with_sources(&error);
                (
                    State::NeverOpened(Arc::new(error)),
                    StoreHealth::Unavailable { cause },
                )
            }
        };
        let is_export_stale = !matches!(
            report,
            StoreHealth::Ready {
                origin: Origin::Created
            }
        );
        health.send_replace(report);
        Self {
            exported: export::header(&layout.export()).map(|header| header.at),
            mark: Mark::open(&layout.mark()).ok(),
            layout,
            policy,
            queue,
            shared,
            health,
            state,
            is_export_stale,
            _lock: lock,
        }
    }

    /// Serves requests until the store is stopped and the queue is empty, or all handles are gone.
    pub(super) fn run(mut self) {
        while let Some(first) = self.queue.blocking_recv() {
            let mut turn = vec![first];
            while let Ok(next) = self.queue.try_recv() {
                turn.push(next);
                if turn.len() == QUEUE {
                    break;
                }
            }
            self.serve(turn);
            if self.shared.stop.load(Ordering::Acquire) {
                // Nothing new comes in; what waits is still served.
                self.queue.close();
            }
        }
        self.commit_group(Vec::new());
    }

    fn serve(&mut self, turn: Vec<Request>) {
        let mut commits = Vec::new();
        let mut others = Vec::new();
        for request in turn {
            match request {
                Request::Commit { batch, reply } => commits.push((batch, reply)),
                other => others.push(other),
            }
        }
        self.commit_group(commits);
        for request in others {
            self.answer(request);
        }
    }

    /// Applies the batches and the waiting telemetry, makes them durable, and acknowledges; the heart of the store.
    fn commit_group(&mut self, commits: Vec<(Batch, Reply<Committed>)>) {
        let telemetry = self.shared.take_telemetry();
        if commits.is_empty() && telemetry.is_empty() {
            return;
        }
        let State::Ready(disk) = &mut self.state else {
            for (_, reply) in commits {
                answer(reply, Err(self.unavailable()));
            }
            return;
        };
        let mut waiting = Vec::with_capacity(commits.len());
        let mut failure = None;
        let mut batches = 0;
        for (batch, reply) in commits {
            match failure.is_none().then(|| disk.apply(&batch)) {
                None => waiting.push(reply),
                Some(Ok(())) => {
                    batches += 1;
                    waiting.push(reply);
                }
                Some(Err(ApplyError::Refused(error))) => answer(reply, Err(error)),
                Some(Err(ApplyError::Disk(error))) => {
                    failure = Some(error);
                    waiting.push(reply);
                }
            }
        }
        for batch in telemetry {
            match failure.is_none().then(|| disk.apply(&batch)) {
                None => break,
                Some(Ok(())) => batches += 1,
                Some(Err(ApplyError::Refused(_))) => {
                    self.shared
                        .counters
                        .telemetry_dropped
                        .fetch_add(1, Ordering::Relaxed);
                }
                Some(Err(ApplyError::Disk(error))) => failure = Some(error),
            }
        }
        if batches == 0 && failure.is_none() {
            return;
        }
        let outcome = match failure {
            Some(error) => Err(error),
            None => disk.make_durable(),
        };
        match outcome {
            Ok(syncs) => {
                let counters = &self.shared.counters;
                counters.batches.fetch_add(batches, Ordering::Relaxed);
                counters.syncs.fetch_add(syncs, Ordering::Relaxed);
                let group = counters.groups.fetch_add(1, Ordering::Relaxed) + 1;
                self.is_export_stale = true;
                if let Some(Err(error)) = self.mark.as_ref().map(|mark| mark.write(disk.sequence()))
                {
                    tracing::warn!(%error, "cannot mark how far the store has come");
                }
                for reply in waiting {
                    answer(reply, Ok(Committed { group }));
                }
            }
            Err(error) => {
                self.fail(error);
                for reply in waiting {
                    answer(reply, Err(self.unavailable()));
                }
            }
        }
    }

    fn answer(&mut self, request: Request) {
        match request {
            Request::Read { tree, key, reply } => {
                answer(reply, self.with_disk(|disk| disk.read(tree, &key)))
            }
            Request::Scan { scan, reply } => answer(reply, self.with_disk(|disk| disk.scan(&scan))),
            Request::Export { now, reply } => answer(reply, self.export(now)),
            Request::Maintain { now, reply } => answer(reply, self.maintain(now)),
            Request::Commit { .. } | Request::Nudge => {}
        }
    }

    fn maintain(&mut self, now: SystemTime) -> Result<Maintenance, StoreError> {
        let recovered = !matches!(self.state, State::Ready(_)) && self.recover(now);
        let is_due = self.is_export_stale && export_due(now, self.exported, self.policy);
        let exported = is_due.then(|| self.export(now)).transpose()?;
        Ok(Maintenance {
            exported,
            recovered,
        })
    }

    fn export(&mut self, now: SystemTime) -> Result<TransferReport, StoreError> {
        let path = self.layout.export();
        let State::Ready(disk) = &self.state else {
            return Err(self.unavailable());
        };
        // An export that fails (no space) says nothing about the store itself, which goes on.
        let report = export::write(disk, &path, SCHEMA, now)?;
        self.exported = Some(now);
        self.is_export_stale = false;
        Ok(report)
    }

    /// Tries to bring back a store that could not be used.
    fn recover(&mut self, now: SystemTime) -> bool {
        let attempt = match &self.state {
            State::Ready(_) => return true,
            State::NeverOpened(_) => recovery::open(&self.layout, now),
            State::Failed(cause) => {
                recovery::copy_into_new_files(&self.layout, now, with_sources(cause))
            }
        };
        match attempt {
            Ok((disk, origin)) => {
                tracing::info!(?origin, "store is in use again");
                self.state = State::Ready(disk);
                self.is_export_stale = true;
                self.health.send_replace(StoreHealth::Ready { origin });
                true
            }
            Err(error) => {
                // What ails it was said when it failed, and stands in the status.
                tracing::debug!(error = with_sources(&error), "store is still unavailable");
                false
            }
        }
    }

    fn with_disk<T>(
        &mut self,
        ask: impl FnOnce(&Disk) -> Result<T, DiskError>,
    ) -> Result<T, StoreError> {
        let State::Ready(disk) = &self.state else {
            return Err(self.unavailable());
        };
        ask(disk).map_err(|error| {
            self.fail(error);
            self.unavailable()
        })
    }

    fn fail(&mut self, error: DiskError) {
        let cause = with_sources(&error);
        tracing::error!(
            error = cause,
            "store cannot be used any more; commands are refused until it recovers"
        );
        // Replacing the state drops the database.
        self.state = State::Failed(Arc::new(error));
        self.health.send_replace(StoreHealth::Unavailable { cause });
    }

    fn unavailable(&self) -> StoreError {
        match &self.state {
            State::NeverOpened(source) | State::Failed(source) => StoreError::Unavailable {
                source: source.clone(),
            },
            State::Ready(_) => StoreError::Closed,
        }
    }
}

/// A caller that went away does not want its answer.
fn answer<T>(reply: Reply<T>, result: Result<T, StoreError>) {
    let _ = reply.send(result);
}
