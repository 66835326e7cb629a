//! The chat model on its thread: takes requests in, makes their prompts, runs the model for all of them in turns, streams.

use std::{fs, sync::Arc, time::Instant};

use ort::session::RunOptions;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        bundle::{Bundle, MANIFEST_FILE},
        error::{InferenceError, LoadError, millis},
        manifest::{CacheForm, ChatGraph, Graph, Task},
        probe::{self, ChatProbe},
        runtime::Runtime,
        session,
        slot::{Model, QUEUE, Setup},
        status::LoadStage,
    },
    ChatJob,
    batch::Step,
    cache::{
        budget,
        memory::{ElementKind, Geometry},
        slots::{SequenceId, Slots},
    },
    constrain::{Form, Grammars, Guide},
    desk::{ALWAYS_COMPUTED, Desk, Finished},
    graph::{
        DecoderGraph,
        growing::Growing,
        in_place::{InPlace, Lengths},
    },
    lookup,
    outlet::Outlet,
    prompt::PromptMaker,
    sampler::Sampler,
    sequence::{Account, Chooser, Ended, Limits, Sequence, refuse},
    snapshot::{SEGMENT_TOKENS_MIN, Shelf},
    stop::StopStrings,
    text::TextStream,
};

/// The model, owned by its thread.
pub(in super::super) struct Chat {
    graph: Box<dyn DecoderGraph>,
    vocab_size: usize,
    prompts: PromptMaker,
    end_of_turn: Arc<[u32]>,
    desk: Desk,
    /// One that found no slot or no memory, and is the next to get it.
    parked: Option<Parked>,
    shelf: Option<Shelf>,
    /// `Err` says why no answer can be held to a form.
    grammars: Result<Grammars, String>,
}

struct Parked {
    sequence: Sequence,
    need: usize,
    dropped_messages: usize,
}

impl Model for Chat {
    type Job = ChatJob;
    const TASK: Task = Task::Chat;

    fn load(
        bundle: &Bundle,
        runtime: &Runtime,
        setup: &Setup,
        on_stage: &dyn Fn(LoadStage),
    ) -> Result<Self, LoadError> {
        let manifest = bundle.manifest();
        let (Some(graph), Some(tokenizer), Some(template)) = (
            manifest.graph.chat(),
            &manifest.tokenizer,
            &manifest.template,
        ) else {
            unreachable!(
                "Bundle::open checked that a chat bundle has its graph, a tokenizer and a template"
            );
        };
        let prompts =
            PromptMaker::load(&bundle.path(&tokenizer.file), &bundle.path(&template.file))?;
        let (geometry, budget) = geometry(graph, setup)?;
        on_stage(LoadStage::Graph);
        let session = session::open(bundle, runtime, setup.threads)?;
        let interruptible =
            setup
                .interrupts
                .enter(RunOptions::new().map_err(|source| LoadError::Graph {
                    path: bundle.path(&graph.file),
                    source,
                })?);
        let mut decoder: Box<dyn DecoderGraph> = match (&manifest.graph, graph.cache) {
            (Graph::Optimum(_), CacheForm::Appended) => Box::new(Growing::new(
                session,
                graph.vocab_size,
                geometry,
                interruptible,
            )),
            (Graph::Optimum(_), CacheForm::InPlace) => Box::new(InPlace::new(
                session,
                graph,
                Lengths::Masked,
                geometry,
                interruptible,
            )?),
            _ => Box::new(InPlace::new(
                session,
                graph,
                Lengths::Counted,
                geometry,
                interruptible,
            )?),
        };
        on_stage(LoadStage::Probe);
        let probe: ChatProbe = probe::read(bundle)?;
        let logits =
            decoder
                .alone(0, 0, &probe.input_ids, 1)
                .map_err(|source| LoadError::ProbeRun {
                    name: manifest.name.clone(),
                    source: Box::new(source.into()),
                })?;
        probe.check(logits)?;
        let grammars = Grammars::new(
            &prompts.tokenizer(),
            graph.vocab_size,
            &tokenizer.end_of_turn,
        );
        if let Err(reason) = &grammars {
            tracing::warn!(model = manifest.name, %reason, "no answer can be held to a form");
        }
        let slots = Slots::new(geometry.slots, geometry.capacity, budget);
        Ok(Self {
            desk: Desk::new(slots, decoder.is_joint()),
            graph: decoder,
            vocab_size: graph.vocab_size,
            prompts,
            end_of_turn: tokenizer.end_of_turn.as_slice().into(),
            parked: None,
            shelf: shelf(bundle, runtime, setup),
            grammars,
        })
    }

