//! Sentences to vectors: tokenize, run the graph, mean over tokens, scale to length 1.
//!
//! One thread owns the model. A request is cut into parts of at most [`PART`] sentences that queue one after the other, and the most urgent
//! [`Class`] goes first, so that a person's sentence waits for one run, and not for the hundreds of phrases of a device that has just connected. Parts of one
//! class that wait at the same time are embedded together, up to [`TOGETHER`] sentences; short ones are filled up to their neighbours' length and masked, as long as
//! that wastes little ([`groups`]). A sentence's vector does not depend on its company but for the rounding of sums: the cosine to the vector made alone is above 0.9999.
//! Bundle layout: `bert-last-hidden-state` ([`EmbeddingGraph`]).

use std::time::{Duration, Instant};

use ort::{
    session::{Session, SessionInputValue},
    value::Tensor,
};
use tokenizers::{Tokenizer, TruncationParams};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{
    bundle::Bundle,
    class::Class,
    error::{InferenceError, LoadError},
    jobs::Jobs,
    manifest::{EmbeddingGraph, Graph, Task},
    probe::{self, EmbeddingProbe},
    runtime::Runtime,
    session,
    slot::{Door, Model, Setup},
    status::LoadStage,
};

/// Sentences per part, and so the longest that another caller's part delays one: some 40 ms.
const PART: usize = 8;

/// Sentences that are embedded together, of all callers. Chosen because sixteen keep a core's multiplications busy, and a person who comes just after
/// them waits some 80 ms.
const TOGETHER: usize = 16;

/// Most of a group's tokens that may be filling, as one part in so many.
const FILLING_MAX: usize = 4;

/// Most sentences in one request. Chosen because a Thing with 50 affordances makes some 1,000 phrases.
const TEXTS_MAX: usize = 16_384;

/// Longest sentence in bytes. The model reads 256 tokens; what is beyond 16 kB could only cost time.
const TEXT_BYTES_MAX: usize = 16 << 10;

/// A sentence as a point: as many numbers as the model has dimensions, of length 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding(Box<[f32]>);

impl Embedding {
    /// The numbers.
    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }

    /// The cosine of the angle to another embedding of the same model: 1 is the same direction, 0 unrelated.
    pub fn cosine(&self, other: &Self) -> f32 {
        self.0.iter().zip(&other.0).map(|(a, b)| a * b).sum()
    }
}

impl From<Vec<f32>> for Embedding {
    /// Scales to length 1; a zero vector stays zero.
    fn from(mut values: Vec<f32>) -> Self {
        let length = values.iter().map(|value| value * value).sum::<f32>().sqrt();
        if length > 0.0 {
            values.iter_mut().for_each(|value| *value /= length);
        }
        Self(values.into())
    }
}

/// Where the time of a request went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EmbedTimings {
    /// Waiting for the model's thread.
    pub queue: Duration,
    /// Text to token ids.
    pub tokenize: Duration,
    /// The graph and the pooling.
    pub infer: Duration,
}

/// The vectors of a request, in the order of its sentences, and where the time went.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Embedded {
    /// One per sentence.
    pub embeddings: Vec<Embedding>,
    /// Summed over the request.
    pub timings: EmbedTimings,
}

/// A cheap, clonable way to the embedding model.
#[derive(Debug, Clone)]
pub struct EmbedderHandle {
    door: Door<EmbedJob>,
    class: Class,
}

impl EmbedderHandle {
    pub(super) fn new(door: Door<EmbedJob>) -> Self {
        Self {
            door,
            class: Class::default(),
        }
    }

    /// The same model, for requests of another class than [`Class::Local`].
    #[must_use]
    pub fn for_class(&self, class: Class) -> Self {
        Self {
            class,
            ..self.clone()
        }
    }

