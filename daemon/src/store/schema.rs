//! What the store holds: its trees with their quotas, keys, versioned values and the schema's migrations.
//!
//! Pure types; nothing here touches a disk. Every value is `format byte + JSON`, so that a record can be
//! upgraded when it is read, and so that an export is readable text.

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};

use super::error::StoreError;

/// The schema written by this version; a store with a newer one is left alone and reported.
/// 2 has the outbox: a version that does not know it must not go on as if nothing waited there. `providers` came without a new number: a
/// version that does not know it only measures again.
pub(super) const SCHEMA: u32 = 2;

/// Largest value, format byte included. sled 0.34.7 splits a leaf above 16 entries, and writes a page larger than a quarter of its
/// 512 KiB segment as a file under `blobs/`; 18 values of 6 KiB with their keys stay below that, so that the blob path, which
/// nobody has tried under power cuts, is not entered (16 KiB did enter it). Larger things belong into files, with their hash here.
pub const VALUE_BYTES_MAX: usize = 6 * 1024;

/// Longest key in bytes, chosen because the longest in use is a session id, a slash and a sequence number.
pub const KEY_BYTES_MAX: usize = 128;

/// Names that later trees will have; listed so that nothing else takes them.
pub const RESERVED_TREES: [&str; 2] = ["pairings", "grants"];

/// A table of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tree {
    /// One record per conversation, keyed by session id.
    Sessions,
    /// Turns of conversations, keyed by session id and sequence number.
    Turns,
    /// Last reported and desired state of Things, keyed by Thing id.
    Twin,
    /// Commands that were begun and what came of them, keyed by command id.
    Ledger,
    /// What the fleet's broker has not acknowledged yet, keyed by urgency and age.
    Outbox,
    /// What was measured of models on execution providers, keyed by a digest of what that depends on.
    Providers,
    /// Which parts of conversations' key-value caches lie in files, keyed by a digest of their tokens. Only a cache: a version that does
    /// not know it reads conversations anew.
    Snapshots,
}

/// How much a tree may hold; a batch that would exceed it is refused whole.
///
/// Retention (which record goes when there are too many) belongs to the owner of the records: sessions to
/// `session::retention`, commands to `ledger`. The quota is the backstop that keeps a fault there from filling the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Records.
    pub entries_max: u64,
    /// Bytes of keys and values together, before the engine's own overhead (measured: two to three times).
    pub bytes_max: u64,
}

impl Tree {
    /// Every tree, in the order of export.
    pub const ALL: [Tree; 7] = [
        Tree::Sessions,
        Tree::Turns,
        Tree::Twin,
        Tree::Ledger,
        Tree::Outbox,
        Tree::Providers,
        Tree::Snapshots,
    ];

    /// The tree's name on disk and in exports; never changed.
    pub const fn name(self) -> &'static str {
        match self {
            Tree::Sessions => "sessions",
            Tree::Turns => "turns",
            Tree::Twin => "twin",
            Tree::Ledger => "ledger",
            Tree::Outbox => "outbox",
            Tree::Providers => "providers",
            Tree::Snapshots => "snapshots",
        }
    }

    /// The tree with this name on disk.
    pub fn from_name(name: &str) -> Option<Tree> {
        Tree::ALL.into_iter().find(|tree| tree.name() == name)
    }

    /// The tree's quota: together 75 MiB, chosen so that the store stays below some 200 MB on an SD card.
    pub const fn quota(self) -> Quota {
        let (entries_max, bytes_max_mib) = match self {
            Tree::Sessions => (1_000, 4),
            Tree::Turns => (100_000, 32),
            Tree::Twin => (10_000, 8),
            Tree::Ledger => (20_000, 12),
            // The outbox keeps the quotas of its lanes; this is their sum with some room.
            Tree::Outbox => (40_000, 16),
            Tree::Providers => (1_000, 1),
            Tree::Snapshots => (4_096, 2),
        };
        Quota {
            entries_max,
            bytes_max: bytes_max_mib * 1024 * 1024,
        }
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A record's key: 1 to [`KEY_BYTES_MAX`] bytes of text without control characters; ordered by its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    /// Checks and takes a key.
    ///
    /// # Errors
    /// [`StoreError::InvalidKey`] when it is empty, too long or holds a control character.
    pub fn new(text: impl Into<String>) -> Result<Self, StoreError> {
        let text = text.into();
        if text.is_empty() || text.len() > KEY_BYTES_MAX || text.chars().any(char::is_control) {
            return Err(StoreError::InvalidKey { bytes: text.len() });
        }
        Ok(Self(text))
    }

    /// The key's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A value as it is stored: the record's format number, then JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned(Vec<u8>);

impl Versioned {
    /// Encodes a record in the format that its module calls current.
    ///
    /// # Errors
    /// [`StoreError::Encode`] when serde refuses it, [`StoreError::ValueTooLarge`] above [`VALUE_BYTES_MAX`].
    pub fn encode<T: Serialize>(format: u8, record: &T) -> Result<Self, StoreError> {
        let mut bytes = vec![format];
        serde_json::to_writer(&mut bytes, record).map_err(|source| StoreError::Encode {
            source: source.into(),
        })?;
        if bytes.len() > VALUE_BYTES_MAX {
            return Err(StoreError::ValueTooLarge {
                bytes: bytes.len(),
                limit: VALUE_BYTES_MAX,
            });
        }
        Ok(Self(bytes))
    }

    /// The format number that the value was written with.
    pub fn format(&self) -> u8 {
        self.0[0]
    }

    /// Decodes the JSON behind the format number; the caller looks at [`Versioned::format`] first.
    ///
    /// # Errors
    /// [`StoreError::Malformed`] when it is not what `T` expects.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, StoreError> {
        serde_json::from_slice(&self.0[1..]).map_err(|source| StoreError::Malformed {
            source: source.into(),
        })
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Takes bytes from disk; `None` when not even a format byte is there.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (!bytes.is_empty()).then(|| Self(bytes.to_vec()))
    }
}

