//! Which sequences run next, and how many tokens of each: pure, no model, no clock.
//!
//! Every sequence has *outstanding* tokens: known, and not yet in the cache. One is the usual case of an answer under way: all
//! such sequences go through the model together. Several are the rest of a prompt, tokens that a grammar forced, or drafts to be verified;
//! ONNX Runtime takes those for one sequence at a time. A round is
//!
//! 1. one run for all answers with one outstanding token,
//! 2. one run for each answer with several,
//! 3. one piece of the oldest prompt.
//!
//! So an answer waits for at most one piece of a prompt between its own runs, and prompts get on in every round, first come,
//! first served.
//!
//! Not everybody is in every round, since each row makes a run longer. While a voice is answered, the others rest, and background
//! work rests while anybody else is answered; every [`REST`]th round is for all. What a new voice finds planned is
//! dropped, so it is in the very next run. While the box is under strain, background work is in no round at all.

use std::collections::{BTreeMap, VecDeque};

use super::{super::class::Class, cache::slots::SequenceId};

/// Tokens of a prompt per run. Cancellation is seen between runs, and 64 tokens take some 0.2 s on one core.
pub(super) const CHUNK: usize = 64;

/// The same for background work: whoever speaks meanwhile waits for the end of the run that is under way. Measured on the default model, one
/// core, ms for a piece and tokens/s: 64 147 and 437, 32 76 and 418, 16 42 and 381, 8 25 and 321.
pub(super) const BACKGROUND_CHUNK: usize = 16;

/// Of so many rounds one is for all. Chosen because a reader still sees a text that grows, and a voice loses an eighth of its time at most to
/// each other row.
const REST: u32 = 8;

/// What to run now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// One token of each, together. Never empty; in the order of their ids.
    Together(Vec<SequenceId>),
    /// The next tokens of one.
    Alone(SequenceId, usize),
}

/// The sequences in the engine.
#[derive(Debug, Default)]
pub(super) struct Batch {
    sequences: BTreeMap<SequenceId, Sequence>,
    round: VecDeque<Step>,
    /// Rounds since the last that was for all.
    rested: u32,
    /// Whether rows may run together at all.
    is_joint: bool,
    /// Background work rests altogether.
    background_rests: bool,
}

#[derive(Debug)]
struct Sequence {
    class: Class,
    outstanding: usize,
    /// The prompt has been read, and its stream is running.
    has_begun: bool,
    is_parked: bool,
    /// More of its prompt may come from elsewhere.
    is_held: bool,
}

impl Sequence {
    fn is_ready(&self, background_rests: bool) -> bool {
        let rests = background_rests && self.class == Class::Background;
        self.outstanding > 0 && !self.is_parked && !self.is_held && !rests
    }

    /// The tokens of its next run by itself.
    fn piece(&self) -> usize {
        let is_background_prompt = self.class == Class::Background && !self.has_begun;
        let longest = match is_background_prompt {
            true => BACKGROUND_CHUNK,
            false => CHUNK,
        };
        piece(self.outstanding, longest)
    }
}

impl Batch {
    /// `is_joint`: the model takes several sequences in one run.
    pub(super) fn new(is_joint: bool) -> Self {
        Self {
            is_joint,
            ..Self::default()
        }
    }

    /// A new sequence with a prompt of which `outstanding` tokens are to be computed. Ids grow with age.
    pub(super) fn admit(&mut self, id: SequenceId, class: Class, outstanding: usize) {
        self.sequences.insert(
            id,
            Sequence {
                class,
                outstanding,
                has_begun: false,
                is_parked: false,
                is_held: false,
            },
        );
        self.make_way(class);
    }

