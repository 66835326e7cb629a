//! What devices said of themselves, kept over restarts of the daemon: a device that is away is known as offline, with its last
//! description, and whoever commands it hears "not connected" and not "unknown".
//!
//! A description is larger than a record of the store may be, so it lies there in pieces, which are written and removed together. It is
//! kept by the device's name in the configuration; what was kept of devices that are configured no more is forgotten at the start.
//! Nothing waits for this memory: without the store, a device that is away is unknown until it has come once.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::introduction::Described;
use crate::store::{
    Batch, Key, SCAN_LIMIT_MAX, Scan, StoreError, StoreHandle, Tree, Versioned, Write,
};
use crate::things::description::ThingDescription;
use crate::things::registry::DeviceName;
use crate::things::schema::ThingSchemas;

/// Format of [`Piece`].
const FORMAT: u8 = 1;
/// Bytes of a description in one piece: as JSON text inside JSON it may double, and a value of the store has 6 KiB.
const PIECE_BYTES: usize = 2_900;
/// The most pieces of one description, and so its greatest length of 181 KiB. A device with a longer one is not remembered.
const PIECES_MAX: usize = 64;
/// What the keys begin with.
const PREFIX: &str = "description/";

#[derive(Debug, Serialize, Deserialize)]
struct Piece {
    /// How many there are; the same in each.
    pieces: usize,
    /// A part of the document.
    text: String,
}

/// The memory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Memory(StoreHandle);

impl Memory {
    /// A memory in this store.
    #[must_use]
    pub fn new(store: StoreHandle) -> Self {
        Self(store)
    }

    /// What these devices said of themselves last, as far as it is known; that of others is forgotten.
    pub async fn recall(&self, devices: &BTreeSet<DeviceName>) -> Vec<(DeviceName, Described)> {
        let pieces = match self.pieces().await {
            Ok(pieces) => pieces,
            Err(error) => {
                tracing::warn!(%error, "what devices said of themselves cannot be read; those that are away are unknown until they come");
                return Vec::new();
            }
        };
        let mut recalled = Vec::new();
        for (device, pieces) in pieces {
            if !devices.contains(&device) {
                self.forget(&device, pieces.len()).await;
                continue;
            }
            let text: String = pieces.values().map(|piece| piece.text.as_str()).collect();
            match described(&text) {
                Some(described) if pieces.values().all(|piece| piece.pieces == pieces.len()) => {
                    recalled.push((device, described));
                }
                // It was readable when it was kept, so it was damaged since, or we read more strictly now.
                _ => {
                    tracing::warn!(%device, "what it said of itself last cannot be used; it is unknown until it comes")
                }
            }
        }
        recalled
    }

    /// Keeps what a device says of itself, over what it said before. Returns when it is on disk, or cannot be.
    pub async fn keep(&self, device: DeviceName, described: Described) {
        let text = described.description.document.to_string();
        match self.try_keep(&device, &text).await {
            Ok(()) => tracing::debug!(%device, "what it says of itself is kept over restarts"),
            Err(error) => {
                tracing::warn!(%device, %error, "what it says of itself is not kept over restarts");
            }
        }
    }

    async fn try_keep(&self, device: &DeviceName, text: &str) -> Result<(), StoreError> {
        let pieces = cut(text);
        if pieces.len() > PIECES_MAX {
            return Err(StoreError::ValueTooLarge {
                bytes: text.len(),
                limit: PIECES_MAX * PIECE_BYTES,
            });
        }
        let before = self.pieces_of(device).await?;
        let is_same = before.len() == pieces.len()
            && before
                .values()
                .zip(&pieces)
                .all(|(before, now)| before.text == *now);
        if is_same {
            return Ok(());
        }
        let mut writes = Vec::new();
        for (number, text) in pieces.iter().enumerate() {
            let piece = Piece {
                pieces: pieces.len(),
                text: (*text).to_owned(),
            };
            let value = Versioned::encode(FORMAT, &piece)?;
            writes.push(Write::put(Tree::Twin, key(device, number)?, value));
        }
        for number in pieces.len()..before.len() {
            writes.push(Write::remove(Tree::Twin, key(device, number)?));
        }
        self.0.commit(Batch::new(writes)?).await.map(drop)
    }

    async fn forget(&self, device: &DeviceName, pieces: usize) {
        let writes = (0..pieces).map(|number| Ok(Write::remove(Tree::Twin, key(device, number)?)));
        let batch = writes
            .collect::<Result<_, StoreError>>()
            .and_then(Batch::new);
        let result = match batch {
            Ok(batch) => self.0.commit(batch).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            tracing::debug!(%device, %error, "what it said of itself is forgotten another time");
        }
    }

    async fn pieces_of(&self, device: &DeviceName) -> Result<BTreeMap<usize, Piece>, StoreError> {
        let scan = Scan::first(Tree::Twin, format!("{PREFIX}{device}/"), SCAN_LIMIT_MAX);
        let found = self.0.scan(scan).await?;
        Ok(found
            .iter()
            .filter_map(|(key, value)| Some((parse(key, value)?.1, parse(key, value)?.2)))
            .collect())
    }

