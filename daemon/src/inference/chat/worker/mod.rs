//! The chat model on its thread: gives rows to requests that are ready, runs the model for all of them in turns, streams. `loading` brings it
//! there, `encode` makes requests ready and `restore` reads caches from the disk, on threads of their own; [`schedule`](super::schedule) and [`batch`](super::batch) decide.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use self::{
    encode::{Encoder, Prepared},
    restore::{ARRIVALS, Arrival, Restore, Restoring},
};
use super::{
    super::{
        bundle::Bundle,
        error::{InferenceError, LoadError},
        jobs::Jobs,
        manifest::Task,
        runtime::Runtime,
        slot::{Model, Setup},
        status::LoadStage,
    },
    ChatJob,
    batch::Step,
    cache::slots::SequenceId,
    desk::{Desk, Finished},
    graph::DecoderGraph,
    pulse::Pulse,
    schedule::Schedule,
    sequence::Ended,
    snapshot::{Shelf, index::cuts},
};

mod encode;
mod loading;
mod restore;

/// How long is waited before it is looked again whether those that rest may go on, or nobody wants them any more.
const REST: Duration = Duration::from_millis(100);

/// The model, owned by its thread.
pub(in super::super) struct Chat {
    graph: Box<dyn DecoderGraph>,
    vocab_size: usize,
    encoder: Arc<Encoder>,
    schedule: Schedule,
    /// Those that have not begun.
    waiting: BTreeMap<SequenceId, Prepared>,
    /// Those that have: running or parked.
    desk: Desk,
    /// Those of them whose cache is on its way from the disk.
    restoring: BTreeMap<SequenceId, Restoring>,
    shelf: Option<Arc<Shelf>>,
    /// The bundle's name.
    bundle: Arc<str>,
    pulse: Arc<Pulse>,
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

    fn refuse(job: ChatJob, error: InferenceError) {
        encode::refuse(job, error);
    }

    fn serve(mut self, jobs: &Jobs<ChatJob>, stop: &CancellationToken) {
        thread::scope(|scope| {
            // Ends the other threads' waiting also if this one panics.
            let _resign = Resign(jobs);
            let encoder = Arc::clone(&self.encoder);
            let (tell, arrivals) = mpsc::sync_channel(ARRIVALS);
            let mut encoders = encode::spawn(scope, &encoder, jobs, stop, &tell);
            let shelf = self.shelf.clone();
            let reads = shelf.map(|shelf| restore::spawn(scope, shelf, tell));
            self.pulse.begin();
            let mut is_idle = false;
            while self.take_in(&arrivals, is_idle, &mut encoders) {
                if stop.is_cancelled() {
                    self.end_all(|| InferenceError::Stopping);
                }
                self.drop_unwanted(jobs);
                self.desk.rest_background(jobs.background_rests());
                self.give_rows(reads.as_ref());
                let step = self.desk.next();
                is_idle = step.is_none();
                if let Some(step) = step {
                    self.run(&step, stop);
                }
                for finished in self.desk.take_finished() {
                    self.keep(&finished);
                }
            }
        });
    }
}

struct Resign<'a>(&'a Jobs<ChatJob>);

impl Drop for Resign<'_> {
    fn drop(&mut self) {
        self.0.resign();
    }
}

impl Chat {
    /// Takes in what has arrived, and waits for it when there is nothing to do: a while where those that are here rest. `false` at the end.
    fn take_in(
        &mut self,
        arrivals: &Receiver<Arrival>,
        is_idle: bool,
        encoders: &mut usize,
    ) -> bool {
        let is_empty = self.desk.is_empty() && self.waiting.is_empty();
        // No more in one turn than may wait, so that answers go on however fast a disk is.
        for taken in 0..=ARRIVALS {
            let arrival = match (taken, is_empty, is_idle) {
                (0, true, _) if *encoders == 0 => return false,
                (0, true, _) => arrivals.recv().ok(),
                (0, false, true) => arrivals.recv_timeout(REST).ok(),
                _ => arrivals.try_recv().ok(),
            };
            match arrival {
                Some(Arrival::Prepared(new)) => {
                    self.schedule.arrive(new.id, new.class, new.since);
                    self.waiting.insert(new.id, *new);
                }
                Some(Arrival::Segment { id, tokens, bytes }) => self.import(id, tokens, &bytes),
                Some(Arrival::Restored(id)) => self.end_restoring(id),
                Some(Arrival::Left) => *encoders = encoders.saturating_sub(1),
                None => break,
            }
        }
        true
    }

