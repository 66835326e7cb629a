//! What is known of models on providers, kept over restarts so that nobody tries a minute's compilation twice.
//!
//! Keyed by a digest of everything that an outcome depends on, so a record is right or never asked for again; the oldest make room.
//! For threads that may block. Losing all of it costs time and nothing else.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Batch, Key, Scan, StoreError, StoreHandle, Tree, Versioned, Write};

/// Records kept. A box has some five models and three providers; the rest is room for updates.
const KEPT: usize = 128;

const FORMAT: u8 = 1;

#[derive(Serialize, Deserialize)]
struct Record<T> {
    made_unix_ms: u64,
    outcome: T,
}

/// The memory of outcomes.
#[derive(Debug, Clone)]
pub struct Verdicts(StoreHandle);

impl Verdicts {
    /// In this store.
    #[must_use]
    pub fn new(store: StoreHandle) -> Self {
        Self(store)
    }

    /// What is known under `key`; a record of another format is nothing. Blocks.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn recall<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, StoreError> {
        let value = self.0.read_blocking(Tree::Providers, Key::new(key)?)?;
        let value = value.filter(|value| value.format() == FORMAT);
        // What another version wrote in the same format and cannot be read is measured again.
        Ok(value.and_then(|value| {
            value
                .decode::<Record<T>>()
                .ok()
                .map(|record| record.outcome)
        }))
    }

    /// Makes `outcome` durable under `key`. Blocks.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn remember<T: Serialize>(&self, key: &str, outcome: &T) -> Result<(), StoreError> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let made_unix_ms = since.map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        });
        let record = Record {
            made_unix_ms,
            outcome,
        };
        let mut writes: Vec<Write> = self
            .surplus()?
            .into_iter()
            .map(|old| Write::remove(Tree::Providers, old))
            .collect();
        let value = Versioned::encode(FORMAT, &record)?;
        writes.push(Write::put(Tree::Providers, Key::new(key)?, value));
        self.0.commit_blocking(Batch::new(writes)?).map(drop)
    }

    /// The oldest records, if one more would be too many.
    fn surplus(&self) -> Result<Vec<Key>, StoreError> {
        let scan = Scan::first(Tree::Providers, "", KEPT * 2);
        let mut known: Vec<(u64, Key)> = self
            .0
            .scan_blocking(scan)?
            .into_iter()
            .map(|(key, value)| {
                let record = value.decode::<Record<serde::de::IgnoredAny>>();
                (record.map_or(0, |record| record.made_unix_ms), key)
            })
            .collect();
        known.sort();
        let excess = (known.len() + 1).saturating_sub(KEPT);
        Ok(known.into_iter().take(excess).map(|(_, key)| key).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::Fixture;

    #[test]
    fn what_is_remembered_outlives_the_process_and_the_oldest_make_room() {
        let fixture = Fixture::new();
        let verdicts = Verdicts::new(fixture.handle());
        for number in 0..KEPT + 3 {
            verdicts
                .remember(&format!("key-{number}"), &number)
                .unwrap();
        }
        let known = |verdicts: &Verdicts| {
            (0..KEPT + 3)
                .filter(|number| {
                    let found = verdicts.recall::<usize>(&format!("key-{number}")).unwrap();
                    assert!(found.is_none_or(|found| found == *number));
                    found.is_some()
                })
                .count()
        };
        assert_eq!(known(&verdicts), KEPT);
        assert_eq!(
            verdicts
                .recall::<usize>(&format!("key-{}", KEPT + 2))
                .unwrap(),
            Some(KEPT + 2),
            "never the newest"
        );
        let fixture = fixture.reopen();
        let verdicts = Verdicts::new(fixture.handle());
        assert_eq!(known(&verdicts), KEPT);
        assert_eq!(
            verdicts.recall::<String>("key-9").unwrap(),
            None,
            "of another form"
        );
    }
}
