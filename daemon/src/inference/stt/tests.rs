use proptest::prelude::*;
use rand::{SeedableRng as _, rngs::StdRng};

use super::{
    guard::{self, Judgement, Measures},
    rules::{self, Rules},
    seek::{Cut, Piece, Scale, Text, Window, cut},
    *,
};

/// Words are 0 to 9, 10 is the end, 11 and 12 are marks, times are 20 (0 s) to 120 (2 s).
fn graph() -> WhisperGraph {
    let json = serde_json::json!({
        "file": "e", "layers": 1, "heads": 1, "head_dim": 1, "vocab_size": 121, "context_tokens": 32,
        "sample_rate_hz": 100, "window_samples": 200, "position_samples": 2, "languages": ["en"],
        "tokens": {"start": [11], "end": 10, "no_speech": 12, "first_timestamp": 20, "timestamp_samples": 2, "suppressed": [3]},
        "inputs": {}, "outputs": {}, "decoder": {"file": "d", "inputs": {}, "outputs": {}},
    });
    serde_json::from_value(json).unwrap()
}

const SCALE: Scale = Scale {
    sample_rate_hz: 100,
    first_time: 20,
    time_samples: 2,
};

/// A time in hundredths of a second.
fn at(samples: u32) -> u32 {
    20 + samples / 2
}

fn window(start: usize, total: usize) -> Window {
    Window {
        start,
        end: total.min(start + 200),
        total,
    }
}

fn ended(tokens: &[u32]) -> Text<'_> {
    Text {
        tokens,
        is_ended: true,
    }
}

#[test]
fn two_times_in_a_row_part_segments_and_a_time_at_the_end_ends_the_window() {
    let tokens = [at(10), 1, 2, at(60), at(80), 4, at(150)];
    let Cut { pieces, next } = cut(&SCALE, window(1000, 5000), ended(&tokens));
    let piece = |start, end, words| Piece { start, end, words };
    assert_eq!(pieces, [piece(1010, 1060, 1..3), piece(1080, 1150, 5..6)]);
    assert_eq!(next, 1200, "nobody spoke behind the last time");
}

#[test]
fn a_sentence_that_the_window_cuts_in_two_is_listened_to_again_as_a_whole() {
    for (tokens, what) in [
        (vec![at(0), 1, at(120), at(120)], "behind a pair"),
        (
            vec![at(0), 1, at(120), at(140), 4, 5],
            "words that no time ends",
        ),
    ] {
        let Cut { pieces, next } = cut(&SCALE, window(1000, 5000), ended(&tokens));
        assert_eq!(
            (pieces.len(), pieces[0].end, next),
            (1, 1120, 1120),
            "{what}"
        );
    }
    let tokens = [at(0), 1, at(120), at(140), 4, 5];
    let Cut { pieces, next } = cut(&SCALE, window(1000, 1180), ended(&tokens));
    assert_eq!(
        (pieces.len(), next),
        (2, 1180),
        "the sound's end ends a sentence"
    );
    let stopped = Text {
        tokens: &tokens,
        is_ended: false,
    };
    let cut = cut(&SCALE, window(1000, 1200), stopped);
    assert_eq!(cut.pieces.len(), 1, "the model was stopped within it");
}

#[test]
fn a_model_that_claims_to_have_understood_nothing_new_does_not_stay_where_it_is() {
    let tokens = [at(0), 1, at(2), at(2)];
    let Cut { pieces, next } = cut(&SCALE, window(1000, 5000), ended(&tokens));
    assert_eq!((pieces.len(), next), (1, 1200));
}