    fn serve(mut self, jobs: &mut mpsc::Receiver<ChatJob>, stop: &CancellationToken) {
        while self.take_in(jobs, stop) {
            if stop.is_cancelled() {
                self.end_all(|| InferenceError::Stopping);
            }
            self.desk.drop_unwanted();
            if let Some(step) = self.desk.next() {
                self.run(&step, stop);
            }
            for finished in self.desk.take_finished() {
                self.keep(&finished);
            }
        }
    }
}

impl Chat {
    /// Takes requests in while there are slots for them, and waits when there is nothing to do. `false` at the end.
    fn take_in(&mut self, jobs: &mut mpsc::Receiver<ChatJob>, stop: &CancellationToken) -> bool {
        if let Some(parked) = self.parked.take()
            && !self.seat(parked)
        {
            return true;
        }
        while self.parked.is_none() && self.desk.slots.has_free() {
            let job = if self.desk.is_empty() {
                match jobs.blocking_recv() {
                    Some(job) => job,
                    None => return false,
                }
            } else {
                match jobs.try_recv() {
                    Ok(job) => job,
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => return true,
                }
            };
            self.begin(job, stop);
        }
        true
    }

    /// Makes the prompt and finds a slot.
    fn begin(&mut self, job: ChatJob, stop: &CancellationToken) {
        let ChatJob {
            request,
            events,
            since,
            load,
            counters,
            ticket,
        } = job;
        let begun = Instant::now();
        let queue = begun - since;
        let Some(outlet) = Outlet::new(events) else {
            counters.send_modify(|total| total.cancelled += 1);
            return;
        };
        let account = Account {
            counters,
            load,
            ticket,
        };
        if stop.is_cancelled() {
            return refuse(outlet, &account, InferenceError::Stopping);
        }
        if request
            .begin_within
            .is_some_and(|patience| queue > patience)
        {
            let error = InferenceError::Overloaded {
                task: Task::Chat,
                queued: account.load.in_flight(),
                capacity: QUEUE,
                wait_ms: millis(queue),
            };
            return refuse(outlet, &account, error);
        }
        let capacity = self.desk.slots.capacity();
        let reserved = request.max_tokens.min(capacity / 4);
        let prompt = self
            .prompts
            .make(&request.messages, &request.tools, capacity - reserved);
        let prompt = match prompt {
            Ok(prompt) => prompt,
            Err(error) => return refuse(outlet, &account, error),
        };
        let need = prompt.ids.len().saturating_add(request.max_tokens);
        let guide = match self.guide(request.form.as_ref()) {
            Ok(guide) => guide,
            Err(error) => return refuse(outlet, &account, error),
        };
        let chooser = Chooser {
            sampler: Sampler::new(request.sampling, &prompt.ids),
            guide,
            stops: StopStrings::new(&request.stop),
            top_logprobs: request.logprobs,
            speculation: request.speculation,
            propose: lookup::propose,
        };
        let limits = Limits {
            max_tokens: request.max_tokens,
            capacity,
            end_of_turn: self.end_of_turn.clone(),
        };
        let text = TextStream::new(self.prompts.tokenizer());
        let encode = begun.elapsed();
        let sequence = Sequence::new(
            prompt.ids,
            limits,
            chooser,
            text,
            outlet,
            account,
            (queue, encode),
        );
        self.seat(Parked {
            sequence,
            need,
            dropped_messages: prompt.dropped,
        });
    }

    /// Compiles the form of an answer: 1 to some 100 ms, in which nothing else runs.
    fn guide(&self, form: Option<&Form>) -> Result<Option<Guide>, InferenceError> {
        let Some(form) = form else { return Ok(None) };
        let grammars = self.grammars.as_ref().map_err(|reason| {
            let reason = format!("this model's tokenizer cannot be held to one: {reason}");
            InferenceError::Form { reason }
        })?;
        grammars.compile(form).map(Some)
    }

