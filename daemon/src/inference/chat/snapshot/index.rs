//! Which beginnings of conversations lie on disk: pure, no file and no clock.
//!
//! A conversation lies there in *segments*, each the key-value cache of the tokens `from..to`, known by a digest of all tokens up to
//! `to`. A turn adds segments and never writes an old one again; conversations that begin alike share their first ones. What is
//! needed least recently goes first, from the end of a conversation backwards; what was needed last is what a new process takes in first
//! ([`Index::recent`]).

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

/// A digest of the model's fingerprint and of tokens from the first one on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in super::super) struct PrefixId([u8; 16]);

impl PrefixId {
    /// `fingerprint` says which model, layout, element type, provider and runtime computed the cache.
    pub(in super::super) fn of(fingerprint: &str, tokens: &[u32]) -> Self {
        let mut digest = Sha256::new();
        digest.update((fingerprint.len() as u64).to_le_bytes());
        digest.update(fingerprint);
        for token in tokens {
            digest.update(token.to_le_bytes());
        }
        let mut id = [0; 16];
        id.copy_from_slice(&digest.finalize()[..16]);
        Self(id)
    }

    /// 32 hexadecimal digits: key of the record and name of the file.
    pub(in super::super) fn name(&self) -> String {
        hex::encode(self.0)
    }

    pub(in super::super) fn from_name(name: &str) -> Option<Self> {
        let mut id = [0; 16];
        hex::decode_to_slice(name, &mut id).ok()?;
        Some(Self(id))
    }
}

/// One segment. `from < to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Segment {
    /// The tokens before it; the digest of none for a first segment.
    pub(in super::super) parent: PrefixId,
    pub(in super::super) from: usize,
    pub(in super::super) to: usize,
    pub(in super::super) bytes: u64,
    /// SHA-256 of the file.
    pub(in super::super) sha256: [u8; 32],
    /// Grows with each use. The record follows it once in a while ([`Index::take_touched`]): a use is not worth a write to the disk.
    pub(in super::super) used: u64,
}

/// Shorter segments are not worth a file: the default model reads so many tokens anew in some 25 ms.
const SEGMENT_TOKENS_MIN: usize = 8;

/// Tokens of most segments. A segment serves only prompts that agree with all of it, so that short ones serve more; each costs some
/// syncs of the disk.
const SEGMENT_TOKENS: usize = 64;

/// What is shorter than this is not cut once more.
const SEGMENT_TOKENS_MAX: usize = 96;

/// Where to cut the tokens from `from` on, which are a prompt up to `prompt` and an answer up to `all`; the ends of the segments. The
/// next turn may write the answer in other tokens, so one segment ends with the prompt. What is left over is kept with a later turn.
pub(in super::super) fn cuts(from: usize, prompt: usize, all: usize) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = from;
    for stop in [prompt.min(all), all] {
        while stop >= at + SEGMENT_TOKENS_MAX {
            at += SEGMENT_TOKENS;
            ends.push(at);
        }
        if stop >= at + SEGMENT_TOKENS_MIN {
            at = stop;
            ends.push(at);
        }
    }
    ends
}

/// What lies on disk.
#[derive(Debug, Default)]
pub(in super::super) struct Index {
    segments: BTreeMap<PrefixId, Segment>,
    bytes: u64,
    clock: u64,
    /// Used since their records were written.
    touched: BTreeSet<PrefixId>,
}

impl Index {
    pub(in super::super) fn insert(&mut self, id: PrefixId, segment: Segment) {
        self.clock = self.clock.max(segment.used);
        if let Some(old) = self.segments.insert(id, segment) {
            self.bytes -= old.bytes;
        }
        self.bytes += segment.bytes;
    }

    pub(in super::super) fn remove(&mut self, id: &PrefixId) -> Option<Segment> {
        let segment = self.segments.remove(id)?;
        self.touched.remove(id);
        self.bytes -= segment.bytes;
        Some(segment)
    }

    pub(in super::super) fn has(&self, id: &PrefixId) -> bool {
        self.segments.contains_key(id)
    }

    #[cfg(test)]
    fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A value for [`Segment::used`] that is later than all before it.
    pub(in super::super) fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// The segments that hold the longest beginning of `tokens`, from the first token on; none reaches beyond `tokens`. They are
    /// noted as used.
    pub(in super::super) fn chain(
        &mut self,
        fingerprint: &str,
        tokens: &[u32],
    ) -> Vec<(PrefixId, Segment)> {
        let mut chain = Vec::new();
        let mut parent = PrefixId::of(fingerprint, &[]);
        let mut from = 0;
        loop {
            let next = self
                .segments
                .iter()
                .filter(|(_, segment)| {
                    segment.parent == parent && segment.from == from && segment.to <= tokens.len()
                })
                .filter(|(id, segment)| PrefixId::of(fingerprint, &tokens[..segment.to]) == **id)
                .max_by_key(|(_, segment)| segment.to)
                .map(|(&id, &segment)| (id, segment));
            // `from < to` holds for all that were made here; what a store says may be anything, and must not make this run for ever.
            let Some((id, segment)) = next.filter(|(_, segment)| segment.to > from) else {
                break;
            };
            (parent, from) = (id, segment.to);
            chain.push((id, segment));
        }
        // One moment for all, so that of a conversation the end goes first, which nothing builds on.
        let used = self.tick();
        for (id, _) in &chain {
            if let Some(segment) = self.segments.get_mut(id) {
                segment.used = used;
                self.touched.insert(*id);
            }
        }
        chain
    }

