//! The commands that this run of the daemon has begun and not finished, in memory, and outcomes that the store could not take.
//!
//! It tells commands that somebody works on from entries that only say so, which a store leaves behind that failed between the two
//! ends of a command. Bounded by the commands in progress: while the store is away none is begun.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

/// Ids, each with its outcome once that is known and could not be noted.
#[derive(Debug, Default)]
pub(super) struct InProgress(Mutex<BTreeMap<String, Option<Value>>>);

impl InProgress {
    /// Before the first sign of it is in the store; false when somebody has begun it already.
    pub(super) fn begin(&self, id: &str) -> bool {
        let mut ids = self.ids();
        let is_new = !ids.contains_key(id);
        if is_new {
            ids.insert(id.to_owned(), None);
        }
        is_new
    }

    /// Its outcome is in the store, or it was never begun.
    pub(super) fn end(&self, id: &str) {
        self.ids().remove(id);
    }

    /// Its outcome could not be noted.
    pub(super) fn keep(&self, id: &str, outcome: Value) {
        self.ids().insert(id.to_owned(), Some(outcome));
    }

    /// Whether it was begun by this run, and not noted as finished.
    pub(super) fn contains(&self, id: &str) -> bool {
        self.ids().contains_key(id)
    }

    /// Outcomes that wait for the store.
    pub(super) fn outcomes(&self) -> Vec<(String, Value)> {
        self.ids()
            .iter()
            .filter_map(|(id, outcome)| Some((id.clone(), outcome.clone()?)))
            .collect()
    }

    fn ids(&self) -> MutexGuard<'_, BTreeMap<String, Option<Value>>> {
        // A poisoned lock means a panic in one of the lines above, each of which leaves the map whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
