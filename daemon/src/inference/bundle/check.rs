//! What a `model.toml` says of its graph, held against itself: counts, and what each task asks besides. Pure; files are looked at by [`super`].

use std::ops::RangeInclusive;

use crate::inference::{
    arrays::Values,
    manifest::{Dimension, Graph, TensorsGraph, TtsGraph, WhisperGraph},
};

pub(super) fn counts(graph: &Graph) -> Vec<(&'static str, usize)> {
    match graph {
        Graph::Chat(graph) | Graph::Optimum(graph) => vec![
            ("graph.layers", graph.layers),
            ("graph.kv_heads", graph.kv_heads),
            ("graph.head_dim", graph.head_dim),
            ("graph.vocab_size", graph.vocab_size),
            ("graph.context_tokens", graph.context_tokens),
        ],
        Graph::Embedding(graph) => vec![
            ("graph.dimensions", graph.dimensions),
            ("graph.max_tokens", graph.max_tokens),
        ],
        Graph::Tensors(graph) => {
            let limits = graph.dimensions.values();
            limits
                .map(|limits| ("graph.dimensions (max)", limits.max))
                .collect()
        }
        Graph::Whisper(graph) => vec![
            ("graph.layers", graph.layers),
            ("graph.heads", graph.heads),
            ("graph.head_dim", graph.head_dim),
            ("graph.vocab_size", graph.vocab_size),
            ("graph.context_tokens", graph.context_tokens),
            ("graph.sample_rate_hz", graph.sample_rate_hz as usize),
            ("graph.window_samples", graph.window_samples),
            ("graph.position_samples", graph.position_samples),
            (
                "graph.tokens.timestamp_samples",
                graph.tokens.timestamp_samples,
            ),
        ],
        Graph::Tts(graph) => vec![
            ("graph.sample_rate_hz", graph.sample_rate_hz as usize),
            ("graph.hop_samples", graph.hop_samples),
            ("graph.speakers", graph.speakers as usize),
            ("graph.symbols", graph.symbols as usize),
        ],
        Graph::Vad(graph) => {
            let elements = graph
                .state_shape
                .iter()
                .fold(1usize, |all, dimension| all.saturating_mul(*dimension));
            vec![
                ("graph.sample_rate_hz", graph.sample_rate_hz as usize),
                ("graph.chunk_samples", graph.chunk_samples),
                ("graph.context_samples", graph.context_samples),
                ("graph.state_shape (elements)", elements),
            ]
        }
    }
}

/// Windows are whole positions, times reach from a window's beginning to its end, and every token has a row.
pub(super) fn whisper(graph: &WhisperGraph) -> Result<(), Wrong> {
    let wrong = |key: &str, expected: String, actual: String| Err((key.into(), expected, actual));
    let (window, tokens) = (graph.window_samples, &graph.tokens);
    for (key, part) in [
        ("graph.position_samples", graph.position_samples),
        ("graph.tokens.timestamp_samples", tokens.timestamp_samples),
    ] {
        if !window.is_multiple_of(part) {
            let expected = format!("a divisor of graph.window_samples, {window}");
            return wrong(key, expected, part.to_string());
        }
    }
    if graph.languages.is_empty() {
        return wrong("graph.languages", "at least one".into(), "none".into());
    }
    let times = window / tokens.timestamp_samples;
    let last_timestamp = (tokens.first_timestamp as usize).saturating_add(times);
    if last_timestamp >= graph.vocab_size {
        let expected = format!(
            "so that the time of a window's end, {last_timestamp}, is below graph.vocab_size, {}",
            graph.vocab_size
        );
        let actual = tokens.first_timestamp.to_string();
        return wrong("graph.tokens.first_timestamp", expected, actual);
    }
    let below_times = [tokens.end, tokens.no_speech];
    let listed = [&tokens.start, &tokens.suppressed];
    let mut all = below_times
        .into_iter()
        .chain(listed.into_iter().flatten().copied());
    if let Some(id) = all.find(|id| *id >= tokens.first_timestamp) {
        let expected = format!(
            "below graph.tokens.first_timestamp, {}",
            tokens.first_timestamp
        );
        return wrong("graph.tokens", expected, id.to_string());
    }
    // The beginning, one time and one word must fit.
    if tokens.start.is_empty() || tokens.start.len() + 2 > graph.context_tokens {
        let expected = format!("1 to {} tokens", graph.context_tokens.saturating_sub(2));
        return wrong(
            "graph.tokens.start",
            expected,
            tokens.start.len().to_string(),
        );
    }
    Ok(())
}

/// Key, expected, actual.
pub(super) type Wrong = (String, String, String);

