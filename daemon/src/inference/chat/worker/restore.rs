//! Caches from the disk, read and compared with their digests on a thread of their own: a long conversation has 25 MB of them, and meanwhile
//! others are answered.
//!
//! The model's thread asks when it gives a conversation its slot, and takes in one segment after the other as they arrive. Segments come in their
//! order and without a gap; the first that is not what its record says ends it, and the rest is computed.
//!
//! A model that has just been loaded takes in the latest conversations by itself ([`Chat::bring_back`]), so that those who were talking when the plug
//! was pulled wait for nothing.

use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
};

use super::{
    super::{
        cache::slots::SequenceId,
        desk::ALWAYS_COMPUTED,
        snapshot::{
            KeptCache, Shelf,
            index::{PrefixId, Segment},
        },
    },
    Chat,
    encode::Prepared,
};

/// What may wait for the model's thread, segments of 0.8 MB with the default model for the most part. Chosen because that thread looks between any two
/// runs, and a disk needs no longer lead.
pub(super) const ARRIVALS: usize = 4;

/// Bytes of files that are taken in before the first request. Chosen because they delay a model's readiness by some 100 ms, and are four conversations of
/// 1,400 tokens with the default model.
const BROUGHT_BACK_MAX: u64 = 64 << 20;

/// What the model's thread is told by its helpers. They wait while it is busy.
pub(super) enum Arrival {
    /// A request needs a row.
    Prepared(Box<Prepared>),
    /// The next part of a cache.
    Segment {
        id: SequenceId,
        tokens: Range<usize>,
        bytes: Vec<u8>,
    },
    /// There is no more of it.
    Restored(SequenceId),
    /// One of those who prepare requests has gone.
    Left,
}

/// One cache to be read.
pub(super) struct Restore {
    pub(super) id: SequenceId,
    pub(super) segments: Vec<(PrefixId, Segment)>,
    pub(super) is_wanted: Arc<AtomicBool>,
}

/// A conversation whose cache is on its way.
pub(super) struct Restoring {
    pub(super) is_wanted: Arc<AtomicBool>,
    /// Tokens that its slot holds by now.
    pub(super) held: usize,
    pub(super) dropped_messages: usize,
}

impl Drop for Restoring {
    fn drop(&mut self) {
        self.is_wanted.store(false, Ordering::Relaxed);
    }
}

/// Starts the thread. It ends when nobody can ask any more. At most one request for each slot waits for it.
pub(super) fn spawn<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    shelf: Arc<Shelf>,
    arrivals: mpsc::SyncSender<Arrival>,
) -> mpsc::Sender<Restore> {
    let (asks, asked) = mpsc::channel::<Restore>();
    scope.spawn(move || {
        while let Ok(restore) = asked.recv() {
            let id = restore.id;
            // Whatever happens, the conversation goes on.
            let read = catch_unwind(AssertUnwindSafe(|| read(&shelf, restore, &arrivals)));
            if matches!(read, Ok(false)) || arrivals.send(Arrival::Restored(id)).is_err() {
                return;
            }
        }
    });
    asks
}

/// `false` when nobody takes anything any more.
fn read(shelf: &Shelf, restore: Restore, arrivals: &mpsc::SyncSender<Arrival>) -> bool {
    for (name, segment) in restore.segments {
        if !restore.is_wanted.load(Ordering::Relaxed) {
            break;
        }
        let Some(KeptCache { bytes, .. }) = shelf.read(name, &segment) else {
            break;
        };
        let arrival = Arrival::Segment {
            id: restore.id,
            tokens: segment.from..segment.to,
            bytes,
        };
        if arrivals.send(arrival).is_err() {
            return false;
        }
    }
    true
}

impl Chat {
    /// Takes the latest conversations in, before the first request. Whatever is wrong with one of them, it is read when it goes on, or computed.
    pub(super) fn bring_back(&mut self, conversations: usize) {
        let Some(shelf) = self.shelf.clone() else {
            return;
        };
        let mut held = 0;
        // The latest comes last, so that it is the last to make room.
        for chain in shelf.recent(conversations, BROUGHT_BACK_MAX).iter().rev() {
            held += self.bring_one_back(&shelf, chain).unwrap_or(0);
        }
        if held > 0 {
            tracing::info!(model = %self.bundle, tokens = held, "the latest conversations are in memory again");
        }
    }

