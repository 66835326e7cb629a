//! Who uses which slot of the cache, and which tokens each slot holds: pure bookkeeping, no memory is touched.
//!
//! A slot belongs to one sequence while that is answered, and stays as a cached beginning afterwards. A new prompt gets the slot
//! that already holds most of its beginning; where another prompt's beginning is shared (the same system prompt), it is copied. What is
//! used least recently goes first. The caller carries out what a [`Claim`] and [`Slots::gather`] say.
//!
//! There are twice as many slots as rows: a sequence that makes room for a more urgent one keeps its slot and what is in it, and only what was
//! reserved for it is free meanwhile. Of finished sequences no more is kept than if those slots did not exist.

#[cfg(test)]
mod tests;

/// One request in the engine.
pub(in super::super) type SequenceId = u64;

/// A free slot that would lose more tokens than this to a new prompt keeps them: its own conversation may come back, and copying the
/// shared beginning to another slot takes some 10 us a token, against 3 ms to compute one. The next turn of a conversation loses a few
/// tokens around the end of the last answer.
const LOST_MAX: usize = 16;

/// The slots and what they hold.
#[derive(Debug)]
pub(in super::super) struct Slots {
    slots: Vec<Slot>,
    /// Sequences that run at a time.
    rows: usize,
    capacity: usize,
    /// Tokens that all slots together may take from memory; at least `capacity`.
    budget: usize,
    clock: u64,
}

#[derive(Debug, Clone, Default)]
struct Slot {
    tokens: Vec<u32>,
    owner: Option<SequenceId>,
    /// Tokens that have been written since the memory was last given back: what it costs. `tokens.len() <= touched`.
    touched: usize,
    /// While owned: the most that the owner may come to hold.
    reserved: usize,
    /// Owned by one that does not run now, and takes no more memory meanwhile.
    is_parked: bool,
    used_at: u64,
}

impl Slot {
    fn cost(&self) -> usize {
        match self.is_parked {
            true => self.touched,
            false => self.touched.max(self.reserved),
        }
    }

    fn is_idle(&self) -> bool {
        self.owner.is_none() && self.touched > 0
    }
}

/// What a new sequence gets. The memory of `released` is given back first, then the copy is made.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct Claim {
    pub(in super::super) slot: usize,
    /// Tokens of the prompt that the slot holds now, or after the copy.
    pub(in super::super) reused: usize,
    /// The slot to copy the `reused` tokens from.
    pub(in super::super) copy_from: Option<usize>,
    /// Slots to give back.
    pub(in super::super) released: Vec<usize>,
}

impl Slots {
    /// Slots of `capacity` tokens for `rows` running sequences and as many parked ones ([`count`](Self::count)), which may take the
    /// memory of `budget` tokens together, but always that of one slot.
    pub(in super::super) fn new(rows: usize, capacity: usize, budget: usize) -> Self {
        Self {
            slots: vec![Slot::default(); Self::count(rows)],
            rows,
            capacity,
            budget: budget.max(capacity),
            clock: 0,
        }
    }

    /// Slots that `rows` running sequences need.
    pub(in super::super) const fn count(rows: usize) -> usize {
        rows.saturating_mul(2)
    }

    pub(in super::super) fn tokens(&self, slot: usize) -> &[u32] {
        &self.slots[slot].tokens
    }

    /// The slot that a running sequence owns.
    pub(in super::super) fn slot_of(&self, id: SequenceId) -> Option<usize> {
        self.slots.iter().position(|slot| slot.owner == Some(id))
    }

    #[cfg(test)]
    fn longest(&self, ids: &[u32]) -> usize {
        self.slots
            .iter()
            .map(|slot| common(&slot.tokens, ids))
            .max()
            .unwrap_or(0)
    }

