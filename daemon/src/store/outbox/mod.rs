//! The outbox: what must reach the broker, durable before it is sent, forgotten only when the broker has acknowledged it.
//!
//! ```text
//! put --commit--> waiting --take--> in flight --acknowledged--> cleared (commit)
//!                    ^                  |
//!                    +---- give back ---+        a crash on either side: found on disk again, sent again, under the same id
//! ```
//! Each message has a lane (its priority, and what happens when there is no room), a deadline, a size and an id by which a receiver
//! tells a duplicate. What waits is on disk; in memory is only the [`index`], some hundred bytes a message.
//!
//! It never speaks to a broker and never looks into a payload. Reading order: [`index`] (order, quotas, deadlines: pure), then this; [`record`] is how a message lies on disk.

mod index;
mod record;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::sync::{Notify, watch};

use self::index::{Admission, Index};
pub use self::index::{Lane, LaneQuota, LaneStats, Limits, Place};
use self::record::{Record, decode, encode, header, key_of, message, place_of};
use super::{
    BATCH_WRITES_MAX, Batch, Committed, Scan, StoreError, StoreHandle, Tree, Versioned, Write,
};

/// Messages read in one step of a walk over the outbox.
const PAGE: usize = 256;

/// Most messages taken in one call: with what they replace they must fit one batch.
pub const PUT_MAX: usize = 128;

/// A message that must reach the broker.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Its class.
    pub lane: Lane,
    /// Identity, the same for each time that it is sent.
    pub id: String,
    /// Topic name.
    pub topic: String,
    /// What it says.
    pub payload: Value,
    /// Whether the broker keeps it for later subscribers.
    pub retain: bool,
    /// MQTT 5 correlation data.
    pub correlation: Option<Vec<u8>>,
    /// After this time it is worth nothing any more; for ever when `None`.
    pub lifetime: Option<Duration>,
    /// Only the newest message of its topic is worth sending.
    pub is_latest_only: bool,
}

/// A message on its way: to be [`Outbox::clear`]ed or [`Outbox::give_back`].
#[derive(Debug, Clone, PartialEq)]
pub struct Parcel {
    /// Where it lies.
    pub place: Place,
    /// The message; its lifetime is what is left of it.
    pub message: Message,
}

/// What became of messages that were put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Proof that those that were taken are durable; `None` where none was.
    pub committed: Option<Committed>,
    /// Those that found no room, counted.
    pub refused: usize,
}

/// Why messages were not taken.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OutboxError {
    /// The message does not fit a record of the store; it must go another way.
    #[error("the message to {topic} is too large for the outbox")]
    TooLarge {
        /// Its topic.
        topic: String,
        /// The limit that it breaks.
        #[source]
        source: StoreError,
    },
    /// The store refused or failed.
    #[error("the outbox cannot be written or read")]
    Store(#[from] StoreError),
}

/// Counters and sizes by lane.
pub type OutboxStats = [LaneStats; 3];

/// The outbox over a store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Outbox(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    store: StoreHandle,
    state: Mutex<State>,
    /// Something can be sent.
    arrived: Notify,
    /// Something has gone.
    room: Notify,
    stats: watch::Sender<OutboxStats>,
}

#[derive(Debug)]
struct State {
    index: Index,
    /// Whether the index says what is on disk; not before the first load, and not after a commit that failed.
    is_loaded: bool,
}

impl Outbox {
    /// The outbox of a store; [`Outbox::load`] finds what an earlier run has left.
    #[must_use]
    pub fn new(store: StoreHandle, limits: Limits) -> Self {
        let state = State {
            index: Index::new(limits),
            is_loaded: false,
        };
        Self(Arc::new(Shared {
            store,
            state: Mutex::new(state),
            arrived: Notify::new(),
            room: Notify::new(),
            stats: watch::Sender::default(),
        }))
    }

    /// Reads what is on disk, unless that is known. To be called at the start, and from time to time for a store that failed.
    ///
    /// # Errors
    /// [`OutboxError::Store`]; to be tried again when the store is back.
    pub async fn load(&self) -> Result<(), OutboxError> {
        if self.state().is_loaded {
            return Ok(());
        }
        let mut found = Vec::new();
        let mut damaged = Vec::new();
        let mut scan = Scan::first(Tree::Outbox, "", PAGE);
        loop {
            let page = self.0.store.scan(scan.clone()).await?;
            let Some((last, _)) = page.last() else { break };
            scan = scan.after(last.clone());
            for (key, value) in page {
                match (place_of(&key), decode(&value)) {
                    (Some(place), Ok(record)) => {
                        found.push((place, header(&key, &value, &record)));
                    }
                    _ => damaged.push(key),
                }
            }
        }
        for key in &damaged {
            // Left as it is: a later version may know it, and the quota has room for it.
            tracing::error!(%key, "message in the outbox cannot be read");
        }
        self.update(|state| {
            if state.is_loaded {
                return;
            }
            state.index.clear();
            for (place, header) in found {
                state.index.found(place, header);
            }
            state.is_loaded = true;
        });
        self.0.arrived.notify_one();
        Ok(())
    }

