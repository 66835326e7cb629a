//! Log-probabilities of tokens, for callers that ask.
//!
//! Pure. They are the model's own, before penalties, temperature, forms and whatever else shapes the choice, as OpenAI's API gives
//! them: natural logarithms of the softmax over the whole vocabulary.

/// Most alternatives per token (OpenAI's `top_logprobs`).
pub const TOP_LOGPROBS_MAX: usize = 20;

/// One token and how likely it was.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct TokenLogprob {
    /// The token.
    pub(super) id: u32,
    /// Natural logarithm of its probability, at most 0; `-inf` for a token that the logits do not have.
    pub(super) logprob: f32,
}

/// The log-probability of `chosen`, and the `top` likeliest tokens, likeliest first, the lower id first among equals.
pub(super) fn logprobs(
    logits: &[f32],
    chosen: u32,
    top: usize,
) -> (TokenLogprob, Vec<TokenLogprob>) {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // Summed in f64: 50,000 small terms would lose digits in f32.
    let total: f64 = logits
        .iter()
        .filter(|logit| !logit.is_nan())
        .map(|logit| f64::from(logit - highest).exp())
        .sum();
    let log_total = highest + total.ln() as f32;
    let of = |id: u32| TokenLogprob {
        id,
        logprob: logits
            .get(id as usize)
            .map_or(f32::NEG_INFINITY, |logit| (logit - log_total).min(0.0)),
    };
    let mut best: Vec<(u32, f32)> = Vec::with_capacity(top + 1);
    for (id, &logit) in (0u32..).zip(logits) {
        let full = best.len() == top;
        if logit.is_nan() || full && best.last().is_none_or(|worst| logit <= worst.1) {
            continue;
        }
        let at = best.partition_point(|other| other.1 >= logit);
        best.insert(at, (id, logit));
        best.truncate(top);
    }
    (of(chosen), best.into_iter().map(|(id, _)| of(id)).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn two_equal_tokens_have_half_each() {
        let (chosen, top) = logprobs(&[3.0, 3.0], 1, 5);
        assert!((chosen.logprob - 0.5f32.ln()).abs() < 1e-6);
        assert_eq!(top.iter().map(|token| token.id).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn a_token_that_is_not_there_is_impossible() {
        assert_eq!(logprobs(&[1.0], 7, 0).0.logprob, f32::NEG_INFINITY);
    }

    proptest! {
        #[test]
        fn all_probabilities_make_one_and_the_top_is_the_top(logits in prop::collection::vec(-50f32..50.0, 1..200), top in 0usize..21) {
            let whole = logprobs(&logits, 0, logits.len()).1;
            let sum: f64 = whole.iter().map(|token| f64::from(token.logprob).exp()).sum();
            prop_assert!((sum - 1.0).abs() < 1e-4, "{sum}");
            prop_assert!(whole.is_sorted_by(|a, b| a.logprob >= b.logprob));
            prop_assert_eq!(&logprobs(&logits, 0, top).1[..], &whole[..top.min(whole.len())]);
        }
    }
}