    /// Gives a sequence its slot, or parks it; `false` when it is parked.
    fn seat(&mut self, parked: Parked) -> bool {
        let Parked {
            sequence,
            need,
            dropped_messages,
        } = parked;
        if !sequence.is_wanted() {
            sequence.end(Err(Ended::Cancelled));
            return true;
        }
        let (id, claim) = match self.desk.admit(sequence, need) {
            Ok(admitted) => admitted,
            Err(sequence) => {
                self.parked = Some(Parked {
                    sequence,
                    need,
                    dropped_messages,
                });
                return false;
            }
        };
        for slot in claim.released {
            self.graph.release(slot);
        }
        if let Some(from) = claim.copy_from
            && let Err(error) = self.graph.copy(from, claim.slot, claim.reused)
        {
            self.desk.slots.note_released(claim.slot);
            self.desk.end(id, Err(Ended::Failed(error.into())));
            return true;
        }
        let reused = self.restore(id, claim.slot, claim.reused);
        if let Some(sequence) = self.desk.sequence_mut(id) {
            sequence.start(reused, dropped_messages);
        }
        true
    }

    /// Takes from the disk what memory does not hold of a prompt; how much of it the slot holds then.
    fn restore(&mut self, id: SequenceId, slot: usize, reused: usize) -> usize {
        let (Some(shelf), Some(sequence)) = (&self.shelf, self.desk.sequence_mut(id)) else {
            return reused;
        };
        let prompt = sequence.known();
        let usable = prompt.len().saturating_sub(ALWAYS_COMPUTED);
        let mut held = reused;
        for (name, segment) in shelf.chain(&prompt[..usable]) {
            if segment.to <= held {
                continue;
            }
            let Some(bytes) = shelf.read(name, &segment) else {
                break;
            };
            // The segments follow one another without a gap, so the slot holds all that is before this one.
            match self.graph.import(slot, segment.from..segment.to, &bytes) {
                Ok(true) => held = segment.to,
                Ok(false) => {
                    tracing::warn!(
                        bytes = bytes.len(),
                        tokens = segment.to - segment.from,
                        "a conversation's cache has another shape than the model's"
                    );
                    break;
                }
                Err(error) => {
                    tracing::warn!(%error, "a conversation's cache cannot be taken in");
                    break;
                }
            }
        }
        if held > reused {
            self.desk.note_restored(id, held);
        }
        held
    }

    /// Offers what a finished sequence left in its slot to the disk: its prompt and its answer apart, since the next turn may
    /// write the answer in other tokens.
    fn keep(&mut self, finished: &Finished) {
        let Some(shelf) = &self.shelf else { return };
        let tokens = self.desk.slots.tokens(finished.slot);
        let mut from = shelf.kept(tokens);
        for to in [finished.prompt_tokens, tokens.len()] {
            if to > tokens.len() || to < from + SEGMENT_TOKENS_MIN {
                continue;
            }
            match self.graph.export(finished.slot, from..to) {
                Ok(bytes) => shelf.offer(&tokens[..to], from, bytes),
                Err(error) => {
                    tracing::warn!(%error, "a conversation's cache cannot be kept");
                    return;
                }
            }
            from = to;
        }
    }

    fn run(&mut self, step: &Step, stop: &CancellationToken) {
        let (ids, result) = match step {
            Step::Together(ids) => (ids.as_slice(), self.run_together(ids)),
            Step::Alone(id, count) => (std::slice::from_ref(id), self.run_alone(*id, *count)),
        };
        let Err(fault) = result else { return };
        if stop.is_cancelled() {
            // The run was ended from outside; everybody is told so in the next turn.
            return;
        }
        for &id in ids {
            self.desk.end(id, Err(Ended::Failed(fault.to_error())));
        }
    }

