//! What the writer of `store-writer --outbox` puts, and whether it is all there after a crash.

use std::collections::BTreeSet;
use std::time::Duration;

use autoglm_edge::store::outbox::{self, Lane, LaneQuota, Limits, Message};
use autoglm_edge::store::{StoreError, StoreHandle};
use serde_json::json;

/// Quotas that the writer never reaches.
#[must_use]
pub fn outbox_limits() -> Limits {
    let quota = LaneQuota {
        entries_max: 10_000,
        bytes_max: 4 * 1024 * 1024,
    };
    Limits {
        results: quota,
        events: quota,
        telemetry: quota,
    }
}

/// Message number `number`; sizes differ, so that pages split at different places.
#[must_use]
pub fn outbox_message(number: u64) -> Message {
    let filler = usize::try_from(number % 97).unwrap_or_default() * 20;
    Message {
        lane: Lane::Events,
        id: number.to_string(),
        topic: format!("box/event/{}", number % 7),
        payload: json!({"number": number, "filler": "x".repeat(filler)}),
        retain: false,
        correlation: None,
        lifetime: Some(Duration::from_secs(604_800)),
        is_latest_only: false,
    }
}

/// What a writer has printed: its lines in, what it owes out.
#[derive(Debug, Clone, Default)]
pub struct Owed {
    acknowledged: BTreeSet<u64>,
    clearing: BTreeSet<u64>,
}

impl Owed {
    /// Takes a line of the writer; others than its two kinds are ignored.
    pub fn take(&mut self, line: &str) {
        let number = |prefix: &str| line.strip_prefix(prefix)?.parse::<u64>().ok();
        self.acknowledged.extend(number("ACK "));
        self.clearing.extend(number("CLEARING "));
    }

    /// Messages that were acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// The number after the last that was acknowledged.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.acknowledged.last().map_or(0, |last| last + 1)
    }

    /// Strikes out what is known to be lost.
    pub fn forget(&mut self, lost: &[u64]) {
        self.clearing.extend(lost);
    }

    /// What was acknowledged, is not said to be removed, and is not among `found`.
    #[must_use]
    pub fn missing(&self, found: &BTreeSet<u64>) -> Vec<u64> {
        let owed = self.acknowledged.difference(&self.clearing);
        owed.filter(|number| !found.contains(number))
            .copied()
            .collect()
    }
}

/// The numbers of the messages that a store holds.
///
/// # Errors
/// When the store cannot be read.
pub async fn found(store: &StoreHandle) -> Result<BTreeSet<u64>, StoreError> {
    let ids = outbox::ids(store).await?;
    Ok(ids.iter().filter_map(|(_, id)| id.parse().ok()).collect())
}
