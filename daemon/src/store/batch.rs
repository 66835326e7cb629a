//! What callers hand to the store: a batch of writes with its preconditions, and queries.

use super::{
    error::StoreError,
    schema::{Key, Tree, Versioned},
};

/// Most writes in one batch, chosen because deleting a session with all its turns (512) must fit in one.
pub const BATCH_WRITES_MAX: usize = 1_024;

/// One change of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub(super) tree: Tree,
    pub(super) key: Key,
    /// The new value; `None` removes.
    pub(super) value: Option<Versioned>,
}

impl Write {
    /// Stores a value, over an older one if there is one.
    pub fn put(tree: Tree, key: Key, value: Versioned) -> Self {
        Self {
            tree,
            key,
            value: Some(value),
        }
    }

    /// Removes a record; nothing happens where there is none.
    pub fn remove(tree: Tree, key: Key) -> Self {
        Self {
            tree,
            key,
            value: None,
        }
    }
}

/// What a batch requires of a record at the moment when it is applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expect {
    pub(super) tree: Tree,
    pub(super) key: Key,
    /// The value that must be there; `None` means that no record may be there.
    pub(super) value: Option<Versioned>,
}

impl Expect {
    /// There is no record under this key.
    pub fn absent(tree: Tree, key: Key) -> Self {
        Self {
            tree,
            key,
            value: None,
        }
    }

    /// The record still has the value that was read before.
    pub fn unchanged(tree: Tree, key: Key, value: Versioned) -> Self {
        Self {
            tree,
            key,
            value: Some(value),
        }
    }
}

/// Writes that become durable together or not at all, across trees. Of two writes to one record the later counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    pub(super) expects: Vec<Expect>,
    pub(super) writes: Vec<Write>,
}

impl Batch {
    /// A batch of these writes.
    ///
    /// # Errors
    /// [`StoreError::BatchTooLarge`] above [`BATCH_WRITES_MAX`].
    pub fn new(writes: Vec<Write>) -> Result<Self, StoreError> {
        if writes.len() > BATCH_WRITES_MAX {
            return Err(StoreError::BatchTooLarge {
                writes: writes.len(),
                limit: BATCH_WRITES_MAX,
            });
        }
        Ok(Self {
            expects: Vec::new(),
            writes,
        })
    }

    /// The same batch, applied only if the expectation holds then.
    pub fn expecting(mut self, expect: Expect) -> Self {
        self.expects.push(expect);
        self
    }
}

/// Most records that one scan returns, chosen so that a scan holds the owner thread for milliseconds.
pub const SCAN_LIMIT_MAX: usize = 1_024;

/// From which end a scan begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Ascending,
    Descending,
}

/// A bounded walk over the keys of one tree that begin with a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    pub(super) tree: Tree,
    pub(super) prefix: String,
    pub(super) after: Option<Key>,
    pub(super) direction: Direction,
    pub(super) limit: usize,
}

impl Scan {
    /// The first `limit` records (at most [`SCAN_LIMIT_MAX`]) whose key begins with `prefix`, in the order of keys.
    pub fn first(tree: Tree, prefix: impl Into<String>, limit: usize) -> Self {
        Self {
            tree,
            prefix: prefix.into(),
            after: None,
            direction: Direction::Ascending,
            limit: limit.min(SCAN_LIMIT_MAX),
        }
    }

    /// The last `limit` records (at most [`SCAN_LIMIT_MAX`]), the last key first.
    pub fn last(tree: Tree, prefix: impl Into<String>, limit: usize) -> Self {
        Self {
            direction: Direction::Descending,
            ..Self::first(tree, prefix, limit)
        }
    }

    /// The same scan, beginning behind this key: the next page of an ascending scan.
    pub fn after(mut self, key: Key) -> Self {
        self.after = Some(key);
        self
    }
}
