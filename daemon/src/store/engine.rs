//! How sled is opened and called: its settings, the wait for its lock, and the guard against its panics.

use std::{
    any::Any,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    thread,
    time::Duration,
};

use super::{error::DiskError, schema::Tree};

/// Page cache of the engine, chosen because the whole of a usual store (a few thousand records) fits in it.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;

/// The tree of the store's own bookkeeping; not a [`Tree`], so that no caller writes it.
const META: &str = "meta";

/// How often and how long to wait for an earlier instance of ours: sled's worker threads may hold the
/// file's lock for some milliseconds after the database was dropped. Another daemon is excluded by the store's own lock.
const LOCK_ATTEMPTS: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// An open database and its trees.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) db: sled::Db,
    pub(super) meta: sled::Tree,
    pub(super) trees: BTreeMap<Tree, sled::Tree>,
}

/// Opens or creates the database in `directory` with all its trees.
pub(super) fn open(directory: &Path) -> sled::Result<Engine> {
    let config = sled::Config::new()
        .path(directory)
        .cache_capacity(CACHE_BYTES)
        // The owner thread flushes; a second flusher would only write behind its back.
        .flush_every_ms(None);
    let mut attempts = 1;
    let db = loop {
        match config.open() {
            Err(sled::Error::Io(error)) if is_lock_held(&error) && attempts < LOCK_ATTEMPTS => {
                attempts += 1;
                thread::sleep(LOCK_PAUSE);
            }
            result => break result?,
        }
    };
    let trees = Tree::ALL
        .into_iter()
        .map(|tree| Ok((tree, db.open_tree(tree.name())?)))
        .collect::<sled::Result<_>>()?;
    let meta = db.open_tree(META)?;
    Ok(Engine { db, meta, trees })
}

/// sled reports a held lock as an untyped error; its text is all that tells it from other failures.
fn is_lock_held(error: &std::io::Error) -> bool {
    error.to_string().contains("could not acquire lock")
}

/// Runs a call into sled; a panic becomes an error.
pub(super) fn guarded<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, DiskError> {
    // Unwind safety: after a panic the database is dropped and never used again, so no broken invariant is seen.
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(DiskError::Engine),
        Err(payload) => Err(DiskError::Panicked {
            message: panic_message(payload.as_ref()),
        }),
    }
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
        .to_owned()
}