    /// Embeds sentences; the answer has them in the same order. Dropping the future abandons what has not begun.
    ///
    /// # Errors
    /// At once: [`InferenceError::NotReady`], [`InferenceError::Overloaded`] (the queue is full), [`InferenceError::OutOfRange`].
    /// Later: [`InferenceError::Run`], [`InferenceError::Tokenize`], [`InferenceError::Stopping`].
    pub async fn embed(&self, texts: Vec<String>) -> Result<Vec<Embedding>, InferenceError> {
        Ok(self.embed_timed(texts).await?.embeddings)
    }

    /// [`embed`](Self::embed), and where the time went.
    ///
    /// # Errors
    /// As [`embed`](Self::embed).
    pub async fn embed_timed(&self, texts: Vec<String>) -> Result<Embedded, InferenceError> {
        check_range("number of sentences", texts.len(), TEXTS_MAX)?;
        for text in &texts {
            check_range("bytes of a sentence", text.len(), TEXT_BYTES_MAX)?;
        }
        let mut all = Embedded {
            embeddings: Vec::with_capacity(texts.len()),
            timings: EmbedTimings::default(),
        };
        let mut texts = texts.into_iter();
        loop {
            let part: Vec<String> = texts.by_ref().take(PART).collect();
            if part.is_empty() {
                return Ok(all);
            }
            let (reply, answer) = oneshot::channel();
            let job = EmbedJob {
                texts: part,
                reply,
                since: Instant::now(),
            };
            if all.embeddings.is_empty() {
                self.door.try_submit(self.class, job)?;
            } else {
                self.door.submit(self.class, job).await?;
            }
            let part = answer.await.map_err(|_| self.door.not_ready())??;
            all.embeddings.extend(part.embeddings);
            all.timings.queue += part.timings.queue;
            all.timings.tokenize += part.timings.tokenize;
            all.timings.infer += part.timings.infer;
        }
    }
}

fn check_range(what: &'static str, actual: usize, max: usize) -> Result<(), InferenceError> {
    if (1..=max).contains(&actual) {
        return Ok(());
    }
    Err(InferenceError::OutOfRange {
        what,
        actual: actual.to_string(),
        allowed: format!("1 to {max}"),
    })
}

/// One part of a request.
#[derive(Debug)]
pub(super) struct EmbedJob {
    texts: Vec<String>,
    reply: oneshot::Sender<Result<Embedded, InferenceError>>,
    since: Instant,
}

/// The model, owned by its thread.
pub(super) struct Embedder {
    session: Session,
    tokenizer: Tokenizer,
    graph: EmbeddingGraph,
}

impl Model for Embedder {
    type Job = EmbedJob;
    const TASK: Task = Task::Embedding;

    fn load(
        bundle: &Bundle,
        runtime: &Runtime,
        setup: &Setup,
        on_stage: &dyn Fn(LoadStage),
    ) -> Result<Self, LoadError> {
        let manifest = bundle.manifest();
        let (Graph::Embedding(graph), Some(facts)) = (&manifest.graph, &manifest.tokenizer) else {
            unreachable!(
                "Bundle::open checked that an embedding bundle has its graph and a tokenizer"
            );
        };
        on_stage(LoadStage::Graph);
        let session = session::open(bundle, runtime, setup.threads)?;
        let path = bundle.path(&facts.file);
        let tokenizer = load_tokenizer(&path, graph.max_tokens)
            .map_err(|source| LoadError::Tokenizer { path, source })?;
        let mut embedder = Self {
            session,
            tokenizer,
            graph: graph.clone(),
        };
        on_stage(LoadStage::Probe);
        let probe: EmbeddingProbe = probe::read(bundle)?;
        let embedded = embedder
            .embed(std::slice::from_ref(&probe.text))
            .map_err(LoadError::probe_run(bundle))?;
        probe.check(embedded.embeddings.first().map_or(&[], Embedding::as_slice))?;
        Ok(embedder)
    }