    /// The conversations of a model that were used last, the latest first: each as its segments from the first token on. At most `count` of them,
    /// and `bytes` together: one that is too large for what is left is passed over. One that only adds a segment to those of a later one is left out: it is that one's own past, an answer as it was first written.
    pub(in super::super) fn recent(
        &self,
        fingerprint: &str,
        count: usize,
        bytes: u64,
    ) -> Vec<Vec<(PrefixId, Segment)>> {
        let root = PrefixId::of(fingerprint, &[]);
        let parents: BTreeSet<PrefixId> = self.segments.values().map(|it| it.parent).collect();
        let mut ends: Vec<(&PrefixId, &Segment)> = self.segments.iter().collect();
        ends.retain(|(id, _)| !parents.contains(id));
        ends.sort_by_key(|(id, end)| (std::cmp::Reverse((end.used, end.to)), **id));
        let mut taken = BTreeSet::new();
        let mut left = bytes;
        let mut recent = Vec::new();
        for (&id, end) in ends {
            if recent.len() >= count {
                break;
            }
            if taken.contains(&end.parent) {
                continue;
            }
            let Some(chain) = self.back_from(id, root) else {
                continue;
            };
            let size: u64 = chain.iter().map(|(_, it)| it.bytes).sum();
            if size > left {
                continue;
            }
            left -= size;
            taken.extend(chain.iter().map(|(id, _)| *id));
            recent.push(chain);
        }
        recent
    }

    /// The segments from the first token on that end with this one; `None` when one is missing, or they are another model's.
    fn back_from(&self, end: PrefixId, root: PrefixId) -> Option<Vec<(PrefixId, Segment)>> {
        let mut chain = Vec::new();
        let mut at = end;
        let mut until = usize::MAX;
        while at != root {
            let segment = *self.segments.get(&at)?;
            // What a store says may be anything, and must not make this run for ever.
            if segment.from >= segment.to || segment.to > until {
                return None;
            }
            chain.push((at, segment));
            (at, until) = (segment.parent, segment.from);
        }
        chain.reverse();
        (until == 0).then_some(chain)
    }

    /// What was used since the last call, for its records.
    pub(in super::super) fn take_touched(&mut self) -> Vec<(PrefixId, Segment)> {
        let touched = std::mem::take(&mut self.touched).into_iter();
        touched
            .filter_map(|id| Some((id, *self.segments.get(&id)?)))
            .collect()
    }

    /// Their records could not be written; they are due again.
    pub(in super::super) fn touch_again(&mut self, ids: impl IntoIterator<Item = PrefixId>) {
        self.touched.extend(ids);
    }

