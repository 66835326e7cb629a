//! What a model is run on in a proof: its bundle's probe as inputs of the graph, step by step.
//!
//! The engines' own checks look at what a person would notice (a probability, a sentence's vector). Here every output of the graph is
//! looked at, the hidden state too, and a step that takes the outputs of the one before takes those of the CPU provider: so both
//! graphs always see the same input.

use super::super::super::{
    arrays::{Array, Arrays},
    bundle::Bundle,
    embedder,
    error::LoadError,
    generic::GenericProbe,
    manifest::{ChatGraph, EmbeddingGraph, Graph, TtsGraph, VadGraph},
    probe::{self, ChatProbe, EmbeddingProbe, SttProbe, VadProbe},
    tts::TtsProbe,
};

/// Chunks of sound that are tried: a quarter of a second, enough for an error in the state to grow.
const CHUNKS: usize = 8;

/// Name of the inputs and outputs with the keys and values of a layer.
const LAYER: &str = "{layer}";

/// The steps of a bundle's probe.
pub(super) enum Feed {
    Vad {
        graph: VadGraph,
        chunks: Vec<Vec<f32>>,
    },
    Embedding {
        graph: EmbeddingGraph,
        ids: Vec<i64>,
    },
    Chat {
        graph: ChatGraph,
        ids: Vec<i64>,
    },
    /// The first graph of the two: the other one runs on the CPU always.
    Whisper {
        pcm: Vec<f32>,
    },
    Tts {
        graph: TtsGraph,
        ids: Vec<i64>,
    },
    Generic {
        inputs: Arrays,
    },
}

impl Feed {
    /// Reads the bundle's probe.
    ///
    /// # Errors
    /// As the engines' loading; [`LoadError::Unprovable`] for a layout whose graph nobody here knows how to feed.
    pub(super) fn of(bundle: &Bundle) -> Result<Self, LoadError> {
        let manifest = bundle.manifest();
        let graph = &manifest.graph;
        if let Graph::Vad(graph) = graph {
            let probe: VadProbe = probe::read(bundle)?;
            let mut before = vec![0.0; graph.context_samples];
            let chunks = probe
                .samples
                .chunks_exact(graph.chunk_samples)
                .take(CHUNKS)
                .map(|chunk| {
                    let input = [before.as_slice(), chunk].concat();
                    before = input[input.len() - graph.context_samples..].to_vec();
                    input
                })
                .collect();
            return Ok(Self::Vad {
                graph: graph.clone(),
                chunks,
            });
        }
        if let Graph::Whisper(graph) = graph {
            let probe: SttProbe = probe::read(bundle)?;
            let mut pcm = probe.samples();
            pcm.resize(graph.window_samples, 0.0);
            return Ok(Self::Whisper { pcm });
        }
        if let Graph::Tts(graph) = graph {
            let probe: TtsProbe = probe::read(bundle)?;
            return Ok(Self::Tts {
                graph: graph.clone(),
                ids: probe.ids,
            });
        }
        if let Graph::Tensors(_) = graph {
            let inputs = GenericProbe::of(bundle)?.inputs;
            return Ok(Self::Generic { inputs });
        }
        if let (Graph::Embedding(graph), Some(facts)) = (graph, &manifest.tokenizer) {
            let probe: EmbeddingProbe = probe::read(bundle)?;
            let path = bundle.path(&facts.file);
            let encoded = embedder::load_tokenizer(&path, graph.max_tokens)
                .and_then(|tokenizer| tokenizer.encode_fast(probe.text.as_str(), true));
            let encoding = encoded.map_err(|source| LoadError::Tokenizer { path, source })?;
            return Ok(Self::Embedding {
                graph: graph.clone(),
                ids: encoding.get_ids().iter().map(|&id| i64::from(id)).collect(),
            });
        }
        if let Graph::Chat(graph) = graph
            && graph.inputs.contains_key("seqlens_k")
        {
            let probe: ChatProbe = probe::read(bundle)?;
            return Ok(Self::Chat {
                graph: graph.clone(),
                ids: probe.input_ids.into_iter().map(i64::from).collect(),
            });
        }
        Err(LoadError::Unprovable {
            name: manifest.name.clone(),
        })
    }