    fn serve(mut self, jobs: &Jobs<EmbedJob>, stop: &CancellationToken) {
        while let Some((class, first)) = jobs.blocking_recv_classed() {
            let mut together = vec![first];
            let mut count = together[0].texts.len();
            while count + PART <= TOGETHER
                && let Some(job) = jobs.try_recv(class)
            {
                count += job.texts.len();
                together.push(job);
            }
            together.retain(|job| !job.reply.is_closed());
            if stop.is_cancelled() {
                for job in together {
                    let _ = job.reply.send(Err(InferenceError::Stopping));
                }
            } else {
                self.serve_together(together);
            }
        }
    }
}

/// The tokenizer as this engine uses it.
pub(super) fn load_tokenizer(
    path: &std::path::Path,
    max_length: usize,
) -> Result<Tokenizer, Box<dyn std::error::Error + Send + Sync>> {
    let mut tokenizer = Tokenizer::from_file(path)?;
    // Files from the training side often pad everything to 128 tokens; sentences of equal length are batched here instead.
    tokenizer.with_padding(None);
    tokenizer.with_truncation(Some(TruncationParams {
        max_length,
        ..TruncationParams::default()
    }))?;
    Ok(tokenizer)
}

impl Embedder {
    /// Embeds the parts of several callers in as few runs as that takes, and gives each its own.
    fn serve_together(&mut self, jobs: Vec<EmbedJob>) {
        let begun = Instant::now();
        let texts: Vec<String> = jobs.iter().flat_map(|job| job.texts.clone()).collect();
        if texts.is_empty() {
            return;
        }
        let result = self.embed(&texts);
        let is_alone = jobs.len() == 1;
        let mut rest = match result {
            Ok(embedded) => Ok((embedded.embeddings.into_iter(), embedded.timings)),
            // One caller's sentence may be what is wrong: each is told about its own.
            Err(_) if !is_alone => {
                return jobs
                    .into_iter()
                    .for_each(|job| self.serve_together(vec![job]));
            }
            Err(error) => Err(error),
        };
        for job in jobs {
            let part = match &mut rest {
                Ok((embeddings, timings)) => Ok(Embedded {
                    embeddings: embeddings.by_ref().take(job.texts.len()).collect(),
                    timings: EmbedTimings {
                        queue: begun - job.since,
                        ..*timings
                    },
                }),
                Err(_) => match std::mem::replace(&mut rest, Err(InferenceError::Stopping)) {
                    Err(error) => Err(error),
                    Ok(_) => Err(InferenceError::Stopping),
                },
            };
            // A caller that has gone away in the meantime does not want it.
            let _ = job.reply.send(part);
        }
    }

