//! The chat model on its thread: takes requests in, makes their prompts, runs the model for all of them in turns, streams.

use std::{sync::Arc, time::Instant};

use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        bundle::Bundle,
        error::{InferenceError, LoadError, millis},
        manifest::Task,
        runtime::Runtime,
        slot::{Model, QUEUE, Setup},
        status::LoadStage,
    },
    ChatJob,
    batch::Step,
    cache::slots::SequenceId,
    constrain::{Form, Grammars, Guide},
    desk::{ALWAYS_COMPUTED, Desk, Finished},
    graph::DecoderGraph,
    lookup,
    outlet::Outlet,
    prompt::PromptMaker,
    sampler::Sampler,
    sequence::{Account, Chooser, Ended, Limits, Sequence, refuse},
    snapshot::{Shelf, index::cuts},
    stop::StopStrings,
    text::TextStream,
};

mod loading;

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
        loading::load(bundle, runtime, setup, on_stage)
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
        for (name, segment) in shelf.chain(prompt) {
            if segment.to <= held {
                continue;
            }
            if held == usable {
                break;
            }
            let Some(bytes) = shelf.read(name, &segment) else {
                break;
            };
            // The segments follow one another without a gap, so the slot holds all that is before this one.
            match self.graph.import(slot, segment.from..segment.to, &bytes) {
                Ok(true) => held = segment.to.min(usable),
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

    /// Offers what a finished sequence left in its slot to the disk.
    fn keep(&mut self, finished: &Finished) {
        let Some(shelf) = &self.shelf else { return };
        let tokens = self.desk.slots.tokens(finished.slot);
        let mut from = shelf.kept(tokens);
        for to in cuts(from, finished.prompt_tokens, tokens.len()) {
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