    /// Ends what nobody reads any more, and what waits for longer than it may.
    fn drop_unwanted(&mut self, jobs: &Jobs<ChatJob>) {
        let now = Instant::now();
        self.desk.drop_unwanted();
        encode::refuse_late(jobs, now);
        let is_late = |one: &Prepared| one.begin_by.is_some_and(|latest| now > latest);
        let out = |one: &Prepared| is_late(one) || !one.sequence.is_wanted();
        let out: Vec<SequenceId> = self
            .waiting
            .iter()
            .filter(|(_, one)| out(one))
            .map(|(&id, _)| id)
            .collect();
        for id in out {
            self.schedule.remove(id);
            match self.waiting.remove(&id) {
                Some(one) if one.sequence.is_wanted() => one.refuse_late(now),
                Some(one) => one.sequence.end(Err(Ended::Cancelled)),
                None => {}
            }
        }
    }

    /// Gives rows to those whose turn it is.
    fn give_rows(&mut self, reads: Option<&Sender<Restore>>) {
        self.note_ended();
        let now = Instant::now();
        while let Some(turn) = self.schedule.next(now) {
            if let Some(out) = turn.instead_of {
                // What it has so far is what it goes on with; it takes no more memory meanwhile.
                self.end_restoring(out);
                self.desk.park(out);
                self.schedule.note_parked(out, now);
            }
            let has_row = match self.waiting.remove(&turn.id) {
                Some(new) => self.begin(new, reads),
                None => self.resume(turn.id),
            };
            if has_row {
                self.schedule.note_seated(turn.id, now);
            } else {
                self.schedule.note_blocked(turn.id);
            }
            self.note_ended();
        }
        // The schedule's rule about memory says that this cannot be; if it is, one error is better than a model that stands still.
        if let Some(id) = self.schedule.stuck(now) {
            match self.waiting.remove(&id) {
                Some(one) => one.refuse_late(now),
                None => self.desk.end(id, Err(Ended::Cancelled)),
            }
            self.schedule.remove(id);
        }
    }

    fn note_ended(&mut self) {
        for id in self.desk.take_ended() {
            self.schedule.remove(id);
            self.restoring.remove(&id);
        }
        for slot in self.desk.slots.surplus() {
            self.graph.release(slot);
        }
    }

    /// Goes on with one that was parked; `false` when there is no memory for it.
    fn resume(&mut self, id: SequenceId) -> bool {
        let Some(released) = self.desk.resume(id) else {
            return false;
        };
        for slot in released {
            self.graph.release(slot);
        }
        true
    }

    /// Gives a new one its slot; `false` when there is no memory for it, and it waits.
    fn begin(&mut self, new: Prepared, reads: Option<&Sender<Restore>>) -> bool {
        let Prepared {
            id,
            class,
            since,
            begin_by,
            sequence,
            need,
            dropped_messages,
            place,
        } = new;
        let claim = match self.desk.admit(id, class, sequence, need) {
            Ok(claim) => claim,
            Err(sequence) => {
                let again = Prepared {
                    id,
                    class,
                    since,
                    begin_by,
                    sequence,
                    need,
                    dropped_messages,
                    place,
                };
                self.waiting.insert(id, again);
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
        let is_held = self.ask_for_cache(id, claim.reused, dropped_messages, reads);
        self.desk.hold(id, is_held);
        if !is_held && let Some(sequence) = self.desk.sequence_mut(id) {
            sequence.start(claim.reused, dropped_messages, &self.bundle);
        }
        true
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
        let held = inputs.iter().map(|(past, _)| *past).max().unwrap_or(0);
        let begun = Instant::now();
        let logits = self.graph.together(first, &inputs)?;
        let ended = Instant::now();
        self.pulse.note(inputs.len(), held, ended - begun, ended);
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
        for (id, one) in std::mem::take(&mut self.waiting) {
            self.schedule.remove(id);
            one.sequence.end(Err(Ended::Failed(error())));
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
