//! The async shell around [`crate::understanding`]: one task owns the catalogue of phrases.
//!
//! It follows the registry: the phrases of a thing are embedded once, when its description is first seen or has changed,
//! so a new thing is understood the moment it connects. For a sentence it asks the embedding model between the two pure halves.
//! It never executes anything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::inference::InferenceHandle;
use crate::inference::class::Class;
use crate::inference::embedder::Embedded;
use crate::inference::error::InferenceError;
use crate::things::description::{ThingDescription, ThingId};
use crate::things::registry::{Registry, Things};
use crate::understanding::catalogue::Catalogue;
use crate::understanding::{Focus, Resolution};

/// Sentences waiting to be understood. Full: [`ComprehensionError::Busy`] at once.
const QUEUE: usize = 16;
/// Rest before phrases are embedded again after the model could not.
const RETRY: Duration = Duration::from_secs(1);

/// Where the time of understanding went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ComprehensionTimings {
    /// Waiting for the catalogue's task and the model's thread.
    pub queue: Duration,
    /// Splitting the sentence, and text to tokens: the encode stage.
    pub encode: Duration,
    /// The embedding model: the infer stage.
    pub infer: Duration,
    /// Matching, slots and references: the first part of the decode stage.
    pub decode: Duration,
}

/// A sentence that was understood (or found to be none of a command).
#[derive(Debug, Clone)]
pub struct Understood {
    /// What it came to.
    pub resolution: Resolution,
    /// Where the time went.
    pub timings: ComprehensionTimings,
}

/// Why a sentence was not understood.
#[derive(Debug, thiserror::Error)]
pub enum ComprehensionError {
    /// Too many sentences wait.
    #[error("too many sentences wait to be understood; try again")]
    Busy,
    /// The embedding model cannot be used now.
    #[error("commands cannot be understood now: {0}")]
    Model(#[from] InferenceError),
    /// Stopping.
    #[error("the daemon is stopping")]
    Stopping,
}

struct Sentence {
    class: Class,
    text: String,
    focus: Focus,
    asked: Instant,
    reply: oneshot::Sender<Result<Understood, ComprehensionError>>,
}

/// Handle to the task. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Comprehension {
    sentences: mpsc::Sender<Sentence>,
    understood: watch::Receiver<usize>,
}

/// The owner task's state.
#[derive(Debug)]
pub struct ComprehensionTask {
    sentences: mpsc::Receiver<Sentence>,
    catalogue: Catalogue,
    known: BTreeMap<ThingId, Arc<ThingDescription>>,
    understood: watch::Sender<usize>,
    registry: Registry,
    inference: InferenceHandle,
}

/// Makes it: the handle, and the task to run.
#[must_use]
pub fn comprehension(
    catalogue: Catalogue,
    registry: Registry,
    inference: InferenceHandle,
) -> (Comprehension, ComprehensionTask) {
    let (sentences, queue) = mpsc::channel(QUEUE);
    let (understood, watched) = watch::channel(0);
    let task = ComprehensionTask {
        sentences: queue,
        catalogue,
        known: BTreeMap::new(),
        understood,
        registry,
        inference,
    };
    (
        Comprehension {
            sentences,
            understood: watched,
        },
        task,
    )
}

impl Comprehension {
    /// How many things can be spoken to, to watch.
    #[must_use]
    pub fn understood(&self) -> watch::Receiver<usize> {
        self.understood.clone()
    }

    /// Understands one sentence in the light of `focus`; `class` says who waits.
    ///
    /// # Errors
    /// [`ComprehensionError`].
    pub async fn understand(
        &self,
        class: Class,
        text: String,
        focus: Focus,
    ) -> Result<Understood, ComprehensionError> {
        let (reply, understood) = oneshot::channel();
        self.sentences
            .try_send(Sentence {
                class,
                text,
                focus,
                asked: Instant::now(),
                reply,
            })
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => ComprehensionError::Busy,
                mpsc::error::TrySendError::Closed(_) => ComprehensionError::Stopping,
            })?;
        understood
            .await
            .unwrap_or(Err(ComprehensionError::Stopping))
    }
}