    /// Takes messages, at most [`PUT_MAX`], in their order; returns when those that were taken are durable. Each is taken or refused
    /// by the rule of its lane.
    ///
    /// # Errors
    /// [`OutboxError`]; then none is taken.
    pub async fn put(&self, messages: &[Message]) -> Result<Taken, OutboxError> {
        self.load().await?;
        let now = unix_ms(SystemTime::now());
        let records = messages
            .iter()
            .map(|message| encode(message, now))
            .collect::<Result<Vec<_>, _>>()?;
        let (places, writes) = self.admit(messages, records)?;
        let refused = messages.len() - places.len();
        if places.is_empty() {
            return Ok(Taken {
                committed: None,
                refused,
            });
        }
        // Whoever drops this future half way leaves places behind that nobody would ever call durable.
        let unknown = Unknown(Some(self));
        let committed = self.commit(writes).await?;
        unknown.dismiss();
        self.update(|state| {
            for place in places {
                // Gone where the index was read from disk in between: then it is read again.
                state.is_loaded &= state.index.written(place);
            }
        });
        self.0.arrived.notify_one();
        Ok(Taken {
            committed: Some(committed),
            refused,
        })
    }

    /// Takes one message, waiting for room as long as it takes.
    ///
    /// # Errors
    /// [`OutboxError`]
    pub async fn put_waiting(&self, message: Message) -> Result<Committed, OutboxError> {
        let message = [message];
        loop {
            let mut room = std::pin::pin!(self.0.room.notified());
            // Before the try, so that room made between the two is not missed.
            room.as_mut().enable();
            if let Some(committed) = self.put(&message).await?.committed {
                return Ok(committed);
            }
            room.await;
        }
    }

    /// Counts messages that could not be put because the store is away.
    pub fn count_refused(&self, lane: Lane, count: usize) {
        self.update(|state| {
            for _ in 0..count {
                state.index.refused(lane);
            }
        });
    }

    /// Takes out up to `limit` messages to send, the most urgent first, of the lanes that are open; they are in flight until
    /// [`Outbox::clear`] or [`Outbox::give_back`].
    ///
    /// # Errors
    /// [`OutboxError::Store`]
    pub async fn take(
        &self,
        limit: usize,
        is_open: impl Fn(Lane) -> bool,
    ) -> Result<Vec<Parcel>, OutboxError> {
        self.load().await?;
        let now = unix_ms(SystemTime::now());
        let taken = self.state().index.take_next(now, limit, is_open);
        let (mut parcels, mut damaged) = (Vec::with_capacity(taken.len()), Vec::new());
        // All at once: each read waits for the commit that is under way, and so they wait for it together.
        let reads = taken.iter().map(|(place, _)| {
            let key = key_of(*place);
            async move { self.0.store.read(Tree::Outbox, key?).await }
        });
        let found = futures_util::future::join_all(reads).await;
        for ((place, left_ms), found) in taken.into_iter().zip(found) {
            match found.map(|value| value.as_ref().map(decode)) {
                Ok(Some(Ok(record))) => parcels.push(Parcel {
                    place,
                    message: message(place.lane, record, left_ms),
                }),
                Ok(Some(Err(_)) | None) => damaged.push(place),
                Err(error) => {
                    self.state().is_loaded = false;
                    return Err(error.into());
                }
            }
        }
        if !damaged.is_empty() {
            tracing::error!(
                count = damaged.len(),
                "messages in the outbox cannot be read"
            );
            self.update(|state| {
                for place in damaged {
                    state.index.undeliverable(place);
                }
            });
        }
        Ok(parcels)
    }

    /// Puts a message that was not delivered back to its place; one that a newer value of its topic has overtaken is removed.
    ///
    /// # Errors
    /// [`OutboxError::Store`]
    pub async fn give_back(&self, place: Place) -> Result<(), OutboxError> {
        let is_wanted = self.update(|state| state.index.give_back(place));
        if is_wanted {
            self.0.arrived.notify_one();
            return Ok(());
        }
        self.remove(&[place]).await
    }

