//! The store's errors, by blame: the caller's batch, the record's content, or the disk and the engine beneath.

use std::{io, path::PathBuf, sync::Arc};

use super::schema::{Key, Tree};

/// Why a request to the store failed. After any of these nothing of the batch is acknowledged;
/// after [`StoreError::Unavailable`] it may nevertheless be found later.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// A key is empty, too long or holds a control character.
    #[error("invalid key of {bytes} bytes")]
    InvalidKey {
        /// Its length.
        bytes: usize,
    },
    /// A value is larger than a value may be.
    #[error("value of {bytes} bytes exceeds the limit of {limit}")]
    ValueTooLarge {
        /// Its encoded length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A batch holds more writes than a batch may.
    #[error("batch of {writes} writes exceeds the limit of {limit}")]
    BatchTooLarge {
        /// Its writes.
        writes: usize,
        /// The limit.
        limit: usize,
    },
    /// The tree would hold more than its quota; nothing of the batch was written.
    #[error("tree {tree} is full ({entries} records, {bytes} bytes asked for)")]
    QuotaExceeded {
        /// The full tree.
        tree: Tree,
        /// Records that it would have held.
        entries: u64,
        /// Bytes that it would have held.
        bytes: u64,
    },
    /// What the batch expected of a record was not so; nothing of the batch was written.
    #[error("record {key} of tree {tree} is not as expected")]
    Conflict {
        /// The record's tree.
        tree: Tree,
        /// The record's key.
        key: Key,
    },
    /// A record could not be serialised.
    #[error("record cannot be encoded")]
    Encode {
        /// Why.
        #[source]
        source: Arc<serde_json::Error>,
    },
    /// A stored value is not what its reader expects.
    #[error("stored record cannot be decoded")]
    Malformed {
        /// Why.
        #[source]
        source: Arc<serde_json::Error>,
    },
    /// A stored value has a format that this version does not know.
    #[error("stored record of tree {tree} has unknown format {format}")]
    UnknownFormat {
        /// The record's tree.
        tree: Tree,
        /// Its format byte.
        format: u8,
    },
    /// The store cannot commit now (disk full, I/O error, damaged); commands are to be refused until it recovers.
    #[error("the store is unavailable")]
    Unavailable {
        /// What the disk or the engine said.
        #[source]
        source: Arc<DiskError>,
    },
    /// The store was shut down.
    #[error("the store is closed")]
    Closed,
}

/// What the engine or the file system beneath the store said.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The engine returned an error.
    #[error("the database engine failed")]
    Engine(#[source] sled::Error),
    /// The engine panicked; the panic was caught.
    #[error("the database engine panicked: {message}")]
    Panicked {
        /// The panic's message.
        message: String,
    },
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The store was written by a newer version; it is left alone.
    #[error("schema {found} is newer than the known {known}")]
    SchemaTooNew {
        /// The store's schema.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// The store's bookkeeping or an export's frame is not what we wrote.
    #[error("{what} is not what this program writes")]
    NotOurs {
        /// What was looked at.
        what: &'static str,
    },
}

/// What to do about a store that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Its content is broken: set it aside and rebuild.
    Damaged,
    /// Its surroundings are at fault (permissions, space, device): leave it as it is and report.
    Unavailable,
}

impl DiskError {
    pub(super) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }

    /// Decides whether a store that failed to open is broken, or only out of reach.
    pub(super) fn verdict(&self) -> Verdict {
        match self {
            Self::Panicked { .. } | Self::NotOurs { .. } => Verdict::Damaged,
            Self::Engine(sled::Error::Io(error)) => match error.kind() {
                // A missing blob or a file that ends early is lost content, not a device out of reach.
                io::ErrorKind::NotFound
                | io::ErrorKind::UnexpectedEof
                | io::ErrorKind::InvalidData => Verdict::Damaged,
                _ => Verdict::Unavailable,
            },
            Self::Engine(_) => Verdict::Damaged,
            Self::File { .. } | Self::SchemaTooNew { .. } => Verdict::Unavailable,
        }
    }
}