impl ComprehensionTask {
    /// Follows the registry and understands sentences until cancelled.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut things = self.registry.watch();
        let mut models = self.inference.status();
        let mut is_behind = true;
        loop {
            if is_behind {
                let now = Arc::clone(&things.borrow_and_update());
                is_behind = !self.follow(&now).await;
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                Some(sentence) = self.sentences.recv() => {
                    // A thing that has just connected is to be understood in the next sentence.
                    let now = Arc::clone(&things.borrow_and_update());
                    is_behind = !self.follow(&now).await;
                    let understood = self.understand(&sentence, &now).await;
                    let _ = sentence.reply.send(understood);
                }
                changed = things.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    is_behind = true;
                }
                _ = models.changed(), if is_behind => {}
                () = tokio::time::sleep(RETRY), if is_behind => {}
            }
        }
    }

    /// Brings the catalogue in line with the things; false when the model could not embed some.
    async fn follow(&mut self, things: &Things) -> bool {
        let is_complete = self.learn(things).await;
        self.understood
            .send_if_modified(|told| std::mem::replace(told, self.known.len()) != self.known.len());
        is_complete
    }

    async fn learn(&mut self, things: &Things) -> bool {
        let gone: Vec<ThingId> = self
            .known
            .keys()
            .filter(|id| !things.contains_key(id))
            .cloned()
            .collect();
        for id in gone {
            self.catalogue.remove(&id);
            self.known.remove(&id);
        }
        for (id, thing) in things {
            let description = &thing.description;
            if self
                .known
                .get(id)
                .is_some_and(|known| Arc::ptr_eq(known, description) || **known == **description)
            {
                continue;
            }
            let started = Instant::now();
            let phrases = self.catalogue.phrases_for(description);
            let texts = phrases
                .iter()
                .map(|phrase| phrase.text.clone())
                .collect::<Vec<_>>();
            let count = texts.len();
            let embedder = self.inference.embedder().for_class(Class::Background);
            match embedder.embed(texts).await {
                Ok(vectors) => {
                    let vectors = vectors
                        .iter()
                        .map(|vector| vector.as_slice().to_vec())
                        .collect();
                    // Known even when it cannot be taken in: the same description would be refused again.
                    self.known.insert(id.clone(), Arc::clone(description));
                    if let Err(error) = self.catalogue.insert(description, phrases, vectors) {
                        tracing::error!(thing = %id, %error, "thing cannot be spoken to; it can be commanded by name");
                        continue;
                    }
                    tracing::info!(thing = %id, phrases = count, elapsed_ms = started.elapsed().as_millis() as u64, "thing can be spoken to");
                }
                Err(error) => {
                    tracing::debug!(thing = %id, %error, "phrases not embedded yet");
                    return false;
                }
            }
        }
        true
    }

    async fn understand(
        &mut self,
        sentence: &Sentence,
        things: &Things,
    ) -> Result<Understood, ComprehensionError> {
        let begun = Instant::now();
        let prepared = self.catalogue.prepare(&sentence.text, &sentence.focus);
        let split = begun.elapsed();
        let texts = prepared.texts().to_vec();
        // "Hello" has nothing to compare; the model need not be asked, nor even be there.
        let embedded = match texts.is_empty() {
            true => Embedded::default(),
            false => {
                let embedder = self.inference.embedder().for_class(sentence.class);
                embedder.embed_timed(texts).await?
            }
        };
        let vectors: Vec<Vec<f32>> = embedded
            .embeddings
            .iter()
            .map(|vector| vector.as_slice().to_vec())
            .collect();
        let matching = Instant::now();
        let state = |thing: &ThingId, property: &str| -> Option<Value> {
            things.get(thing)?.values.get(property).cloned()
        };
        let resolution = self
            .catalogue
            .resolve(&prepared, &vectors, &sentence.focus, &state);
        let timings = ComprehensionTimings {
            queue: begun.saturating_duration_since(sentence.asked) + embedded.timings.queue,
            encode: split + embedded.timings.tokenize,
            infer: embedded.timings.infer,
            decode: matching.elapsed(),
        };
        Ok(Understood {
            resolution,
            timings,
        })
    }
}
