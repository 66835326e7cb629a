//! Conversations that survive a restart: who said what, what came of it, and what the talk is about right now.
//!
//! [`Sessions`] is a thin shell over the store: records and their keys are in [`record`], forgetting is decided in [`retention`].
//! Turns and the focus that they leave are committed together, so that after a cut the focus fits the last turn that is there.
//! It never interprets the focus or the call of a turn, and it caches nothing: the store is the truth.

mod record;
mod retention;

use std::time::SystemTime;

pub use self::{
    record::{
        InvalidSessionId, NewTurn, SESSION_ID_BYTES_MAX, SessionId, SessionRecord, Speaker,
        TurnOutcome, TurnRecord,
    },
    retention::{Retention, to_forget},
};
use crate::store::{
    Batch, Committed, Expect, SCAN_LIMIT_MAX, Scan, StoreError, StoreHandle, Tree, Versioned, Write,
};

/// Turns that [`Sessions::load`] returns, chosen above what a model's context takes (MODELS: 4,096 tokens).
pub const LOADED_TURNS: usize = 32;

/// Turns that one append takes: a request, what the device said and the answer, with room for several devices.
pub const APPENDED_TURNS_MAX: usize = 64;

/// How often an append is tried again when another one came between; each failure means that another one succeeded.
const APPEND_ATTEMPTS: u32 = 16;

/// A conversation with its last turns.
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    /// The session itself.
    pub record: SessionRecord,
    /// Its last turns, oldest first.
    pub turns: Vec<TurnRecord>,
}

/// Why something could not be done to a session.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// More turns than one append takes.
    #[error("{turns} turns in one append, at most {APPENDED_TURNS_MAX} are taken")]
    TooManyTurns {
        /// How many were given.
        turns: usize,
    },
    /// Others appended to the same session each time in between.
    #[error("session {id} is being written by others")]
    Contended {
        /// The session.
        id: SessionId,
    },
    /// The store refused or failed; nothing of the append is acknowledged.
    #[error("the session cannot be stored or read")]
    Store(#[from] StoreError),
}

/// The conversations in a store.
#[derive(Debug, Clone)]
pub struct Sessions {
    store: StoreHandle,
    retention: Retention,
}

impl Sessions {
    /// The sessions of a store. `turns_max` above 512 is taken as 512, and below 1 as 1.
    pub fn new(store: StoreHandle, mut retention: Retention) -> Self {
        retention.turns_max = retention.turns_max.clamp(1, retention::TURNS_MAX);
        Self { store, retention }
    }

    /// Loads a session with its last [`LOADED_TURNS`] turns; one that does not exist comes as it will be after its first append, and is not written.
    ///
    /// # Errors
    /// [`SessionError::Store`].
    pub async fn load(&self, id: &SessionId, now: SystemTime) -> Result<Session, SessionError> {
        match self.find(id).await? {
            None => Ok(Session {
                record: SessionRecord::begin(id, now),
                turns: Vec::new(),
            }),
            Some((_, record)) => {
                let turns = self.turns_of(id, &record, LOADED_TURNS).await?;
                Ok(Session { record, turns })
            }
        }
    }

    /// Adds turns and replaces the focus, in one commit; begins the session if there is none yet. Turns beyond the retention's number,
    /// and sessions beyond its number, go in the same breath.
    ///
    /// # Errors
    /// [`SessionError`]; then neither turns nor focus are acknowledged. A turn's text is cut where it must be, but a call or a focus that
    /// does not fit a value of the store (6 KiB) is an error.
    pub async fn append(
        &self,
        id: &SessionId,
        turns: Vec<NewTurn>,
        focus: Option<serde_json::Value>,
        now: SystemTime,
    ) -> Result<Committed, SessionError> {
        if turns.len() > APPENDED_TURNS_MAX {
            return Err(SessionError::TooManyTurns { turns: turns.len() });
        }
        for _ in 0..APPEND_ATTEMPTS {
            let found = self.find(id).await?;
            if found.is_none() {
                self.forget(1, now).await?;
            }
            let batch = self.append_batch(id, found, &turns, focus.clone(), now)?;
            match self.store.commit(batch).await {
                Err(StoreError::Conflict { .. }) => {}
                result => return Ok(result?),
            }
        }
        Err(SessionError::Contended { id: id.clone() })
    }