    /// A slot for a sequence that begins with `ids` and will hold at most `need` tokens. `None` while no slot is free, or while the
    /// running ones need the memory. At most `usable` tokens are reused.
    pub(in super::super) fn claim(
        &mut self,
        id: SequenceId,
        ids: &[u32],
        usable: usize,
        need: usize,
    ) -> Option<Claim> {
        let need = need.clamp(ids.len().min(self.capacity), self.capacity);
        let free = || (0..self.slots.len()).filter(|&at| self.slots[at].owner.is_none());
        let shared = |at: usize| common(&self.slots[at].tokens, ids).min(usable);
        let best = (0..self.slots.len()).max_by_key(|&at| {
            let slot = &self.slots[at];
            (shared(at), slot.owner.is_none(), slot.used_at)
        })?;
        let is_full = self.surplus_by(1) > 0;
        let oldest = free().min_by_key(|&at| {
            let slot = &self.slots[at];
            // An empty one first, as long as that does not keep more beginnings than there are rows for.
            (slot.is_idle() != is_full, slot.used_at)
        })?;
        let reused = shared(best);
        let keeps_best = self.slots[best].owner.is_none()
            && (self.slots[best].tokens.len() - reused <= LOST_MAX || best == oldest);
        let slot = if keeps_best { best } else { oldest };
        let copy_from = (slot != best && reused > 0).then_some(best);

        let mut released = Vec::new();
        let mut cost: usize = (0..self.slots.len())
            .filter(|&at| at != slot)
            .map(|at| self.slots[at].cost())
            .sum();
        cost += need.max(self.slots[slot].touched);
        if cost > self.budget && self.slots[slot].touched > need && slot != best {
            cost -= self.slots[slot].touched - need;
            released.push(slot);
        }
        let idle = self.idle().into_iter();
        for at in idle.filter(|&at| at != slot && Some(at) != copy_from) {
            if cost <= self.budget {
                break;
            }
            cost -= self.slots[at].touched;
            released.push(at);
        }
        // The last resort: not to copy, and to let the source go, too.
        let (mut reused, mut copy_from) = (reused, copy_from);
        if cost > self.budget
            && let Some(source) = copy_from
            && self.slots[source].owner.is_none()
        {
            cost -= self.slots[source].touched;
            released.push(source);
            (reused, copy_from) = (0, None);
        }
        if cost > self.budget {
            return None;
        }
        for &at in &released {
            self.note_released(at);
        }
        self.clock += 1;
        let claimed = &mut self.slots[slot];
        claimed.owner = Some(id);
        claimed.reserved = need;
        claimed.used_at = self.clock;
        claimed.tokens.clear();
        claimed.tokens.extend_from_slice(&ids[..reused]);
        claimed.touched = claimed.touched.max(reused);
        Some(Claim {
            slot,
            reused,
            copy_from,
            released,
        })
    }

    /// An empty slot for a beginning that comes from elsewhere and that nobody has asked for; `None` when there is no room but where something is kept.
    pub(in super::super) fn place(&mut self, ids: &[u32]) -> Option<usize> {
        let cost: usize = self.slots.iter().map(Slot::cost).sum();
        let has_room = ids.len() <= self.capacity
            && cost + ids.len() <= self.budget
            && self.surplus_by(1) == 0;
        let is_empty = |slot: &Slot| slot.owner.is_none() && slot.touched == 0;
        let slot = self.slots.iter().position(is_empty).filter(|_| has_room)?;
        self.extend(slot, ids);
        self.free(slot);
        Some(slot)
    }

    /// Tokens were written behind those that the slot holds.
    pub(in super::super) fn extend(&mut self, slot: usize, ids: &[u32]) {
        let slot = &mut self.slots[slot];
        slot.tokens.extend_from_slice(ids);
        slot.touched = slot.touched.max(slot.tokens.len());
    }

    /// More was written than is kept (drafts that were not taken, padding): `tokens` of memory are in use.
    pub(in super::super) fn touch(&mut self, slot: usize, tokens: usize) {
        let slot = &mut self.slots[slot];
        slot.touched = slot.touched.max(tokens);
    }

    /// Replaces what the slot holds, by a beginning that came from elsewhere.
    pub(in super::super) fn set(&mut self, slot: usize, ids: &[u32]) {
        self.slots[slot].tokens.clear();
        self.extend(slot, ids);
    }

    /// The sequence is over; what it held stays as a cached beginning.
    pub(in super::super) fn free(&mut self, slot: usize) {
        self.clock += 1;
        let slot = &mut self.slots[slot];
        slot.owner = None;
        slot.reserved = 0;
        slot.is_parked = false;
        slot.used_at = self.clock;
    }