    fn embed(&mut self, texts: &[String]) -> Result<Embedded, InferenceError> {
        let begun = Instant::now();
        let mut rows = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            let encoding = self
                .tokenizer
                .encode_fast(text.as_str(), true)
                .map_err(|source| InferenceError::Tokenize { source })?;
            let ids: Vec<i64> = encoding.get_ids().iter().map(|&id| i64::from(id)).collect();
            rows.push((index, ids));
        }
        let tokenized = Instant::now();
        let mut embeddings = vec![Embedding(Box::default()); texts.len()];
        for rows in groups(rows) {
            for (index, embedding) in self.run(&rows)? {
                embeddings[index] = embedding;
            }
        }
        let timings = EmbedTimings {
            queue: Duration::ZERO,
            tokenize: tokenized - begun,
            infer: tokenized.elapsed(),
        };
        Ok(Embedded {
            embeddings,
            timings,
        })
    }

    /// Runs `rows` of token ids, each filled up to the longest.
    fn run(
        &mut self,
        rows: &[(usize, Vec<i64>)],
    ) -> Result<Vec<(usize, Embedding)>, InferenceError> {
        let dimensions = self.graph.dimensions;
        let length = rows.iter().map(|(_, ids)| ids.len()).max().unwrap_or(0);
        let shape = [rows.len(), length];
        let filled = |value: fn(i64) -> i64| -> Vec<i64> {
            let row = |ids: &'_ Vec<i64>| {
                let filling = std::iter::repeat_n(0, length - ids.len());
                ids.iter()
                    .map(|id| value(*id))
                    .chain(filling)
                    .collect::<Vec<_>>()
            };
            rows.iter().flat_map(|(_, ids)| row(ids)).collect()
        };
        let mut inputs: Vec<(&str, SessionInputValue<'_>)> =
            Vec::with_capacity(self.graph.inputs.len());
        for name in self.graph.inputs.keys() {
            let values = match name.as_str() {
                "input_ids" => filled(|id| id),
                "attention_mask" => filled(|_| 1),
                _ => vec![0i64; rows.len() * length],
            };
            inputs.push((name.as_str(), Tensor::from_array((shape, values))?.into()));
        }
        let outputs = self.session.run(inputs)?;
        const NAME: &str = "last_hidden_state";
        let expected = rows.len() * length * dimensions;
        let states = match outputs.get(NAME) {
            Some(value) => value.try_extract_tensor::<f32>()?.1,
            None => &[],
        };
        if states.len() != expected || expected == 0 {
            return Err(InferenceError::Output {
                name: NAME,
                expected,
                actual: states.len(),
            });
        }
        let per_sentence = states.chunks_exact(length * dimensions);
        Ok(rows
            .iter()
            .zip(per_sentence)
            // The filling counts in no mean.
            .map(|((index, ids), tokens)| {
                (*index, pool(&tokens[..ids.len() * dimensions], dimensions))
            })
            .collect())
    }
}

/// Sorts rows by length and cuts them where more than a [`FILLING_MAX`]th of a group would be filling.
fn groups(mut rows: Vec<(usize, Vec<i64>)>) -> Vec<Vec<(usize, Vec<i64>)>> {
    rows.sort_by_key(|(_, ids)| ids.len());
    let mut groups: Vec<Vec<(usize, Vec<i64>)>> = Vec::new();
    let mut held = 0;
    for row in rows {
        let length = row.1.len();
        let is_near = groups.last().is_some_and(|group| {
            let all = (group.len() + 1) * length;
            (all - held - length) * FILLING_MAX <= all
        });
        match groups.last_mut().filter(|_| is_near) {
            Some(group) => {
                held += length;
                group.push(row);
            }
            None => {
                held = length;
                groups.push(vec![row]);
            }
        }
    }
    groups
}

/// The mean over tokens, scaled to length 1, which makes the division by the number of tokens superfluous.
fn pool(tokens: &[f32], dimensions: usize) -> Embedding {
    let mut sum = vec![0f32; dimensions];
    for token in tokens.chunks_exact(dimensions) {
        sum.iter_mut()
            .zip(token)
            .for_each(|(sum, value)| *sum += value);
    }
    Embedding::from(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_filled_up_only_where_little_is_wasted() {
        let lengths = |lengths: &[usize]| -> Vec<Vec<usize>> {
            let rows = lengths.iter().enumerate();
            let rows = rows
                .map(|(index, &length)| (index, vec![7; length]))
                .collect();
            let lengths =
                |group: Vec<(usize, Vec<i64>)>| group.iter().map(|(_, ids)| ids.len()).collect();
            groups(rows).into_iter().map(lengths).collect()
        };
        assert_eq!(lengths(&[9, 8, 9, 3]), [vec![3], vec![8, 9, 9]]);
        assert_eq!(lengths(&[4, 200]), [[4], [200]]);
        assert_eq!(lengths(&[6, 8]), [[6, 8]], "2 of 16 are filling");
        assert_eq!(lengths(&[3, 6]), [vec![3, 6]], "3 of 12: a quarter");
        assert_eq!(lengths(&[2, 5]), [vec![2], vec![5]], "3 of 10: more");
        assert_eq!(lengths(&[]), Vec::<Vec<usize>>::new());
    }
}
