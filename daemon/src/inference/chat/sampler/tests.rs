use super::*;

fn random(top_k: usize, top_p: f32, min_p: f32, seed: u64) -> Sampling {
    Sampling {
        choice: Choice::Random {
            temperature: 1.0,
            top_k,
            top_p,
            min_p,
            seed,
        },
        ..Sampling::default()
    }
}

fn only(ids: &[u32], size: usize) -> SimpleVob {
    let mut allowed = SimpleVob::alloc(size);
    for &id in ids {
        allowed.allow_token(id);
    }
    allowed
}

#[test]
fn greedy_takes_the_first_of_the_highest_and_never_a_nan() {
    let mut sampler = Sampler::new(Sampling::default(), &[]);
    assert_eq!(sampler.next(&[0.0, 3.0, f32::NAN, 3.0], None), Some(1));
    assert_eq!(sampler.next(&[f32::NAN; 3], None), None);
    assert_eq!(sampler.next(&[], None), None);
}

#[test]
fn only_allowed_tokens_are_chosen_however_unlikely() {
    let logits = [9.0, 8.0, -40.0, f32::NAN, -41.0];
    let allowed = only(&[2, 3, 4], 5);
    assert_eq!(
        Sampler::new(Sampling::default(), &[]).next(&logits, Some(&allowed)),
        Some(2)
    );
    let mut sampler = Sampler::new(random(0, 1.0, 0.0, 5), &[]);
    let drawn: Vec<_> = (0..200)
        .filter_map(|_| sampler.next(&logits, Some(&allowed)))
        .collect();
    assert_eq!(drawn.len(), 200);
    assert!(drawn.contains(&2) && drawn.contains(&4));
    assert!(drawn.iter().all(|id| [2, 4].contains(id)), "{drawn:?}");
    assert_eq!(
        sampler.next(&logits, Some(&only(&[], 5))),
        None,
        "nothing is allowed"
    );
    assert_eq!(
        sampler.next(&logits, Some(&only(&[1], 2))),
        Some(1),
        "a short mask allows nothing beyond its end"
    );
}

#[test]
fn the_same_seed_draws_the_same_tokens() {
    let logits: Vec<f32> = (0..100).map(|index| (index as f32 * 0.37).sin()).collect();
    let draw = |seed| {
        let mut sampler = Sampler::new(random(0, 1.0, 0.0, seed), &[]);
        (0..50)
            .map(|_| sampler.next(&logits, None))
            .collect::<Vec<_>>()
    };
    assert_eq!(draw(7), draw(7));
    assert_ne!(draw(7), draw(8));
}

#[test]
fn draws_follow_the_probabilities() {
    let mut sampler = Sampler::new(random(0, 1.0, 0.0, 1), &[]);
    // Odds of 1 : 3.
    let logits = [0.0, 3f32.ln()];
    let ones = (0..20_000)
        .filter(|_| sampler.next(&logits, None) == Some(1))
        .count();
    // 15,000 expected, standard deviation 61.
    assert!((14_700..15_300).contains(&ones), "{ones}");
}

#[test]
fn top_k_top_p_and_min_p_exclude_the_unlikely() {
    let logits = [1.0, 0.9, 0.8, -5.0];
    for sampling in [
        random(2, 1.0, 0.0, 3),
        // 0.37 + 0.33 of the probability: the third is not needed to reach a half.
        random(0, 0.5, 0.0, 3),
        // The second is e^-0.1 = 0.90 as likely as the first, the third 0.82.
        random(0, 1.0, 0.85, 3),
    ] {
        let mut sampler = Sampler::new(sampling, &[]);
        let drawn: Vec<_> = (0..500)
            .filter_map(|_| sampler.next(&logits, None))
            .collect();
        assert!(drawn.contains(&1), "{sampling:?}");
        assert!(drawn.iter().all(|&id| id < 2), "{sampling:?}");
    }
    let mut sampler = Sampler::new(random(0, 1.0, 1.0, 3), &[]);
    assert!(
        (0..100).all(|_| sampler.next(&logits, None) == Some(0)),
        "min_p 1 is the likeliest"
    );
}

#[test]
fn the_repetition_penalty_turns_away_from_what_was_said() {
    let sampling = Sampling {
        repetition_penalty: 1.5,
        ..Sampling::default()
    };
    assert_eq!(
        Sampler::new(sampling, &[1]).next(&[2.0, 2.5, -1.0], None),
        Some(0)
    );
    let mut sampler = Sampler::new(sampling, &[]);
    assert_eq!(sampler.next(&[2.0, 2.5, -1.0], None), Some(1));
    sampler.accept(&[1]);
    assert_eq!(
        sampler.next(&[2.0, 2.5, -1.0], None),
        Some(0),
        "what was drawn counts as said"
    );
}

#[test]
fn frequency_counts_and_presence_does_not_and_neither_counts_the_prompt() {
    let by = |frequency_penalty, presence_penalty| Sampling {
        frequency_penalty,
        presence_penalty,
        ..Sampling::default()
    };
    let logits = [1.0, 2.0];
    let mut frequency = Sampler::new(by(0.6, 0.0), &[1, 1, 1]);
    assert_eq!(frequency.next(&logits, None), Some(1));
    frequency.accept(&[1]);
    assert_eq!(frequency.next(&logits, None), Some(1), "2 - 0.6");
    frequency.accept(&[1]);
    assert_eq!(frequency.next(&logits, None), Some(0), "2 - 1.2");
    let mut presence = Sampler::new(by(0.0, 0.6), &[1]);
    presence.accept(&[1, 1, 1]);
    assert_eq!(presence.next(&logits, None), Some(1), "2 - 0.6");
}

#[test]
fn values_out_of_range_are_named() {
    let hot = Sampling {
        choice: Choice::Random {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            seed: 0,
        },
        ..Sampling::default()
    };
    let repetition = Sampling {
        repetition_penalty: f32::NAN,
        ..Sampling::default()
    };
    let frequency = Sampling {
        frequency_penalty: 2.5,
        ..Sampling::default()
    };
    for (sampling, field) in [
        (repetition, "repetition_penalty"),
        (frequency, "frequency_penalty"),
        (random(0, 0.0, 0.0, 0), "top_p"),
        (random(0, 1.0, f32::NAN, 0), "min_p"),
        (hot, "temperature"),
    ] {
        let error = sampling.check().unwrap_err();
        assert!(
            matches!(error, InferenceError::OutOfRange { what, .. } if what == field),
            "{error}"
        );
    }
    random(40, 0.9, 0.05, 0).check().unwrap();
}