    /// One conversation; gives its tokens.
    fn bring_one_back(&mut self, shelf: &Shelf, chain: &[(PrefixId, Segment)]) -> Option<usize> {
        if !chain
            .iter()
            .all(|(id, segment)| shelf.is_there(*id, segment))
        {
            return None;
        }
        let caches: Vec<KeptCache> = chain
            .iter()
            .map(|(id, segment)| shelf.read(*id, segment))
            .collect::<Option<_>>()?;
        let tokens: Vec<u32> = caches.iter().flat_map(|it| &it.tokens).copied().collect();
        if !chain
            .last()
            .is_some_and(|(id, _)| shelf.is_of(*id, &tokens))
        {
            return None;
        }
        let slot = self.desk.slots.place(&tokens)?;
        for ((_, segment), cache) in chain.iter().zip(&caches) {
            let imported = self
                .graph
                .import(slot, segment.from..segment.to, &cache.bytes);
            if !matches!(imported, Ok(true)) {
                self.graph.release(slot);
                self.desk.slots.note_released(slot);
                return None;
            }
        }
        Some(tokens.len())
    }

    /// Asks for what the disk has of a prompt and memory has not; `false` when that is nothing.
    pub(super) fn ask_for_cache(
        &mut self,
        id: SequenceId,
        held: usize,
        dropped_messages: usize,
        reads: Option<&mpsc::Sender<Restore>>,
    ) -> bool {
        let (Some(shelf), Some(reads)) = (&self.shelf, reads) else {
            return false;
        };
        let Some(sequence) = self.desk.sequence_mut(id) else {
            return false;
        };
        let prompt = sequence.known();
        let usable = prompt.len().saturating_sub(ALWAYS_COMPUTED);
        let mut segments = shelf.chain(prompt);
        // The segments follow one another without a gap, so the slot holds all that is before the first of these.
        segments.retain(|(_, segment)| segment.to > held && segment.from < usable);
        if held >= usable || segments.is_empty() {
            return false;
        }
        let is_wanted = Arc::new(AtomicBool::new(true));
        let restore = Restore {
            id,
            segments,
            is_wanted: Arc::clone(&is_wanted),
        };
        if reads.send(restore).is_err() {
            return false;
        }
        let restoring = Restoring {
            is_wanted,
            held,
            dropped_messages,
        };
        self.restoring.insert(id, restoring);
        true
    }

    /// Takes a part of a cache in.
    pub(super) fn import(&mut self, id: SequenceId, tokens: Range<usize>, bytes: &[u8]) {
        let (Some(restoring), Some(slot)) =
            (self.restoring.get_mut(&id), self.desk.slots.slot_of(id))
        else {
            return;
        };
        match self.graph.import(slot, tokens.clone(), bytes) {
            Ok(true) => {
                let known = self.desk.sequence_mut(id).map_or(0, |it| it.known().len());
                restoring.held = tokens.end.min(known.saturating_sub(ALWAYS_COMPUTED));
                self.desk.slots.touch(slot, tokens.end);
                self.desk.note_restored(id, restoring.held);
                return;
            }
            Ok(false) => {
                tracing::warn!(
                    bytes = bytes.len(),
                    tokens = tokens.len(),
                    "a conversation's cache has another shape than the model's"
                );
            }
            Err(error) => {
                tracing::warn!(%error, "a conversation's cache cannot be taken in");
            }
        }
        self.end_restoring(id);
    }

    /// What has come of a cache is all; the rest is computed.
    pub(super) fn end_restoring(&mut self, id: SequenceId) {
        let Some(restoring) = self.restoring.remove(&id) else {
            return;
        };
        self.desk.hold(id, false);
        if let Some(sequence) = self.desk.sequence_mut(id) {
            sequence.start(restoring.held, restoring.dropped_messages, &self.bundle);
        }
    }
}