    /// The inputs of step `index`, given what the CPU provider put out in the step before; `None` after the last.
    pub(super) fn step(&self, index: usize, before: &Arrays) -> Option<Arrays> {
        match self {
            Self::Vad { graph, chunks } => {
                let input = chunks.get(index)?;
                let silence = || {
                    let count = graph.state_shape.iter().product();
                    Array::f32(graph.state_shape.clone(), vec![0.0; count])
                };
                let state = before.get("stateN").cloned().unwrap_or_else(silence);
                let mut inputs = Arrays::from([
                    ("input".into(), Array::f32([1, input.len()], input.clone())),
                    ("state".into(), state),
                ]);
                if graph.inputs.contains_key("sr") {
                    let rate = i64::from(graph.sample_rate_hz);
                    inputs.insert("sr".into(), Array::i64([], vec![rate]));
                }
                Some(inputs)
            }
            Self::Embedding { graph, ids } if index == 0 => {
                let values = |name: &str| match name {
                    "input_ids" => ids.clone(),
                    "attention_mask" => vec![1; ids.len()],
                    _ => vec![0; ids.len()],
                };
                let names = graph.inputs.keys();
                Some(
                    names
                        .map(|name| (name.clone(), Array::i64([1, ids.len()], values(name))))
                        .collect(),
                )
            }
            Self::Chat { graph, ids } if index < 2 => Some(chat_step(graph, ids, index, before)),
            Self::Whisper { pcm } if index == 0 => {
                let pcm = Array::f32([1, pcm.len()], pcm.clone());
                Some(Arrays::from([("pcm".into(), pcm)]))
            }
            Self::Tts { graph, ids } if index == 0 => {
                // Without noise, so that both say the same.
                let scales = vec![0.0, graph.scales.length, 0.0];
                let mut inputs = Arrays::from([
                    ("input".into(), Array::i64([1, ids.len()], ids.clone())),
                    (
                        "input_lengths".into(),
                        Array::i64([1], vec![ids.len() as i64]),
                    ),
                    ("scales".into(), Array::f32([3], scales)),
                ]);
                if graph.speakers > 1 {
                    inputs.insert("sid".into(), Array::i64([1], vec![0]));
                }
                Some(inputs)
            }
            Self::Generic { inputs } if index == 0 => Some(inputs.clone()),
            Self::Embedding { .. }
            | Self::Chat { .. }
            | Self::Whisper { .. }
            | Self::Tts { .. }
            | Self::Generic { .. } => None,
        }
    }
}

/// All of the prompt at once, then one more token behind it.
fn chat_step(graph: &ChatGraph, ids: &[i64], index: usize, before: &Arrays) -> Arrays {
    let (prompt, next) = ids.split_at(ids.len().saturating_sub(1).max(1));
    let (now, total) = match (index, next) {
        (0, _) => (prompt, prompt.len()),
        (_, []) => (prompt, prompt.len() + 1),
        (_, next) => (next, prompt.len() + next.len()),
    };
    let now = if index == 0 { now } else { &now[..1] };
    let number = |value: usize| i32::try_from(value).unwrap_or(i32::MAX);
    let room = ids.len() + 1;
    let mut inputs = Arrays::new();
    for name in graph.inputs.keys() {
        if name.contains(LAYER) {
            for layer in 0..graph.layers {
                let name = name.replace(LAYER, &layer.to_string());
                let shape = [1, graph.kv_heads, room, graph.head_dim];
                let count = shape.iter().product();
                let empty = || match graph.kv_type.as_str() {
                    "i8" => Array::i8(shape, vec![0; count]),
                    _ => Array::f32(shape, vec![0.0; count]),
                };
                let past = before.get(&name.replace("past_key_values", "present"));
                let past = past.cloned().unwrap_or_else(empty);
                inputs.insert(name, past);
            }
            continue;
        }
        let value = match name.as_str() {
            "input_ids" => Array::i64([1, now.len()], now.to_vec()),
            "seqlens_k" => Array::i32([1], vec![number(total) - 1]),
            "total_sequence_length" => Array::i32([], vec![number(total)]),
            "logits_pos" => Array::i64([1], vec![now.len() as i64 - 1]),
            _ => continue,
        };
        inputs.insert(name.clone(), value);
    }
    inputs
}
