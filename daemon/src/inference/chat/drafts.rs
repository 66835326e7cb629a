//! Which guesses of an answer's next tokens are computed along with its last token: pure, around [`lookup`](super::lookup).
//!
//! **The reference.** A token is fed by the kernel for several tokens exactly if there is a guess at what follows it, else by the one for
//! a single token (`graph::in_place` says how they differ). Whether there is a guess is a function of the tokens before, so the kernel of
//! every position is, too, however many tokens were taken at a time: an answer with speculation is the answer of
//! [`Speculation::Reference`], which feeds each token in a run of its own with one guess beside it that is thrown away.

use super::{Speculation, batch::CHUNK};

/// Where guesses come from: at most so many tokens that probably follow, none if there is nothing to go by. A function of the tokens
/// alone, and empty or not whatever the number, so long as it is not 0.
pub(super) type Propose = for<'a> fn(&'a [u32], usize) -> &'a [u32];

/// Most tokens guessed at a time. Chosen because a run of eight tokens takes as long as three single ones, and longer guesses are right
/// too seldom to make up for more.
const DRAFTS_MAX: usize = 8;

/// What is fed behind the tokens that are known.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Drafts {
    pub(super) tokens: Vec<u32>,
    /// How many of them may be taken if they are right.
    pub(super) usable: usize,
}

/// The drafts to feed behind `known`, whose last `pending` tokens are fed in the same run. `room` tokens fit behind it.
pub(super) fn plan(
    propose: Propose,
    mode: Speculation,
    known: &[u32],
    pending: usize,
    room: usize,
) -> Drafts {
    let most = DRAFTS_MAX.min(room).min(CHUNK.saturating_sub(pending));
    if mode == Speculation::Off || most == 0 {
        return Drafts::default();
    }
    let mut tokens = propose(known, most).to_vec();
    if tokens.is_empty() {
        return Drafts::default();
    }
    let mut usable = 0;
    if mode == Speculation::On {
        let mut history = known.to_vec();
        // A draft behind which there is no guess would have to be fed by the other kernel, and so would the last one that fits.
        while usable < tokens.len() && usable + 1 < room {
            history.push(tokens[usable]);
            if propose(&history, 1).is_empty() {
                break;
            }
            usable += 1;
        }
    }
    // One that is thrown away is fed at least: it makes the run one of several tokens.
    tokens.truncate(usable.max(1));
    Drafts { tokens, usable }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Guesses the next numbers up to a hundred, and nothing after one that ends in 7.
    fn counting(known: &[u32], most: usize) -> &[u32] {
        static NUMBERS: [u32; 100] = {
            let mut numbers = [0; 100];
            let mut at = 0;
            while at < 100 {
                numbers[at] = at as u32;
                at += 1;
            }
            numbers
        };
        match known.last() {
            Some(&last) if last % 10 != 7 && last < 90 => {
                let next = last as usize + 1;
                &NUMBERS[next..next + most.min(4)]
            }
            _ => &[],
        }
    }

    fn planned(mode: Speculation, known: &[u32], room: usize) -> Drafts {
        plan(counting, mode, known, 1, room)
    }

    #[test]
    fn a_draft_is_taken_only_if_it_has_a_guess_itself() {
        let on = planned(Speculation::On, &[1, 2], 99);
        assert_eq!((on.tokens, on.usable), (vec![3, 4, 5, 6], 4));
        let on = planned(Speculation::On, &[5], 99);
        assert_eq!((on.tokens, on.usable), (vec![6], 1), "nothing follows 7");
        let on = planned(Speculation::On, &[6], 99);
        assert_eq!((on.tokens, on.usable), (vec![7], 0), "fed, and thrown away");
        assert_eq!(planned(Speculation::On, &[7], 99), Drafts::default());
        assert_eq!(planned(Speculation::Off, &[1], 99), Drafts::default());
        assert_eq!(planned(Speculation::On, &[1], 0), Drafts::default());
    }

    proptest! {
        /// Whatever follows, both ways feed every token by the same kernel.
        #[test]
        fn the_kernel_of_every_token_is_the_references(
            answer in prop::collection::vec(0u32..12, 1..40),
            capacity in 2usize..48,
        ) {
            // Which positions are fed together with others. The answer's first token is known.
            let kernels = |mode| {
                let mut several = Vec::new();
                let mut at = 1;
                while at < answer.len().min(capacity) {
                    let drafts = planned(mode, &answer[..at], capacity - at);
                    let taken = answer[at..]
                        .iter()
                        .zip(&drafts.tokens[..drafts.usable])
                        .take_while(|(right, draft)| right == draft)
                        .count();
                    several.extend(std::iter::repeat_n(!drafts.tokens.is_empty(), 1 + taken));
                    at += 1 + taken;
                }
                several.truncate(answer.len().min(capacity) - 1);
                several
            };
            prop_assert_eq!(kernels(Speculation::On), kernels(Speculation::Reference));
        }
    }
}
