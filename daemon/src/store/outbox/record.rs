//! How a message of the outbox lies on disk: its key, its record, and what the index knows of it.
//!
//! Never reads or writes: [`super::Outbox`] does.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::index::{Header, Lane, Place};
use super::{Message, OutboxError};
use crate::store::{Key, StoreError, Tree, Versioned};

/// Format of [`Record`].
const FORMAT: u8 = 1;

/// The stored form of a message.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) id: String,
    pub(super) topic: String,
    pub(super) payload: Value,
    retain: bool,
    /// In base 16, since JSON has no bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    correlation: Option<String>,
    accepted_unix_ms: u64,
    lifetime_ms: Option<u64>,
    latest_only: bool,
}

/// `<lane>/<number>`: keys sort by urgency, then by age.
pub(super) fn key_of(place: Place) -> Result<Key, StoreError> {
    Key::new(format!("{}/{:016x}", place.lane.at(), place.number))
}

pub(super) fn place_of(key: &Key) -> Option<Place> {
    let (lane, number) = key.as_str().split_once('/')?;
    Some(Place {
        lane: Lane::from_digit(lane)?,
        number: u64::from_str_radix(number, 16).ok()?,
    })
}

pub(super) fn encode(message: &Message, now_ms: u64) -> Result<(Versioned, Record), OutboxError> {
    let record = Record {
        id: message.id.clone(),
        topic: message.topic.clone(),
        payload: message.payload.clone(),
        retain: message.retain,
        correlation: message.correlation.as_deref().map(hex::encode),
        accepted_unix_ms: now_ms,
        lifetime_ms: message
            .lifetime
            .map(|lifetime| u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX)),
        latest_only: message.is_latest_only,
    };
    match Versioned::encode(FORMAT, &record) {
        Ok(value) => Ok((value, record)),
        Err(source @ StoreError::ValueTooLarge { .. }) => Err(OutboxError::TooLarge {
            topic: record.topic,
            source,
        }),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn decode(value: &Versioned) -> Result<Record, StoreError> {
    match value.format() {
        FORMAT => value.decode(),
        format => Err(StoreError::UnknownFormat {
            tree: Tree::Outbox,
            format,
        }),
    }
}

pub(super) fn header(key: &Key, value: &Versioned, record: &Record) -> Header {
    Header {
        bytes: (key.as_str().len() + value.as_bytes().len()) as u64,
        accepted_ms: record.accepted_unix_ms,
        lifetime_ms: record.lifetime_ms,
        latest_of: record.latest_only.then(|| record.topic.clone()),
    }
}

pub(super) fn message(lane: Lane, record: Record, left_ms: Option<u64>) -> Message {
    Message {
        lane,
        id: record.id,
        topic: record.topic,
        payload: record.payload,
        retain: record.retain,
        correlation: record
            .correlation
            .as_deref()
            .and_then(|text| hex::decode(text).ok()),
        lifetime: left_ms.map(Duration::from_millis),
        is_latest_only: record.latest_only,
    }
}
