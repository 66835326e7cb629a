//! Who is being served: sequences with their slots, and what becomes of the logits. No model; [`worker`](super::worker) runs it.

use std::collections::BTreeMap;

use super::{
    super::{class::Class, error::InferenceError},
    Finish,
    batch::{Batch, Step},
    cache::slots::{Claim, SequenceId, Slots},
    sequence::{Ended, Sequence},
};

/// The last tokens of a prompt that are computed even if a cache holds them: the logits come from the last one, and a single one would
/// be computed by the other kernel (see [`in_place`](super::graph::in_place)).
pub(super) const ALWAYS_COMPUTED: usize = 2;

/// The sequences in the engine.
pub(super) struct Desk {
    pub(super) slots: Slots,
    batch: Batch,
    sequences: BTreeMap<SequenceId, Sequence>,
    /// Sequences that came to their end since this was last asked for.
    finished: Vec<Finished>,
    /// Sequences that are over, however, since this was last asked for.
    ended: Vec<SequenceId>,
}

/// What a sequence that came to its end left in its slot.
pub(super) struct Finished {
    pub(super) slot: usize,
    /// Tokens of its prompt; what follows is the answer.
    pub(super) prompt_tokens: usize,
}

/// One run for several tokens of one sequence.
pub(super) struct Piece {
    pub(super) slot: usize,
    /// Tokens that the slot holds already.
    pub(super) past: usize,
    pub(super) ids: Vec<u32>,
    /// How many of `ids`, at the end, are drafts.
    pub(super) drafts: usize,
}

