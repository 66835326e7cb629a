//! Records whose values follow from their numbers, so that whoever opens a store after a power cut knows what must be there.
//!
//! `store-writer` writes them; the tests of power cuts, on a disk of ours and in the lab, hold them against what was acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use autoglm_edge::store::{Scan, StoreHandle, Tree};

/// Records that the writer keeps; an older one is removed when a new one is written.
pub const RECORDS_KEPT: u64 = 2_000;

/// Which of the two values of a record is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    /// The record's own.
    Record,
    /// That of what belongs to it in another tree.
    Index,
}

/// The key of record `number`; the order of keys is the order of numbers.
pub fn record_key(number: u64) -> String {
    format!("{number:020}")
}

/// The value of record `number`: 20 to 600 characters that follow from the number (one in 64: up to 5,000), so that a torn or foreign one is noticed.
pub fn record_text(number: u64, which: Text) -> String {
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ which as u64 ^ 0x5DEE_CE66;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let longest = if number % 64 == 63 { 5_000 } else { 600 };
    let length = 20 + next() % (longest - 20);
    let letters = (0..length).map(|_| char::from(b'a' + (next() % 26) as u8));
    format!("{number}:{}", letters.collect::<String>())
}

/// What a store holds of such records.
#[derive(Debug)]
pub struct Stored {
    /// Numbers of the records that are there.
    pub present: BTreeSet<u64>,
    /// Records of which only one of two halves is there.
    pub torn: usize,
    /// Records whose value is not what was written.
    pub wrong: usize,
}

impl Stored {
    /// Reads all records.
    ///
    /// # Errors
    /// When the store cannot be read, or holds what no writer wrote.
    pub async fn read(store: &StoreHandle) -> anyhow::Result<Self> {
        let records = all(store, Tree::Twin).await?;
        let index = all(store, Tree::Turns).await?;
        let halves = |one: &BTreeMap<u64, String>, other: &BTreeMap<u64, String>| {
            one.keys()
                .filter(|number| !other.contains_key(number))
                .count()
        };
        let wrong = |entries: &BTreeMap<u64, String>, which| {
            entries
                .iter()
                .filter(|&(number, text)| *text != record_text(*number, which))
                .count()
        };
        Ok(Self {
            torn: halves(&records, &index) + halves(&index, &records),
            wrong: wrong(&records, Text::Record) + wrong(&index, Text::Index),
            present: records.into_keys().collect(),
        })
    }

    /// Whether an acknowledged record is neither there nor removed: a record goes when the one [`RECORDS_KEPT`] later comes, which
    /// may itself have gone since.
    #[must_use]
    pub fn is_lost(&self, number: u64) -> bool {
        let newest = self.present.last().copied().unwrap_or(0);
        let was_removed = (number + RECORDS_KEPT..=newest)
            .step_by(RECORDS_KEPT as usize)
            .any(|later| self.present.contains(&later));
        !self.present.contains(&number) && !was_removed
    }
}

async fn all(store: &StoreHandle, tree: Tree) -> anyhow::Result<BTreeMap<u64, String>> {
    let mut found = BTreeMap::new();
    let mut scan = Scan::first(tree, "", 1_000);
    loop {
        let page = store.scan(scan.clone()).await?;
        let Some((last, _)) = page.last() else {
            return Ok(found);
        };
        scan = scan.after(last.clone());
        for (key, value) in page {
            let number: u64 = key.as_str().parse()?;
            anyhow::ensure!(
                record_key(number) == key.as_str(),
                "{} is no record's key",
                key.as_str()
            );
            found.insert(number, value.decode()?);
        }
    }
}