/// One record of any tree, as exports and migrations see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// Where it lives.
    pub(super) tree: Tree,
    /// Its key there.
    pub(super) key: Key,
    /// Its value.
    pub(super) value: Versioned,
}

/// Takes one record from a schema to the next; `None` drops it.
pub(super) type Step = fn(Record) -> Option<Record>;

/// `STEPS[n]` takes records of schema `n + 1` to schema `n + 2`. Applied while a store is rebuilt from an export,
/// so that a cut in the middle leaves the old store whole.
pub(super) const STEPS: [Step; SCHEMA as usize - 1] = [unchanged];

/// To schema 2: a tree came, and no record changed.
fn unchanged(record: Record) -> Option<Record> {
    Some(record)
}

/// The steps between a found schema and the one that they lead to; `None` when the found one is newer or never existed.
pub(super) fn steps_from(found: u32, steps: &[Step]) -> Option<&[Step]> {
    steps.get(usize::try_from(found).ok()?.checked_sub(1)?..)
}

/// Runs a record through steps in order.
pub(super) fn migrate(record: Record, steps: &[Step]) -> Option<Record> {
    steps.iter().try_fold(record, |record, step| step(record))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reserved_names_are_not_in_use() {
        for name in RESERVED_TREES.into_iter().chain(["meta"]) {
            assert_eq!(Tree::from_name(name), None, "{name} is taken");
        }
    }

    #[test]
    fn value_above_the_limit_is_refused() {
        let exact = "x".repeat(VALUE_BYTES_MAX - 3);
        assert!(Versioned::encode(1, &exact).is_ok());
        let refused = Versioned::encode(1, &format!("{exact}x"));
        assert!(
            matches!(refused, Err(StoreError::ValueTooLarge { bytes, .. }) if bytes == VALUE_BYTES_MAX + 1),
            "{refused:?}"
        );
    }

    #[test]
    fn steps_run_in_order_from_the_found_schema() {
        fn second(mut record: Record) -> Option<Record> {
            record.value = Versioned::encode(record.value.format() * 10, &"2").ok()?;
            Some(record)
        }
        fn third(record: Record) -> Option<Record> {
            (record.value.format() != 30).then_some(record)
        }
        let steps: [Step; 2] = [second, third];
        let record = |format| Record {
            tree: Tree::Twin,
            key: Key::new("lamp").unwrap(),
            value: Versioned::encode(format, &"1").unwrap(),
        };
        let run = |found, format| {
            migrate(record(format), steps_from(found, &steps).unwrap()).map(|r| r.value.format())
        };
        assert_eq!(run(1, 2), Some(20));
        assert_eq!(run(1, 3), None, "the last step drops it");
        assert_eq!(run(2, 2), Some(2));
        assert_eq!(run(3, 30), Some(30), "already current");
        assert!(steps_from(4, &steps).is_none(), "newer than known");
        assert!(steps_from(0, &steps).is_none(), "never existed");
    }

    proptest! {
        #[test]
        fn any_json_string_survives_the_envelope(text in ".{0,200}", format in any::<u8>()) {
            let value = Versioned::encode(format, &text).unwrap();
            prop_assert_eq!(value.format(), format);
            let back = Versioned::from_bytes(value.as_bytes()).unwrap();
            prop_assert_eq!(back.decode::<String>().unwrap(), text);
        }

        #[test]
        fn any_bytes_decode_or_fail_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Some(value) = Versioned::from_bytes(&bytes) {
                let _ = value.decode::<serde_json::Value>();
            }
        }
    }
}
