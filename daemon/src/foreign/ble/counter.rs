//! The counters of sensors that encrypt, kept over restarts: without them a recorded "door unlocked" could be played back after
//! each restart of the box.
//!
//! A counter is on disk before an event is passed on, so no event is taken twice. Readings come too often for that: their counter
//! is kept once in [`PACE`], so that after a restart those of the last minute could be played back until the sensor speaks itself.

use std::time::{Duration, Instant};

use autoglm_drivers::ble::DeviceAddress;

use crate::store::{Batch, Key, StoreError, StoreHandle, Tree, Versioned, Write};

/// How often a counter is kept that only readings came with: an SD card wears out by writes.
const PACE: Duration = Duration::from_secs(60);
/// The record's format.
const FORMAT: u8 = 1;

/// One sensor's counter on disk.
#[derive(Debug)]
pub(super) struct Counter {
    sensor: DeviceAddress,
    store: StoreHandle,
    kept_at: Option<Instant>,
}

impl Counter {
    pub(super) fn new(sensor: DeviceAddress, store: StoreHandle) -> Self {
        Self {
            sensor,
            store,
            kept_at: None,
        }
    }

    fn key(&self) -> Result<Key, StoreError> {
        Key::new(format!("bthome-counter/{}", self.sensor))
    }

    /// What was kept.
    ///
    /// # Errors
    /// The store's: then a replay could not be told from news.
    pub(super) async fn load(&self) -> Result<Option<u32>, StoreError> {
        match self.store.read(Tree::Twin, self.key()?).await? {
            None => Ok(None),
            Some(record) if record.format() == FORMAT => record.decode().map(Some),
            Some(record) => Err(StoreError::UnknownFormat {
                tree: Tree::Twin,
                format: record.format(),
            }),
        }
    }

    /// Keeps it now; durable on return.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn keep(&mut self, now: Instant, counter: u32) -> Result<(), StoreError> {
        let write = Write::put(
            Tree::Twin,
            self.key()?,
            Versioned::encode(FORMAT, &counter)?,
        );
        let _durable = self.store.commit(Batch::new(vec![write])?).await?;
        self.kept_at = Some(now);
        Ok(())
    }

    /// Whether it was not kept for a while.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.kept_at
            .is_none_or(|at| now.saturating_duration_since(at) >= PACE)
    }

    /// Forgets it.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn forget(&mut self) -> Result<(), StoreError> {
        let write = Write::remove(Tree::Twin, self.key()?);
        let _durable = self.store.commit(Batch::new(vec![write])?).await?;
        self.kept_at = None;
        Ok(())
    }
}