    /// Less of the prompt is to be computed than was thought.
    pub(super) fn note_restored(&mut self, id: SequenceId, outstanding: usize) {
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.outstanding = outstanding;
        }
    }

    /// Background work rests, or goes on where it was.
    pub(super) fn rest_background(&mut self, rests: bool) {
        self.background_rests = rests;
    }

    /// The sequence waits until it is known how much of its prompt comes from elsewhere, or no longer.
    pub(super) fn hold(&mut self, id: SequenceId, is_held: bool) {
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.is_held = is_held;
        }
    }

    /// The sequence rests until it is resumed.
    pub(super) fn park(&mut self, id: SequenceId) {
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.is_parked = true;
        }
    }

    /// The sequence goes on where it was.
    pub(super) fn resume(&mut self, id: SequenceId) {
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.is_parked = false;
        }
    }

    fn make_way(&mut self, class: Class) {
        if class == Class::Voice {
            self.round.clear();
        }
    }

    /// The sequence ended, was cancelled or failed.
    pub(super) fn remove(&mut self, id: SequenceId) {
        self.sequences.remove(&id);
    }

    /// `count` outstanding tokens are in the cache now.
    pub(super) fn note_run(&mut self, id: SequenceId, count: usize) {
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.outstanding = sequence.outstanding.saturating_sub(count);
        }
    }

    /// The sequence has begun its answer, and has this many tokens outstanding.
    pub(super) fn note_outstanding(&mut self, id: SequenceId, outstanding: usize) {
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.outstanding = outstanding;
            sequence.has_begun = true;
        }
    }

    /// What to run now; `None` when nothing is outstanding.
    pub(super) fn next(&mut self) -> Option<Step> {
        if let Some(step) = self.next_of_round() {
            return Some(step);
        }
        self.plan();
        self.next_of_round()
    }

    fn next_of_round(&mut self) -> Option<Step> {
        let background_rests = self.background_rests;
        while let Some(step) = self.round.pop_front() {
            // The sequence may have gone since the round was planned, or need more or less than then.
            match step {
                Step::Alone(id, _) => {
                    let ready = self
                        .sequences
                        .get(&id)
                        .filter(|one| one.is_ready(background_rests));
                    if let Some(sequence) = ready {
                        return Some(Step::Alone(id, sequence.piece()));
                    }
                }
                Step::Together(mut ids) => {
                    ids.retain(|id| {
                        self.sequences.get(id).is_some_and(|one| {
                            one.is_ready(background_rests) && one.outstanding == 1
                        })
                    });
                    if !ids.is_empty() {
                        return Some(Step::Together(ids));
                    }
                }
            }
        }
        None
    }

    fn plan(&mut self) {
        let background_rests = self.background_rests;
        let ready = || {
            self.sequences
                .values()
                .filter(|one| one.is_ready(background_rests))
        };
        let Some(first) = ready().map(|one| one.class).min() else {
            return;
        };
        let rests =
            |class: Class| class != first && (first == Class::Voice || class == Class::Background);
        let is_for_all = self.rested + 1 >= REST || !ready().any(|one| rests(one.class));
        self.rested = if is_for_all { 0 } else { self.rested + 1 };
        let takes_part = |sequence: &Sequence| {
            sequence.is_ready(background_rests) && (is_for_all || !rests(sequence.class))
        };
        let begun = |several: bool| {
            self.sequences.iter().filter(move |(_, sequence)| {
                sequence.has_begun && takes_part(sequence) && (sequence.outstanding > 1) == several
            })
        };
        let single: Vec<SequenceId> = begun(false).map(|(&id, _)| id).collect();
        if self.is_joint && !single.is_empty() {
            self.round.push_back(Step::Together(single));
        } else {
            self.round
                .extend(single.into_iter().map(|id| Step::Together(vec![id])));
        }
        self.round
            .extend(begun(true).map(|(&id, sequence)| Step::Alone(id, sequence.piece())));
        let prompt = self
            .sequences
            .iter()
            .filter(|(_, sequence)| !sequence.has_begun && takes_part(sequence))
            .min_by_key(|&(&id, sequence)| (sequence.class, id));
        self.round
            .extend(prompt.map(|(&id, sequence)| Step::Alone(id, sequence.piece())));
    }
}