    /// What has to go so that all takes at most `limit` bytes: the least recently used, and of those the later segments first.
    pub(in super::super) fn surplus(&self, limit: u64) -> Vec<PrefixId> {
        let mut order: Vec<_> = self.segments.iter().collect();
        order.sort_by_key(|(id, segment)| (segment.used, std::cmp::Reverse(segment.from), **id));
        let mut bytes = self.bytes;
        order
            .into_iter()
            .take_while(|(_, segment)| {
                let goes = bytes > limit;
                bytes = bytes.saturating_sub(segment.bytes);
                goes
            })
            .map(|(&id, _)| id)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MODEL: &str = "a model";

    /// Adds the segments of a conversation that ends at each of `ends`.
    fn add(index: &mut Index, tokens: &[u32], ends: &[usize]) {
        let mut from = 0;
        for &to in ends {
            let parent = PrefixId::of(MODEL, &tokens[..from]);
            let used = index.tick();
            let segment = Segment {
                parent,
                from,
                to,
                bytes: (to - from) as u64,
                sha256: [0; 32],
                used,
            };
            index.insert(PrefixId::of(MODEL, &tokens[..to]), segment);
            from = to;
        }
    }

    fn held(index: &mut Index, tokens: &[u32]) -> usize {
        index
            .chain(MODEL, tokens)
            .last()
            .map_or(0, |(_, segment)| segment.to)
    }

    #[test]
    fn the_longest_whole_beginning_is_found_and_another_models_is_not() {
        let mut index = Index::default();
        add(&mut index, &[1, 2, 3, 4, 5, 6], &[2, 4, 6]);
        assert_eq!(held(&mut index, &[1, 2, 3, 4, 5, 6, 7]), 6);
        assert_eq!(held(&mut index, &[1, 2, 3, 4, 9]), 4);
        assert_eq!(held(&mut index, &[1, 2, 3]), 2);
        assert_eq!(held(&mut index, &[9, 2, 3]), 0);
        assert!(index.chain("another model", &[1, 2, 3, 4]).is_empty());
    }

    #[test]
    fn what_is_needed_least_goes_first_and_the_shared_beginning_last() {
        let mut index = Index::default();
        add(&mut index, &[1, 2, 3, 4], &[2, 4]);
        add(&mut index, &[1, 2, 5, 6], &[2, 4]);
        held(&mut index, &[1, 2, 3, 4]);
        for id in index.surplus(4) {
            index.remove(&id);
        }
        assert_eq!(index.bytes(), 4);
        assert_eq!(held(&mut index, &[1, 2, 3, 4]), 4);
        assert_eq!(held(&mut index, &[1, 2, 5, 6]), 2);
        assert!(index.surplus(4).is_empty());
    }

    #[test]
    fn the_latest_conversations_come_first_and_their_own_past_not_at_all() {
        let ends = |index: &Index, model, count, bytes| -> Vec<Vec<usize>> {
            let recent = index.recent(model, count, bytes);
            let ends = |chain: &Vec<(_, Segment)>| chain.iter().map(|(_, it)| it.to).collect();
            recent.iter().map(ends).collect()
        };
        let mut index = Index::default();
        add(&mut index, &[1, 2, 3, 4, 5, 6], &[2, 4, 6]);
        add(&mut index, &[7, 8], &[2]);
        // The first one goes on, with its answer in other tokens.
        add(&mut index, &[1, 2, 3, 4, 9], &[2, 4, 5]);
        assert_eq!(ends(&index, MODEL, 9, 99), [vec![2, 4, 5], vec![2]]);
        assert_eq!(ends(&index, MODEL, 1, 99), [[2, 4, 5]]);
        assert_eq!(ends(&index, MODEL, 9, 6), [[2, 4, 5]]);
        assert_eq!(ends(&index, MODEL, 9, 4), [[2]]);
        assert_eq!(ends(&index, "another model", 9, 99), [[0usize; 0]; 0]);
        // Without its beginning there is no conversation.
        index.remove(&PrefixId::of(MODEL, &[1, 2]));
        assert_eq!(ends(&index, MODEL, 9, 99), [[2]]);
    }

    #[test]
    fn segments_are_cut_alike_from_the_first_token_on_and_end_with_the_prompt() {
        assert_eq!(cuts(0, 200, 240), [64, 128, 200, 240]);
        assert_eq!(cuts(0, 116, 130), [64, 116, 130]);
        assert_eq!(cuts(116, 180, 187), [180]);
        assert_eq!(cuts(0, 5, 7), [0usize; 0]);
        for all in 0..400 {
            let ends = cuts(0, all / 2, all);
            let sizes = std::iter::once(&0)
                .chain(&ends)
                .zip(&ends)
                .map(|(from, to)| to - from);
            assert!(
                sizes
                    .clone()
                    .all(|size| { (SEGMENT_TOKENS_MIN..SEGMENT_TOKENS_MAX).contains(&size) })
            );
            assert!(all - ends.last().unwrap_or(&0) < 2 * SEGMENT_TOKENS_MIN);
        }
    }

    #[test]
    fn a_record_that_says_nonsense_ends_the_chain() {
        let mut index = Index::default();
        let id = PrefixId::of(MODEL, &[]);
        let segment = Segment {
            parent: id,
            from: 0,
            to: 0,
            bytes: 1,
            sha256: [0; 32],
            used: u64::MAX - 5,
        };
        index.insert(id, segment);
        assert!(index.chain(MODEL, &[1]).is_empty());
        assert!(index.recent(MODEL, 9, 99).is_empty());
    }

    proptest! {
        #[test]
        fn a_chain_is_gapless_and_holds_what_was_asked(
            stories in prop::collection::vec((prop::collection::vec(0u32..2, 1..12), prop::collection::vec(1usize..12, 1..4)), 0..6),
            asked in prop::collection::vec(0u32..2, 0..14),
            limit in 0u64..40,
        ) {
            let mut index = Index::default();
            for (tokens, ends) in &stories {
                let mut ends: Vec<usize> = ends.iter().map(|end| (*end).min(tokens.len())).collect();
                ends.sort_unstable();
                ends.dedup();
                add(&mut index, tokens, &ends);
            }
            let before = index.bytes();
            for id in index.surplus(limit) {
                index.remove(&id);
            }
            prop_assert!(index.bytes() <= limit && index.bytes() <= before);
            let mut from = 0;
            for (id, segment) in index.chain(MODEL, &asked) {
                prop_assert_eq!(segment.from, from);
                from = segment.to;
                prop_assert_eq!(id, PrefixId::of(MODEL, &asked[..from]));
            }
            let recent = index.recent(MODEL, 3, limit);
            prop_assert!(recent.len() <= 3);
            prop_assert!(recent.iter().flatten().map(|(_, it)| it.bytes).sum::<u64>() <= limit);
            for chain in recent {
                let froms = std::iter::once(0).chain(chain.iter().map(|(_, it)| it.to));
                prop_assert!(chain.iter().zip(froms).all(|((_, it), from)| it.from == from));
            }
        }
    }
}
