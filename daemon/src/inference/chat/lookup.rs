//! Prompt lookup: guesses at the next tokens, taken from what stands in the context already.
//!
//! Pure. Answers repeat their prompts (names, quotations, JSON keys), so what followed the last few tokens the last time is a cheap
//! guess at what follows now (Saxena 2023, "Prompt Lookup Decoding"). Guesses are verified by the model in one run; a wrong guess
//! costs that run some rows and never changes an answer.

/// Longest run of last tokens that is looked for; longer ones first, since they guess better.
const LONGEST: usize = 4;

/// Shortest run. Single tokens recur everywhere and guess badly.
const SHORTEST: usize = 2;

/// How far back is looked, in tokens.
const REACH: usize = 4096;

/// At most `most` tokens that may follow `history`, perhaps none.
pub(super) fn propose(history: &[u32], most: usize) -> &[u32] {
    let history = &history[history.len().saturating_sub(REACH)..];
    if most == 0 {
        return &[];
    }
    for length in (SHORTEST..=LONGEST).rev() {
        let Some(begin) = history.len().checked_sub(length) else {
            continue;
        };
        let tail = &history[begin..];
        // The latest earlier occurrence: the topic of the moment.
        let found = history[..history.len() - 1]
            .windows(length)
            .rposition(|window| window == tail);
        if let Some(at) = found {
            let next = at + length;
            return &history[next..history.len().min(next + most)];
        }
    }
    &[]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_followed_the_last_time_is_proposed() {
        assert_eq!(propose(&[1, 2, 3, 4, 5, 9, 2, 3], 3), [4, 5, 9]);
        assert_eq!(propose(&[1, 2, 3, 4, 5, 9, 2, 3], 1), [4]);
    }

    #[test]
    fn the_longer_match_wins_over_the_later_one() {
        assert_eq!(propose(&[7, 1, 2, 10, 8, 1, 2, 20, 7, 1, 2], 1), [10]);
    }

    #[test]
    fn the_later_of_equal_matches_wins() {
        assert_eq!(propose(&[1, 2, 10, 1, 2, 20, 1, 2], 1), [20]);
    }

    #[test]
    fn a_repetition_may_overlap_itself() {
        assert_eq!(propose(&[5, 5, 5], 4), [5]);
    }

    #[test]
    fn nothing_is_proposed_from_single_tokens_or_nothing() {
        assert_eq!(propose(&[1, 2, 1], 4), [0u32; 0]);
        assert_eq!(propose(&[], 4), [0u32; 0]);
        assert_eq!(propose(&[1, 2, 1, 2], 0), [0u32; 0]);
    }

    proptest! {
        #[test]
        fn a_proposal_is_what_followed_an_earlier_occurrence(history in prop::collection::vec(0u32..4, 0..60), most in 0usize..9) {
            let proposal = propose(&history, most);
            prop_assert!(proposal.len() <= most);
            if !proposal.is_empty() {
                let tail = &history[history.len() - SHORTEST..];
                prop_assert!(history.windows(SHORTEST + proposal.len())
                    .any(|window| window.starts_with(tail) && window.ends_with(proposal)));
            }
        }
    }
}