    /// All sessions that can be read, the one that was active last first.
    ///
    /// # Errors
    /// [`SessionError::Store`].
    pub async fn list(&self) -> Result<Vec<SessionRecord>, SessionError> {
        let mut records: Vec<SessionRecord> = Vec::new();
        let mut scan = Scan::first(Tree::Sessions, "", SCAN_LIMIT_MAX);
        loop {
            let page = self.store.scan(scan.clone()).await?;
            let Some((last, _)) = page.last() else { break };
            scan = scan.after(last.clone());
            for (key, value) in &page {
                match SessionRecord::decode(value) {
                    Ok(record) => records.push(record),
                    // One that cannot be read must not hide the others; loading it says what is wrong.
                    Err(error) => {
                        tracing::warn!(session = %key, %error, "session is left out of the list")
                    }
                }
            }
        }
        records.sort_by(|a, b| {
            b.updated_unix_ms
                .cmp(&a.updated_unix_ms)
                .then_with(|| a.id.cmp(&b.id))
        });
        Ok(records)
    }

    /// The last `count` turns of a session (at most [`SCAN_LIMIT_MAX`]), oldest first; none where there is no such session.
    ///
    /// # Errors
    /// [`SessionError::Store`].
    pub async fn last_turns(
        &self,
        id: &SessionId,
        count: usize,
    ) -> Result<Vec<TurnRecord>, SessionError> {
        match self.find(id).await? {
            None => Ok(Vec::new()),
            Some((_, record)) => Ok(self.turns_of(id, &record, count).await?),
        }
    }

    /// Deletes a session with all its turns in one commit; `None` where there was none.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn delete(&self, id: &SessionId) -> Result<Option<Committed>, SessionError> {
        for _ in 0..APPEND_ATTEMPTS {
            let Some((value, record)) = self.find(id).await? else {
                return Ok(None);
            };
            let mut writes = vec![Write::remove(Tree::Sessions, id.key()?)];
            for seq in record.first_seq..record.next_seq {
                writes.push(Write::remove(Tree::Turns, id.turn_key(seq)?));
            }
            let batch =
                Batch::new(writes)?.expecting(Expect::unchanged(Tree::Sessions, id.key()?, value));
            match self.store.commit(batch).await {
                Err(StoreError::Conflict { .. }) => {}
                result => return Ok(Some(result?)),
            }
        }
        Err(SessionError::Contended { id: id.clone() })
    }

    /// Forgets sessions that are too old or too many at `now`; returns their ids. To be called every hour or so.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn retain(&self, now: SystemTime) -> Result<Vec<String>, SessionError> {
        self.forget(0, now).await
    }

    async fn forget(&self, room_for: usize, now: SystemTime) -> Result<Vec<String>, SessionError> {
        let forgotten = to_forget(&self.list().await?, room_for, self.retention, now);
        for id in &forgotten {
            if let Ok(id) = SessionId::new(id.clone()) {
                self.delete(&id).await?;
            }
        }
        Ok(forgotten)
    }

    async fn find(&self, id: &SessionId) -> Result<Option<(Versioned, SessionRecord)>, StoreError> {
        let found = self.store.read(Tree::Sessions, id.key()?).await?;
        found
            .map(|value| SessionRecord::decode(&value).map(|record| (value, record)))
            .transpose()
    }

    /// Turns that the record speaks of. An append or a trim may fall between the two reads: turns that came later are left out here,
    /// turns that went are missing at the old end.
    async fn turns_of(
        &self,
        id: &SessionId,
        record: &SessionRecord,
        count: usize,
    ) -> Result<Vec<TurnRecord>, StoreError> {
        let scan = Scan::last(Tree::Turns, id.turn_prefix(), count);
        let found = self.store.scan(scan).await?;
        let turns = found
            .iter()
            .rev()
            .map(|(_, value)| TurnRecord::decode(value));
        let mut turns = turns.collect::<Result<Vec<_>, _>>()?;
        turns.retain(|turn| (record.first_seq..record.next_seq).contains(&turn.seq));
        Ok(turns)
    }

    fn append_batch(
        &self,
        id: &SessionId,
        found: Option<(Versioned, SessionRecord)>,
        turns: &[NewTurn],
        focus: Option<serde_json::Value>,
        now: SystemTime,
    ) -> Result<Batch, StoreError> {
        let key = id.key()?;
        let (expect, before) = match found {
            Some((value, record)) => (
                Expect::unchanged(Tree::Sessions, key.clone(), value),
                record,
            ),
            None => (
                Expect::absent(Tree::Sessions, key.clone()),
                SessionRecord::begin(id, now),
            ),
        };
        let after = before.grown(turns, focus, self.retention.turns_max, now);
        let mut writes = vec![Write::put(Tree::Sessions, key, after.encode()?)];
        for (seq, turn) in (before.next_seq..).zip(turns) {
            if seq >= after.first_seq {
                let value = TurnRecord::new(turn.clone(), seq, now).encode()?;
                writes.push(Write::put(Tree::Turns, id.turn_key(seq)?, value));
            }
        }
        for seq in before.first_seq..after.first_seq.min(before.next_seq) {
            writes.push(Write::remove(Tree::Turns, id.turn_key(seq)?));
        }
        Ok(Batch::new(writes)?.expecting(expect))
    }
}

#[cfg(test)]
mod tests;