/// Every type is one that can be fed, every free dimension of an input has limits, and a batch is first everywhere.
pub(super) fn tensors(graph: &TensorsGraph) -> Result<(), Wrong> {
    let sides = [("inputs", &graph.inputs), ("outputs", &graph.outputs)];
    for (side, tensors) in sides {
        if tensors.is_empty() {
            return Err((
                format!("graph.{side}"),
                "at least one".into(),
                "none".into(),
            ));
        }
        for (name, facts) in tensors {
            let key = format!("graph.{side}.{name}");
            if Values::element_bytes(&facts.element_type).is_none() {
                return Err((
                    key,
                    "f32, f64, f16, i64, i32, i16, i8, u8 or bool".into(),
                    format!("{:?}", facts.element_type),
                ));
            }
            let unlimited = facts.shape.iter().find(|dimension| {
                matches!(dimension, Dimension::Free(name) if !graph.dimensions.contains_key(name))
            });
            if let Some(unlimited) = unlimited.filter(|_| side == "inputs") {
                return Err((
                    key,
                    format!("limits in graph.dimensions.{unlimited:?}"),
                    "none".into(),
                ));
            }
            let is_batch = |first: Option<&Dimension>, batch: &String| matches!(first, Some(Dimension::Free(name)) if name == batch);
            if let Some(batch) = &graph.batch
                && !is_batch(facts.shape.first(), batch)
            {
                return Err((
                    key,
                    format!("a first dimension {batch:?}, as graph.batch says"),
                    format!("{:?}", facts.shape),
                ));
            }
        }
    }
    match graph
        .dimensions
        .iter()
        .find(|(_, limits)| limits.min > limits.max)
    {
        Some((name, limits)) => Err((
            format!("graph.dimensions.{name}"),
            "min not above max".into(),
            format!("{} to {}", limits.min, limits.max),
        )),
        None => Ok(()),
    }
}

/// Sample rates that sound cards and telephones have, in Hz.
const SAMPLE_RATES: RangeInclusive<u32> = 8_000..=192_000;

/// Longest name of a voice of espeak-ng; its own are below 20 letters.
const VOICE_BYTES_MAX: usize = 64;

/// The phonemes have rows in the graph, the scales are ones that something comes out with, and the voice's name can be an argument.
pub(super) fn voice(graph: &TtsGraph) -> Result<(), Wrong> {
    let wrong =
        |key: &str, expected: String, actual: String| Err((key.to_owned(), expected, actual));
    if !SAMPLE_RATES.contains(&graph.sample_rate_hz) {
        let (min, max) = (SAMPLE_RATES.start(), SAMPLE_RATES.end());
        let actual = graph.sample_rate_hz.to_string();
        return wrong("graph.sample_rate_hz", format!("{min} to {max}"), actual);
    }
    let voice = &graph.espeak_voice;
    let is_fit = voice.starts_with(|first: char| first.is_ascii_alphanumeric())
        && voice.len() <= VOICE_BYTES_MAX
        && voice
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_+".contains(&byte));
    if !is_fit {
        let expected = "a voice of espeak-ng: letters, digits, -, _ and +".to_owned();
        return wrong("graph.espeak_voice", expected, format!("{voice:?}"));
    }
    for (key, scale, min) in [
        ("graph.scales.noise", graph.scales.noise, 0.0),
        ("graph.scales.length", graph.scales.length, 0.1),
        ("graph.scales.noise_width", graph.scales.noise_width, 0.0),
    ] {
        if !(min..=10.0).contains(&scale) {
            return wrong(key, format!("{min} to 10"), scale.to_string());
        }
    }
    for (key, mark) in [
        ("graph.pad", graph.pad),
        ("graph.begin", graph.begin),
        ("graph.end", graph.end),
    ] {
        if !graph.phonemes.contains_key(&mark) {
            let expected = "one of graph.phonemes".to_owned();
            return wrong(key, expected, format!("{mark:?}"));
        }
    }
    if let Some((phoneme, id)) = graph.phonemes.iter().find(|(_, id)| **id >= graph.symbols) {
        let expected = format!("below graph.symbols, {}", graph.symbols);
        return wrong(
            &format!("graph.phonemes.{phoneme:?}"),
            expected,
            id.to_string(),
        );
    }
    let names = |several| match several {
        true => "input, input_lengths, scales and sid (several speakers)",
        false => "input, input_lengths and scales (one speaker)",
    };
    let has = |name: &str| graph.inputs.contains_key(name);
    let is_several = graph.speakers > 1;
    let known = if is_several { 4 } else { 3 };
    let is_whole =
        has("input") && has("input_lengths") && has("scales") && has("sid") == is_several;
    if !is_whole || graph.inputs.len() != known {
        let actual: Vec<&str> = graph.inputs.keys().map(String::as_str).collect();
        return wrong("graph.inputs", names(is_several).into(), actual.join(", "));
    }
    match graph.outputs.contains_key("output") {
        true => Ok(()),
        false => wrong("graph.outputs", "output".into(), "without it".into()),
    }
}
