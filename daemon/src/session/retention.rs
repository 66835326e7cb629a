//! Which conversations are to be forgotten. Pure: the records and the time come in, ids go out.

use std::time::{Duration, SystemTime};

use super::record::{SessionRecord, unix_ms};

/// How much of conversations is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Turns of one session, at most 512: one batch must hold a whole session to delete it as a whole.
    pub turns_max: u64,
    /// Sessions; when one more is begun the one that was quiet longest goes.
    pub sessions_max: usize,
    /// A session that was quiet for longer is forgotten.
    pub age_max: Duration,
}

/// Highest [`Retention::turns_max`].
pub(super) const TURNS_MAX: u64 = 512;

impl Default for Retention {
    /// 512 turns, 200 sessions, 30 days: chosen so that full sessions of usual length (300 bytes a turn) stay below the trees' quotas.
    fn default() -> Self {
        Self {
            turns_max: TURNS_MAX,
            sessions_max: 200,
            age_max: Duration::from_secs(30 * 24 * 3600),
        }
    }
}

/// The ids to forget at `now` so that `room_for` more sessions fit: first those that are too old, then those that were quiet longest.
/// A session that was updated in the future (the clock was set back) is not too old.
pub fn to_forget(
    records: &[SessionRecord],
    room_for: usize,
    policy: Retention,
    now: SystemTime,
) -> Vec<String> {
    let age_max_ms = u64::try_from(policy.age_max.as_millis()).unwrap_or(u64::MAX);
    let oldest_kept = unix_ms(now).saturating_sub(age_max_ms);
    let mut by_update: Vec<&SessionRecord> = records.iter().collect();
    by_update.sort_by_key(|record| (record.updated_unix_ms, &record.id));
    let too_old = by_update.partition_point(|record| record.updated_unix_ms < oldest_kept);
    let too_many = (records.len() + room_for).saturating_sub(policy.sessions_max);
    let count = too_old.max(too_many).min(records.len());
    by_update[..count]
        .iter()
        .map(|record| record.id.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;
    use crate::session::record::SessionId;

    fn updated_at(seconds: u64, id: usize) -> SessionRecord {
        let id = SessionId::new(format!("s{id}")).unwrap();
        SessionRecord::begin(&id, UNIX_EPOCH + Duration::from_secs(seconds))
    }

    proptest! {
        #[test]
        fn what_stays_is_young_enough_few_enough_and_younger_than_what_goes(
            updates in proptest::collection::vec(0_u64..200, 0..30),
            sessions_max in 1_usize..20,
            age in 1_u64..100,
            now in 0_u64..250,
            room_for in 0_usize..2,
        ) {
            let records: Vec<_> = updates.iter().enumerate().map(|(id, &at)| updated_at(at, id)).collect();
            let policy = Retention { turns_max: 1, sessions_max, age_max: Duration::from_secs(age) };
            let now_time = UNIX_EPOCH + Duration::from_secs(now);
            let gone = to_forget(&records, room_for, policy, now_time);
            let (gone, kept): (Vec<_>, Vec<_>) = records.iter().partition(|record| gone.contains(&record.id));
            prop_assert!(kept.len() + room_for <= sessions_max.max(room_for));
            prop_assert!(kept.iter().all(|record| record.updated_unix_ms / 1000 + age >= now));
            let oldest_kept = kept.iter().map(|record| record.updated_unix_ms).min().unwrap_or(u64::MAX);
            prop_assert!(gone.iter().all(|record| record.updated_unix_ms <= oldest_kept));
            let is_needed = gone.iter().any(|record| record.updated_unix_ms / 1000 + age < now)
                || records.len() + room_for > sessions_max;
            prop_assert!(gone.is_empty() || is_needed);
        }
    }
}