    async fn pieces(&self) -> Result<BTreeMap<DeviceName, BTreeMap<usize, Piece>>, StoreError> {
        let mut all: BTreeMap<DeviceName, BTreeMap<usize, Piece>> = BTreeMap::new();
        let mut scan = Scan::first(Tree::Twin, PREFIX, SCAN_LIMIT_MAX);
        loop {
            let page = self.0.scan(scan.clone()).await?;
            let Some((last, _)) = page.last() else {
                return Ok(all);
            };
            scan = scan.after(last.clone());
            for (key, value) in &page {
                if let Some((device, number, piece)) = parse(key, value) {
                    all.entry(device).or_default().insert(number, piece);
                }
            }
        }
    }
}

fn key(device: &DeviceName, number: usize) -> Result<Key, StoreError> {
    Key::new(format!("{PREFIX}{device}/{number:03}"))
}

fn parse(key: &Key, value: &Versioned) -> Option<(DeviceName, usize, Piece)> {
    let (device, number) = key.as_str().strip_prefix(PREFIX)?.rsplit_once('/')?;
    let piece = value.decode().ok().filter(|_| value.format() == FORMAT)?;
    Some((DeviceName(device.to_owned()), number.parse().ok()?, piece))
}

fn described(text: &str) -> Option<Described> {
    let description = ThingDescription::from_json(text).ok()?;
    let schemas = ThingSchemas::compile(&description).ok()?;
    Some(Described {
        description: description.into(),
        schemas: schemas.into(),
    })
}

/// Cuts a text into pieces of [`PIECE_BYTES`] at most, between characters.
fn cut(mut text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    while !text.is_empty() {
        let end = text.floor_char_boundary(PIECE_BYTES);
        let (piece, rest) = text.split_at(end);
        pieces.push(piece);
        text = rest;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use crate::store::{ExportPolicy, Store, StoreConfig};

    use super::*;

    fn thing(title: &str, padding: usize) -> Described {
        let text = serde_json::json!({
            "id": "urn:test:thing",
            "title": title,
            // Of characters that double in JSON, or have several bytes.
            "description": "\"ä".repeat(padding),
        });
        described(&text.to_string()).unwrap()
    }

    fn open(directory: &std::path::Path) -> Store {
        let config = StoreConfig {
            state_directory: directory.to_owned(),
            export: ExportPolicy::default(),
        };
        Store::open(config, SystemTime::now()).unwrap()
    }

    async fn recalled(memory: &Memory, devices: &[&str]) -> Vec<(String, String, usize)> {
        let devices = devices.iter().map(|name| DeviceName((*name).to_owned()));
        let recalled = memory.recall(&devices.collect()).await;
        let shown = recalled.into_iter().map(|(device, described)| {
            let length = described.description.document.to_string().len();
            (device.0, described.description.title.clone(), length)
        });
        shown.collect()
    }

    #[tokio::test]
    async fn a_description_of_any_length_outlives_the_daemon() {
        let directory = tempfile::tempdir().unwrap();
        let length = |title: &str, padding| {
            let described = thing(title, padding);
            described.description.document.to_string().len()
        };
        let desk = DeviceName("desk".to_owned());
        for (title, padding) in [("short", 3), ("long", 20_000), ("short again", 1)] {
            let store = open(directory.path());
            Memory::new(store.handle())
                .keep(desk.clone(), thing(title, padding))
                .await;
            store.shutdown();
            let store = open(directory.path());
            let memory = Memory::new(store.handle());
            assert_eq!(
                recalled(&memory, &["desk", "other"]).await,
                [("desk".to_owned(), title.to_owned(), length(title, padding))]
            );
            store.shutdown();
        }
    }

    #[tokio::test]
    async fn devices_that_are_configured_no_more_are_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        let memory = Memory::new(store.handle());
        for name in ["desk", "desk-2"] {
            memory
                .keep(DeviceName(name.to_owned()), thing(name, 5_000))
                .await;
        }
        assert_eq!(recalled(&memory, &["desk-2"]).await.len(), 1);
        let left = recalled(&memory, &["desk", "desk-2"]).await;
        assert_eq!(left.len(), 1, "{left:?}");
        assert_eq!(left[0].0, "desk-2");
        store.shutdown();
    }

    #[tokio::test]
    async fn a_description_that_is_too_long_is_not_kept_and_nothing_else_suffers() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        let memory = Memory::new(store.handle());
        let desk = DeviceName("desk".to_owned());
        memory.keep(desk.clone(), thing("known", 1)).await;
        memory.keep(desk, thing("too long", 60_000)).await;
        let left = recalled(&memory, &["desk"]).await;
        assert_eq!(left[0].1, "known");
        store.shutdown();
    }
}