    /// Forgets messages that the broker has acknowledged.
    ///
    /// # Errors
    /// [`OutboxError::Store`]; they are then sent again, under the same ids.
    pub async fn clear(&self, places: &[Place]) -> Result<(), OutboxError> {
        self.update(|state| state.index.delivered(places));
        self.remove(places).await
    }

    /// Gives up a message that can never be delivered.
    ///
    /// # Errors
    /// [`OutboxError::Store`]
    pub async fn give_up(&self, place: Place) -> Result<(), OutboxError> {
        self.update(|state| state.index.undeliverable(place));
        self.remove(&[place]).await
    }

    /// Drops what waits and is past its deadline at `now`; returns how many.
    ///
    /// # Errors
    /// [`OutboxError::Store`]
    pub async fn expire(&self, now: SystemTime) -> Result<usize, OutboxError> {
        let mut count = 0;
        loop {
            let now = unix_ms(now);
            let expired = self.update(|state| state.index.expire(now, BATCH_WRITES_MAX));
            if expired.is_empty() {
                return Ok(count);
            }
            count += expired.len();
            self.remove(&expired).await?;
        }
    }

    /// Waits until something may be there to send. Cancel-safe; may return for nothing.
    pub async fn arrived(&self) {
        self.0.arrived.notified().await;
    }

    /// What waits and what became of messages, to watch.
    #[must_use]
    pub fn stats(&self) -> watch::Receiver<OutboxStats> {
        self.0.stats.subscribe()
    }

    async fn remove(&self, places: &[Place]) -> Result<(), OutboxError> {
        self.0.room.notify_waiters();
        let writes = places
            .iter()
            .map(|place| Ok(Write::remove(Tree::Outbox, key_of(*place)?)))
            .collect::<Result<_, StoreError>>()?;
        self.commit(writes).await.map(drop)
    }

    /// Gives each message a place, and makes the writes for those that got one.
    fn admit(
        &self,
        messages: &[Message],
        records: Vec<(Versioned, Record)>,
    ) -> Result<(Vec<Place>, Vec<Write>), OutboxError> {
        self.update(|state| {
            let (mut places, mut writes) = (Vec::new(), Vec::new());
            for (message, (value, record)) in messages.iter().zip(records) {
                // The key's length does not depend on the number.
                let key = key_of(Place {
                    lane: message.lane,
                    number: 0,
                })?;
                let header = header(&key, &value, &record);
                if let Admission::Taken { place, instead_of } =
                    state.index.admit(message.lane, header)
                {
                    for gone in instead_of {
                        writes.push(Write::remove(Tree::Outbox, key_of(gone)?));
                    }
                    writes.push(Write::put(Tree::Outbox, key_of(place)?, value));
                    places.push(place);
                }
            }
            Ok((places, writes))
        })
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Committed, OutboxError> {
        let result = match Batch::new(writes) {
            Ok(batch) => self.0.store.commit(batch).await,
            Err(error) => Err(error),
        };
        result.map_err(|error| {
            // Nobody knows now what is on disk; it is read again when the store is back.
            self.state().is_loaded = false;
            error.into()
        })
    }

    /// Changes the index and shows its sums; the lock is never held over an await.
    fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let result = change(&mut state);
        self.0.stats.send_replace(state.index.stats());
        result
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has the index read from disk again when it is dropped.
struct Unknown<'a>(Option<&'a Outbox>);

impl Unknown<'_> {
    fn dismiss(mut self) {
        self.0 = None;
    }
}

impl Drop for Unknown<'_> {
    fn drop(&mut self) {
        if let Some(outbox) = self.0 {
            outbox.state().is_loaded = false;
        }
    }
}

/// The ids of all messages that a store holds, by lane and in their order: for whoever checks a store after a crash.
///
/// # Errors
/// [`StoreError`]
pub async fn ids(store: &StoreHandle) -> Result<Vec<(Lane, String)>, StoreError> {
    let mut ids = Vec::new();
    let mut scan = Scan::first(Tree::Outbox, "", PAGE);
    loop {
        let page = store.scan(scan.clone()).await?;
        let Some((last, _)) = page.last() else {
            return Ok(ids);
        };
        scan = scan.after(last.clone());
        for (key, value) in page {
            if let Some(place) = place_of(&key) {
                ids.push((place.lane, decode(&value)?.id));
            }
        }
    }
}

/// Milliseconds since 1970; a time before that is 0.
fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