    fn run_together(&mut self, ids: &[SequenceId]) -> Result<(), Fault> {
        let places: Vec<usize> = self.desk.rows(ids).iter().map(|row| row.0).collect();
        for (row, vacant, tokens) in self.desk.slots.gather(&places) {
            self.graph.swap(row, vacant, tokens);
            self.desk.slots.swap(row, vacant);
        }
        let rows = self.desk.rows(ids);
        let Some(&(first, ..)) = rows.first() else {
            return Ok(());
        };
        let inputs: Vec<(usize, u32)> = rows.iter().map(|row| (row.1, row.2)).collect();
        let logits = self.graph.together(first, &inputs)?;
        check_logits(logits, rows.len() * self.vocab_size)?;
        for ((_, _, token, id), logits) in
            rows.into_iter().zip(logits.chunks_exact(self.vocab_size))
        {
            self.desk.note_run(id, &[token], 0, std::iter::once(logits));
        }
        Ok(())
    }

    fn run_alone(&mut self, id: SequenceId, count: usize) -> Result<(), Fault> {
        let Some(piece) = self.desk.piece(id, count) else {
            return Ok(());
        };
        let wanted = piece.drafts + 1;
        let logits = self
            .graph
            .alone(piece.slot, piece.past, &piece.ids, wanted)?;
        check_logits(logits, wanted * self.vocab_size)?;
        let rows = logits.chunks_exact(self.vocab_size);
        self.desk.note_run(id, &piece.ids, piece.drafts, rows);
        Ok(())
    }

    fn end_all(&mut self, error: impl Fn() -> InferenceError) {
        self.desk.end_all(&error);
        if let Some(Parked { sequence, .. }) = self.parked.take() {
            sequence.end(Err(Ended::Failed(error())));
        }
    }
}

/// What went wrong with a run; all its sequences are told.
enum Fault {
    Run(Arc<ort::Error>),
    Logits { expected: usize, actual: usize },
}

impl From<ort::Error> for Fault {
    fn from(error: ort::Error) -> Self {
        Self::Run(Arc::new(error))
    }
}

impl Fault {
    fn to_error(&self) -> InferenceError {
        match self {
            Self::Run(source) => InferenceError::Run {
                source: Arc::clone(source),
            },
            &Self::Logits { expected, actual } => InferenceError::Output {
                name: "logits",
                expected,
                actual,
            },
        }
    }
}

fn check_logits(logits: &[f32], expected: usize) -> Result<(), Fault> {
    let actual = logits.len();
    if actual == expected {
        Ok(())
    } else {
        Err(Fault::Logits { expected, actual })
    }
}

/// The snapshots of this model. Without them it serves as well, so what is wrong with them is said and no more.
fn shelf(bundle: &Bundle, runtime: &Runtime, setup: &Setup) -> Option<Shelf> {
    let config = setup.snapshots.clone()?;
    let directory = config.directory.clone();
    // The manifest has the digests of all files, and the layout and type of the cache.
    let fingerprint = fs::read(bundle.path(MANIFEST_FILE)).map(|manifest| {
        let manifest = hex::encode(Sha256::digest(manifest));
        let (provider, build) = (&runtime.placement().candidate, runtime.build());
        format!("1|{manifest}|{provider}|{build}")
    });
    match fingerprint.and_then(|fingerprint| Shelf::open(config, fingerprint)) {
        Ok(shelf) => Some(shelf),
        Err(error) => {
            tracing::warn!(%error, directory = %directory.display(), "conversations' caches are not kept");
            None
        }
    }
}

/// The caches' shape, and how many tokens they may take memory for together.
fn geometry(graph: &ChatGraph, setup: &Setup) -> Result<(Geometry, usize), LoadError> {
    let kind = ElementKind::from_name(&graph.kv_type)
        .expect("Bundle::open checked that the cache's type is one of these");
    let geometry = Geometry {
        tensors: graph.layers * 2,
        heads: graph.kv_heads,
        dim: graph.head_dim,
        kind,
        capacity: setup.context_tokens.min(graph.context_tokens),
        slots: setup.chat_sessions.get(),
    };
    let limit = u128::from(budget::limit_bytes());
    let bytes = geometry
        .token_bytes()
        .saturating_mul(geometry.capacity as u128);
    if bytes > limit {
        return Err(LoadError::CacheTooLarge {
            tokens: geometry.capacity,
            bytes,
            limit,
        });
    }
    let budget = usize::try_from(limit / geometry.token_bytes().max(1)).unwrap_or(usize::MAX);
    Ok((geometry, budget))
}
