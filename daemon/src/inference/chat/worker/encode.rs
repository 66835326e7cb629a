//! From a request to a sequence that only needs a row: prompt, tokens, the form of the answer. On threads of its own, since a form takes 1 to
//! some 100 ms to compile and a long conversation milliseconds to tokenize, in which no stream may stand still.
//!
//! Two threads take requests from the queues, the most urgent first; one of them leaves those with a form alone, so that nobody waits for
//! another one's form.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread,
    time::Instant,
};

use tokio_util::sync::CancellationToken;

use super::{
    super::{
        super::{
            class::Class,
            error::{InferenceError, Wait},
            jobs::{Jobs, Place, Taken},
            manifest::Task,
        },
        ChatJob,
        cache::slots::SequenceId,
        constrain::{Form, Grammars, Guide},
        lookup,
        outlet::Outlet,
        prompt::PromptMaker,
        sampler::Sampler,
        sequence::{self, Account, Chooser, Ended, Limits, Sequence},
        stop::StopStrings,
        text::TextStream,
    },
    restore::Arrival,
};

/// Requests of a class, or more urgent ones, that are made ready before there is a row for them. Chosen because a row that becomes free is
/// then taken at once, and a form may take up to 64 MB.
const AHEAD: usize = 2;

/// What it takes to make sequences.
pub(super) struct Encoder {
    pub(super) prompts: PromptMaker,
    /// `Err` says why no answer can be held to a form.
    pub(super) grammars: Result<Grammars, String>,
    pub(super) end_of_turn: Arc<[u32]>,
    /// Tokens that a cache holds.
    pub(super) capacity: usize,
}

/// A request that needs a row.
pub(super) struct Prepared {
    pub(super) id: SequenceId,
    pub(super) class: Class,
    pub(super) since: Instant,
    /// Nobody wants it any more if it begins later.
    pub(super) begin_by: Option<Instant>,
    pub(super) sequence: Sequence,
    /// Most tokens that it may come to hold.
    pub(super) need: usize,
    pub(super) dropped_messages: usize,
    /// Keeps its place in the queue.
    pub(super) place: Place<ChatJob>,
}

/// Starts the threads, and says how many. They end when no more jobs come.
pub(super) fn spawn<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    encoder: &Arc<Encoder>,
    jobs: &'scope Jobs<ChatJob>,
    stop: &'scope CancellationToken,
    ready: &mpsc::SyncSender<Arrival>,
) -> usize {
    let all = [true, false];
    for takes_forms in all {
        let (encoder, leaving) = (Arc::clone(encoder), Leaving(ready.clone()));
        scope.spawn(move || {
            let wants = |job: &ChatJob| takes_forms || job.request.form.is_none();
            while let Some(taken) = jobs.take(AHEAD, wants) {
                // A panic costs its request, whose stream ends, and nobody else's.
                let made = catch_unwind(AssertUnwindSafe(|| encoder.prepare(taken, stop)));
                if let Ok(Some(made)) = made
                    && leaving.0.send(Arrival::Prepared(Box::new(made))).is_err()
                {
                    return;
                }
            }
        });
    }
    all.len()
}

/// Tells at its end, however that comes, that nothing more is prepared by this thread.
struct Leaving(mpsc::SyncSender<Arrival>);

impl Drop for Leaving {
    fn drop(&mut self) {
        // Nobody listens where the model's thread broke down.
        let _ = self.0.send(Arrival::Left);
    }
}

impl Encoder {
    /// Makes a sequence; `None` when there is nothing to make, and it is said why.
    fn prepare(&self, taken: Taken<ChatJob>, stop: &CancellationToken) -> Option<Prepared> {
        let Taken {
            number: id,
            class,
            since,
            job,
            place,
        } = taken;
        let ChatJob {
            request,
            events,
            since: _,
            load,
            counters,
            ticket,
        } = job;
        let begun = Instant::now();
        let Some(outlet) = Outlet::new(events) else {
            counters.send_modify(|total| total.cancelled += 1);
            return None;
        };
        let account = Account {
            counters,
            load,
            bytes: request.bytes(),
            ticket,
        };
        if stop.is_cancelled() {
            sequence::refuse(outlet, &account, InferenceError::Stopping);
            return None;
        }
        let reserved = request.max_tokens.min(self.capacity / 4);
        let limit = self.capacity - reserved;
        let prompt = self.prompts.make(&request.messages, &request.tools, limit);
        let made = prompt.and_then(|prompt| Ok((prompt, self.guide(request.form.as_ref())?)));
        let (prompt, guide) = match made {
            Ok(made) => made,
            Err(error) => {
                sequence::refuse(outlet, &account, error);
                return None;
            }
        };
        let need = prompt.ids.len().saturating_add(request.max_tokens);
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
            capacity: self.capacity,
            end_of_turn: self.end_of_turn.clone(),
        };
        let text = TextStream::new(self.prompts.tokenizer());
        let sequence = Sequence::new(
            prompt.ids,
            limits,
            chooser,
            text,
            outlet,
            account,
            (begun - since, begun.elapsed()),
        );
        Some(Prepared {
            id,
            class,
            since,
            begin_by: request.begin_within.map(|patience| since + patience),
            sequence,
            need,
            dropped_messages: prompt.dropped,
            place,
        })
    }

    fn guide(&self, form: Option<&Form>) -> Result<Option<Guide>, InferenceError> {
        let Some(form) = form else { return Ok(None) };
        let grammars = self.grammars.as_ref().map_err(|reason| {
            let reason = format!("this model's tokenizer cannot be held to one: {reason}");
            InferenceError::Form { reason }
        })?;
        grammars.compile(form).map(Some)
    }
}

impl Prepared {
    /// It will not begin in time.
    pub(super) fn refuse_late(self, now: Instant) {
        let before = self.sequence.in_flight(self.class);
        let error = late(self.class, before, self.since, now);
        self.sequence.end(Err(Ended::Failed(error)));
    }
}

/// Refuses jobs that wait longer than they may.
pub(super) fn refuse_late(jobs: &Jobs<ChatJob>, now: Instant) {
    let is_late = |job: &ChatJob, since: Instant| {
        let patience = job.request.begin_within;
        patience.is_some_and(|patience| now.saturating_duration_since(since) > patience)
    };
    for job in jobs.extract(is_late) {
        let class = job.request.class;
        let error = late(class, job.load.in_flight(class), job.since, now);
        refuse(job, error);
    }
}

/// Refuses a job that nobody has taken.
pub(super) fn refuse(job: ChatJob, error: InferenceError) {
    let Some(outlet) = Outlet::new(job.events) else {
        job.counters.send_modify(|total| total.cancelled += 1);
        return;
    };
    let account = Account {
        counters: job.counters,
        load: job.load,
        bytes: 0,
        ticket: job.ticket,
    };
    sequence::refuse(outlet, &account, error);
}

fn late(class: Class, queued: usize, since: Instant, now: Instant) -> InferenceError {
    InferenceError::Overloaded {
        task: Task::Chat,
        class,
        queued,
        capacity: class.places(),
        wait: Wait::Passed(now.saturating_duration_since(since)),
    }
}