    /// The sequence makes room: what it holds stays, what was reserved for it is free.
    pub(in super::super) fn park(&mut self, slot: usize) {
        self.slots[slot].is_parked = true;
    }

    /// Reserves again what the sequence may come to hold. Gives the slots whose memory is to be given back first, or `None` when those that
    /// run leave too little.
    pub(in super::super) fn resume(&mut self, slot: usize) -> Option<Vec<usize>> {
        let own = self.slots[slot].touched.max(self.slots[slot].reserved);
        let others = (0..self.slots.len()).filter(|&at| at != slot);
        let mut cost = own + others.map(|at| self.slots[at].cost()).sum::<usize>();
        let mut released = Vec::new();
        for at in self.idle() {
            if cost <= self.budget {
                break;
            }
            cost -= self.slots[at].touched;
            released.push(at);
        }
        if cost > self.budget {
            return None;
        }
        self.slots[slot].is_parked = false;
        for &at in &released {
            self.note_released(at);
        }
        Some(released)
    }

    /// Idle slots beyond what is kept of finished sequences; their memory is to be given back.
    pub(in super::super) fn surplus(&mut self) -> Vec<usize> {
        let mut released = self.idle();
        released.truncate(self.surplus_by(0));
        for &at in &released {
            self.note_released(at);
        }
        released
    }

    /// How many slots in use there would be too many with `more`.
    fn surplus_by(&self, more: usize) -> usize {
        let parked = self.slots.iter().filter(|slot| slot.is_parked).count();
        let used = self
            .slots
            .iter()
            .filter(|slot| slot.owner.is_some() || slot.touched > 0);
        (used.count() + more).saturating_sub(self.rows + parked)
    }

    /// Slots that nobody owns and that hold something, the least recently used first.
    fn idle(&self) -> Vec<usize> {
        let mut idle: Vec<usize> = (0..self.slots.len())
            .filter(|&at| self.slots[at].is_idle())
            .collect();
        idle.sort_by_key(|&at| self.slots[at].used_at);
        idle
    }

    /// What two slots hold was exchanged. Memory stays where it was taken, and both have now taken that of the longer one.
    pub(in super::super) fn swap(&mut self, one: usize, other: usize) {
        let touched = [one, other].map(|at| self.slots[at].touched);
        self.slots.swap(one, other);
        let moved = self.slots[one]
            .tokens
            .len()
            .max(self.slots[other].tokens.len());
        for (at, touched) in [one, other].into_iter().zip(touched) {
            self.slots[at].touched = touched.max(moved);
        }
    }

    /// The slot's memory was given back; it held nothing that is wanted.
    pub(in super::super) fn note_released(&mut self, slot: usize) {
        self.slots[slot].tokens.clear();
        self.slots[slot].touched = 0;
    }

    /// Which slots to exchange so that `rows` become neighbours, and how many tokens each exchange moves; the cheapest way. `rows` are different
    /// slots in any order.
    pub(in super::super) fn gather(&self, rows: &[usize]) -> Vec<(usize, usize, usize)> {
        let moved = |one: usize, other: usize| {
            self.slots[one]
                .tokens
                .len()
                .max(self.slots[other].tokens.len())
        };
        (0..=self.slots.len().saturating_sub(rows.len()))
            .map(|first| {
                let window = first..first + rows.len();
                let outside = rows.iter().filter(|row| !window.contains(row));
                let vacant = window.clone().filter(|at| !rows.contains(at));
                outside
                    .zip(vacant)
                    .map(|(&row, at)| (row, at, moved(row, at)))
                    .collect::<Vec<_>>()
            })
            .min_by_key(|swaps| {
                let moved: usize = swaps.iter().map(|(_, _, tokens)| tokens).sum();
                (moved, swaps.len())
            })
            .unwrap_or_default()
    }

    #[cfg(test)]
    fn cost(&self) -> usize {
        self.slots.iter().map(Slot::cost).sum()
    }
}

fn common(held: &[u32], ids: &[u32]) -> usize {
    held.iter().zip(ids).take_while(|(a, b)| a == b).count()
}