/// How many of `outstanding` tokens go into the next run: at most `longest`, and never so that a single one is left over (see
/// [`in_place`](super::graph::in_place) for why).
fn piece(outstanding: usize, longest: usize) -> usize {
    if outstanding == longest + 1 {
        longest - 1
    } else {
        outstanding.min(longest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pieces_cover_the_prompt_and_none_is_a_single_token() {
        for (longest, to) in [CHUNK, BACKGROUND_CHUNK]
            .into_iter()
            .flat_map(|longest| (2..400).map(move |to| (longest, to)))
        {
            let (mut left, mut pieces) = (to, Vec::new());
            while left > 0 {
                pieces.push(piece(left, longest));
                left -= piece(left, longest);
            }
            assert_eq!(pieces.iter().sum::<usize>(), to);
            assert!(
                pieces.iter().all(|length| (2..=longest).contains(length)),
                "{to}: {pieces:?}"
            );
        }
        assert_eq!(piece(1, CHUNK), 1, "unless that is all");
    }

    #[test]
    fn answers_run_together_and_a_prompt_gets_one_piece_between() {
        let mut batch = Batch::new(true);
        for id in [1, 2] {
            batch.admit(id, Class::Local, 5);
            batch.note_outstanding(id, 1);
        }
        batch.admit(3, Class::Local, 2 * CHUNK);
        assert_eq!(batch.next(), Some(Step::Together(vec![1, 2])));
        assert_eq!(batch.next(), Some(Step::Alone(3, CHUNK)));
        batch.note_run(3, CHUNK);
        assert_eq!(batch.next(), Some(Step::Together(vec![1, 2])));
        batch.remove(1);
        batch.note_outstanding(2, 3);
        assert_eq!(
            batch.next(),
            Some(Step::Alone(3, CHUNK)),
            "the round goes on"
        );
        batch.note_run(3, CHUNK);
        assert_eq!(batch.next(), Some(Step::Alone(2, 3)));
        batch.note_run(2, 3);
        assert_eq!(batch.next(), None);
    }

    #[test]
    fn a_model_that_takes_one_sequence_gets_one_at_a_time() {
        let mut batch = Batch::new(false);
        for id in [1, 2] {
            batch.admit(id, Class::Local, 1);
            batch.note_outstanding(id, 1);
        }
        assert_eq!(batch.next(), Some(Step::Together(vec![1])));
        assert_eq!(batch.next(), Some(Step::Together(vec![2])));
    }

    #[test]
    fn who_waits_for_its_cache_is_in_no_run_and_holds_up_nobody() {
        let mut batch = answering(&[(2, Class::Local)]);
        batch.admit(3, Class::Voice, 100);
        batch.hold(3, true);
        assert_eq!(batch.next(), Some(Step::Together(vec![2])));
        batch.remove(2);
        assert_eq!(batch.next(), None);
        batch.note_restored(3, 10);
        batch.hold(3, false);
        assert_eq!(batch.next(), Some(Step::Alone(3, 10)));
    }

    #[test]
    fn background_work_rests_while_the_box_is_under_strain_and_goes_on_afterwards() {
        let mut batch = answering(&[(1, Class::Background), (2, Class::Local)]);
        batch.admit(3, Class::Background, 10);
        batch.rest_background(true);
        for _ in 0..2 * REST {
            assert_eq!(batch.next(), Some(Step::Together(vec![2])));
        }
        batch.remove(2);
        assert_eq!(batch.next(), None);
        batch.rest_background(false);
        assert_eq!(batch.next(), Some(Step::Together(vec![1])));
        assert_eq!(batch.next(), Some(Step::Alone(3, 10)));
    }

    /// Sequences that have begun, with one token outstanding for ever.
    fn answering(classes: &[(SequenceId, Class)]) -> Batch {
        let mut batch = Batch::new(true);
        for &(id, class) in classes {
            batch.admit(id, class, 1);
            batch.note_outstanding(id, 1);
        }
        batch
    }

    #[test]
    fn a_prompt_in_the_background_is_read_in_short_pieces_so_that_a_voice_waits_less() {
        let mut batch = Batch::new(true);
        batch.admit(1, Class::Background, 3 * CHUNK);
        assert_eq!(batch.next(), Some(Step::Alone(1, BACKGROUND_CHUNK)));
        batch.note_run(1, BACKGROUND_CHUNK);
        batch.admit(2, Class::Voice, 3 * CHUNK);
        assert_eq!(batch.next(), Some(Step::Alone(2, CHUNK)));
        // What it says is fed as anybody's.
        batch.note_outstanding(1, CHUNK);
        batch.remove(2);
        assert_eq!(batch.next(), Some(Step::Alone(1, CHUNK)));
    }

    #[test]
    fn a_new_voice_is_in_the_very_next_run_and_alone_in_it() {
        let mut batch = answering(&[(1, Class::Local), (2, Class::Background)]);
        batch.admit(3, Class::Local, 3 * CHUNK);
        assert_eq!(batch.next(), Some(Step::Together(vec![1])));
        batch.admit(4, Class::Voice, 10);
        assert_eq!(batch.next(), Some(Step::Alone(4, 10)));
        batch.note_run(4, 10);
        batch.note_outstanding(4, 1);
        for _ in 0..5 {
            assert_eq!(batch.next(), Some(Step::Together(vec![4])));
        }
    }

    #[test]
    fn every_eighth_round_is_for_all_and_the_parked_are_in_none() {
        for first in [Class::Voice, Class::Local] {
            let mut batch =
                answering(&[(1, Class::Background), (2, Class::Background), (3, first)]);
            batch.park(1);
            let rounds: Vec<Option<Step>> = (0..16).map(|_| batch.next()).collect();
            let alone = Some(Step::Together(vec![3]));
            let all = Some(Step::Together(vec![2, 3]));
            for (at, round) in rounds.iter().enumerate() {
                assert_eq!(round, if at % 8 == 7 { &all } else { &alone }, "round {at}");
            }
            batch.remove(3);
            batch.resume(1);
            assert_eq!(batch.next(), Some(Step::Together(vec![1, 2])));
        }
    }

    proptest! {
        /// Prompts arrive, answers of some length come, some with several tokens at once, some are cancelled.
        #[test]
        fn an_answer_waits_for_one_piece_of_a_prompt_at_most_and_all_come_to_their_end(
            arrivals in prop::collection::vec((0usize..40, 1usize..300, 0usize..30, 0usize..200), 1..8),
            burst in 1usize..5,
        ) {
            let mut batch = Batch::new(true);
            let mut answers: BTreeMap<SequenceId, usize> = BTreeMap::new();
            let mut begun: BTreeMap<SequenceId, usize> = BTreeMap::new();
            let mut gone = 0;
            for turn in 0usize.. {
                for (id, (at, prompt, answer, _)) in (0u64..).zip(&arrivals) {
                    if *at == turn {
                        batch.admit(id, Class::Local, *prompt);
                        answers.insert(id, *answer);
                    }
                }
                for (id, (.., cancel)) in (0u64..).zip(&arrivals) {
                    if *cancel == turn && answers.remove(&id).is_some() {
                        batch.remove(id);
                        begun.remove(&id);
                        gone += 1;
                    }
                }
                prop_assert!(turn < 5_000, "it does not end");
                let Some(step) = batch.next() else {
                    if turn > 40 { break }
                    continue;
                };
                let mut ran = Vec::new();
                match step {
                    Step::Together(ids) => {
                        prop_assert!(!ids.is_empty() && ids.iter().all(|id| begun.contains_key(id)));
                        ran.extend(ids.into_iter().map(|id| (id, 1)));
                    }
                    Step::Alone(id, count) => {
                        prop_assert!(count <= CHUNK && batch.sequences[&id].outstanding >= count);
                        if !begun.contains_key(&id) {
                            for pieces in begun.values_mut() {
                                *pieces += 1;
                                prop_assert!(*pieces <= 1, "a running answer waited for two pieces");
                            }
                        }
                        ran.push((id, count));
                    }
                }
                for (id, count) in ran {
                    batch.note_run(id, count);
                    begun.entry(id).and_modify(|pieces| *pieces = 0);
                    if batch.sequences[&id].outstanding == 0 {
                        let left = answers.get_mut(&id).unwrap();
                        if *left == 0 {
                            batch.remove(id);
                            begun.remove(&id);
                            answers.remove(&id);
                            gone += 1;
                        } else {
                            begun.entry(id).or_insert(0);
                            let next = burst.min(*left);
                            *left -= next;
                            batch.note_outstanding(id, next);
                        }
                    }
                }
            }
            prop_assert_eq!(gone, arrivals.len());
        }
    }
}