proptest! {
    #[test]
    fn whatever_is_read_segments_come_in_order_and_the_sound_comes_to_its_end(
        total in 1usize..3000,
        texts in prop::collection::vec((prop::collection::vec(0u32..130, 0..40), any::<bool>()), 1..5),
    ) {
        let (mut start, mut rounds, mut last_end) = (0, 0, 0);
        while start < total {
            let (tokens, is_ended) = &texts[rounds % texts.len()];
            let window = window(start, total);
            let Cut { pieces, next } = cut(&SCALE, window, Text { tokens, is_ended: *is_ended });
            let mut words_end = 0;
            for Piece { start, end, words } in pieces {
                prop_assert!(last_end <= start && start <= end && end <= window.end);
                prop_assert!(words_end <= words.start && words.start < words.end && words.end <= tokens.len());
                for edge in [tokens[words.start], tokens[words.end - 1]] {
                    prop_assert!(edge < SCALE.first_time, "a piece begins and ends with a word");
                }
                (last_end, words_end) = (end, words.end);
            }
            let least = (start + SCALE.sample_rate_hz).min(window.end);
            prop_assert!(least <= next && next <= total, "{start} to {next} of {total}");
            prop_assert!(next >= last_end || next == window.end, "nothing is told twice");
            (start, rounds) = (next, rounds + 1);
        }
        prop_assert!(rounds <= total / SCALE.sample_rate_hz + 1);
    }

    #[test]
    fn what_is_chosen_is_always_a_text_with_times_that_never_go_back(
        seed in any::<u64>(), temperature in prop::sample::select(vec![0.0f32, 0.4, 0.8]),
    ) {
        let rules = Rules::of(&graph());
        let mut random = StdRng::seed_from_u64(seed);
        let mut chosen = Vec::new();
        for _ in 0..30 {
            let logits: Vec<f32> = (0..121).map(|_| rand::Rng::random_range(&mut random, -9.0..9.0)).collect();
            let next = rules.choose(&logits, &rules.after(&chosen, 120), temperature, &mut random);
            // Behind the last time of all nothing may follow but words and the end.
            let next = next.expect("the end or a word may always come, once there is a time");
            prop_assert!(next.log_probability <= 1e-6, "{next:?}");
            if next.id == rules.end {
                break;
            }
            chosen.push(next.id);
        }
        prop_assert!(!chosen.is_empty() && rules.is_time(chosen[0]) && chosen[0] <= 70, "{chosen:?}");
        prop_assert!(chosen.iter().all(|id| *id < 10 && *id != 3 || *id >= 20), "{chosen:?}");
        let times: Vec<u32> = chosen.iter().copied().filter(|id| rules.is_time(*id)).collect();
        prop_assert!(times.is_sorted(), "{chosen:?}");
        for three in chosen.windows(3) {
            prop_assert!(!three.iter().all(|id| rules.is_time(*id)), "{chosen:?}");
        }
    }
}

#[test]
fn a_time_comes_where_all_times_together_are_likelier_than_any_word() {
    let rules = Rules::of(&graph());
    let mut random = StdRng::seed_from_u64(0);
    let mut logits = vec![f32::NEG_INFINITY; 121];
    logits[1] = 1.0;
    (30..60).for_each(|id| logits[id] = 0.0);
    logits[40] = 0.1;
    let after = rules.after(&[at(0), 2], 120);
    let chosen = rules.choose(&logits, &after, 0.0, &mut random).unwrap();
    assert_eq!(chosen.id, 40, "thirty times at 0 outweigh a word at 1");
    (32..60).for_each(|id| logits[id] = f32::NAN);
    let chosen = rules.choose(&logits, &after, 0.0, &mut random).unwrap();
    assert_eq!(chosen.id, 1);
    let expected = -(1.0 + 2.0 * (-1f64).exp()).ln();
    assert!(
        (chosen.log_probability - expected).abs() < 1e-6,
        "{chosen:?}"
    );
    assert!(
        rules
            .choose(&[f32::NAN; 121], &after, 0.0, &mut random)
            .is_none(),
        "nothing can come"
    );
    assert!((rules::probability(&[0.0, 0.0, f32::NEG_INFINITY], 1) - 0.5).abs() < 1e-6);
}

#[test]
fn readings_are_judged_by_the_thresholds_of_the_models_authors() {
    let judge = |no_speech, mean_log_probability, compression| {
        Measures {
            no_speech,
            mean_log_probability,
            compression,
        }
        .judge()
    };
    assert_eq!(
        judge(0.9, -0.5, 1.0),
        Judgement::Sound,
        "it is sure of what it heard"
    );
    assert_eq!(judge(0.7, -1.1, 1.0), Judgement::Silence);
    assert_eq!(judge(0.5, -1.1, 1.0), Judgement::Doubtful);
    assert_eq!(judge(0.1, -0.1, 2.5), Judgement::Doubtful);
    assert_eq!(judge(0.1, f64::NAN, 1.0), Judgement::Doubtful);
    let plain = "He might even have been made amiable himself.";
    assert!(
        guard::compression(plain) < 2.4,
        "{}",
        guard::compression(plain)
    );
    assert!(guard::compression(&"He was not. ".repeat(12)) > 2.4);
    assert_eq!(guard::compression(""), 0.0);
    assert!(guard::is_silent(&[0.0, 1.0 / 32768.0, -1.0 / 32768.0]));
    assert!(!guard::is_silent(&[0.0, 2.0 / 32768.0]));
}

#[test]
fn sound_that_cannot_be_heard_is_refused_with_its_limit() {
    let refused = |samples: Vec<f32>, rate| {
        SttRequest::new(samples, rate)
            .check()
            .unwrap_err()
            .to_string()
    };
    for (samples, rate, part) in [
        (vec![], 16_000, "is 0.000 s, allowed are 0.1 to 600 s"),
        (vec![0.0; 1599], 16_000, "0.1 to 600 s"),
        (vec![0.0; 601], 1, "is 601.000 s"),
    ] {
        let length = samples.len();
        let said = refused(samples, rate);
        assert!(said.contains(part), "{length} at {rate}: {said}");
    }
    for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut samples = vec![0.0; 16_000];
        samples[7] = wrong;
        let said = refused(samples, 16_000);
        assert!(said.contains("at 7") && said.contains("finite"), "{said}");
    }
}