impl Desk {
    pub(super) fn new(slots: Slots, is_joint: bool) -> Self {
        Self {
            slots,
            batch: Batch::new(is_joint),
            sequences: BTreeMap::new(),
            finished: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// Which sequences are over since the last call.
    pub(super) fn take_ended(&mut self) -> Vec<SequenceId> {
        std::mem::take(&mut self.ended)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// Gives the sequence a slot; gives it back when there is none, or not the memory, as long as others run.
    #[expect(
        clippy::result_large_err,
        reason = "the sequence goes back to be tried again"
    )]
    pub(super) fn admit(
        &mut self,
        id: SequenceId,
        class: Class,
        sequence: Sequence,
        need: usize,
    ) -> Result<Claim, Sequence> {
        let ids = sequence.known();
        let usable = ids.len().saturating_sub(ALWAYS_COMPUTED);
        let Some(claim) = self.slots.claim(id, ids, usable, need) else {
            return Err(sequence);
        };
        self.batch.admit(id, class, ids.len() - claim.reused);
        self.sequences.insert(id, sequence);
        Ok(claim)
    }

    /// Background work rests, or goes on where it was.
    pub(super) fn rest_background(&mut self, rests: bool) {
        self.batch.rest_background(rests);
    }

    /// The sequence makes room for another, and keeps what it has.
    pub(super) fn park(&mut self, id: SequenceId) {
        self.batch.park(id);
        if let Some(slot) = self.slots.slot_of(id) {
            self.slots.park(slot);
        }
        if let Some(sequence) = self.sequences.get(&id) {
            sequence.note_parked();
        }
    }

    /// The sequence goes on where it was. Gives the slots to give back, or `None` when there is not the memory.
    pub(super) fn resume(&mut self, id: SequenceId) -> Option<Vec<usize>> {
        let released = match self.slots.slot_of(id) {
            Some(slot) => self.slots.resume(slot)?,
            None => Vec::new(),
        };
        self.batch.resume(id);
        Some(released)
    }

    /// Whether more of the prompt may come from elsewhere, until which it is in no run.
    pub(super) fn hold(&mut self, id: SequenceId, is_held: bool) {
        self.batch.hold(id, is_held);
    }

    /// More of the prompt came from elsewhere: the slot holds its first `held` tokens.
    pub(super) fn note_restored(&mut self, id: SequenceId, held: usize) {
        let (Some(slot), Some(sequence)) = (self.slots.slot_of(id), self.sequences.get(&id)) else {
            return;
        };
        self.slots.set(slot, &sequence.known()[..held]);
        self.batch.note_restored(id, sequence.known().len() - held);
    }

    /// Which slots hold what came to its end since the last call.
    pub(super) fn take_finished(&mut self) -> Vec<Finished> {
        std::mem::take(&mut self.finished)
    }

    pub(super) fn sequence_mut(&mut self, id: SequenceId) -> Option<&mut Sequence> {
        self.sequences.get_mut(&id)
    }

    /// Ends those whose stream nobody reads.
    pub(super) fn drop_unwanted(&mut self) {
        let unwanted: Vec<SequenceId> = self
            .sequences
            .iter()
            .filter(|(_, sequence)| !sequence.is_wanted())
            .map(|(&id, _)| id)
            .collect();
        for id in unwanted {
            self.end(id, Err(Ended::Cancelled));
        }
    }

    /// Ends all, each with an error of its own.
    pub(super) fn end_all(&mut self, error: impl Fn() -> InferenceError) {
        for id in self.sequences.keys().copied().collect::<Vec<_>>() {
            self.end(id, Err(Ended::Failed(error())));
        }
    }

    pub(super) fn next(&mut self) -> Option<Step> {
        self.batch.next()
    }

    /// The rows of a run together, by slot: slot, past, token, sequence.
    pub(super) fn rows(&self, ids: &[SequenceId]) -> Vec<(usize, usize, u32, SequenceId)> {
        let mut rows: Vec<_> = ids
            .iter()
            .filter_map(|&id| {
                let slot = self.slots.slot_of(id)?;
                let past = self.slots.tokens(slot).len();
                let token = *self.sequences.get(&id)?.known().get(past)?;
                Some((slot, past, token, id))
            })
            .collect();
        rows.sort_unstable();
        rows
    }

    /// The next `count` tokens of one sequence.
    pub(super) fn piece(&self, id: SequenceId, count: usize) -> Option<Piece> {
        let slot = self.slots.slot_of(id)?;
        let past = self.slots.tokens(slot).len();
        let sequence = self.sequences.get(&id)?;
        let known = sequence.known();
        let mut ids = known.get(past..(past + count).min(known.len()))?.to_vec();
        // Drafts are planned so that they go into one run with all that is known.
        let drafts = count.saturating_sub(ids.len());
        ids.extend(sequence.drafts().iter().take(drafts));
        Some(Piece {
            slot,
            past,
            ids,
            drafts,
        })
    }

    /// Tokens of a sequence went into its cache, `drafts` of them guessed. `rows` are the logits after the last known one and after
    /// each draft.
    pub(super) fn note_run<'a>(
        &mut self,
        id: SequenceId,
        ids: &[u32],
        drafts: usize,
        rows: impl Iterator<Item = &'a [f32]>,
    ) {
        let (Some(slot), Some(sequence)) = (self.slots.slot_of(id), self.sequences.get_mut(&id))
        else {
            return;
        };
        let past = self.slots.tokens(slot).len();
        self.slots.touch(slot, past + ids.len());
        let (ids, guessed) = ids.split_at(ids.len() - drafts);
        self.slots.extend(slot, ids);
        self.batch.note_run(id, ids.len());
        let held = past + ids.len();
        sequence.note_computed(past, held);
        if held < sequence.known().len() {
            return;
        }
        match sequence.choose(rows) {
            Ok((taken, finish)) => {
                self.slots.extend(slot, &guessed[..taken]);
                match finish {
                    None => {
                        let outstanding = sequence.plan(held + taken);
                        self.batch.note_outstanding(id, outstanding);
                    }
                    Some(finish) => self.end(id, Ok(finish)),
                }
            }
            Err(error) => self.end(id, Err(Ended::Failed(error))),
        }
    }

    /// A sequence is over; its cache stays for the next turn.
    pub(super) fn end(&mut self, id: SequenceId, outcome: Result<Finish, Ended>) {
        self.batch.remove(id);
        self.ended.push(id);
        let slot = self.slots.slot_of(id);
        if let Some(slot) = slot {
            self.slots.free(slot);
        }
        if let Some(sequence) = self.sequences.remove(&id) {
            if let (Ok(_), Some(slot)) = (&outcome, slot) {
                self.finished.push(Finished {
                    slot,
                    prompt_tokens: sequence.prompt_tokens(),
                });
            }
            sequence.end(outcome);
        }
    }
}
